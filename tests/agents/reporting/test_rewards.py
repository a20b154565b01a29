"""Rewards are called as the terminal calls them."""

from pathlib import Path

import pytest

from agents.reporting.rewards import reward_in_words
from agents.reporting.run import Run
from agents.wording import rewards_in_words
from textgym.rewards import make


@pytest.mark.parametrize(
    "spec",
    [
        "sentiment",
        {"sentiment": 1.0, "length": 0.1},
        {"length": {"target": 20, "weight": -0.25}, "eos": 2},
        {"name": "length", "target": 20},
        {"name": "length", "target": 20, "weight": 0.5},
        {"short": {"name": "length", "target": 5}, "again": "sentiment"},
        ["sentiment", {"name": "length", "weight": 1e-4}],
        "textgym.rewards.eos:Eos",
        {"textgym.rewards.eos:Eos": 3},
    ],
)
def test_as_in_the_terminal(spec):
    run = Run(Path("a"), "a", {"reward": spec}, "")
    assert reward_in_words(run) == rewards_in_words(make(spec).current_weights)


def test_the_rewards_of_a_task_are_those_of_the_log():
    logged = {"rewards/a/mean": 0.5, "rewards/b/c/mean": 0.25, "rewards/a/weight": 0.1}
    run = Run(Path("a"), "a", {"reward": None}, "", progress=[logged])
    assert reward_in_words(run) == "0.1 a + b/c"
    assert reward_in_words(Run(Path("a"), "a", {}, "")) == "the task's own"
