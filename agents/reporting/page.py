"""One page that holds everything of some runs and loads nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.judging import intervals
from agents.judging.intervals import Estimate
from agents.reporting.curves import (
    MOST_POINTS,
    TRAINING,
    VALIDATION,
    Chart,
    charts,
    curve,
    points,
    thinned,
)
from agents.reporting.frame import ENVIRONMENT, framed
from agents.reporting.groups import Group, differing, group, worded
from agents.reporting.rewards import reward_in_words
from agents.reporting.run import Run
from agents.reporting.token_texts import MOST_PAIRS, text_sets
from textgym.rendering.transcript import (
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    hex_color,
    printable,
)


def page(runs: Sequence[Run]) -> str:
    """The report of one run or several, as HTML.

    Args:
        runs: One or more, each with another name.
    """
    groups = group(runs)
    summaries = [_summary(run) for run in runs]
    sections = _sections(groups, summaries)
    most = max(MOST_PAIRS // len(runs), 8)
    data = {
        "groups": [each.name for each in groups],
        "charts": [chart for section in sections for chart in section["charts"]],
        "sets": [each for run in runs for each in text_sets(run, most)],
    }
    return framed(
        "page.html",
        ["curves.js", "texts.js"],
        data,
        command="report",
        title=_title(runs),
        reward=printable(reward_in_words(runs[0])),
        summaries=summaries,
        groups=groups,
        sections=sections,
        thinned=MOST_POINTS if max(len(run.progress) for run in runs) > MOST_POINTS else None,
        settings=_settings(runs),
        colours={
            name: hex_color(colour)
            for name, colour in (("neg", NEGATIVE), ("neutral", NEUTRAL), ("pos", POSITIVE))
        },
        sets=data["sets"],
    )


@dataclass(frozen=True)
class Summary:
    """A run in a few words and numbers.

    Attributes:
        run: The run.
        before: Mean score of the texts before training; None if they are not known.
        after: The same after training.
        gain: Mean of the gains, in pairs of the same prompt.
        solved: Shares of texts that solve their tasks, before and after; None if nobody can tell.
        kl: KL divergence from the model before training, nats a text; None if not measured.
    """

    run: Run
    before: Estimate | None
    after: Estimate | None
    gain: Estimate | None
    solved: tuple[float, float] | None
    kl: float | None

    @property
    def repeat(self) -> str:
        """The command that makes the run again."""
        return f"textgym {self.run.command} --config {shlex.quote(str(self.run.path))}/config.yaml"

    @property
    def go_on(self) -> str | None:
        """The command that goes on with the run; None if it has ended."""
        if self.run.has_ended:
            return None
        return f"textgym {self.run.command} --resume {shlex.quote(str(self.run.path))}"

    @property
    def losses(self) -> tuple[float, float] | None:
        """Held-out loss before and after supervised learning; None if not measured."""
        before, after = (self.run.result.get(f"loss_{when}") for when in ("before", "after"))
        return None if before is None or after is None else (before, after)

    @property
    def what(self) -> str:
        """The prompts on which the run was judged, in a few words."""
        return str(self.run.result.get("what") or self.run.texts.get("what") or "held-out prompts")


def _summary(run: Run) -> Summary:
    known_after = run.texts if run.has_ended else {}
    before = list(known_after.get("before", run.before))
    after = list(known_after.get("after", ()))
    scores = [[text["score"] for text in texts] for texts in (before, after)]
    successes = [[text.get("success") for text in texts] for texts in (before, after)]
    known = all(after) and bool(after) and None not in [*successes[0], *successes[1]]
    result = run.result if run.has_ended else {}
    kl = [row["objective/kl"] for row in run.progress if "objective/kl" in row]
    return Summary(
        run,
        _mean(scores[0], result.get("score_before")),
        _mean(scores[1], result.get("score_after")),
        _mean([b - a for a, b in zip(*scores, strict=False)], None),
        (sum(successes[0]) / len(before), sum(successes[1]) / len(after)) if known else None,
        kl[-1] if kl else None,
    )


def _mean(scores: Sequence[float], otherwise: float | None) -> Estimate | None:
    if scores:
        return intervals.mean(scores)
    return None if otherwise is None else Estimate(otherwise)


def _title(runs: Sequence[Run]) -> str:
    titles = dict.fromkeys(map(_title_of_one, runs))
    what = next(iter(titles)) if len(titles) == 1 else ""
    many = f"{len(runs)} runs" if len(runs) > 1 else ""
    return printable(": ".join(part for part in (what, many) if part))


def _title_of_one(run: Run) -> str:
    settings = run.settings
    if run.command == "train":
        return f"{str(settings.get('algo')).upper()} on {_named(settings.get('task'))}"
    corpus = ", ".join(Path(path).name for path in settings.get("corpus") or ())
    return f"{run.command.upper()} on {corpus or _named(settings.get('task'))}"


def _named(spec: Any) -> str:
    """A task or a model in a word."""
    return str(spec["name"]) if isinstance(spec, Mapping) and "name" in spec else worded(spec)


def _sections(groups: Sequence[Group], summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Charts under their headings, JSON-able."""
    shown = charts(groups)
    marked = {chart.column for chart in shown} & {VALIDATION, TRAINING}
    marked_column = VALIDATION if VALIDATION in marked else TRAINING
    sections: dict[str, list[dict[str, Any]]] = {}
    for chart in shown:
        marks = _marks(groups, summaries) if chart.column == marked_column else []
        sections.setdefault(chart.section, []).append(_chart(chart, groups, marks))
    return [{"name": name, "charts": of_section} for name, of_section in sections.items()]


