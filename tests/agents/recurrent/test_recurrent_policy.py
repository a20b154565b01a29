import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.utils import obs_as_tensor

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.models import load_model
from agents.recurrent import RecurrentForCausalLM, make_recurrent
from agents.recurrent_reader import RecurrentReader


@pytest.fixture
def make_env(tiny_tokenizer_dir):
    def make(n_envs=4, **env_kwargs):
        defaults = {
            "task": {"name": "target_token", "targets": [*"abcdefghij"], "num_prompts": 10},
            "reward": "target_token",
            "tokenizer": tiny_tokenizer_dir,
            "max_new_tokens": 6,
        }
        env_kwargs = {**defaults, **env_kwargs}
        return make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=env_kwargs)

    return make


@pytest.fixture
def make(make_env):
    def make(algorithm, backbone, env=None, **settings):
        if algorithm is not A2C:
            settings = {"batch_size": 16, **settings}
        settings = {"n_steps": 8, "seed": 0, **settings}
        policy_kwargs = {"backbone": backbone}
        return algorithm(
            TransformerPolicy, env or make_env(), policy_kwargs=policy_kwargs, **settings
        )

    return make


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def said(policy, observations):
    with torch.no_grad():
        obs = obs_as_tensor(observations, "cpu")
        return torch.cat(
            [
                policy.get_distribution(obs).distribution.logits.flatten(),
                policy.predict_values(obs).flatten(),
            ]
        )


def test_a_network_is_made_for_the_tokenizer(kind, make):
    model = make(PPO, kind).policy.backbone.model
    assert isinstance(model, RecurrentForCausalLM)
    assert (model.config.kind, model.config.vocab_size) == (kind, 11)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (256, 1)
    sized = make(PPO, {"name": kind, "width": 12, "layers": 2}).policy.backbone.model
    assert (sized.config.hidden_size, sized.config.num_hidden_layers) == (12, 2)


def test_the_same_seed_makes_the_same_network(make):
    first, second, other = (make(PPO, "gru", seed=seed).policy for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("algorithm", [A2C, PPO, TokenPPO])
def test_it_is_trained_saved_and_loaded(kind, algorithm, make, tmp_path):
    trained = make(algorithm, {"name": kind, "width": 12})
    before = weights(trained.policy)
    trained.learn(64)
    assert not torch.equal(weights(trained.policy), before)
    trained.save(tmp_path / "algorithm.zip")
    loaded = algorithm.load(tmp_path / "algorithm.zip")
    observations = trained.env.reset()
    expected = said(trained.policy, observations)
    assert torch.equal(said(loaded.policy, observations), expected)
    loaded.set_env(trained.env)
    loaded.learn(32)

    trained.policy.save(tmp_path / "policy.pt")
    alone = TransformerPolicy.load(tmp_path / "policy.pt")
    assert torch.equal(said(alone, observations), expected)


def test_what_is_saved_is_a_model_like_any_other(kind, make, make_env, tmp_path):
    trained = make(TokenPPO, {"name": kind, "width": 12, "layers": 2})
    trained.learn(64)
    trained.policy.save_pretrained(tmp_path)
    assert isinstance(load_model(tmp_path), RecurrentForCausalLM)
    env = make_env()
    again = PPO(TransformerPolicy, env, policy_kwargs={"model": str(tmp_path)})
    observations = env.reset()
    assert torch.equal(said(again.policy, observations), said(trained.policy, observations))


def test_rollouts_keep_its_state(kind, make):
    with_state = make(TokenPPO, kind)
    assert with_state.policy.reader_class is RecurrentReader


def test_a_backbone_and_a_model_are_one_too_many(make_env):
    env = make_env()
    for model in ("elsewhere", make_recurrent("rnn", 11)):
        with pytest.raises(ValueError, match=r"backbone='rnn' makes a model .* Give one of them"):
            PPO(TransformerPolicy, env, policy_kwargs={"backbone": "rnn", "model": model})


def test_an_unknown_backbone_is_refused(make):
    with pytest.raises(ValueError, match="got 'lsmt'; did you mean 'lstm'"):
        make(PPO, "lsmt")


def test_a_network_from_scratch_learns_how_long_a_text_is_wanted(kind, make, make_env):
    env = make_env(
        8,
        reward={"name": "length", "target": 4},
        max_new_tokens=16,
        budget_is_terminal=True,
    )
    learner = make(
        TokenPPO,
        {"name": kind, "width": 16},
        env,
        n_steps=32,
        batch_size=128,
        learning_rate=0.01,
    )
    rewards = []

    def note(local_variables, _):
        infos = local_variables["infos"]
        rewards.extend(info["episode"]["r"] for info in infos if "episode" in info)
        return True

    learner.learn(256 * 16, callback=note)
    assert np.mean(rewards[:50]) < 0.4
    assert np.mean(rewards[-100:]) > 0.7
