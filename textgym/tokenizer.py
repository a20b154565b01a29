"""Text to token ids and back, for any tokenizer that Hugging Face `tokenizers` can read."""

from __future__ import annotations

import codecs
import copy
import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

import numpy as np
import tokenizers
from numpy.typing import NDArray

from textgym.chat import ChatTemplate
from textgym.models import BUILTIN as BUILTIN
from textgym.models import BUILTIN_DIRECTORY as BUILTIN_DIRECTORY
from textgym.models import model_directory, not_found

_CHAT_TEMPLATE = "chat_template.jinja"
_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", _CHAT_TEMPLATE]


class TextStream(Protocol):
    """Decodes one completion token by token; made by `Tokenizer.stream`."""

    def push(self, token_ids: list[int]) -> str:
        """Take the next tokens and return the whole text so far, without half a character."""

    def finish(self) -> str:
        """Return the final text, a character that stayed incomplete included (as U+FFFD)."""


class Tokenizer:
    """A tokenizer: text to ids, ids to text, and text that grows with every token.

    Args:
        backend: The Hugging Face `tokenizers.Tokenizer`.
        name: What it was loaded from; shown in messages and stored in run files.
        eos_token: Ends a text. None if the tokenizer has none.
        bos_token: Begins a text. None if the tokenizer has none.
        pad_token: Fills unused positions; the end-of-text token if None, or id 0 if that is too.
        chat_template: Jinja that makes a text of messages. None if the tokenizer has none.

    Attributes:
        chat_template: The chat template, or None.

    Raises:
        ValueError: If a special token is not in the vocabulary.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        name: str,
        eos_token: str | None = None,
        bos_token: str | None = None,
        pad_token: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.backend = backend
        self.name = name
        special = {"eos_token": eos_token, "bos_token": bos_token, "pad_token": pad_token}
        named = {key: token for key, token in special.items() if token is not None}
        self.chat_template = (
            None if chat_template is None else ChatTemplate(chat_template, named, name)
        )
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.eos_token_id = self._special_id("eos", eos_token)
        self.bos_token_id = self._special_id("bos", bos_token)
        pad_id = self._special_id("pad", pad_token)
        self.pad_token_id: int = next(i for i in (pad_id, self.eos_token_id, 0) if i is not None)
        added = backend.get_added_tokens_decoder()
        roles = (self.eos_token_id, self.bos_token_id, pad_id)
        flagged = (i for i, token in added.items() if token.special)
        self.special_ids = frozenset(i for i in (*roles, *flagged) if i is not None)
        self._bytes = self._byte_table(vocabulary)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> Tokenizer:
        """Load a model's tokenizer: by name, local directory, GGUF file or Hugging Face hub id.

        Names are those of `textgym.models`, such as `"builtin"`. The directory needs a
        `tokenizer.json`; special tokens are read from `tokenizer_config.json` or
        `special_tokens_map.json` beside it.

        Raises:
            FileNotFoundError: If there is no such model, or no `tokenizer.json` in its directory.
            ValueError: If it is a file in no format that is known.
            MissingExtra: If a package is needed for that name or file.
        """
        directory = model_directory(name_or_path) or _download(str(name_or_path))
        name = str(name_or_path)
        return _load(name, directory, _version(directory))

    @property
    def is_byte_level(self) -> bool:
        """Whether tokens are runs of bytes, each the same whatever stands before it."""
        return self._bytes is not None

    def with_eos(self, eos_token_id: int | None) -> Tokenizer:
        """This tokenizer with another end-of-text token; special tokens stay special."""
        if eos_token_id == self.eos_token_id:
            return self
        changed = copy.copy(self)
        changed.eos_token_id = eos_token_id
        return changed

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the begin-of-text token where the tokenizer adds one."""
        ids: list[int] = self.backend.encode(text).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text, with no token added."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_literal(self, text: str) -> list[int]:
        """Token ids of a text in which a special token that is spelt out is text as any other."""
        ids: list[int] = self._literal.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int] | NDArray[np.int64]) -> str:
        """The text of some token ids, special tokens left out."""
        if self._bytes is not None:
            pieces: list[bytes] = self._bytes[np.asarray(token_ids, np.int64)].tolist()
            return b"".join(pieces).decode("utf-8", "replace")
        ordinary = [int(i) for i in token_ids if i not in self.special_ids]
        text: str = self.backend.decode(ordinary)
        return text

    def stream(self, prompt_ids: NDArray[np.int64]) -> TextStream:
        """A decoder for the completion of a prompt, int64 (p,), that takes tokens as they come."""
        if self._bytes is not None:
            return _ByteStream(self._bytes)
        # With the prompt's last token in front, a decoder that strips the first token's space
        # (Metaspace) strips the prompt's and not the completion's.
        last = next((i for i in reversed(prompt_ids.tolist()) if i not in self.special_ids), None)
        return _WholeStream(self.decode, [] if last is None else [last])

    def pieces(
        self, prompt_ids: NDArray[np.int64], token_ids: list[int], *, ended: bool = True
    ) -> list[str]:
        """The text that each token of a completion adds, t items; "" for part of a character.

        Args:
            prompt_ids: The prompt's tokens, int64 (p,).
            token_ids: The completion's tokens, t of them.
            ended: Whether the completion is over: a character that stayed incomplete is shown.
        """
        stream = self.stream(prompt_ids)
        pieces: list[str] = []
        length = 0  # of the text so far, of which no copies are kept: there may be many tokens
        for place, token_id in enumerate(token_ids, start=1):
            text = stream.push([token_id])
            if ended and place == len(token_ids):
                text = stream.finish()
            pieces.append(text[length:])
            length = len(text)
        return pieces

    def save_pretrained(self, directory: Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and the chat template, if there is one.

        They are as transformers reads them.
        """
        self.backend.save(str(directory / "tokenizer.json"))
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        for key in ("eos_token", "bos_token", "pad_token"):
            token_id = getattr(self, f"{key}_id")
            config[key] = None if token_id is None else self.backend.id_to_token(token_id)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
        if self.chat_template is not None:
            (directory / _CHAT_TEMPLATE).write_text(self.chat_template.source, encoding="utf-8")

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size})"

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        backend = copy.deepcopy(self.backend)
        backend.encode_special_tokens = True
        return backend

    def _special_id(self, role: str, token: str | None) -> int | None:
        if token is None:
            return None
        token_id: int | None = self.backend.token_to_id(token)
        if token_id is None:
            raise ValueError(
                f"tokenizer {self.name!r} names {token!r} as its {role} token, but the vocabulary "
                f"of {self.vocab_size} tokens does not hold it. Correct tokenizer_config.json."
            )
        return token_id

    def _byte_table(self, vocabulary: dict[str, int]) -> NDArray[np.object_] | None:
        """The bytes of every token id, (V,), or None if tokens are not simply runs of bytes."""
        decoder = json.loads(self.backend.to_str()).get("decoder") or {}
        if decoder.get("type") != "ByteLevel":
            return None
        byte_of = {char: byte for byte, char in byte_level_alphabet().items()}
        # numpy picks out many of a table's objects in half the time that a list takes.
        table = np.full(self.vocab_size, b"", object)
        for token, i in vocabulary.items():
            if i in self.special_ids:
                continue
            mapped = [byte_of.get(char) for char in token]
            # Tokens that were added to the vocabulary by hand are stored as plain text.
            table[i] = (
                token.encode() if None in mapped else bytes(b for b in mapped if b is not None)
            )
        return table


def byte_level_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in alphabet]
    alphabet.update({byte: chr(256 + k) for k, byte in enumerate(others)})
    return alphabet


class _ByteStream:
    """Byte-level tokens: each costs its own bytes and nothing else."""

    def __init__(self, table: NDArray[np.object_]) -> None:
        self._table = table
        self._pending = b""
        self._text = ""

    def push(self, token_ids: list[int]) -> str:
        table = self._table
        data = self._pending + b"".join([table[i] for i in token_ids])
        text, used = codecs.utf_8_decode(data, "replace", False)
        pending = data[used:]
        if len(pending) > 1 and pending[0] == 0xED and pending[1] >= 0xA0:
            # Half a surrogate pair, for the rest of which Python waits, though it is no character.
            text += pending.decode("utf-8", "replace")
            pending = b""
        self._pending = pending
        self._text += text
        return self._text

    def finish(self) -> str:
        return self._text + self._pending.decode("utf-8", "replace")


class _WholeStream:
    """Any other tokenizer: decode all again, since a token may change the spacing before it."""

    def __init__(self, decode: Callable[[list[int]], str], before: list[int]) -> None:
        self._decode = decode
        self._ids = before
        self._skip = len(decode(before))
        self._text = ""
        self._whole_text = ""

    def push(self, token_ids: list[int]) -> str:
        self._ids.extend(token_ids)
        self._text = self._decode(self._ids)[self._skip :]
        whole = self._text.rstrip("\ufffd")
        # A byte that waits for its next makes the decoder of Llama's byte tokens give up the
        # characters before it too, until the next has come.
        if whole == self._text or whole.startswith(self._whole_text):
            self._whole_text = whole
        return self._whole_text

    def finish(self) -> str:
        return self._text


_SAVE = (
    "Save a fast tokenizer there: AutoTokenizer.from_pretrained(...).save_pretrained(directory)."
)


@lru_cache(maxsize=8)
def _load(name: str, directory: Path, version: int) -> Tokenizer:
    """Read a tokenizer once, however many environments use it; `version` tells if it changed."""
    path = directory / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library knows no other
        raise ValueError(f"{path} is no tokenizer: {error}. {_SAVE}") from error
    backend.no_padding()
    backend.no_truncation()
    special: dict[str, str | None] = {}
    templates: Any = None
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / file).is_file():
            config = _read_config(directory / file)
            for key in ("eos_token", "bos_token", "pad_token"):
                token = config.get(key)
                if isinstance(token, dict):
                    token = token.get("content")
                if not isinstance(token, (str, NoneType)):
                    raise ValueError(
                        f"{directory / file}: {key} is a string or null, got {token!r}."
                    )
                if token is not None:
                    special[key] = token
            templates = config.get("chat_template", templates)
    if (directory / _CHAT_TEMPLATE).is_file():
        templates = (directory / _CHAT_TEMPLATE).read_text(encoding="utf-8")
    return Tokenizer(backend, name=name, chat_template=_default_template(templates), **special)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}. {_SAVE}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is a JSON object, got {config!r}. {_SAVE}")
    return config


def _default_template(templates: Any) -> str | None:
    """The chat template, or the default one of several by name, as tokenizer_config.json has it."""
    if isinstance(templates, list):
        templates = {entry["name"]: entry["template"] for entry in templates}.get("default")
    return templates if isinstance(templates, str) else None


def _version(directory: Path) -> int:
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no tokenizer.json. {_SAVE}")
    return path.stat().st_mtime_ns


def _download(name: str) -> Path:
    """The local snapshot of a hub id's tokenizer files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(not_found(name)) from error
