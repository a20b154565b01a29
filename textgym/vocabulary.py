"""Which tokens may be written, where not all may, and the spaces of them."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym.arguments import check_text
from textgym.tokenizer import Tokenizer

VocabularySpec: TypeAlias = "Sequence[str | int] | str | PathLike[str]"
"""Texts and token ids, or the path of a text file; JSON-able."""


def allowed_ids(
    vocabulary: VocabularySpec, tokenizer: Tokenizer, end_ids: Collection[int] = ()
) -> NDArray[np.int64]:
    r"""The tokens that may be written, as a person says it.

    A text stands for all tokens that the tokenizer makes of it:

    - A word, or a line that begins with one, as it stands in a text, with a space before it:
      `["king", "the"]` allows `" king"` and `" the"`. And without the space, as at the beginning of
      a line, if that takes no more tokens: `"the"` may be a token, too, but `"king"` may be `"k"`
      and `"ing"`, of which one could make what is no word.
    - What begins with anything else, such as `","` or `" king"`, as it is.
    - Several lines, such as a sample of what is to be written, as they are; and each of them as a
      line of its own.

    Args:
        vocabulary: Texts, and token ids as whole numbers; or the path of a text file (UTF-8),
            which is one text.
        tokenizer: The tokenizer.
        end_ids: Tokens that end a text; they are always allowed.

    Returns:
        Token ids, int64 (k,), ascending.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is neither a list of strings and whole numbers nor a path.
        ValueError: If it is empty, a number is no token id, or the file is not UTF-8.
    """
    if isinstance(vocabulary, (str, PathLike)):
        vocabulary = [_read(Path(vocabulary))]
    if not isinstance(vocabulary, (Sequence, np.ndarray)) or isinstance(vocabulary, bytes):
        raise TypeError(
            "vocabulary is a list of texts and token ids, such as ['king', 'love', 7], or the path "
            f"of a text file, got {vocabulary!r}."
        )
    if not len(vocabulary):
        raise ValueError(
            "vocabulary is empty, so that nothing could be written. Give texts or token ids, such "
            "as ['king', 'love', 7], or None for all tokens."
        )
    ids = {i for entry in vocabulary for i in _ids(entry, tokenizer)}
    return np.array(sorted(ids.union(end_ids)), np.int64)


class Tokens(Discrete):
    """Token ids of which only some may be written.

    Actions are the ids of the whole vocabulary, and `n` is its size, so that what reads a
    `Discrete` finds what it expects; `sample` and `contains` know the allowed ones only.

    Args:
        n: Size of the vocabulary.
        allowed: Ids that may be written, from 0 to n - 1.
        seed: Of `sample`.

    Attributes:
        allowed: The ids that may be written, int64 (k,), ascending, each once; not to be changed.

    Raises:
        ValueError: If no token is allowed, or an id is out of range.
    """

    def __init__(
        self,
        n: int | np.integer[Any],
        allowed: Iterable[int] | NDArray[np.int64],
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(n, seed)
        self.allowed = _checked(allowed, int(n))
        self._is_allowed = np.zeros(int(n), np.int8)
        self._is_allowed[self.allowed] = 1

    def sample(
        self,
        mask: NDArray[np.int8] | None = None,
        probability: NDArray[Any] | None = None,
    ) -> np.int64:
        """A random token that is allowed.

        Args:
            mask: 1 for tokens that may be drawn, int8 (n,), where they are allowed; where none is,
                the first token that is allowed is drawn.
            probability: Probability of each token, float64 (n,), adding up to 1; what it gives to
                tokens that are not allowed goes to the others.

        Raises:
            ValueError: If all probability is with tokens that are not allowed.
        """
        if mask is None and probability is None:
            return self.allowed[self.np_random.integers(len(self.allowed))]  # type: ignore[no-any-return]
        return super().sample(
            None if mask is None else self.within(mask),
            None if probability is None else self.given_allowed(probability),
        )

    def contains(self, x: Any) -> bool:
        """Whether it is the id of a token that is allowed."""
        return super().contains(x) and bool(self._is_allowed[int(x)])

    def within(self, mask: NDArray[np.int8]) -> NDArray[np.int8]:
        """A mask, int8 (n,), without what is not allowed; the first that is, if nothing is left."""
        left = mask * self._is_allowed
        if not left.any():
            left[self.allowed[0]] = 1
        return left

    def given_allowed(self, probability: NDArray[Any]) -> NDArray[Any]:
        """Probabilities, float64 (n,), given that a token is allowed.

        Raises:
            ValueError: If all probability is with tokens that are not allowed.
        """
        left = probability * self._is_allowed
        if not left.any():
            raise ValueError(f"probability gives nothing to any of the allowed tokens of {self}.")
        # Times a sum of 1; Gymnasium refuses another, and shall see it.
        return (left / left.sum() * probability.sum()).clip(max=1)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Tokens({self.n}, allowed={_shown(self.allowed)})"

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, Tokens)
            and super().__eq__(other)
            and np.array_equal(self.allowed, other.allowed)
        )

    __hash__ = None  # type: ignore[assignment]  # as Discrete


class BatchedTokens(MultiDiscrete):
    """A token of `Tokens` for each of some rows: what `batch_space` makes of that space.

    Args:
        token: The space of one row.
        num_rows: Number of rows.
        seed: Of `sample`.

    Attributes:
        token: The space of one row.
    """

    def __init__(
        self, token: Tokens, num_rows: int, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(np.full(num_rows, token.n), np.int64, seed)
        self.token = token

    def sample(
        self,
        mask: tuple[NDArray[np.int8], ...] | None = None,
        probability: tuple[NDArray[Any], ...] | None = None,
    ) -> NDArray[np.int64]:
        """A random token that is allowed for each row, int64 (rows,).

        Args:
            mask: One for each row, as for `Tokens.sample`.
            probability: One for each row, as for `Tokens.sample`.

        Raises:
            ValueError: If all probability is with tokens that are not allowed.
        """
        if mask is None and probability is None:
            allowed = self.token.allowed
            return allowed[self.np_random.integers(len(allowed), size=self.shape)]
        return super().sample(
            None if mask is None else tuple(map(self.token.within, mask)),
            None if probability is None else tuple(map(self.token.given_allowed, probability)),
        )

    def contains(self, x: Any) -> bool:
        """Whether it holds the id of an allowed token for each row."""
        return super().contains(x) and bool(np.isin(x, self.token.allowed).all())

    def __getitem__(self, index: int | tuple[int, ...]) -> Any:
        """The space of one row, or of several."""
        rows = super().__getitem__(index)
        seed = deepcopy(self.np_random)
        if isinstance(rows, Discrete):
            return Tokens(self.token.n, self.token.allowed, seed)
        return BatchedTokens(self.token, len(rows), seed)

    def __repr__(self) -> str:
        return f"BatchedTokens({self.token}, {len(self)})"

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, BatchedTokens)
            and self.shape == other.shape
            and self.token == other.token
        )

    __hash__ = None  # type: ignore[assignment]  # as MultiDiscrete


@batch_space.register(Tokens)
def _batch_tokens(space: Tokens, n: int = 1) -> BatchedTokens:
    # Gymnasium's other functions for batches take a BatchedTokens for the MultiDiscrete that it is.
    return BatchedTokens(space, n, deepcopy(space.np_random))


def _checked(allowed: Iterable[int] | NDArray[np.int64], n: int) -> NDArray[np.int64]:
    ids = np.unique(np.array(list(allowed), np.int64))
    if not len(ids):
        raise ValueError("no token is allowed; give at least one id.")
    for i in (ids[0], ids[-1]):
        if not 0 <= i < n:
            raise ValueError(f"allowed tokens are ids from 0 to {n - 1}, got {i}.")
    ids.flags.writeable = False
    return ids


def _ids(entry: Any, tokenizer: Tokenizer) -> Iterator[int]:
    """The tokens that an entry of a vocabulary stands for."""
    if isinstance(entry, str):
        if not entry:
            raise ValueError(
                "vocabulary holds an empty text, which stands for no token. Leave it out."
            )
        check_text("text in vocabulary", entry)
        as_it_is = tokenizer.encode_plain(entry)
        lines = [] if entry[0].isspace() else entry.splitlines()
        lines = [line for line in lines if line[:1].isalnum()]
        going_on = [tokenizer.encode_plain(f" {line}") for line in lines]
        if lines != [entry] or len(as_it_is) <= len(going_on[0]):
            yield from as_it_is
        yield from chain.from_iterable(going_on)
        return
    try:
        token_id = operator.index(entry)
    except TypeError:
        token_id = None
    if token_id is None or isinstance(entry, bool):
        raise TypeError(
            "vocabulary holds texts and token ids, such as ['king', 'love', 7], got "
            f"{entry!r} ({type(entry).__name__})."
        )
    if not 0 <= token_id < tokenizer.vocab_size:
        raise ValueError(
            f"vocabulary: {token_id} is no token id of tokenizer {tokenizer.name!r}, which are 0 "
            f"to {tokenizer.vocab_size - 1}. Write a number that is a text as '{token_id}'."
        )
    yield token_id


def _read(path: Path) -> str:
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"vocabulary: there is no file {str(path)!r}. Give the path of a text file, or texts "
            f"in a list: [{str(path)!r}]."
        )
    try:
        # The last line break is the editor's: it alone shall not allow line breaks.
        text = path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"vocabulary {path}: {error}. Save the file as UTF-8.") from error
    if not text:
        raise ValueError(f"vocabulary {path}: the file is empty. Write a text or words into it.")
    return text


def _shown(ids: NDArray[np.int64]) -> str:
    if len(ids) <= 8:
        return str(ids.tolist())
    first = ", ".join(map(str, ids[:3]))
    return f"[{first}, ..., {ids[-1]}] ({len(ids)} tokens)"
