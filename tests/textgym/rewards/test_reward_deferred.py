"""What is paid later is what would have been paid at once, however late, and to the same token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import textgym
from textgym import RewardError
from textgym.checks.differences import difference
from textgym.completion import Completions, Sample
from textgym.dynamics import Rows
from textgym.rewards import RemoteScore, make
from textgym.rewards.replay import replay
from textgym.tasks import Example
from textgym.unfinished import take_up, unfinished

gym.register_envs(textgym)

ROWS, STEPS = 4, 14


def worth(sample: Sample) -> float:
    """A number in which all that a sample says has its part."""
    letters = sum(ord(letter) for letter in sample.prompt + 3 * sample.text) % 17
    return letters / 7 + 0.1 * len(sample.token_ids) + len(sample.turns)


class Score:
    """Made at once."""

    success_threshold = 2.0

    def __init__(self, text_only: bool = False) -> None:
        self.text_only = text_only

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [len(sample.text) if self.text_only else worth(sample) for sample in samples]


class Late(Score):
    """Made whenever `answer` is called, in any order."""

    def __init__(self, text_only: bool = False) -> None:
        super().__init__(text_only)
        self.asked: list[tuple[Future[Sequence[float]], list[float]]] = []
        self.at_once = False

    def submit(self, samples: Sequence[Sample]) -> Future[Sequence[float]]:
        future: Future[Sequence[float]] = Future()
        self.asked.append((future, Score.score(self, samples)))
        if self.at_once:
            self.answer(random.Random(0))
        return future

    def score(self, samples: Sequence[Sample]) -> list[float]:
        raise AssertionError("nobody waits for it")

    def answer(self, rng: random.Random) -> None:
        rng.shuffle(self.asked)
        for future, scores in self.asked:
            future.set_result(scores)
        self.asked.clear()


class Ages:
    """Pays each token its place in the text: an ordinary reward with a state of its own."""

    def start(self, rows: Rows, completions: Completions) -> None:
        if not hasattr(self, "ages"):
            self.ages = np.zeros(completions.num_rows, np.float32)
        self.ages[rows] = 0

    def step(self, rows: Rows, tokens: np.ndarray, completions: Completions) -> np.ndarray:
        self.ages[rows] += 1
        return self.ages[rows]


REWARDS: dict[str, Any] = {
    "alone": lambda score: {"made": {"name": score}},
    "sum": lambda score: {"made": {"name": score, "weight": 0.3}, "ages": Ages, "length": -0.5},
    "schedule": lambda score: {
        "name": "schedule",
        "reward": {"made": {"name": score}, "length": 1},
        "tokens": 40,
    },
    "adaptive": lambda score: {
        "name": "adaptive",
        "rewards": {"made": {"name": score}, "length": 0.5},
        "goals": {"made": {"start": 0.5, "step": 0.25, "stop": 3.0}, "length": 0.3},
        "window": 3,
    },
    "heavy": lambda score: {  # which overflows
        "outer": {
            "name": "schedule",
            "reward": {"made": {"name": score, "weight": 1e18}},
            "start": 1.0,
        }
    },
    "sum in sum": lambda score: {
        "outer": {
            "name": "schedule",
            "reward": {
                "inner": {
                    "name": "adaptive",
                    "rewards": {
                        "deep": {"name": "schedule", "reward": {"ages": Ages}, "tokens": 20},
                        "length": 1.0,
                    },
                    "goals": {"length": 0.3},
                    "window": 2,
                },
                "made": {"name": score},
            },
            "tokens": 30,
        },
        "ages": Ages,
    },
}


@pytest.fixture(scope="module")
def make_env(byte_tokenizer: Any) -> Any:
    def make_one(score: Any, reward: str = "alone", **given: Any) -> Any:
        return gym.make_vec(
            "TextGen-v0",
            ROWS,
            reward=REWARDS[reward](score),
            tokenizer=byte_tokenizer,
            **{"autoreset_mode": "SameStep", "max_new_tokens": 5, **given},
        ).unwrapped

    return make_one


def assert_same(expected: Any, got: Any) -> None:
    assert difference("result", expected, got) is None


def test_what_a_remote_score_is() -> None:
    assert isinstance(Late(), RemoteScore)
    assert not isinstance(Score(), RemoteScore)
    assert make(REWARDS["sum in sum"](Late())).is_remote
    assert not make(REWARDS["sum in sum"](Score())).is_remote


@pytest.mark.parametrize("reward", sorted(REWARDS))
@examples(max_examples=25)
@given(data=st.data())
def test_settled_late_is_settled_at_once(make_env: Any, reward: str, data: st.DataObject) -> None:
    draw = data.draw
    given_ = {
        "every": draw(st.sampled_from(["token", "word", "sentence"])),
        "timing": draw(st.sampled_from(["immediate", "delayed"])),
        "autoreset_mode": draw(st.sampled_from(["SameStep", "NextStep"])),
        "task": draw(st.sampled_from(["continuation", "game"])),
        "budget_is_terminal": draw(st.booleans()),
    }
    text_only = draw(st.booleans())
    late = Late(text_only)
    at_once, ahead = (make_env(score, reward, **given_) for score in (Score(text_only), late))
    assert ahead.process.runs_ahead
    assert not at_once.process.runs_ahead
    assert_same(at_once.reset(seed=3), ahead.reset(seed=3))
    rng = random.Random(draw(st.integers(0, 99)))
    held = np.zeros(ROWS, np.bool_)
    expected, moved = [], []
    for step in range(STEPS):
        tokens = np.array(rng.choices([0, 33, 47, 66, 67, 200], [2, 4, 2, 8, 8, 1], k=ROWS))
        expected.append(at_once.step(tokens))
        moved.append(ahead.advance(tokens))
        if step == 8 and draw(st.booleans()):
            held[rng.randrange(ROWS)] = True
            at_once.hold(held)
            ahead.hold(held)
        if draw(st.integers(0, 3)) == 0 or step == STEPS - 1:
            late.answer(rng)
            for each in moved:
                assert each.owed.is_due
                rewards, infos = each.owed.settle()
                now = each.observations, rewards, each.terminated, each.truncated, infos
                assert_same(expected.pop(0), now)
            moved.clear()
            assert_same(at_once.reward_state(), ahead.reward_state())
            assert_same(at_once.reward_weights(), ahead.reward_weights())


def test_nothing_is_due_before_it_is_answered(make_env: Any) -> None:
    late = Late()
    env = make_env(late)
    env.reset(seed=0)
    moved = [env.advance(np.full(ROWS, 66)) for _ in range(3)]
    assert [len(each.owed.futures) for each in moved] == [1, 1, 1]
    assert not any(each.owed.is_due for each in moved)
    first, scores = late.asked[0]
    first.set_result(scores)
    assert [each.owed.is_due for each in moved] == [True, False, False]
    moved[1].owed.cancel()
    with pytest.raises(CancelledError):
        late.asked[1][0].result()


def test_who_steps_by_hand_waits(make_env: Any, byte_tokenizer: Any) -> None:
    late = Late()
    late.at_once = True
    envs = [make_env(score, "sum") for score in (Score(), late)]
    assert_same(*(env.reset(seed=0) for env in envs))
    for token in (66, 67, 0, 33, 68, 66, 66):
        assert_same(*(env.step(np.array([token, 66, 67, 0])) for env in envs))
    singles = [
        gym.make(
            "TextGen-v0",
            reward={"made": {"name": score}},
            tokenizer=byte_tokenizer,
            max_new_tokens=3,
        )
        for score in (Score(), late)
    ]
    assert_same(*(env.reset(seed=0) for env in singles))
    for token in (66, 67, 33):
        assert_same(*(env.step(token) for env in singles))


@pytest.mark.parametrize(
    "given_",
    [{"templates": ["{prompt}", "Q: {prompt}"], "prompts": "bandit"}, {"render_mode": "ansi"}],
)
def test_what_depends_on_rewards_waits_for_them(make_env: Any, given_: dict[str, Any]) -> None:
    late = Late()
    late.at_once = True
    envs = [make_env(score, "sum", **given_) for score in (Score(), late)]
    assert not envs[1].process.runs_ahead
    assert_same(*(env.reset(seed=0) for env in envs))
    for token in range(30, 50):
        tokens = np.array([token, 66, 0, 67])
        expected, moved = envs[0].step(tokens), envs[1].advance(tokens)
        rewards, infos = moved.owed.settle()
        now = moved.observations, rewards, moved.terminated, moved.truncated, infos
        assert_same(expected, now)
    assert_same(*(env.template_state() for env in envs))
    if "render_mode" in given_:
        assert envs[0].render() == envs[1].render()


class Fails(Late):
    """Fails, with one kind of failure, at texts that end in B."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def submit(self, samples: Sequence[Sample]) -> Future[Sequence[float]]:
        if not any(sample.text.endswith("B") for sample in samples):
            return super().submit(samples)
        future: Future[Sequence[float]] = Future()
        if self.how == "refuses":
            raise ConnectionError("nobody there")
        if self.how == "raises":
            future.set_exception(ConnectionError("nobody there"))
        elif self.how == "a number too few":
            future.set_result([0.0] * (len(samples) - 1))
        elif self.how == "too large":
            future.set_result([1e30] * len(samples))
        else:
            ends = [float("nan" if sample.text.endswith("B") else 0) for sample in samples]
            future.set_result(ends)
        return future


