"""The contract of Gymnasium's vector environments, as a test that users run on their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from textgym.checks import vector_plays as plays
from textgym.checks.vector_plays import Played
from textgym.checks.vector_watch import WatchedVectorEnv


def check_vector_env(
    make_vector: Callable[..., VectorEnv[Any, Any, Any]],
    make_single: Callable[[], gym.Env[Any, Any]] | None = None,
    *,
    num_envs: int = 3,
    num_steps: int = 200,
    seed: int = 0,
    autoreset_modes: Sequence[AutoresetMode] | None = tuple(AutoresetMode),
) -> None:
    """Check that a vector environment keeps the contract of Gymnasium's `VectorEnv`.

    It plays at random, in every autoreset mode and with one row too. What holds for every vector
    environment is always checked:

    * its spaces, and that what it returns has their structure, dtype, shape and bounds;
    * rewards, flags, and infos with their masks;
    * what becomes of a row that is over, in each mode, and of the others meanwhile; `reset_mask`;
    * that the same seed and actions give the same again, in a second copy and after other play;
    * that rows do not affect one another, and modes do not affect the first episode;
    * that nothing changes which was returned or given, and that `close()` may be called twice.

    With `make_single` it has also to give exactly what `SyncVectorEnv` of single environments
    gives: values, dtypes, keys and masks, after resets with one seed, with a list of seeds,
    without any and with `reset_mask`.

    Example:
        >>> from functools import partial
        >>> import gymnasium as gym
        >>> import textgym
        >>> arguments = {"task": "target_token", "reward": "target_token"}
        >>> check_vector_env(
        ...     partial(gym.make_vec, "TextGen-v0", **arguments),
        ...     partial(gym.make, "TextGen-v0", **arguments),
        ... )
        >>> check_vector_env(partial(gym.make_vec, "CartPole-v1"), autoreset_modes=None)

    Args:
        make_vector: Makes the vector environment; called with `num_envs` and `autoreset_mode`.
        make_single: Makes one single environment; None if there is no such, or if rows draw
            other random numbers than single ones would.
        num_envs: Number of rows, 2 or more.
        num_steps: Steps of a play; take enough for several episodes.
        seed: Of the environments and of the actions.
        autoreset_modes: The modes to check. None for an environment that knows one mode only:
            `make_vector` is called with `num_envs` alone, and the mode is what its metadata say.

    Raises:
        AssertionError: If it breaks a law; the message says which, where, what was expected, what
            came instead, and the cure.
        ValueError: If `num_envs` is below 2, or `autoreset_modes` are empty or not such modes.

    Warns:
        UserWarning: If no episode ended in `num_steps` steps, so that nothing is known of ends.
    """
    if num_envs < 2:
        raise ValueError(f"num_envs is {num_envs}; take 2 or more, so that rows can differ.")
    modes = [None] if autoreset_modes is None else [AutoresetMode(mode) for mode in autoreset_modes]
    if not modes:
        raise ValueError("autoreset_modes are empty; give one or more, or None.")
    another: list[Played] | None = None
    # Last what is compared with the others.
    for mode in sorted(modes, key=lambda mode: mode is AutoresetMode.SAME_STEP):
        with ExitStack() as opened:
            make = partial(_make, make_vector, mode, opened)
            env = make(num_envs)
            played = plays.improvise(env, num_steps, seed)
            _warn_without_ends(env, played)
            other = make(num_envs)
            plays.plays_the_same_again(other, played)
            plays.forgets_what_was(env, played, num_steps)
            plays.keeps_rows_apart(env, other, num_steps, seed)
            if env.mode is AutoresetMode.NEXT_STEP:
                plays.ignores_actions_of_rows_that_are_over(env, played)
            if another is not None:
                plays.begins_as_in_another_mode(other, another)
            another = another or (None if env.mode is AutoresetMode.SAME_STEP else played)
            plays.improvise(make(1), num_steps, seed)
            if make_single is not None:
                plays.gives_what_single_ones_give(make(num_envs), make_single, num_steps, seed)
            env.closes_twice()


def _make(
    make_vector: Callable[..., VectorEnv[Any, Any, Any]],
    mode: AutoresetMode | None,
    opened: ExitStack,
    num_envs: int,
) -> WatchedVectorEnv:
    env = make_vector(num_envs=num_envs, **({} if mode is None else {"autoreset_mode": mode}))
    watched = WatchedVectorEnv(env, num_envs, mode)
    opened.callback(watched.close)
    return watched


def _warn_without_ends(env: WatchedVectorEnv, played: list[Played]) -> None:
    steps = [result for call, result, _ in played[:-1] if call.is_step]
    if not any((terminated | truncated).any() for _, _, terminated, truncated, _ in steps):
        warnings.warn(
            f"no episode of {env.env} ended in {len(steps)} steps, so that ends were not checked; "
            "give more num_steps, or an environment with shorter episodes.",
            stacklevel=3,
        )
