"""The checker of vector environments names a law, and does not crash, whatever it is given."""

from __future__ import annotations

import collections
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym.checks import check_vector_env
from textgym.checks import vector_laws as laws
from textgym.checks.law import Law

Fault = Callable[[Any], Any]
CARTPOLE = partial(gym.make, "CartPole-v1")


class Odd(SyncVectorEnv):
    """Makes something else of what it returns."""

    def __init__(self, num_envs: int, autoreset_mode: AutoresetMode, fault: Fault) -> None:
        super().__init__([CARTPOLE] * num_envs, autoreset_mode=autoreset_mode)
        self.fault = fault

    def reset(self, **kwargs: Any) -> Any:
        return self.fault(super().reset(**kwargs))

    def step(self, actions: Any) -> Any:
        return self.fault(super().step(actions))


def step(fault: Fault) -> Fault:
    return lambda result: fault(result) if len(result) == 5 else result


def part(index: int, fault: Fault) -> Fault:
    return step(lambda result: (*result[:index], fault(result[index]), *result[index + 1 :]))


def infos(fault: Callable[[int], Any]) -> Fault:
    """Adds to infos what a fault makes of the number of rows."""
    return lambda result: (*result[:-1], {**result[-1], **fault(len(result[0]))})


def column(fault: Callable[[int], Any]) -> Fault:
    return infos(lambda n: {"x": fault(n), "_x": np.ones(n, np.bool_)})


def objects(make: Callable[[], Any]) -> Fault:
    return column(lambda n: np.array([make() for _ in range(n)], object))


def last(key: str, fault: Fault) -> Fault:
    """Makes something else of what infos say about the ends, where they do."""

    def changed(result: Any) -> Any:
        said = result[-1]
        return (*result[:-1], {**said, key: fault(said[key])} if key in said else said)

    return changed


@pytest.mark.parametrize(
    ("fault", "law", "where"),
    [
        (lambda _: None, laws.RESULT, "first reset"),
        (lambda result: result[0], laws.RESULT, "first reset"),
        (step(lambda _: None), laws.RESULT, "step 1"),
        (step(lambda _: np.array(1.0)), laws.RESULT, "step 1"),
        (step(lambda result: result[:4]), laws.RESULT, "step 1"),
        (step(list), laws.RESULT, "step 1"),
        (part(0, lambda _: None), laws.OBSERVATION, "step 1: observation"),
        (part(0, lambda rows: rows.astype(object)), laws.OBSERVATION, "step 1: observation"),
        (part(1, lambda rewards: rewards.tolist()), laws.REWARDS, "step 1: rewards"),
        (part(1, lambda rewards: rewards.astype(object)), laws.REWARDS, "step 1: rewards"),
        (part(1, lambda rewards: rewards[0]), laws.REWARDS, "step 1: rewards"),
        (part(1, lambda r: np.ma.masked_array(r, r > 0)), laws.REWARDS, "step 1: rewards"),
        (part(2, lambda flags: bool(flags.any())), laws.FLAGS, "step 1: terminated"),
        (part(2, lambda flags: flags.astype(object)), laws.FLAGS, "step 1: terminated"),
        (part(2, lambda flags: np.ma.masked_array(flags, flags)), laws.FLAGS, "step 1: terminated"),
        (part(3, lambda flags: flags.tolist()), laws.FLAGS, "step 1: truncated"),
        (part(4, lambda _: None), laws.INFOS, "step 1: infos"),
        (column(lambda _: np.array(1.0)), laws.INFOS, r"first reset: infos\['x'\]"),
        (column(lambda _: None), laws.INFOS, r"first reset: infos\['x'\]"),
        (column(lambda n: [1] * (n + 1)), laws.INFOS, r"first reset: infos\['x'\]"),
        (column(lambda n: set(range(n))), laws.INFOS, r"first reset: infos\['x'\]"),
        (infos(lambda n: {"x": [1] * n, "_x": None}), laws.INFOS, r"first reset: infos\['_x'\]"),
        (infos(lambda n: {7: np.ones(n)}), laws.INFO_KEYS, "key of first reset: infos"),
        (infos(lambda n: {None: 1, "x": 2}), laws.INFO_KEYS, "key of first reset: infos"),
        (column(lambda n: {7: np.ones(n)}), laws.INFO_KEYS, r"key of first reset: infos\['x'\]"),
        (objects(threading.Lock), laws.PLAIN, "first reset: infos"),
        (objects(lambda: np.random.default_rng(0)), laws.PLAIN, r"first reset: infos\['x'\]\[0\]"),
        (column(lambda n: collections.deque([np.ones(2)] * n)), laws.PLAIN, "first reset: infos"),
        (last("final_obs", lambda _: None), laws.INFOS, r"step \d+: infos\['final_obs'\]"),
        (
            last("final_obs", lambda rows: [np.zeros(4).tolist() for _ in rows]),
            laws.SAME_STEP,
            r"step \d+: infos\['final_obs'\]\[\d\]",
        ),
        (
            last("final_info", lambda _: [{}, {}, {}]),
            laws.SAME_STEP,
            r"step \d+: infos\['final_info'\]",
        ),
        (
            last("final_info", lambda _: np.array([{}, None, {}])),
            laws.SAME_STEP,
            r"step \d+: infos\['final_info'\]",
        ),
    ],
)
def test_odd_returns(fault: Fault, law: Law, where: str) -> None:
    assert_named(partial(Odd, fault=fault), law, where)


