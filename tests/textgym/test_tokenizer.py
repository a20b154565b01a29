from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from textgym.prompt_format import PlainFormat
from textgym.tasks import Example
from textgym.tokenizer import TextStream, Tokenizer

EOS = "<|endoftext|>"
HALF = "\ufffd"


def _build_metaspace() -> Tokenizer:
    """As SentencePiece and Llama make them: "▁" for a space, and bytes for what is unknown."""
    words = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["▁", "▁hello", "▁world", "wor", "ld", "▁a", "a", "b", "l", "o", "!", "中", *"dehrw"]
    vocab = [(token, -1.0) for token in [*words, *byte_tokens, *pieces]]
    backend = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(words)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return Tokenizer(backend, name="metaspace", eos_token="</s>", bos_token="<s>")


def _build_wordpiece() -> Tokenizer:
    """As BERT makes them: "##" continues a word, and punctuation loses the space before it."""
    vocab = [
        "[PAD]",
        "[UNK]",
        "[SEP]",
        "hello",
        "world",
        "##ing",
        "##s",
        ",",
        ".",
        "go",
        "don",
        "'",
    ]
    backend = tokenizers.Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    backend.add_special_tokens(["[PAD]", "[SEP]"])
    return Tokenizer(backend, name="wordpiece", eos_token="[SEP]", pad_token="[PAD]")


METASPACE = _build_metaspace()
WORDPIECE = _build_wordpiece()


def _ids(*ids: int) -> np.ndarray:
    return np.array(ids, np.int64)


def _byte_ids(data: bytes) -> list[int]:
    """The ids of the byte tokenizer of the fixtures."""
    return [1 + byte for byte in data]


def _pushed(stream: TextStream, chunks: list[list[int]]) -> list[str]:
    return [stream.push(chunk) for chunk in chunks]


def _chunks(ids: list[int], sizes: list[int]) -> list[list[int]]:
    chunks = []
    for size in sizes:
        chunks.append(ids[:size])
        ids = ids[size:]
    return [*chunks, ids]


@example(data=b"\xed\xa0", sizes=[])
@example(data=b"\xed\xa0\x80a\xed\xbf", sizes=[1, 1, 1])
@given(data=st.binary(max_size=40), sizes=st.lists(st.integers(0, 5), max_size=10))
def test_stream_of_any_bytes(byte_tokenizer: Tokenizer, data: bytes, sizes: list[int]) -> None:
    ids = _byte_ids(data)
    stream = byte_tokenizer.stream(_ids(5, 6))
    chunks = _chunks(ids, sizes)
    texts = _pushed(stream, chunks)
    assert stream.finish() == byte_tokenizer.decode(ids) == data.decode("utf-8", "replace")
    shorter = ""
    for k, text in enumerate(texts, start=1):
        so_far = byte_tokenizer.decode([i for chunk in chunks[:k] for i in chunk])
        assert text.startswith(shorter)
        # What is held back is at most one character, of which the end may still come.
        assert so_far in (text, text + HALF)
        shorter = text
    assert stream.finish().startswith(shorter)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[HALF]), max_size=20)
)
def test_stream_of_whole_text_never_shows_half_a_character(
    byte_tokenizer: Tokenizer, text: str
) -> None:
    stream = byte_tokenizer.stream(_ids(5))
    for token_id in _byte_ids(text.encode()):
        so_far = stream.push([token_id])
        assert HALF not in so_far
        assert text.startswith(so_far)
    assert so_far == stream.finish() == text if text else stream.finish() == ""


def test_characters_of_several_tokens_appear_when_they_are_whole(byte_tokenizer: Tokenizer) -> None:
    stream = byte_tokenizer.stream(_ids(5))
    texts = [stream.push([i]) for i in _byte_ids("中é🙂".encode())]
    assert texts == ["", "", "中", "中", "中é", "中é", "中é", "中é", "中é🙂"]


def test_a_character_that_stays_incomplete_is_replaced_at_the_end(
    byte_tokenizer: Tokenizer,
) -> None:
    stream = byte_tokenizer.stream(_ids(5))
    assert stream.push(_byte_ids("ok🙂".encode()[:-1])) == "ok"
    assert stream.finish() == "ok" + HALF


