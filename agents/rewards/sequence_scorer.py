"""Sequence classifiers as readers of texts: logits in batches, remembered by text."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from agents.backbone import DType
from agents.devices import known_device
from agents.models import check_reachable, model_source, no_progress_bars
from agents.rewards.places import known_dtype, version

Truncation: TypeAlias = Literal["left", "right"]
"""Which end of a text is cut off if the model cannot read it whole."""

MAX_TOKENS = 16_384
"""Tokens that are read at a time, padding included."""
MEMORY = 1 << 15
"""Texts whose logits are remembered."""


def sequence_scorer(model: str, device: str = "auto", dtype: DType = "float32") -> SequenceScorer:
    """The scorer of a model, which is loaded once a process for each device and number type.

    A directory whose files have changed since is loaded again; scorers that were handed out
    before go on with the old weights.

    Args:
        model: A local directory in Hugging Face layout, or a hub id.
        device: "auto" (an accelerator where there is one), "cpu", "cuda", ...
        dtype: Number type of the weights.

    Raises:
        FileNotFoundError: If there is no such model or it has no tokenizer.
        ValueError: If the model has no trained head for classification, or device or dtype is
            unknown.
    """
    location, place = str(model_source(model)), known_device(device)
    return _load(location, version(location), str(place), known_dtype(dtype))


class SequenceScorer:
    """A sequence classifier that reads texts. Pickles and copies refer to it by name.

    Its dropout is off, and it learns nothing. A text without a token (the empty one, for a
    tokenizer that puts nothing in front) is read as one token: that which begins texts, or else
    that which ends them.

    Args:
        model: The classifier.
        tokenizer: Its tokenizer.
        location: Where both came from: a directory or a hub id.
        dtype: Number type of the weights.

    Attributes:
        labels: The names of the model's labels, in the order of its logits.
        problem_type: What the model's config says that its labels are: None,
            "single_label_classification", "multi_label_classification" or "regression".
        eos_token: What ends a text for the tokenizer; None if nothing does.
        window: Most tokens of a text that are read, special ones included; None for no limit.
        location: Where the model came from.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, location: str, dtype: DType) -> None:
        config: Any = model.config
        self.location = location
        self.labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        self.problem_type: str | None = config.problem_type
        self.eos_token: str | None = tokenizer.eos_token
        self.window = window(model, tokenizer)
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._pad = set_pad_token(model, tokenizer)
        self._dtype = dtype
        self._memory: OrderedDict[tuple[Truncation, str], NDArray[np.float32]] = OrderedDict()
        self._pads = True
        self._pads = self._reads_the_same_when_padded()

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return sequence_scorer, (self.location, str(_device(self._model)), self._dtype)

    def logits(self, texts: Sequence[str], truncation: Truncation = "left") -> NDArray[np.float32]:
        """What the model says of some texts, float32 (k, labels)."""
        memory = self._memory
        unread = list(dict.fromkeys(text for text in texts if (truncation, text) not in memory))
        fresh = dict(zip(unread, self._read(unread, truncation), strict=True))
        said = [fresh[t] if t in fresh else memory[truncation, t] for t in texts]
        for text, logits in zip(texts, said, strict=True):
            memory[truncation, text] = logits
            memory.move_to_end((truncation, text))
        while len(memory) > MEMORY:
            memory.popitem(last=False)
        return np.stack(said) if said else np.zeros((0, len(self.labels)), np.float32)

    def _read(self, texts: list[str], truncation: Truncation) -> list[NDArray[np.float32]]:
        encoded = encode(self._tokenizer, texts, self.window, truncation)
        said = [np.zeros(0, np.float32)] * len(texts)
        for batch in self._batches([len(ids) for ids in encoded]):
            logits = self._forward([encoded[i] for i in batch])
            for i, row in zip(batch, logits.numpy(), strict=True):
                said[i] = row
        return said

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Texts of like length together, as many as may be read at a time."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            full = (len(batch) + 1) * lengths[i] > MAX_TOKENS
            alike = self._pads or not batch or lengths[batch[0]] == lengths[i]
            if batch and (full or not alike):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    @torch.inference_mode()
    def _forward(self, encoded: list[list[int]]) -> Tensor:
        inputs = padded(encoded, self._pad, _device(self._model))
        logits: Tensor = self._model(**inputs).logits
        return logits.float().cpu()

    def _reads_the_same_when_padded(self) -> bool:
        """Whether a longer text beside it leaves a text's logits as they are.

        XLNet, for one, looks at the last column, padding or not. Such a model reads texts of one
        length at a time.
        """
        short, long = encode(self._tokenizer, ["a", "a bad decade"], self.window)
        alone, beside = self._forward([short])[0], self._forward([short, long])[0]
        rounding = torch.finfo(getattr(torch, self._dtype)).eps ** 0.5
        return bool((alone - beside).abs().max() <= rounding * max(1.0, float(alone.abs().max())))


