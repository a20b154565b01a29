"""A frozen language model that says how likely the tokens of growing texts are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.backbone import Backbone, DType
from agents.devices import known_device
from agents.models import load_model, model_source
from agents.reader import ReaderClass, best_reader
from agents.rewards.places import known_dtype, version
from textgym.tokenizer import Tokenizer


def frozen_lm(model: str, device: str = "auto", dtype: DType = "float32") -> FrozenLM:
    """The language model of that name, which is loaded once a process for each device and type.

    Args:
        model: A name (see `textgym list models`), a local directory, a GGUF file, or a hub id.
        device: "auto" (an accelerator where there is one), "cpu", "cuda", ...
        dtype: What it computes in.

    Raises:
        FileNotFoundError: If there is no such model or it has no tokenizer.
        ValueError: If device or dtype is unknown.
    """
    location, place = str(model_source(model)), known_device(device)
    return _load(location, version(location), str(place), known_dtype(dtype))


class FrozenLM:
    """A language model that learns nothing. Pickles and copies refer to it by name.

    Args:
        model: The causal language model.
        location: Where it came from: a directory or a hub id.
        dtype: What it computes in.

    Attributes:
        positions: Most tokens of a text that it reads; None for no limit.
    """

    def __init__(self, model: nn.Module, location: str, dtype: DType) -> None:
        config: Any = model.config
        self.positions: int | None = getattr(
            config.get_text_config(), "max_position_embeddings", None
        )
        self._model = model
        self._location = location
        self._dtype = dtype
        self._tokenizer = self._same = Tokenizer.from_pretrained(location)
        self._backbones: dict[int, tuple[Backbone, ReaderClass]] = {}

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        device: Any = self._model.device
        return frozen_lm, (self._location, str(device), self._dtype)

    def differs_from(self, tokenizer: Tokenizer) -> str:
        """What is wrong with a tokenizer whose tokens the model shall judge; "" if nothing."""
        if tokenizer is self._same:
            return ""
        own, other = (
            t.backend.get_vocab(with_added_tokens=True) for t in (self._tokenizer, tokenizer)
        )
        if own != other:
            return (
                f"has a model with another tokenizer, {self._tokenizer}, than the environment's, "
                f"{tokenizer}. Take a model with the same one, or give the environment the "
                f"model's: tokenizer={self._location!r}"
            )
        self._same = tokenizer
        return ""

    def reader(self, num_rows: int, capacity: int) -> TextReader:
        """Something that reads `num_rows` texts of at most `capacity` tokens as they grow."""
        if capacity not in self._backbones:
            backbone = Backbone(
                self._model, self._tokenizer.vocab_size, capacity, dtype=self._dtype
            )
            self._backbones[capacity] = backbone, best_reader(backbone)
        return TextReader(*self._backbones[capacity], num_rows)


class TextReader:
    """Reads a batch of texts as they grow, and says how likely each token was.

    Args:
        backbone: The model.
        reader_class: What it is best read with.
        num_rows: Number of texts, n.

    Attributes:
        known: Rows that were read to their end, bool (n,); clear one to have it forgotten.
    """

    def __init__(
        self,
        backbone: Backbone,
        reader_class: ReaderClass,
        num_rows: int,
    ) -> None:
        self.known = np.zeros(num_rows, np.bool_)
        self._capacity = backbone.context_length
        self._lengths = np.full(num_rows, self._capacity)
        self._reader = reader_class(backbone, num_rows)
        self._device = backbone.head.weight.device

    @torch.no_grad()
    def begin(self, rows: NDArray[np.intp], contexts: Sequence[Sequence[int]]) -> None:
        """Read contexts, of at least one token each, in `rows` (k,)."""
        lengths = np.array([len(ids) for ids in contexts], np.int64)
        input_ids = np.zeros((len(rows), int(lengths.max())), np.int64)
        for row, ids in zip(input_ids, contexts, strict=True):
            row[: len(ids)] = ids
        self._reader.begin(rows, input_ids, lengths)
        self._lengths[rows] = lengths
        self.known[rows] = True

    @torch.no_grad()
    def write(self, rows: NDArray[np.intp], tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Write a token in each of `rows`, all known; its log-probability before, float64 (k,).

        The others, if any, are not known from then on: readers write in all rows at once.
        """
        others = np.ones(len(self.known), np.bool_)
        others[rows] = False
        (full,) = (others & (self._lengths >= self._capacity)).nonzero()
        if len(full):
            self.begin(full, [[0]] * len(full))  # something short, instead of what overflows
        self.known[others] = False
        ids = torch.zeros(len(self.known), dtype=torch.long)
        ids[torch.from_numpy(rows)] = torch.from_numpy(tokens)
        ids = ids.to(self._device)
        logits = self._reader.seen.logits
        log_probs = logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(1)
        said: NDArray[np.float64] = log_probs.cpu().numpy()[rows].astype(np.float64)
        self._reader.append(ids)
        self._lengths += 1
        return said


@lru_cache(maxsize=8)
def _load(location: str, version: int, device: str, dtype: DType) -> FrozenLM:
    model: Any = load_model(location)
    return FrozenLM(model.to(device).eval().requires_grad_(False), location, dtype)
