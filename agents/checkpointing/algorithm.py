"""All that an algorithm needs to go on: saved to a directory, and taken from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from agents.checkpointing.chance import load_random_state, random_state
from agents.checkpointing.environment import (
    environment_state,
    learn_from_state,
    load_environment_state,
)
from agents.checkpointing.tree import load_tree, save_tree
from agents.distributed.learner import learner_of
from agents.distributed.processes import processes_of
from agents.distributed.whole import load_whole, whole
from agents.weights import load_weights, save_weights

WEIGHTS = "policy.safetensors"
FORMAT = 2

_COUNTERS = (
    "num_timesteps",
    "exploration_rate",
    "kl_coef",
    "_current_progress_remaining",
    "_drawn_at",
    "_episode_num",
    "_episodes",
    "_n_calls",
    "_n_updates",
)
"""Attributes of SB3's algorithms and of ours that change in training."""

_PARTS = ("replay_buffer", "_episode_sums", "sft_data")
"""Attributes that know their own state."""


@runtime_checkable
class Stateful(Protocol):
    """Has a state that a training needs to go on, for `save_tree`."""

    def state(self) -> dict[str, Any]:
        """The state."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


@runtime_checkable
class Forgetful(Protocol):
    """Remembers something of the episodes that go on."""

    def forget(self, rows: NDArray[np.bool_]) -> None:
        """Forget it of rows, bool (n,), whose episodes begin anew."""


def save_checkpoint(
    algorithm: BaseAlgorithm, directory: str | Path, parts: Mapping[str, Stateful] | None = None
) -> None:
    """Save what an algorithm needs to go on, between two rollouts.

    That is its weights (frozen ones left out), the optimizer, counters, the environment with the
    texts that are not finished, whatever is remembered (replay buffer, sums, what is not logged
    yet), and the state of all random generators. Nothing is drawn from those. Of several processes
    that train together all call this, and the first writes what all of them have to say.

    Args:
        algorithm: Any algorithm of Stable-Baselines3 or of `agents`, in an environment of
            `make_sb3_vec_env`.
        directory: Gets `policy.safetensors`, `data.json` and `tensors.safetensors`. Take an empty
            one, as `Checkpoints` does: files in it are replaced one by one.
        parts: Others that have a state, such as callbacks, by names of your own.

    Raises:
        TypeError: If something has no state, such as an environment of another kind.
    """
    directory, processes = Path(directory), processes_of(algorithm)
    optimizer: Any = algorithm.policy.optimizer
    logger: Logger | None = getattr(algorithm, "_logger", None)
    state = {
        "format": FORMAT,
        "algorithm": type(algorithm).__name__,
        "counters": {n: getattr(algorithm, n) for n in _COUNTERS if _is_number(algorithm, n)},
        "optimizer": whole(optimizer.state_dict(), processes.is_first),
        "logged": None if logger is None else _pending(logger),
        "processes": processes.gather("saves", _own_state(algorithm, parts or {})),
    }
    if processes.is_first:
        directory.mkdir(parents=True, exist_ok=True)
    save_weights(algorithm.policy, directory / WEIGHTS, here=processes.is_first)
    if processes.is_first:
        save_tree(state, directory)


def load_checkpoint(
    algorithm: BaseAlgorithm, directory: str | Path, parts: Mapping[str, Stateful] | None = None
) -> int:
    """Let an algorithm that was made as the saved one was go on where that was.

    Then call `learn(total_timesteps, reset_num_timesteps=False)`. Nothing is unpickled: files of
    other people cannot run code. On the CPU of the same machine, what follows is what would have
    been, to the last bit; if it is by as many processes as before. Of more the new ones begin texts
    of their own, and of fewer some unfinished texts are given up.

    Args:
        algorithm: Made with the same arguments, in an environment made with the same ones.
        directory: Of `save_checkpoint`.
        parts: As they were saved, to get their states back.

    Returns:
        The number of processes that saved it.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, or one of another algorithm, network or environment.
    """
    directory = Path(directory)
    state = load_tree(directory)
    saved, own = state.get("algorithm"), type(algorithm).__name__
    if state.get("format") != FORMAT:
        raise ValueError(
            f"{directory} was written by another version of textgym (format {state.get('format')}, "
            f"and this one has {FORMAT}). Go on with the version that wrote it."
        )
    if saved != own:
        raise ValueError(
            f"{directory} is a checkpoint of {saved}, and {own} was to go on with it. Make the "
            "algorithm that was saved."
        )
    # Taken apart first, if it is to be: no process has room for a whole optimizer's state.
    learner_of(algorithm).begin(
        algorithm.policy.optimizer,
        getattr(algorithm, "reference", None),
    )
    load_weights(algorithm.policy, directory / WEIGHTS)
    try:
        _load(algorithm, state, parts or {})
    except KeyError as error:
        raise ValueError(
            f"{directory} lacks {error}, which a checkpoint of this version has. Go on with the "
            "version that wrote it."
        ) from error
    return len(state["processes"])


def _own_state(algorithm: BaseAlgorithm, parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """What one of several processes knows, and the others do not."""
    env = algorithm.get_env()
    assert env is not None
    return {
        "episode_starts": algorithm._last_episode_starts,
        "episodes": list(algorithm.ep_info_buffer or ()),
        "successes": [float(success) for success in algorithm.ep_success_buffer or ()],
        "environment": environment_state(env),
        "own_parts": {n: part.state() for n, part in _own_parts(algorithm).items()},
        "parts": {name: part.state() for name, part in parts.items()},
        "random": random_state(algorithm.action_space),
    }


def _load(
    algorithm: BaseAlgorithm, state: Mapping[str, Any], parts: Mapping[str, Stateful]
) -> None:
    optimizer: Any = algorithm.policy.optimizer
    load_whole(optimizer, state["optimizer"])
    for name in _COUNTERS:
        if name in state["counters"]:
            setattr(algorithm, name, state["counters"][name])
    logger: Logger | None = getattr(algorithm, "_logger", None)
    if logger is not None and state["logged"] is not None:
        _log_again(logger, state["logged"])
    processes, saved = processes_of(algorithm), state["processes"]
    if processes.index < len(saved):
        _load_own(algorithm, saved[processes.index], parts)
    else:
        _begin_own(algorithm, saved[processes.index % len(saved)], parts)


def _load_own(
    algorithm: BaseAlgorithm, own: Mapping[str, Any], parts: Mapping[str, Stateful]
) -> None:
    """Go on where a process was."""
    env = algorithm.get_env()
    assert env is not None
    observations, anew = load_environment_state(env, own["environment"])
    algorithm._last_obs = observations
    algorithm._last_episode_starts = own["episode_starts"] | anew
    algorithm.ep_info_buffer = deque(own["episodes"], algorithm._stats_window_size)
    algorithm.ep_success_buffer = deque(own["successes"], algorithm._stats_window_size)
    for name, part in _own_parts(algorithm).items():
        part.load_state(own["own_parts"][name])
    for name, part in parts.items():
        part.load_state(own["parts"].get(name, {}))
        if isinstance(part, Forgetful):
            part.forget(anew)
    load_random_state(own["random"], algorithm.action_space)


def _begin_own(
    algorithm: BaseAlgorithm, other: Mapping[str, Any], parts: Mapping[str, Stateful]
) -> None:
    """Join those that go on: with what another has learned, and with texts of one's own."""
    env = algorithm.get_env()
    assert env is not None
    learn_from_state(env, other["environment"])
    if algorithm.seed is not None:  # not as at the start, whose texts there were
        algorithm.set_random_seed((algorithm.seed + algorithm.num_timesteps) % 2**31)
    observations = env.reset()
    algorithm._last_obs = observations  # type: ignore[assignment]
    algorithm._last_episode_starts = anew = np.ones(env.num_envs, np.bool_)
    for name, part in parts.items():
        part.load_state(other["parts"].get(name, {}))
        if isinstance(part, Forgetful):
            part.forget(anew)