def encode(
    tokenizer: Any, texts: Sequence[str], window: int | None, truncation: Truncation = "left"
) -> list[list[int]]:
    """Token ids of some texts, at least one each, special tokens included."""
    if not texts:
        return []
    tokenizer.truncation_side = truncation
    limit = {} if window is None else {"truncation": True, "max_length": window}
    encoded: list[list[int]] = tokenizer(list(texts), **limit)["input_ids"]
    nothing = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    return [ids or [next(i for i in nothing if i is not None)] for ids in encoded]


def padded(encoded: Sequence[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Token ids as a batch, right-padded: `input_ids` and `attention_mask`, int64 (k, T).

    To the right, whatever the tokenizer is set to: positions then count from the first token in
    every family.
    """
    lengths = np.array([len(ids) for ids in encoded])
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, pad)
    input_ids[mask] = np.concatenate(encoded)
    return {
        "input_ids": torch.from_numpy(input_ids).to(device),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)).to(device),
    }


def set_pad_token(model: Any, tokenizer: Any) -> int:
    """Agree on the token that pads rows, by which decoders find the end of a text; its id."""
    config = model.config.get_text_config()
    candidates = (config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad: int = next(i for i in candidates if i is not None)
    config.pad_token_id = pad
    tokenizer.pad_token_id = pad
    return pad


def window(model: Any, tokenizer: Any) -> int | None:
    """Most tokens that a model reads; None for no limit."""
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None:
        # RoBERTa's family counts positions from behind the index of its padding.
        tables = (m for n, m in model.named_modules() if n.endswith("position_embeddings"))
        offsets = (getattr(table, "padding_idx", None) for table in tables)
        positions -= max((offset + 1 for offset in offsets if offset is not None), default=0)
    # Tokenizers that know no limit say 10^30, and XLNet says -1.
    limits = [n for n in (positions, tokenizer.model_max_length) if n is not None and 0 < n < 1e9]
    return min(limits, default=None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting on weights that are missing: we look at them ourselves."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with no_progress_bars():
            yield
    finally:
        logging.set_verbosity(verbosity)


def load_classifier(location: str, dtype: torch.dtype, **config: Any) -> tuple[Any, Any, set[str]]:
    """Load a model with a head for classification, and its tokenizer.

    Args:
        location: A directory or a hub id.
        dtype: Number type of the weights.
        config: Settings that differ from the model's config, such as `num_labels=1`.

    Returns:
        The model, its tokenizer, and the names of weights that were drawn by chance.

    Raises:
        FileNotFoundError: If there is no such model or it has no tokenizer.
    """
    try:
        if not os.path.isdir(location):
            check_reachable(location)
        elif not os.path.isfile(os.path.join(location, "config.json")):
            raise FileNotFoundError(f"{location} holds no config.json")
        with quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                location, dtype=dtype, output_loading_info=True, **config
            )
            tokenizer = AutoTokenizer.from_pretrained(location)
    except OSError as error:
        raise FileNotFoundError(
            f"no classifier {location!r}: it is neither a directory with a config.json, weights "
            "and a tokenizer, nor a model that the Hugging Face hub gave. Check the spelling; "
            "offline, give a local directory; of an adapter, save what its merge_and_unload() "
            f"gives. ({error})"
        ) from error
    return model, tokenizer, set(report["missing_keys"])


@lru_cache(maxsize=8)
def _load(location: str, version: int, device: str, dtype: DType) -> SequenceScorer:
    model, tokenizer, missing = load_classifier(location, getattr(torch, dtype))
    if missing:
        raise ValueError(
            f"{location!r} is no trained classifier: it lacks the weights "
            f"{', '.join(sorted(missing))}, which would be drawn by chance. Give a model that was "
            "trained to classify; `textgym train-reward` makes a reward model of any language "
            "model."
        )
    return SequenceScorer(model.to(device), tokenizer, location, dtype)


def _device(model: Any) -> torch.device:
    device: torch.device = model.device
    return device
