"""Judgements as a table for people: figures in rows, models in columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from agents.judging.config import EvalConfig
from agents.judging.intervals import LEVEL, Estimate
from agents.sampling import Sampling
from agents.wording import prompts_in_words
from textgym.rendering.transcript import rounded

if TYPE_CHECKING:
    from agents.judging.judge import Judgement

_LABELS = {
    "score": ("score", "+.3f"),
    "gain": ("  gain", "+.3f"),
    "success": ("success", ".0%"),
    "tokens": ("tokens a text", ".1f"),
    "ended": ("ended by itself", ".0%"),
    "distinct_1": ("distinct-1", ".3f"),
    "distinct_2": ("distinct-2", ".3f"),
    "different": ("different texts", ".0%"),
    "repetition": ("repeats itself", ".1%"),
    "perplexity": ("perplexity", ".1f"),
    "kl": ("KL, nats a text", ".2f"),
}
"""What figures are called, and how they are written."""


def figures(judgements: Sequence[Judgement]) -> Table:
    """All figures, the models side by side; drawn texts above, greedy ones below."""
    by_decoding: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_decoding.setdefault(judgement.decoding, []).append(judgement)
    table = Table()
    table.add_column(no_wrap=True)
    for judgement in next(iter(by_decoding.values())):
        table.add_column(Text(judgement.model), justify="right", overflow="fold")
    for decoding, columns in by_decoding.items():
        table.add_section()
        table.add_row(Text(decoding, style="bold cyan"))
        for name in figure_names(columns):
            if name.startswith("reward/") and _is_the_score(columns):
                continue
            label, form = _LABELS.get(name, (f"  {name.removeprefix('reward/')}", "+.3f"))
            cells = [_cell(name, column.figures.get(name), form) for column in columns]
            table.add_row(Text(label), *cells)
    return table


def figure_names(judgements: Sequence[Judgement]) -> list[str]:
    """The names of all figures, in the order in which the fullest judgements have them."""
    fullest = sorted(judgements, key=lambda judgement: len(judgement.figures), reverse=True)
    return list(dict.fromkeys(name for judgement in fullest for name in judgement.figures))


def notes(judgements: Sequence[Judgement], config: EvalConfig, sampling: Sampling) -> Iterator[str]:
    """What has to be known to read the table, a line each."""
    yield from _prompts(judgements)
    if "sampled" in config.decodings and sampling != Sampling():
        changed = {k: v for k, v in sampling.settings().items() if v != getattr(Sampling, k)}
        yield f"Drawn with {', '.join(f'{name} {value:g}' for name, value in changed.items())}."
    texts = "" if config.samples == 1 else f", with {config.samples} drawn texts for each"
    yield f"Intervals of {LEVEL:.0%} are over prompts{texts}."
    if any("gain" in judgement.figures for judgement in judgements):
        yield f"Gain: of the score over that of {judgements[0].model}, prompt by prompt."
    of_models = {judgement.model: judgement for judgement in judgements}
    references = {name: j.reference for name, j in of_models.items() if j.reference is not None}
    if len(set(references.values())) == 1:
        yield f"Perplexity under, and KL from, {next(iter(references.values()))}."
    elif references:
        pairs = ", ".join(f"{other} for {name}" for name, other in references.items())
        yield f"Perplexity under, and KL from, the model before training: {pairs}."
    for name, judgement in of_models.items():
        if judgement.no_reference is not None:
            yield f"No perplexity and KL of {name}: {judgement.no_reference}."


def _prompts(judgements: Sequence[Judgement]) -> Iterator[str]:
    """How prompts were put, model by model if that differs."""
    by_format: dict[bool, dict[str, None]] = {}
    for each in judgements:
        by_format.setdefault(each.is_chat, {})[each.model] = None
    for is_chat, names in by_format.items():
        of_whom = f" of {', '.join(names)}" if len(by_format) > 1 else ""
        yield f"Prompts{of_whom} are {prompts_in_words(is_chat)}."


def _is_the_score(columns: Sequence[Judgement]) -> bool:
    """Whether there is one reward, which is paid as it is."""
    return all(_rewards(column.figures) == [column.figures["score"]] for column in columns)


def _rewards(figures: Mapping[str, Estimate]) -> list[Estimate]:
    return [figure for name, figure in figures.items() if name.startswith("reward/")]


def _cell(name: str, estimate: Estimate | None, form: str) -> Text:
    """An estimate with its interval: by its half where both sides are alike, or by its ends."""
    if estimate is None or math.isnan(estimate.value):
        return Text("—", style="dim")
    style = ""
    if name == "gain" and (estimate.low > 0 or estimate.high < 0):
        style = "bold green" if estimate.low > 0 else "bold red"
    cell = Text(rounded(estimate.value, form), style=style)
    if math.isnan(estimate.low):
        return cell
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    if math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-12):
        return cell.append(f" ±{rounded(above, form.replace('+', ''))}", style="dim")
    if form.endswith("%"):
        return cell.append(f" [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]", style="dim")
    ends = f" [{rounded(estimate.low, form)}, {rounded(estimate.high, form)}]"
    return cell.append(ends, style="dim")
