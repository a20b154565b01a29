"""Which examples are held out: by content, so that it is the same wherever it is done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from textgym.tasks.base import Example


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raise ValueError unless these shares of the prompts can be held out together."""
    if not all(0 <= f < 1 for f in fractions.values()) or sum(fractions.values()) >= 1:
        raise ValueError(
            f"the fractions to hold out must be from 0 to below 1, and so must their sum, got "
            f"{dict(fractions)}."
        )


def digest(prompt: str, seed: int) -> bytes:
    """A number of 256 bits that a prompt draws in the lottery of this seed.

    A hash and not a random generator: it is the same in every version of every library.
    """
    return hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()


def hold_out(
    examples: Sequence[Example], fractions: Mapping[str, float], seed: int
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
    """
    prompts = sorted(
        {example.prompt for example in examples}, key=lambda prompt: digest(prompt, seed)
    )
    held_out = {split: f for split, f in fractions.items() if f > 0}
    sizes = _sizes(len(prompts), list(held_out.values()))
    split_of = dict.fromkeys(prompts, "train")
    start = 0
    for split, size in zip(held_out, sizes, strict=True):
        split_of.update(dict.fromkeys(prompts[start : start + size], split))
        start += size
    return {
        split: tuple(example for example in examples if split_of[example.prompt] == split)
        for split in ["train", *held_out]
    }


def _sizes(total: int, fractions: Sequence[float]) -> list[int]:
    """How many of `total` to hold out for each fraction: one at least, and one left over."""
    if total <= len(fractions):
        return [0] * len(fractions)
    sizes = [max(1, round(total * fraction)) for fraction in fractions]
    while sum(sizes) >= total:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes
