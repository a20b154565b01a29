"""All that is measured of the texts that one model wrote in one way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.episodes import Episode
from agents.judging import diversity, intervals
from agents.judging.intervals import Estimate


@dataclass(frozen=True)
class Likelihoods:
    """What models say of texts, in nats, one number a text.

    Attributes:
        own: Log-probability by the model that wrote it, as it drew.
        reference: The same by the untrained model, with the same temperature and filters.
        plain: By the untrained model with neither.
    """

    own: NDArray[np.float64]
    reference: NDArray[np.float64]
    plain: NDArray[np.float64]


def measure(
    episodes: Sequence[Episode],
    samples: int,
    likelihoods: Likelihoods | None = None,
    *,
    drawn: bool = True,
) -> dict[str, Estimate]:
    r"""The figures of some texts, by name.

    Intervals are over prompts: of several texts for a prompt the mean is taken first. Figures that
    are not known of these texts are left out.

    * `score`, and `reward/NAME` for each reward without its weight;
    * `success`: share of texts that reached the threshold of their reward;
    * `tokens`: length, the end-of-text token counted;
    * `ended`: share that ended before the budget did, if that cuts texts
      (`budget_is_terminal=False`);
    * `distinct_1`, `distinct_2`, `different`, `repetition`: see `agents.judging.diversity`;
    * `perplexity`: of all texts under the untrained model, exp(-sum of log-probabilities / tokens);
    * `kl`: divergence from the untrained model in nats a text, estimated from the texts as the mean
      of log p(text) - log p_untrained(text). Only for texts that were drawn.

    Args:
        episodes: The texts, those for one prompt one after the other.
        samples: How many there are for each prompt.
        likelihoods: What models say of them; None if there is no untrained model.
        drawn: Whether texts were drawn, and not the likeliest tokens taken.
    """

    def by_prompt(values: ArrayLike) -> NDArray[np.float64]:
        return _by_prompt(values, samples)

    figures = {"score": intervals.mean(scores(episodes, samples))}
    for name in episodes[0].scores:
        paid = by_prompt([episode.scores[name] for episode in episodes])
        figures[f"reward/{name}"] = intervals.mean(paid)
    if episodes[0].success is not None:
        succeeded = by_prompt([bool(episode.success) for episode in episodes])
        figures["success"] = intervals.rate(succeeded)
    lengths = by_prompt([len(episode.token_ids) for episode in episodes])
    figures["tokens"] = intervals.mean(lengths)
    figures["ended"] = intervals.rate(by_prompt([not e.truncated for e in episodes]))
    words = [diversity.words(episode.text) for episode in episodes]
    figures["distinct_1"] = Estimate(diversity.distinct(words, 1))
    figures["distinct_2"] = Estimate(diversity.distinct(words, 2))
    figures["different"] = Estimate(diversity.different([e.text for e in episodes]))
    figures["repetition"] = intervals.mean(by_prompt([diversity.repetition(w) for w in words]))
    if likelihoods is not None:
        surprise = intervals.ratio(by_prompt(-likelihoods.plain), lengths)
        figures["perplexity"] = surprise.map(math.exp)
        if drawn:
            gaps = likelihoods.own - likelihoods.reference
            figures["kl"] = intervals.mean(by_prompt(gaps))
    return figures


def scores(episodes: Sequence[Episode], samples: int) -> NDArray[np.float64]:
    """The score of each prompt, the mean of its texts'."""
    return _by_prompt([episode.score for episode in episodes], samples)


def gain(episodes: Sequence[Episode], over: Sequence[Episode], samples: int) -> Estimate:
    """By how much the scores of texts are above those of others for the same prompts, in pairs."""
    return intervals.mean(scores(episodes, samples) - scores(over, samples))


def _by_prompt(values: ArrayLike, samples: int) -> NDArray[Any]:
    means: NDArray[np.float64] = np.asarray(values, np.float64).reshape(-1, samples).mean(1)
    return means
