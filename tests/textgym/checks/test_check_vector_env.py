"""The checker of vector environments, on good ones and on ones with a known fault."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from gymnasium.wrappers.vector import RescaleAction, TransformReward

from textgym.checks import check_vector_env

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode
SHORT = {"num_steps": 60}
FARTHEST = 4

VIEWS: dict[str, tuple[gym.Space[Any], Any]] = {
    "box": (spaces.Box(-9, 9, (2,)), lambda x, t: np.array([x, t / 10], np.float32)),
    "image": (
        spaces.Box(0, 255, (4, 19, 3), np.uint8),
        lambda x, t: np.full((4, 19, 3), 10 * (x + 9) + t, np.uint8),
    ),
    "discrete": (spaces.Discrete(19, start=-9), lambda x, _: np.int64(x)),
    "dict": (
        spaces.Dict(
            at=spaces.Discrete(19),
            path=spaces.Dict(bits=spaces.MultiBinary(3), steps=spaces.Box(0, 99, (1,), np.int64)),
        ),
        lambda x, t: {
            "at": np.int64(x + 9),
            "path": {"bits": np.array([x > 0, x < 0, x == 0], np.int8), "steps": np.array([t])},
        },
    ),
    "tuple": (
        spaces.Tuple((spaces.Discrete(19), spaces.MultiDiscrete([50, 2]))),
        lambda x, t: (np.int64(x + 9), np.array([t, x > 0], np.int64)),
    ),
    "text": (spaces.Text(30, charset="0123456789-,"), lambda x, t: f"{x},{t}"),
}


class Walk(VectorEnv[Any, Any, Any]):
    """A walk between two ends, with all that is asked of a vector environment."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode = NEXT_STEP,
        view: str = "box",
    ) -> None:
        self.num_envs = num_envs
        self.mode = autoreset_mode
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.single_observation_space, self.view = VIEWS[view]
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.at, self.steps = np.zeros((2, num_envs), np.int64)
        self.over = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        self.over = self.over & ~mask
        self.begin(mask)
        return self.observation(), self.infos(mask)

    def step(self, actions: Any) -> tuple[Any, ...]:
        anew = self.over if self.mode is NEXT_STEP else np.zeros(self.num_envs, np.bool_)
        self.move(actions, ~anew)
        terminated = (np.abs(self.at) >= FARTHEST) & ~anew
        truncated = (self.steps >= 9) & ~anew
        rewards = np.where(anew, 0.0, 1 - np.abs(self.at) / FARTHEST)
        self.over = terminated | truncated
        infos = self.infos(~anew)
        if anew.any():
            self.begin(anew)
        if self.mode is SAME_STEP and self.over.any():
            infos = {**self.final(), **infos}
            self.begin(self.over)
        return self.observation(), rewards, terminated, truncated, infos

    def begin(self, mask: np.ndarray) -> None:
        self.at[mask] = self.np_random.integers(-1, 2, mask.sum())
        self.steps[mask] = 0

    def move(self, actions: Any, mask: np.ndarray) -> None:
        wind = self.np_random.integers(-1, 2, self.num_envs)
        self.at[mask] += (actions - 1 + wind)[mask]
        self.steps[mask] += 1

    def rows(self) -> list[Any]:
        return [self.view(*state) for state in zip(self.at, self.steps, strict=True)]

    def observation(self) -> Any:
        space = self.single_observation_space
        return concatenate(space, self.rows(), create_empty_array(space, self.num_envs))

    def infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {"steps": np.where(mask, self.steps, 0), "_steps": mask.copy()}

    def final(self) -> dict[str, Any]:
        last = np.empty(self.num_envs, object)
        for row in self.over.nonzero()[0].tolist():
            last[row] = self.rows()[row]
        over = self.over.copy()
        info = {"at": np.where(over, self.at, 0), "_at": over.copy()}
        return {"final_obs": last, "_final_obs": over, "final_info": info, "_final_info": over}


def singles(env_id: str, **kwargs: Any) -> Any:
    def make(num_envs: int, autoreset_mode: AutoresetMode, kind: Any = SyncVectorEnv) -> Any:
        return kind([partial(gym.make, env_id, **kwargs)] * num_envs, autoreset_mode=autoreset_mode)

    return make


# Good ones


