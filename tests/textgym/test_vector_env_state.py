"""A vector environment that is saved and loaded goes on as if nothing had been between."""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import textgym  # noqa: F401
from textgym.tasks import Example, Task
from textgym.tasks.streaming import ExampleStream
from textgym.vector_env import TextGenVectorEnv

ROWS = 5
ADAPTIVE = {
    "name": "adaptive",
    "rewards": {"sentiment": 1.0, "length": {"weight": 0.5, "target": 8}},
    "goals": {"sentiment": {"start": -0.2, "step": 0.05, "stop": 0.1}},
    "window": 8,
}


def count_up(generator: np.random.Generator) -> Any:
    first = int(generator.integers(100))
    for number in range(40):
        first += int(generator.integers(3))  # drawn as it is read
        yield Example(f"The number {first + number} is", columns={"number": number})


STREAM = Task("numbers", {"train": ExampleStream(count_up, 6)}, reward="sentiment")


def columns_of_tuples(generator: np.random.Generator) -> Any:
    for number in range(40):
        yield Example(f"The number {number} is", columns={"number": (number, "a tuple")})


def make(mode: AutoresetMode = AutoresetMode.SAME_STEP, **arguments: Any) -> TextGenVectorEnv:
    settings = {"max_new_tokens": 10, **arguments}
    env: Any = gym.make_vec("TextGen-v0", num_envs=ROWS, autoreset_mode=mode, **settings)
    return env.unwrapped


def assert_same(expected: Any, found: Any) -> None:
    assert type(expected) is type(found)
    if isinstance(expected, dict):
        assert expected.keys() == found.keys()
        for key in expected:
            assert_same(expected[key], found[key])
    elif isinstance(expected, (tuple, list)) or getattr(expected, "dtype", None) == np.object_:
        assert len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(expected, found)


def pending(env: TextGenVectorEnv) -> list[int] | None:
    bandit = env.template_bandit()
    return None if bandit is None else bandit.pending


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"timing": "delayed"},
        {"every": "word"},
        {"reward": {"sentiment": 1.0, "length": {"weight": 0.5, "target": 8}}},
        {"reward": ADAPTIVE},
        {"reward": {"adaptive": {"weight": 1.0, **ADAPTIVE}, "length": 0.5}},
        {"task": "game", "max_new_tokens": 24},
        {"templates": ["{prompt}", "Q: {prompt}"], "prompts": "bandit"},
        {"task": STREAM, "context_length": 40},
    ],
    ids=lambda arguments: "-".join(arguments) or "default",
)
def test_it_goes_on_as_if_nothing_had_been_between(arguments: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    whole, other = make(**arguments), make(**arguments)
    whole.reset(seed=3)
    for _ in range(23):
        whole.step(rng.integers(0, 2048, ROWS))
    state = json.loads(json.dumps(whole.state()))
    other.reset(seed=9)  # what it did before is forgotten
    for _ in range(4):
        other.step(rng.integers(0, 2048, ROWS))
    other.load_state(state)
    assert_same(whole.state(), other.state())
    assert pending(whole) == pending(other)
    for step in range(60):
        actions = rng.integers(0, 2048, ROWS)
        assert_same(whole.step(actions), other.step(actions))
        if step == 30:
            assert_same(whole.reset(), other.reset())
    assert_same(whole.state(), other.state())
    assert pending(whole) == pending(other)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_rows_that_are_over_are_begun_as_the_mode_says(mode: AutoresetMode) -> None:
    whole, other = make(mode, max_new_tokens=4), make(mode, max_new_tokens=4)
    whole.reset(seed=3)
    whole.step(np.full(ROWS, 40))
    whole.reset(options={"reset_mask": np.arange(ROWS) < 2})  # rows of two ages
    over = np.zeros(ROWS, np.bool_)
    while not over.any():
        _, _, terminated, truncated, _ = whole.step(np.full(ROWS, 40))
        over = terminated | truncated
    assert not over.all()
    other.load_state(json.loads(json.dumps(whole.state())))
    assert_same(whole.state(), other.state())
    if mode is AutoresetMode.DISABLED:
        with pytest.raises(gym.error.ResetNeeded):
            other.step(np.full(ROWS, 40))
        for env in (whole, other):
            env.reset(options={"reset_mask": over})
    for _ in range(1 if mode is AutoresetMode.DISABLED else 3):
        assert_same(whole.step(np.full(ROWS, 41)), other.step(np.full(ROWS, 41)))


def test_the_rest_of_a_group_gets_its_prompt() -> None:
    whole, other = make(max_new_tokens=3), make(max_new_tokens=3)
    whole.reset(seed=3, options={"group_size": 4})
    other.load_state(json.loads(json.dumps(whole.state())))
    for _ in range(12):
        assert_same(whole.step(np.full(ROWS, 40)), other.step(np.full(ROWS, 40)))


def test_rows_that_are_held_stay_held() -> None:
    whole, other = make(), make()
    whole.reset(seed=3)
    actions = np.full(ROWS, 40)
    whole.step(actions)
    whole.hold(np.arange(ROWS) < 2)
    other.load_state(json.loads(json.dumps(whole.state())))
    for _ in range(12):
        assert_same(whole.step(actions), other.step(actions))
    assert_same(whole.reset(), other.reset())


def test_what_json_does_not_know_begins_anew() -> None:
    task = Task("tuples", {"train": ExampleStream(columns_of_tuples, 6)}, reward="sentiment")
    env, other = (make(task=task, context_length=40) for _ in range(2))
    env.reset(seed=3)
    env.step(np.full(ROWS, 40))
    state = env.state()
    assert state["episodes"] == [None] * ROWS
    observations, anew = other.load_state(json.loads(json.dumps(state)))
    assert anew.all()
    prompts = [env.attention_mask.sum() for env in (other.process.contexts,)]
    assert observations["attention_mask"].sum() == prompts[0]
    _, _, terminated, truncated, _ = other.step(np.full(ROWS, 40))
    assert not (terminated | truncated).any()
    assert other.process.completions.lengths(np.arange(ROWS)).tolist() == [1] * ROWS


def test_another_environment_is_refused() -> None:
    env = make()
    env.reset(seed=3)
    for _ in range(4):
        env.step(np.full(ROWS, 40))
    state = env.state()
    with pytest.raises(ValueError, match="texts of 5 rows, and there are 2"):
        gym.make_vec("TextGen-v0", num_envs=2).unwrapped.load_state(state)
    with pytest.raises(ValueError, match="does not come out as it was saved"):
        make(max_new_tokens=3).load_state(state)


def test_a_stream_that_became_shorter_is_refused() -> None:
    stream = ExampleStream(count_up, 6)
    generator = np.random.default_rng(0)
    for _ in range(20):
        stream.draw(generator)
    shorter = ExampleStream(lambda generator: list(count_up(generator))[:9], 6)
    with pytest.raises(ValueError, match="holds fewer now"):
        shorter.load_state(stream.state())