class FailsAtOnce(Score):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.asked = Fails(how)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        future = self.asked.submit(samples)
        self.asked.answer(random.Random(0))
        return list(future.result())


FAILURES = ["refuses", "raises", "a number too few", "not a number", "too large"]


@pytest.mark.parametrize("how", FAILURES)
def test_errors_are_the_same_and_about_the_same_text(make_env: Any, how: str) -> None:
    """Though the row whose text is at fault has begun another one."""
    letters = np.full(ROWS, 66)
    with_b = np.array([66, 67, 66, 66])  # "A" is 66
    late, at_once = Fails(how), FailsAtOnce(how)
    reward = "heavy" if how == "too large" else "sum"
    envs = [make_env(score, reward, max_new_tokens=3) for score in (at_once, late)]
    for env in envs:
        env.reset(seed=0)
    for tokens in (letters, letters):
        envs[0].step(tokens)
    with pytest.raises(RewardError) as expected:
        envs[0].step(with_b)
    moved = [envs[1].advance(letters) for _ in range(2)]
    late.answer(random.Random(1))
    if how == "refuses":
        with pytest.raises(RewardError) as got:
            envs[1].advance(with_b)
    else:
        moved += [envs[1].advance(tokens) for tokens in (with_b, letters)]
        late.answer(random.Random(1))
        for each in moved[:2]:
            each.owed.settle()
        with pytest.raises(RewardError) as got:
            moved[2].owed.settle()
    assert str(expected.value).replace("FailsAtOnce", "Fails") == str(got.value)
    assert got.value.name == ("outer" if reward == "heavy" else "made")
    assert got.value.sample == expected.value.sample
    assert got.value.sample.text == ("AAB" if how == "not a number" else "AAA")


