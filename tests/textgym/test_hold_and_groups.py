"""Rows that wait, and prompts that several rows get."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import textgym
from textgym import TextGenEnv

gym.register_envs(textgym)

HELD = np.array([False, True, False, True])


def make(num_envs: int = 4, **given: Any) -> Any:
    reward = {"name": "length", "target": 6}
    return gym.make_vec("TextGen-v0", num_envs, reward=reward, max_new_tokens=5, **given)


def masks(infos: dict[str, Any]) -> list[Any]:
    """The masks of infos, and of infos in them."""
    inner = [info for info in infos.values() if isinstance(info, dict)]
    own = [np.asarray(mask) for key, mask in infos.items() if key.startswith("_")]
    return own + [mask for info in inner for mask in masks(info)]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_that_are_held_stay_as_they_are(mode: AutoresetMode) -> None:
    env = make(autoreset_mode=mode)
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    for _ in range(2):
        observations, *_ = env.step(rng.integers(300, 400, 4))
    before = {key: value[HELD].copy() for key, value in observations.items()}
    env.unwrapped.hold(HELD)
    ended = 0
    for step in range(12):
        over = env.unwrapped.process.ended & ~HELD
        if mode is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
        actions = rng.integers(300, 400, 4)
        actions[HELD] = -5 if step % 2 else 10**9  # nobody looks at them
        observations, rewards, terminated, truncated, infos = env.step(actions)
        for key, value in before.items():
            np.testing.assert_array_equal(observations[key][HELD], value)
        assert not rewards[HELD].any()
        assert not (terminated | truncated)[HELD].any()
        assert not any(mask[HELD].any() for mask in masks(infos))
        ended += int((terminated | truncated).sum())
    assert ended >= 4
    env.reset()
    *_, rewards, _, _, _ = env.step(rng.integers(300, 400, 4))
    assert rewards.all()


def test_a_mask_that_does_not_fit() -> None:
    env = make(autoreset_mode="SameStep")
    env.reset(seed=0)
    for mask in ([True, False, False, False], np.array([True]), np.array([1, 0, 0, 0])):
        with pytest.raises(ValueError, match="rows is a bool array"):
            env.unwrapped.hold(mask)


def test_groups_are_of_those_who_begin_one_after_another() -> None:
    env = make(6, autoreset_mode="SameStep")
    _, infos = env.reset(seed=0, options={"group_size": 4})
    prompts = [*infos["prompt"]]
    assert len(set(prompts[:4])) == 1
    assert prompts[4] == prompts[5] != prompts[0]
    env.unwrapped.hold(np.arange(6) >= 2)
    begun = prompts
    for _ in range(10):
        *_, infos = env.step(np.full(6, 300))
        begun += [infos["prompt"][row] for row in np.flatnonzero(infos.get("_prompt", []))]
    assert len(begun) >= 10
    for place in range(0, 8, 4):
        assert len(set(begun[place : place + 4])) == 1
    _, infos = env.reset()  # ends it
    assert len(set(infos["prompt"])) > 2


def test_a_bandit_knows_of_each_text_of_a_group() -> None:
    templates = ["{prompt}", "Say: {prompt}"]
    env = make(8, templates=templates, prompts="ucb", autoreset_mode="SameStep")
    env.reset(seed=0, options={"group_size": 4})
    assert sum(env.unwrapped.process.prompts.selection.pending) == 8
    for _ in range(7):
        env.step(np.full(8, 300))
    assert sum(env.unwrapped.process.prompts.selection.pending) == 8


def test_what_is_no_group() -> None:
    env = make(autoreset_mode="SameStep")
    for size in (0, -1, "a", 1.5):
        with pytest.raises(ValueError, match="option group_size is a whole number"):
            env.reset(options={"group_size": size})
    with pytest.raises(ValueError, match="for a reset of all rows"):
        env.reset(options={"group_size": 2, "reset_mask": HELD})
    with pytest.raises(ValueError, match="reset option of the vector environment"):
        TextGenEnv().reset(options={"group_size": 2})
