"""What is known of every token of the texts before and after training, as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.config import RunConfig
from agents.evaluation import Written
from agents.judging.log_probs import Reading, read
from agents.language_policy import LanguagePolicy
from agents.reporting.token_texts import show_tokens
from agents.weights import load_weights
from textgym.files import atomic_write
from textgym.tokenizer import Tokenizer


@dataclass(frozen=True)
class Readings:
    """What the model before training and the one that was kept say of some texts.

    Attributes:
        before: Of each text, by the model before training.
        after: The same, by the model that was kept.
    """

    before: Sequence[Reading]
    after: Sequence[Reading]


def read_by_both(
    policy: LanguagePolicy,
    start: Path,
    kept: LanguagePolicy,
    temperature: float,
    written: Sequence[Written],
) -> Readings:
    """Read texts with the model that was kept, and with the one before training.

    Args:
        policy: The policy that was trained. It has its first weights when this returns, and is
            where the other one was.
        start: The weights that it had before training.
        kept: The policy that was kept; it may be the same. If not, it is on the CPU afterwards: a
            device need not have room for both.
        temperature: At which both write.
        written: The texts.
    """
    after = _read(kept, temperature, written)
    device = kept.device
    if kept is not policy:
        kept.cpu()
    load_weights(policy.to(device), start)
    return Readings(_read(policy, temperature, written), after)


def _read(policy: LanguagePolicy, temperature: float, written: Sequence[Written]) -> list[Reading]:
    with policy.at_temperature(temperature):
        return read(policy.backbone, policy.sampling, policy.value_head, written)


def has_critic(config: RunConfig) -> bool:
    """Whether a run trains its value head."""
    named = config.algorithm
    return named.is_greedy or ("vf_coef" in named.settings and config.of_algorithm("baseline"))


def write_texts(
    path: Path,
    what: str,
    kept: int,
    before: Sequence[Written],
    after: Sequence[Written],
    readings: Readings,
    tokenizer: Tokenizer,
    *,
    critic: bool,
) -> None:
    """Write what is known of every token, for `textgym report`.

    Args:
        path: The file.
        what: The prompts, in a few words.
        kept: Tokens that the model had learned from that wrote the texts after training.
        before: The texts before training, one a prompt.
        after: The texts after it.
        readings: Of those before, then of those after.
        tokenizer: Shows single tokens.
        critic: Whether values mean something.
    """
    texts = [
        _record(*each, tokenizer, critic)
        for each in zip([*before, *after], readings.before, readings.after, strict=True)
    ]
    content = {
        "what": what,
        "kept": kept,
        "before": texts[: len(before)],
        "after": texts[len(before) :],
    }
    # ASCII only, since a text may hold half a surrogate pair.
    atomic_write(path, json.dumps(content, allow_nan=False) + "\n")


def _record(
    written: Written, before: Reading, after: Reading, tokenizer: Tokenizer, critic: bool
) -> dict[str, Any]:
    episode = written.episode
    _, context = written.contexts[0]
    record: dict[str, Any] = {
        **asdict(episode),
        "context": tokenizer.decode(context.astype(np.int64)),
        **show_tokens(tokenizer, context, episode.token_ids),
        "components": {name: _rounded(paid) for name, paid in written.components.items()},
        "log_probs": {name: _rounded(r.log_probs) for name, r in _named(before, after).items()},
    }
    if critic:
        record["values"] = {name: _rounded(r.values) for name, r in _named(before, after).items()}
    return record


def _named(before: Reading, after: Reading) -> dict[str, Reading]:
    return {"before": before, "after": after}


def _rounded(numbers: Sequence[float] | NDArray[np.float32]) -> list[float | None]:
    """To six digits, which is about what float32 holds; None for what is not finite."""
    return [float(f"{n:.6g}") if math.isfinite(n) else None for n in map(float, numbers)]