def _is_number(algorithm: BaseAlgorithm, name: str) -> bool:
    return isinstance(getattr(algorithm, name, None), (int, float, np.generic))


def _own_parts(algorithm: BaseAlgorithm) -> dict[str, Stateful]:
    parts: dict[str, Stateful] = {}
    for name in _PARTS:
        part: Any = getattr(algorithm, name, None)
        if isinstance(part, Stateful):
            parts[name] = part
        elif part is not None:
            raise TypeError(
                f"the {name} is a {type(part).__name__}, which cannot say what it holds, so that a "
                "training could not go on with it. Of buffers, give DQN "
                "replay_buffer_class=agents.replay.TokenReplayBuffer."
            )
    return parts


def _pending(logger: Logger) -> dict[str, Any]:
    """What was recorded and is not written yet: SB3 writes of an update after the next rollout."""
    values = {n: v for n, v in logger.name_to_value.items() if _is_plain(v)}
    return {
        "values": values,
        "counts": dict(logger.name_to_count),
        # SB3's writers want one for each value, and for no other.
        "excluded": {n: list(those) for n, those in logger.name_to_excluded.items() if n in values},
    }


def _log_again(logger: Logger, pending: Mapping[str, Any]) -> None:
    logger.name_to_value.update(pending["values"])
    logger.name_to_count.update(pending["counts"])
    logger.name_to_excluded.update({n: tuple(those) for n, those in pending["excluded"].items()})


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, np.generic))
