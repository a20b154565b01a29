"""The report of each part, in Markdown, and its table as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from comparison.markdown import head, row
from comparison.rows import Row

from agents.config import RunConfig
from learning import arms
from learning.curves import Cost, Curves, Race, kl_at, race, to_reach
from learning.parts import Part
from learning.trial import Trial

SHARE = 0.5
"""Of the largest gain of a part; what has to be reached in its table."""

MOST_KL = 8.0
"""Nats a text: what the pilot takes for torn apart begins here."""


def objective(config: RunConfig, point: Row) -> float:
    """The score less what it costs to leave the base model, if it costs anything."""
    kl_coef: float = config.algorithm_kwargs().get("kl_coef", 0.0)
    return float(point["score"] - (kl_coef * point["kl"] if kl_coef else 0.0))


def target_of(found: Sequence[Curves]) -> float:
    """The score to reach: above the base model by a share of the largest final gain."""
    base = np.mean([curve.scores[:, 0].mean() for curve in found])
    best = max(curve.final()[0] for curve in found)
    return float(base + SHARE * (best - base))


def table(part: Part, found: Sequence[Curves]) -> list[Row]:
    """A row an arm."""
    target = target_of(found)
    rates = {arm.name: arm.learning_rate for arm in part.arms}
    configs = {arm.name: arm.config for arm in part.arms}
    rows = []
    for curve in found:
        score, half = curve.final()
        rows.append(
            {
                "part": part.name,
                "arm": curve.arm,
                "learning_rate": rates[curve.arm],
                "seeds": curve.seeds,
                "score": score,
                "low": score - half,
                "high": score + half,
                "kl": curve.mean("kl"),
                "objective": np.mean([objective(configs[curve.arm], p) for p in curve.last]),
                "length": curve.mean("length"),
                "tokens": curve.mean("tokens"),
                "seconds": curve.mean("seconds"),
                "wall": curve.mean("wall"),
                "target": target,
                **{f"{of}_to_target": to_reach(curve, target, of) for of in costs(part)},
            }
        )
    return rows


def described(part: Part, found: Sequence[Curves], stem: str) -> list[str]:
    """Title, table and picture of a part."""
    rows = table(part, found)
    base = np.mean([curve.scores[:, 0].mean() for curve in found])
    of: Cost = "wall" if part.alone else "seconds"
    kind = "seconds" if part.alone else "processor seconds"
    columns = ["learning rate", "score at the end [95%]", "KL, nats a text", "objective", "length"]
    columns += [kind, "tokens to the target", f"{kind} to the target"]
    lines = [
        f"## {part.title}",
        "",
        f"Mean score of held-out texts, {'the likeliest ones' if part.greedy else 'drawn'}; the "
        f"base model has {base:.3f}. The objective is the score less kl_coef times KL. The last "
        "two columns say what it takes the mean curve to get to "
        f"{rows[0]['target']:.3f}, the base model's score and {SHARE:.0%} of the largest gain in "
        "this table; a dash is never within the budget.",
        "",
        *head("", *columns),
    ]
    for each in rows:
        lines.append(
            row(
                *(each["arm"], f"{each['learning_rate']:g}"),
                f"{each['score']:.3f} [{each['low']:.3f} to {each['high']:.3f}]",
                *(_number(each["kl"], 1), _number(each["objective"], 3)),
                *(_number(each["length"], 1), _number(each[of], 1)),
                _number(each["tokens_to_target"], 0),
                _number(each[f"{of}_to_target"], 1),
            )
        )
    shown = f"{stem}_{part.name}.png"
    return [*lines, "", f"![Learning curves: mean over the seeds, and their range]({shown})", ""]


def speeds(part: Part, found: Sequence[Curves]) -> list[str]:
    """Title and table of a part of which only the speed is told."""
    lines = [
        f"## {part.title}",
        "",
        f"One run each of {part.budget:,} tokens, too short to learn: Stable-Baselines3's are too "
        "slow to be longer. They have the settings of ours, but no KL penalty, which they do not "
        "know.",
        "",
        *head("", "processor seconds per 1,000 tokens"),
    ]
    for curve in found:
        seconds = 1000 * curve.mean("seconds") / curve.mean("tokens")
        lines.append(row(curve.arm, _number(seconds, 2)))
    return [*lines, ""]


def timings(found: Sequence[Curves], generator: np.random.Generator) -> list[str]:
    """What delayed takes for each that immediate takes, algorithm by algorithm."""
    by_name = {curve.arm: curve for curve in found}
    lines = [
        "### Immediate against delayed, by algorithm",
        "",
        "How many times as much delayed takes to 90% of the smaller of both final gains, and 95% "
        "intervals, seeds being drawn anew. The final gain is the mean of the last three points "
        "above the base model. ≥ and ≤ mark bounds: one of them never gets there, and is counted "
        "with all it had.",
        "",
        *head("", "tokens", "processor seconds"),
    ]
    for name in dict.fromkeys(curve.arm.rpartition(", ")[0] for curve in found):
        immediate, delayed = (by_name.get(f"{name}, {timing}") for timing in arms.TIMINGS)
        if immediate is not None and delayed is not None:
            costs: tuple[Cost, ...] = ("tokens", "seconds")
            cells = [_told(race(immediate, delayed, of, generator)) for of in costs]
            lines.append(row(name, *cells))
    return [*lines, ""]


def in_training(found: Sequence[Curves]) -> list[str]:
    """What texts of training were worth at the end, at the temperature of then."""
    lines = [
        "All of them are judged at a temperature of 1. In training texts are written at the "
        "temperature of then; those since the last look but one, about a tenth of all, scored:",
        "",
        *head("", "score in training, by seed", "mean"),
    ]
    for curve in found:
        scores = [point["trained"] for point in curve.last]
        each = ", ".join(f"{score:.3f}" for score in scores)
        lines.append(row(curve.arm, each, f"{np.mean(scores):.3f}"))
    return [*lines, ""]


def against_trl(group: Sequence[Curves], title: str, generator: np.random.Generator) -> list[str]:
    """What TRL's arms take for each that ours take, where all have rates of one kind."""
    theirs = [curve for curve in group if curve.arm.startswith(arms.TRL.name)]
    ours = [curve for curve in group if curve not in theirs]
    lines = [
        f"### {title}",
        "",
        "How many times as much TRL takes as ours to the same held-out score, 90% of the smaller "
        "of both final gains, and 95% intervals, seeds being drawn anew; and how far both are "
        "from the base model where their mean curves get there, ours first.",
        "",
        *head("ours", "TRL's", "score", "tokens", "seconds", "KL there, nats a text"),
    ]
    for one in ours:
        for other in theirs:
            by = {of: race(one, other, of, generator) for of in ("tokens", "wall")}
            found = by["tokens"]
            if found is None:
                lines.append(row(one.arm, other.arm, "—", "not learned", "not learned", "—"))
                continue
            kls = (kl_at(curve, found.target) for curve in (one, other))
            lines.append(
                row(
                    *(one.arm, other.arm, f"{found.target:.3f}", str(found), str(by["wall"])),
                    " against ".join(_number(kl, 1) for kl in kls),
                )
            )
    return [*lines, ""]


