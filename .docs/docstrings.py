"""What the docstrings here have that griffe does not read by itself."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SEVERAL = re.compile(r"^( +)(\w+(?:,\s+\w+)+):((?:.*\n?)(?:\1 +.*\n?)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:$(?=\n +>>>)", re.MULTILINE)


class AsWritten(griffe.Extension):
    """Reads `policy, env: See there.` as two parameters, and "Example:" as "Examples:"."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever has one."""
        if obj.docstring is None:
            return
        text = _EXAMPLE.sub("Examples:", obj.docstring.value)
        before, heading, args = text.partition("Args:\n")
        obj.docstring.value = before + heading + _SEVERAL.sub(_one_by_one, args)


def _one_by_one(match: re.Match[str]) -> str:
    text = match[3].rstrip("\n")
    names = re.split(r",\s+", match[2])
    return "".join(f"{match[1]}{name}:{text}\n" for name in names)
