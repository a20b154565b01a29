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

    Raises:
        ValueError: If there is none of that name, or reasoning_gym refuses the configuration.
        TypeError: If the configuration holds something that JSON cannot.
        MissingExtra: If reasoning_gym is not installed.
    """
    require("reasoning_gym", extra="verifier", wanted_by=wanted_by)
    try:
        as_json = json.dumps(config or {})
    except TypeError as error:
        raise TypeError(
            f"verifier: config holds what JSON can, got {config!r}: {error}."
        ) from error
    return _dataset(name, as_json)


def check_may_run(name: str, allow_eval: bool) -> None:
    """Raise ValueError if the verifier of a dataset runs code and may not."""
    if name in RUNS_CODE and not allow_eval:
        raise ValueError(
            f"verifier: that of {name!r} may run the model's text or the task's file as Python "
            "code. Where that can do no harm, such as in a container, give allow_eval=True; or "
            "choose another dataset."
        )


@cache
def _dataset(name: str, config: str) -> Any:
    package = _require("reasoning_gym")
    # All but the one that is put together from others; their entries have verifiers of their own.
    datasets = {k: v for k, v in package.factory.DATASETS.items() if k != "composite"}
    if name not in datasets:
        raise ValueError(
            f"verifier: no dataset {name!r} in reasoning_gym; {did_you_mean(str(name), datasets)}."
        )
    try:
        return package.create_dataset(name, **json.loads(config))
    except (AssertionError, TypeError, ValueError) as error:  # what its `validate` methods raise
        accepted = ", ".join(field.name for field in fields(datasets[name][1]))
        raise ValueError(
            f"verifier: reasoning_gym refuses config {config} for {name!r}: {error}. Accepted: "
            f"{accepted}."
        ) from error
