"""Grammar of English text, sentence by sentence."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from textgym.completion import Sample
from textgym.extras import require
from textgym.registry import did_you_mean
from textgym.rewards.parameters import check_choice
from textgym.rewards.unfinished import without_last_word, words

_DIALECTS = ("american", "australian", "british", "canadian", "indian")

_KINDS = (
    "Agreement",
    "BoundaryError",
    "Capitalization",
    "Eggcorn",
    "Enhancement",
    "Formatting",
    "Grammar",
    "Malapropism",
    "Miscellaneous",
    "Nonstandard",
    "Punctuation",
    "Readability",
    "Redundancy",
    "Regionalism",
    "Repetition",
    "Spelling",
    "Style",
    "Typo",
    "Usage",
    "WordChoice",
    "WordOrder",
)

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|\n\s*\n")  # noqa: RUF001  # closing quotes


@dataclass(frozen=True)
class Grammar:
    """Minus the number of grammar errors per word of the English text, from -1 to 0.

    A mistake costs as soon as the word after it begins, and is diluted as the text goes on
    without another. The empty text scores 0, and so does a text without errors: this reward is
    not one to be won, but a condition on others, such as `length`.

    The text is checked sentence by sentence, so that each token costs no more than the sentence
    that it belongs to. The word at the very end is left out, as the next token may go on with it;
    a space or a full stop makes it whole. More errors than words cost no more than -1.

    Args:
        dialect: "american", "australian", "british", "canadian" or "indian".
        ignore: Kinds of Harper's that are no errors here. By default those are words that do not
            exist (the `spelling` reward is for them), dashes, quotes and spaces, and what is a
            matter of taste.
        with_prompt: Whether a sentence that begins in the prompt is checked whole, where the text
            goes on with it. Errors in the prompt's part of it do not count. Without, the
            completion's part stands for itself.

    Raises:
        MissingExtra: If harper-py is not installed.
        ValueError: If the dialect, or a kind to ignore, is not one of Harper's.

    Source: Harper's rules (harper-py).
    """

    dialect: str = "american"
    ignore: Sequence[str] = (
        "Enhancement",
        "Formatting",
        "Readability",
        "Redundancy",
        "Regionalism",
        "Spelling",
        "Style",
        "Typo",
    )
    with_prompt: bool = True

    score_range: ClassVar[tuple[float, float]] = (-1.0, 0.0)
    needs: ClassVar[str] = "harper-py"
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("grammar", "dialect", self.dialect, _DIALECTS)
        if not isinstance(self.ignore, (list, tuple)):
            raise ValueError(
                f"grammar: ignore is a list of kinds, such as ['Spelling'], got {self.ignore!r}."
            )
        for kind in self.ignore:
            if kind not in _KINDS:
                raise ValueError(
                    f"grammar: no kind of error to ignore is called {kind!r}; "
                    f"{did_you_mean(str(kind), _KINDS)}."
                )
        object.__setattr__(self, "ignore", tuple(self.ignore))
        require("harper", extra="language", wanted_by="reward 'grammar'")

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Minus the errors per word of what is whole of each text."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float:
        whole = without_last_word(sample.text)
        continued = self.with_prompt and sample.continues
        opening = _last_sentence(sample.prompt) if continued else ""
        errors = sum(
            _num_errors(sentence, skip, self.dialect, tuple(self.ignore))
            for sentence, skip in _sentences(opening, whole)
        )
        return -min(1.0, errors / max(1, len(words(whole)))) if errors else 0.0


def _sentences(opening: str, text: str) -> list[tuple[str, int]]:
    """The sentences of `text`, the first with its opening, and how long that is in each."""
    joined, found = opening + text, []
    ends = [*(match.end() for match in _SENTENCE_END.finditer(joined)), len(joined)]
    start = 0
    for end in ends:
        sentence = joined[start:end].rstrip()
        skip = max(0, len(opening) - start)
        if len(sentence) > skip:
            found.append((sentence, skip))
        start = end
    return found


@lru_cache(maxsize=1024)
def _last_sentence(prompt: str) -> str:
    """The end of a prompt that its completion may go on with."""
    start = max((match.end() for match in _SENTENCE_END.finditer(prompt)), default=0)
    return prompt[start:]


@lru_cache(maxsize=1 << 15)
def _num_errors(sentence: str, skip: int, dialect: str, ignore: tuple[str, ...]) -> int:
    """Errors in a sentence that reach beyond its first `skip` characters."""
    lints = _linter(dialect, "Spelling" in ignore).lint(sentence, language="plaintext")
    return sum(lint.span.end > skip and lint.lint_kind not in ignore for lint in lints)


_of_thread = threading.local()


def _linter(dialect: str, ignore_spelling: bool) -> Any:
    """This thread's linter, as one must not be used by two; the first takes half a second."""
    linters: dict[tuple[str, bool], Any] = _of_thread.__dict__.setdefault("linters", {})
    key = dialect, ignore_spelling
    if key not in linters:
        harper = require("harper", extra="language", wanted_by="reward 'grammar'")
        linters[key] = harper.Linter(harper.Dialect[dialect.upper()])
        if ignore_spelling:  # looking for corrections takes most of the time
            linters[key].set_lint_config({"SpellCheck": False})
    return linters[key]
