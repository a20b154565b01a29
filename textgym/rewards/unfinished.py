"""The words of a text that is still being written."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"\w+(?:['’]\w+)*")  # noqa: RUF001  # the apostrophe of typesetters
_LAST_WORD = re.compile(r"(?<![\w'’])[\w'’]+\Z")  # noqa: RUF001


def words(text: str, start: int = 0) -> list[str]:
    """The words that reach beyond the first `start` characters, in order.

    They have their inner apostrophes; a hyphen or a dash parts two words.
    """
    return [match.group() for match in _WORD.finditer(text) if match.end() > start]


def without_last_word(text: str) -> str:
    """The text without the word that it ends in, which the next token may go on with.

    A text that ends in something else, such as a space or a full stop, stays as it is.
    """
    return _LAST_WORD.sub("", text)


@lru_cache(maxsize=1024)
def last_word(prompt: str) -> str:
    """The word that a prompt ends in, which its completion may go on with; often none."""
    return prompt[len(without_last_word(prompt)) :]
