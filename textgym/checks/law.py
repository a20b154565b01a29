"""What holds for everything of a kind, and how to say that it does not hold for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Law(NamedTuple):
    """Something that always holds, and what to do about a thing for which it does not."""

    text: str
    cure: str


def broken(subject: str, law: Law, details: Mapping[str, str]) -> AssertionError:
    """The error that says which law somebody breaks, where, and what to do."""
    lines = {**details, "cure": law.cure}
    shown = "".join(f"\n  {key + ':':<10} {value}" for key, value in lines.items())
    return AssertionError(f"{subject} breaks the law that {law.text}.{shown}")
