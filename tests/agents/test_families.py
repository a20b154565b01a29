"""Every family gives the same numbers in each of the ways in which it is read and trained.

Contexts are longer than any window, and what comes out is compared with what the plain model says
of each text alone.
"""

import copy
import warnings

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from agents import TokenPPO
from agents.aligned_reader import AlignedReader
from agents.backbone import Backbone
from agents.reader import CachedReader, UncachedReader, best_reader
from agents.recurrent_reader import RecurrentReader
from agents.sampling import Sampling
from agents.scoring import SequenceBatch, score

CONTEXT = 24
VOCABULARY = 100

READERS = {
    CachedReader: """
        cohere cohere2 ernie4_5 exaone4 gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neox
        gpt_oss granite llama mistral mixtral nemotron olmo2 olmo3 opt phi phi3 qwen2 qwen2_moe
        qwen3 qwen3_moe smollm3 stablelm starcoder2
    """,
    AlignedReader: """
        bloom codegen deepseek_v3 falcon gemma3n_text gpt_neo gptj granitemoehybrid lfm2
        llama4_text mamba mamba2 mpt qwen3_5_text xglm
    """,
    RecurrentReader: "textgym_recurrent",
    UncachedReader: "bart recurrent_gemma roberta rwkv",
}
READER_OF = {family: reader for reader, families in READERS.items() for family in families.split()}

TERMS = {
    "clip_range": 0.2,
    "clip_range_vf": 0.2,
    "ent_coef": 0.05,
    "gae_lambda": 0.9,
    "gamma": 0.97,
    "learning_rate": 0.1,
    "max_grad_norm": 0.5,
    "n_epochs": 2,
    "normalize_advantage": True,
    "vf_coef": 0.5,
}
"""Of the update: stock PPO's defaults are not ours."""

ROTARY = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"factor": 4.0},
    "longrope": {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
}
"""Ways to stretch rotary positions."""

VARIANTS = {
    "falcon-alibi": ("falcon", {"alibi": True}),
    "falcon-new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-one-head": ("falcon", {"multi_query": True, "parallel_attn": True}),
    **{
        f"llama-{kind}": (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": kind,
                    "rope_theta": 100.0,
                    "original_max_position_embeddings": CONTEXT,
                    **arguments,
                }
            },
        )
        for kind, arguments in ROTARY.items()
    },
    "recurrent-gru": ("textgym_recurrent", {"kind": "gru"}),
    "recurrent-rnn": ("textgym_recurrent", {"kind": "rnn", "num_hidden_layers": 1}),
}


@pytest.fixture(params=[*sorted(READER_OF), *VARIANTS])
def named(request):
    return request.param


@pytest.fixture
def model(named, make_family):
    family, arguments = VARIANTS.get(named, (named, {}))
    return make_family(family, **arguments)


@pytest.fixture
def make_model():
    """In place of the one with parameters."""


def reader_of(backbone):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*cannot be read with a cache", UserWarning)
        return best_reader(backbone)


def ids_of(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(1, VOCABULARY, size=shape))


@torch.no_grad()
def plain(model, text):
    """What the model itself says at the end of a text."""
    return model(torch.tensor([text])).logits[0, -1, :VOCABULARY]


def assert_same(got, expected):
    spread = float(expected.max() - expected.min())
    assert spread > 0.5
    torch.testing.assert_close(got, expected, atol=1e-5 * max(spread, 1), rtol=0)


def test_padded_is_unpadded(model):
    lengths = [3, CONTEXT, 1, 9]
    ids = ids_of(len(lengths), CONTEXT)
    mask = torch.arange(CONTEXT) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        logits = Backbone(model, VOCABULARY, CONTEXT)(ids, mask).logits
    for row, length in enumerate(lengths):
        assert_same(logits[row], plain(model, ids[row, :length].tolist()))


@torch.no_grad()
def test_cached_is_uncached(model, named):
    backbone = Backbone(model, VOCABULARY, CONTEXT)
    reader_class = reader_of(backbone)
    assert reader_class is READER_OF[VARIANTS.get(named, (named,))[0]]
    reader, texts = reader_class(backbone, 4), [[]] * 4
    rng = np.random.default_rng(0)

    def begin(rows, lengths):
        ids = rng.integers(1, VOCABULARY, size=(len(rows), CONTEXT))
        reader.begin(np.array(rows), ids, np.array(lengths))
        for row, text, length in zip(rows, ids.tolist(), lengths, strict=True):
            texts[row] = text[:length]

    def append(times):
        for _ in range(times):
            tokens = rng.integers(1, VOCABULARY, size=len(texts))
            reader.append(torch.from_numpy(tokens))
            texts[:] = [[*text, int(new)] for text, new in zip(texts, tokens, strict=True)]

    def assert_read():
        for got, text in zip(reader.seen.logits, texts, strict=True):
            assert_same(got, plain(model, text))

    begin([0, 1, 2, 3], [CONTEXT - 8, 1, 4, 1])
    assert_read()
    append(4)
    assert_read()
    begin([2], [9])  # one begins anew while the others go on
    append(4)
    assert_read()
    begin([0, 3], [2, 3])  # the longest becomes the shortest
    append(1)
    assert_read()
    reader.keep(np.array([1, 2]))
    texts[:] = texts[1:3]
    append(5)
    assert_read()


