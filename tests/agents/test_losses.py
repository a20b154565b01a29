import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from agents.losses import (
    adapted_kl_coef,
    approximate_kl,
    clipped_surrogate,
    normalized,
    value_loss,
)

EPSILON = 0.2


def numbers(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 2**32), n=st.integers(2, 50), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_advantages_are_normalized_as_stable_baselines3_does_it(seed, n, scale):
    advantages = numbers(seed, n, scale=scale) + scale
    expected = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    torch.testing.assert_close(normalized(advantages), expected)
    if advantages.std() > 0.01 * scale:
        torch.testing.assert_close(
            normalized(advantages).std(), torch.tensor(1.0), rtol=1e-3, atol=0
        )


def test_a_single_advantage_is_not_normalized():
    assert normalized(torch.tensor([3.0])).tolist() == [3.0]
    assert normalized(torch.empty(0)).tolist() == []
    assert normalized(torch.full((3,), 2.0)).tolist() == [0, 0, 0]


@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.01, 0.3, 3.0]),
    clip_range=st.sampled_from([0.05, 0.2, 0.9]),
)
def test_the_surrogate_is_that_of_stable_baselines3(seed, scale, clip_range):
    log_ratio, advantages = numbers(seed, 40, scale=scale).requires_grad_(), numbers(seed + 1, 40)
    expected_input = log_ratio.detach().clone().requires_grad_()
    ratio = torch.exp(expected_input)
    policy_loss_1 = advantages * ratio
    policy_loss_2 = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    expected = -torch.min(policy_loss_1, policy_loss_2).mean()
    loss = clipped_surrogate(log_ratio, advantages, clip_range)
    assert loss.shape == (40,)
    torch.testing.assert_close(loss.mean(), expected)
    loss.mean().backward()
    expected.backward()
    torch.testing.assert_close(log_ratio.grad, expected_input.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 2.0, -2.4, 0.0),  # better, and likelier already by more than epsilon
        (0.5, -2.0, 1.6, 0.0),  # worse, and less likely already
        (0.5, 2.0, -1.0, -1.0),  # better, but less likely: not clipped, to bring it back
        (1.5, -2.0, 3.0, 3.0),  # worse, but likelier
        (1.1, 2.0, -2.2, -2.2),
        (0.9, -2.0, 1.8, 1.8),
        (1.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_by_hand(ratio, advantage, loss, gradient):
    log_ratio = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    got = clipped_surrogate(log_ratio, torch.tensor([advantage], dtype=torch.float64), EPSILON)
    got.sum().backward()
    assert got.item() == pytest.approx(loss)
    assert log_ratio.grad.item() == pytest.approx(gradient, abs=1e-12)


@given(seed=st.integers(0, 2**32), clip_range_vf=st.sampled_from([None, 0.1, 1.0]))
def test_the_value_loss_is_that_of_stable_baselines3(seed, clip_range_vf):
    values = numbers(seed, 30).requires_grad_()
    returns, old_values = numbers(seed + 1, 30), numbers(seed + 2, 30)
    predicted = values
    if clip_range_vf is not None:
        predicted = old_values + torch.clamp(values - old_values, -clip_range_vf, clip_range_vf)
    expected = functional.mse_loss(returns, predicted)
    loss = value_loss(values, returns, old_values, clip_range_vf)
    assert loss.shape == (30,)
    torch.testing.assert_close(loss.mean(), expected)
    gradients = [torch.autograd.grad(x, values)[0] for x in (loss.mean(), expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("value", "loss", "gradient"),
    [(1.25, 0.5625, -1.5), (1.75, 0.25, 0.0), (0.0, 2.25, 0.0), (0.75, 1.5625, -2.5)],
)
def test_a_value_counts_as_near_its_old_one(value, loss, gradient):
    values = torch.tensor([value], requires_grad=True)
    got = value_loss(values, torch.tensor([2.0]), torch.tensor([1.0]), 0.5)
    got.sum().backward()
    assert got.item() == loss
    assert values.grad.item() == gradient


@given(st.floats(-80, 80, width=32))
def test_the_estimate_of_the_kl_is_never_negative(log_ratio):
    estimate = approximate_kl(torch.tensor([log_ratio]))
    assert estimate.item() >= 0
    assert (approximate_kl(torch.full((33,), log_ratio)) >= 0).all()  # other code does these


@given(st.floats(-20, 20))
def test_the_estimate_of_the_kl_is_its_formula(log_ratio):
    ratio = math.exp(log_ratio)
    estimate = approximate_kl(torch.tensor([log_ratio], dtype=torch.float64)).item()
    assert estimate == pytest.approx((ratio - 1) - log_ratio, abs=1e-12)


@given(st.floats(-(2**-7), 2**-7, width=32))
def test_near_1_the_estimate_is_half_the_square(log_ratio):
    # The term that is left out is x^3 / 6; and rounding of x itself, to float32.
    bound = abs(log_ratio) ** 3 / 5 + 1e-7 * abs(log_ratio) + 1e-37
    assert abs(approximate_kl(torch.tensor([log_ratio])).item() - log_ratio**2 / 2) <= bound


def test_the_expected_estimate_is_the_kl():
    old, new = numbers(0, 2, 7).double().log_softmax(-1)
    kl = (old.exp() * (old - new)).sum()
    estimate = (old.exp() * approximate_kl(new - old)).sum()
    assert kl > 0.1
    torch.testing.assert_close(estimate, kl)


coefficients = st.floats(1e-4, 10)
gains = st.floats(0.01, 1)


@given(coefficients, st.floats(0, 100), st.floats(0.01, 10), gains)
def test_the_coefficient_moves_towards_the_target_and_not_too_fast(kl_coef, kl, target, gain):
    factor = adapted_kl_coef(kl_coef, kl, target, gain) / kl_coef
    assert 1 - 0.2 * gain - 1e-9 <= factor <= 1 + 0.2 * gain + 1e-9
    error = kl / target - 1
    if abs(error) > 1e-9:
        assert (factor > 1) == (error > 0)
    if abs(error) < 0.2:
        assert factor == pytest.approx(1 + gain * error)


@pytest.mark.parametrize(
    ("kl", "expected"), [(6.0, 0.5), (6.6, 0.505), (5.4, 0.495), (60.0, 0.51), (0.0, 0.49)]
)
def test_the_coefficient_by_hand(kl, expected):
    assert adapted_kl_coef(0.5, kl, 6.0) == pytest.approx(expected)
