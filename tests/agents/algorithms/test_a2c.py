"""The update is that of stock A2C."""

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.logger import Logger

from agents.algorithms.a2c import TokenA2C

N_STEPS, N_ENVS, ROLLOUTS = 16, 4, 3

PLAIN = {
    "learning_rate": 2e-4,
    "gamma": 0.97,
    "gae_lambda": 0.9,
    "vf_coef": 0.7,
    "max_grad_norm": 1e9,
    "ent_coef": 0.0,
    "normalize_advantage": False,
}
ADAM = {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": 1e-5}}
TERMS = {
    "plain": PLAIN,
    "entropy": {**PLAIN, "ent_coef": 0.5},
    "normalised": {**PLAIN, "normalize_advantage": True},
    "clipped": {**PLAIN, "max_grad_norm": 0.05},
}
ALL = {**PLAIN, "ent_coef": 0.5, "normalize_advantage": True, "max_grad_norm": 0.05}


def parameters(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()])


def logged(algorithm):
    """What an update logs."""
    algorithm.set_logger(Logger(folder=None, output_formats=[]))
    algorithm.train()
    return algorithm.logger.name_to_value


@pytest.fixture
def both(make_algorithm, prescribe, shake, text_kwargs):
    """Stock A2C and TokenA2C of equal weights, that write the same tokens."""

    def make(policy=None, **settings):
        prescribe(np.random.default_rng(0).integers(11, size=(ROLLOUTS * N_STEPS, N_ENVS)))
        made = []
        for algorithm in (A2C, TokenA2C):
            settings_of_both = {"n_envs": N_ENVS, "n_steps": N_STEPS, **settings}
            made.append(make_algorithm(algorithm, text_kwargs, policy, **settings_of_both))
            shake(made[-1].policy)
        return made

    return make


@pytest.mark.parametrize(
    ("terms", "policy"),
    [*((terms, {}) for terms in TERMS.values()), (PLAIN, ADAM), (ALL, {"temperature": 0.6})],
    ids=[*TERMS, "adam", "all"],
)
def test_updates_are_those_of_stock_a2c(both, collect, terms, policy):
    """Rollouts end within episodes, which go on in the next one, after an update."""
    stock, ours = both(policy, **terms)
    assert type(stock.policy.optimizer) is type(ours.policy.optimizer)
    torch.testing.assert_close(parameters(stock), parameters(ours), atol=0, rtol=0)
    for _ in range(ROLLOUTS):
        before = parameters(ours)
        for algorithm in (stock, ours):
            collect(algorithm)
        assert ours.rollout_buffer.episode_starts[1:].any()
        assert not ours._last_episode_starts.all()
        np.testing.assert_allclose(
            ours.rollout_buffer.advantages, stock.rollout_buffer.advantages, atol=1e-4
        )
        expected, got = logged(stock), logged(ours)
        torch.testing.assert_close(parameters(ours), parameters(stock), atol=1e-5, rtol=0)
        assert (parameters(ours) - before).abs().max() > 1e-4
        for key in ("train/entropy_loss", "train/value_loss", "train/explained_variance"):
            assert got[key] == pytest.approx(expected[key], abs=1e-5, rel=1e-4), key
    assert not ours.rollout_buffer.episode_starts[0].all()
    assert got["train/n_updates"] == expected["train/n_updates"] == ROLLOUTS


@pytest.mark.parametrize("term", ["entropy", "normalised", "clipped"])
def test_each_term_makes_a_difference(both, collect, term):
    """Otherwise the test above would not notice if it was left out."""
    _, ours = both(**TERMS[term])
    _, other = both(**PLAIN)
    for algorithm in (ours, other):
        collect(algorithm)
        algorithm.train()
    assert (parameters(ours) - parameters(other)).abs().max() > 1e-4


def test_defaults_are_those_of_stock_a2c(make_algorithm, text_kwargs):
    """All but those that the documentation names."""
    stock, ours = (make_algorithm(algorithm, text_kwargs) for algorithm in (A2C, TokenA2C))
    same = ("gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "normalize_advantage")
    for name in same:
        assert getattr(ours, name) == getattr(stock, name), name
    assert type(stock.policy.optimizer) is type(ours.policy.optimizer)
    stock_settings, settings = (
        {k: v for k, v in algorithm.policy.optimizer.defaults.items() if k != "lr"}
        for algorithm in (stock, ours)
    )
    assert settings == stock_settings
