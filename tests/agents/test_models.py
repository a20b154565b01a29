import sys

import pytest
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from agents.models import (
    has_adapter,
    load_model,
    model_source,
    no_progress_bars,
    refuse_unknown,
    tokenizer_files,
    with_lora,
    without_adapter,
)
from textgym.extras import MissingExtra
from textgym.models import BUILTIN_DIRECTORY

PEFTS_OWN = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*a tied layer is part of the adapter:UserWarning"),
]


def uses_peft(test):
    """Skips a test where PEFT is not installed, and leaves out warnings that are PEFT's own."""
    for mark in PEFTS_OWN:
        test = mark(test)
    return pytest.mark.usefixtures("peft")(test)


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


def test_the_builtin_model_is_loaded_in_float32():
    model = load_model("builtin")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model_source("builtin") == str(BUILTIN_DIRECTORY)


def test_a_model_is_loaded_from_a_directory(make_model, tmp_path, capfd):
    saved = make_model()
    saved.save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = load_model(tmp_path)
    assert capfd.readouterr() == ("", "")
    ids = torch.arange(1, 10)[None]
    assert type(loaded) is type(saved)
    assert torch.equal(loaded(ids).logits, saved(ids).logits)
    assert model_source(tmp_path) == model_source(loaded) == str(tmp_path)
    assert model_source(saved) is None


@pytest.mark.parametrize("name", ["/no/such/model", "empty", "~/no/such/model"])
def test_a_model_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    expected = "holds no config.json" if name == "empty" else "neither one that goes by name"
    with pytest.raises(FileNotFoundError, match=f"no model '{name}'.*{expected}"):
        load_model(name)


def test_a_directory_without_weights(make_llama, tmp_path):
    make_llama().config.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no model '{tmp_path}'.*safetensors"):
        load_model(tmp_path)


def test_a_hub_id_that_the_hub_does_not_give(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"no model 'smolm2'.*did you mean 'smollm2'"):
        load_model("smolm2")


ENCODERS = {
    "bart": (BartConfig, BartForConditionalGeneration, "with an encoder and writes with a decoder"),
    "bert": (BertConfig, BertForMaskedLM, "reads to both sides"),
    "distilbert": (DistilBertConfig, DistilBertForMaskedLM, "no head for the next token"),
    "t5": (T5Config, T5ForConditionalGeneration, "with an encoder and writes with a decoder"),
}
TINY = {"vocab_size": 20, "d_model": 8, "hidden_size": 8, "dim": 8, "d_kv": 4, "d_ff": 8}
HEADS = {"num_attention_heads": 2, "n_heads": 2, "num_heads": 2, "encoder_attention_heads": 2}