@pytest.mark.parametrize("view", VIEWS)
def test_any_observation(view: str) -> None:
    check_vector_env(partial(Walk, view=view), **SHORT)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_mode_alone_and_unasked(mode: AutoresetMode) -> None:
    check_vector_env(Walk, autoreset_modes=[mode], **SHORT)
    check_vector_env(partial(Walk, autoreset_mode=mode), autoreset_modes=None, **SHORT)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("Taxi-v4", {"max_episode_steps": 12}),
        ("FrozenLake-v1", {}),
        ("Blackjack-v1", {}),
        ("Pendulum-v1", {"max_episode_steps": 20}),
        ("MountainCarContinuous-v0", {"max_episode_steps": 20}),
    ],
)
def test_gymnasiums_own_of_single_environments(env_id: str, kwargs: Any) -> None:
    check_vector_env(singles(env_id, **kwargs), partial(gym.make, env_id, **kwargs), **SHORT)


def test_gymnasiums_own_in_processes() -> None:
    make = partial(singles("CartPole-v1"), kind=AsyncVectorEnv)
    check_vector_env(make, partial(gym.make, "CartPole-v1"), num_steps=40)


def test_gymnasiums_own_native_one() -> None:
    make = partial(gym.make_vec, "CartPole-v1")
    check_vector_env(make, autoreset_modes=None)
    with pytest.raises(AssertionError, match="gives what single environments give") as raised:
        check_vector_env(make, partial(gym.make, "CartPole-v1"), autoreset_modes=None)
    assert re.search(r"first reset: observation\[\d, \d\]", str(raised.value))


def test_wrapped_ones() -> None:
    def make(num_envs: int, autoreset_mode: AutoresetMode) -> Any:
        env: Any = singles("Pendulum-v1", max_episode_steps=15)(num_envs, autoreset_mode)
        env = RescaleAction(env, np.float32(-1), np.float32(1))
        return TransformReward(env, lambda rewards: rewards / 10)

    check_vector_env(make, **SHORT)


def test_rows_with_bounds_of_their_own() -> None:
    class Wide(gym.Env[Any, Any]):
        action_space = spaces.Discrete(2)

        def __init__(self, width: float) -> None:
            self.observation_space = spaces.Box(-width, width, (1,))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self.observation_space.low, {}

        def step(self, action: int) -> Any:
            return self.observation_space.high, 0.0, bool(action), False, {}

    def make(num_envs: int, autoreset_mode: AutoresetMode) -> Any:
        rows = [partial(Wide, row + 1.0) for row in range(num_envs)]
        return SyncVectorEnv(rows, observation_mode="different", autoreset_mode=autoreset_mode)

    check_vector_env(make, **SHORT)


# Broken ones


class WrongNumber(Walk):
    def __init__(self, num_envs: int = 1, **kwargs: Any) -> None:
        super().__init__(num_envs, **kwargs)
        self.num_envs = num_envs + 1


class SingleForBatch(Walk):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action_space = self.single_action_space


class OneModeForAll(Walk):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metadata = {"autoreset_mode": SAME_STEP}


class Silent(Walk):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metadata = {}


class FourThings(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, terminated, truncated, infos = super().step(actions)
        return observation, rewards, terminated | truncated, infos


class OtherDtype(Walk):
    def observation(self) -> Any:
        return super().observation().astype(np.float64)


class OutOfBounds(Walk):
    def observation(self) -> Any:
        return super().observation() * 5


class NotANumber(Walk):
    def observation(self) -> Any:
        return np.where(self.steps[:, None] > 5, np.float32("nan"), super().observation())


class NoBatchOfOne(Walk):
    def observation(self) -> Any:
        return super().observation().squeeze()


class ForgottenKey(Walk):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, view="dict")

    def observation(self) -> Any:
        observation = super().observation()
        if self.steps.any():
            del observation["path"]["steps"]
        return observation


