"""A rollout writes on while its rewards are made, and comes out as one that waits for them."""

import copy
import random
import string
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from agents import (
    GRPO,
    RLOO,
    Reinforce,
    TokenA2C,
    TokenDQN,
    TokenPPO,
    TransformerPolicy,
    TransformerQPolicy,
    make_sb3_vec_env,
)
from agents import rollout as rollout_module
from agents.checkpointing import load_checkpoint, save_checkpoint
from agents.evaluation import write
from agents.health.diverged import Diverged
from agents.run_ahead import AtOnce, RunAhead, stepper
from agents.watching import EpisodeCollector, RewardLog
from textgym import RewardError

N_ENVS = 4


def worth(sample):
    """A number in which all that a sample says has its part."""
    letters = sum(ord(letter) for letter in sample.prompt + 3 * sample.text) % 17
    return letters / 7 + 0.1 * len(sample.token_ids) + len(sample.turns)


class Score:
    """Made at once."""

    def score(self, samples):
        return [worth(sample) for sample in samples]


class Elsewhere(Score):
    """Made by threads, each call in a time of its own, so that answers come in any order."""

    def __init__(self, slowest=0.004, workers=4):
        self.pool = ThreadPoolExecutor(workers)
        self.rng = random.Random(0)
        self.slowest = slowest
        self.waiting = []
        self.most = 0

    def submit(self, samples):
        samples = copy.deepcopy(samples)
        future = self.pool.submit(self._score, samples, self.slowest * self.rng.random())
        self.waiting = [*(each for each in self.waiting if not each.done()), future]
        self.most = max(self.most, len(self.waiting))
        return future

    def _score(self, samples, seconds):
        time.sleep(seconds)
        return Score.score(self, samples)

    def score(self, samples):
        return self.submit(samples).result()


class Told(BaseCallback):
    """All that callbacks are told."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.steps = []
        self.rollouts = []
        self.stop_after = stop_after

    def _on_step(self):
        told = {key: self.locals[key] for key in TOLD if key in self.locals}
        infos = [dict(info) for info in self.locals["infos"]]
        for info in infos:
            info["episode"] = {**info.get("episode", {}), "t": None}
        told |= {"infos": infos, "last_obs": self.model._last_obs, "count": self.num_timesteps}
        self.steps.append(copy.deepcopy(told))
        return self.stop_after is None or len(self.steps) < self.stop_after

    def _on_rollout_end(self):
        said = {"weights": self.training_env.env_method("reward_weights", indices=[0])}
        if isinstance(self.model, OnPolicyAlgorithm):
            buffer = self.model.rollout_buffer
            said |= {name: getattr(buffer, name).copy() for name in BUFFER}
            said["segments"] = [vars(each) for each in buffer.segments]
        self.rollouts.append(said)


TOLD = ("actions", "rewards", "dones", "values", "log_probs", "new_obs", "rows", "n_steps")
BUFFER = ("actions", "rewards", "values", "log_probs", "episode_starts", "written", "advantages")
BUFFER = (*BUFFER, "returns", "ref_log_probs")


def assert_same(expected, got):
    """To the last bit."""
    assert type(expected) is type(got)
    if isinstance(expected, dict):
        assert list(expected) == list(got)
        for key in expected:
            assert_same(expected[key], got[key])
    elif isinstance(expected, (list, tuple)):
        assert len(expected) == len(got)
        for one, other in zip(expected, got, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (np.ndarray, torch.Tensor)):
        np.testing.assert_array_equal(expected, got)
    else:
        assert expected == got


class Log(KVWriter):
    """What an algorithm logs, but for times."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append({n: v for n, v in key_values.items() if not n.startswith("time/")})

    def close(self):
        pass


