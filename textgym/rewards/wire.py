"""What a training run and a score elsewhere say to each other over HTTP.

A run posts a batch of texts and gets a number for each, in the same order:

    POST /score                                     Content-Type: application/json
    {"prompts": ["2 + 2 =", …], "completions": [" 4", …],
     "reference": ["4", …], "level": [1, …]}        the columns of the task, a list each

    200   {"rewards": [1.0, …]}                     or "scores"

The body is what a reward function of TRL's trainers takes: a service may call
`reward_func(**body)`. Where they say something there are also `turns`, `continues` (see
`textgym.completion.Sample`) and `completion_ids`. What a task has no value for is `null`.

With `form="openrlhf"` a run asks servers made for OpenRLHF's `remote_rm_url`: `query` is the prompt
and the text behind it, `prompts` the prompt alone, `labels` the reference.

Statuses 408, 425, 429 and from 500 on say "try again"; any other than 200 says that the request
is wrong, and why in its body. To ask again is to send the same again: nothing names a request, so
both sides may be restarted in between.

A run is patient with a service that gets on. It says `Prefer: processing`, and a service that makes
it wait may send `102 Processing` as often as it has answered others: its `timeout` then begins
anew. It may as well answer 503 with the seconds of a `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from textgym.completion import Sample

Form: TypeAlias = Literal["trl", "openrlhf"]
"""How a batch is put: as the arguments of a TRL reward function, or as OpenRLHF asks."""

DEFAULT_PORT = 8000

SCORE_PATH = "/score"

ANSWERS = ("rewards", "scores")
"""Under which of these an answer holds its numbers."""

_OURS = ("prompts", "completions", "reference", "completion_ids", "turns", "continues")


class FormatError(ValueError):
    """A request is not of the form that it should have; the message is for its sender."""


def request(
    samples: Sequence[Sample],
    form: Form = "trl",
    columns: Collection[str] | None = None,
    *,
    token_ids: bool = False,
) -> dict[str, list[Any]]:
    """What is sent to have samples scored, of values that JSON has.

    Args:
        samples: At least one.
        form: How they are put.
        columns: The columns of the task that are sent; None for all.
        token_ids: Whether the token ids are sent.

    Raises:
        FormatError: If a column is called as something else that is sent.
    """
    references = [sample.reference for sample in samples]
    if form == "openrlhf":
        return {
            "query": [sample.prompt + sample.text for sample in samples],
            "prompts": [sample.prompt for sample in samples],
            "labels": references,
        }
    names = {name for sample in samples for name in sample.columns}
    if columns is not None:
        names &= set(columns)
    if taken := names.intersection(_OURS):
        raise FormatError(f"{min(taken)!r} is no name for one, since it means something else")
    body: dict[str, list[Any]] = {
        name: [_plain(sample.columns.get(name)) for sample in samples] for name in sorted(names)
    }
    body["prompts"] = [sample.prompt for sample in samples]
    body["completions"] = [sample.text for sample in samples]
    if any(reference is not None for reference in references):
        body["reference"] = references
    if token_ids:
        body["completion_ids"] = [list(sample.token_ids) for sample in samples]
    if any(sample.turns for sample in samples):
        body["turns"] = [list(sample.turns) for sample in samples]
    if not all(sample.continues for sample in samples):
        body["continues"] = [sample.continues for sample in samples]
    return body


def read_request(body: Mapping[str, Any]) -> list[Sample]:
    """The samples that a request is about, of either form.

    Raises:
        FormatError: If it has none of the forms.
    """
    if "query" in body and "completions" not in body:  # where both are, it is a column
        body = _of_openrlhf(body)
    prompts, texts = _texts(body, "prompts"), _texts(body, "completions")
    count = len(texts)
    if not count:
        raise FormatError("expected at least one text.")
    columns = {name: _list(body, name, count) for name in body if name not in _OURS}
    references = _optional(body, "reference", [None] * count)
    token_ids = _optional(body, "completion_ids", [[]] * count)
    turns = _optional(body, "turns", [()] * count)
    continues = _optional(body, "continues", [True] * count)
    if len(prompts) != count:
        raise FormatError(f"{len(prompts)} prompts for {count} texts.")
    if wrong := [r for r in references if r is not None and not isinstance(r, str)]:
        raise FormatError(f"a reference is a string or null, got {wrong[0]!r:.200}.")
    _check_lists("completion_ids", token_ids, int)
    _check_lists("turns", turns, str)
    if wrong := [c for c in continues if not isinstance(c, bool)]:
        raise FormatError(f"'continues' are true or false, got {wrong[0]!r:.200}.")
    return [
        Sample(
            prompts[k],
            texts[k],
            references[k],
            token_ids[k],
            {name: values[k] for name, values in columns.items() if values[k] is not None},
            turns[k],
            continues[k],
        )
        for k in range(count)
    ]


def _of_openrlhf(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request of OpenRLHF's as one of ours; its prompt is where its query begins."""
    queries, prompts = _texts(body, "query"), body.get("prompts")
    prompts = [""] * len(queries) if prompts is None else _texts(body, "prompts")
    if len(prompts) != len(queries) or not all(map(str.startswith, queries, prompts)):
        raise FormatError("each of 'query' begins with its prompt, the same of 'prompts'.")
    texts = [q.removeprefix(p) for q, p in zip(queries, prompts, strict=True)]
    given = {"prompts": prompts, "completions": texts}
    if body.get("labels") is None:
        return given
    return {**given, "reference": _list(body, "labels", len(texts))}


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    given = body.get(name)
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise FormatError(
            "expected {'prompts': [string, ...], 'completions': [string, ...]} and columns of the "
            f"same length; {name!r} is {given!r:.200}."
        )
    return given


def _list(body: Mapping[str, Any], name: str, count: int) -> list[Any]:
    given = body[name]
    if not isinstance(given, list) or len(given) != count:
        raise FormatError(f"{name!r} is a list of {count} values, one a text; got {given!r:.200}.")
    return given


def _check_lists(name: str, values: Sequence[Any], of: type) -> None:
    for value in values:
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, of) for each in value):
            kind = "whole numbers" if of is int else "strings"
            raise FormatError(f"each of {name!r} is a list of {kind}, got {value!r:.200}.")


def _optional(body: Mapping[str, Any], name: str, default: list[Any]) -> list[Any]:
    return _list(body, name, len(default)) if name in body else default


def _plain(value: Any) -> Any:
    """A value with arrays and numbers of numpy as those of Python."""
    return value.tolist() if hasattr(value, "tolist") else value
