"""What goes wrong in a training is said once, and nothing is said where all is well."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from agents import GRPO, HealthCheck, TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.episodes import Episode
from agents.health import symptoms
from agents.health.check import HealthWarning
from agents.sampling import Sampling


def outcome(score=0.0, prompt="", tokens=4, **facts):
    return Episode(prompt, "text", [1] * tokens, [0.0] * tokens, {}, score, **facts).outcome


@pytest.fixture
def make(tiny_tokenizer_dir, make_llama):
    """Makes an algorithm of a tiny random model, whose texts are short."""

    def make(kind=TokenPPO, env_kwargs=None, n_envs=64, learning_rate=1e-4, **settings):
        kwargs = {
            "tokenizer": tiny_tokenizer_dir,
            "task": {"name": "target_token"},
            "reward": lambda text: text.count("a") / 4,
            "max_new_tokens": 4,
            "budget_is_terminal": True,
            **(env_kwargs or {}),
        }
        env = make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=kwargs)
        torch.manual_seed(0)
        if kind is not GRPO:
            settings = {"n_steps": 4, **settings}
        policy_kwargs = {"model": make_llama(vocab_size=11)}
        return kind(
            TransformerPolicy, env, learning_rate, seed=0, policy_kwargs=policy_kwargs, **settings
        )

    return make


def warned(algorithm, *callbacks, tokens=64 * 4 * 8):
    """What a training is warned of, by name."""
    health = HealthCheck(console=Console(file=io.StringIO()))
    algorithm.learn(tokens, callback=[*callbacks, health])
    return health.warned


class AtStep(BaseCallback):
    """Does something with the algorithm at each step, or before each rollout."""

    def __init__(self, in_step=None, before_update=None):
        super().__init__()
        self._in_step, self._before_update = in_step, before_update

    def _on_step(self):
        if self._in_step is not None:
            self._in_step(self.model)
        return True

    def _on_rollout_end(self):
        if self._before_update is not None:
            self._before_update(self.model)


# Whole trainings


@pytest.mark.parametrize("kind", [TokenPPO, GRPO, PPO])
def test_nothing_is_said_where_all_is_well(kind, make):
    assert warned(make(kind, batch_size=64)) == []


def test_with_a_reference_and_with_a_filter(make):
    assert warned(make(kl_coef=0.1, batch_size=64)) == []
    algorithm = make(kl_coef=0.1, batch_size=64)
    algorithm.policy.sampling = Sampling(top_k=3)
    assert warned(algorithm) == []


@pytest.mark.parametrize("kind", [TokenPPO, GRPO])
def test_a_reward_that_is_always_the_same(kind, make):
    assert warned(make(kind, {"reward": lambda text: 0.5})) == ["same_scores"]


def test_texts_that_are_all_cut(make):
    for is_terminal in (False, True):
        algorithm = make(env_kwargs={"budget_is_terminal": is_terminal}, learning_rate=0.0)
        algorithm.policy.sampling = Sampling(top_k=1)  # repeats the prompt, and never ends
        assert ("all_cut" in warned(algorithm)) is not is_terminal


def test_steps_that_go_too_far(make):
    assert "far_steps" in warned(make(learning_rate=0.01, n_epochs=8, batch_size=32))


@pytest.mark.parametrize("update", [(8.8, 0.1), (0.9, 0.86)])
def test_a_step_that_goes_very_far_is_told_at_once(make, update):
    """The update after it may be none at all: the policy has collapsed."""
    assert _warned_of_updates(make, [update, (5e-9, 0.0)]) == ["far_steps"]


def test_steps_that_go_a_little_too_far_are_told_when_they_are_three(make):
    far = (1.5, 0.3)  # of which the first update of a sound training may be
    assert _warned_of_updates(make, [far, far, (0.1, 0.1), far, far]) == []
    assert _warned_of_updates(make, [far, far, far]) == ["far_steps"]


def _warned_of_updates(make, updates):
    """What is warned of after updates of which this is logged: approximate KL, share clipped."""
    logged = iter(updates)

    def tell(algorithm):
        approx_kl, clip_fraction = next(logged)
        algorithm.logger.record("train/approx_kl", approx_kl)
        algorithm.logger.record("policy/approxkl_avg", approx_kl)
        algorithm.logger.record("train/clip_fraction", clip_fraction)

    class Tell(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if self.num_timesteps:
                tell(self.model)

        def _on_training_end(self):
            tell(self.model)

    return warned(make(learning_rate=0.0), Tell(), tokens=64 * 4 * len(updates))


def test_a_policy_that_is_certain(make):
    algorithm = make(learning_rate=0.0)
    with torch.no_grad():
        algorithm.policy.backbone.head.weight *= 1000
    assert "no_entropy" in warned(algorithm)


def test_a_policy_that_changes_between_rollout_and_update(make):
    hotter = AtStep(before_update=lambda model: model.policy.set_temperature(5.0))
    assert "moved_before_step" in warned(make(temperature=1.0), hotter)


def test_tokens_that_were_not_drawn_as_noted(make):
    def lie(model):
        model.rollout_buffer.log_probs -= 1.0

    assert "negative_kl" in warned(make(kl_coef=0.1), AtStep(before_update=lie))


def test_each_is_said_once_and_by_a_warning_in_scripts(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        health = HealthCheck()
        make(env_kwargs={"reward": lambda text: 0.5}).learn(64 * 4 * 16, callback=health)
    ours = [each for each in caught if each.category is HealthWarning]
    assert len(ours) == 1
    assert "scores +0.500" in str(ours[0].message)
    assert "nothing to learn from" in str(ours[0].message)


def test_on_a_console_it_is_a_paragraph(make):
    out = io.StringIO()
    algorithm = make(env_kwargs={"reward": lambda text: 0.5})
    algorithm.learn(64 * 4 * 8, callback=HealthCheck(console=Console(file=out, width=60)))
    assert out.getvalue().startswith("Warning. After 1,280 tokens, text after text scores +0.500")
    assert out.getvalue().count("\n") == 1


def test_it_changes_nothing(make):
    with_it = make().learn(512, callback=HealthCheck())
    without = make().learn(512)
    for ours, theirs in zip(with_it.policy.parameters(), without.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_what_was_said_is_not_said_again_after_going_on(make):
    health = HealthCheck(console=Console(file=io.StringIO()))
    make(env_kwargs={"reward": lambda text: 0.5}).learn(64 * 4 * 8, callback=health)
    again = HealthCheck(console=Console(file=io.StringIO()))
    again.load_state(health.state())
    make(env_kwargs={"reward": lambda text: 0.5}).learn(64 * 4 * 8, callback=again)
    assert again.warned == health.warned == ["same_scores"]
    assert again._console.file.getvalue() == ""
    again.load_state({})
    assert again.warned == []


# Single symptoms


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.integers(0, 1000))
def test_chance_does_not_make_a_kl_negative(weights, seed):
    generator = np.random.default_rng(seed)
    policy = np.array(weights) / np.sum(weights)
    reference = generator.permutation(policy)
    tokens = generator.choice(len(policy), 512, p=policy)
    total = float((np.log(policy) - np.log(reference))[tokens].sum())
    assert symptoms.negative_kl(total, len(tokens)) is None


def test_a_kl_that_chance_does_not_make():
    assert symptoms.negative_kl(-15.0, 2048) is None
    assert "-0.015 nats a token" in symptoms.negative_kl(-30.0, 2048)
    assert symptoms.negative_kl(-30.0, 100_000) is None  # rounding of bfloat16


def test_budgets_that_are_used_up():
    cut = [outcome(truncated=True)] * 3
    assert "budget" in symptoms.all_cut(cut, None)
    assert symptoms.all_cut([*cut, outcome()], None) is None
    ended = [outcome(tokens=4)] * 3
    assert symptoms.all_cut(ended, 4) is None  # nobody says that these are wrong
    wrong = [outcome(tokens=4, success=False)] * 3
    assert "none succeeds" in symptoms.all_cut(wrong, 4)
    assert symptoms.all_cut(wrong, 5) is None
    assert symptoms.all_cut(wrong, None) is None
    assert symptoms.all_cut([*wrong, outcome(tokens=4, success=True)], 4) is None


def test_scores_that_are_the_same():
    assert "+0.250" in symptoms.same_scores([outcome(0.25)] * 4)
    assert symptoms.same_scores([outcome(0.25), outcome(0.5)]) is None
    assert symptoms.same_scores([outcome(1.0, success=True)] * 4) is None


def test_groups_of_which_each_scores_the_same():
    easy, hard = [outcome(1.0, "easy")] * 4, [outcome(0.0, "hard")] * 4
    assert "2 groups" in symptoms.same_in_groups(easy + hard)
    assert symptoms.same_in_groups([*easy, *hard, outcome(1.0, "hard")]) is None
    assert symptoms.same_in_groups(easy) is None  # `same_scores` says so
    assert symptoms.same_in_groups([outcome(0.0, "a"), outcome(1.0, "b")]) is None


def test_updates():
    assert symptoms.far_steps(0.2, 0.43) is None  # first updates do so
    assert "approximate KL 2" in symptoms.far_steps(2.0, 0.1)
    assert "60%" in symptoms.far_steps(0.2, 0.6)
    assert symptoms.far_steps(np.inf, 0.1) is not None
    assert symptoms.moved_before_step(1e-4) is None  # rounding of bfloat16
    assert "0.5" in symptoms.moved_before_step(0.5)
    assert symptoms.no_entropy(0.1) is None
    assert symptoms.no_entropy(0.001) is not None


def test_a_training_that_made_it_worse():
    before = [outcome(score) for score in (0.1, 0.5, 0.9, 0.3)]
    worse = [outcome(score) for score in (0.0, 0.3, 0.8, 0.1)]  # by 0.15 +- 0.09
    told = symptoms.worse_than_before(before, worse, 0.01)
    assert "(-0.150, 95% interval -0.242 to -0.058)" in told
    assert "--learning-rate (it was 0.01)" in told
    assert symptoms.worse_than_before(worse, before, 0.01) is None
    # Far lower on the whole, and yet it may be chance.
    assert symptoms.worse_than_before(before, [outcome(1.0)] + [outcome(-1.0)] * 3, 0.01) is None
    assert symptoms.worse_than_before(before[:1], worse[:1], 0.01) is None  # no interval
