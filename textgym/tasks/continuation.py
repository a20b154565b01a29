"""The default task: openings that could go on well or badly."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from textgym.tasks.base import Example, Task


@cache
def continuation() -> Task:
    """Continue the opening of a story, speech or conversation.

    480 openings of 3 to 9 words, written for this project: half in the manner of early modern
    drama ("When I saw the king, he"), half in everyday English ("The letter said that"), which
    are the two kinds of English that the built-in model has read. Each stops in mid-sentence and
    is neutral by itself (its VADER compound is 0), so that a score of the whole text is earned by
    what is written after it. There are no references.

    Splits: 320 train, 80 validation, 80 test, half and half of each kind; no two openings begin
    with the same four words.
    """
    text = (files("textgym.assets") / "openings.json").read_text(encoding="utf-8")
    splits = {
        split: tuple(Example(opening) for opening in openings)
        for split, openings in json.loads(text).items()
    }
    return Task("continuation", splits)
