from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from agents.returns import gae

CLOSE = {"rtol": 1e-4, "atol": 1e-4}

shares = st.floats(0, 1)


@st.composite
def rollouts(draw):
    """Rewards, values, episode starts, last values and last dones of a random rollout."""
    steps, rows = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dones = rng.random((steps, rows)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    starts = np.concatenate([rng.random((1, rows)) < 0.5, dones[:-1]])
    rewards, values = rng.normal(size=(2, steps, rows)).astype(np.float32)
    return rewards, values, starts, rng.normal(size=rows).astype(np.float32), dones[-1]


def episode(rewards, values, bootstrap=None):
    """The arguments of `gae` for one row and one episode, which goes on if there is a bootstrap."""
    starts = np.zeros((len(rewards), 1), bool)
    starts[0] = True
    column = [np.array(x, np.float32)[:, None] for x in (rewards, values)]
    last = np.array([0 if bootstrap is None else bootstrap], np.float32)
    return *column, starts, last, np.array([bootstrap is None])


@given(rollouts(), shares, shares)
def test_it_is_the_sum_of_the_discounted_errors_to_come(rollout, gamma, lam):
    rewards, values, starts, last_values, last_dones = rollout
    steps, rows = rewards.shape
    expected = np.zeros((steps, rows))
    for row in range(rows):
        begins = [0, *(t for t in range(1, steps) if starts[t, row]), steps]
        for begin, end in pairwise(begins):
            over = end < steps or last_dones[row]
            following = [*values[begin + 1 : end, row], 0 if over else last_values[row]]
            for t in range(begin, end):
                expected[t, row] = sum(
                    (gamma * lam) ** (k - t)
                    * (rewards[k, row] + gamma * following[k - begin] - values[k, row])
                    for k in range(t, end)
                )
    advantages = gae(*rollout, gamma, lam)
    assert advantages.dtype == np.float32
    np.testing.assert_allclose(advantages, expected, **CLOSE)


@given(rollouts(), shares, shares)
def test_it_is_what_stable_baselines3_makes(rollout, gamma, lam):
    rewards, values, starts, last_values, last_dones = rollout
    buffer = RolloutBuffer(
        len(rewards),
        spaces.Box(0, 1, (1,)),
        spaces.Discrete(2),
        device="cpu",
        gamma=gamma,
        gae_lambda=lam,
        n_envs=len(last_dones),
    )
    buffer.rewards, buffer.values, buffer.episode_starts = rewards, values, starts.astype("f4")
    buffer.compute_returns_and_advantage(torch.from_numpy(last_values), last_dones)
    advantages = gae(*rollout, gamma, lam)
    np.testing.assert_allclose(advantages, buffer.advantages, **CLOSE)
    np.testing.assert_allclose(advantages + values, buffer.returns, **CLOSE)


@given(rollouts())
def test_without_any_discount_it_is_the_reward_to_go_minus_the_value(rollout):
    rewards, values, starts, last_values, last_dones = rollout
    to_go = np.where(last_dones, 0, last_values).astype(np.float64)
    expected = np.empty(rewards.shape)
    for t in reversed(range(len(rewards))):
        to_go = rewards[t] + to_go
        expected[t] = to_go - values[t]
        to_go = np.where(starts[t], 0, to_go)
    np.testing.assert_allclose(gae(*rollout, 1.0, 1.0), expected, **CLOSE)


@given(rollouts(), shares)
def test_lambda_0_leaves_the_error_of_one_step(rollout, gamma):
    rewards, values, starts, last_values, last_dones = rollout
    following = np.concatenate([values[1:], last_values[None]])
    over = np.concatenate([starts[1:], last_dones[None]])
    expected = rewards + gamma * np.where(over, 0, following) - values
    np.testing.assert_allclose(gae(*rollout, gamma, 0.0), expected, **CLOSE)


@given(
    rewards=st.lists(st.integers(-8, 8), min_size=1, max_size=10),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_token_is_praised_alike_for_immediate_and_for_delayed_rewards(rewards, seed):
    values = np.random.default_rng(seed).normal(size=len(rewards))
    delayed = [0] * (len(rewards) - 1) + [sum(rewards)]
    immediately, at_last = (gae(*episode(r, values), 1.0, 1.0) for r in (rewards, delayed))
    np.testing.assert_allclose(immediately[0], at_last[0], **CLOSE)


def test_an_episode_by_hand():
    advantages = gae(*episode([1, 2, 4], [0.5, 1, 2]), 0.5, 0.5)
    # Errors 1 + 0.5 - 0.5, 2 + 1 - 1 and 4 - 2, each counted for a quarter one token before.
    assert advantages.tolist() == [[1 + 0.25 * 2.5], [2 + 0.25 * 2], [2]]
    assert gae(*episode([1], [0.5], bootstrap=8), 0.5, 0.5).tolist() == [[1 + 4 - 0.5]]


@pytest.mark.parametrize("never_read", [np.nan, np.inf])
def test_a_value_after_the_end_is_not_read(never_read):
    rewards, values, starts, _, _ = episode([1, 2], [0, 0])
    last = np.array([never_read], np.float32)
    advantages = gae(rewards, values, starts, last, np.array([True]), 1.0, 1.0)
    assert advantages.tolist() == [[3], [2]]


def test_arguments_stay_as_they_were():
    rewards, values, starts, last_values, last_dones = arguments = episode([1, 2], [3, 4], 5)
    before = [argument.copy() for argument in arguments]
    gae(rewards, values, starts, last_values, last_dones, 0.9, 0.9)
    for argument, was in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, was)
