"""Supervised learning step by step: texts in, a lower cross-entropy out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.backbone import Backbone
from agents.health.causes import in_supervised_update
from agents.health.diverged import batch_of_texts
from agents.pretraining.trainer import learning_rate_at
from agents.supervised.config import SFTConfig
from agents.supervised.cross_entropy import cross_entropy
from agents.supervised.demonstrations import Demonstrations, batches
from agents.supervised.encoding import Demonstration


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        texts: Texts that were read.
        tokens: Tokens that were learned.
        seconds: What that took.
        loss: The loss of a training token in nats, of which the last ten steps are most.
    """

    texts: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan


class SupervisedTrainer:
    """A model, its optimizer, and the place that is reached in the texts.

    Args:
        backbone: The model.
        demonstrations: What it is to write.
        config: How.

    Attributes:
        total: Texts that are read in all.
        progress: How far it is.

    Raises:
        ValueError: If it is not said how many texts of a stream are read.
    """

    def __init__(
        self, backbone: Backbone, demonstrations: Demonstrations, config: SFTConfig
    ) -> None:
        self._backbone = backbone
        self._config = config
        self.total = total_texts(demonstrations, config)
        self.progress = Progress()
        self._demonstrations = demonstrations
        self._reading: Iterator[Demonstration] | None = None
        self._weights = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
        self.device = backbone.head.weight.device
        self._optimizer = torch.optim.AdamW(
            self._weights.values(),
            lr=config.peak,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    @property
    def done(self) -> bool:
        """Whether all texts are read."""
        return self.progress.texts >= self.total

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        warmup = self.total // 20
        return learning_rate_at(self.progress.texts, self.total, warmup, self._config.peak)

    def advance(self) -> None:
        """Take one step of the optimizer.

        Raises:
            Diverged: If the loss or its gradient became infinite or not a number; no step is taken.
        """
        config, progress = self._config, self.progress
        chosen = self._next_texts()
        tokens = sum(len(written) for _, written in chosen)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches(chosen, config.micro_batch_tokens, self.device):
            part = cross_entropy(self._backbone, batch).sum()
            (part / tokens).backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self._weights.values(), config.max_grad_norm))
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._optimizer.zero_grad(set_to_none=True)
            contexts, written = zip(*chosen, strict=True)
            error = in_supervised_update(
                self._backbone,
                total / tokens,
                norm,
                f"lower --learning-rate ({config.peak:g}), or use --dtype float32.",
                batch_of_texts(contexts, written, {}),
            )
            error.when = f"after {progress.texts:,} texts"
            raise error
        self._optimizer.step()
        progress.texts += len(chosen)
        progress.tokens += tokens
        loss = total / tokens
        progress.loss = loss if math.isnan(progress.loss) else 0.9 * progress.loss + 0.1 * loss

    def state(self) -> dict[str, Any]:
        """All that it takes to go on from here."""
        return {
            "weights": {name: weight.detach() for name, weight in self._weights.items()},
            "optimizer": self._optimizer.state_dict(),
            "progress": vars(self.progress),
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        weights: dict[str, Tensor] = state["weights"]
        for name, weight in self._weights.items():
            weight.copy_(weights[name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self._reading = None

    def _next_texts(self) -> list[Demonstration]:
        """Texts of the tokens of a step; the last step of a run may have fewer."""
        if self._reading is None:
            self._reading = self._demonstrations.read(self._config.seed, self.progress.texts)
        chosen: list[Demonstration] = []
        tokens = 0
        while tokens < self._config.batch_size and self.progress.texts + len(chosen) < self.total:
            chosen.append(next(self._reading))
            tokens += len(chosen[-1].written)
        return chosen


def total_texts(demonstrations: Demonstrations, config: SFTConfig) -> int:
    """How many texts a run reads.

    Raises:
        ValueError: If it is not said how many of a stream.
    """
    if config.total_texts is not None:
        return config.total_texts
    if demonstrations.size is None:
        raise ValueError(wants_total_texts(config))
    return max(int(np.ceil(config.epochs * demonstrations.size)), 1)


def wants_total_texts(config: SFTConfig) -> str:
    """What is said where it is not said how many texts of a stream are read."""
    return (
        f"the training texts of task {config.task!r} are a stream, which has no end, so that "
        f"{config.epochs:g} epochs of them mean nothing. Give total_texts."
    )
