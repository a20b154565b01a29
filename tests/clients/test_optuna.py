"""Optuna tunes an algorithm of ours, and ends trials early that are worse than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecMonitor

TOKENS = 640


class Report(EvalCallback):
    """Tells a trial how good the model is, and stops when it should be pruned."""

    def __init__(self, env: VecMonitor, trial: optuna.Trial) -> None:
        super().__init__(env, eval_freq=32, n_eval_episodes=20, deterministic=False, verbose=0)
        self._trial = trial
        self.is_pruned = False

    def _on_step(self) -> bool:
        goes_on = super()._on_step()
        if self.n_calls % self.eval_freq == 0:
            self._trial.report(float(self.last_mean_reward), self.num_timesteps)
            self.is_pruned = self._trial.should_prune()
        return goes_on and not self.is_pruned


def test_a_study_with_pruning(
    make: Callable[..., Any], make_env: Callable[..., VecMonitor]
) -> None:
    written: dict[int, int] = {}

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-9, 3e-2, log=True)
        model = make(learning_rate=rate, ent_coef=trial.suggest_float("ent_coef", 0.0, 0.01))
        report = Report(make_env(4), trial)
        model.learn(TOKENS, report)
        written[trial.number] = model.num_timesteps
        if report.is_pruned:
            raise optuna.TrialPruned
        return float(report.last_mean_reward)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=200),
        direction="maximize",
    )
    for rate in (1e-2, 1e-9):  # one that learns, and one that learns nothing
        study.enqueue_trial({"learning_rate": rate, "ent_coef": 0.0})
    study.optimize(objective, n_trials=4)
    learned, idle, *others = study.trials
    assert learned.value == pytest.approx(learned.intermediate_values[TOKENS])
    assert idle.state is optuna.trial.TrialState.PRUNED
    assert written[idle.number] < written[learned.number] == TOKENS
    assert all(trial.state.is_finished() for trial in others)
    assert study.best_value >= learned.value > max(idle.intermediate_values.values())
