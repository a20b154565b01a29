import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize
from transformers import AutoModelForCausalLM, AutoTokenizer

import textgym
from agents import TokenReplayBuffer, TransformerPolicy, TransformerQPolicy, make_sb3_vec_env
from agents.evaluation import evaluate
from agents.q_policy import LanguageQNetwork

gym.register_envs(textgym)

LEAST = torch.finfo(torch.float32).min
Q_SCALE = 0.5


@pytest.fixture
def make_env(text_kwargs):
    def make(n_envs=4, seed=0, **more):
        return make_sb3_vec_env("TextGen-v0", n_envs, seed=seed, env_kwargs={**text_kwargs, **more})

    return make


@pytest.fixture
def make_dqn(make_env, make_llama):
    """A stock DQN of a tiny random model, whose head is wider than the tokenizer's 11 tokens."""

    def make(env=None, model=None, policy=None, **settings):
        torch.manual_seed(0)
        kwargs = {"q_scale": Q_SCALE, **(policy or {})}
        return DQN(
            TransformerQPolicy,
            env or make_env(),
            policy_kwargs={"model": model or make_llama(vocab_size=16), **kwargs},
            **{"learning_starts": 16, "buffer_size": 200, "seed": 0, **settings},
        )

    return make


@pytest.fixture
def observations(make_env):
    """Rows of different lengths."""
    env = make_env(n_envs=5)
    rows = [env.reset()]
    for step in range(4):
        rows.append(env.step(np.full(5, 1 + step))[0])
    return {key: np.concatenate([obs[key] for obs in rows]) for key in rows[0]}