@given(ids=st.lists(st.integers(0, 258), max_size=40))
def test_byte_table_decodes_as_the_library_does(ids: list[int]) -> None:
    tokenizer = _byte_level_with_added_tokens()
    expected = tokenizer.backend.decode(ids, skip_special_tokens=True)
    assert tokenizer.decode(ids) == expected


_ADDED: list[Tokenizer] = []


def _byte_level_with_added_tokens() -> Tokenizer:
    """Every byte, an end of text, and tokens added by hand that are stored as plain text."""
    if not _ADDED:
        from textgym.tokenizer import byte_level_alphabet

        vocabulary = [EOS, *byte_level_alphabet().values()]
        backend = tokenizers.Tokenizer(
            models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[])
        )
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([EOS])
        backend.add_tokens([AddedToken(" 中 ", normalized=False), AddedToken("<tool>")])
        _ADDED.append(Tokenizer(backend, name="added", eos_token=EOS))
    return _ADDED[0]


def test_special_tokens_have_no_text(byte_tokenizer: Tokenizer) -> None:
    assert byte_tokenizer.decode([*_byte_ids(b"hi"), 0, *_byte_ids(b"!")]) == "hi!"
    stream = byte_tokenizer.stream(_ids(5))
    assert stream.push([*_byte_ids(b"hi"), 0]) == "hi"


def test_an_end_of_text_token_is_special_though_the_file_does_not_say_so() -> None:
    vocab = {"<eos>": 0, "a": 1, "b": 2}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="a"))
    tokenizer = Tokenizer(backend, name="plain", eos_token="<eos>")
    assert tokenizer.special_ids == {0}
    assert tokenizer.decode([1, 0]) == "a"
    assert tokenizer.stream(_ids(1)).push([2, 0]).strip() == "b"


@pytest.mark.parametrize("tokenizer", [METASPACE, WORDPIECE], ids=lambda t: t.name)
@given(data=st.data())
def test_stream_continues_the_prompt(tokenizer: Tokenizer, data: st.DataObject) -> None:
    token_ids = st.integers(0, tokenizer.vocab_size - 1)
    ordinary = [i for i in range(3, tokenizer.vocab_size) if not _is_byte(tokenizer, i)]
    prompt = data.draw(st.lists(st.sampled_from(ordinary), min_size=1, max_size=4))
    completion = data.draw(st.lists(token_ids, max_size=12))
    stream = tokenizer.stream(_ids(*prompt))
    texts = [stream.push([i]) for i in completion]
    whole = tokenizer.decode([*prompt, *completion])
    assert tokenizer.decode(prompt) + stream.finish() == whole
    assert all(not text.endswith(HALF) for text in texts)
    if HALF not in whole:
        assert all(stream.finish().startswith(text) for text in texts)
        assert texts[-1:] in ([], [stream.finish()])


def _is_byte(tokenizer: Tokenizer, token_id: int) -> bool:
    return tokenizer.backend.id_to_token(token_id).startswith("<0x")


def test_metaspace_keeps_the_space_before_the_first_word() -> None:
    prompt = METASPACE.encode("hello")
    stream = METASPACE.stream(_ids(*prompt))
    texts = [stream.push([METASPACE.backend.token_to_id(t)]) for t in ("▁world", "!")]
    assert texts == [" world", " world!"]


def test_metaspace_without_a_word_before() -> None:
    stream = METASPACE.stream(_ids(1))  # only the begin-of-text token
    assert stream.push([METASPACE.backend.token_to_id("▁world")]) == "world"


def test_what_is_written_after_a_prompt_reads_as_it_is() -> None:
    form, eos = PlainFormat(METASPACE), METASPACE.eos_token_id
    prompt = METASPACE.encode("hello")
    for text in (" world!", "world", "", "\n"):
        ids = form.encode_completion(Example("hello"), text)
        assert ids[-1] == eos
        assert "".join(METASPACE.pieces(_ids(*prompt), ids)) == text