class ListOfRewards(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        return observation, rewards.tolist(), *others


class CutRewards(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        return observation, rewards.astype(np.int64), *others


class RewardsOfTwoKinds(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        return observation, rewards.astype(np.float32 if self.over.any() else float), *others


class InfiniteReward(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        with np.errstate(divide="ignore"):
            return observation, np.log(rewards), *others


class FlagsOfNumbers(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, terminated, *others = super().step(actions)
        return observation, rewards, terminated.astype(np.int8), *others


class NoMask(Walk):
    def infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {"steps": self.steps.copy()}


class ListOfInfos(Walk):
    def infos(self, mask: np.ndarray) -> Any:
        return [{"steps": steps} for steps in self.steps.tolist()]


class ShortColumn(Walk):
    def infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {"steps": self.steps[mask], "_steps": mask.copy()}


class MaskOfNumbers(Walk):
    def infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {"steps": self.steps.copy(), "_steps": mask.astype(np.int64)}


class PaysForBeginning(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        return observation, rewards + 0.1, *others


class EndsTwice(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        before = self.over
        *others, truncated, infos = super().step(actions)
        return *others, truncated | (before & (self.mode is NEXT_STEP)), infos


class ActsInTheStepThatResets(Walk):
    def move(self, actions: Any, mask: np.ndarray) -> None:
        super().move(actions, mask)
        self.after = np.where(mask, 0, actions - 1)

    def begin(self, mask: np.ndarray) -> None:
        super().begin(mask)
        if self.mode is NEXT_STEP and hasattr(self, "after"):
            self.at[mask] += self.after[mask]


class NoLastObservation(Walk):
    def final(self) -> dict[str, Any]:
        return {}


class NoLastInfo(Walk):
    def final(self) -> dict[str, Any]:
        final = super().final()
        return {key: final[key] for key in ("final_obs", "_final_obs")}


class LastOfAll(Walk):
    def final(self) -> dict[str, Any]:
        every = np.empty(self.num_envs, object)
        every[:] = self.rows()
        return {**super().final(), "final_obs": every, "_final_obs": ~np.zeros_like(self.over)}


class LastOnesBatched(Walk):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, view="dict")

    def final(self) -> dict[str, Any]:
        return {**super().final(), "final_obs": self.observation()}


class LastIsFirst(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        *others, infos = super().step(actions)
        if "final_obs" in infos:
            for row in infos["_final_obs"].nonzero()[0].tolist():
                infos["final_obs"][row] = self.rows()[row]
        return *others, infos


class DeafToMasks(Walk):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


class WaitsAfterReset(Walk):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        before = self.over
        result = super().reset(seed=seed, options=options)
        if self.mode is NEXT_STEP:
            self.over = before
        return result


class OneArray(Walk):
    def observation(self) -> Any:
        if not hasattr(self, "out"):
            self.out = super().observation()
        self.out[:] = super().observation()
        return self.out


class TwoArrays(Walk):
    def observation(self) -> Any:
        if not hasattr(self, "outs"):
            self.outs = [super().observation(), super().observation()]
        self.outs.reverse()
        self.outs[0][:] = super().observation()
        return self.outs[0]


class OwnMask(Walk):
    def infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {"at": self.at, "_at": np.ones(self.num_envs, np.bool_)}


class WritesToActions(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        actions -= 1
        return super().step(actions + 1)


class Unseeded(Walk):
    def begin(self, mask: np.ndarray) -> None:
        self.at[mask] = np.random.default_rng().integers(-3, 4, mask.sum())
        self.steps[mask] = 0


class SeededOnce(Walk):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed if self._np_random is None else None, options=options)


class KeepsSomeState(Walk):
    count = 0

    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        self.count += 1
        return observation, rewards * self.count, *others


class Clock(Walk):
    def infos(self, mask: np.ndarray) -> dict[str, Any]:
        return {"time": np.full(self.num_envs, time.perf_counter()), "_time": mask.copy()}


class SharedReward(Walk):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observation, rewards, *others = super().step(actions)
        over = rewards == 0
        return observation, np.where(over, 0, rewards.mean()), *others


class RowsMixedUp(Walk):
    def move(self, actions: Any, mask: np.ndarray) -> None:
        super().move(np.roll(actions, 1), mask)


class ClosesOnce(Walk):
    def close(self, **kwargs: Any) -> None:
        del self.at


class NotOne:
    def __init__(self, num_envs: int, autoreset_mode: AutoresetMode) -> None:
        self.num_envs = num_envs


@pytest.mark.parametrize(
    ("broken", "law", "where"),
    [
        (NotOne, "makes a gymnasium.vector.VectorEnv", "type"),
        (WrongNumber, "as many rows as were asked for", "num_envs"),
        (SingleForBatch, "spaces are batches", "action_space"),
        (OneModeForAll, "says how rows are reset", r"metadata\['autoreset_mode'\]"),
        (Silent, "says how rows are reset", r"metadata\['autoreset_mode'\]"),
        (FourThings, r"reset gives .* and step \(", "step 1\n"),
        (OtherDtype, "element of observation_space", "first reset: observation\n"),
        (OutOfBounds, "element of observation_space", r"step \d+: observation\n"),
        (NotANumber, "element of observation_space", r"step \d+: observation\n"),
        (NoBatchOfOne, "element of observation_space", "first reset: observation\n"),
        (ForgottenKey, "element of observation_space", r"step \d+: observation\['path'\]\n"),
        (ListOfRewards, "one finite number a row", "step 1: rewards\n"),
        (CutRewards, "one finite number a row", "step 1: rewards\n"),
        (RewardsOfTwoKinds, "one finite number a row", r"dtype of step \d+: rewards\n"),
        (InfiniteReward, "one finite number a row", r"step \d+: rewards\n"),
        (FlagsOfNumbers, "one bool a row", "step 1: terminated\n"),
        (NoMask, "infos are columns", "first reset: infos\n"),
        (ListOfInfos, "infos are columns", "first reset: infos\n"),
        (ShortColumn, "infos are columns", r"step \d+: infos\['steps'\]\n"),
        (MaskOfNumbers, "infos are columns", r"first reset: infos\['_steps'\]\n"),
        (PaysForBeginning, "which pays nothing and ends nothing", r"step \d+: rewards\[\d\]\n"),
        (EndsTwice, "which pays nothing and ends nothing", r"step \d+: truncated\[\d\]\n"),
        (ActsInTheStepThatResets, "ignores its action", r"step \d+: observation\[\d, 0\]\n"),
        (NoLastObservation, "gives its last observation", r"step \d+: infos\['_final_obs'\]\n"),
        (NoLastInfo, "gives its last observation", r"step \d+: infos\['_final_info'\]\n"),
        (LastOfAll, "gives its last observation", r"step \d+: infos\['_final_obs'\]\n"),
        (LastOnesBatched, "gives its last observation", r"step \d+: infos\['final_obs'\]\n"),
        (LastIsFirst, "the same in every autoreset mode", r"step \d+: last observation"),
        (DeafToMasks, "leaves the rows outside of the mask", "observation of row"),
        (WaitsAfterReset, "begins as if nothing had been before|same again", r"step \d+: "),
        (OneArray, "never changes", r"observation of first reset\[\d, \d\], after step 1\n"),
        (TwoArrays, "never changes", r"observation of first reset\[\d, \d\], after step 2\n"),
        (OwnMask, "never changes", r"infos of first reset\['at'\]\[\d\], after step 1\n"),
        (WritesToActions, "nothing that it is given", r"step 1: actions\[\d\]\n"),
        (Unseeded, "the same seed and actions give the same again", "first reset: observation"),
        (SeededOnce, "as if nothing had been before", r"reset after step \d+: observation"),
        (KeepsSomeState, "as if nothing had been before", r"step \d+: rewards"),
        (Clock, "the same seed and actions give the same again", r"infos\['time'\]\[0\]\n"),
        (SharedReward, "depends on its own actions only", r"step \d+: rewards of row \d\n"),
        (RowsMixedUp, "depends on its own actions only", r"step \d+: observation of row \d"),
        (ClosesOnce, r"close\(\) may be called twice", r"second close\(\)\n"),
    ],
)
def test_a_fault_is_found_and_named(broken: Any, law: str, where: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check_vector_env(broken, **SHORT)
    message = str(raised.value)
    assert re.search(f"breaks the law that [^\n]*({law})", message), message
    assert re.search(rf"  where:     [^\n]*{where}", message), message
    assert all(f"\n  {part}:" in message for part in ("expected", "got", "cure")), message


def test_gymnasiums_processes_without_shared_memory_forget_to_forget() -> None:
    """Its worker clears the waiting reset only where it writes to shared memory."""

    def make(num_envs: int, autoreset_mode: AutoresetMode) -> Any:
        rows = [partial(gym.make, "Blackjack-v1")] * num_envs
        return AsyncVectorEnv(rows, shared_memory=False, autoreset_mode=autoreset_mode)

    with pytest.raises(AssertionError, match=r"in mode NEXT_STEP .* as if nothing had been before"):
        check_vector_env(make, num_steps=30)
    check_vector_env(make, num_steps=30, autoreset_modes=[SAME_STEP, DISABLED])


def test_it_warns_where_no_episode_ends() -> None:
    with pytest.warns(UserWarning, match="ended in 29 steps, so that ends were not checked"):
        check_vector_env(singles("Pendulum-v1"), num_steps=30, autoreset_modes=[SAME_STEP])


def test_it_wants_rows_that_can_differ() -> None:
    with pytest.raises(ValueError, match="num_envs is 1; take 2 or more"):
        check_vector_env(Walk, num_envs=1)
