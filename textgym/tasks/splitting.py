"""Which examples are held out: by content, so that it is the same wherever it is done."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from textgym.arguments import is_number
from textgym.tasks.base import Example


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raise ValueError unless these shares of the prompts can be held out together."""
    shares = fractions.values()
    if not all(is_number(f) and 0 <= f < 1 for f in shares) or sum(shares) >= 1:
        raise ValueError(
            f"the fractions to hold out must be from 0 to below 1, and so must their sum, got "
            f"{dict(fractions)}."
        )


def digest(prompt: str, seed: int) -> bytes:
    """A number of 256 bits that a prompt draws in the lottery of this seed.

    A hash and not a random generator: it is the same in every version of every library.
    """
    return hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()


def lot(prompt: str, seed: int) -> int:
    """The first 64 bits of it, as a number."""
    return int.from_bytes(digest(prompt, seed)[:8], "big")


def content_key(text: str) -> str:
    """What texts share that differ only in case, punctuation and white space.

    Letters, marks, numbers and symbols in the compatibility form of Unicode (NFKC), so that wide
    and narrow characters are the same. A text of nothing else is its own key.
    """
    folded = unicodedata.normalize("NFKC", text.casefold())
    kept = "".join(c for c in folded if unicodedata.category(c)[0] in "LMNS")
    return kept or text.strip()


def hold_out(
    examples: Sequence[Example],
    fractions: Mapping[str, float],
    seed: int,
    key: Callable[[Example], str] = lambda example: example.prompt,
) -> dict[str, tuple[Example, ...]]:
    """Divide examples into `"train"` and a split for every fraction above 0, by prompt.

    Each split gets its fraction of the different prompts, but at least one. Examples with the same
    prompt stay together, so that nothing is both trained and tested on. Which are held out depends
    on `seed` and the prompts alone, not on their order or the machine. Too few prompts to give
    each split one go to training whole.

    Args:
        examples: The examples.
        fractions: What to hold out, by split; see `check_fractions`.
        seed: Chooses which prompts are held out.
        key: What counts as the prompt here, for examples that have more in common than theirs.

    Raises:
        ValueError: If the seed is no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"the seed of what is held out is a whole number, got {seed!r}.")
    prompts = sorted(set(map(key, examples)), key=lambda prompt: digest(prompt, seed))
    held_out = {split: f for split, f in fractions.items() if f > 0}
    counts = sizes(len(prompts), list(held_out.values()))
    split_of = dict.fromkeys(prompts, "train")
    start = 0
    for split, size in zip(held_out, counts, strict=True):
        split_of.update(dict.fromkeys(prompts[start : start + size], split))
        start += size
    return {
        split: tuple(example for example in examples if split_of[key(example)] == split)
        for split in ["train", *held_out]
    }


def sizes(total: int, fractions: Sequence[float]) -> list[int]:
    """How many of `total` to hold out for each fraction: one at least, and one left over."""
    if total <= len(fractions):
        return [0] * len(fractions)
    counts = [max(1, round(total * fraction)) for fraction in fractions]
    while sum(counts) >= total:
        counts[counts.index(max(counts))] -= 1
    return counts