@pytest.mark.parametrize("family", ENCODERS)
def test_models_that_do_not_write_one_text_are_refused(family, tmp_path):
    config, model, reason = ENCODERS[family]
    model(config(**TINY, **HEADS, decoder_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=f"is a {family} model.*{reason}.*decoder-only"):
        load_model(tmp_path)


@pytest.mark.parametrize("family", ["bart", "roberta"])
def test_their_decoders_alone_are_taken(family, make_family, tmp_path):
    if family == "bart":
        decoder = BartForCausalLM(BartConfig(**TINY, **HEADS, decoder_attention_heads=2)).eval()
    else:
        decoder = make_family("roberta")
    decoder.save_pretrained(tmp_path)
    ids = torch.arange(3, 12)[None]
    assert torch.equal(load_model(tmp_path)(ids).logits, decoder(ids).logits)


def test_tokenizer_files_of_a_directory(tiny_tokenizer_dir, tmp_path):
    files = tokenizer_files(tiny_tokenizer_dir)
    assert [path.name for path in files] == ["tokenizer.json", "tokenizer_config.json"]
    assert tokenizer_files(str(tmp_path)) == tokenizer_files("/no/such/model") == []


def test_tokenizer_files_of_a_hub_id_come_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--letters"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "tokenizer.json").write_text("{}")
    assert tokenizer_files("someone/letters") == [snapshot / "tokenizer.json"]
    assert tokenizer_files("someone/else") == []


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_as_before_afterwards(shown):
    before = logging.is_progress_bar_enabled()
    try:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
        with no_progress_bars():
            assert not logging.is_progress_bar_enabled()
        assert logging.is_progress_bar_enabled() is shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


IDS = torch.arange(1, 21).view(2, 10)


@torch.no_grad()
def logits_of(model):
    return model(IDS).logits


def trained(model):
    """What is trained of a model: the last parts of the parameters' names."""
    return {
        name.split(".")[-3 if "default" in name else -1]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def shaken(model):
    """Move what is trained, as an update would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(params=["in memory", "loaded"])
def adapt(request, make_llama, tmp_path, peft):
    """Makes a model and the same with an adapter that was trained, by PEFT or by transformers."""

    def adapt(**lora):
        make_llama().save_pretrained(tmp_path / "base")
        base = load_model(tmp_path / "base")
        adapted = shaken(with_lora(load_model(tmp_path / "base"), {"r": 4, **lora}))
        if request.param == "in memory":
            return base, adapted
        adapted.save_pretrained(tmp_path / "adapted")
        loaded = load_model(tmp_path / "adapted")
        assert isinstance(loaded, LlamaForCausalLM)
        assert torch.equal(logits_of(loaded), logits_of(adapted))
        return base, loaded

    return adapt


@uses_peft
@pytest.mark.parametrize("lora", [True, {}, {"r": 3, "target_modules": ["q_proj"]}])
def test_of_a_model_with_lora_only_the_adapter_is_trained(make_llama, lora):
    model = make_llama()
    before = logits_of(model)
    adapted = with_lora(model, lora)
    assert trained(adapted) == {"lora_A", "lora_B"}
    assert torch.equal(logits_of(adapted), before)  # a fresh adapter changes nothing
    config = adapted.peft_config["default"]
    assert config.task_type == "CAUSAL_LM"
    if lora not in (True, {}):
        assert config.r == 3
        names = [name for name, p in adapted.named_parameters() if p.requires_grad]
        assert len(names) == 2 * 2
        assert all("q_proj" in name for name in names)


@uses_peft
def test_arguments_of_lora_are_not_changed(make_llama):
    lora = {"r": 2}
    with_lora(make_llama(), lora)
    assert lora == {"r": 2}


@uses_peft
def test_an_adapter_is_known(make_llama, adapt):
    assert not has_adapter(make_llama())
    assert not has_adapter(torch.nn.Linear(2, 2))
    assert has_adapter(adapt()[1])


@uses_peft
def test_a_second_adapter_is_refused(adapt):
    with pytest.raises(ValueError, match=r"has an adapter already, .*leave lora out"):
        with_lora(adapt()[1], True)


def test_lora_needs_peft(make_llama, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        MissingExtra, match=r"lora needs peft.*pip install 'textgym\[lora\]'"
    ) as error:
        with_lora(make_llama(), True)
    assert error.value.name == "peft"


@uses_peft
@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 4}, "takes no 'rank'. The rank is 'r'"),
        ({"r": 4, "layers": 1, "alpha": 2}, "takes no 'alpha', 'layers'"),
        ({"lora_dropout": 0.1}, "lora_dropout must be 0, got 0.1"),
        ({"r": 0}, "positive integer"),
        ({"target_modules": ["no_such"]}, "no_such"),
    ],
)
def test_arguments_of_lora_that_are_refused(make_llama, lora, message):
    with pytest.raises(ValueError, match=message):
        with_lora(make_llama(), lora)


@uses_peft
def test_no_dropout_is_no_dropout(make_llama):
    assert trained(with_lora(make_llama(), {"lora_dropout": 0.0})) == {"lora_A", "lora_B"}


@uses_peft
def test_an_adapter_is_trained_on_after_it_was_saved(adapt):
    _, adapted = adapt()
    assert trained(adapted) == {"lora_A", "lora_B"}
    adapted(IDS).logits.square().sum().backward()
    gradients = [p.grad for p in adapted.parameters() if p.requires_grad]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@uses_peft
@pytest.mark.parametrize("lora", [{}, {"modules_to_save": ["lm_head"]}], ids=["plain", "head"])
def test_without_its_adapter_a_model_is_what_it_was(adapt, lora):
    base, adapted = adapt(**lora)
    before, trained_before = logits_of(adapted), trained(adapted)
    expected = logits_of(base)
    assert (before - expected).abs().max() > 0.01
    with without_adapter(adapted):
        assert torch.equal(logits_of(adapted), expected)
        assert has_adapter(adapted)
    assert torch.equal(logits_of(adapted), before)
    assert trained(adapted) == trained_before


@uses_peft
def test_the_adapter_is_there_again_after_an_error(adapt):
    _, adapted = adapt()
    before = logits_of(adapted)
    with pytest.raises(RuntimeError, match="in between"), without_adapter(adapted):
        raise RuntimeError("in between")
    assert torch.equal(logits_of(adapted), before)
    assert trained(adapted) == {"lora_A", "lora_B"}


@pytest.mark.parametrize("name", ["position_bias", "s_aux", "softcap"])
def test_attention_that_is_not_known_is_refused(name):
    refuse_unknown({name: None, "dropout": 0.0})
    with pytest.raises(NotImplementedError, match=name):
        refuse_unknown({name: 1.0})
