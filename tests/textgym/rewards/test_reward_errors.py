"""A reward that fails ends the run, with an error that says which, and at what text."""

import pickle

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401  # registers the environments
from textgym.completion import Sample
from textgym.rewards import RewardError
from textgym.tasks import Example, Task

TASK = Task("one", {"train": (Example("Once upon", "a time"),)})


class PaysOnce:
    """A reward that pays 0.0, and at one token what it was given to return."""

    def __init__(self, returned, at=2):
        self.returned, self.at = returned, at

    def start(self, rows, completions):
        pass

    def step(self, rows, tokens, completions):
        if (completions.lengths(rows) == self.at).any():
            return self.returned(rows) if callable(self.returned) else self.returned
        return np.zeros(len(rows), np.float32)


class ScoresOnce:
    """A score that gives one list of numbers for every batch."""

    def __init__(self, returned):
        self.returned = returned

    def score(self, samples):
        return self.returned(samples) if callable(self.returned) else self.returned


def fails(text):
    if "bad" in text:
        raise KeyError("no such word")
    return 0.0


def single(reward, tokenizer, **kwargs):
    env = gym.make("TextGen-v0", task=TASK, reward=reward, tokenizer=tokenizer, **kwargs)
    env.reset(seed=0)
    return lambda token: env.step(token + 1)


def vector(reward, tokenizer, **kwargs):
    env = gym.make_vec(
        "TextGen-v0", num_envs=3, task=TASK, reward=reward, tokenizer=tokenizer, **kwargs
    )
    env.reset(seed=0)
    # The first row writes what is asked for, the others spaces.
    return lambda token: env.step(np.array([token, 32, 32]) + 1)


@pytest.fixture(params=[single, vector])
def make_env(request):
    return request.param


def write(step, text: bytes):
    for byte in text:
        step(byte)


def test_a_function_that_raises(byte_tokenizer, make_env):
    step = make_env({"mine": fails}, byte_tokenizer)
    with pytest.raises(RewardError) as error:
        write(step, b"a bad day")
    assert error.value.name == "mine"
    assert error.value.sample.text == "a bad"
    assert isinstance(error.value.__cause__.__cause__, KeyError)
    message = str(error.value)
    assert message.startswith("reward 'mine' raised KeyError: 'no such word'")
    assert "prompt: 'Once upon'" in message
    assert "text:   'a bad'" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e39])
@pytest.mark.parametrize("timing", ["immediate", "delayed"])
def test_a_function_that_returns_no_finite_number(byte_tokenizer, make_env, value, timing):
    step = make_env(
        {"mine": lambda text: value if "x" in text else 0.0},
        byte_tokenizer,
        timing=timing,
        max_new_tokens=3,
    )
    with pytest.raises(RewardError, match=r"returned .*; expected a finite number") as error:
        write(step, b"a x")
    assert (error.value.name, error.value.sample.text) == ("mine", "a x")


@pytest.mark.parametrize("value", ["1.0", None, [1.0]])
def test_a_function_that_returns_no_number(byte_tokenizer, make_env, value):
    step = make_env({"mine": lambda text: value}, byte_tokenizer)
    with pytest.raises(RewardError, match=r"'mine' returned .*; expected a number"):
        write(step, b"a")


@pytest.mark.parametrize(
    "returned",
    [
        0.5,
        None,
        [],
        [[0.5]],
        ["0.5"],
        [None],
        lambda samples: np.zeros((len(samples), 1)),
        lambda samples: [0.0] * (len(samples) + 1),
        lambda samples: [0.0, [1.0]],
    ],
)
def test_a_score_of_another_shape(byte_tokenizer, make_env, returned):
    step = make_env({"mine": ScoresOnce(returned)}, byte_tokenizer)
    with pytest.raises(RewardError, match=r"reward 'mine' (returned|raised ValueError)") as error:
        write(step, b"a")
    assert error.value.sample.prompt == "Once upon"


@pytest.mark.parametrize("timing", ["immediate", "delayed"])
@pytest.mark.parametrize(
    "returned",
    [
        0.5,
        None,
        np.float32(1.0),
        np.zeros(4, np.float32),
        np.array([None]),
        lambda rows: np.zeros((len(rows), 1)),
        lambda rows: np.array(["1.0"] * len(rows)),
        lambda rows: np.full(len(rows), 1j),
    ],
)
def test_a_reward_of_another_shape(byte_tokenizer, make_env, returned, timing):
    step = make_env({"mine": PaysOnce(returned)}, byte_tokenizer, timing=timing)
    with pytest.raises(RewardError, match=r"'mine' returned .*; expected a float32 array") as error:
        write(step, b"abc")
    assert error.value.sample.text == "ab"


@pytest.mark.parametrize("timing", ["immediate", "delayed"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_reward_that_is_not_finite_names_the_row(byte_tokenizer, timing, value):
    def returned(rows):
        return np.where(rows == rows[-1], value, 0.0)

    step = vector({"length": 1.0, "mine": PaysOnce(returned)}, byte_tokenizer, timing=timing)
    with pytest.raises(RewardError, match=r"'mine' paid .*; expected a finite number") as error:
        write(step, b"abc")
    assert error.value.sample.text == "  "


def test_a_reward_that_raises(byte_tokenizer, make_env):
    def returned(rows):
        raise ZeroDivisionError("of what?")

    step = make_env({"mine": PaysOnce(returned)}, byte_tokenizer)
    with pytest.raises(RewardError, match="'mine' raised ZeroDivisionError: of what") as error:
        write(step, b"abc")
    assert error.value.sample.text == "ab"


def test_a_reward_that_raises_as_an_episode_begins(byte_tokenizer, make_env):
    class Picky(PaysOnce):
        def start(self, rows, completions):
            raise LookupError("no such prompt")

    with pytest.raises(RewardError, match="'mine' raised LookupError: no such prompt"):
        make_env({"mine": Picky(0.0)}, byte_tokenizer)


@pytest.mark.parametrize("returned", [[1, 2], (True, False), np.array([1.0, 2.0], np.float16)])
def test_numbers_of_any_type_are_rewards(byte_tokenizer, returned):
    step = single({"mine": PaysOnce(lambda rows: returned[:1], at=1)}, byte_tokenizer)
    assert step(97)[1] == 1.0


def test_a_reward_that_uses_one_array_again_and_again(byte_tokenizer):
    class Reuses:
        def __init__(self):
            self.out = np.zeros(3, np.float32)

        def start(self, rows, completions):
            pass

        def step(self, rows, tokens, completions):
            self.out += 1
            return self.out

    step = vector({"a": Reuses(), "b": Reuses()}, byte_tokenizer)
    _, first, _, _, first_info = step(97)
    _, second, _, _, second_info = step(97)
    assert first.tolist() == [2.0] * 3
    assert second.tolist() == [4.0] * 3
    assert first_info["reward_components"]["a"].tolist() == [1.0] * 3
    assert second_info["reward_components"]["a"].tolist() == [2.0] * 3


def test_an_error_survives_the_way_between_processes():
    error = RewardError("mine", "paid nan", Sample("p", "t", None, [1], {"level": 1}))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.name, again.problem, again.sample) == (error.name, error.problem, error.sample)


def test_a_column_that_the_task_lacks_is_named(byte_tokenizer, make_env):
    step = make_env(lambda text, answer: 0.0, byte_tokenizer)
    with pytest.raises(RewardError, match="has a parameter 'answer'"):
        write(step, b"a")
