"""Rewards that count tokens, in chats and in tasks of several turns."""

import functools
from functools import partial

import gymnasium as gym
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textgym.checks import check_vector_env
from textgym.env import TextGenEnv
from textgym.rewards.eos import Eos
from textgym.rewards.length import Length
from textgym.rewards.repetition import Repetition
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

BUDGET, EOS, NEWLINE = 14, 0, 1 + ord("\n")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Echo:
    """Says what the model said."""

    max_turns = 4
    longest_reply = "x" * BUDGET

    def reply(self, example, turns):
        return turns[-1]


TASK = Task("echo", {"train": [Example("Go")]}, stop=("\n",), interaction=Echo())


def length(turns):
    return sum(map(len, turns))


def distinct_share(n, out_of, turns):
    """The score of Repetition, by its definition."""
    ngrams = [tuple(turn[k : k + n]) for turn in turns for k in range(len(turn) - n + 1)]
    possible = BUDGET - n + 1 if out_of == "budget" else len(ngrams)
    return len(set(ngrams)) / possible if ngrams else 0.0


SCORES = {
    "long": (Length(), lambda turns: length(turns) / BUDGET),
    "short": (Length(wanted="short"), lambda turns: -length(turns) / BUDGET),
    "target": (Length(5), lambda turns: 1 - abs(length(turns) - 5) / 5),
    **{
        f"{n} out of {out_of}": (Repetition(n, out_of), partial(distinct_share, n, out_of))
        for n in (1, 2, 3)
        for out_of in ("budget", "text")
    },
}


@functools.cache
def env(name, tokenizer):
    return TextGenEnv(
        task=TASK, reward={"it": SCORES[name][0]}, tokenizer=tokenizer, max_new_tokens=BUDGET
    )


def make_env(reward, tokenizer, **options):
    return TextGenEnv(**{"task": TASK, "reward": reward, "tokenizer": tokenizer, **options})


def play(environment, token_ids):
    """What each token earned, up to the end of the episode if it comes, and the last info."""
    environment.reset(seed=0)
    paid = []
    for token in token_ids:
        _, reward, terminated, truncated, info = environment.step(token)
        paid.append(reward)
        if terminated or truncated:
            break
    return paid, info


def turns_of(token_ids):
    """The tokens of each turn, end-of-text tokens left out; a line break is one of its turn."""
    turns = [[]]
    for token in token_ids:
        if token != EOS:
            turns[-1].append(token)
        if token in (EOS, NEWLINE):
            turns.append([])
    return turns


def ids(text):
    """Bytes as tokens; "|" ends a text."""
    return [EOS if byte == ord("|") else 1 + byte for byte in text.encode()]


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=60)
@given(token_ids=st.text("aabbcd|\n", min_size=BUDGET, max_size=BUDGET).map(ids))
@example(token_ids=ids("ab|cde|f|g|"))
@example(token_ids=ids("||||"))
@example(token_ids=ids("abc\nabc|abc\nab"))
def test_after_each_token_the_score_of_the_text_is_paid(byte_tokenizer, name, token_ids):
    reward, score = SCORES[name]
    low, high = reward.score_range
    paid, info = play(env(name, byte_tokenizer), token_ids)
    for t in range(1, len(paid) + 1):
        expected = score(turns_of(token_ids[:t]))
        assert sum(paid[:t]) == pytest.approx(expected, abs=1e-6)
        assert low <= expected <= high
    assert info["scores"]["it"] == pytest.approx(expected, abs=1e-6)


def test_seven_different_words_and_four_ends(byte_tokenizer):
    token_ids = ids("ab|cde|f|g|")
    for name, score in {"1 out of text": 1.0, "2 out of text": 1.0, "target": 0.6}.items():
        paid, info = play(env(name, byte_tokenizer), token_ids)
        assert len(info["replies"]) == 3
        assert sum(paid) == pytest.approx(score)
    paid, _ = play(env("2 out of budget", byte_tokenizer), token_ids)
    assert paid == pytest.approx([0, 1 / 13, 0, 0, 1 / 13, 1 / 13, 0, 0, 0, 0, 0])


