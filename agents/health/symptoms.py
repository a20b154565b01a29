"""What goes wrong in training without stopping it: found in the numbers, said in words.

Each function looks for one thing and gives a short text, what was seen, what it means and what to
try, or None where all is well. They are strict: what may happen in a sound training is no symptom.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.episodes import Episode, Outcome
from agents.judging import intervals
from textgym.rendering.transcript import rounded

_SAME = 1e-6
"""Scores that differ by less are the same."""


def negative_kl(total: float, tokens: int) -> str | None:
    r"""The estimate of the KL divergence from the reference is below what chance can do.

    Tokens $a_t$ that a policy draws, of which a reference says $\log \pi_{ref}$, have
    $E \prod_t \pi_{ref}(a_t) / \pi(a_t) \le 1$, so that by Markov's inequality

    $$ P\left(\sum_t \log \pi(a_t) - \log \pi_{ref}(a_t) \le -x\right) \le e^{-x} $$

    whatever the two distributions are: the sum below -20 is one rollout in 485 million. A
    thousandth of a nat a token is let through for the rounding of bfloat16.

    Args:
        total: Sum of log-probabilities minus those of the reference over all tokens of a rollout.
        tokens: Their number.
    """
    if total >= -(20 + 1e-3 * tokens):
        return None
    return (
        f"the KL divergence from the reference is estimated at {total / tokens:.3f} nats a token. "
        "It cannot be below 0, and chance does not make it so here: the tokens were not drawn from "
        "the distribution whose log-probabilities were noted, so that penalty and probability "
        "ratio are wrong, and training tends to fail soon after. Look for what changes policy, "
        "temperature or tokens while texts are being written: a callback, a wrapper of actions, "
        "or an environment that writes other tokens than it was given."
    )


def all_cut(outcomes: Sequence[Outcome], max_new_tokens: int | None) -> str | None:
    """No text ends by itself.

    A budget that is the end of the task (`budget_is_terminal`) is none to complain about, unless
    the task says that none of these texts succeeds.

    Args:
        outcomes: Of texts that ended one way or another.
        max_new_tokens: Their budget, if it is known.
    """
    if all(outcome.truncated for outcome in outcomes):
        return (
            f"each of the last {len(outcomes):,} texts was cut at the end of its budget, so that "
            "nobody learns how to end one, and what would have come after is the critic's guess. "
            "Raise max_new_tokens, pay for ending (the rewards eos or unfinished), or, if the "
            "budget is part of the task, set budget_is_terminal."
        )
    spent = all(outcome.length == max_new_tokens for outcome in outcomes)
    judged = all(outcome.success is not None for outcome in outcomes)
    if spent and judged and not any(outcome.success for outcome in outcomes):
        return (
            f"each of the last {len(outcomes):,} texts used up its {max_new_tokens} tokens, and "
            "none succeeds: perhaps they are stopped before they come to an answer. Raise "
            "max_new_tokens, pay for ending (the rewards eos or unfinished), or let the model "
            "imitate good answers first (textgym sft)."
        )
    return None


def same_scores(outcomes: Sequence[Outcome]) -> str | None:
    """All texts score the same, and not because all of them are right."""
    scores = [outcome.score for outcome in outcomes]
    if np.ptp(scores) > _SAME or all(outcome.success for outcome in outcomes):
        return None
    return (
        f"text after text scores {rounded(scores[0], '+.3f')}, the last {len(outcomes):,} as those "
        "before. Where no text is better than another there is nothing to learn from. If this is "
        "the best there is, the task is learned. Otherwise see what the reward says of texts that "
        "you know (textgym score), and try one that pays part of the way, easier prompts, a higher "
        "temperature, or texts to imitate first (textgym sft)."
    )


def same_in_groups(outcomes: Sequence[Outcome]) -> str | None:
    """In every group the texts of a prompt score the same, though others score otherwise."""
    groups: dict[int, list[float]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.prompt, []).append(outcome.score)
    scores = [outcome.score for outcome in outcomes]
    whole = [group for group in groups.values() if len(group) > 1]
    if not whole or np.ptp(scores) <= _SAME or any(np.ptp(group) > _SAME for group in whole):
        return None
    return (
        f"in each of the last {len(whole):,} groups all texts of a prompt scored the same. They "
        "are compared with each other only, so that there is nothing to learn from. Prompts may "
        "be too easy or too hard: mix them, raise group_size or the temperature, or take a reward "
        "that pays part of the way; ppo compares texts of different prompts."
    )


def moved_before_step(approx_kl: float) -> str | None:
    """The probability ratio is not 1 before the first step of an update.

    Args:
        approx_kl: Mean of (ratio - 1) - log ratio over the first mini-batch, 0 but for rounding.
    """
    if approx_kl < 0.01:
        return None
    return (
        f"before the first step of an update the probability ratio is far from 1 (approximate KL "
        f"{approx_kl:.3g}): the policy that learns is not the one that wrote. Look for what "
        "changes weights or temperature between rollout and update, for a layer that draws by "
        "chance, or for an environment that writes other tokens than it was given."
    )


def is_far(approx_kl: float, clip_fraction: float) -> bool:
    """Whether one such update is enough to say so; the arguments are those of `far_steps`.

    The first update of a sound training may well be of 1.5 nats: a few tokens make up the mean.
    """
    return approx_kl >= 3 or clip_fraction >= 0.5


def far_steps(approx_kl: float, clip_fraction: float) -> str | None:
    """Updates go much farther than a clipped objective was made for.

    Args:
        approx_kl: From the policy of the rollout, a mean over an update.
        clip_fraction: Share of tokens whose ratio was clipped; 0 where nothing is.
    """
    if approx_kl < 1 and clip_fraction < 0.5:
        return None
    return (
        f"an update moves the policy too far: approximate KL {approx_kl:.3g} nats a token "
        f"(0.01 to 0.1 is usual), {clip_fraction:.0%} of the probability ratios clipped. What is "
        "learned from texts that it would no longer write is mostly noise. Lower the learning "
        "rate, take fewer n_epochs, or stop updates early by target_kl."
    )


def no_entropy(entropy: float) -> str | None:
    """The policy writes the same each time.

    Args:
        entropy: Mean over tokens, in nats.
    """
    if entropy > 0.02:
        return None
    return (
        f"the policy is all but certain of each token (entropy {entropy:.3g} nats): it writes the "
        "same each time, tries nothing else, and so learns nothing more. If its texts are what you "
        "want, it is done. Otherwise begin again with a lower learning rate, an ent_coef above 0, "
        "or a larger kl_coef."
    )


def worse_than_before(
    before: Sequence[Episode], after: Sequence[Episode], learning_rate: object
) -> str | None:
    """A training has made the model worse, by more than chance does.

    Args:
        before: What it wrote for some prompts before training.
        after: What the model that was kept writes for the same prompts.
        learning_rate: With which it was trained, a number or a schedule.
    """
    gains = [new.score - old.score for old, new in zip(before, after, strict=True)]
    gain = intervals.mean(gains)
    if not gain.high < 0:
        return None
    return (
        f"the model that was kept scores less than the one before training ({gain.value:+.3f}, "
        f"{intervals.LEVEL:.0%} interval {gain.low:+.3f} to {gain.high:+.3f}): begin again with a "
        f"lower --learning-rate (it was {learning_rate}), or more tokens."
    )
