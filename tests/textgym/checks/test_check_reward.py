"""check_reward passes sound rewards, and names the law that an unsound one breaks."""

import functools
import itertools
import threading

import numpy as np
import pytest

from textgym.checks import check_reward
from textgym.tasks import Example, Task


@pytest.fixture
def check(byte_tokenizer):
    return functools.partial(check_reward, tokenizer=byte_tokenizer)


class Vowels:
    """A sound reward with state: the vowels in a row, 0.1 for each so far, for every token."""

    def __init__(self):
        self.counts = np.zeros(0)

    def start(self, rows, completions):
        if len(self.counts) != completions.num_rows:
            self.counts = np.zeros(completions.num_rows)
        self.counts[rows] = 0.0

    def step(self, rows, tokens, completions):
        self.counts[rows] += np.isin(tokens, [1 + byte for byte in b"aeiou"])
        return (0.1 * self.counts[rows]).astype(np.float32)


class StateLeaks(Vowels):
    def start(self, rows, completions):
        if len(self.counts) != completions.num_rows:
            self.counts = np.zeros(completions.num_rows)


class ResetsOnlyAtTheEnd(Vowels):
    """Forgets the last episode as it ends, which one that was given up never does."""

    def start(self, rows, completions):
        if len(self.counts) != completions.num_rows:
            self.counts = np.zeros(completions.num_rows)

    def step(self, rows, tokens, completions):
        paid = super().step(rows, tokens, completions)
        self.counts[rows[completions.ended[rows]]] = 0.0
        return paid


class IndexesByPlace(Vowels):
    def step(self, rows, tokens, completions):
        k = np.arange(len(rows))
        self.counts[k] += np.isin(tokens, [1 + byte for byte in b"aeiou"])
        return (0.1 * self.counts[k]).astype(np.float32)


class OneRowOnly(Vowels):
    def start(self, rows, completions):
        self.counts = np.zeros(len(rows))


class NormalisesOverTheBatch(Vowels):
    def step(self, rows, tokens, completions):
        paid = super().step(rows, tokens, completions)
        return paid - paid.mean() if len(rows) > 1 else paid


class PaysTheFirstRowMore(Vowels):
    def step(self, rows, tokens, completions):
        paid = super().step(rows, tokens, completions)
        paid[1:] *= 0.5
        return paid


class PaysByRow(Vowels):
    def step(self, rows, tokens, completions):
        return super().step(rows, tokens, completions) + np.float32(0.01) * rows


class SharesItsState(Vowels):
    shared: dict = {}  # noqa: RUF012  # that is what is wrong with it

    def start(self, rows, completions):
        for row in rows.tolist():
            self.shared[row] = 0

    def step(self, rows, tokens, completions):
        for row in rows.tolist():
            self.shared[row] += 1
        return np.array([self.shared[row] for row in rows.tolist()], np.float32)


class Squeezes(Vowels):
    def step(self, rows, tokens, completions):
        return super().step(rows, tokens, completions).squeeze()


class PaysAColumn(Vowels):
    def step(self, rows, tokens, completions):
        return super().step(rows, tokens, completions)[:, None]


class WritesToItsArguments(Vowels):
    def step(self, rows, tokens, completions):
        paid = super().step(rows, tokens, completions)
        tokens[:] = 0
        return paid


class WritesToTheText(Vowels):
    def step(self, rows, tokens, completions):
        completions.token_ids(int(rows[0]))[:] = 1
        return super().step(rows, tokens, completions)


class LosesStateInAPickle(Vowels):
    def __getstate__(self):
        return {"counts": self.counts * 0.0 - 1.0}

    def __deepcopy__(self, memo):
        return type(self)()


class HoldsALock(Vowels):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class CountsIdsInSecret:
    """Says that only the text matters, and reads the token ids."""

    text_only = True

    def score(self, samples):
        return [float(len(sample.token_ids)) for sample in samples]


class Novelty:
    """Likes a text the less the more often it has seen it."""

    def __init__(self):
        self.seen: dict[str, int] = {}

    def score(self, samples):
        for sample in samples:
            self.seen[sample.text] = self.seen.get(sample.text, 0) + 1
        return [1.0 / self.seen[sample.text] for sample in samples]


class BestOfBatch:
    def score(self, samples):
        longest = max(len(sample.text) for sample in samples)
        return [float(len(sample.text) == longest) for sample in samples]


def mean_word_length(text):
    words = text.split()
    return np.mean([len(word) for word in words]) if words else 0.0


def mean_of_nothing(text):
    return sum(map(len, text.split())) / len(text.split())


def not_a_number_if_empty(text):
    return float("nan") if not text else 1.0 / len(text)


_calls = itertools.count()


def noisy(text):
    return len(text) + 0.01 * next(_calls)


ONE_NUMBER = "it pays every token one finite number"
SAME = "it pays the same for the same text each time"
BATCH = "a text earns the same whatever the other rows of its batch are doing"
ROW = "a text earns the same in every row"
EPISODES = "an episode begins with nothing left of the one before"
COPIES = "two environments do not share state"
ARGUMENTS = "it changes nothing that it is given"
SUM = "the immediate rewards add up to what the delayed timing pays"
PICKLE = "it goes on after pickling as if nothing had happened"