def best_rate(points: Mapping[float, Row]) -> float | None:
    """The rate with the best score among those that did not tear the model apart; None if all did.

    Args:
        points: The last point of each rate.
    """
    kept = {rate: row["score"] for rate, row in points.items() if not row["kl"] > MOST_KL}
    return max(kept, key=lambda rate: kept[rate]) if kept else None


def pilot(trials: Sequence[Trial], points: Mapping[Trial, Sequence[Row]]) -> list[str]:
    """The pilot's table: the chosen rate of each arm is bold."""
    by_arm: dict[str, dict[float, Trial]] = {}
    for trial in trials:
        if trial in points:
            rate = trial.config.algorithm_kwargs()["learning_rate"]
            by_arm.setdefault(trial.arm, {})[rate] = trial
    lines = [
        "# The pilot: which learning rate suits which algorithm",
        "",
        f"One run each with seed {arms.PILOT_SEED}, which no other part has, of "
        f"{trials[0].budget:,} tokens, and a common KL coefficient. Scores are of validation "
        "texts, half way and at the end; in training is the mean score of what was written in "
        "the second half. The objective is the score less kl_coef times the nats by which texts "
        "are likelier than under the base model.",
        "",
        "Bold is the rate with the best score at the end among those that ended within "
        f"{MOST_KL:g} nats a text of the base model, a quarter of a nat for each of 32 tokens. By "
        "the score alone it would be a rate that leaves English behind, and by the objective "
        "alone, with few tokens, often the one that changes least. This rule, and the three rates, "
        "were settled after a first look at such runs, in which higher rates, too, were tried. "
        "On the reduced vocabulary the likeliest texts are judged, which have no KL, so that the "
        "score decides.",
        "",
        *head(
            *("", "learning rate", "half way", "at the end", "in training"),
            *("KL, nats a text", "objective", "processor seconds"),
        ),
    ]
    for name, of_arm in by_arm.items():
        best = best_rate({rate: points[trial][-1] for rate, trial in of_arm.items()})
        for rate, trial in sorted(of_arm.items()):
            half, last = points[trial][1], points[trial][-1]
            lines.append(
                row(
                    *(name, f"**{rate:g}**" if rate == best else f"{rate:g}"),
                    *(f"{half['score']:.3f}", f"{last['score']:.3f}", f"{last['trained']:.3f}"),
                    *(_number(last["kl"], 1), f"{objective(trial.config, last):.3f}"),
                    f"{last['seconds']:.0f}",
                )
            )
    return [*lines, ""]


