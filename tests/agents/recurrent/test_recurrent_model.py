import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from agents.backbone import Backbone
from agents.models import load_model
from agents.recurrent import RecurrentConfig, RecurrentForCausalLM, make_recurrent

VOCABULARY = 60


def ids_of(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(VOCABULARY, size=shape))


@torch.no_grad()
def said(network, text):
    """Logits at each place of one text, (T, vocabulary)."""
    return network(torch.as_tensor(text)[None]).logits[0]


# What it computes


@torch.no_grad()
def test_it_computes_what_the_cells_are_defined_as():
    torch.manual_seed(0)
    width, ids = 5, ids_of(1, 7)
    for kind in ("rnn", "lstm", "gru"):
        network = make_recurrent({"name": kind, "width": width}, VOCABULARY).eval()
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
        rnn = network.rnn
        h, c = torch.zeros(width), torch.zeros(width)
        for place, token in enumerate(ids[0].tolist()):
            embedding = network.embed_tokens.weight[token] * width**0.5
            of_input = rnn.weight_ih_l0 @ embedding + rnn.bias_ih_l0
            of_state = rnn.weight_hh_l0 @ h + rnn.bias_hh_l0
            if kind == "rnn":
                h = torch.tanh(of_input + of_state)
            elif kind == "lstm":
                enter, forget, new, leave = (of_input + of_state).split(width)
                c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
                h = leave.sigmoid() * c.tanh()
            else:
                (r, z, n), (r_h, z_h, n_h) = of_input.split(width), of_state.split(width)
                r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
                h = (1 - z) * (n + r * n_h).tanh() + z * h
            expected = network.lm_head.weight @ h
            torch.testing.assert_close(said(network, ids[0])[place], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_at_either_side_changes_nothing(kind, layers, make_network):
    network = make_network(kind, layers)
    ids, lengths = ids_of(4, 9), [9, 1, 4, 6]
    columns = torch.arange(9)
    for left in (False, True):
        begins = [9 - length if left else 0 for length in lengths]
        ends = [9 if left else length for length in lengths]
        begin, end = torch.tensor(begins)[:, None], torch.tensor(ends)[:, None]
        mask = (columns >= begin) & (columns < end)
        read = network(ids, mask.long(), use_cache=True)
        for row, (a, b) in enumerate(zip(begins, ends, strict=True)):
            alone = network(ids[row : row + 1, a:b], use_cache=True)
            torch.testing.assert_close(read.logits[row, a:b], alone.logits[0])
            for part, expected in zip(read.past_key_values, alone.past_key_values, strict=True):
                torch.testing.assert_close(part[:, row], expected[:, 0])


@torch.no_grad()
def test_a_text_can_be_read_in_parts(kind, layers, make_network):
    network, ids = make_network(kind, layers), ids_of(3, 8)
    whole = network(ids)
    assert whole.past_key_values is None
    first = network(ids[:, :3], use_cache=True)
    rest = network(ids[:, 3:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits)
    last = network(ids, logits_to_keep=2).logits
    torch.testing.assert_close(last, whole.logits[:, -2:])


def test_gradients_reach_every_weight(kind, layers, make_network):
    network = make_network(kind, layers)
    network(ids_of(2, 6)).logits.logsumexp(-1).sum().backward()
    names = [name for name, p in network.named_parameters() if p.grad.abs().max() > 1e-4]
    assert names == [name for name, _ in network.named_parameters()]
    assert len(names) == 1 + 4 * layers


def test_only_keyword_outputs_are_given(make_network):
    with pytest.raises(ValueError, match="return_dict must be True"):
        make_network("rnn")(ids_of(1, 2), return_dict=False)


def test_labels_give_the_loss_that_other_causal_models_give(make_network, make_llama):
    ids = ids_of(3, 7)
    labels = ids.clone()
    labels[0, 4:] = -100
    for network in (make_network("gru"), make_llama(vocab_size=VOCABULARY)):
        read = network(input_ids=ids, labels=labels)
        expected = torch.nn.functional.cross_entropy(
            read.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        )
        torch.testing.assert_close(read.loss, expected)
    assert make_network("gru")(ids).loss is None
    with pytest.raises(ValueError, match="labels want all logits, got logits_to_keep=1"):
        make_network("gru")(ids, labels=labels, logits_to_keep=1)


@torch.no_grad()
def test_a_mask_may_cover_the_text_before_too(kind, make_network):
    network, ids = make_network(kind), ids_of(2, 8)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 6:] = 0
    first = network(ids[:, :3], use_cache=True)
    rest = network(ids[:, 3:], mask, first.past_key_values)
    torch.testing.assert_close(rest.logits[:, :3], network(ids).logits[:, 3:6])


def test_a_row_without_a_token_is_named(kind, make_network):
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"row 1 of attention_mask is all zeros.*Leave the row"):
        make_network(kind)(ids_of(2, 3), mask)


