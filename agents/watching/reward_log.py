"""What each reward paid for the texts of a rollout, in SB3's log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.episodes import Outcome
from agents.evaluation import mean_score
from agents.watching.episode_callback import EpisodeCallback

MEAN_SCORE = "rollout/mean_score"
"""The column of `progress.csv` with the mean score of the texts that ended in a rollout."""


def mean_scores(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Means over texts, one at least, by their columns: the score, and each reward in it."""
    names = outcomes[0].scores
    means = {
        f"rewards/{name}/mean": float(np.mean([outcome.scores[name] for outcome in outcomes]))
        for name in names
    }
    return {MEAN_SCORE: mean_score(outcomes), **means}


class RewardLog(EpisodeCallback):
    """Logs what each reward paid for the texts that ended in a rollout.

    That is `rollout/mean_score`; `rewards/<name>/mean` and `rewards/<name>/std`, without weights;
    `completions/mean_length`; and `rewards/<name>/weight` as it stands now, where there are several
    rewards or a weight that changes.

        model.learn(100_000, callback=RewardLog())

    Args:
        collector: Has the texts; None to put them together here.
    """

    def _on_rollout_end(self) -> None:
        outcomes = self.outcomes
        if not outcomes:
            return
        for column, mean in mean_scores(outcomes).items():
            self.logger.record(column, mean)
        for name in outcomes[0].scores:
            scores = [outcome.scores[name] for outcome in outcomes]
            self.logger.record(f"rewards/{name}/std", float(np.std(scores)))
        weights = self.training_env.env_method("reward_weights", indices=[0])[0]
        if len(weights) > 1 or self.training_env.env_method("reward_state", indices=[0])[0]:
            for name, weight in weights.items():
                self.logger.record(f"rewards/{name}/weight", weight)
        lengths = [outcome.length for outcome in outcomes]
        self.logger.record("completions/mean_length", float(np.mean(lengths)))
