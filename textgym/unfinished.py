"""Episodes that are not over, as data, and how they are taken up again.

What a reward knows of a text it has from the text, so that nothing of it is stored: the text is
written, and paid, once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from textgym.process import TextProcess
from textgym.prompts import Prompt


def unfinished(process: TextProcess) -> list[dict[str, Any] | None]:
    """The episode of each row, JSON-able; None where there is none, or it cannot be written down.

    The latter are those of a stream whose examples have columns that JSON does not know.
    """
    return [
        None if process.ended[row] else _of_row(process, row) for row in range(process.num_rows)
    ]


def take_up(process: TextProcess, episodes: list[dict[str, Any] | None]) -> None:
    """Bring all rows to where their episodes were, by `unfinished`; rows without one are over.

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
    goes_on: dict[int, Any] = {row: each for row, each in enumerate(episodes) if each is not None}
    if not goes_on:
        return
    prompts = [process.prompts.from_data(episode["prompt"]) for episode in goes_on.values()]
    process.start(np.array(list(goes_on)), prompts, drawn=True)()
    for row, episode in goes_on.items():
        process.reward.load_terms(row, episode["terms"])
        if process.trials is not None:
            process.trials.take_up(row, is_open=episode["on_trial"])
    owed = []
    for place in range(max(len(episode["token_ids"]) for episode in goes_on.values())):
        writing = [
            (row, episode["token_ids"][place])
            for row, episode in goes_on.items()
            if place < len(episode["token_ids"])
        ]
        rows, tokens = np.array(writing, np.int64).T
        owed.append(process.advance(rows, process.as_tokens(tokens))[0])
    for paid in owed:
        paid.settle()
    for row, episode in goes_on.items():
        if process.ended[row] or _length(process, row) != episode["length"]:
            raise ValueError(
                f"the text of row {row} does not come out as it was saved. Go on with the task, "
                "the prompts and the tokenizer that it was saved with."
            )


def _of_row(process: TextProcess, row: int) -> dict[str, Any] | None:
    completions, trials = process.completions, process.trials
    template = None if trials is None else trials.template(row)
    prompt = process.prompts.as_data(
        Prompt(
            completions.examples[row],
            completions.prompt_ids(row),
            template,
            completions.continues(row),
        )
    )
    if prompt is None:
        return None
    return {
        "prompt": prompt,
        "on_trial": trials is not None and trials.is_open(row),
        "token_ids": completions.token_ids(row).tolist(),
        "length": _length(process, row),
        "terms": process.reward.terms_of(row),
    }


def _length(process: TextProcess, row: int) -> int:
    """Tokens that stand in a row, int: prompt, text and answers."""
    return int(process.contexts.ends[row] - process.contexts.starts[row])
