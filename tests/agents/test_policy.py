import copy
import json
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import textgym
from agents import MaskableTransformerPolicy, TransformerPolicy, make_sb3_vec_env
from agents.language_policy import VALUE_HEAD_FILE
from textgym.tokenizer import BUILTIN_DIRECTORY, Tokenizer

gym.register_envs(textgym)

LETTERS = [*"abcdefghij"]
CONTEXT = 7


@pytest.fixture
def env_kwargs(tiny_tokenizer_dir):
    return {
        "task": {"name": "target_token", "targets": LETTERS, "num_prompts": 10},
        "reward": "target_token",
        "tokenizer": tiny_tokenizer_dir,
        "max_new_tokens": CONTEXT - 1,
    }


@pytest.fixture
def make_env(env_kwargs):
    def make(n_envs=4, seed=0):
        return make_sb3_vec_env("TextGen-v0", n_envs, seed=seed, env_kwargs=env_kwargs)

    return make


@pytest.fixture
def make_ppo(make_env, make_llama):
    """A PPO of a tiny random model, whose head is wider than the tokenizer's 11 tokens."""

    def make(algorithm=PPO, policy=TransformerPolicy, env=None, model=None, **settings):
        settings = {"seed": 0, "n_steps": 8, "batch_size": 16, "n_epochs": 2, **settings}
        if algorithm is A2C:
            settings = {"seed": 0, "n_steps": 8}
        torch.manual_seed(0)
        model = make_llama(vocab_size=16) if model is None else model
        return algorithm(policy, env or make_env(), policy_kwargs={"model": model}, **settings)

    return make


@pytest.fixture
def observations(make_env):
    """Rows of different lengths."""
    env = make_env(n_envs=5)
    rows = [env.reset()]
    for step in range(4):
        rows.append(env.step(np.full(5, 1 + step))[0])
    return {key: np.concatenate([obs[key] for obs in rows]) for key in rows[0]}


@pytest.fixture
def model_dir(make_model, tiny_tokenizer_dir, tmp_path):
    """A model's directory as one is downloaded: weights, tokenizer, card."""
    directory = tmp_path / "source"
    shutil.copytree(tiny_tokenizer_dir, directory)
    make_model(vocab_size=16).save_pretrained(directory)
    (directory / "README.md").write_text("# A model\n")
    return str(directory)


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def shaken(policy):
    """Give the value head weights, so that it can be told from a fresh one."""
    with torch.no_grad():
        policy.value_net.weight.normal_()
        policy.value_net.bias.normal_()
    return policy


# What the policy computes


def test_the_actor_is_the_models_distribution_and_the_value_begins_at_zero(make_ppo, observations):
    policy = make_ppo().policy
    obs = obs_as_tensor(observations, "cpu")
    with torch.no_grad():
        probabilities = policy.get_distribution(obs).distribution.probs
        values = policy.predict_values(obs)
        for row, length in enumerate(obs["attention_mask"].sum(1).tolist()):
            logits = policy.backbone.model(obs["input_ids"][row : row + 1, :length]).logits
            expected = logits[0, -1, :11].softmax(-1)
            torch.testing.assert_close(probabilities[row], expected, atol=1e-5, rtol=0)
    assert torch.equal(values, torch.zeros(len(values), 1))


def test_every_path_gives_the_same_numbers(make_ppo, observations):
    policy = shaken(make_ppo().policy)
    obs = obs_as_tensor(observations, "cpu")
    actions, values, log_probs = policy(obs)
    again, log_probs_again, entropy = policy.evaluate_actions(obs, actions)
    distribution = policy.get_distribution(obs)
    torch.testing.assert_close(values, again)
    torch.testing.assert_close(values, policy.predict_values(obs))
    torch.testing.assert_close(log_probs, log_probs_again)
    torch.testing.assert_close(log_probs, distribution.log_prob(actions))
    torch.testing.assert_close(entropy, distribution.entropy())
    greedy, _ = policy.predict(observations, deterministic=True)
    assert greedy.tolist() == distribution.distribution.probs.argmax(1).tolist()


def test_a_single_observation_is_predicted_as_in_a_batch(make_ppo, observations):
    policy = make_ppo().policy
    batch, _ = policy.predict(observations, deterministic=True)
    for row in range(0, len(batch), 3):
        action, _ = policy.predict({k: v[row] for k, v in observations.items()}, deterministic=True)
        assert action.shape == ()
        assert action == batch[row]