def test_written_texts_are_all_asked_about_before_the_first_is_waited_for(
    byte_tokenizer: Any,
) -> None:
    most = 0

    class Waits(Late):
        def submit(self, samples: Sequence[Sample]) -> Future[Sequence[float]]:
            nonlocal most
            future = super().submit(samples)
            most = max(most, len(self.asked))
            if len(self.asked) == 6:
                self.answer(random.Random(2))
            return future

    ids = [[66, 67, 33, 68, 69, 70], [66, 66], []]
    prompts = [Example(prompt) for prompt in "abc"]
    results = [
        replay(make(REWARDS["sum"](score)), byte_tokenizer, prompts, ids)
        for score in (Score(), Waits())
    ]
    assert results[0] == results[1]
    assert most == 6


def test_unfinished_texts_are_paid_once_more(make_env: Any) -> None:
    late = Late()
    at_once, ahead = make_env(Score(), "adaptive"), make_env(late, "adaptive")
    at_once.reset(seed=1)
    for token in (66, 67):
        at_once.step(np.array([token, 67, 66, 0]))
    state = unfinished(at_once.process)
    late.at_once = True
    for env in (at_once, ahead):
        env.reset(seed=5)
        take_up(env.process, state)
    for token in (66, 33, 67, 68):
        assert_same(*(env.step(np.array([token, 67, 66, 68])) for env in (at_once, ahead)))


def test_a_reset_forgets_what_is_owed(make_env: Any) -> None:
    late = Late()
    env, other = make_env(late, "sum"), make_env(Score(), "sum")
    env.reset(seed=0)
    for _ in range(4):
        env.advance(np.full(ROWS, 66))
    late.answer(random.Random(3))
    late.at_once = True
    assert_same(other.reset(seed=9), env.reset(seed=9))
    for token in (66, 0, 67, 67, 67, 67, 67):
        assert_same(*(each.step(np.full(ROWS, token)) for each in (other, env)))
