"""Texts as the page shows them: token by token, with all that is known of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from agents.reporting.run import Run
from textgym.rendering.transcript import printable
from textgym.tokenizer import Tokenizer

MOST_PAIRS = 256
"""Prompts whose texts a page holds, over all its runs: a few megabytes."""

LATEST = 24
"""Texts written in training that stand in for those after it, where a run was stopped."""

Record = Mapping[str, Any]
"""A text as a run keeps it."""

Pieces = Callable[[Record], Mapping[str, Any]]
"""Gives the pieces of a text that was kept without them."""


def text_sets(run: Run, most: int) -> list[dict[str, Any]]:
    """What a run wrote, as sets of texts for the page, JSON-able.

    A run that ended has one set, prompts with a text before and one after training. Of one that
    was stopped there are the texts before it, and the latest that were written in it.

    Args:
        run: The run.
        most: Most prompts of a set.
    """
    if run.texts and run.has_ended:
        before, after = run.texts["before"], run.texts["after"]
        pairs = list(zip(before, after, strict=True))
        return [
            _set(run, str(run.texts["what"]), ["Before training", "After training"], pairs, most)
        ]
    cut, note = _by_tokens(run)
    sets = []
    if run.before:
        before = [(each,) for each in run.before]
        sets.append(_set(run, "before training", ["Before training"], before, most, cut, note))
    if run.samples:
        latest = [(each,) for each in run.samples[-LATEST:]]
        sets.append(_set(run, "the latest of training", ["In training"], latest, most, cut, note))
    return sets


def _set(
    run: Run,
    what: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Record]],
    most: int,
    cut: Pieces | None = None,
    note: str = "",
) -> dict[str, Any]:
    """One set of texts: those of a row are for the same prompt."""
    left_out = f"The first {most} of {len(rows)} prompts are shown." if len(rows) > most else ""
    shown = [[_text(text, cut) for text in row] for row in rows[:most]]
    rewards = (reward for row in shown for text in row for reward in text["rewards"])
    return {
        "run": run.name,
        "what": what,
        "notes": [each for each in (left_out, note) if each],
        "columns": list(columns),
        "scale": full_colour(rewards),
        "prompts": [
            {"prompt": printable(row[0]["prompt"]), "texts": texts}
            for row, texts in zip(rows, shown, strict=False)
        ],
    }


def full_colour(rewards: Iterable[float]) -> float:
    """The absolute reward that gets the full colour: exceeded by one token in fifty, of those paid.

    The largest would leave a page pale on which one token earned very much.
    """
    paid = [abs(reward) for reward in rewards if reward]
    return _short(float(np.quantile(paid, 0.98))) if paid else 1.0


def _text(record: Record, cut: Pieces | None) -> dict[str, Any]:
    kept = record if cut is None else {**record, **cut(record)}
    text: dict[str, Any] = {
        "score": _short(kept["score"]),
        "tokens": [printable(piece) for piece in kept["pieces"]],
        "silent": {place: printable(name) for place, name in kept.get("silent", {}).items()},
        "rewards": [_short(reward) for reward in kept["rewards"]],
        "components": {
            printable(name): [_short(reward) for reward in paid]
            for name, paid in kept.get("components", {}).items()
        },
        "replies": [[place, printable(reply)] for place, reply in kept.get("replies", ())],
        "success": kept.get("success"),
        "truncated": bool(kept.get("truncated")),
    }
    context = kept.get("context")
    if context is not None and context.strip() != kept["prompt"].strip():
        text["context"] = printable(context)
    if "timesteps" in kept:
        text["timesteps"] = kept["timesteps"]
    if "log_probs" in kept:
        text["probabilities"] = [
            [None if number is None else _short(math.exp(number)) for number in of_model]
            for of_model in (kept["log_probs"][when] for when in ("before", "after"))
        ]
    if "values" in kept:
        text["values"] = [
            [None if number is None else _short(number) for number in kept["values"][when]]
            for when in ("before", "after")
        ]
    return text


def _short(number: float) -> float:
    return float(f"{number:.5g}") + 0.0


def _by_tokens(run: Run) -> tuple[Pieces, str]:
    """What cuts texts into tokens that were kept without their pieces, and what to say of it."""
    name = str(run.settings.get("tokenizer") or run.settings.get("model"))
    try:
        tokenizer = Tokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        note = f"The texts are not shown token by token: the tokenizer cannot be read ({error})"
        return _whole, note
    return lambda record: _pieces(tokenizer, record), ""


def _whole(record: Record) -> Mapping[str, Any]:
    return {
        "pieces": [record["text"]],
        "rewards": [sum(record["rewards"])],
        "components": {name: [sum(paid)] for name, paid in record.get("components", {}).items()},
        "replies": [],
    }


def _pieces(tokenizer: Tokenizer, record: Record) -> Mapping[str, Any]:
    if "contexts" not in record:
        context = np.array(tokenizer.encode(record["prompt"]), np.int64)
        return show_tokens(tokenizer, context, record["token_ids"])
    context = np.array(record["contexts"][0][1], np.int64)
    shown = show_tokens(tokenizer, context, record["token_ids"])
    return {**shown, "context": tokenizer.decode(context)}


def show_tokens(
    tokenizer: Tokenizer, context: np.ndarray[Any, Any], token_ids: list[int]
) -> dict[str, Any]:
    """The text of each token, "pieces", and the names of special ones, "silent" by their places.

    A piece is empty also if its token is part of a character that a later one completes.

    Args:
        tokenizer: The tokenizer.
        context: The tokens before the first, (c,).
        token_ids: The tokens.
    """
    pieces = tokenizer.pieces(context.astype(np.int64), token_ids)
    silent = {
        str(place): tokenizer.backend.id_to_token(token_ids[place])
        for place, piece in enumerate(pieces)
        if not piece and token_ids[place] in tokenizer.special_ids
    }
    return {"pieces": pieces, "silent": silent}
