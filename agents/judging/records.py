"""Judgements as files: everything as JSON, the figures as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.judging.config import EvalConfig
from agents.judging.intervals import Estimate
from agents.judging.table import figure_names
from textgym.files import atomic_write
from textgym.tasks import Task

if TYPE_CHECKING:
    from agents.judging.judge import Judgement


def write_records(
    directory: Path,
    config: EvalConfig,
    settings: Mapping[str, Any],
    judgements: Sequence[Judgement],
) -> None:
    """Write `eval.json` and `eval.csv` to a directory, which is made if need be.

    Args:
        directory: Where to.
        config: The settings, as they were given.
        settings: Those of them that runs decided, as they came out.
        judgements: What there is to tell.
    """
    atomic_write(directory / "eval.json", as_json(config, settings, judgements))
    atomic_write(directory / "eval.csv", as_csv(judgements))


def as_json(
    config: EvalConfig, settings: Mapping[str, Any], judgements: Sequence[Judgement]
) -> str:
    """Settings, figures and every text, as JSON; null for what is not known."""
    given = {**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)}, **settings}
    content = {"settings": given, "judgements": [_judgement(each) for each in judgements]}
    return json.dumps(content, ensure_ascii=False, default=spelled, allow_nan=False) + "\n"


def spelled(setting: Any) -> str:
    """A setting as a person types it; a task or a function of one's own by its name."""
    if isinstance(setting, (Mapping, list, tuple)):
        return json.dumps(setting, ensure_ascii=False, default=spelled)
    if isinstance(setting, Task):
        return setting.name
    return getattr(setting, "__qualname__", None) or str(setting)


def as_csv(judgements: Sequence[Judgement]) -> str:
    """A row for each model and decoding: figures with the ends of their intervals."""
    names = figure_names(judgements)
    columns = [part for name in names for part in (name, f"{name}_low", f"{name}_high")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", "decoding", "reference", "texts", *columns])
    for each in judgements:
        estimates = [each.figures.get(name, Estimate(math.nan)) for name in names]
        numbers = [number for e in estimates for number in (e.value, e.low, e.high)]
        cells = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
        heads = [each.model, each.decoding, each.reference or "", len(each.episodes)]
        writer.writerow([*heads, *cells])
    return file.getvalue()


def _judgement(judgement: Judgement) -> dict[str, Any]:
    texts: list[dict[str, Any]] = [
        {"prompt_index": index // judgement.samples, **dataclasses.asdict(episode)}
        for index, episode in enumerate(judgement.episodes)
    ]
    if judgement.likelihoods is not None:
        own, reference = judgement.likelihoods.own, judgement.likelihoods.plain
        for text, ours, theirs in zip(texts, own.tolist(), reference.tolist(), strict=True):
            text.update(log_prob=ours, reference_log_prob=theirs)
    return {
        "model": judgement.model,
        "decoding": judgement.decoding,
        "reference": judgement.reference,
        "no_reference": judgement.no_reference,
        "is_chat": judgement.is_chat,
        "figures": {
            name: {
                part: None if math.isnan(number) else number
                for part, number in dataclasses.asdict(estimate).items()
            }
            for name, estimate in judgement.figures.items()
        },
        "episodes": texts,
    }