def test_hidden_states_of_layers_are_refused(make_network):
    with pytest.raises(ValueError, match=r"output_hidden_states must be False.*read\(\)"):
        make_network("lstm", 2)(ids_of(1, 3), output_hidden_states=True)


# Fresh weights


@torch.no_grad()
@pytest.mark.parametrize("width", [32, 256])
def test_a_fresh_model_finds_all_tokens_about_as_likely(kind, layers, width):
    torch.manual_seed(0)
    network = make_recurrent({"name": kind, "width": width, "layers": layers}, VOCABULARY)
    probabilities = network(ids_of(8, 100)).logits.softmax(-1)
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    assert math.log(VOCABULARY) - entropy < (0.3 if kind == "rnn" else 0.1)
    assert probabilities.std(0).mean() > 1e-4  # and yet reads what there is


def test_fresh_weights_come_from_the_seed(kind):
    def fresh(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in make_recurrent(kind, VOCABULARY).parameters()])

    assert torch.equal(fresh(3), fresh(3))
    assert not torch.equal(fresh(3), fresh(4))


def test_gates_keep_the_length_of_what_they_carry_on(kind, layers):
    network = make_recurrent({"name": kind, "layers": layers, "width": 16}, VOCABULARY)
    for layer in range(layers):
        for gate in getattr(network.rnn, f"weight_hh_l{layer}").split(16):
            torch.testing.assert_close(gate @ gate.T, torch.eye(16), atol=1e-5, rtol=0)
        biases = getattr(network.rnn, f"bias_ih_l{layer}").split(16)
        assert [set(bias.tolist()) for bias in biases] == {
            "gru": [{0}, {0}, {0}],
            "lstm": [{0}, {1}, {0}, {0}],  # enter, forget, new, leave
            "rnn": [{0}],
        }[kind]


# Hugging Face's side


def test_it_is_saved_and_loaded_as_any_model(kind, layers, make_network, tmp_path, capfd, caplog):
    network, ids = make_network(kind, layers, eos=0, pad=1), ids_of(2, 5)
    network.save_pretrained(tmp_path)
    capfd.readouterr()  # a progress bar
    for load in (AutoModelForCausalLM.from_pretrained, load_model):
        loaded = load(tmp_path)
        assert type(loaded) is RecurrentForCausalLM
        assert loaded.lm_head.weight is loaded.embed_tokens.weight
        assert torch.equal(loaded(ids).logits, network(ids).logits)
    assert capfd.readouterr().out == caplog.text == ""
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.kind, config.num_hidden_layers) == (kind, layers)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 0, 1)
    assert Backbone(str(tmp_path), VOCABULARY, 10_000).context_length == 10_000  # any will do


