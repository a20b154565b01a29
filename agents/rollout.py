"""A sampler writes in an environment: the only place where model and environment meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.health.causes import in_reward, in_writing, observed_contexts
from agents.policy import whole_numbers
from agents.run_ahead import stepper
from agents.sampler import Sampler

_AHEAD = 2**30
"""Bytes of observations that wait for rewards, at most; then what is owed is waited for."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One token in every row, n rows: all of a step that is known before it is paid.

    Attributes:
        observations: What there was before it.
        actions: The tokens, int64 (n,).
        log_probs: Their log-probabilities, float32 (n,).
        values: The critic's values of `observations`, float32 (n,).
        dones: Whether the episode ended, bool (n,).
        terminal_values: Values of the texts of episodes that were cut and not ended, for what
            would have come after; 0 elsewhere. float32 (n,).
        new_observations: What there is after it.
        begun: Rows whose text does not go on from the one before: new episodes, and texts to
            which something else than the token was added. int (k,).
        rows: Rows in which a token was written, int (k,): all but those that were left out, where
            rewards are 0, infos empty, and nothing is done.
    """

    observations: Mapping[str, NDArray[Any]]
    actions: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    values: NDArray[np.float32]
    dones: NDArray[np.bool_]
    terminal_values: NDArray[np.float32]
    new_observations: Mapping[str, NDArray[Any]]
    begun: NDArray[np.intp]
    rows: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Step(Written):
    """What SB3's algorithms know of a step.

    Attributes:
        rewards: float32 (n,).
        infos: From the environment.
    """

    rewards: NDArray[np.float32]
    infos: list[dict[str, Any]]


class Rollout:
    """Steps an environment with what a policy writes, from a batch of observations on.

    What the policy has read is kept as long as observations grow by the token that was drawn.
    Rows where they do not (a new episode; an environment that answers) are read anew.

    Tokens are written by `write`, and told with their rewards by `settle`, in the same order. As
    long as it `writes_on` there is nothing to settle that need not be waited for.

    Args:
        sampler: A row for each of the environment; its policy must not change until the rollout
            is over.
        env: Any SB3 vector environment with the observations of `TextGen-v0`.
        observations: The last that the environment gave.
        deterministic: Take the likeliest token instead of sampling.

    Raises:
        ValueError: If the environment's texts may be longer than the policy was made for.
    """

    def __init__(
        self,
        sampler: Sampler,
        env: VecEnv,
        observations: Mapping[str, NDArray[Any]],
        *,
        deterministic: bool = False,
    ) -> None:
        self._policy = sampler.policy
        self._env = env
        self._deterministic = deterministic
        self._sampler = sampler
        self._rows = np.arange(env.num_envs)
        self._holds = env.has_attr("hold")
        self._filler = int(getattr(env.action_space, "allowed", (0,))[0])
        self._observations = observations
        self._ids: NDArray[np.int64] = np.empty(observations["input_ids"].shape, np.int64)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._unread = np.ones(env.num_envs, np.bool_)  # by the sampler
        self._stepper = stepper(env)
        self._owed: deque[Written] = deque()
        self._failed: Exception | None = None
        for key in ("input_ids", "attention_mask"):
            whole_numbers(key, torch.as_tensor(observations[key]))
        made_for, given = self._policy.backbone.context_length, observations["input_ids"].shape[1]
        if given > made_for:
            raise ValueError(
                f"the environment's context_length is {given}, and the policy was made for one of "
                f"{made_for}. Give the environment context_length={made_for}, or make the policy "
                "for the longer one."
            )
        self._place(self._rows)

    @property
    def unsettled(self) -> int:
        """Steps that are written and not settled, one that failed among them."""
        return len(self._owed) + (self._failed is not None)

    @property
    def writes_on(self) -> bool:
        """Whether to write rather than to settle."""
        if not self.unsettled:
            return True
        size = sum(array.nbytes for array in self._observations.values())
        has_room = len(self._owed) * size < _AHEAD
        return has_room and self._failed is None and not self._stepper.is_due

    def step(self) -> Step:
        """Draw a token in every row, and let the environment answer.

        Raises:
            Diverged: If a log-probability, a value or a reward is no number.
        """
        self.write()
        return self.settle()

    def write(self) -> NDArray[np.bool_]:
        """Draw a token in every row.

        What goes wrong is raised by `settle`, behind the steps before it.

        Returns:
            Whose episodes it ended, bool (n,).

        Raises:
            Diverged: If a log-probability or a value is no number.
        """
        try:
            written = self._write()
        except Exception as error:
            if not self._owed:
                raise
            self._failed = error
            return np.zeros(self._env.num_envs, np.bool_)
        self._owed.append(written)
        return written.dones

    @torch.inference_mode()
    def _write(self) -> Written:
        rows = self._rows
        self._check_room()
        self._begin(self._unread)
        drawn = self._sampler.sample(deterministic=self._deterministic)
        # One transfer, and the only time that a device is waited for. float32 holds each id below
        # 2**24 exactly.
        numbers = torch.stack([part.float() for part in drawn]).cpu().numpy()
        tokens, log_probs, values = numbers
        if not np.isfinite(numbers).all():
            raise in_writing(
                self._policy, self._contexts(), tokens.astype(np.int64), log_probs, values
            )
        actions = self._spread(tokens, np.int64, self._filler)
        self._stepper.send(actions)
        self._sampler.append(drawn.tokens)
        new_observations, dones, infos = self._stepper.receive()
        assert isinstance(new_observations, dict)
        dones = dones & self._is_written(rows)

        self._ids[rows, self._lengths[rows]] = actions[rows]
        self._lengths[rows] += 1
        terminal_values = self._terminal_values(dones, infos)
        goes_on = self._is_as_written(new_observations, slice(None))
        begun = rows[np.logical_or(dones, ~goes_on)[rows]]
        written = Written(
            observations=self._observations,
            actions=actions,
            log_probs=self._spread(log_probs, np.float32),
            values=self._spread(values, np.float32),
            dones=dones,
            terminal_values=terminal_values,
            new_observations=new_observations,
            begun=begun,
            rows=rows,
        )
        self._observations = new_observations
        self._place(begun)
        self._unread[begun] = True
        return written

    def settle(self) -> Step:
        """The first step that is not settled, with its rewards, for which it waits.

        Raises:
            Diverged: If a reward is no number.
        """
        if not self._owed and self._failed is not None:
            raise self._failed
        written = self._owed[0]
        _, rewards, _, infos = self._stepper.tell()
        rows = written.rows
        if len(rows) < self._env.num_envs:
            is_written = self._is_written(rows)
            infos = [info if row else {} for row, info in zip(is_written, infos, strict=True)]
            rewards = np.where(is_written, rewards, np.float32(0))
        if not np.isfinite(rewards).all():
            contexts = observed_contexts(written.observations)
            noted = {"log_probs": written.log_probs[rows], "values": written.values[rows]}
            texts = [contexts[row] for row in rows.tolist()]
            raise in_reward(texts, written.actions[rows], rewards[rows], noted)
        self._owed.popleft()
        return Step(**vars(written), rewards=rewards, infos=infos)

    @torch.inference_mode()
    def values(self, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The critic's values of the last observations, float32 (n,); 0 where not asked for.

        Args:
            rows: Where they are asked for, bool (n,). A new episode is not read for nothing.
        """
        if not rows.any():
            return np.zeros(len(rows), np.float32)
        self._begin(self._unread & rows)
        values = self._spread(self._sampler.values().cpu().numpy(), np.float32)
        return np.where(rows, values, np.float32(0))

    @torch.inference_mode()
    def leave_out(self, rows: NDArray[np.bool_]) -> None:
        """Write no more in some rows: nothing is computed there.

        An environment that can (`TextGenVectorEnv.hold`) leaves them as they are. Others get a
        token that is allowed, and what they make of it is not looked at.

        Args:
            rows: Which, bool (n,).
        """
        stay = np.logical_not(rows[self._rows])
        if not stay.all():
            if self._holds:
                self._env.env_method("hold", rows, indices=[0])
            self._sampler.keep(stay.nonzero()[0])
            self._rows = self._rows[stay]

    def _is_written(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether rows are among those in which a token is written, bool (n,)."""
        written = np.zeros(self._env.num_envs, np.bool_)
        written[rows] = True
        return written

    def _place(self, rows: NDArray[np.intp]) -> None:
        """Take the texts of rows as they were observed."""
        mask = self._observations["attention_mask"][rows]
        if not mask[:, 0].all():
            raise ValueError(
                f"row {rows[mask[:, 0].argmin()]} of attention_mask does not begin with 1. Rows "
                "hold at least one token and are padded on the right, as TextGen-v0 gives them."
            )
        self._ids[rows] = self._observations["input_ids"][rows]
        self._lengths[rows] = mask.sum(1, dtype=np.int64)

    def _contexts(self) -> list[NDArray[np.int64]]:
        """The texts so far in the rows that are written in."""
        return [self._ids[row, : self._lengths[row]] for row in self._rows]

    def _check_room(self) -> None:
        context_length = self._ids.shape[1]
        (full,) = (self._lengths[self._rows] == context_length).nonzero()
        if len(full):
            raise ValueError(
                f"the text of row {self._rows[full[0]]} fills the context_length of "
                f"{context_length} and its episode goes on. End episodes in time, or give the "
                "environment a larger context_length."
            )

    def _is_as_written(
        self, observations: Mapping[str, NDArray[Any]], rows: slice | int
    ) -> NDArray[np.bool_]:
        """Whether what is observed in rows is what was written there, bool (k,) or of one row."""
        ids, mask = observations["input_ids"], observations["attention_mask"]
        same_ids = (ids == self._ids[rows]).all(-1)
        as_written: NDArray[np.bool_] = same_ids & (
            mask.sum(-1, dtype=np.int64) == self._lengths[rows]
        )
        return as_written

    def _begin(self, unread: NDArray[np.bool_]) -> None:
        """Let the sampler begin with the texts of those rows that are written in, bool (n,)."""
        (slots,) = unread[self._rows].nonzero()
        if len(slots):
            rows = self._rows[slots]
            self._sampler.begin(slots, self._ids[rows], self._lengths[rows])
            self._unread[rows] = False

    def _terminal_values(
        self, dones: NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> NDArray[np.float32]:
        """Values for what would have come after texts that were cut, as SB3 decides which are."""
        values = np.zeros(len(dones), np.float32)
        cut = [
            row
            for row in self._rows[dones[self._rows]].tolist()
            if infos[row].get("terminal_observation") is not None
            and infos[row].get("TimeLimit.truncated", False)
        ]
        if cut:
            values[cut] = self._spread(self._sampler.values().cpu().numpy(), np.float32)[cut]
        for row in cut:
            observation = infos[row]["terminal_observation"]
            if not self._is_as_written(observation, row):
                tensors, _ = self._policy.obs_to_tensor(observation)
                values[row] = self._policy.predict_values(tensors).item()  # type: ignore[operator]
        return values

    def _spread(
        self, of_slots: NDArray[Any], dtype: type[np.generic], filler: int = 0
    ) -> NDArray[Any]:
        """What belongs to the rows that are written in, in an array for all rows."""
        if len(self._rows) == self._env.num_envs:
            return of_slots.astype(dtype)
        spread = np.full(self._env.num_envs, filler, dtype)
        spread[self._rows] = of_slots
        return spread
