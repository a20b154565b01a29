"""The arguments of the reward 'ratings' that are its own."""

from __future__ import annotations

from typing import Any

from textgym.arguments import is_payable


def check_fallback(fallback: Any) -> None:
    """Refuse what cannot be paid to a text without rating.

    Raises:
        ValueError: If it is refused.
    """
    if fallback is not None and fallback != "mean" and not is_payable(fallback):
        raise ValueError(
            "ratings: fallback is what a text without rating is paid, a number or 'mean', or None "
            f"to stop there; got {fallback!r}."
        )