def _marks(groups: Sequence[Group], summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Scores of the test prompts before and after training, means over the runs of a group."""
    marks = []
    for index, of_group in enumerate(groups):
        judged = [
            (each.before.value, each.after.value, each.run.texts.get("kept", each.run.timesteps))
            for each in summaries
            if each.run in of_group.runs and each.before and each.after
        ]
        if judged:
            before, after, kept = (
                sum(column) / len(judged) for column in zip(*judged, strict=True)
            )
            marks.append({"group": index, "x": [0, kept], "y": [_short(before), _short(after)]})
    return marks


def _chart(
    chart: Chart, groups: Sequence[Group], marks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A chart with its curves, one for each group that logged it, JSON-able."""
    curves = []
    for index, of_group in enumerate(groups):
        found = curve([thinned(points(run.progress, chart)) for run in of_group.runs])
        if found.timesteps:
            numbers = {name: [_short(n) for n in getattr(found, name)] for name in _OF_CURVE}
            curves.append({"group": index, "x": found.timesteps, "runs": found.runs, **numbers})
    tests = "; diamonds: test prompts, before and after" if marks else ""
    return {
        "id": f"chart-{chart.column.replace('/', '-')}",
        "title": printable(chart.title),
        "note": chart.note + tests,
        "curves": curves,
        "marks": list(marks),
    }


_OF_CURVE = ("mean", "low", "high")


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """All settings as rows of a table: those that differ or were chosen first, then the rest."""
    differ = differing([run.settings for run in runs])
    changed = {name for run in runs for name in run.about.get("changed", ())}
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "command")
    first = [name for name in names if name in differ or name in changed]
    return {
        "known": all(run.about for run in runs),
        "chosen": [_setting(name, runs, name in differ) for name in first],
        "rest": [_setting(name, runs, False) for name in names if name not in first],
    }


def _setting(name: str, runs: Sequence[Run], differs: bool) -> dict[str, Any]:
    values = [_value(name, run) for run in runs]
    return {"name": name, "values": values if differs else values[:1], "differs": differs}


def _value(name: str, run: Run) -> str:
    if name not in run.settings:
        return "not taken"
    value = run.settings[name]
    settled = run.about.get("settled", {})
    if value is None and name in settled:
        return f"{worded(settled[name])} (the algorithm's)"
    return printable(worded(value))


ENVIRONMENT.filters["words"] = lambda spec: printable(_named(spec))
