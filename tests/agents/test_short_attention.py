"""The faster attention of an update gives what the model's own gives."""

import pytest
import torch
from torch.nn import functional

from agents.backbone import Backbone
from agents.reader import best_reader
from agents.short_attention import LONGEST, NAME, short_attention


def logits_and_gradients(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return logits, torch.autograd.grad(logits.sin().mean(), parameters, allow_unused=True)


@pytest.mark.parametrize(
    "family", ["gpt2", "gemma3_text", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen3"]
)
@pytest.mark.parametrize("length", [1, 2, 21])
def test_logits_and_gradients_are_those_of_the_model(family, length, make_family):
    model = make_family(family)
    ids = torch.randint(120, (3, length), generator=torch.Generator().manual_seed(0))
    expected, expected_gradients = logits_and_gradients(model, ids)
    with short_attention(model, ids):
        assert model.config._attn_implementation == NAME
        got, gradients = logits_and_gradients(model, ids)
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-4)


def test_long_texts_and_other_implementations_are_left_to_the_model(make_family):
    model = make_family("llama")
    with short_attention(model, torch.zeros(1, LONGEST, dtype=torch.long)):
        assert model.config._attn_implementation == NAME
    with short_attention(model, torch.zeros(1, LONGEST + 1, dtype=torch.long)):
        assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with short_attention(model, torch.zeros(1, 1, dtype=torch.long)):
        assert model.config._attn_implementation == "eager"


def test_the_implementation_is_put_back_after_an_error(make_family):
    model = make_family("llama")
    with pytest.raises(IndexError), short_attention(model, torch.tensor([[1000]])):
        model(input_ids=torch.tensor([[1000]]))
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["bloom", "llama"])
def test_it_is_taken_where_attention_can_be_exchanged(family, make_family):
    backbone = Backbone(make_family(family), 100, 20)
    assert not backbone.pluggable
    best_reader(backbone)
    assert backbone.pluggable == (family == "llama")


def test_an_update_takes_it(make_llama, monkeypatch):
    import numpy as np

    from agents.sampling import Sampling
    from agents.scoring import SequenceBatch, score

    calls = []
    plain = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional,
        "scaled_dot_product_attention",
        lambda *a, **k: calls.append(1) or plain(*a, **k),
    )
    ids = torch.randint(257, (2, 9))
    batch = SequenceBatch(ids, torch.arange(4, 8), ids[0, 5:9], np.arange(4))
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = Backbone(make_llama(), 257, 20, gradient_checkpointing=checkpointing)
        best_reader(backbone)
        calls.clear()
        _, log_probs, _ = score(backbone, Sampling(), batch, 10**6)
        log_probs.sum().backward()
        assert bool(calls) == checkpointing  # its layers must find the same attention twice
        results.append(log_probs.detach())
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