def test_the_surplus_of_a_wide_head_is_never_written(make_ppo, observations):
    ppo = make_ppo()
    with torch.no_grad():  # all that the model wants to write is beyond the tokenizer
        ppo.policy.backbone.model.lm_head.weight[11:] *= 100
    obs = obs_as_tensor(observations, "cpu")
    distribution = ppo.policy.get_distribution(obs).distribution
    assert distribution.probs.shape == (25, 11)
    torch.testing.assert_close(distribution.probs.sum(1), torch.ones(25))
    sampled = torch.cat([ppo.policy(obs)[0] for _ in range(20)])
    predicted = [ppo.predict(observations, deterministic=flag)[0] for flag in (True, False)]
    assert sampled.max() < 11
    assert np.max(predicted) < 11
    ppo.learn(64)


def test_the_critic_trains_the_trunk_that_it_shares(make_ppo, observations):
    policy = shaken(make_ppo().policy)
    policy.predict_values(obs_as_tensor(observations, "cpu")).sum().backward()
    assert policy.value_net.weight.grad.norm() > 0
    assert policy.backbone.model.get_input_embeddings().weight.grad.norm() > 0


def test_no_parameter_is_trained_twice(make_ppo):
    policy = make_ppo().policy
    trained = [p for group in policy.optimizer.param_groups for p in group["params"]]
    model = list(policy.backbone.model.parameters())
    assert len(trained) == len({id(p) for p in trained}) == len(model) + 2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_ratio_is_one_before_the_first_step_of_an_update(make_ppo, family):
    torch.manual_seed(0)
    if family == "gpt2":
        sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
        dropout = {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=11, **sizes, **dropout))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "attention_dropout": 0.5}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=11, **sizes, **heads))
    ppo = make_ppo(model=model.train(), n_steps=16, batch_size=8)
    shaken(ppo.policy)
    ppo._setup_learn(64)
    callback = ppo._init_callback(None)
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, n_rollout_steps=16)
    ppo.policy.set_training_mode(True)
    for batch in ppo.rollout_buffer.get(8):
        values, log_probs, _ = ppo.policy.evaluate_actions(
            batch.observations, batch.actions.long().flatten()
        )
        ratio = (log_probs - batch.old_log_prob).exp()
        torch.testing.assert_close(ratio, torch.ones(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.flatten(), batch.old_values, atol=1e-5, rtol=1e-5)


# Where it runs


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_it_learns_on_a_vector_environment(make_ppo, algorithm):
    model = make_ppo(algorithm)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(64)
    assert any(not torch.equal(before[key], x) for key, x in model.policy.state_dict().items())
    assert len(model.ep_info_buffer) > 0


def test_it_learns_on_a_single_environment(make_ppo, env_kwargs):
    env = gym.make("TextGen-v0", **env_kwargs)
    ppo = make_ppo(env=env, batch_size=8).learn(32)
    observation, _ = env.reset(seed=0)
    action, _ = ppo.predict(observation)
    assert env.action_space.contains(int(action))


def test_the_builtin_model_is_known_by_name():
    env = make_sb3_vec_env("TextGen-v0", 2, seed=0, env_kwargs={"max_new_tokens": 2})
    ppo = PPO(TransformerPolicy, env, policy_kwargs={"model": "builtin"}, n_steps=4, batch_size=8)
    assert PPO(TransformerPolicy, env).policy.backbone.source == str(BUILTIN_DIRECTORY)
    ppo.learn(8)


def test_a_hub_id_is_found_in_the_local_cache(make_ppo, model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--letters"
    shutil.copytree(model_dir, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    policy = make_ppo(model="someone/letters").learn(32).policy
    policy.save_pretrained(tmp_path / "saved")
    assert same_weights(make_ppo(model=tmp_path / "saved").policy, policy)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("abc")["input_ids"] == [1, 2, 3]


def test_sb3s_own_tools_work(make_ppo, make_env, tmp_path):
    ppo = make_ppo()
    evaluation = EvalCallback(
        make_env(seed=1), best_model_save_path=str(tmp_path), eval_freq=8, verbose=0
    )
    checkpoints = CheckpointCallback(8, str(tmp_path), save_vecnormalize=True)
    ppo.learn(64, callback=[evaluation, checkpoints])
    mean, _ = evaluate_policy(ppo, make_env(seed=2), n_eval_episodes=8)
    assert 0 <= mean <= 1
    saved = {path.name for path in tmp_path.iterdir()}
    assert saved == {"best_model.zip", "rl_model_32_steps.zip", "rl_model_64_steps.zip"}
    checkpoint = PPO.load(tmp_path / "rl_model_64_steps.zip", env=make_env())
    assert checkpoint.num_timesteps == 64
    checkpoint.learn(32)


def test_evaluation_of_a_single_environment(make_ppo, env_kwargs):
    env = Monitor(gym.make("TextGen-v0", **env_kwargs))
    scores, lengths = evaluate_policy(make_ppo(), env, 3, return_episode_rewards=True)
    assert len(scores) == len(lengths) == 3


def test_rewards_can_be_normalised(make_ppo, make_env):
    make_ppo(env=VecNormalize(make_env(), norm_obs=False)).learn(64)


@pytest.mark.parametrize("keys", [None, ["attention_mask"]])
def test_normalised_observations_are_refused(make_ppo, make_env, keys):
    env = VecNormalize(make_env(), norm_obs=True, norm_obs_keys=keys)
    key = "attention_mask" if keys else "input_ids"
    with pytest.raises(ValueError, match=rf"{key} are not whole numbers.*norm_obs=False"):
        make_ppo(env=env).learn(64)


@pytest.mark.parametrize("filters", [{"top_k": 2}, {"top_p": 0.5}])
def test_a_mask_and_a_filter_do_not_go_together(filters):
    env = gym.make("TextGen-v0")
    with pytest.raises(ValueError, match="takes no top_k and no top_p"):
        MaskableTransformerPolicy(
            env.observation_space, env.action_space, lambda _: 0.0, model="builtin", **filters
        )


def test_masks_keep_special_tokens_out(make_llama):
    tokenizer = Tokenizer.from_pretrained("builtin")
    (pad,) = tokenizer.special_ids - {tokenizer.eos_token_id}
    env = make_sb3_vec_env("TextGen-v0", 8, seed=0, env_kwargs={"max_new_tokens": 4})
    model = make_llama(vocab_size=2048, tie_word_embeddings=False)
    ppo = MaskablePPO(
        MaskableTransformerPolicy,
        env,
        policy_kwargs={"model": model},
        n_steps=8,
        batch_size=64,
        n_epochs=1,
        seed=0,
    )
    wish = 1000 * torch.nn.functional.one_hot(torch.tensor(pad), 2048)
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + wish)
    ppo.learn(64)
    buffer = ppo.rollout_buffer
    assert not (buffer.actions == pad).any()
    assert not buffer.action_masks[..., pad].any()
    obs = env.reset()
    masks = np.stack(env.env_method("action_masks"))
    assert (ppo.predict(obs, deterministic=True)[0] == pad).all()
    assert not (ppo.predict(obs, deterministic=True, action_masks=masks)[0] == pad).any()


# What it refuses


def test_other_observation_spaces_are_refused(make_llama):
    with pytest.raises(ValueError, match=r"expected an observation space Dict.*Do not flatten"):
        TransformerPolicy(
            spaces.Box(0, 1, (7,)), spaces.Discrete(11), lambda _: 1e-3, model=make_llama()
        )


def test_other_action_spaces_and_exploration_are_refused(make_env, make_llama):
    space = make_env().observation_space
    with pytest.raises(ValueError, match="expected a Discrete action space"):
        TransformerPolicy(space, spaces.Box(-1, 1, (2,)), lambda _: 1e-3, model=make_llama())
    with pytest.raises(ValueError, match="use_sde is for continuous actions"):
        TransformerPolicy(
            space, spaces.Discrete(11), lambda _: 1e-3, model=make_llama(), use_sde=True
        )


def test_a_model_that_is_not_there_is_refused(make_env):
    with pytest.raises(FileNotFoundError, match="no model '/no/such/model'"):
        PPO(TransformerPolicy, make_env(), policy_kwargs={"model": "/no/such/model"})


# Saving and loading with SB3


@pytest.mark.parametrize("kind", ["module", "directory"])
@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_a_loaded_run_predicts_the_same_and_trains_on_the_same(
    make_ppo, make_env, make_model, tmp_path, observations, kind, algorithm
):
    model = make_model(vocab_size=16)
    if kind == "directory":
        model.save_pretrained(tmp_path / "model")
        model = str(tmp_path / "model")
    first = make_ppo(algorithm, model=model).learn(64)
    first.save(tmp_path / "run.zip")
    second = algorithm.load(tmp_path / "run.zip", env=make_env())

    obs = obs_as_tensor(observations, "cpu")
    assert same_weights(first.policy, second.policy)
    assert second.policy.value_net.weight.abs().sum() > 0
    assert torch.equal(first.policy.predict_values(obs), second.policy.predict_values(obs))
    for one, other in zip(
        *(m.policy.optimizer.state.values() for m in (first, second)), strict=True
    ):
        assert all(torch.equal(one[key], other[key]) for key in one)

    second._logger = first.logger
    second.rollout_buffer = copy.deepcopy(first.rollout_buffer)
    for run in (first, second):  # the same data, shuffled alike
        np.random.seed(0)
        run.train()
    assert same_weights(first.policy, second.policy)
    second.learn(64, reset_num_timesteps=False)
    assert second.num_timesteps == 128


def test_a_run_whose_model_is_gone(make_ppo, make_llama, tmp_path):
    make_llama(vocab_size=16).save_pretrained(tmp_path / "model")
    ppo = make_ppo(model=str(tmp_path / "model"))
    ppo.save(tmp_path / "run.zip")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=f"no model '{tmp_path}/model'"):
        PPO.load(tmp_path / "run.zip")
    moved = {"policy_kwargs": {"model": str(tmp_path / "moved")}}
    loaded = PPO.load(tmp_path / "run.zip", custom_objects=moved)
    assert same_weights(loaded.policy, ppo.policy)


def test_a_policy_alone_is_saved_and_loaded(make_ppo, tmp_path):
    policy = shaken(make_ppo().policy)
    policy.save(tmp_path / "policy.pt")
    assert same_weights(policy, TransformerPolicy.load(tmp_path / "policy.pt"))


# Saving as a Hugging Face model


def test_plain_transformers_reads_what_was_saved(make_ppo, model_dir, tmp_path, capfd):
    policy = make_ppo(model=model_dir).learn(64).policy
    capfd.readouterr()
    policy.save_pretrained(tmp_path / "saved")
    assert capfd.readouterr() == ("", "")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(model) is type(policy.backbone.model)
    assert same_weights(model, policy.backbone.model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer("abc")["input_ids"] == [1, 2, 3]
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}


def test_model_and_value_head_are_restored(make_ppo, model_dir, tmp_path):
    policy = shaken(make_ppo(model=model_dir).policy)
    policy.save_pretrained(tmp_path / "saved")
    restored = make_ppo(model=tmp_path / "saved").policy
    assert same_weights(policy, restored)
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert same_weights(policy, make_ppo(model=module).policy)
    fresh = make_ppo(model=model_dir).policy
    assert torch.equal(fresh.value_net.weight, torch.zeros(1, 32))


def test_a_value_head_that_lies_about_is_not_read(make_ppo, tmp_path, monkeypatch):
    make_ppo(model=None).policy.save_pretrained(tmp_path)
    (tmp_path / VALUE_HEAD_FILE).write_bytes(b"not of this model")
    monkeypatch.chdir(tmp_path)
    assert not make_ppo().policy.value_net.weight.any()


def test_the_environments_tokenizer_is_saved_along(make_ppo, make_env, make_llama, tmp_path):
    env = make_env()
    policy = make_ppo(env=env, model=make_llama(vocab_size=16)).policy
    policy.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / "tokenizer.json").exists()
    policy.save_pretrained(tmp_path / "with", env.get_attr("tokenizer")[0])
    saved = Tokenizer.from_pretrained(tmp_path / "with")
    assert saved.encode("abc") == [1, 2, 3]
    assert AutoTokenizer.from_pretrained(tmp_path / "with").eos_token_id == 0


