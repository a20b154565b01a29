"""The one train loop of the algorithms that learn from their own texts."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from agents.algorithms.collect import TokenCollector
from agents.algorithms.logs import log_update
from agents.algorithms.settings import wants_texts
from agents.algorithms.token_batch import TokenBatch, TokenSums
from agents.buffer import Segment
from agents.distributed.learner import Piece
from agents.distributed.moments import merged, moments
from agents.health.causes import in_update
from agents.losses import approximate_kl, normalized, value_loss
from agents.scoring import SequenceBatch
from agents.supervised.cross_entropy import Imitation
from agents.supervised.demonstrations import Demonstrations


@dataclass(frozen=True)
class _MiniBatch:
    """What the parts of a mini-batch have in common.

    Attributes:
        advantages: Of all tokens of the rollout, normalised where they are of the mini-batch if
            that is wanted, (T n,).
        num_tokens: Tokens of the mini-batch, of all processes.
        count: What the sum of its losses is divided by: tokens, or texts, of all processes.
        is_counted: Whether this process has any of it, and does not read for company only.
        sums: What is logged of each part that was read.
    """

    advantages: Tensor
    num_tokens: int
    count: int
    is_counted: bool
    sums: list[TokenSums] = field(default_factory=list)


class TokenLearner(TokenCollector):
    """Learns from the texts that it has collected, reading each once.

    Its arguments are those of `TokenOnPolicyAlgorithm`, which sets the attributes.
    """

    batch_size: int | None
    n_epochs: int
    normalize_advantage: bool
    target_kl: float | None
    sft_coef: float
    sft_data: Demonstrations | None
    ent_coef: float | Schedule  # type: ignore[assignment]  # SB3 knows numbers only

    averages_over: ClassVar[Literal["tokens", "texts"]] = "tokens"
    """What the sum of a mini-batch's losses is divided by the number of."""

    @abstractmethod
    def _policy_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's loss of each token, (m,), and numbers to log the means of, (m,) by name."""

    def _value_loss(self, tokens: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss of each token, (m,), and numbers to log the means of, (m,) by name."""
        return value_loss(tokens.values, tokens.returns, tokens.old_values, None), {}

    def train(self) -> None:
        """Learn from the rollout; see SB3."""
        started = time.perf_counter()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        passes: list[TokenSums] = []
        first = TokenSums()
        goes_on = True
        count = self._num_mini_batches()
        while goes_on and len(passes) < self.n_epochs:
            passes.append(TokenSums())
            for segments in self.rollout_buffer.mini_batches(count):
                gradients = self._gradients(segments)
                if not gradients.count:  # of no process
                    continue
                batch = gradients
                first = first if first.count else batch
                passes[-1] += batch
                norm = self.learner.clip_gradients(self.max_grad_norm)
                self._check_step(segments, batch, norm)
                if self.target_kl is not None:
                    goes_on = batch.mean()["approx_kl"] <= 1.5 * self.target_kl
                    if not goes_on:
                        break
                self.policy.optimizer.step()
            self._n_updates += 1
        self.policy.optimizer.zero_grad()
        every = sum(passes, TokenSums())
        last = {"last_loss": batch.mean()["loss"], "last_approx_kl": passes[-1].mean()["approx_kl"]}
        first_approx_kl = first.mean()["approx_kl"]
        log_update(self.logger, {**every.mean(), **last, "first_approx_kl": first_approx_kl})
        record = self.logger.record
        if self.vf_coef > 0:
            record("train/explained_variance", self._explained_variance())
        if callable(self.ent_coef):
            record("train/ent_coef", self._now(self.ent_coef))
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("lr", self.policy.optimizer.param_groups[0]["lr"])
        seconds = time.perf_counter() - started
        record("time/update_tokens_per_second", every.count / seconds)

    def _num_mini_batches(self) -> int:
        """In how many mini-batches the rollout is learned; in all processes the same."""
        if self.batch_size is None:
            return 1
        written = (int(self.rollout_buffer.written.sum()),)
        every = int(self.processes.gather_numbers(written, self.device).sum())
        return max(round(every / (self.batch_size * self.processes.count)), 1)

    def _explained_variance(self) -> float:
        """What part of the variance of returns the values know; NaN where returns are alike."""
        buffer = self.rollout_buffer
        returns = buffer.returns[buffer.written]
        missed = returns - buffer.values[buffer.written]
        numbers = (*moments(returns), *moments(missed))
        every = self.processes.gather_numbers(numbers, self.device)
        of_returns, of_missed = merged(every[:, :3]), merged(every[:, 3:])
        if of_returns is None or of_missed is None or of_returns[1] == 0:
            return math.nan
        return 1 - (of_missed[1] / of_returns[1]) ** 2

    def _gradients(self, segments: Sequence[Segment]) -> TokenSums:
        """Put the gradient of a mini-batch's mean loss into the parameters.

        The sequences are read in parts, by each process its own. Losses are added up over all and
        divided by the number of tokens, or texts, of all, so that the parts make no difference.

        Args:
            segments: What this process has of the mini-batch; perhaps nothing.

        Returns:
            Sums over the tokens of what is logged; of none if no process has anything.
        """
        buffer, episodes = self.rollout_buffer, self.rollout_buffer.episodes
        places = buffer.places(segments)
        # Of the texts one may have several turns.
        num_texts = len({int(episodes[segment.begin, segment.row]) for segment in segments})
        # Who has nothing of it reads something else with the others.
        batches = [
            *buffer.sequence_batches(segments or buffer.segments[:1], self.micro_batch_tokens)
        ]
        imitated = [] if self.sft_coef == 0 else self._imitated(len(places))
        own_moments = moments(buffer.advantages.reshape(-1)[places])
        every = self.processes.gather_numbers(
            (
                *own_moments,
                num_texts,
                len(imitated) + len(batches),
                sum(len(batch.tokens) for batch in imitated),
            ),
            self.device,
        )
        num_tokens, _, _, num_texts, _, num_imitated = map(int, every.sum(0))
        if not num_tokens:
            return TokenSums()
        advantages = buffer.to_torch(buffer.advantages.reshape(-1))
        if self.normalize_advantage and len(places):
            of_all = None if self.processes.count == 1 else merged(every[:, :3])
            where = torch.from_numpy(places).to(self.device)
            advantages[where] = normalized(advantages[where], of_all)
        count = num_tokens if self.averages_over == "tokens" else num_texts
        mini_batch = _MiniBatch(advantages, num_tokens, count, bool(segments))
        imitation = Imitation(
            self.policy.backbone, imitated, self.sft_coef, num_imitated, self.logits_budget
        )
        pieces: list[Piece] = [partial(self._loss, mini_batch, batch) for batch in batches]
        self.policy.optimizer.zero_grad()
        self.learner.add_up([*imitation.pieces, *pieces], int(every[:, 4].max()))
        if imitated:
            (mean,) = self.processes.gather_numbers((imitation.mean,), self.device).sum(0)
            self.logger.record_mean("loss/sft_avg", float(mean))
        return sum(mini_batch.sums, TokenSums()).over(self.processes, num_tokens)

    def _loss(self, mini_batch: _MiniBatch, batch: SequenceBatch, weight: float) -> Tensor:
        """The share that some sequences have in the loss of a mini-batch, times a weight."""
        buffer = self.rollout_buffer
        values, log_probs, entropies = self.policy.evaluate_sequences(batch, self.logits_budget)
        where = torch.from_numpy(batch.places).to(self.device)
        old_log_probs, old_values, ref_log_probs, returns = (
            buffer.to_torch(column.reshape(-1)[batch.places], copy=False)
            for column in (buffer.log_probs, buffer.values, buffer.ref_log_probs, buffer.returns)
        )
        tokens = TokenBatch(
            log_probs,
            entropies,
            values,
            old_log_probs,
            old_values,
            ref_log_probs,
            mini_batch.advantages[where],
            returns,
            batch.texts,
        )
        policy_loss, logged = self._policy_loss(tokens)
        loss = policy_loss - self._now(self.ent_coef) * entropies
        if self.vf_coef > 0:
            value_loss, of_critic = self._value_loss(tokens)
            loss = loss + self.vf_coef * value_loss
            logged = {**logged, "value_loss": value_loss, **of_critic}
        log_ratio = tokens.log_ratio.detach()
        # What is logged is a mean over tokens, and what is minimised perhaps one over texts.
        scale = mini_batch.num_tokens / mini_batch.count
        logged = {
            "loss": scale * loss,
            "policy_loss": scale * policy_loss,
            "entropy": entropies,
            "approx_kl": approximate_kl(log_ratio),
            "ratio": log_ratio.exp(),
            "ratio_squared": (2 * log_ratio).exp(),
            **logged,
        }
        if not mini_batch.is_counted:
            weight = 0.0
        totals = {name: numbers.detach().sum() for name, numbers in logged.items()}
        if weight == 0:
            totals = {name: torch.zeros_like(total) for name, total in totals.items()}
        mini_batch.sums.append(TokenSums(len(batch.places), totals))
        return weight * (1 - self.sft_coef) / mini_batch.count * loss.sum()

    def _imitated(self, num_tokens: int) -> list[SequenceBatch]:
        """Texts to imitate, of about so many tokens."""
        if self.sft_data is None:
            raise ValueError(wants_texts(self.sft_coef))
        return [*self.sft_data.draw(num_tokens, self.micro_batch_tokens, self.device)]

    def _check_step(self, segments: Sequence[Segment], batch: TokenSums, norm: Tensor) -> None:
        """Raise `Diverged` if loss or gradient of a mini-batch are no numbers."""
        total = batch.totals["loss"]
        loss, gradient = torch.stack([total.to(norm), norm]).tolist()  # one wait for a device
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            self.policy.optimizer.zero_grad()
            read = segments or self.rollout_buffer.segments[:1]
            with self.learner.gathered():
                raise in_update(self, read, loss / batch.count, gradient)
