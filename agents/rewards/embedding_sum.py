"""Cosine similarity by the word embeddings of a language model."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.extras import require
from textgym.rewards.base import RewardError
from textgym.tokenizer import Tokenizer

NO_REFERENCE = (
    "compares with a reference, and this prompt has none; choose a task with references, or give "
    "{'name': 'cosine_similarity', 'target': '...'}"
)

_NAME = "cosine_similarity"


class EmbeddingSum:
    r"""Cosine similarity of the text's and its reference's token embeddings, from -1 to 1.

    With $e(w)$ the input embedding of token $w$ in a causal language model, the score of the
    tokens $w_1 \dots w_t$ against those of the reference, $v_1 \dots v_m$, is

    $$ \cos\left(\sum_{i=1}^{t} e(w_i),\ \sum_{j=1}^{m} e(v_j)\right), $$

    which is also the cosine of their means. It looks at which tokens there are and not at their
    order. Special tokens do not count. Where there is no direction to compare, as in the empty
    text, the score is 0.

    The reference is read as it would stand behind what the agent reads, which is the prompt with
    its template or that of the chat: with a space in front, unless that is empty or ends in white
    space or a special token, or the reference begins with white space. To most tokenizers a word
    with its space is another token than the word alone. The same goes for a target.

    A row keeps the sum of what it has written, so that a token costs O(width).

    Args:
        model: "builtin", a local directory or a hub id; None for the model that the
            environment's tokenizer was loaded with. Its tokenizer must be the environment's.
        target: Text to compare with, the same for all prompts; None for the prompt's reference.

    Raises:
        MissingExtra: If torch is not installed.
        FileNotFoundError: If there is no such model.
        RewardError: When an episode begins, if the model has another tokenizer, or there is
            neither a target nor a reference.

    Source: averaged word vectors, the baseline of J. Wieting et al., Towards Universal
    Paraphrastic Sentence Embeddings, ICLR 2016.
    """

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[str] = "a reference or a target; torch"

    def __init__(self, model: str | None = None, target: str | None = None) -> None:
        require("torch", extra="agents", wanted_by=f"reward {_NAME!r}")
        self.model = model
        self.target = target
        if model is not None:
            _embeddings(model)
        self._source = ""
        self._sums = np.zeros((0, 0))
        self._wanted = np.zeros((0, 0))
        self._scores = np.zeros(0)

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing is written yet in `rows`; add up the embeddings of their references."""
        self._source = completions.tokenizer.name if self.model is None else self.model
        if not _has_tokenizer(self._source, completions.tokenizer):
            raise RewardError(_NAME, self._misfit(completions), completions.sample(int(rows[0])))
        table = _embeddings(self._source).table
        if len(self._scores) != completions.num_rows:
            shape = completions.num_rows, table.shape[1]
            self._sums, self._wanted = np.zeros(shape), np.zeros(shape)
            self._scores = np.zeros(completions.num_rows)
        self._sums[rows] = 0.0
        self._scores[rows] = 0.0
        for row in rows.tolist():
            ids = completions.tokenizer.encode_plain(self._text_to_match(row, completions))
            wanted = table[ids].sum(0, dtype=np.float64)
            self._wanted[row] = wanted / (np.linalg.norm(wanted) or 1.0)

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """What the cosine gained by the token, float32 (k,)."""
        sums = self._sums[rows] + _embeddings(self._source).table[tokens]
        self._sums[rows] = sums
        lengths = np.linalg.norm(sums, axis=1)
        products = np.einsum("kd,kd->k", sums, self._wanted[rows])
        cosines = np.divide(products, lengths, out=np.zeros(len(rows)), where=lengths > 0)
        paid: NDArray[np.float32] = (cosines - self._scores[rows]).astype(np.float32)
        self._scores[rows] += paid  # what was paid, so that rounding does not add up
        return paid

    def _misfit(self, completions: Completions) -> str:
        return (
            f"takes the token embeddings of {self._source!r}, whose tokenizer is not the "
            f"environment's, {completions.tokenizer}; leave `model` out, or name the model that "
            "the environment's tokenizer belongs to"
        )

    def _text_to_match(self, row: int, completions: Completions) -> str:
        example = completions.examples[row]
        text = example.reference if self.target is None else self.target
        if text is None:
            raise RewardError(_NAME, NO_REFERENCE, completions.sample(row))
        return _behind(completions.prompt_ids(row), text, completions.tokenizer)


def _behind(prompt_ids: NDArray[np.int64], text: str, tokenizer: Tokenizer) -> str:
    """A text as it stands behind a prompt: as words of their own."""
    ends_special = len(prompt_ids) and int(prompt_ids[-1]) in tokenizer.special_ids
    # Several tokens, as the last may be part of a character, or a space that decoders strip.
    end = "" if ends_special else tokenizer.decode(prompt_ids[-8:])
    joined = end and text and not end[-1].isspace() and not text[0].isspace()
    return f" {text}" if joined else text


class _Embeddings(NamedTuple):
    """The input embeddings of a model, float32 (V, width), and the tokenizer that they are of."""

    table: NDArray[np.float32]
    tokenizer: Tokenizer


@cache
def _embeddings(source: str) -> _Embeddings:
    """Read a model's input embeddings; those of special tokens are 0.

    Raises:
        FileNotFoundError: If there is no such model, or it has no tokenizer.
        ValueError: If the model has fewer embeddings than its tokenizer has tokens.
    """
    # Only now, since `textgym list` reads docstrings and does not wait for torch.
    from agents.models import load_model

    tokenizer = Tokenizer.from_pretrained(source)
    model: Any = load_model(source)
    table: NDArray[np.float32] = model.get_input_embeddings().weight.detach().numpy().copy()
    if len(table) < tokenizer.vocab_size:
        raise ValueError(
            f"{_NAME}: model {source!r} has {len(table)} embeddings for the "
            f"{tokenizer.vocab_size} tokens of its tokenizer; resize the one or mend the other."
        )
    table[list(tokenizer.special_ids)] = 0.0
    return _Embeddings(table, tokenizer)


@lru_cache(maxsize=8)
def _has_tokenizer(source: str, tokenizer: Tokenizer) -> bool:
    """Whether the model's own tokenizer gives every token the same id as this one."""
    its = _embeddings(source).tokenizer
    return its is tokenizer or (
        its.special_ids == tokenizer.special_ids
        and its.backend.get_vocab() == tokenizer.backend.get_vocab()
    )
