"""Stable-Baselines3's callbacks in our algorithms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents import GRPO, TokenA2C, TokenPPO

MakeEnv = Callable[..., VecMonitor]
ALGORITHMS: dict[Any, dict[str, Any]] = {
    TokenPPO: {},
    TokenA2C: {"batch_size": None},
    GRPO: {"n_steps": None, "group_size": 4, "n_episodes": 8},
}


@pytest.fixture(params=ALGORITHMS, ids=lambda kind: kind.__name__)
def make_any(request: pytest.FixtureRequest, make: Callable[..., Any]) -> Callable[..., Any]:
    def made(**settings: Any) -> Any:
        return make(request.param, **{**ALGORITHMS[request.param], **settings})

    return made


def test_a_threshold_stops(make_any: Callable[..., Any], make_env: MakeEnv) -> None:
    enough = StopTrainingOnRewardThreshold(-1.0)
    look = EvalCallback(
        make_env(2), callback_on_new_best=enough, eval_freq=4, n_eval_episodes=2, verbose=0
    )
    model = make_any()
    model.learn(10_000, look)
    assert model.num_timesteps < 200


def test_no_improvement_stops(make_any: Callable[..., Any], make_env: MakeEnv) -> None:
    patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
    look = EvalCallback(
        make_env(2), callback_after_eval=patience, eval_freq=2, n_eval_episodes=2, verbose=0
    )
    model = make_any(learning_rate=0.0)
    model.learn(10_000, look)
    assert look.evaluations_timesteps == []  # kept only where there is a log_path
    assert model.num_timesteps < 300


def test_enough_episodes_stop(make_any: Callable[..., Any]) -> None:
    model = make_any()
    model.learn(10_000, StopTrainingOnMaxEpisodes(max_episodes=3))
    assert model.num_timesteps < 200


def test_checkpoints(make: Callable[..., Any], make_env: MakeEnv, tmp_path: Path) -> None:
    every = CheckpointCallback(4, str(tmp_path), save_vecnormalize=True)
    now_and_then = EveryNTimesteps(32, CheckpointCallback(1, str(tmp_path), name_prefix="other"))
    model = make(env=VecNormalize(make_env(), norm_obs=False))
    model.learn(64, [every, now_and_then, ConvertCallback(lambda *_: True)])
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"rl_model_{steps}_steps.zip" for steps in (16, 32, 48, 64)} <= names
    assert {"other_32_steps.zip", "other_64_steps.zip"} <= names
    assert "rl_model_vecnormalize_64_steps.pkl" in names
    loaded = TokenPPO.load(tmp_path / "rl_model_64_steps.zip", env=make_env())
    assert loaded.num_timesteps == 64
    loaded.learn(32, reset_num_timesteps=False)


@pytest.mark.filterwarnings("ignore:rich is experimental")  # what tqdm says of its own bar
def test_logs_and_a_bar(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    make().learn(64, LogEveryNTimesteps(16), progress_bar=True)
    assert "64/64" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["single", "native", "normalised"])
def test_evaluation(
    kind: str, make: Callable[..., Any], make_env: MakeEnv, kwargs: dict[str, Any]
) -> None:
    env: Any = make_env(2)
    if kind == "single":
        env = Monitor(gym.make("TextGen-v0", **kwargs))
    elif kind == "normalised":
        env = VecNormalize(env, norm_obs=False, training=False)
    returns, lengths = evaluate_policy(make(), env, 6, return_episode_rewards=True)
    assert len(returns) == 6
    assert np.isfinite(returns).all()
    assert set(lengths) <= set(range(1, 7))
