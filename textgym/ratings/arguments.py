"""The arguments of the reward 'ratings': what they may be, and what is said if they are not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from string import Template
from typing import Any

from textgym import extras
from textgym.ratings.protocol import DEFAULT_URL, is_rating


def check_url(url: Any) -> None:
    """Refuse what is no address to post to, and one that holds a password.

    Raises:
        ValueError: If it is refused.
        MissingExtra: If httpx is not installed, which has to read it.
    """
    httpx = extras.require("httpx", extra="ratings", wanted_by="reward 'ratings'")
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"ratings: url is where to post, such as {DEFAULT_URL!r}, got {url!r}.")
    if parts.userinfo:  # it would be printed with every error
        raise ValueError(
            "ratings: url holds a password; give headers={'Authorization': 'Basic $RATINGS_LOGIN'} "
            "instead, with the password in that environment variable."
        )


def check_number(name: str, value: Any, expected: str, least: float) -> None:
    """Refuse what is no number, or below the least.

    Raises:
        ValueError: If it is refused.
    """
    if not is_rating(value) or value < least:
        raise ValueError(f"ratings: {name} is a number of {expected}, got {value!r}.")


def check_whole_number(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or below the least.

    Raises:
        ValueError: If it is refused.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"ratings: {name} is a whole number from {least} on, got {value!r}.")


def check_fallback(fallback: Any) -> None:
    """Refuse what cannot be paid to a text without rating.

    Raises:
        ValueError: If it is refused.
    """
    if fallback is not None and fallback != "mean" and not is_rating(fallback):
        raise ValueError(
            "ratings: fallback is what a text without rating is paid, a number or 'mean', or None "
            f"to stop there; got {fallback!r}."
        )


def expand_headers(headers: Any) -> dict[str, str]:
    """Headers with environment variables in place; no message shows what these hold.

    Raises:
        ValueError: If they are no mapping to strings, or a variable is not set.
    """
    if headers is not None and not isinstance(headers, Mapping):
        raise ValueError(f"ratings: headers are a mapping of names to strings, got {headers!r}.")
    expanded: dict[str, str] = {}
    for name, template in (headers or {}).items():
        try:
            value = Template(template).substitute(os.environ)
        except KeyError as error:
            raise ValueError(
                f"ratings: header {name!r} wants the environment variable {error.args[0]!r}, "
                "which is not set."
            ) from None
        except (TypeError, ValueError):
            raise ValueError(
                f"ratings: header {name!r} is a string in which $NAME stands for an environment "
                "variable and $$ for $; got something else."
            ) from None
        if not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"ratings: header {name!r} holds a line break or a character beyond ASCII; a "
                "variable that was read from a file may end with one."
            )
        expanded[name] = value
    return expanded
