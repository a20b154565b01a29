"""What is compared: the arms of each part, and the learning rates that the pilot tries for them.

A rate that suits one algorithm does not suit another: those that take one step a rollout want
larger ones than those that take eight. So the pilot tries as many for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.algorithms.by_name import ALGORITHMS as BY_NAME
from agents.config import RunConfig
from learning.trial import Trainer, Trial, settings

Settings = Mapping[str, Any]

BUDGET = 40_960
SENTIMENT: Settings = {"task": "continuation", "reward": "sentiment", "max_new_tokens": 32}
TIMINGS = ("immediate", "delayed")

GAE_LAMBDA = {"immediate": 0.9, "delayed": 1.0}
"""What an earlier pilot found for PPO (`compare_rewards_pilot.md`)."""

SLOW, FAST = (3e-5, 1e-4, 3e-4), (1e-4, 3e-4, 1e-3)
"""Learning rates to try, for many steps a rollout and for one."""

KEYWORDS = ("love", "king", "heart", "sweet", "good", "life")
WORDS = (
    *("the", "a", "my", "your", "this", "his", "her", "our", "that", "it", "I", "you", "he", "she"),
    *("we", "they", "is", "was", "are", "be", "have", "had", "do", "not", "no", "and", "but", "or"),
    *("of", "to", "in", "with", "for", "on", "at", "from", "by", "as", "so", "if", "then", "when"),
    *("what", "who", "all", "one", "man", "day", "night", "time", "world", "house", "lord", "hand"),
    *("eyes", "great", "little", "old", "new", "come", "go", "see", "know", "say", "said", "give"),
    *KEYWORDS,
    *(".", ",", "!", "?"),
)
"""Few enough for Q-learning to try each of them."""

REDUCED: Settings = {
    "task": "continuation",
    "reward": {"name": "keywords", "words": list(KEYWORDS)},
    "vocabulary": list(WORDS),
    "max_new_tokens": 16,
}


@dataclass(frozen=True)
class Arm:
    """One of those that are compared.

    Attributes:
        name: As tables call it.
        settings: Of `RunConfig`, but for the learning rate.
        rate: The learning rate; None takes the algorithm's default.
        rates: What the pilot tries.
        trainer: Who trains.
    """

    name: str
    settings: Settings
    rate: float | None = None
    rates: Sequence[float] = ()
    trainer: Trainer = "textgym"

    @property
    def learning_rate(self) -> float:
        """The rate that it has."""
        rate: float = self.config.algorithm_kwargs()["learning_rate"]
        return rate

    @property
    def config(self) -> RunConfig:
        """The settings of its runs, but for the seed."""
        return self.trial("", 0, self.rate, budget=BUDGET).config

    def trial(self, part: str, seed: int, rate: float | None, **given: Any) -> Trial:
        """A run of this arm; `given` are other fields of the trial.

        Defaults of the algorithm are written out, so that a run with others is another run.
        """
        kept = {**BY_NAME[self.settings["algo"]].defaults, **self.settings}
        if rate is not None:
            kept["learning_rate"] = rate
        return Trial(
            part, self.name, seed, settings=settings(**kept), trainer=self.trainer, **given
        )


def _sentiment(name: str, given: Settings, rates: Sequence[float] = SLOW) -> Arm:
    return Arm(name, {**SENTIMENT, **given}, rates=rates)


def _of_timing(timing: str) -> list[Arm]:
    lam: Settings = {"timing": timing, "gae_lambda": GAE_LAMBDA[timing]}
    credit = {"immediate": "token", "delayed": "sequence"}[timing]
    groups: Settings = {"timing": timing, "credit": credit}
    plain: Settings = {"timing": timing, "algo": "reinforce"}
    return [
        _sentiment(f"ppo, {timing}", {**lam, "algo": "ppo"}),
        _sentiment(f"a2c, {timing}", {**lam, "algo": "a2c"}),
        _sentiment(f"reinforce, {timing}", plain, FAST),
        _sentiment(f"reinforce without baseline, {timing}", {**plain, "baseline": False}, FAST),
        _sentiment(f"grpo, {timing}", {**groups, "algo": "grpo"}),
        _sentiment(f"rloo, {timing}", {**groups, "algo": "rloo"}),
    ]


ALGORITHMS = [*_of_timing("immediate"), *_of_timing("delayed")]

STOCK = [_sentiment(algo, {"algo": algo}) for algo in ("ppo", "sb3-ppo", "a2c", "sb3-a2c")]
STOCK_BUDGET = 2_048

VOCABULARY = [
    Arm("dqn", {**REDUCED, "algo": "dqn"}, rates=SLOW),
    Arm("ppo", {**REDUCED, "algo": "ppo"}, rates=SLOW),
    Arm("reinforce", {**REDUCED, "algo": "reinforce"}, rates=FAST),
    Arm("ppo without KL penalty", {**REDUCED, "algo": "ppo", "kl_coef": 0.0}, rates=SLOW),
    Arm(
        "reinforce without KL penalty",
        {**REDUCED, "algo": "reinforce", "kl_coef": 0.0},
        rates=FAST,
    ),
]

FROM_SCRATCH = 1e-3
BACKBONES = [
    Arm("built-in transformer, pre-trained", {**REDUCED, "algo": "ppo"}),
    *(
        Arm(f"{name}, from scratch", {**REDUCED, "algo": "ppo", "backbone": name}, FROM_SCRATCH)
        for name in ("rnn", "lstm", "gru")
    ),
]

STAGES = "stages:1.3:0.8"
TEMPERATURES = [
    _sentiment("constant, 1.3", {"algo": "ppo", "temperature": 1.3}),
    _sentiment("constant, 1", {"algo": "ppo"}),
    _sentiment("constant, 0.8", {"algo": "ppo", "temperature": 0.8}),
    _sentiment("first 1.3, then 0.8", {"algo": "ppo", "temperature": STAGES}),
]

_GRPO = {**SENTIMENT, "timing": "delayed", "algo": "grpo", "credit": "sequence"}
TRL = Arm("TRL's GRPO", _GRPO, rate=1e-4, rates=SLOW, trainer="trl")
"""Its rate is what the pilot found best for it."""

AGAINST_TRL = [
    TRL,
    Arm("TRL's GRPO in bfloat16", {**_GRPO, "dtype": "bfloat16"}, rate=TRL.rate, trainer="trl"),
    Arm("grpo, delayed", _GRPO),
    Arm("grpo, immediate", {**_GRPO, "timing": "immediate", "credit": "token"}),
    Arm("ppo, immediate", {**SENTIMENT, "timing": "immediate", "algo": "ppo"}),
    Arm("a2c, immediate", {**SENTIMENT, "timing": "immediate", "algo": "a2c"}),
]
SAME_RATES = (1e-4, 3e-4)
"""Of all of them, in a comparison each; in another each has its own."""
TRL_BUDGET = 30_720

PILOT_SEED = 1_000
"""No other part has it."""
PILOT_BUDGET = BUDGET // 2
