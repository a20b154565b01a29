"""Episodes that are not over, as data, and how they are taken up again.

What a reward knows of a text it has from the text, so that nothing of it is stored: the text is
written, and paid, once more.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from textgym.messages import Message
from textgym.process import TextProcess
from textgym.prompts import Prompt
from textgym.tasks.base import Example


def unfinished(process: TextProcess) -> list[dict[str, Any] | None]:
    """The episode of each row, JSON-able; None where there is none, or it cannot be written down.

    The latter are those of a stream whose examples have columns that JSON does not know.
    """
    return [_of_row(process, row) for row in range(process.num_rows)]


def take_up(process: TextProcess, episodes: list[dict[str, Any] | None]) -> None:
    """Bring all rows to where their episodes were, by `unfinished`; rows without one stay over.

    Raises:
        ValueError: If they are of another number of rows, or the texts do not come out as they
            were, because the task or its prompts are others now.
    """
    if len(episodes) != process.num_rows:
        raise ValueError(
            f"these are the texts of {len(episodes)} rows, and there are {process.num_rows}. Make "
            "the environment with the number of rows that it was saved with."
        )
    process.ended[:] = True
    rows = [row for row, episode in enumerate(episodes) if episode is not None]
    written = [np.array(episodes[row]["token_ids"], np.int64) for row in rows]  # type: ignore[index]
    prompts = [_prompt(process, episodes[row]) for row in rows]
    if not rows:
        return
    process.start(np.array(rows), prompts, drawn=True)
    for row in rows:
        episode: Any = episodes[row]
        process.reward.load_terms(row, episode["terms"])
        if process.trials is not None:
            process.trials.take_up(row, is_open=episode["on_trial"])
    for place in range(max(map(len, written))):
        writing = [
            (row, ids[place]) for row, ids in zip(rows, written, strict=True) if place < len(ids)
        ]
        steps = np.array(writing, np.int64)
        process.step(steps[:, 0], steps[:, 1])
    for row in rows:
        length = int(process.contexts.ends[row] - process.contexts.starts[row])
        if process.ended[row] or length != episodes[row]["length"]:  # type: ignore[index]
            raise ValueError(
                f"the text of row {row} does not come out as it was saved. Go on with the task, "
                "the prompts and the tokenizer that it was saved with."
            )


def _of_row(process: TextProcess, row: int) -> dict[str, Any] | None:
    completions, contexts = process.completions, process.contexts
    if process.ended[row]:
        return None
    example = _as_data(process, completions.examples[row])
    if example is None:
        return None
    prompt = completions.prompt_ids(row).tolist()
    trials = process.trials
    return {
        "example": example,
        "prompt_ids": prompt,
        "template": None if trials is None else trials.template(row),
        "on_trial": trials is not None and trials.is_open(row),
        "continues": completions.continues(row),
        "token_ids": completions.token_ids(row).tolist(),
        "length": int(contexts.ends[row] - contexts.starts[row]),
        "terms": process.reward.terms_of(row),
    }


def _as_data(process: TextProcess, example: Example) -> dict[str, Any] | None:
    index = process.prompts.index_of(example)
    if index is not None:
        return {"index": index}
    try:
        data: dict[str, Any] = json.loads(json.dumps(asdict(example)))
    except (TypeError, ValueError):
        return None
    return data if data["columns"] == example.columns else None  # JSON has no tuples, for one


def _prompt(process: TextProcess, episode: Any) -> Prompt:
    data = episode["example"]
    if "index" in data:
        example = process.prompts.example_at(data["index"])
    else:
        messages = tuple(Message(*message) for message in data["messages"])
        example = Example(**{**data, "messages": messages})
    prompt_ids = np.array(episode["prompt_ids"], np.int64)
    return Prompt(example, prompt_ids, episode["template"], episode["continues"])
