"""What a sceptic should know, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence

from comparison import rewards
from comparison.scales import HEAVIEST
from comparison.store import Store
from textgym.rewards import names as known

LEFT_OUT = {
    "classifier": "it needs a text classifier, and none comes with the packages",
    "toxicity": "the same",
    "reward_model": "it needs a model trained on preferences, and would say more of that model",
    "ratings": "it needs people who rate",
    "http": "it has no score of its own: it asks for one elsewhere",
    "ray": "the same",
    "target_token": "it teaches to repeat one token, which says little of text",
    "adaptive": "it has no score of its own: it changes the weights of other rewards",
    "schedule": "the same",
}
"""Rewards of the registry that are not compared, and why."""


def of(store: Store, names: Sequence[str], changed: Sequence[str]) -> list[str]:
    """The notes.

    Args:
        store: Has the scales.
        names: The rewards of which there are results.
        changed: Judges whose code is not what it was when the runs were made.
    """
    return [
        "## What a sceptic should know",
        "",
        "- **One setting of everything.** All settings but lambda are the defaults of `textgym "
        "train`: one model of 2.2 million parameters, one algorithm, 20 updates, a critic that "
        "begins from nothing. Another model or a longer training may give another answer. Delayed "
        "reward asks more of the critic, which has little time to learn.",
        "- **Lambda** differs between the timings: delayed has the best that a pilot found for it, "
        "immediate the default of `textgym train` (see the pilot).",
        "- **KL differs at the end.** Both timings pay the same price for leaving the base model, "
        "but do not end equally far from it; the picture of gain against KL shows what each got "
        "for it.",
        "- **Some rewards leave timing little to do.** `eos` can only be paid with the last token "
        "and is the control; the answers of `contains` and `verifier` are so short that both "
        "timings pay nearly alike.",
        "- **Few seeds.** They are neighbours, and the prompts of the 64 rows of a run are drawn "
        "with the seed plus the row: neighbouring seeds share 63 of 64 generators of prompts. What "
        "the model then samples differs. Intervals are about seeds of this kind.",
        "- **Known lines.** Most of the dialogue was in the built-in model's pre-training; held "
        "out are prompts, from the training with rewards.",
        "- **Warm start.** In sums and choices the model first learned from random answers how an "
        "answer looks, and not which one is right; as it is, it would never give any.",
        "- **Choices can be won without adding:** the smaller of the two numbers is always right.",
        "- **Weights.** A weight makes the scores of base texts spread as those of `sentiment` do, "
        "the same for both timings" + _unequal(store, names) + ".",
        "- **Curves** begin with the mean of base texts on training prompts, and are smoothed over "
        "three rollouts before tokens are counted. What ended in the first rollout of a run is no "
        "fair draw: long texts were still being written.",
        *(
            f"- **`{judge}` gives base texts another mean now than when the runs were made:** its "
            "code was changed in between, and its gains on held-out prompts are off by that."
            for judge in changed
        ),
        "",
        "Left out of the comparison:",
        "",
        *(f"- `{name}`: {why}." for name, why in LEFT_OUT.items()),
        "",
    ]


def missing() -> set[str]:
    """Rewards of the registry that are neither compared nor said to be left out."""
    compared = {rewards.spec(name)["name"] for name in rewards.REWARDS}
    return set(known()) - compared - set(LEFT_OUT)


def _unequal(store: Store, names: Sequence[str]) -> str:
    alike = [name for name in names if store.scales[name]["std"] < 1e-6]
    capped = [name for name in names if store.scales[name]["weight"] >= HEAVIEST]
    return "".join(
        f"; {what} ({', '.join(which)})"
        for which, what in (
            (alike, "rewards that score all base texts alike have the weight 1"),
            (capped, f"none is heavier than {HEAVIEST:g}, so that some spread less"),
        )
        if which
    )
