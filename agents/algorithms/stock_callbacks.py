"""Stable-Baselines3's callbacks that write files, where several processes train together."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import (
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EventCallback,
)
from stable_baselines3.common.type_aliases import MaybeCallback


def those_of_process(callback: MaybeCallback, is_first: bool, shards: bool) -> MaybeCallback:
    """Leave out `EvalCallback` and `CheckpointCallback` where others would write the same files.

    The first process evaluates and saves for all, which wait for it at the end of the rollout. A
    sharded policy is saved by all of them at once, so that they have to agree when.

    Args:
        callback: As `learn` is given it.
        is_first: Whether this is the first process.
        shards: Whether each process has a part of the policy only.

    Raises:
        ValueError: If each process would decide by itself whether to save a sharded policy.
    """
    if isinstance(callback, (list, CallbackList)):
        each = callback if isinstance(callback, list) else callback.callbacks
        kept: list[Any] = [those_of_process(one, is_first, shards) for one in each]
        return CallbackList([one for one in kept if one is not None])
    if isinstance(callback, EvalCallback):
        if shards and callback.best_model_save_path is not None:
            raise ValueError(
                "EvalCallback(best_model_save_path=...) saves by what one process finds, and a "
                "sharded policy is saved by all together. Leave the path out, and let "
                "agents.checkpointing.Checkpoint save."
            )
        return callback if is_first else None
    if isinstance(callback, CheckpointCallback) and not shards:
        return callback if is_first else None
    if isinstance(callback, EventCallback):
        inner: Any = those_of_process(callback.callback, is_first, shards)
        callback.callback = inner
    return callback
