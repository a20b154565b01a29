"""Every algorithm as Stable-Baselines3 has them: saved, loaded, stopped, evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from agents import (
    GRPO,
    RLOO,
    Demonstrations,
    Reinforce,
    TokenA2C,
    TokenPPO,
    TransformerPolicy,
    make_sb3_vec_env,
)
from agents.schedules import Linear, Stages
from textgym.process import TextProcess

ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (TokenPPO, {"n_steps": 8, "batch_size": 32}),
    "ppo, whole texts": (TokenPPO, {"n_episodes": 12}),
    "a2c": (TokenA2C, {}),
    "reinforce": (Reinforce, {"n_episodes": 12}),
    "grpo": (GRPO, {"group_size": 4, "n_episodes": 12}),
    "rloo": (RLOO, {"group_size": 4, "n_episodes": 12, "credit": "sequence"}),
}
GRU = {"backbone": {"name": "gru", "width": 16}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_env(n_envs: int = 8, **given: Any) -> VecEnv:
    env_kwargs = {
        "reward": {"name": "length", "target": 6},
        "max_new_tokens": 8,
        "budget_is_terminal": True,
        **given,
    }
    return make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=env_kwargs)


@pytest.fixture(params=ALGORITHMS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes the algorithm in an environment, with some more settings."""
    kind, settings = ALGORITHMS[request.param]

    def made(env: VecEnv | None = None, policy_kwargs: Any = GRU, **more: Any) -> Any:
        env = env or make_env()
        settings_of = {**settings, "seed": 0, "kl_coef": 0.1, **more}
        return kind(TransformerPolicy, env, 1e-3, policy_kwargs=policy_kwargs, **settings_of)

    return made


class Watch(BaseCallback):
    """Notes the temperature of each rollout, and stops after some steps."""

    def __init__(self, steps: int = 10**9) -> None:
        super().__init__()
        self.left = steps
        self.temperatures: list[float] = []

    def _on_rollout_start(self) -> None:
        self.temperatures.append(self.model.policy.sampling.temperature)  # type: ignore[operator]

    def _on_step(self) -> bool:
        self.left -= 1
        return self.left > 0


def test_what_is_loaded_goes_on(make: Callable[..., Any], tmp_path: Path) -> None:
    model = make(temperature=Linear(1.5, 0.5), ent_coef=Stages(0.1, 0.0))
    model.learn(100)
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", env=make_env())
    assert loaded.policy.sampling == model.policy.sampling
    assert loaded.policy.sampling.temperature < 1.5
    for name, weights in model.policy.state_dict().items():
        torch.testing.assert_close(loaded.policy.state_dict()[name], weights)
    written, episodes = loaded.num_timesteps, loaded._episodes
    loaded.learn(50, reset_num_timesteps=False)
    assert loaded.num_timesteps >= written + 50
    assert loaded._episodes >= episodes > 0


def test_a_schedule_begins_anew_with_a_second_learn(make: Callable[..., Any]) -> None:
    model, first, second = make(temperature=Linear(1.5, 0.5)), Watch(), Watch()
    assert model.policy.sampling.temperature == 1.5
    model.learn(150, first)
    model.learn(150, second)
    assert first.temperatures == second.temperatures
    assert first.temperatures == sorted(first.temperatures, reverse=True)
    assert first.temperatures[0] == 1.5 > first.temperatures[-1] >= 0.5


def test_a_rate_never_falls_below_nothing(make: Callable[..., Any]) -> None:
    model = make()
    model.lr_schedule = lambda progress: progress * 1e-3
    model.learn(30)  # of which whole texts take more
    assert model._current_progress_remaining == 0
    assert model.policy.optimizer.param_groups[0]["lr"] >= 0


def test_a_callback_may_stop_it_at_any_time(make: Callable[..., Any]) -> None:
    model = make(target_kl_ref=2.0)
    model.learn(500, Watch(5))
    model.learn(100, reset_num_timesteps=False)
    assert np.isfinite(model.kl_coef)
    assert all(torch.isfinite(weights).all() for weights in model.policy.parameters())


def test_it_is_evaluated_as_ever(make: Callable[..., Any], tmp_path: Path) -> None:
    model = make()
    look = EvalCallback(
        make_env(2),
        eval_freq=6,
        n_eval_episodes=2,
        verbose=0,
        best_model_save_path=str(tmp_path),
    )
    model.learn(100, look)
    best = type(model).load(tmp_path / "best_model.zip")
    mean, _ = evaluate_policy(best, make_env(2), n_eval_episodes=2)
    assert np.isfinite(mean)


def test_texts_of_several_turns(make: Callable[..., Any]) -> None:
    env = make_sb3_vec_env("TextGen-v0", 8, seed=0, env_kwargs={"task": "game"})
    model = make(env)
    model.learn(200)
    buffer = model.rollout_buffer
    episodes = buffer.episodes.max() + 1
    assert len(buffer.segments) > episodes or model.episodes_wanted is None
    assert np.isfinite(buffer.advantages).all()


def test_an_adapter_in_half_the_bits(make: Callable[..., Any], tmp_path: Path) -> None:
    policy_kwargs = {"lora": {"r": 2}, "dtype": "bfloat16"}
    model = make(policy_kwargs=policy_kwargs, n_epochs=1, batch_size=None)
    model.learn(60)
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", env=make_env())
    loaded.learn(60, reset_num_timesteps=False)


def test_it_imitates_beside(make: Callable[..., Any], tmp_path: Path) -> None:
    env = make_env()
    process: TextProcess = env.get_attr("process")[0]
    texts = Demonstrations.of_documents(["To be."] * 4, process.tokenizer)
    model = make(env, sft_coef=0.5, sft_data=texts)
    model.learn(60)
    model.save(tmp_path / "model.zip")
    forgetful = type(model).load(tmp_path / "model.zip", env=make_env())
    with pytest.raises(ValueError, match="wants texts to imitate"):
        forgetful.learn(60)
    loaded = type(model).load(tmp_path / "model.zip", env=make_env(), sft_data=texts)
    loaded.learn(60)


@pytest.mark.parametrize("kind", [Reinforce, TokenA2C])
def test_one_step_is_all_that_a_rollout_is_good_for(kind: Any) -> None:
    for more in ({"n_epochs": 2}, {"batch_size": 8}):
        with pytest.raises(ValueError, match="takes one step a rollout"):
            kind(TransformerPolicy, make_env(), policy_kwargs=GRU, **more)


def test_groups_need_rows_that_share_prompts() -> None:
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("TextGen-v0", 4)
    model = GRPO(TransformerPolicy, env, group_size=4, policy_kwargs=GRU)
    with pytest.raises(ValueError, match="make_sb3_vec_env"):
        model.learn(10)
    with pytest.raises(ValueError, match="no whole groups of group_size=8"):
        GRPO(TransformerPolicy, make_env(12), policy_kwargs=GRU)