def notes(part_names: Sequence[str]) -> list[str]:
    """What a sceptic should know."""
    return [
        "## What a sceptic should know",
        "",
        "- **One model, one reward, one budget.** 2.2 million parameters, sentiment by VADER or "
        f"keywords, at most {arms.BUDGET:,} tokens. Learning rates are from a pilot "
        "(`algorithms_pilot.md`) with one seed, other prompts and half of the tokens; all else has "
        "the defaults of `textgym train`.",
        "- **lambda** of PPO and A2C is 0.9 with immediate reward and 1 with delayed, the best of "
        "an earlier pilot (`compare_rewards_pilot.md`).",
        "- **The same KL coefficient is not the same price.** PPO, A2C, Reinforce and RLOO take it "
        "from rewards. GRPO has it in the loss, beside advantages that were divided by the spread "
        "of their group, so that it weighs less there; look at the KL beside the score.",
        '- **GRPO and RLOO with credit="sequence"** credit every token with what the whole text '
        "was paid, so that immediate and delayed are the same run but for rounding; it is shown as "
        "delayed. "
        'Immediate has credit="token".',
        "- **Seconds** are of training alone: what it takes to judge a model is left out. Where "
        "two runs stood side by side, each had one thread, and they are processor time. Against "
        "TRL there was one run at a time with all cores, and they are by the clock on the wall.",
        "- **Curves** are of 80 held-out texts a point, and are smoothed over three points before "
        "anything is counted; ends and beginnings are of 320.",
        "- **Runs end with the update** in which they pass the budget. Algorithms that write whole "
        "texts have up to 5% more tokens by then, which scores at the end have learned from.",
        "- **Few seeds.** Intervals of scores take a seed's mean to spread as the seeds do, but no "
        "less than its texts make it; those of ratios are too narrow with three seeds.",
        *(
            [
                "- **TRL** has the same model, prompts, reward function, length, KL coefficient, "
                "group size, texts an update, optimizer steps an update, clipping and Adam "
                "epsilon as `grpo, delayed`, and losses averaged over tokens (`bnpo`). No "
                "gradient checkpointing, no logging, no data loader processes, float32, the "
                "dynamic cache. It is made for large models on GPUs, where generation by vLLM "
                "is what counts; this is a small model on a CPU.",
                "- **TRL in bfloat16** is faster on this processor, which has instructions for "
                "it. Ours are in float32, though `--dtype bfloat16` makes them faster, too.",
            ]
            if "trl" in part_names
            else []
        ),
        "",
    ]


def costs(part: Part) -> tuple[Cost, ...]:
    return ("tokens", "wall") if part.alone else ("tokens", "seconds")


def _told(found: Race | None) -> str:
    return "immediate has not learned" if found is None else str(found)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if np.isfinite(value) else "—"