def test_a_text_read_once_is_a_text_read_token_by_token(model):
    backbone = Backbone(model, VOCABULARY, CONTEXT)
    reader_of(backbone)  # also finds out with which attention texts are read
    ids = ids_of(2, CONTEXT)
    at = torch.tensor([0, 4, 11, CONTEXT - 2, CONTEXT + 7])
    tokens = ids.flatten()[at + 1]
    sampling = Sampling(temperature=0.7)
    with torch.no_grad():
        hidden, log_probs, entropies = score(
            backbone, sampling, SequenceBatch(ids, at, tokens, at.numpy()), 10**6
        )
        for index, place in enumerate(at.tolist()):
            text = ids[place // CONTEXT, : place % CONTEXT + 1]
            said = backbone(text[None], torch.ones_like(text[None]))
            expected = (plain(model, text.tolist()) / 0.7).log_softmax(-1)
            entropy = -(expected.exp() * expected).sum()
            torch.testing.assert_close(hidden[index], said.hidden[0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(
                log_probs[index], expected[tokens[index]], atol=1e-4, rtol=1e-5
            )
            torch.testing.assert_close(entropies[index], entropy, atol=1e-4, rtol=1e-5)


def test_an_update_is_that_of_stock_ppo(model, make_token_ppo, collect, prescribe, shake):
    prescribe(np.random.default_rng(0).integers(11, size=(8, 4)))
    trained = []
    for algorithm in (PPO, TokenPPO):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*cannot be read with a cache", UserWarning)
            one = make_token_ppo(
                algorithm,
                {"optimizer_class": torch.optim.SGD},
                model=copy.deepcopy(model),
                n_steps=8,
                **TERMS,
            )
            shake(one.policy)
            buffer = collect(one)
        written = [buffer.values.copy(), buffer.log_probs.copy(), buffer.advantages.copy()]
        before = torch.cat([p.detach().flatten() for p in one.policy.parameters()])
        one.train()
        after = torch.cat([p.detach().flatten() for p in one.policy.parameters()])
        trained.append([*written, (after - before).numpy()])
    for expected, got in zip(*trained, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5, rtol=1e-3)
        assert np.abs(got).max() > 1e-3


@pytest.mark.parametrize(
    "family",
    [
        "gemma3_text",
        "gpt2",
        "gpt_neo",
        "gpt_oss",
        "lfm2",
        "mamba",
        "mixtral",
        "phi3",
        "qwen3_5_text",
    ],
)
def test_layers_that_are_computed_again_give_the_same_gradient(family, make_family):
    ids = ids_of(2, CONTEXT)
    at = torch.arange(3, 2 * CONTEXT, 5)
    batch = SequenceBatch(ids, at, ids.flatten()[at - 1], at.numpy())
    gradients = []
    for checkpointing in (False, True):
        model = make_family(family)
        backbone = Backbone(model, VOCABULARY, CONTEXT, gradient_checkpointing=checkpointing)
        reader_of(backbone)
        score(backbone, Sampling(), batch, 10**6)[1].sum().backward()
        read = [p.grad for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat([gradient.flatten() for gradient in read]))
    assert gradients[0].abs().max() > 1e-2
    torch.testing.assert_close(gradients[1], gradients[0], atol=2e-4, rtol=1e-4)


# What cannot be made right


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_that_reads_in_both_directions_is_refused(family, make_family):
    with pytest.raises(ValueError, match=r"reads a text in both directions.*is_decoder=True"):
        Backbone(make_family(family, is_decoder=False), VOCABULARY, CONTEXT)


def test_an_encoder_with_a_decoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(vocab_size=120, **sizes))
    with pytest.raises(TypeError, match=r"T5For\w+ has an encoder .* causal language model"):
        Backbone(model, VOCABULARY, CONTEXT)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_positions_that_depend_on_the_longest_text_are_refused(family, make_family):
    rotary = {"rope_type": "longrope", "rope_theta": 100.0, **ROTARY["longrope"]}
    model = make_family(
        family,
        original_max_position_embeddings=16,
        rope_parameters={**rotary, "original_max_position_embeddings": 16},
    )
    assert best_reader(Backbone(model, VOCABULARY, 16)) is CachedReader
    with pytest.raises(ValueError, match=r"once the text has 17 tokens .* original_max_position"):
        Backbone(model, VOCABULARY, 17)


# Positions


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gptj", "llama", "mpt", "opt", "phi"])
def test_contexts_fill_all_positions_and_no_more(family, make_family):
    model = make_family(family)
    if family == "mpt":
        del model.config.max_position_embeddings  # it calls them max_seq_len
    backbone = Backbone(model, VOCABULARY, 64)
    text = ids_of(1, 64)
    with torch.no_grad():
        assert_same(backbone(text, torch.ones_like(text)).logits[0], plain(model, text[0].tolist()))
    with pytest.raises(ValueError, match=r"context_length is 65 .* 64 positions"):
        Backbone(model, VOCABULARY, 65)
