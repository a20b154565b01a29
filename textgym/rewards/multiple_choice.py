"""One letter out of several."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar

from textgym.rewards.parameters import check_whole_number


@dataclass(frozen=True)
class MultipleChoice:
    """+1 if the text chooses the letter of the reference, -1 if another, 0 if none as yet.

    A letter is chosen where it is a word of its own. The first of these rules that finds one
    decides:

    1. The last letter announced, as in "The answer is B.", "answer: (b)" or "Answer = option B".
    2. The only letter of the text, as in "B", "b" or "(b)".
    3. The first capital, as in "B. Paris" or "I say B", or small letter with a closing bracket,
       as in "b) Paris".

    An A or I before another word is that word of English ("A king") and no choice. So a choice
    can be made and lost again as the text grows. The empty text scores 0.

    Args:
        choices: How many letters there are to choose from, beginning with A; 2 to 26.

    Raises:
        ValueError: If `choices` is out of range, or the reference, read in the same way, chooses
            none of these letters.
    """

    choices: int = 4

    score_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs: ClassVar[str] = "a reference"
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_whole_number("multiple_choice", "choices", self.choices, least=2, most=26)

    def __call__(self, text: str, reference: str) -> float:
        """+1.0, -1.0 or 0.0."""
        wanted = _wanted(reference, self.choices)
        chosen = chosen_letter(text, self.choices)
        if chosen is None:
            return 0.0
        return 1.0 if chosen == wanted else -1.0


def chosen_letter(text: str, choices: int) -> str | None:
    """The letter that a text chooses, as a capital, by the rule in `MultipleChoice`."""
    announced, only, first = _patterns(choices)
    found = [only.fullmatch(text) or first.search(text), *announced.finditer(text)][-1]
    return None if found is None else found["letter"].upper()


@lru_cache(maxsize=1024)
def _wanted(reference: str, choices: int) -> str:
    letter = chosen_letter(reference, choices)
    if letter is None:
        last = string.ascii_uppercase[choices - 1]
        raise ValueError(
            f"multiple_choice: the reference {reference!r} chooses no letter from A to {last}; "
            "give the letter of the right answer as the reference, or more choices"
        )
    return letter


@cache
def _patterns(choices: int) -> tuple[re.Pattern[str], ...]:
    """What finds an announced letter, the only one of a text, and the first."""
    capitals = string.ascii_uppercase[:choices]
    begins = "(?<![^\\W_])(?<![^\\W_]['’])"  # noqa: RUF001  # the apostrophe of typesetters
    ends = "(?![^\\W_])(?!['’][^\\W_])(?!(?<=[AaIi])\\s+\\w)"  # noqa: RUF001
    announced = (
        r"\banswer(?:\s+is\b|\s*[:=])[\W_]*(?:(?:option|choice)\b[\W_]*)?"
        rf"(?P<letter>[{capitals}]){ends}"
    )
    only = rf"[\W_]*(?P<letter>[{capitals}])[\W_]*"
    first = rf"{begins}(?P<letter>[{capitals}]{ends}|[{capitals.lower()}](?=\)))"
    return (
        re.compile(announced, re.IGNORECASE),
        re.compile(only, re.IGNORECASE),
        re.compile(first),
    )
