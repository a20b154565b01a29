"""What vector environments are made to play, and what must come of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym.checks import vector_laws as laws
from textgym.checks.vector_watch import OF_STEP, Call, WatchedVectorEnv, batched


class Played(NamedTuple):
    """A call, what it returned, and which rows were over before."""

    call: Call
    result: Any
    over: Any


def improvise(env: WatchedVectorEnv, num_steps: int, seed: int) -> list[Played]:
    """Play at random: from a seed, and from the middle on from a reset without one."""
    actions, played = _random_actions(env, seed), []

    def do(call: Call) -> None:
        over = env.over
        played.append(Played(call, env.do(call), over))

    do(Call(seed=seed))
    for step in range(num_steps):
        if step and step == num_steps // 2:
            do(Call())
        elif env.mode is AutoresetMode.DISABLED and env.over.any():
            do(Call(mask=env.over))
        do(Call(next(actions)))
    return played


def plays_the_same_again(env: WatchedVectorEnv, played: list[Played]) -> None:
    """Another copy gives what the first one gave."""
    for call, result, _ in played:
        env.compare(laws.REPEATABLE, result, env.do(call))


def forgets_what_was(env: WatchedVectorEnv, played: list[Played], num_steps: int) -> None:
    """Begun anew by a seed, when a row had just ended, it gives what it gave at first."""
    actions = _random_actions(env, len(played))
    for _ in range(num_steps):
        if env.ended.any():
            break
        if env.mode is AutoresetMode.DISABLED and env.over.any():
            env.do(Call(mask=env.over))
        env.do(Call(next(actions)))
    for call, result, _ in played:
        env.compare(laws.FORGETS, result, env.do(call))


def ignores_actions_of_rows_that_are_over(env: WatchedVectorEnv, played: list[Played]) -> None:
    """With NEXT_STEP nothing changes if the rows that begin anew get other actions."""
    actions = _random_actions(env, len(played))
    for call, result, over in played:
        if call.is_step and over.any():
            call = Call(env.mixed(call.actions, next(actions), over))
        env.compare(laws.ACTION_IGNORED, result, env.do(call))


def keeps_rows_apart(
    env: WatchedVectorEnv, other: WatchedVectorEnv, num_steps: int, seed: int
) -> None:
    """Until an episode ends, and in its last step, a row gives the same whatever the others do.

    After that, rows may share one stream of random numbers, and draw from it as they begin. So
    both begin anew then, from another seed, and it is another row's turn.

    Args:
        env: One copy.
        other: Another, in which all rows but one get other actions.
        num_steps: Number of steps in all.
        seed: Of the environments and of the actions.
    """
    actions = _random_actions(env, seed)
    rows = cycle((env.num_envs - 1, *range(env.num_envs - 1)))
    ended = True
    for step in range(num_steps):
        if ended or step == num_steps // 2:
            row = next(rows)
            call = Call(seed=seed + step)
            other.compare(laws.FORGETS, env.do(call), other.do(call))
        call = Call(next(actions))
        mixed = Call(env.mixed(call.actions, next(actions), np.arange(env.num_envs) != row))
        then, now = (_of_row(one, one.do(made), row) for one, made in ((env, call), (other, mixed)))
        names = [f"{name} of row {row}" for name in OF_STEP[: len(now)]]
        other.compare(laws.INDEPENDENT, then, now, names)
        ended = bool((env.ended | other.ended).any())


def begins_as_in_another_mode(env: WatchedVectorEnv, played: list[Played]) -> None:
    """Until the first end, and in its step, all is as it was in another mode.

    Args:
        env: Of one mode.
        played: In another mode, not SAME_STEP.
    """
    for call, result, _ in played:
        again = env.do(call)
        if not call.is_step:
            env.compare(laws.MODES_AGREE, result[:1], again[:1], ["observation"])
            continue
        names = ["last observation", *OF_STEP[1:4]]
        now = (_last_observation(env, again), *again[1:4])
        env.compare(laws.MODES_AGREE, result[:4], now, names)
        if env.ended.any():
            return


def gives_what_single_ones_give(
    env: WatchedVectorEnv, make_single: Callable[[], gym.Env[Any, Any]], num_steps: int, seed: int
) -> None:
    """Through all kinds of resets it gives what `SyncVectorEnv` of single environments gives."""
    n = env.num_envs
    reference = SyncVectorEnv([make_single] * n, autoreset_mode=env.mode)
    rng = np.random.default_rng(seed)
    seeds = [None if row % 2 else seed + 10 * row for row in range(n)]

    def do(call: Call) -> None:
        env.compare(laws.SINGLE, copy.deepcopy(call).on(reference), env.do(call))

    try:
        for space in ("observation_space", "action_space"):
            for name in (f"single_{space}", space):
                expected, got = getattr(reference, name), getattr(env.env, name)
                if got != expected:
                    raise env.broken(laws.SINGLE, name, expected, got)
        reference.action_space.seed(seed)
        do(Call(seed=seed))
        for step in range(1, num_steps + 1):
            chosen = rng.random(n) < 0.5
            if step == num_steps // 3:
                do(Call(seed=seeds))
            elif step == num_steps // 2:
                do(Call())
            elif step % 20 == 0 and chosen.any():
                do(Call(mask=chosen | env.ended | env.over))
            elif env.mode is AutoresetMode.DISABLED and env.over.any():
                do(Call(mask=env.over))
            do(Call(reference.action_space.sample()))
    finally:
        reference.close()


def _random_actions(env: WatchedVectorEnv, seed: int) -> Iterator[Any]:
    """Actions for all rows, without an end."""
    space = env.env.action_space
    space.seed(seed)
    while True:
        yield space.sample()


def _last_observation(env: WatchedVectorEnv, result: Any) -> Any:
    """What a step led to, before rows began anew in it."""
    observation, *_, infos = result
    if env.mode is not AutoresetMode.SAME_STEP or not env.ended.any():
        return observation
    rows = env.split(observation)
    for row in env.ended.nonzero()[0].tolist():
        rows[row] = infos["final_obs"][row]
    return batched(env.env.single_observation_space, rows)


def _of_row(env: WatchedVectorEnv, result: Any, row: int) -> tuple[Any, ...]:
    """What a step gave one row, but for its info."""
    observation = env.split(_last_observation(env, result))[row]
    return (observation, *(column[row] for column in result[1:4]))
