"""The page of a sweep: its trials, how each setting bears on the score, and how trials went."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agents.reporting.frame import framed, signed
from agents.tuning.config import TuneConfig
from agents.tuning.space import Choice, Dimension, Range
from agents.tuning.study import Record, best_of, score_of
from agents.tuning.view import value_in_words

_NONE = "–"  # noqa: RUF001  # a dash, as the pages of runs have it
"""Where there is nothing to show."""

_MOST_SHOWN = 40
"""Letters of a setting that are shown beside a point."""


def sweep_page(
    config: TuneConfig, name: str, records: Sequence[Record], importances: Mapping[str, float]
) -> str:
    """The report of a sweep, as HTML that loads nothing.

    Args:
        config: Its settings.
        name: What it is called.
        records: Its trials.
        importances: How much each setting mattered; empty if that is not known.
    """
    best = best_of(records)
    ordered = sorted(records, key=score_of, reverse=True)
    charts = list(_charts(config, records, best)) if any(map(_has_score, records)) else []
    return framed(
        "sweep.html",
        ["sweep.js"],
        {"charts": charts},
        command="tune",
        title=name,
        metric=config.metric,
        names=[dimension.name for dimension in config.space],
        words={dimension.name for dimension in config.space if not _is_number(dimension)},
        best=None if best is None else (best.number, signed(score_of(best))),
        rows=[_row(config, record, record is best) for record in ordered],
        importances=[(name, f"{part:.0%}") for name, part in importances.items()],
        charts=charts,
    )


def _row(config: TuneConfig, record: Record, is_best: bool) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "number": record.number,
        "is_best": is_best,
        "state": "cut" if outcome is None else outcome.state,
        "values": [value_in_words(record.values.get(d.name, _NONE)) for d in config.space],
        "timesteps": 0 if outcome is None else outcome.timesteps,
        "score": signed(score_of(record)) if _has_score(record) else _NONE,
        "tests": [
            _NONE if score is None else signed(score)
            for score in ((None, None) if outcome is None else (outcome.before, outcome.after))
        ],
        "message": "" if outcome is None else outcome.message,
    }


def _charts(
    config: TuneConfig, records: Sequence[Record], best: Record | None
) -> Iterator[dict[str, Any]]:
    scored = [record for record in records if _has_score(record)]
    scores = _around([score_of(record) for record in scored])
    yield {
        "id": "chart-trials",
        "title": "Score by trial",
        "note": "the line is the best so far",
        "points": [_point(record, record.number) for record in scored],
        "lines": [_best_so_far(scored)],
        "log": False,
        "order": [],
        "x_range": [-0.5, scored[-1].number + 0.5],
        "whole_steps": True,
        "y_range": scores,
    }
    yield {
        "id": "chart-course",
        "title": "Score in the course of a trial",
        "note": "by tokens of training"
        + ("" if best is None else f"; the coloured line is trial {best.number}, the best"),
        "points": [],
        "lines": [
            {
                "x": [record.tokens[look] for look in record.looks],
                "y": list(record.looks.values()),
                "name": f"trial {record.number}",
                "settings": _settings(record),
                "is_best": record is best,
            }
            for record in sorted(scored, key=lambda each: each is best)  # drawn last, above all
        ],
        "log": False,
        "order": [],
        "x_range": None,
        "whole_steps": False,
        "y_range": _around([y for record in scored for y in record.looks.values()]),
    }
    for dimension in config.space:
        taken = [record for record in scored if dimension.name in record.values]
        if taken:
            yield {
                "id": f"chart-{dimension.name}",
                "title": dimension.name,
                "note": "score by this setting" + _of_part(taken, scored),
                "points": [
                    _point(record, _place(dimension, record.values[dimension.name]))
                    for record in taken
                ],
                "lines": [],
                "log": isinstance(dimension, Range) and dimension.log,
                "order": [] if isinstance(dimension, Range) else _places(dimension),
                "x_range": _searched(dimension),
                "whole_steps": all(isinstance(end, int) for end in dimension.ends),
                "y_range": scores,
            }


def _is_number(dimension: Dimension) -> bool:
    return all(isinstance(end, (int, float, type(None))) for end in dimension.ends)


def _of_part(taken: Sequence[Record], scored: Sequence[Record]) -> str:
    return "" if len(taken) == len(scored) else f", in the {_counted(taken)} it"


def _counted(taken: Sequence[Record]) -> str:
    return "one trial that takes" if len(taken) == 1 else f"{len(taken)} trials that take"


def _searched(dimension: Dimension) -> list[float] | None:
    """The ends of an axis on which all that is searched has a place, however little was tried."""
    if isinstance(dimension, Choice):
        return [-0.5, len(dimension.ends) - 0.5]
    low, high = dimension.ends
    return _around([math.log10(low), math.log10(high)] if dimension.log else [low, high])


def _around(values: Sequence[float]) -> list[float] | None:
    """The ends of an axis on which all values have a place, one alone, too; None for no values."""
    if not values:
        return None
    low, high = min(values), max(values)
    beside = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return [low - beside, high + beside]


def _settings(record: Record) -> list[str]:
    """What a trial drew, a line a setting."""
    return [f"{name} {_shortened(value_in_words(value))}" for name, value in record.values.items()]


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _point(record: Record, x: Any) -> dict[str, Any]:
    assert record.outcome is not None or record.looks
    state = "cut" if record.outcome is None else record.outcome.state
    return {
        "x": x,
        "y": score_of(record),
        "name": f"trial {record.number}",
        "settings": _settings(record),
        "whole": state == "done",
    }


def _place(dimension: Dimension, value: Any) -> Any:
    """Where a value stands: at its number, or where it is one of a few, at its name."""
    return value if isinstance(dimension, Range) else value_in_words(value)


def _places(dimension: Choice) -> list[str]:
    """The names of a setting's values, in the order in which they were given."""
    return [value_in_words(value) for value in dimension.ends]


def _best_so_far(records: Sequence[Record]) -> dict[str, Any]:
    best, so_far = -math.inf, []
    for record in records:
        best = max(best, score_of(record))
        so_far.append(best)
    return {
        "x": [record.number for record in records],
        "y": so_far,
        "name": "best so far",
        "settings": [],
        "is_best": False,
    }


def _has_score(record: Record) -> bool:
    return math.isfinite(score_of(record))
