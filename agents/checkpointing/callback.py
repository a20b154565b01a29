"""Saves checkpoints while a training goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from agents.checkpointing.algorithm import Stateful, save_checkpoint
from agents.checkpointing.checkpoints import Checkpoints
from agents.distributed.processes import processes_of
from agents.finite import first_non_finite
from agents.health.diverged import Diverged

_SHARE = 0.05
"""Of the time of a training, at most so much is spent on saving it."""


class Checkpoint(BaseCallback):
    """Saves a training every so often, between an update and the rollout after it.

    A training that goes on from there (`load_checkpoint`) is the one that was never stopped.
    Large models are saved less often, so that it takes no more than a twentieth of the time.

    Args:
        checkpoints: Where they are kept: a directory, or `Checkpoints`.
        every: Seconds between two of them, at least; 0 saves before every rollout.
        parts: What else has a state, by name: the callbacks that remember something.

    Attributes:
        interrupted: Not empty if the training shall be saved at once, and stopped by a
            `KeyboardInterrupt`: what `agents.interrupts` yields.
    """

    def __init__(
        self,
        checkpoints: str | Path | Checkpoints,
        every: float = 10.0,
        parts: Mapping[str, Stateful] | None = None,
    ) -> None:
        super().__init__()
        kept = checkpoints if isinstance(checkpoints, Checkpoints) else Checkpoints(checkpoints)
        self._checkpoints = kept
        self._every = every
        self._parts = dict(parts or {})
        self._due = 0.0
        self.interrupted: Sequence[int] = ()

    def _on_training_start(self) -> None:
        if self.num_timesteps:  # goes on from a checkpoint
            self._due = time.monotonic() + self._every

    def _on_rollout_start(self) -> None:
        asked = bool(self.interrupted), time.monotonic() >= self._due
        every = processes_of(self.model).gather("asks for a checkpoint", asked)
        interrupted = any(interrupted for interrupted, _ in every)
        if interrupted or every[0][1]:
            self.save()
        if interrupted:
            raise KeyboardInterrupt

    def _on_step(self) -> bool:
        return True

    def save(self) -> Path | None:
        """Save now; call it between two rollouts only, and in all processes.

        Returns:
            Where the checkpoint is; None in all processes but the first.

        Raises:
            Diverged: If a weight is a NaN or infinite.
            OSError: If it cannot be written; the earlier ones are still there.
        """
        bad = first_non_finite(self.model.policy)
        if bad is not None:
            raise Diverged(
                f"the weight {bad!r} is no number",
                "an update went too far; nothing is saved of it.",
                "a lower learning rate, or a smaller max_grad_norm.",
            )
        if not processes_of(self.model).is_first:
            save_checkpoint(self.model, self._checkpoints.path, self._parts)
            return None
        started = time.monotonic()
        try:
            saved = self._checkpoints.write(
                self.model.num_timesteps,
                lambda directory: save_checkpoint(self.model, directory, self._parts),
            )
        except OSError as error:
            raise OSError(
                f"the checkpoint after {self.model.num_timesteps:,} tokens could not be written "
                f"({error.strerror or error}).{self._last_one}"
            ) from error
        now = time.monotonic()
        self._due = now + (self._every and max(self._every, (now - started) / _SHARE))
        return saved

    @property
    def _last_one(self) -> str:
        """Which checkpoint there is, as the end of an error's message."""
        latest = self._checkpoints.latest
        return " There is none before it." if latest is None else f" The last one is {latest}."