def shaken(policy):
    """Give the value head weights, and the target network others than the trained one's."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.value_head.parameters():
            parameter.normal_()
        for parameter in policy.q_net.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return policy


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# What the policy computes


def test_q_is_the_value_and_the_scaled_log_probability(make_dqn, observations):
    policy = shaken(make_dqn().policy)
    obs = obs_as_tensor(observations, "cpu")
    with torch.no_grad():
        q_values = policy.q_net(obs)
        for row, length in enumerate(obs["attention_mask"].sum(1).tolist()):
            ids = obs["input_ids"][row : row + 1, :length]
            output = policy.backbone.model(ids, output_hidden_states=True)
            value = policy.value_head(output.hidden_states[-1][0, -1])
            expected = value + Q_SCALE * output.logits[0, -1, :11].log_softmax(-1)
            torch.testing.assert_close(q_values[row], expected, atol=1e-5, rtol=1e-5)
            soft = Q_SCALE * (q_values[row] / Q_SCALE).logsumexp(0)
            torch.testing.assert_close(soft, value[0], atol=1e-5, rtol=1e-5)


def test_training_begins_with_the_model_as_it_is(make_dqn, observations):
    policy = make_dqn().policy
    with torch.no_grad():
        q_values = policy.q_net(obs_as_tensor(observations, "cpu"))
    assert (q_values < 0).all()
    torch.testing.assert_close((q_values / Q_SCALE).exp().sum(1), torch.ones(25))
    for net in (policy.q_net, policy.q_net_target):
        assert same_weights(net, policy.q_net)


def test_texts_are_read_as_their_beginnings(make_dqn, observations):
    policy = shaken(make_dqn().policy)
    obs = obs_as_tensor(observations, "cpu")
    lengths = obs["attention_mask"].sum(1)
    read = []
    for length in range(1, int(lengths.max()) + 1):
        texts = (lengths >= length).nonzero()[:, 0]
        places = torch.stack([texts, torch.full_like(texts, length - 1)])
        got = policy.q_net.read(obs["input_ids"], places)
        read.append((texts, length, got))
    whole = policy.q_net(obs)
    for texts, length, got in read:
        at_end = lengths[texts] == length
        torch.testing.assert_close(got[at_end], whole[texts[at_end]], atol=1e-5, rtol=1e-5)


def test_drawing_is_greedy_and_values_are_the_highest(make_dqn, observations):
    policy = shaken(make_dqn().policy)
    obs = obs_as_tensor(observations, "cpu")
    with torch.no_grad():
        seen = policy.q_net.extract_features(obs, policy.q_net.features_extractor)
        q_values = policy.q_net(obs)
        logits, values = policy.next_logits(seen), policy.state_values(seen)
    highest, tokens = q_values.max(1)
    assert torch.equal(logits.softmax(-1), torch.nn.functional.one_hot(tokens, 11).float())
    torch.testing.assert_close(values, highest)
    torch.testing.assert_close(policy.predict_values(obs)[:, 0], highest)
    for deterministic in (True, False):
        predicted, _ = policy.predict(observations, deterministic=deterministic)
        assert predicted.tolist() == tokens.tolist()
    one, _ = policy.predict({key: array[3] for key, array in observations.items()})
    assert one.shape == ()
    assert one == tokens[3]


def test_only_allowed_tokens_are_of_worth(make_dqn, make_env, observations):
    env = make_env(vocabulary=["b", "d", "g"])
    dqn = make_dqn(env)
    policy, obs, allowed = shaken(dqn.policy), obs_as_tensor(observations, "cpu"), [0, 2, 4, 7]
    with torch.no_grad():
        q_values = policy.q_net(obs)
    others = np.setdiff1d(np.arange(11), allowed)
    assert (q_values[:, others] == LEAST).all()
    soft = Q_SCALE * (q_values[:, allowed] / Q_SCALE).logsumexp(1)
    seen = policy.q_net.extract_features(obs, policy.q_net.features_extractor)
    torch.testing.assert_close(soft, policy.value_head(seen.hidden)[:, 0])
    dqn.learn(120)
    assert np.isin(dqn.replay_buffer.actions[: dqn.replay_buffer.pos], allowed).all()
    assert all(torch.isfinite(p).all() for p in policy.parameters())


# Training


def test_the_target_follows_and_is_not_trained(make_dqn):
    dqn = make_dqn(tau=0.25, target_update_interval=40, train_freq=1)
    before = copy.deepcopy(dqn.policy.q_net_target)
    trained = {id(p) for group in dqn.policy.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in dqn.policy.q_net.parameters()}
    assert not any(p.requires_grad for p in dqn.policy.q_net_target.parameters())
    dqn.learn(36)
    assert same_weights(dqn.policy.q_net_target, before)
    assert not same_weights(dqn.policy.q_net, before)
    after = copy.deepcopy(dqn.policy.q_net)
    dqn.learn(4, reset_num_timesteps=False)
    for target, old, new in zip(
        dqn.policy.q_net_target.parameters(), before.parameters(), after.parameters(), strict=True
    ):
        torch.testing.assert_close(target, 0.75 * old + 0.25 * new)


def test_a_model_that_is_given_is_trained_in_place(make_dqn, make_llama):
    model = make_llama(vocab_size=16)
    policy = make_dqn(model=model).policy
    assert policy.backbone.model is model
    assert policy.q_net_target.backbone.model is not model
    assert policy.q_net_target.backbone.head is policy.q_net_target.backbone.model.lm_head


def test_layers_of_the_target_are_its_own_where_they_compute_again(make_dqn, observations):
    policy = make_dqn(policy={"gradient_checkpointing": True}).policy
    obs = obs_as_tensor(observations, "cpu")
    before = policy.q_net_target(obs)
    shaken(policy)
    assert torch.equal(policy.q_net_target(obs), before)
    assert not torch.equal(policy.q_net(obs), before)


@pytest.mark.parametrize("buffer_class", [TokenReplayBuffer, None])
def test_stock_dqn_learns_and_sb3s_tools_work(make_dqn, make_env, tmp_path, buffer_class):
    dqn = make_dqn(replay_buffer_class=buffer_class)
    evaluation = EvalCallback(make_env(seed=1), best_model_save_path=str(tmp_path), eval_freq=10)
    before = copy.deepcopy(dqn.policy.q_net)
    dqn.learn(80, callback=evaluation)
    assert not same_weights(dqn.policy.q_net, before)
    mean, _ = evaluate_policy(dqn, make_env(seed=2), n_eval_episodes=8)
    assert np.isfinite(mean)
    assert (tmp_path / "best_model.zip").is_file()


def test_a_single_environment_and_normalised_rewards(make_dqn, make_env, text_kwargs):
    env = Monitor(gym.make("TextGen-v0", **text_kwargs))
    dqn = make_dqn(env, replay_buffer_class=TokenReplayBuffer).learn(40)
    scores, _ = evaluate_policy(dqn, env, 3, return_episode_rewards=True)
    assert len(scores) == 3
    normalised = VecNormalize(make_env(), norm_obs=False)
    make_dqn(normalised, replay_buffer_class=TokenReplayBuffer).learn(40)
    with pytest.raises(ValueError, match=r"are not whole numbers.*norm_obs=False"):
        make_dqn(VecNormalize(make_env())).learn(40)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_an_adapter_is_trained_alone(make_dqn):
    pytest.importorskip("peft")
    policy = make_dqn(policy={"lora": {"target_modules": "all-linear"}}).policy
    before = copy.deepcopy(policy.q_net.state_dict())
    assert same_weights(policy.q_net, policy.q_net_target)
    dqn = make_dqn(policy={"lora": {"target_modules": "all-linear"}}, target_update_interval=8)
    dqn.learn(80)
    for net in (dqn.policy.q_net, dqn.policy.q_net_target):
        changed = {key for key, x in net.state_dict().items() if not torch.equal(x, before[key])}
        assert any("lora_B" in key for key in changed)
        assert all("lora_" in key or "value_net" in key for key in changed)


# Saving and loading


@pytest.mark.parametrize("kind", ["module", "directory"])
def test_a_loaded_run_predicts_the_same_and_goes_on(
    make_dqn, make_env, make_model, tmp_path, observations, kind
):
    model = make_model(vocab_size=16)
    if kind == "directory":
        model.save_pretrained(tmp_path / "model")
        model = str(tmp_path / "model")
    first = make_dqn(model=model, tau=0.5, target_update_interval=20).learn(80)
    first.save(tmp_path / "run.zip")
    second = DQN.load(tmp_path / "run.zip", env=make_env())
    assert same_weights(first.policy, second.policy)
    assert not same_weights(second.policy.q_net, second.policy.q_net_target)
    assert second.policy.value_head.weight.any()
    same = (run.predict(observations, deterministic=True)[0].tolist() for run in (first, second))
    assert next(same) == next(same)
    second.learn(40, reset_num_timesteps=False)
    third = make_dqn()
    if kind == "module" and "Llama" in type(model).__name__:
        third.set_parameters(tmp_path / "run.zip")
        assert same_weights(third.policy, first.policy)


def test_policy_and_network_alone_are_saved_and_loaded(make_dqn, tmp_path, observations):
    policy = shaken(make_dqn(policy={"q_scale": 0.3}).policy)
    policy.save(tmp_path / "policy.pt")
    loaded = TransformerQPolicy.load(tmp_path / "policy.pt")
    assert same_weights(policy, loaded)
    policy.q_net.save(tmp_path / "network.pt")
    network = LanguageQNetwork.load(tmp_path / "network.pt")
    obs = obs_as_tensor(observations, "cpu")
    for other in (loaded.q_net, network):
        assert torch.equal(policy.q_net(obs), other(obs))


def test_the_saved_model_generates_what_the_policy_writes(
    make_dqn, text_kwargs, tmp_path, make_model
):
    env_kwargs = {**text_kwargs, "max_new_tokens": 12}
    env = make_sb3_vec_env("TextGen-v0", 4, seed=0, env_kwargs=env_kwargs)
    policy = shaken(make_dqn(env, make_model(vocab_size=11)).learn(80).policy)
    prompts = [{"prompt_index": index} for index in range(5)]
    episodes = [
        evaluate(policy, env_kwargs, prompts, seed=seed, deterministic=deterministic)
        for seed, deterministic in ((0, True), (1, False))
    ]
    assert [e.text for e in episodes[0]] == [e.text for e in episodes[1]]
    policy.save_pretrained(tmp_path / "saved", env.get_attr("tokenizer")[0])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for episode in episodes[0]:
        ids = tokenizer(episode.prompt, return_tensors="pt")
        length = ids["input_ids"].shape[1]
        output = model.generate(**ids, do_sample=False, max_new_tokens=12, pad_token_id=0)
        text = tokenizer.decode(output[0, length:], skip_special_tokens=True)
        assert text == episode.text
    assert len({episode.text for episode in episodes[0]}) > 1
    actor_critic = TransformerPolicy(
        env.observation_space, env.action_space, lambda _: 0.0, model=str(tmp_path / "saved")
    )
    assert torch.equal(actor_critic.value_net.weight, policy.value_head.weight)


# What it refuses


def test_what_makes_no_sense_is_refused(make_env, make_llama):
    space, schedule = make_env().observation_space, lambda _: 1e-3
    with pytest.raises(ValueError, match="expected a Discrete action space"):
        TransformerQPolicy(space, spaces.Box(-1, 1, (2,)), schedule, model=make_llama())
    with pytest.raises(ValueError, match="q_scale must be above 0, got 0"):
        TransformerQPolicy(space, spaces.Discrete(11), schedule, model=make_llama(), q_scale=0)
    with pytest.raises(ValueError, match=r"expected an observation space Dict.*Do not flatten"):
        TransformerQPolicy(
            spaces.Box(0, 1, (7,)), spaces.Discrete(11), schedule, model=make_llama()
        )
