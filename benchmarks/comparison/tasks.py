"""What the rewards are compared on: replies in small talk, and sums of numbers of one digit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path

import chatterbot_corpus
import yaml

from textgym.tasks import Example, Task
from textgym.tokenizer import BUILTIN, Tokenizer

HELD_OUT_TEXTS = 64
LONGEST_PROMPT, LONGEST_REPLY = 20, 40
"""Tokens. Replies may be a little longer than what a model may write, which is 32."""

BUDGETS = {"dialogue": 32, "sums": 8, "choices": 8}
"""Tokens of a completion."""

NAMES = tuple(BUDGETS)


@cache
def make(name: str) -> Task:
    """The task of that name."""
    return {"dialogue": dialogue, "sums": sums, "choices": choices}[name]()


def dialogue() -> Task:
    """Reply to a line of small talk; the reference is the reply that a person wrote.

    The first two turns of the English conversations of the package chatterbot-corpus, the first
    reply to each line, short ones. The built-in model has read most of them in its pre-training:
    held out they are from the training with rewards. Its files of code and of computer support
    are left out: they repeat a few answers, or have no short ones.
    """
    tokenizer = Tokenizer.from_pretrained(BUILTIN)
    examples: dict[str, Example] = {}
    folder = Path(chatterbot_corpus.__path__[0], "data", "english")
    for path in sorted(folder.glob("*.yml")):
        if path.stem in ("coding", "tech_support"):
            continue
        content = yaml.load(path.read_text("utf-8-sig"), Loader=yaml.BaseLoader)
        for turns in content["conversations"]:
            line, reply = (" ".join(turn.split()) for turn in turns[:2])
            prompt_fits = len(tokenizer.encode(line + "\n")) <= LONGEST_PROMPT
            if line and prompt_fits and 3 <= len(tokenizer.encode(reply)) <= LONGEST_REPLY:
                examples.setdefault(line.casefold(), Example(line + "\n", reply))
    return Task("dialogue", _split(examples, held_out=HELD_OUT_TEXTS))


def sums() -> Task:
    """Add two numbers of one digit.

    The model knows how an answer looks (`warm_start`). With 2 million parameters it can find out
    which answers are frequent, and learn sums by heart; that it learns to add is too much to
    expect, and held-out sums then stay wrong.
    """
    examples = {
        f"{a} + {b}": Example(f"{a} + {b} =", str(a + b)) for a, b in product(range(10), repeat=2)
    }
    return Task("sums", _split(examples, held_out=HELD_OUT_TEXTS // 4))


def choices() -> Task:
    """Say which of two numbers is the sum, A or B; each is right in half of the prompts.

    The model knows that an answer is a letter (`warm_start`). Guessing pays nothing on average.
    The smaller of the two numbers is always the right one, so that this can be learned by
    comparing them, without adding.
    """
    examples = {}
    for a, b in product(range(10), repeat=2):
        shown = [a + b, a + b + 1] if (a + b) % 2 else [a + b + 1, a + b]
        prompt = f"{a} + {b}? A {shown[0]} B {shown[1]}:"
        examples[f"{a} + {b}"] = Example(prompt, "AB"[shown.index(a + b)])
    return Task("choices", _split(examples, held_out=HELD_OUT_TEXTS // 4))


def _split(examples: Mapping[str, Example], held_out: int) -> dict[str, tuple[Example, ...]]:
    """The same examples in each split wherever and in whatever order they were read."""
    keys = sorted(examples, key=lambda key: hashlib.sha256(key.encode()).digest())
    ordered = tuple(examples[key] for key in keys)
    return {
        "test": ordered[:held_out],
        "validation": ordered[held_out : 2 * held_out],
        "train": ordered[2 * held_out :],
    }
