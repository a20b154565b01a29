"""Arguments that say where and how to ask: what they may be, and what is said if they are not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from string import Template
from typing import Any

from textgym.arguments import is_payable
from textgym.http.client import require_httpx


def check_url(reward: str, url: Any, example: str) -> None:
    """Refuse what is no address to post to, and one that holds a password.

    Args:
        reward: Name of the reward, for the message.
        url: What was given.
        example: An address that would do.

    Raises:
        ValueError: If it is refused.
        MissingExtra: If httpx is not installed, which has to read it.
    """
    httpx = require_httpx(f"reward {reward!r}")
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"{reward}: url is where to post, such as {example!r}, got {url!r}.")
    if parts.userinfo:  # it would be printed with every error
        raise ValueError(
            f"{reward}: url holds a password; give headers={{'Authorization': "
            f"'Basic ${reward.upper()}_LOGIN'}} instead, with the password in that environment "
            "variable."
        )


def check_number(reward: str, name: str, value: Any, expected: str, least: float) -> None:
    """Refuse what is no number, or below the least.

    Raises:
        ValueError: If it is refused.
    """
    if not is_payable(value) or value < least:
        raise ValueError(f"{reward}: {name} is a number of {expected}, got {value!r}.")


def expand_headers(reward: str, headers: Any) -> dict[str, str]:
    """Headers with environment variables in place; no message shows what these hold.

    Raises:
        ValueError: If they are no mapping to strings, or a variable is not set.
    """
    if headers is not None and not isinstance(headers, Mapping):
        raise ValueError(f"{reward}: headers are a mapping of names to strings, got {headers!r}.")
    expanded: dict[str, str] = {}
    for name, template in (headers or {}).items():
        try:
            value = Template(template).substitute(os.environ)
        except KeyError as error:
            raise ValueError(
                f"{reward}: header {name!r} wants the environment variable {error.args[0]!r}, "
                "which is not set."
            ) from None
        except (TypeError, ValueError):
            raise ValueError(
                f"{reward}: header {name!r} is a string in which $NAME stands for an environment "
                "variable and $$ for $; got something else."
            ) from None
        if not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"{reward}: header {name!r} holds a line break or a character beyond ASCII; a "
                "variable that was read from a file may end with one."
            )
        expanded[name] = value
    return expanded