def test_a_loaded_model_can_be_trained(kind, make_network, tmp_path):
    make_network(kind).save_pretrained(tmp_path)
    network, ids = load_model(tmp_path), ids_of(4, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        logits = network(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert network.lm_head.weight is network.embed_tokens.weight


def test_a_config_of_another_kind_of_cell_is_refused():
    with pytest.raises(Exception, match=r"expected one of .*'lstm'.* got tree"):
        RecurrentConfig(kind="tree")


def test_embeddings_can_be_resized(make_network):
    network, ids = make_network("lstm"), ids_of(1, 5)
    before = network(ids).logits
    network.resize_token_embeddings(VOCABULARY + 4)
    assert network.lm_head.weight is network.embed_tokens.weight
    torch.testing.assert_close(network(ids).logits[..., :VOCABULARY], before)


# generate


def test_greedy_generation_takes_the_likeliest_token_each_time(kind, layers, make_network):
    network, text = make_network(kind, layers), ids_of(1, 4)[0].tolist()
    written = network.generate(torch.tensor([text]), max_new_tokens=6, do_sample=False)[0]
    for _ in range(6):
        text.append(int(said(network, text)[-1].argmax()))
    assert written.tolist() == text


def test_a_batch_with_padding_generates_what_each_text_alone_does(kind, make_network):
    network = make_network(kind, pad=0)
    alone = [
        network.generate(ids_of(1, length, seed=length), max_new_tokens=5, do_sample=False)[0, -5:]
        for length in (2, 5)
    ]
    ids = torch.zeros(2, 5, dtype=torch.long)
    ids[0, 3:], ids[1] = ids_of(1, 2, seed=2), ids_of(1, 5, seed=5)
    mask = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    both = network.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert both[:, -5:].tolist() == torch.stack(alone).tolist()


def test_other_ways_to_generate_work_too(make_network):
    network, ids = make_network("gru", eos=0, pad=1), ids_of(2, 3)
    torch.manual_seed(0)
    sampled = network.generate(ids, max_new_tokens=8, do_sample=True)
    beams = network.generate(ids, max_new_tokens=8, num_beams=3, do_sample=False)

    def log_prob(row):
        text = row.tolist()
        log_probs = said(network, text).log_softmax(-1)
        return sum(float(log_probs[i - 1, text[i]]) for i in range(3, len(text)))

    greedy = network.generate(ids, max_new_tokens=8, do_sample=False)
    assert sampled.shape[0] == 2
    for found, plain in zip(beams, greedy, strict=True):
        if 0 not in plain[3:] and 0 not in found[3:]:
            assert log_prob(found) >= log_prob(plain) - 1e-5


# make_recurrent


def test_a_name_takes_the_defaults():
    network = make_recurrent("gru", 30)
    assert isinstance(network.rnn, torch.nn.GRU)
    assert (network.rnn.hidden_size, network.rnn.num_layers) == (256, 1)
    assert network.lm_head.weight.shape == (30, 256)
    assert make_recurrent({"name": "gru"}, 30).config.to_dict() == network.config.to_dict()


@given(st.sampled_from(["rnn", "lstm", "gru"]), st.integers(1, 9), st.integers(1, 3))
def test_sizes_are_as_asked_for(name, width, layers):
    network = make_recurrent({"name": name, "width": width, "layers": layers}, 7)
    assert (network.rnn.input_size, network.rnn.hidden_size) == (width, width)
    assert network.rnn.num_layers == layers


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lsmt", "got 'lsmt'; did you mean 'lstm'"),
        ("transformer", "got 'transformer'; there are: 'gru', 'lstm', 'rnn'"),
        ({"width": 8}, "got None"),
        ({"name": "rnn", "widht": 8}, "no setting 'widht'; did you mean 'width'"),
        ({"name": "rnn", "width": 0}, "width must be a whole number above 0, got 0"),
        ({"name": "rnn", "layers": 1.5}, r"layers must be .* got 1\.5"),
        ({"name": "rnn", "layers": True}, "layers must be .* got True"),
        ({"name": "rnn", "num_tokens": 8}, "no setting 'num_tokens'"),
    ],
)
def test_what_cannot_be_made_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_recurrent(spec, 30)


def test_a_vocabulary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="num_tokens must be a whole number above 0, got 0"):
        make_recurrent("rnn", 0)


# What only transformers have


def test_adapters_are_refused():
    with pytest.raises(ValueError, match=r"lora is for linear layers.*leave lora out"):
        Backbone(make_recurrent("rnn", 30), 30, 8, lora={"r": 2})


def test_gradient_checkpointing_is_refused():
    with pytest.raises(ValueError, match="does not know the layers of RecurrentForCausalLM"):
        Backbone(make_recurrent("rnn", 30), 30, 8, gradient_checkpointing=True)