def test_a_turn_that_says_the_same_again_repeats(byte_tokenizer):
    paid, _ = play(env("2 out of text", byte_tokenizer), ids("ab\nab\n"))
    assert paid == pytest.approx([0, 1, 0, 0, 2 / 3 - 1, 2 / 4 - 2 / 3])


def test_eos_is_paid_for_the_end_of_the_last_turn(byte_tokenizer):
    penalty = make_env(Eos(missing=-1.0), byte_tokenizer, max_new_tokens=BUDGET)
    assert play(penalty, ids("ab|c|d|e|"))[0] == [0.0] * 8 + [1.0]
    assert play(penalty, ids("ab|c|d|e\n"))[0] == [0.0] * 8 + [-1.0]
    assert play(penalty, ids("ab\nc\nd\n|"))[0] == [0.0] * 7 + [1.0]
    assert play(penalty, ids("ab|" + "c" * 11))[0] == [0.0] * 13 + [-1.0]
    # The budget leaves no room for the next turn, but this one is whole.
    assert play(penalty, ids("ab|" + "c" * 10 + "|"))[0] == [0.0] * 13 + [1.0]


def test_rows_do_not_mix_turns(byte_tokenizer_dir):
    reward = {name: reward for name, (reward, _) in SCORES.items()} | {"eos": Eos(missing=-1.0)}
    options = {
        "task": TASK,
        "reward": reward,
        "tokenizer": byte_tokenizer_dir,
        "max_new_tokens": BUDGET,
        "stop": ["a", "e", "0", "\n"],
    }
    check_vector_env(
        partial(gym.make_vec, "TextGen-v0", **options),
        partial(gym.make, "TextGen-v0", **options),
        num_steps=150,
    )


@pytest.fixture
def chat_tokenizer(byte_tokenizer):
    """Bytes, the token that ends a text (id 0), and <|im_end|>, which ends a turn."""
    backend = tokenizers.Tokenizer.from_str(byte_tokenizer.backend.to_str())
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return Tokenizer(backend, name="chat", eos_token="<|endoftext|>", chat_template=CHATML)


@pytest.mark.parametrize(
    ("reward", "score"),
    [
        (Length(), 0.3),
        (Length(3), 1.0),
        (Length(wanted="short"), -0.3),
        (Repetition(n=1, out_of="text"), 2 / 3),
        (Repetition(n=3), 1 / 8),
        (Eos(missing=-1.0), 1.0),
    ],
)
@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_every_token_that_ends_a_reply_of_a_chat_does(chat_tokenizer, reward, score, end):
    environment = make_env(
        reward, chat_tokenizer, task=Task("one", {"train": [Example("Hi")]}), max_new_tokens=10
    )
    paid, info = play(environment, [*ids("aba"), chat_tokenizer.backend.token_to_id(end)])
    assert info["text"] == "aba"
    assert sum(paid) == pytest.approx(score)


def test_both_ends_may_stand_between_the_turns_of_a_chat(chat_tokenizer):
    of_turn = chat_tokenizer.backend.token_to_id("<|im_end|>")
    token_ids = [*ids("ab"), of_turn, *ids("ab"), EOS, *ids("c"), of_turn, of_turn]
    for reward, score in (
        (Length(5), 1.0),
        (Repetition(n=1, out_of="text"), 3 / 5),
        (Repetition(n=2, out_of="text"), 1 / 2),
        (Eos(), 1.0),
    ):
        environment = make_env(reward, chat_tokenizer, max_new_tokens=BUDGET)
        paid, info = play(environment, token_ids)
        assert [text for _, text in info["replies"]] == ["ab", "ab", "c"]
        assert sum(paid) == pytest.approx(score)


def test_spelling_in_a_chat(chat_tokenizer):
    task = Task("colours", {"train": [Example("Name a colour")]})
    environment = make_env("spelling", chat_tokenizer, task=task, max_new_tokens=20)
    assert sum(play(environment, ids("Red is nice."))[0]) == 0.0
    assert sum(play(environment, ids("Red is nicqe."))[0]) == pytest.approx(-1 / 3)
    plain = make_env("spelling", chat_tokenizer, task=task, max_new_tokens=20, chat=False)
    assert sum(play(plain, ids("Red is nice."))[0]) == pytest.approx(-1 / 3)
