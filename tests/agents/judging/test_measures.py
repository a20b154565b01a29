"""Figures of texts that are known."""

import math

import numpy as np
import pytest

from agents.episodes import Episode
from agents.judging import intervals
from agents.judging.measures import Likelihoods, gain, measure


def episode(score, text="a b", tokens=2, **more):
    rewards = [0.0] * (tokens - 1) + [score]
    return Episode("p", text, list(range(tokens)), rewards, {"mine": 2 * score}, score, **more)


def test_figures_by_hand():
    episodes = [
        episode(1.0, "a b", 2, success=True),
        episode(3.0, "a c", 4, success=False, truncated=True),
    ]
    figures = measure(episodes, 1)
    assert figures["score"] == intervals.mean([1.0, 3.0])
    assert figures["reward/mine"] == intervals.mean([2.0, 6.0])
    assert figures["success"] == intervals.rate([1, 0])
    assert figures["tokens"].value == 3
    assert figures["ended"] == intervals.rate([1, 0])
    assert figures["distinct_1"].value == 3 / 4
    assert figures["distinct_2"].value == 1
    assert figures["different"].value == 1
    assert figures["repetition"].value == 0
    assert not {"kl", "perplexity"} & set(figures)


def test_no_success_without_a_threshold():
    assert "success" not in measure([episode(1.0)], 1)


def test_texts_for_one_prompt_are_not_independent():
    scores = [0.0, 0.0, 1.0, 1.0, 5.0, 5.0]
    figures = measure([episode(score, success=score > 0) for score in scores], 2)
    assert figures["score"] == intervals.mean([0.0, 1.0, 5.0])
    assert figures["success"] == intervals.rate([0.0, 1.0, 1.0])


def test_perplexity_and_kl_by_hand():
    episodes = [episode(0.0, tokens=2), episode(0.0, tokens=6)]
    own, reference, plain = np.array([[-1.0, -5.0], [-2.0, -5.5], [-3.0, -9.0]])
    figures = measure(episodes, 1, Likelihoods(own, reference, plain))
    assert figures["kl"].value == pytest.approx((1.0 + 0.5) / 2)
    assert figures["perplexity"].value == pytest.approx(math.exp(12 / 8))
    greedy = measure(episodes, 1, Likelihoods(own, reference, plain), drawn=False)
    assert "kl" not in greedy
    assert greedy["perplexity"] == figures["perplexity"]


def test_a_gain_is_taken_in_pairs():
    easy_and_hard = [episode(score) for score in (0.0, 10.0, 20.0)]
    better = [episode(score) for score in (1.0, 11.25, 20.75)]
    difference = gain(better, easy_and_hard, 1)
    assert difference == intervals.mean(np.array([1.0, 1.25, 0.75]))
    assert difference.low > 0.3  # although the scores themselves are far apart