BROKEN = [
    (StateLeaks, EPISODES, "In `start`, reset all state"),
    (ResetsOnlyAtTheEnd, EPISODES, "given up half-way"),
    (IndexesByPlace, BATCH, r"state\[rows\]"),
    (OneRowOnly, ROW, "completions.num_rows"),
    (NormalisesOverTheBatch, BATCH, "no mean or rank over the batch"),
    (PaysTheFirstRowMore, BATCH, "from that row alone"),
    (PaysByRow, ROW, "matters for nothing else"),
    (SharesItsState, COPIES, "not in its class or module"),
    (Squeezes, ONE_NUMBER, r"shape \(k,\)"),
    (PaysAColumn, ONE_NUMBER, r"shape \(k,\)"),
    (WritesToItsArguments, ARGUMENTS, "Copy an array"),
    (WritesToTheText, ARGUMENTS, "Copy an array"),
    (LosesStateInAPickle, PICKLE, "__getstate__"),
    (CountsIdsInSecret, SUM, "text_only = True"),
    (Novelty, EPISODES, "A `Score` keeps no state at all"),
    (Novelty(), SAME, "count no calls"),
    (BestOfBatch, BATCH, "no mean or rank over the batch"),
    (noisy, SAME, "Draw no random numbers"),
    (not_a_number_if_empty, ONE_NUMBER, "empty text"),
    (mean_of_nothing, ONE_NUMBER, "empty text"),
    (lambda text: "good", ONE_NUMBER, "one number"),
    (lambda completions: [0.0], BATCH, "about some rows only"),
]


@pytest.mark.parametrize(("reward", "law", "cure"), BROKEN)
def test_a_broken_reward_is_told_which_law_it_breaks(check, reward, law, cure):
    with pytest.raises(AssertionError) as error:
        check({"mine": reward})
    message = str(error.value)
    assert message.startswith(f"reward 'mine' breaks the law that {law}.")
    lines = dict(line.strip().split(":", 1) for line in message.splitlines()[1:])
    assert {"prompt", "text", "cure"} <= lines.keys()
    if law != ARGUMENTS:
        assert "got" in lines
    error.match(cure)


def test_the_message_holds_all_that_is_needed(check):
    with pytest.raises(AssertionError) as error:
        check({"mine": StateLeaks}, examples=[Example("Go", "on")])
    lines = str(error.value).splitlines()
    assert lines[1] == "  prompt:    'Go'"
    assert lines[2] == "  text:      ''"
    assert lines[3] == "  reference: 'on'"
    assert lines[4] == "  token:     1 of 1, ''"
    assert lines[5] == "  expected:  0 (alone)"
    assert lines[6].startswith("  got:       0.")
    assert lines[6].endswith("(after other episodes)")


def test_the_part_of_a_sum_that_is_broken_is_named(check):
    with pytest.raises(AssertionError, match="reward 'second' breaks the law"):
        check({"first": "length", "second": StateLeaks, "third": Vowels})


def test_a_reward_that_raised_keeps_its_traceback(check):
    with pytest.raises(AssertionError, match="it raised ZeroDivisionError") as error:
        check(mean_of_nothing)
    assert isinstance(error.value.__cause__.__cause__.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "reward",
    [
        Vowels,
        Vowels(),
        mean_word_length,
        len,
        lambda text, token_ids: len(token_ids) - 0.5 * len(text),
        {"length": 1.0, "mine": {"name": Vowels, "weight": 0.0}},
        lambda completions, **columns: [1e6 * len(c) for c in completions],
    ],
)
def test_a_sound_reward_passes(check, reward):
    check(reward)


def test_a_reward_may_differ_by_rounding_only_within_the_tolerance(check):
    class Rounds:
        def score(self, samples):
            return [len(sample.text) + 1e-3 * len(samples) for sample in samples]

    with pytest.raises(AssertionError, match=BATCH):
        check(Rounds(), tolerance=1e-5)
    check(Rounds(), tolerance=1e-2)


def test_columns_come_from_the_task_or_from_examples(check):
    def graded(text, level):
        return level * len(text)

    with pytest.raises(AssertionError, match="has a parameter 'level'"):
        check(graded)
    examples = [Example("a", None, {"level": 1}), Example("b", None, {"level": 2})]
    check(graded, examples=examples)
    check(graded, task=Task("graded", {"train": tuple(examples)}))
    with pytest.raises(ValueError, match="give one of them"):
        check(graded, examples=examples, task="continuation")


def test_small_and_odd_batches(check):
    for num_rows in (2, 3, 40):
        check(Vowels, num_rows=num_rows)
        with pytest.raises(AssertionError, match=EPISODES):
            check(StateLeaks, num_rows=num_rows)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        check(Vowels, num_rows=1)


def test_other_tokenizers(tiny_tokenizer_dir):
    check_reward(len, tokenizer=tiny_tokenizer_dir)
    with pytest.raises(AssertionError, match=EPISODES):
        check_reward(make_leak_of_any_token(), tokenizer=tiny_tokenizer_dir)


def make_leak_of_any_token():
    class Leak(StateLeaks):
        def step(self, rows, tokens, completions):
            self.counts[rows] += 1
            return self.counts[rows].astype(np.float32)

    return Leak


def test_a_reward_that_cannot_be_pickled_is_warned_about(check):
    with pytest.warns(UserWarning, match=r"'HoldsALock' cannot be pickled .*lock.*Open files"):
        check(HoldsALock)


def test_an_unknown_reward_is_not_a_broken_one(check):
    with pytest.raises(ValueError, match="no reward named 'lenght'; did you mean 'length'"):
        check("lenght")


def test_a_score_outside_of_its_range(check):
    class TooModest:
        score_range = (0.0, 1.0)

        def __call__(self, text):
            return float(len(text))

    with pytest.raises(AssertionError, match="its scores stay within its score_range"):
        check(TooModest)
    TooModest.score_range = (0.0, 1000.0)
    check(TooModest)
