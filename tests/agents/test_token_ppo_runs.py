"""TokenPPO is an algorithm of SB3's: what works with those works with it."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger

import textgym
from agents import MaskableTransformerPolicy, TokenPPO, TransformerPolicy, make_sb3_vec_env

gym.register_envs(textgym)

ROLLOUT = 64  # tokens, of `make_token_ppo`


class Tables(KVWriter):
    """Keeps all that is logged, a dict for each table."""

    def __init__(self):
        self.tables = []

    def write(self, key_values, key_excluded, step=0):
        self.tables.append(dict(key_values))

    def close(self):
        pass


class Notes(BaseCallback):
    """Keeps what SB3's callbacks can see of each step, and the buffer of each rollout."""

    def __init__(self):
        super().__init__()
        self.steps, self.rollouts = [], []

    def _on_step(self):
        self.steps.append({k: self.locals[k].copy() for k in ("rewards", "dones", "actions")})
        assert len(self.locals["infos"]) == len(self.locals["dones"])
        assert set(self.locals["new_obs"]) == {"input_ids", "attention_mask"}
        return True

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        names = ("rewards", "values", "returns", "log_probs", "ref_log_probs", "actions")
        self.rollouts.append({name: getattr(buffer, name).copy() for name in names})


class Spying(TokenPPO):
    """Keeps what a loss was given in the last update, a list for each mini-batch."""

    def train(self):
        self.of_batches = []
        super().train()

    def _gradients(self, segments):
        self.of_batches.append([])
        return super()._gradients(segments)

    def _policy_loss(self, tokens):
        self.of_batches[-1].append(tokens)
        return super()._policy_loss(tokens)


def column(batches, name):
    tensors = [getattr(tokens, name).detach() for tokens in batches]
    return torch.cat(tensors).double().numpy()


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# What is logged


def episodes_of(steps, numbers):
    """Sums over the episodes that ended in each rollout, computed plainly."""
    running, sums = np.zeros(4), []
    for begin in range(0, len(steps), 16):
        ended = []
        for step in range(begin, begin + 16):
            running += numbers[step]
            for row in steps[step]["dones"].nonzero()[0]:
                ended.append(running[row])
                running[row] = 0
        sums.append(ended)
    return sums


