"""The sizes that decide what a step of learning costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

MICRO_BATCH = 8_192
"""Tokens that are read at a time in an update, as `TokenPPO` has it."""


@dataclass(frozen=True)
class Shape:
    """A Llama by its sizes, its embedding and its head apart unless they are tied.

    Attributes:
        layers: Number of layers.
        width: Of what passes from layer to layer.
        feed_forward: Width of the feed-forward part, which is gated.
        vocabulary: Number of tokens.
        cached: Width of the keys, and of the values, of a token in a layer; None for `width`, and
            less where heads share them.
        tied: Whether the head's weights are the embedding's.
        biased: Whether the head has a bias.
    """

    layers: int
    width: int
    feed_forward: int
    vocabulary: int
    cached: int | None = None
    tied: bool = False
    biased: bool = False

    @property
    def cache_width(self) -> int:
        """Numbers of the keys, and as many of the values, of a token in a layer."""
        return self.width if self.cached is None else self.cached

    @property
    def trunk(self) -> int:
        """Weights of all matrices that each token passes, without the head's."""
        attention = 2 * self.width**2 + 2 * self.width * self.cache_width
        return self.layers * (attention + 3 * self.width * self.feed_forward)

    @property
    def head(self) -> int:
        """Weights of the head's matrix."""
        return self.width * self.vocabulary

    @property
    def in_layers(self) -> int:
        """Numbers that belong to a layer, its two norms among them."""
        return self.trunk + 2 * self.layers * self.width

    @property
    def parameters(self) -> int:
        """All numbers that are trained: matrices, norms, embedding, the critic's line."""
        ends = (1 if self.tied else 2) * self.head
        bias = self.vocabulary if self.biased else 0
        return self.in_layers + ends + bias + 2 * self.width + 1


@dataclass(frozen=True)
class Load:
    """What each process writes and learns from in an iteration.

    Attributes:
        rows: Texts that it writes side by side.
        prompt: Tokens of each prompt.
        new: Tokens that are written in each row.
        mini_batches: Steps of the optimizer in each pass over the rollout.
        epochs: Passes.
    """

    rows: int
    prompt: int
    new: int
    mini_batches: int = 1
    epochs: int = 1

    @property
    def written(self) -> int:
        """Tokens written."""
        return self.rows * self.new

    @property
    def read(self) -> int:
        """Tokens read in a pass of an update: the last of a text is only predicted."""
        return self.rows * (self.prompt + self.new - 1)

    @property
    def pieces(self) -> int:
        """In how many parts a mini-batch is read."""
        texts = ceil(self.rows / self.mini_batches)
        at_a_time = max(MICRO_BATCH // (self.prompt + self.new - 1), 1)
        return ceil(texts / at_a_time)

    @property
    def steps(self) -> int:
        """Steps of the optimizer."""
        return self.mini_batches * self.epochs