def test_byte_tokens_show_a_character_when_it_is_whole() -> None:
    stream = METASPACE.stream(_ids(*METASPACE.encode("hello")))
    ids = [METASPACE.backend.token_to_id(f"<0x{byte:02X}>") for byte in "中é🙂".encode()]
    texts = [stream.push([i]) for i in ids]
    assert texts == ["", "", "中", "中", "中é", "中é", "中é", "中é", "中é🙂"]


def test_wordpiece_spacing() -> None:
    stream = WORDPIECE.stream(_ids(3))
    ids = [WORDPIECE.backend.token_to_id(t) for t in ("go", "##ing", ",", "world", ".", "[SEP]")]
    assert [stream.push([i]) for i in ids][-1] == " going, world."


def test_save_and_load(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    byte_tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.name == str(tmp_path)
    assert (loaded.vocab_size, loaded.eos_token_id, loaded.bos_token_id) == (257, 0, None)
    text = "Größe 中 🙂\n"
    assert loaded.encode(text) == byte_tokenizer.encode(text) == _byte_ids(text.encode())
    assert loaded.decode(loaded.encode(text)) == text


@pytest.mark.parametrize("tokenizer", [METASPACE, WORDPIECE], ids=lambda t: t.name)
def test_transformers_reads_what_is_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.eos_token_id == tokenizer.eos_token_id
    assert other.bos_token_id == tokenizer.bos_token_id
    text = "hello world, going."
    assert other.encode(text) == tokenizer.encode(text)
    ids = [*tokenizer.encode_plain(text), tokenizer.eos_token_id]
    decoded = other.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert decoded == tokenizer.decode(ids)


def test_begin_of_text_token_only_where_it_is_wanted() -> None:
    assert METASPACE.encode("hello")[0] == METASPACE.bos_token_id == 1
    assert METASPACE.encode_plain("hello") == METASPACE.encode("hello")[1:]
    assert METASPACE.special_ids >= {0, 1, 2}


def test_special_tokens_from_either_file(byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    byte_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": null}')
    map_file = tmp_path / "special_tokens_map.json"
    map_file.write_text(json.dumps({"eos_token": {"content": EOS, "lstrip": False}}))
    assert Tokenizer.from_pretrained(tmp_path).eos_token_id == 0


def test_padding_is_the_end_of_text_token_or_0() -> None:
    assert WORDPIECE.pad_token_id == 0
    assert METASPACE.pad_token_id == METASPACE.eos_token_id == 2
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    assert Tokenizer(backend, name="x").pad_token_id == 0


def test_padding_and_truncation_of_the_file_are_ignored(
    byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    backend = tokenizers.Tokenizer.from_str(byte_tokenizer.backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_pretrained(tmp_path).encode("hello")) == 5


def test_loaded_once_and_again_when_the_file_changes(
    byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    byte_tokenizer.save_pretrained(tmp_path)
    first = Tokenizer.from_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path) is first
    WORDPIECE.save_pretrained(tmp_path)
    os.utime(tmp_path / "tokenizer.json", ns=(1, 1))  # file times are coarse on some systems
    assert Tokenizer.from_pretrained(tmp_path).vocab_size == WORDPIECE.vocab_size


def test_a_special_token_that_is_not_in_the_vocabulary() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(ValueError, match=r"'<eos>' as its eos token.*1 tokens"):
        Tokenizer(backend, name="x", eos_token="<eos>")


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(FileNotFoundError, match=r"is neither one that goes by name"):
        Tokenizer.from_pretrained("no/such/directory")


@pytest.mark.parametrize("tokenizer", [METASPACE, WORDPIECE], ids=lambda t: t.name)
def test_copies(tokenizer: Tokenizer) -> None:
    text = "hello world, 中"
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other.encode(text) == tokenizer.encode(text)
        assert other.special_ids == tokenizer.special_ids
        assert repr(other) == repr(tokenizer)


def test_the_builtin_tokenizer() -> None:
    tokenizer = Tokenizer.from_pretrained("builtin")
    text = "When I saw the king, he said: naïve 中 🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_id is not None