def test_the_log_says_what_happened(make_token_ppo):
    ours = make_token_ppo(
        Spying,
        kl_coef=0.2,
        target_kl_ref=1.0,
        clip_range_vf=0.01,
        ent_coef=0.1,
        batch_size=20,
        n_epochs=2,
        learning_rate=1e-3,
        micro_batch_tokens=30,
    )
    tables, notes = Tables(), Notes()
    ours.set_logger(Logger(folder=None, output_formats=[tables]))
    ours.learn(3 * ROLLOUT, callback=notes, log_interval=1)
    assert len(tables.tables) == len(notes.rollouts) == 3

    def over_all(name):
        return np.concatenate([rollout[name] for rollout in notes.rollouts])

    paid = np.stack([step["rewards"] for step in notes.steps])
    kl = over_all("log_probs") - over_all("ref_log_probs")
    coefs = np.repeat([table["objective/kl_coef"] for table in tables.tables], 16)[:, None]
    expected = {
        "objective/scores": paid,
        "objective/entropy": -over_all("log_probs"),
        "objective/kl": kl,
        "objective/non_score_reward": -coefs * kl,
        "objective/rlhf_reward": paid - coefs * kl,
        "completions/mean_length": np.ones_like(paid),
    }
    for key, numbers in expected.items():
        for table, ended in zip(tables.tables, episodes_of(notes.steps, numbers), strict=True):
            assert table[key] == pytest.approx(np.mean(ended), abs=1e-5), key
    lengths = episodes_of(notes.steps, np.ones_like(paid))
    episodes = 0
    for table, ended in zip(tables.tables, lengths, strict=True):
        episodes += len(ended)
        assert table["episode"] == episodes
        assert table["completions/min_length"] == min(ended)
        assert table["completions/max_length"] == max(ended)
        assert table["time/rollout_tokens_per_second"] > 0
    assert len({table["objective/kl_coef"] for table in tables.tables}) == 3
    last = tables.tables[-1]
    assert last["rollout/ep_rew_mean"] == pytest.approx(
        np.mean([*np.concatenate(episodes_of(notes.steps, paid))]), abs=1e-5
    )

    # The last update is yet to be written.
    logged = ours.logger.name_to_value
    every = [tokens for batch in ours.of_batches for tokens in batch]
    last_pass = [t for batch in ours.of_batches[len(ours.of_batches) // 2 :] for t in batch]
    log_ratio = column(every, "log_ratio")
    ratio = np.exp(log_ratio)
    advantages = column(every, "advantages")
    clipped = np.clip(ratio, 0.8, 1.2)
    moved = column(every, "values") - column(every, "old_values")
    value_error = (
        column(every, "returns") - column(every, "old_values") - np.clip(moved, -0.01, 0.01)
    )
    of_last = column(last_pass, "log_ratio")
    rollout = notes.rollouts[-1]
    residual = rollout["returns"] - rollout["values"]
    hand = {
        "policy/clipfrac_avg": np.mean(np.abs(ratio - 1) > 0.2),
        "train/clip_fraction": np.mean(np.abs(ratio - 1) > 0.2),
        "val/clipfrac_avg": np.mean(np.abs(moved) > 0.01),
        "policy/approxkl_avg": np.mean(ratio - 1 - log_ratio),
        "train/approx_kl": np.mean(np.exp(of_last) - 1 - of_last),
        "val/ratio": ratio.mean(),
        "val/ratio_var": ratio.var(),
        "policy/entropy_avg": column(every, "entropies").mean(),
        "train/entropy_loss": -column(every, "entropies").mean(),
        "train/policy_gradient_loss": -np.minimum(ratio * advantages, clipped * advantages).mean(),
        "loss/policy_avg": -np.minimum(ratio * advantages, clipped * advantages).mean(),
        "train/value_loss": np.mean(value_error**2),
        "loss/value_avg": np.mean(value_error**2),
        "train/explained_variance": 1 - residual.var() / rollout["returns"].var(),
        "train/n_updates": 6,
        "train/clip_range": 0.2,
        "train/clip_range_vf": 0.01,
        "lr": 1e-3,
        "train/learning_rate": 1e-3,
    }
    for key, number in hand.items():
        assert logged[key] == pytest.approx(number, abs=1e-5, rel=1e-4), key
    assert logged["val/clipfrac_avg"] > 0
    assert logged["time/update_tokens_per_second"] > 0
    assert len(log_ratio) == 2 * ROLLOUT


def test_episodes_that_were_left_are_not_counted(make_token_ppo, text_kwargs):
    """A new `learn` begins new episodes: what was paid before has nothing to do with them."""
    text_kwargs["reward"] = {"name": "length", "weight": 6}  # a token is paid 1, the last may be 0
    tables = Tables()
    ours = make_token_ppo(n_steps=3)
    ours.set_logger(Logger(folder=None, output_formats=[tables]))
    for _ in range(6):
        ours.learn(24, log_interval=1)  # 6 tokens in each row, of which some are left unfinished
    for table in tables.tables:
        if "objective/scores" in table:
            assert table["completions/max_length"] <= 6
            assert table["objective/scores"] <= table["completions/mean_length"] + 1e-5
    assert sum("objective/scores" in table for table in tables.tables) > 6


@pytest.mark.parametrize("stop", [4, 4 * 5, ROLLOUT + 4 * 9])
def test_a_run_that_was_stopped_is_logged_rightly_when_it_goes_on(make_token_ppo, stop):
    """By the Monitor, which saw the steps of the rollout that was given up."""

    class Monitored(BaseCallback):
        def _on_training_start(self):
            self.rollouts = []

        def _on_rollout_start(self):
            self.rollouts.append([])

        def _on_step(self):
            infos = self.locals["infos"]
            self.rollouts[-1] += [info["episode"] for info in infos if "episode" in info]
            return True

    ours = make_token_ppo()
    ours.learn(10 * ROLLOUT, callback=StopAt(stop))
    assert ours.num_timesteps == stop
    tables, monitored = Tables(), Monitored()
    ours.set_logger(Logger(folder=None, output_formats=[tables]))
    ours.learn(3 * ROLLOUT, callback=monitored, log_interval=1, reset_num_timesteps=False)
    assert len(tables.tables) == len(monitored.rollouts) == 3
    for table, episodes in zip(tables.tables, monitored.rollouts, strict=True):
        assert table["completions/mean_length"] == np.mean([e["l"] for e in episodes])
        mean_score = np.mean([e["r"] for e in episodes])
        assert table["objective/scores"] == pytest.approx(mean_score, abs=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_its_tensorboard_directory_has_its_name(make_token_ppo, tmp_path):
    pytest.importorskip("tensorboard")
    directory = tmp_path / "curves"
    ours = make_token_ppo(tensorboard_log=str(directory))
    ours.learn(ROLLOUT)
    ours.learn(ROLLOUT)
    ours.learn(ROLLOUT, tb_log_name="other")
    ours.logger.close()
    assert {path.name for path in directory.iterdir()} == {"TokenPPO_1", "TokenPPO_2", "other_1"}


# Saving and loading


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_k": 5}])
def test_a_run_is_saved_and_goes_on(make_token_ppo, tmp_path, sampling):
    ours = make_token_ppo(
        policy=sampling,
        kl_coef=0.2,
        target_kl_ref=0.5,
        learning_rate=1e-3,
        clip_range=lambda left: 0.1 + 0.1 * left,
        micro_batch_tokens=50,
    )
    ours.learn(2 * ROLLOUT)
    ours.save(tmp_path / "run.zip")
    loaded = TokenPPO.load(tmp_path / "run.zip", env=ours.get_env())
    assert same_weights(loaded.policy, ours.policy)
    assert same_weights(loaded.reference, ours.reference)
    assert not same_weights(loaded.reference.backbone, loaded.policy.backbone)
    assert loaded.kl_coef == ours.kl_coef != 0.2
    assert loaded.policy.sampling == ours.policy.sampling
    assert loaded.clip_range(0.5) == pytest.approx(0.15)
    assert (loaded.target_kl_ref, loaded.micro_batch_tokens) == (0.5, 50)
    moments = [model.policy.optimizer.state_dict()["state"] for model in (ours, loaded)]
    for index, state in moments[0].items():
        for key, value in state.items():
            assert torch.equal(moments[1][index][key], value)
    runs = []
    for model in (ours, loaded):  # from here on both do the same
        model.set_random_seed(1)
        model._last_obs = None
        model.learn(2 * ROLLOUT, reset_num_timesteps=False)
        runs.append(model)
    assert same_weights(*(run.policy for run in runs))
    assert loaded.num_timesteps == ours.num_timesteps == 4 * ROLLOUT


def test_another_coefficient_is_taken(make_token_ppo, collect, tmp_path):
    ours = make_token_ppo(kl_coef=0.1)
    ours.learn(ROLLOUT)
    ours.save(tmp_path / "run.zip")
    loaded = TokenPPO.load(tmp_path / "run.zip", env=ours.get_env(), kl_coef=0.3)
    assert same_weights(loaded.reference, ours.reference)
    collect(loaded)
    assert loaded.logger.name_to_value["objective/kl_coef"] == loaded.kl_coef == 0.3


@pytest.mark.parametrize(("saved", "given"), [(0.0, 0.1), (0.1, 0.0)])
def test_a_reference_does_not_come_or_go(make_token_ppo, tmp_path, saved, given):
    ours = make_token_ppo(kl_coef=saved)
    ours.save(tmp_path / "run.zip")
    with pytest.raises(ValueError, match="kl_coef"):
        TokenPPO.load(tmp_path / "run.zip", env=ours.get_env(), kl_coef=given)


def test_weights_alone_are_loaded(make_token_ppo, tmp_path):
    ours, other = make_token_ppo(kl_coef=0.1, learning_rate=1e-3), make_token_ppo(kl_coef=0.1)
    ours.learn(ROLLOUT)
    ours.save(tmp_path / "run.zip")
    other.set_parameters(tmp_path / "run.zip")
    assert same_weights(ours.policy, other.policy)


def test_stock_ppo_reads_what_was_trained(make_token_ppo, tmp_path):
    ours = make_token_ppo(learning_rate=1e-3)
    ours.learn(ROLLOUT)
    ours.policy.save(tmp_path / "policy.zip")
    assert same_weights(TransformerPolicy.load(tmp_path / "policy.zip"), ours.policy)
    stock = make_token_ppo(PPO)
    stock.policy.load_state_dict(ours.policy.state_dict())
    observations = ours.get_env().reset()
    one, other = (model.predict(observations, deterministic=True)[0] for model in (ours, stock))
    assert one.tolist() == other.tolist()


def test_a_loaded_run_takes_another_number_of_rows(make_token_ppo, text_kwargs, tmp_path):
    ours = make_token_ppo(kl_coef=0.1)
    ours.learn(ROLLOUT)
    ours.save(tmp_path / "run.zip")
    for n_envs in (1, 7):
        env = make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=text_kwargs)
        loaded = TokenPPO.load(tmp_path / "run.zip", env=env)
        loaded.learn(2 * 16 * n_envs)
        assert loaded.rollout_buffer.rewards.shape == (16, n_envs)
        assert loaded.num_timesteps == 2 * 16 * n_envs


def test_another_environment_takes_the_place_of_the_first(make_token_ppo, text_kwargs):
    ours = make_token_ppo()
    ours.learn(ROLLOUT)
    ours.set_env(make_sb3_vec_env("TextGen-v0", 4, seed=9, env_kwargs=text_kwargs))
    ours.learn(ROLLOUT, reset_num_timesteps=False)
    with pytest.raises(AssertionError, match="number of environments"):
        ours.set_env(make_sb3_vec_env("TextGen-v0", 3, env_kwargs=text_kwargs))


@pytest.mark.parametrize("kl_coef", [0.0, 0.2])
def test_another_policy_writes_and_learns(make_token_ppo, shake, kl_coef):
    ours, other = (make_token_ppo(learning_rate=0.0, kl_coef=kl_coef) for _ in range(2))
    ours.learn(ROLLOUT)
    ours.policy = shake(other.policy)
    ours.learn(ROLLOUT, reset_num_timesteps=False)
    buffer = ours.rollout_buffer
    (batch,) = buffer.sequence_batches(buffer.segments, 10**6)
    with torch.no_grad():
        values, log_probs, _ = other.policy.evaluate_sequences(batch)
    for got, expected in ((buffer.values, values), (buffer.log_probs, log_probs)):
        got = got.reshape(-1)[batch.places]
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
    assert np.abs(buffer.values).max() > 0.1


# Its life


def test_a_single_environment_will_do(text_kwargs, make_model):
    env = gym.make("TextGen-v0", **text_kwargs)
    policy_kwargs = {"model": make_model(vocab_size=11)}
    ours = TokenPPO(TransformerPolicy, env, n_steps=20, policy_kwargs=policy_kwargs).learn(40)
    assert ours.num_timesteps == 40
    assert len(ours.ep_info_buffer) > 2
    by_id = TokenPPO(TransformerPolicy, "TextGen-v0", n_steps=2)
    assert by_id.policy.backbone.num_tokens == 2048


def test_the_same_seed_gives_the_same_run(make_token_ppo):
    runs = []
    for seed in (3, 3, 4):
        run = make_token_ppo(seed=seed, learning_rate=1e-3, batch_size=16)
        runs.append(run.learn(2 * ROLLOUT))
    assert same_weights(runs[0].policy, runs[1].policy)
    assert not same_weights(runs[0].policy, runs[2].policy)


class StopAt(BaseCallback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        return self.num_timesteps < self.step


def test_a_callback_stops_training(make_token_ppo):
    ours = make_token_ppo(learning_rate=1e-3)
    before = ours.policy.value_net.weight.clone()
    ours.learn(10 * ROLLOUT, callback=StopAt(ROLLOUT - 8))
    assert ours.num_timesteps == ROLLOUT - 8
    assert torch.equal(before, ours.policy.value_net.weight)
    ours.learn(2 * ROLLOUT, reset_num_timesteps=False)  # and it can be taken up again
    assert not torch.equal(before, ours.policy.value_net.weight)


def test_sb3s_own_callbacks_work(make_token_ppo, text_kwargs, tmp_path):
    env = make_sb3_vec_env("TextGen-v0", 2, seed=5, env_kwargs=text_kwargs)
    evaluation = EvalCallback(env, best_model_save_path=str(tmp_path), eval_freq=8, verbose=0)
    callbacks = [evaluation, CheckpointCallback(16, str(tmp_path)), StopTrainingOnMaxEpisodes(15)]
    ours = make_token_ppo()
    ours.learn(100 * ROLLOUT, callback=callbacks)
    assert 60 < ours.num_timesteps < 60 * 6 + 4  # 15 episodes for each row, as SB3 counts them
    assert (tmp_path / "best_model.zip").is_file()
    assert TokenPPO.load(tmp_path / "rl_model_64_steps.zip", env=env).num_timesteps == 64
    mean, _ = evaluate_policy(ours, env, n_eval_episodes=5)
    assert np.isfinite(mean)


def test_a_large_step_ends_an_update(make_token_ppo, monkeypatch):
    ours = make_token_ppo(
        learning_rate=1e-2, batch_size=16, n_epochs=5, target_kl=1e-3, normalize_advantage=False
    )
    taken = []
    step = ours.policy.optimizer.step
    monkeypatch.setattr(ours.policy.optimizer, "step", lambda: taken.append(1) or step())
    read = []
    gradients = ours._gradients
    monkeypatch.setattr(ours, "_gradients", lambda batch: read.append(1) or gradients(batch))
    ours.learn(ROLLOUT)
    assert len(read) == len(taken) + 1 < 20, "the mini-batch that tells takes no step"
    assert taken
    assert ours.logger.name_to_value["train/n_updates"] == 1
    assert all(p.grad is None for p in ours.policy.parameters())


def test_the_learning_rate_follows_its_schedule(make_token_ppo):
    ours = make_token_ppo(learning_rate=lambda left: 1e-3 * left)
    ours.learn(2 * ROLLOUT)
    assert ours.policy.optimizer.param_groups[0]["lr"] == 0
    assert ours.logger.name_to_value["lr"] == 0


# What it refuses


@pytest.mark.parametrize("policy", ["MultiInputPolicy", MaskableTransformerPolicy])
def test_other_policies_are_refused(text_kwargs, policy):
    with pytest.raises(TypeError, match=r"TokenPPO trains a TransformerPolicy, got.*own"):
        TokenPPO(policy, gym.make("TextGen-v0", **text_kwargs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, r"n_steps .*a whole number.*got 0"),
        ({"batch_size": 0}, r"batch_size .*a whole number.*got 0"),
        ({"batch_size": 2.5}, r"batch_size .*a whole number.*got 2\.5"),
        ({"n_epochs": -1}, r"n_epochs .*a whole number.*got -1"),
        ({"micro_batch_tokens": 0}, r"micro_batch_tokens .*a whole number.*got 0"),
        ({"logits_budget": 0}, r"logits_budget .*a whole number.*got 0"),
        ({"kl_coef": -0.1}, "kl_coef must be 0 or above, got -0.1"),
        ({"target_kl_ref": 3.0}, r"target_kl_ref=3.0 with kl_coef=0.0.*try kl_coef=0.1"),
        ({"target_kl_ref": 0.0, "kl_coef": 0.1}, "target_kl_ref=0.0.*above 0"),
        ({"clip_range_vf": -1.0}, r"clip_range_vf\b.*-1\.0"),
        ({"clip_range": -0.2}, r"clip_range\b.*-0\.2"),
        ({"target_kl": -1.0}, r"target_kl\b.*-1\.0"),
        ({"gamma": 1.5}, r"gamma\b.*1\.5"),
        ({"gae_lambda": -0.1}, r"gae_lambda\b.*-0\.1"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_a_model_is_made(text_kwargs, arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenPPO(
            TransformerPolicy,
            gym.make("TextGen-v0", **text_kwargs),
            policy_kwargs={"model": "/no/such/model"},
            **arguments,
        )


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"temperature": 0}, "temperature must be above 0"),
        ({"top_k": -1}, "top_k is a number of tokens"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"dtype": "float16"}, 'dtype must be "float32" or "bfloat16", got \'float16\''),
    ],
)
def test_bad_arguments_of_the_policy_are_refused(make_token_ppo, policy, message):
    with pytest.raises(ValueError, match=message):
        make_token_ppo(policy=policy)
