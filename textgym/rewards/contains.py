"""The answer is in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar


@dataclass(frozen=True)
class Contains:
    r"""1 if the text contains the reference as whole words, 0 if not; 1 counts as success.

    Whole words: no letter, digit or underscore beside it (`\w`), so "Rome" is not in "Romeo", and
    an answer that is found is lost again as its last word grows. Any white space stands for any
    other, a line break for a space. The empty text scores 0.

    Args:
        answer: What to look for; None takes the prompt's reference.
        ignore_case: Look for it without regard to case.
        whole_words: If False, it may be part of a word; for languages without spaces.

    Raises:
        ValueError: If there is neither an answer nor a reference, or only white space.
    """

    answer: str | None = None
    ignore_case: bool = True
    whole_words: bool = True

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference, or an answer"
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        answer = self.answer
        if answer is not None and not (isinstance(answer, str) and answer.strip()):
            raise ValueError(
                f"contains: answer is a text, or None for the reference; got {answer!r}."
            )

    def __call__(self, text: str, reference: str | None = None) -> float:
        """1.0 or 0.0."""
        answer = reference if self.answer is None else self.answer
        if answer is None:
            raise ValueError(
                "contains: no answer to look for, and this prompt has no reference to take it "
                "from; give {'name': 'contains', 'answer': '...'} or a task with references"
            )
        if self.ignore_case:
            text, answer = text.casefold(), answer.casefold()
        return float(_pattern(answer, self.whole_words).search(text) is not None)


@lru_cache(maxsize=1024)
def _pattern(answer: str, whole_words: bool) -> re.Pattern[str]:
    if not answer.strip():
        raise ValueError(f"contains: the reference {answer!r} has nothing to look for")
    pattern = r"\s+".join(map(re.escape, answer.split()))
    return re.compile(rf"(?<!\w){pattern}(?!\w)" if whole_words else pattern)
