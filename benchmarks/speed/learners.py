"""Stock PPO and `TokenPPO` on a workload, timed by whole iterations of a rollout and an update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples

from agents import TransformerPolicy
from speed.stopwatch import now
from speed.workload import Workload

LEARNING_RATE = 1e-6
"""So small that the lengths of texts stay what they are while both sides train."""


@dataclass
class Iteration:
    """Seconds of one iteration, and the tokens that it wrote."""

    tokens: int
    rollout: float
    update: float

    @property
    def seconds(self) -> float:
        """Of both parts."""
        return self.rollout + self.update


class PhaseTimer(BaseCallback):
    """Notes the seconds of every rollout, and of what follows it until the next one begins."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[float] = []
        self.updates: list[float] = []
        self._began = self._ended = 0.0

    def iterations(self, tokens: int) -> list[Iteration]:
        """What was noted, where every rollout wrote so many tokens."""
        pairs = zip(self.rollouts, self.updates, strict=True)
        return [Iteration(tokens, rollout, update) for rollout, update in pairs]

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._began = now(self.model.device)
        if self.rollouts:
            self.updates.append(self._began - self._ended)

    def _on_rollout_end(self) -> None:
        self._ended = now(self.model.device)
        self.rollouts.append(self._ended - self._began)

    def _on_training_end(self) -> None:
        self.updates.append(now(self.model.device) - self._ended)


@dataclass
class TokensRead:
    """Tokens that a model was given, padding included, in rollouts and with gradients."""

    rollout: int = 0
    update: int = 0


class PartialBuffer(DictRolloutBuffer):
    """SB3's buffer, of which an epoch sees only the first so many of its random mini-batches."""

    mini_batches: int | None = None

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:
        """The mini-batches."""
        yield from islice(super().get(batch_size), self.mini_batches)


class Learner:
    """An algorithm on a workload.

    Args:
        algorithm: `learn` is called on it again and again.
    """

    def __init__(self, algorithm: OnPolicyAlgorithm) -> None:
        self.algorithm = algorithm
        self.tokens = algorithm.n_steps * algorithm.n_envs

    def run(self, iterations: int) -> list[Iteration]:
        """Go on learning for some iterations."""
        timer = PhaseTimer()
        self.learn(iterations, timer)
        return timer.iterations(self.tokens)

    def learn(self, iterations: int, callback: BaseCallback) -> None:
        """The same, with somebody else to look on."""
        self.algorithm.learn(
            iterations * self.tokens, callback, log_interval=None, reset_num_timesteps=False
        )

    @contextmanager
    def reading(self) -> Iterator[TokensRead]:
        """Count the tokens that the model is given."""
        read = TokensRead()

        def count(_: Any, args: Any, inputs: dict[str, Any]) -> None:
            tokens = inputs["input_ids"].numel()
            if torch.is_grad_enabled():
                read.update += tokens
            else:
                read.rollout += tokens

        policy: Any = self.algorithm.policy
        handle = policy.backbone.model.register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield read
        finally:
            handle.remove()


class StockLearner(Learner):
    """Stock PPO, which may leave out most of an update and say what all of it would have taken."""

    def run_part(self, mini_batches: int) -> Iteration:
        """A whole rollout, and some mini-batches of one epoch, their time scaled by their number.

        Every mini-batch is as large and as random as any other, so that the scaled time is that
        of the whole, up to noise.
        """
        ppo: Any = self.algorithm
        all_of_them = self.tokens // ppo.batch_size * ppo.n_epochs
        epochs, ppo.n_epochs = ppo.n_epochs, 1
        ppo.rollout_buffer.mini_batches = mini_batches
        (iteration,) = self.run(1)
        ppo.n_epochs = epochs
        ppo.rollout_buffer.mini_batches = None
        iteration.update *= all_of_them / mini_batches
        return iteration


def stock(workload: Workload, **arguments: Any) -> StockLearner:
    """Stable-Baselines3's own PPO."""
    ppo = PPO(
        TransformerPolicy,
        workload.env(),
        learning_rate=LEARNING_RATE,
        rollout_buffer_class=PartialBuffer,
        policy_kwargs={"model": workload.model(), "dtype": workload.dtype},
        device=workload.device,
        seed=0,
        **arguments,
    )
    return StockLearner(ppo)


def fast(workload: Workload, **arguments: Any) -> Learner:
    """`TokenPPO`, with its own defaults for all that is not given."""
    from agents import TokenPPO

    ppo = TokenPPO(
        TransformerPolicy,
        workload.env(),
        learning_rate=LEARNING_RATE,
        policy_kwargs={"model": workload.model(), "dtype": workload.dtype},
        device=workload.device,
        seed=0,
        **arguments,
    )
    return Learner(ppo)
