"""The trunk computes in bfloat16; weights, head and losses stay in float32."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from agents.rollout import Rollout
from agents.sampler import Sampler

HEADS = {  # what families do with what the head gives
    "cohere": lambda logits: logits * 0.25,
    "gemma2": lambda logits: 30 * torch.tanh(logits / 30),
    "gpt2": lambda logits: logits,
    "granite": lambda logits: logits / 4,
    "llama": lambda logits: logits,
}


@pytest.fixture(params=sorted(HEADS))
def family(request):
    return request.param


@pytest.fixture
def make_model(family, make_family):
    return partial(make_family, family)


@pytest.fixture
def ours(make_token_ppo, shake):
    ours = make_token_ppo(policy={"dtype": "bfloat16"}, learning_rate=1e-3)
    shake(ours.policy)
    return ours


def test_a_rollout_gives_float32(ours):
    rollout = Rollout(Sampler(ours.policy, 4), ours.env, ours.env.reset())
    ended = 0
    for _ in range(8):
        step = rollout.step()
        for numbers in (step.log_probs, step.values, step.terminal_values):
            assert numbers.dtype == np.float32
            assert np.isfinite(numbers).all()
        assert (step.log_probs < 0).all()
        ended += step.dones.sum()
    assert ended


def test_the_trunk_computes_in_bfloat16(ours):
    backbone = ours.policy.backbone
    assert {parameter.dtype for parameter in ours.policy.parameters()} == {torch.float32}
    seen = []
    linear = next(m for m in backbone.model.modules() if type(m).__name__ in ("Linear", "Conv1D"))
    linear.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    ids = torch.randint(11, (3, 7))
    with torch.no_grad():
        backbone(ids, torch.ones_like(ids))
    assert seen[0] == torch.bfloat16


def test_the_head_computes_in_float32(ours, family):
    backbone = ours.policy.backbone
    ids = torch.randint(11, (5, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden, logits = backbone(ids, torch.ones_like(ids))
        assert hidden.dtype == logits.dtype == torch.float32
        head = backbone.head
        expected = HEADS[family](nn.functional.linear(hidden, head.weight, head.bias))[:, :11]
        assert expected.std() > 0.1
        for got in (logits, backbone.logits(hidden)):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        with backbone.autocast():  # as rollouts are
            torch.testing.assert_close(backbone.logits(hidden), expected, atol=1e-5, rtol=0)


def test_it_learns(ours):
    before = {name: p.clone() for name, p in ours.policy.named_parameters()}
    ours.n_epochs = 1
    ours.learn(64)
    logged = ours.logger.name_to_value
    assert np.isfinite(logged["train/loss"])
    # What was noted is what the update reads: cached and plain reading differ by some percent.
    assert logged["val/ratio"] == pytest.approx(1, abs=1e-4)
    assert logged["val/ratio_var"] == pytest.approx(0, abs=1e-4)
    for parameter in ours.policy.parameters():
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
    moved = {n for n, p in ours.policy.named_parameters() if not torch.equal(p, before[n])}
    assert {"value_net.weight"} < moved
