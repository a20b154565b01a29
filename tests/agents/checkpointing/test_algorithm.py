"""Any algorithm that is saved, in whatever script, goes on as if it had never stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from agents import (
    RLOO,
    Reinforce,
    TokenA2C,
    TokenDQN,
    TokenPPO,
    TransformerPolicy,
    TransformerQPolicy,
    make_sb3_vec_env,
)
from agents.checkpointing import load_checkpoint, save_checkpoint
from agents.replay import TokenReplayBuffer
from agents.watching import EpisodeCollector
from agents.weights import trained_weights
from textgym.tasks import Example, Task
from textgym.tasks.streaming import ExampleStream

ALGORITHMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "TokenPPO": (
        TokenPPO,
        TransformerPolicy,
        {"n_steps": 6, "batch_size": 16, "kl_coef": 0.1, "target_kl_ref": 0.3},
    ),
    "TokenA2C": (TokenA2C, TransformerPolicy, {"n_steps": 6}),
    "Reinforce": (Reinforce, TransformerPolicy, {}),
    "RLOO": (RLOO, TransformerPolicy, {"group_size": 2, "kl_coef": 0.1}),
    "TokenDQN": (
        TokenDQN,
        TransformerQPolicy,
        {"learning_starts": 20, "buffer_size": 120, "batch_size": 32, "sequence_length": 4},
    ),
    "PPO": (PPO, TransformerPolicy, {"n_steps": 6, "batch_size": 12}),
    "A2C": (A2C, TransformerPolicy, {"n_steps": 6}),
    "DQN": (
        DQN,
        TransformerQPolicy,
        {
            "learning_starts": 20,
            "batch_size": 12,
            "buffer_size": 120,
            "replay_buffer_class": TokenReplayBuffer,
            "exploration_fraction": 0.5,
        },
    ),
}
TIMESTEPS = 240


class SaveAt(BaseCallback):
    """Saves once, after so many tokens."""

    def __init__(self, directory: Path, timesteps: int) -> None:
        super().__init__()
        self.directory, self.timesteps = directory, timesteps

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.timesteps and not self.directory.exists():
            save_checkpoint(self.model, self.directory)

    def _on_step(self) -> bool:
        return True


def make(name: str, model: str) -> Any:
    kind, policy, arguments = ALGORITHMS[name]
    env_kwargs = {"tokenizer": model, "max_new_tokens": 9, "budget_is_terminal": True}
    env = make_sb3_vec_env("TextGen-v0", 4, env_kwargs=env_kwargs)
    policy_kwargs = {"model": model}
    return kind(policy, env, 1e-3, policy_kwargs=policy_kwargs, seed=1, device="cpu", **arguments)


@pytest.fixture(scope="module")
def model(byte_tokenizer: Any, make_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    make_llama().save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_goes_on_as_if_it_had_never_stopped(name: str, model: str, tmp_path: Path) -> None:
    whole = make(name, model)
    whole.learn(TIMESTEPS, callback=SaveAt(tmp_path / "saved", TIMESTEPS // 2))
    other = make(name, model)
    load_checkpoint(other, tmp_path / "saved")
    assert TIMESTEPS // 2 <= other.num_timesteps < TIMESTEPS
    other.learn(TIMESTEPS - other.num_timesteps, reset_num_timesteps=False)
    assert other.num_timesteps == whole.num_timesteps
    weights, others = trained_weights(whole.policy), trained_weights(other.policy)
    for weight in weights:
        assert torch.equal(weights[weight], others[weight]), weight
    assert list(whole.ep_info_buffer)[-1]["r"] == list(other.ep_info_buffer)[-1]["r"]


def test_saving_changes_nothing(model: str, tmp_path: Path) -> None:
    saved = make("TokenPPO", model).learn(TIMESTEPS, callback=SaveAt(tmp_path / "saved", 0))
    plain = make("TokenPPO", model).learn(TIMESTEPS)
    weights, others = trained_weights(saved.policy), trained_weights(plain.policy)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_another_algorithm_and_another_network_are_refused(
    model: str, make_llama: Any, byte_tokenizer: Any, tmp_path: Path
) -> None:
    algorithm = make("TokenPPO", model)
    algorithm.learn(48)
    save_checkpoint(algorithm, tmp_path / "saved")
    with pytest.raises(ValueError, match=r"is a checkpoint of TokenPPO, and TokenA2C"):
        load_checkpoint(make("TokenA2C", model), tmp_path / "saved")
    make_llama(hidden_size=16).save_pretrained(tmp_path / "small")
    byte_tokenizer.save_pretrained(tmp_path / "small")
    other = make("TokenPPO", str(tmp_path / "small"))
    before = {name: weight.clone() for name, weight in trained_weights(other.policy).items()}
    with pytest.raises(ValueError, match="weights of another network"):
        load_checkpoint(other, tmp_path / "saved")
    after = trained_weights(other.policy)
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(other, tmp_path / "nothing")


def test_a_buffer_that_cannot_tell_what_it_holds_is_refused(model: str, tmp_path: Path) -> None:
    env_kwargs = {"tokenizer": model, "max_new_tokens": 9}
    env = make_sb3_vec_env("TextGen-v0", 2, env_kwargs=env_kwargs)
    algorithm = DQN(TransformerQPolicy, env, buffer_size=8, policy_kwargs={"model": model})
    algorithm.learn(8)
    with pytest.raises(TypeError, match=r"replay_buffer is a DictReplayBuffer.*TokenReplayBuffer"):
        save_checkpoint(algorithm, tmp_path / "saved")


def test_files_that_were_tampered_with_set_nothing_else(model: str, tmp_path: Path) -> None:
    algorithm = make("TokenPPO", model).learn(24)
    save_checkpoint(algorithm, tmp_path)
    path = tmp_path / "data.json"
    data = json.loads(path.read_text())
    data["counters"].update(n_epochs=7, hacked=1)
    data["processes"][0]["environment"]["wrappers"][0].update(venv=1)
    path.write_text(json.dumps(data))
    other = make("TokenPPO", model)
    load_checkpoint(other, tmp_path)
    assert other.n_epochs != 7
    assert not hasattr(other, "hacked")
    assert other.get_env().venv != 1
    del data["optimizer"]
    path.write_text(json.dumps(data))
    with pytest.raises(
        ValueError, match="lacks 'optimizer', which a checkpoint of this version has"
    ):
        load_checkpoint(other, tmp_path)
    weights = tmp_path / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(other, tmp_path)


def test_an_environment_that_cannot_tell_where_it_is_is_refused(model: str, tmp_path: Path) -> None:
    env_kwargs = {"tokenizer": model, "max_new_tokens": 9}
    single = make_vec_env("TextGen-v0", 2, env_kwargs=env_kwargs)
    native = make_sb3_vec_env("TextGen-v0", 2, env_kwargs=env_kwargs)
    for env, reason in [
        (single, "cannot say where it is.*make_sb3_vec_env"),
        (VecNormalize(native, norm_obs=False), "VecNormalize cannot say"),
    ]:
        algorithm = TokenPPO(TransformerPolicy, env, n_steps=4, policy_kwargs={"model": model})
        algorithm.learn(8)
        with pytest.raises(TypeError, match=reason):
            save_checkpoint(algorithm, tmp_path / "saved")
        assert not (tmp_path / "saved").exists()


def columns_of_tuples(generator: np.random.Generator) -> Any:
    for number in range(40):
        yield Example(f"The number {number} is", columns={"number": (number, "a tuple")})


def test_texts_that_cannot_be_written_down_begin_anew(model: str, tmp_path: Path) -> None:
    task = Task("tuples", {"train": ExampleStream(columns_of_tuples, 6)}, reward="length")
    env_kwargs = {"tokenizer": model, "max_new_tokens": 9, "task": task, "context_length": 40}

    def make_algorithm() -> TokenPPO:
        env = make_sb3_vec_env("TextGen-v0", 4, env_kwargs=env_kwargs)
        policy_kwargs = {"model": model}
        return TokenPPO(TransformerPolicy, env, n_steps=6, policy_kwargs=policy_kwargs, seed=1)

    collector = EpisodeCollector()
    algorithm = make_algorithm().learn(24, callback=collector)
    save_checkpoint(algorithm, tmp_path / "saved", {"collector": collector})
    other, others = make_algorithm(), EpisodeCollector()
    load_checkpoint(other, tmp_path / "saved", {"collector": others})
    assert other._last_episode_starts.all()
    other.learn(48, callback=others, reset_num_timesteps=False)
    assert all(info["l"] <= 9 for info in other.ep_info_buffer)
    for episode in others.episodes:
        assert len(episode.token_ids) <= 9
        assert sum(episode.rewards) == pytest.approx(episode.score, abs=1e-5)