@pytest.fixture
def make(make_llama, text_kwargs):
    def make(score, algorithm=TokenPPO, *, reward=None, wrap=None, env=None, vocab=11, **settings):
        single = {"made": {"name": score}}
        given = {**text_kwargs, "reward": single if reward is None else reward(single)}
        vec_env = make_sb3_vec_env(
            "TextGen-v0", N_ENVS, seed=0, env_kwargs={**given, **(env or {})}
        )
        vec_env = vec_env if wrap is None else wrap(vec_env)
        torch.manual_seed(0)
        policy = TransformerPolicy
        if algorithm is TokenDQN:
            policy, sizes = TransformerQPolicy, {"batch_size": 32, "learning_starts": 32}
            settings = {**sizes, "sequence_length": 4, **settings}
        elif algorithm is TokenPPO:
            settings = {"batch_size": 32, **settings}
        if not getattr(algorithm, "whole_episodes", True):
            settings = {"n_steps": 16, **settings}
        model = make_llama(vocab_size=vocab, max_position_embeddings=512)
        return algorithm(
            policy,
            vec_env,
            policy_kwargs={"model": model},
            **{"seed": 0, "learning_rate": 1e-3, **settings},
        )

    return make


def run(model, tokens, callbacks):
    """What is told, logged and learned of a training."""
    collector, told, log = EpisodeCollector(), Told(), Log()
    model.set_logger(Logger(None, [log]))
    model.learn(tokens, callback=[collector, told, *callbacks], log_interval=1)
    return {
        "steps": told.steps,
        "rollouts": told.rollouts,
        "texts": [vars(episode) for episode in collector.episodes],
        "unfinished": collector.state(),
        "logged": log.rows,
        "weights": {name: w.clone() for name, w in model.policy.state_dict().items()},
        "episodes": [[each["r"], each["l"]] for each in model.ep_info_buffer],
        "reward": model.env.env_method("reward_state", indices=[0]),
        "count": model.num_timesteps,
    }


@pytest.fixture
def most_ahead(make):
    """Trains twice, once with a score that is waited for; returns how far the other was ahead."""

    def most_ahead(*args, tokens=3 * 64, **settings):
        elsewhere = Elsewhere()
        results = [
            run(make(score, *args, **settings), tokens, [RewardLog()])
            for score in (Score(), elsewhere)
        ]
        assert_same(*results)
        assert len(results[0]["logged"]) >= 2
        assert len(results[0]["episodes"]) > 4
        return elsewhere.most

    return most_ahead


GAME = {
    "task": {"name": "game", "num_games": 30},
    "stop": list(string.ascii_letters),
    "max_new_tokens": 8,
    "budget_is_terminal": True,
}
ADAPTIVE = {"goals": {"made": {"start": 0.5, "step": 0.25, "stop": 3.0}}, "window": 3}


@pytest.mark.parametrize("algorithm", [TokenPPO, TokenA2C])
def test_by_steps(most_ahead, algorithm):
    assert most_ahead(algorithm) > 1


@pytest.mark.parametrize("algorithm", [GRPO, RLOO, Reinforce])
def test_by_whole_episodes(most_ahead, algorithm):
    groups = {} if algorithm is Reinforce else {"group_size": 2}
    assert most_ahead(algorithm, n_episodes=10, **groups) > 1


def test_with_a_reference(most_ahead):
    assert most_ahead(kl_coef=0.1, target_kl_ref=1.0, n_episodes=6) > 1


@pytest.mark.parametrize(
    "env",
    [{"every": "word"}, {"every": "sentence"}, {"timing": "delayed"}, {"budget_is_terminal": True}],
    ids=str,
)
def test_timings(most_ahead, env):
    assert most_ahead(env=env) > 1


@pytest.mark.parametrize(
    "reward",
    [
        lambda made: {**made, "length": {"weight": -0.5, "target": 3}, "edit_distance": 0.3},
        lambda made: {"name": "schedule", "reward": made, "tokens": 100},
        lambda made: {"name": "adaptive", "rewards": {**made, "length": 0.5}, **ADAPTIVE},
    ],
    ids=["beside others", "on schedule", "adaptive"],
)
def test_in_a_sum(most_ahead, reward):
    """A curriculum follows what is paid, and sets its terms in the order of the steps."""
    assert most_ahead(reward=reward) > 1


