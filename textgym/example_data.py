"""Examples as data that JSON knows, and made again from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from textgym.messages import Message
from textgym.tasks.base import Example


def example_as_data(example: Example) -> dict[str, Any] | None:
    """An example, JSON-able; None if its columns would not come back as they are."""
    try:
        data: dict[str, Any] = json.loads(json.dumps(asdict(example)))
    except (TypeError, ValueError):
        return None
    return data if data["columns"] == example.columns else None  # JSON has no tuples, for one


def example_from_data(data: Mapping[str, Any]) -> Example:
    """The example of which `example_as_data` told."""
    messages = tuple(Message(*message) for message in data["messages"])
    return Example(**{**data, "messages": messages})
