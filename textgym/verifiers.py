"""The datasets of reasoning_gym, whose verifiers judge answers; and where in a text the answer is.

The reward `verifier` and the task `reasoning_gym` are made of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache, partial
from typing import Any

from textgym.extras import require
from textgym.registry import did_you_mean

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What verifiers raise for texts that they cannot read."""

_COMPOSITE = "composite"
"""The dataset that is put together from others; its entries have verifiers of their own."""

_require = partial(require, extra="verifier", wanted_by="reward 'verifier'")

EXTRACTS = ("text", "last_line", "tags")

RUNS_CODE = frozenset(
    {
        "binary_matrix",
        "bitwise_arithmetic",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "number_sorting",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Those whose verifier runs the answer or the entry, by `eval` or SymPy's parser, which uses it."""


def find_answer(text: str, extract: str) -> str | None:
    """The part of a text that is its answer, None if there is none as yet.

    Args:
        text: The text.
        extract: `"text"`, all of it without the space around; `"last_line"`, the last line that is
            not blank; `"tags"`, what stands between the last `<answer>` and `</answer>`.
    """
    if extract == "tags":
        answer: str | None = _require("reasoning_gym.utils").extract_answer(text)
        return answer
    text = text.strip()
    return text.splitlines()[-1].strip() if text and extract == "last_line" else text


def dataset(name: str, config: Mapping[str, Any] | None, wanted_by: str) -> Any:
    """A dataset of reasoning_gym with a configuration, made once.

    Args:
        name: Its name.
        config: Its configuration.
        wanted_by: Who asks, for error messages: `"task 'reasoning_gym'"`.

    Raises:
        ValueError: If there is none of that name, or reasoning_gym refuses the configuration.
        TypeError: If the configuration holds something that JSON cannot.
        MissingExtra: If reasoning_gym is not installed.
    """
    package = require("reasoning_gym", extra="verifier", wanted_by=wanted_by)
    try:
        as_json = json.dumps(config or {})
    except TypeError as error:
        raise TypeError(
            f"{wanted_by}: config holds what JSON can, got {config!r}: {error}."
        ) from error
    factories = package.factory.DATASETS
    if name not in factories or name == _COMPOSITE:
        known = factories.keys() - {_COMPOSITE}
        raise ValueError(
            f"{wanted_by}: no dataset {name!r} in reasoning_gym; {did_you_mean(str(name), known)}."
        )
    try:
        return _dataset(name, as_json)
    except (AssertionError, TypeError, ValueError) as error:  # what its `validate` methods raise
        accepted = ", ".join(field.name for field in fields(factories[name][1]))
        raise ValueError(
            f"{wanted_by}: reasoning_gym refuses config {as_json} for {name!r}: {error}. "
            f"Accepted: {accepted}."
        ) from error


def score(judge: Any, answer: str | None, entry: Mapping[str, Any]) -> float:
    """What the verifier of a dataset gives for an answer; 0 if it cannot read it.

    Some verifiers raise for an answer that they cannot read. If that is the answer's fault and not
    the entry's, the entry's own answer can be judged; where it has none, nothing tells them apart.

    Args:
        judge: The dataset.
        answer: The answer; None if the text has none.
        entry: The entry of the dataset that it answers.

    Raises:
        ValueError: If the verifier raises for the entry's own answer too.
    """
    try:
        return float(judge.score_answer(answer, entry))
    except _UNREADABLE:
        own = entry.get("answer")
        try:
            judge.score_answer(own, entry)
        except _UNREADABLE as error:
            raise ValueError(
                f"the verifier cannot judge even the reference, {own!r} "
                f"({type(error).__name__}: {error}); was this prompt made by another dataset?"
            ) from error
        return 0.0


def check_may_run(name: str, allow_eval: bool, wanted_by: str) -> None:
    """Raise ValueError if the verifier of a dataset runs code and may not."""
    if name in RUNS_CODE and not allow_eval:
        raise ValueError(
            f"{wanted_by}: the verifier of {name!r} may run the model's text or the task's file as "
            "Python code. Where that can do no harm, such as in a container, give allow_eval=True; "
            "or choose another dataset."
        )


@cache
def _dataset(name: str, config: str) -> Any:
    return _require("reasoning_gym").create_dataset(name, **json.loads(config))