def said(**attributes: Any) -> Any:
    """Makes environments that say something odd of themselves."""

    def make(num_envs: int, autoreset_mode: AutoresetMode) -> Any:
        env = SyncVectorEnv([CARTPOLE] * num_envs, autoreset_mode=autoreset_mode)
        for name, value in attributes.items():
            setattr(env, name, value)
        return env

    return make


def without_number(num_envs: int, autoreset_mode: AutoresetMode) -> Any:
    env = said()(num_envs, autoreset_mode)
    del env.num_envs
    return env


ANY: gym.Space[Any] = gym.Space()


@pytest.mark.parametrize(
    ("make", "law", "where"),
    [
        (without_number, laws.NUM_ENVS, "num_envs"),
        (said(num_envs=np.array([3, 3])), laws.NUM_ENVS, "num_envs"),
        (said(num_envs=3.0), laws.NUM_ENVS, "num_envs"),
        (said(metadata=None), laws.MODE, "metadata"),
        (said(metadata=["autoreset_mode"]), laws.MODE, "metadata"),
        (said(observation_space=None), laws.SPACES, "observation_space"),
        (said(single_action_space=None), laws.SPACES, "single_action_space"),
        (said(observation_space=ANY), laws.SPACES, "observation_space"),
        (
            said(observation_space=ANY, single_observation_space=ANY),
            laws.SPACES,
            "observation_space",
        ),
    ],
)
def test_odd_things_said_of_itself(make: Any, law: Law, where: str) -> None:
    assert_named(make, law, where)


class Raises(SyncVectorEnv):
    def step(self, actions: Any) -> Any:
        if actions.sum() == 0:
            raise KeyError("nobody moves")
        return super().step(actions)


class NoOptions(SyncVectorEnv):
    def reset(self, *, seed: Any = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class WritesToMasks(SyncVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask")
        result = super().reset(seed=seed, options=options)
        if mask is not None:
            mask[:] = False
        return result


class NeverCloses(SyncVectorEnv):
    def close(self, **kwargs: Any) -> None:
        raise OSError("busy")


@pytest.mark.parametrize(
    ("kind", "law", "where"),
    [
        (Raises, laws.TAKES, r"step \d+"),
        (NoOptions, laws.TAKES, "first reset"),
        (WritesToMasks, laws.ARGUMENTS, r"reset after step \d+ of some rows: mask\[\d\]"),
        pytest.param(
            NeverCloses,
            laws.CLOSE,
            r"first close\(\)",
            # It raises once more as it is collected.
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ),
    ],
)
def test_odd_calls(kind: type[SyncVectorEnv], law: Law, where: str) -> None:
    def make(num_envs: int, autoreset_mode: AutoresetMode) -> SyncVectorEnv:
        return kind([CARTPOLE] * num_envs, autoreset_mode=autoreset_mode)

    assert_named(make, law, where)


def test_one_that_takes_no_list_of_seeds_differs_from_single_ones() -> None:
    class OneSeed(SyncVectorEnv):
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return super().reset(seed=None if seed is None else int(seed), options=options)

    def make(num_envs: int, autoreset_mode: AutoresetMode) -> SyncVectorEnv:
        return OneSeed([CARTPOLE] * num_envs, autoreset_mode=autoreset_mode)

    check_vector_env(make, num_steps=40)
    assert_named(make, laws.TAKES, r"reset after step \d+", make_single=CARTPOLE)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3)),
        spaces.Sequence(spaces.Discrete(5)),
        spaces.Sequence(spaces.Box(-1, 1, (2,)), stack=True),
        spaces.OneOf((spaces.Discrete(5), spaces.Box(-1, 1, (2,)))),
        spaces.Box(-1, 1, ()),
    ],
    ids=str,
)
def test_spaces_whose_elements_differ_in_shape_are_no_fault(space: gym.Space[Any]) -> None:
    class Sampled(gym.Env[Any, Any]):
        observation_space = space
        action_space = spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self.look(), {}

        def step(self, action: int) -> Any:
            return self.look(), 0.0, bool(self.np_random.random() < 0.2), False, {}

        def look(self) -> Any:
            space.seed(int(self.np_random.integers(1000)))
            return space.sample()

    def make(num_envs: int, autoreset_mode: AutoresetMode) -> SyncVectorEnv:
        return SyncVectorEnv([Sampled] * num_envs, autoreset_mode=autoreset_mode)

    check_vector_env(make, Sampled, num_steps=40)


def test_modes_by_name_and_none_at_all() -> None:
    check_vector_env(said(), autoreset_modes=["NextStep"], num_steps=40)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="autoreset_modes are empty"):
        check_vector_env(said(), autoreset_modes=[])
    with pytest.raises(ValueError, match="'Never' is not a valid AutoresetMode"):
        check_vector_env(said(), autoreset_modes=["Never"])  # type: ignore[list-item]


def assert_named(make: Any, law: Law, where: str, make_single: Any = None) -> None:
    with pytest.raises(AssertionError) as raised:
        check_vector_env(make, make_single, num_steps=40)
    message = str(raised.value)
    assert f"breaks the law that {law.text}.\n" in message, message
    assert re.search(rf"  where:     {where}\n", message), message
    assert message.endswith(f"cure:      {law.cure}")
