"""Rewards: what a text is worth, paid token by token.

Easiest first, a reward is

1. a name (`names()` lists them), or a mapping with its parameters: `{"name": "length",
   "target": 20}`;
2. a function of your own, `def score(text): ...` or of any of `prompt, text, reference,
   token_ids`, or `"package.module:function"` by name;
3. a reward function written for TRL, as it stands;
4. an object with `score(samples)` (the `Score` protocol) or with `start` and `step` (the
   `Reward` protocol).

Several at once are a mapping of names to weights, parameters or functions: `{"sentiment": 1.0,
"length": {"target": 20, "weight": 0.1}, "mine": score}`. `make` has the details, and
`textgym.checks.check_reward` tests a reward of your own. `as_trl` makes a reward function for
TRL's trainers of any of them, and `replay` says what each token of a given text earns.
"""

from textgym.rewards.base import RemoteScore, Reward, RewardError, Score, Stateful
from textgym.rewards.combine import WeightedSum
from textgym.rewards.make import (
    Info,
    RewardSpec,
    documentation,
    info,
    make,
    make_score,
    measured_costs,
    names,
    register,
)
from textgym.rewards.replay import Played, replay
from textgym.rewards.shaping import Every, Timing, shape
from textgym.rewards.trl import TRLReward, as_trl

__all__ = [
    "Every",
    "Info",
    "Played",
    "RemoteScore",
    "Reward",
    "RewardError",
    "RewardSpec",
    "Score",
    "Stateful",
    "TRLReward",
    "Timing",
    "WeightedSum",
    "as_trl",
    "documentation",
    "info",
    "make",
    "make_score",
    "measured_costs",
    "names",
    "register",
    "replay",
    "shape",
]
