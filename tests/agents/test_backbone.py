import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaForCausalLM

from agents.backbone import Backbone
from agents.padding import without_surplus

LENGTHS = [3, 17, 1, 9]


def batch(lengths, columns, vocabulary, seed=0):
    """Random tokens in rows of the given lengths, right-padded to a number of columns."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(columns) < torch.tensor(lengths)[:, None]).long()
    shape = (len(lengths), max(lengths))
    ids = torch.zeros(len(lengths), columns, dtype=torch.long)
    ids[:, : shape[1]] = torch.randint(1, vocabulary, shape, generator=generator)
    return ids * mask, mask


def test_a_wide_window_gives_what_a_narrow_one_gives(make_model):
    backbone = Backbone(make_model(), 257, 256)
    ids, mask = batch(LENGTHS, 256, 257)
    with torch.no_grad():
        wide, narrow = backbone(ids, mask), backbone(ids[:, :17], mask[:, :17])
    torch.testing.assert_close(wide, narrow, atol=1e-5, rtol=0)


def test_a_row_gets_alone_what_it_gets_in_a_batch(make_model):
    backbone = Backbone(make_model(), 257, 40)
    ids, mask = batch(LENGTHS, 40, 257)
    with torch.no_grad():
        together = backbone(ids, mask)
        for row in range(len(LENGTHS)):
            alone = backbone(ids[row : row + 1], mask[row : row + 1])
            torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.hidden[row], alone.hidden[0], atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_does_not_matter(make_model):
    backbone = Backbone(make_model(), 257, 40)
    ids, mask = batch(LENGTHS, 40, 257)
    with torch.no_grad():
        zeros, others = backbone(ids, mask), backbone(torch.where(mask == 1, ids, 99), mask)
    torch.testing.assert_close(zeros, others, atol=1e-5, rtol=0)


def test_gradients_of_a_padded_batch_are_those_of_its_rows(make_model):
    model = make_model()
    backbone = Backbone(model, 257, 40)
    ids, mask = batch(LENGTHS, 40, 257)
    parameters = list(model.parameters())

    def gradient(*inputs):
        out = backbone(*inputs)
        total = out.logits.log_softmax(-1)[:, 5].sum() + out.hidden[:, 3].sum()
        return torch.autograd.grad(total, parameters)

    together = gradient(ids, mask)
    alone = [gradient(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
    for i, expected in enumerate(map(sum, zip(*alone, strict=True))):
        torch.testing.assert_close(together[i], expected, atol=1e-4, rtol=1e-4)


def test_the_model_runs_on_the_columns_that_hold_tokens(make_model):
    model = make_model()
    backbone = Backbone(model, 257, 200)
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda *call: seen.append(call[2].shape))
    model.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[2].shape))
    backbone(*batch(LENGTHS, 200, 257))
    assert seen == [(4, 17, 32), (4, 1, 257)]


def test_hidden_is_what_the_head_reads(make_llama):
    model = make_llama()
    out = Backbone(model, 257, 40)(*batch(LENGTHS, 40, 257))
    assert out.hidden.shape == (4, 32)
    torch.testing.assert_close(model.lm_head(out.hidden), out.logits)


def test_no_hook_stays_on_the_model(make_llama):
    model = make_llama()
    Backbone(model, 257, 40)(*batch(LENGTHS, 40, 257))
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_dropout_stays_off(family, make_family):
    dropout = {
        "gpt2": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
        "llama": {"attention_dropout": 0.5},
    }
    model = make_family(family, **dropout[family])
    inputs = batch(LENGTHS, 40, 100)
    model.train()
    with torch.no_grad():
        ids = inputs[0][:, :17]
        assert not torch.equal(model(ids).logits, model(ids).logits), "no dropout to be off"
        backbone = Backbone(model, 100, 40)
        evaluated = backbone.train(False)(*inputs).logits
        trained = backbone.train(True)(*inputs).logits
    assert backbone.training
    assert torch.equal(evaluated, trained)


def test_a_surplus_of_the_head_is_cut_off(make_llama):
    backbone = Backbone(make_llama(vocab_size=320), 257, 40)
    assert backbone(*batch(LENGTHS, 40, 257)).logits.shape == (4, 257)


def test_a_narrower_head_is_refused(make_llama):
    message = r"has 257 tokens and the given Llama\w+ knows 200\. Give the environment the model's"
    with pytest.raises(ValueError, match=message):
        Backbone(make_llama(vocab_size=200), 257, 40)


def test_a_context_longer_than_the_positions_is_refused(make_model):
    model = make_model()
    Backbone(model, 257, 256)
    with pytest.raises(ValueError, match=r"context_length is 257 .* 256 positions.* smaller"):
        Backbone(model, 257, 257)


def test_a_context_of_one_token_needs_no_padding(make_llama):
    Backbone(make_llama(), 257, 1)


@pytest.mark.parametrize(
    "mask", [[[1, 1, 0], [0, 0, 0]], [[1, 1, 0], [0, 1, 1]]], ids=["empty", "left-padded"]
)
def test_a_row_that_does_not_begin_with_a_token_is_refused(make_llama, mask):
    backbone = Backbone(make_llama(), 257, 40)
    with pytest.raises(ValueError, match="row 1 of attention_mask does not begin with 1"):
        backbone(torch.ones(2, 3, dtype=torch.long), torch.tensor(mask))


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.Sequential()])
def test_a_module_that_is_no_causal_lm_is_refused(model):
    with pytest.raises(TypeError, match=r"get_output_embeddings.*AutoModelForCausalLM"):
        Backbone(model, 3, 3)


def test_weights_in_bfloat16_are_refused(make_model):
    # A step of 1e-5 would be lost in them.
    with pytest.raises(ValueError, match=r'bfloat16.*dtype="bfloat16"'):
        Backbone(make_model().bfloat16(), 257, 40)
    with pytest.raises(ValueError, match=r'bfloat16.*dtype="bfloat16"'):
        Backbone(make_model().bfloat16(), 257, 40, dtype="bfloat16")


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    surplus=st.integers(0, 4),
    dtype=st.sampled_from([torch.int8, torch.int64, torch.float32, torch.bool]),
)
def test_columns_without_tokens_are_dropped(lengths, surplus, dtype):
    ids, mask = batch(lengths, max(lengths) + surplus, 50)
    kept, counted = without_surplus(ids, mask.to(dtype))
    assert counted.tolist() == lengths
    assert counted.dtype == torch.int64
    assert torch.equal(kept, ids[:, : max(lengths)])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_low_rank_adapters_are_read_through(make_llama):
    peft = pytest.importorskip("peft")
    model = make_llama()
    ids, mask = batch(LENGTHS, 40, 257)
    with torch.no_grad():
        expected = Backbone(model, 257, 40)(ids, mask)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert not isinstance(adapted, LlamaForCausalLM)
    with torch.no_grad():
        got = Backbone(adapted, 257, 40)(ids, mask)
    torch.testing.assert_close(got, expected)  # fresh adapters change nothing
