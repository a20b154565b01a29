"""Spelling: words that the language does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from textgym.arguments import is_number
from textgym.completion import Sample
from textgym.extras import require
from textgym.rewards.unfinished import last_word, without_last_word, words

_NOT_BY_SPACES = {"ja", "ko", "zh"}
"""Languages whose words wordfreq tells apart with dictionaries of their own."""


@dataclass(frozen=True)
class Spelling:
    """Minus the share of words that the language does not have, from -1 to 0.

    A word is known if a list of some 300,000 English words (fewer in most other languages) has
    it. Case does not matter, common names are in the list, and frequent misspellings are too
    (teh); a higher threshold leaves out rare words and with them some of these. A word with an
    apostrophe is known if the list has it or its parts (don't, Hamlet's, kill'd). A word with a
    digit is not judged.

    The word at the very end of a text does not count yet, as the next token may go on with it: it
    costs nothing while it is being written. A space or a full stop makes it whole. A word that
    begins in the prompt is judged whole as well, unless the text does not go on where the prompt
    ends, as in a chat. The empty text scores 0, and so does one without a misspelling: this reward
    is not one to be won, but a condition on others, such as `length`.

    Args:
        language: Code of a language that is written with spaces: "en", "de", "fr", ...
        threshold: How frequent a word must be to be known, on the Zipf scale: 1.0 is once in a
            hundred million words and all that the list has, 3.0 once in a million.
        known: Words of your own that are known as well, such as names.

    Raises:
        MissingExtra: If wordfreq is not installed.
        ValueError: If there is no list for the language, the threshold is not on that scale, or
            `known` is not a list of words.

    Source: R. Speer, wordfreq, 2022, doi:10.5281/zenodo.7199437.
    """

    language: str = "en"
    threshold: float = 1.0
    known: Sequence[str] = ()

    score_range: ClassVar[tuple[float, float]] = (-1.0, 0.0)
    needs: ClassVar[str] = "wordfreq"
    text_only: ClassVar[bool] = True

    _also: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wordfreq = require("wordfreq", extra="language", wanted_by="reward 'spelling'")
        languages = sorted(set(wordfreq.available_languages()) - _NOT_BY_SPACES)
        if self.language not in languages:
            raise ValueError(
                f"spelling: language is one of {', '.join(languages)}, got {self.language!r}."
            )
        if not is_number(self.threshold) or not 0 < self.threshold <= 8:
            raise ValueError(
                "spelling: threshold is a Zipf frequency above 0 and at most 8, such as 1.0 or "
                f"3.0, got {self.threshold!r}."
            )
        listed = isinstance(self.known, (list, tuple))
        if not listed or not all(isinstance(word, str) and word for word in self.known):
            raise ValueError(
                f"spelling: known is a list of words, such as ['Tiberlain'], got {self.known!r}."
            )
        object.__setattr__(self, "_also", frozenset(_plain(word).lower() for word in self.known))

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Minus the share of unknown words among those that are whole, for each sample."""
        return [
            self._score(last_word(sample.prompt) if sample.continues else "", sample.text)
            for sample in samples
        ]

    def _score(self, opening: str, text: str) -> float:
        """The score of a text that goes on with a word, which may be none."""
        judged = [
            _plain(word)
            for word in words(without_last_word(opening + text), len(opening))
            if word.isalpha() or not any(map(str.isdigit, word))
        ]
        unknown = sum(
            word.lower() not in self._also and not _is_known(word, self.language, self.threshold)
            for word in judged
        )
        return -unknown / len(judged) if unknown else 0.0


def _plain(word: str) -> str:
    return word.replace("’", "'")  # noqa: RUF001  # the apostrophe of typesetters


@lru_cache(maxsize=1 << 16)
def _is_known(word: str, language: str, threshold: float) -> bool:
    """Whether the word, or each of its parts between apostrophes, is as frequent as that."""
    wordfreq = require("wordfreq", extra="language", wanted_by="reward 'spelling'")

    def frequent(part: str) -> bool:
        return bool(wordfreq.zipf_frequency(part, language) >= threshold)

    return frequent(word) or all(map(frequent, word.split("'")))
