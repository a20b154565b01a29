"""Whole words in a text, for the rewards that look for some."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache


@cache
def word_pattern(word: str) -> re.Pattern[str]:
    """Finds a word or phrase in a text without case, where it is not part of a longer word.

    Of the text give what `str.casefold` makes of it, which makes "ss" of "ß" too.
    """
    return re.compile(rf"(?<!\w){re.escape(word.casefold())}(?!\w)")


def check_words(name: str, words: Sequence[str], such_as: str) -> None:
    """Refuse what is no list of words.

    Args:
        name: Of the reward, for the message.
        words: At least one word; not a string, which would be a list of letters.
        such_as: An example, for the message.

    Raises:
        ValueError: If it is something else.
    """
    named = isinstance(words, (list, tuple)) and all(isinstance(w, str) and w for w in words)
    if not named or not words:
        raise ValueError(f"{name}: expected a list of words, such as {such_as}, got {words!r}.")