@pytest.mark.parametrize("settings", [{}, {"n_episodes": 6}], ids=str)
def test_several_turns(most_ahead, byte_tokenizer_dir, settings):
    env = {**GAME, "tokenizer": byte_tokenizer_dir}
    assert most_ahead(env=env, vocab=257, **settings) > 1


def test_normalized_rewards(most_ahead):
    assert most_ahead(wrap=lambda env: VecNormalize(env, norm_obs=False)) > 1


def test_a_choice_between_prompts_waits(most_ahead):
    templates = {"templates": ["{prompt}", "a{prompt}"], "prompts": "bandit"}
    assert most_ahead(env=templates) == 1


def test_dqn_waits(most_ahead):
    assert most_ahead(TokenDQN, train_freq=4, tokens=160) == 1


class Passes(VecEnvWrapper):
    """A wrapper of which nobody knows what it does."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


def test_where_there_is_no_running_ahead(make, most_ahead):
    model = make(Elsewhere())
    assert isinstance(stepper(model.env), RunAhead)
    assert isinstance(stepper(VecNormalize(model.env, norm_obs=False)), RunAhead)
    assert isinstance(stepper(Passes(model.env)), AtOnce)
    assert isinstance(stepper(make(Score()).env), AtOnce)
    assert most_ahead(wrap=Passes) == 1


def test_stock_ppo_waits(make_llama, text_kwargs):
    buffers, elsewhere = [], Elsewhere()
    for score in (Score(), elsewhere):
        kwargs = {**text_kwargs, "reward": score}
        env = make_sb3_vec_env("TextGen-v0", N_ENVS, seed=0, env_kwargs=kwargs)
        torch.manual_seed(0)
        stock = PPO(
            TransformerPolicy,
            env,
            n_steps=16,
            batch_size=64,
            seed=0,
            policy_kwargs={"model": make_llama(vocab_size=11)},
        )
        buffers.append(stock.learn(64).rollout_buffer)
    for name in ("actions", "rewards", "advantages"):
        np.testing.assert_array_equal(*(getattr(buffer, name) for buffer in buffers))
    assert elsewhere.most == 1


def test_no_more_than_fits_is_ahead(make, monkeypatch):
    model = make(Elsewhere(slowest=0.02))
    three_steps = 3 * sum(array.nbytes for array in model.env.reset().values())
    monkeypatch.setattr(rollout_module, "_AHEAD", three_steps)
    model.learn(64)
    assert 1 < model.env.get_attr("process")[0].reward.rewards["made"].inner.most <= 3


class Wrong:
    """Fails at the texts that end in c, by its own fault or that of where it is made."""

    def _score(self, samples, *delay):
        scores = super()._score(samples, *delay) if delay else super().score(samples)
        if any(sample.text.endswith("cc") for sample in samples):
            raise ConnectionError("nobody is there")
        return scores


class WrongAtOnce(Wrong, Score):
    def score(self, samples):
        return self._score(samples)


class WrongElsewhere(Wrong, Elsewhere):
    pass


def fails(text):
    """Not for all texts."""
    assert "bb" not in text
    return 0.0


@pytest.mark.parametrize(
    ("scores", "reward"),
    [
        ((WrongAtOnce, WrongElsewhere), None),
        ((Score, Elsewhere), lambda made: {**made, "fails": fails}),
        ((WrongAtOnce, WrongElsewhere), lambda made: {**made, "fails": fails}),
    ],
    ids=["elsewhere", "here", "both"],
)
@pytest.mark.parametrize("seed", range(3))
def test_errors_come_behind_the_steps_before_them(make, scores, reward, seed):
    told, errors = [], []
    for score in scores:
        model, told_one = make(score(), reward=reward, seed=seed), Told()
        with pytest.raises(RewardError) as error:
            model.learn(2_000, callback=told_one)
        told.append(told_one.steps)
        errors.append(str(error.value).replace("WrongElsewhere", "WrongAtOnce"))
        model.learn(0)  # begins anew
    assert errors[0] == errors[1]
    assert_same(*told)


def test_a_reward_that_is_no_number(make):
    batches = []
    for score in (Score(), Elsewhere()):
        model = make(score, wrap=lambda env: VecNormalize(env, norm_obs=False))

        class Spoil(BaseCallback):
            def _on_step(self):
                if self.n_calls == 5:
                    self.training_env.ret_rms.var = np.nan
                    self.training_env.training = False
                return True

        with pytest.raises(Diverged, match="reward") as error:
            model.learn(64, callback=Spoil())
        batches.append(dict(error.value.batch))
        assert model.num_timesteps == 5 * N_ENVS
    assert_same(*batches)


@pytest.mark.parametrize("settings", [{}, {"n_episodes": 6}], ids=str)
def test_a_callback_stops_training(make, settings):
    told = []
    for score in (Score(), Elsewhere(slowest=0.02)):
        model, collector = make(score, **settings), EpisodeCollector()
        told.append(Told(stop_after=5))
        model.learn(1_000, callback=[collector, told[-1]])
        stopped = model.num_timesteps
    assert_same(told[0].steps, told[1].steps)
    assert model._last_episode_starts.all()  # the environment was elsewhere, and began anew
    again = Told()
    model.learn(64, callback=[collector, again], reset_num_timesteps=False)
    assert model.num_timesteps >= stopped + 64
    for episode in collector.episodes:
        assert len(episode.rewards) == len(episode.token_ids) <= 6
        assert episode.score == pytest.approx(sum(episode.rewards), abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"n_episodes": 6}], ids=str)
def test_what_a_callback_stopped_goes_on_from_a_checkpoint(make, tmp_path, settings):
    told = []
    for again in (False, True):
        model, collector = make(Elsewhere(slowest=0.02), **settings), EpisodeCollector()
        if again:
            model.set_logger(Logger(None, []))
            load_checkpoint(model, tmp_path, {"collector": collector})
        else:
            model.learn(1_000, callback=[collector, Told(stop_after=5)])
            save_checkpoint(model, tmp_path, {"collector": collector})
        told.append(Told())
        model.learn(128, callback=[collector, told[-1]], reset_num_timesteps=False)
        for episode in collector.episodes:
            assert len(episode.rewards) == len(episode.token_ids) <= 6
    assert_same(told[0].rollouts, told[1].rollouts)


def test_other_actions_than_those_that_were_taken(make):
    env = make(Elsewhere()).env
    env.reset()
    bridge = env.venv
    bridge.advance(np.full(N_ENVS, 3))
    with pytest.raises(RuntimeError, match="ahead of its rewards"):
        bridge.state()
    with pytest.raises(RuntimeError, match="has run ahead with actions"):
        env.step(np.full(N_ENVS, 4))
    env.step(np.full(N_ENVS, 3))
    env.step(np.full(N_ENVS, 4))  # which was not done before


def test_texts_of_held_out_prompts(make):
    prompts = [{"prompt": text, "reference": "abc"} for text in ("abcde", "a", "jih", "b", "cab")]
    written, elsewhere = [], Elsewhere()
    for score in (Score(), elsewhere):
        model = make(score, reward=lambda made: {**made, "length": {"target": 3}})
        written.append(write(model.policy, model.env, prompts))
    assert_same(*([(vars(w.episode), w.contexts, w.components) for w in of] for of in written))
    assert elsewhere.most > 1


def test_a_checkpoint_lies_between_two_rollouts(make, tmp_path):
    told = Told()
    make(Elsewhere()).learn(128, callback=told)
    save_checkpoint(make(Elsewhere()).learn(64), tmp_path)
    resumed = make(Elsewhere())
    resumed.set_logger(Logger(None, []))
    load_checkpoint(resumed, tmp_path)
    again = Told()
    resumed.learn(64, callback=again, reset_num_timesteps=False)
    assert_same(told.rollouts[1:], again.rollouts)