def test_saving_again_replaces_weights_and_keeps_other_files(make_ppo, model_dir):
    directory = Path(model_dir)
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (directory / name).write_text("of an earlier, larger model")
    (directory / "runs").mkdir()
    policy = shaken(make_ppo(model=model_dir).policy)
    policy.save_pretrained(model_dir)
    assert {path.name for path in directory.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "runs",
        "tokenizer.json",
        "tokenizer_config.json",
        VALUE_HEAD_FILE,
    }
    assert same_weights(make_ppo(model=model_dir).policy, policy)


def test_a_failure_in_the_middle_leaves_what_was_saved(make_ppo, model_dir, monkeypatch):
    policy = shaken(make_ppo(model=model_dir).policy)
    policy.save_pretrained(model_dir)
    before = {path.name: path.read_bytes() for path in Path(model_dir).iterdir()}

    def fails(*_):
        raise OSError("no space left on device")

    shaken(policy)
    monkeypatch.setattr("agents.language_policy.save_file", fails)
    with pytest.raises(OSError, match="no space left"):
        policy.save_pretrained(model_dir)
    assert {path.name: path.read_bytes() for path in Path(model_dir).iterdir()} == before


def test_a_model_of_half_precision_is_trained_and_saved_in_single(make_ppo, model_dir, tmp_path):
    AutoModelForCausalLM.from_pretrained(model_dir).half().save_pretrained(tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    policy = make_ppo(model=tmp_path / "half").policy
    assert policy.backbone.model.dtype == torch.float32
    policy.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_low_rank_adapters_are_trained_alone(make_ppo, make_llama, tmp_path):
    peft = pytest.importorskip("peft")
    make_llama(vocab_size=16).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear"))
    before = copy.deepcopy(adapted.state_dict())
    policy = make_ppo(model=adapted).learn(64).policy
    changed = {key for key, x in adapted.state_dict().items() if not torch.equal(x, before[key])}
    assert changed == {key for key in before if "lora_B" in key or "lora_A" in key}
    policy.save_pretrained(tmp_path / "saved")
    restored = make_ppo(model=tmp_path / "saved").policy
    ids = torch.randint(1, 11, (3, 5))
    expected = adapted.eval()(ids).logits
    torch.testing.assert_close(restored.backbone.model(ids).logits, expected)
    assert torch.equal(restored.value_net.weight, policy.value_net.weight)
