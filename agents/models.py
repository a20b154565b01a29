"""Where a causal language model comes from: built in, a directory, a hub id, with an adapter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from textgym.tokenizer import BUILTIN, BUILTIN_DIRECTORY

ModelSpec: TypeAlias = "str | Path | nn.Module"
"""A built-in model's name, a local directory, a hub id, or a causal LM itself."""

_CONFIG_FILES = {"config.json", "adapter_config.json"}  # PEFT saves adapters with the latter
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
)


def load_model(source: str | Path) -> nn.Module:
    """Load a causal language model in float32, by built-in name, directory or hub id.

    Of one that was saved with PEFT the adapter can be trained, and nothing else.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    from transformers import AutoModelForCausalLM

    location = _location(source)
    try:
        if os.path.isdir(location) and not _CONFIG_FILES & set(os.listdir(location)):
            raise FileNotFoundError(f"{location} holds no config.json")
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    except OSError as error:
        raise FileNotFoundError(
            f"no model {str(source)!r}: it is neither {BUILTIN!r}, nor a directory with a "
            f"config.json and weights, nor a model that the Hugging Face hub gave. ({error})"
        ) from error
    assert isinstance(model, nn.Module)
    if has_adapter(model):
        _switch_adapter(model, True)  # transformers loads it frozen
    return model


def model_source(model: ModelSpec) -> str | None:
    """Where a model's files are: a directory or a hub id; None for a module made in memory."""
    if isinstance(model, nn.Module):
        return getattr(getattr(model, "config", None), "name_or_path", None) or None
    return _location(model)


def tokenizer_files(source: str) -> list[Path]:
    """The tokenizer's files in a model's directory, or in the local cache of a hub id."""
    if Path(source).is_dir():
        return [path for name in _TOKENIZER_FILES if (path := Path(source, name)).is_file()]
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = [try_to_load_from_cache(source, name) for name in _TOKENIZER_FILES]
    except HFValidationError:  # no hub id: a directory that is gone
        return []
    return [Path(path) for path in cached if isinstance(path, str)]


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _location(source: str | Path) -> str:
    return str(BUILTIN_DIRECTORY) if str(source) == BUILTIN else os.path.expanduser(source)


def with_lora(model: nn.Module, lora: bool | Mapping[str, Any]) -> nn.Module:
    """A model of which only low-rank adapters are trained.

    Args:
        model: A causal LM, which is changed in place.
        lora: Arguments of `peft.LoraConfig`, such as `{"r": 16}`; True for its defaults.

    Raises:
        ModuleNotFoundError: If PEFT is not installed.
        ValueError: If the model has an adapter already.
    """
    from transformers.pytorch_utils import Conv1D

    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "lora needs the package peft: pip install peft", name="peft"
        ) from error
    if has_adapter(model):
        raise ValueError("the model has an adapter already, which is trained on; leave lora out.")
    arguments = {} if lora is True else dict(lora or {})
    # GPT-2's layers hold their weights the other way round.
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    defaults = {"task_type": "CAUSAL_LM", "fan_in_fan_out": transposed}
    config = peft.LoraConfig(**{**defaults, **arguments})
    _take_out_adapter(model)  # which is in a model that SB3 saved together with its policy
    with warnings.catch_warnings():
        # PEFT asks transformers under a name that transformers gave up.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted: nn.Module = peft.get_peft_model(model, config)
    return adapted


def _take_out_adapter(model: nn.Module) -> None:
    """Make a model what it was before `with_lora` changed it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        model.set_submodule(name, layer.get_base_layer())
    if layers:
        del model.peft_config


def has_adapter(model: nn.Module) -> bool:
    """Whether a model is a frozen one with an adapter of PEFT on it."""
    return hasattr(model, "disable_adapter") or getattr(model, "_hf_peft_config_loaded", False)


@contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """Let a model be what it was before it got its adapter."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    _switch_adapter(model, False)  # of a model that was loaded together with its adapter
    try:
        yield
    finally:
        _switch_adapter(model, True)


def _switch_adapter(model: nn.Module, on: bool) -> None:
    """Switch the adapter that transformers put into a model on or off.

    Its own `enable_adapters` leaves layers off that were saved whole ("modules_to_save").
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for module in model.modules():
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            module.enable_adapters(on)


@contextmanager
def using_attention(model: Any, name: str) -> Iterator[None]:
    """Let a model use an attention function of transformers' registry.

    Setting it in public would check it, warn and be saved.
    """
    implementation = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = implementation


def refuse_unknown(options: Mapping[str, Any]) -> None:
    """Raise if attention is asked for something that ours does not do.

    Numbers alone do not tell: a cap on scores changes small ones by next to nothing.

    Raises:
        NotImplementedError: If one of the options that change attention is given.
    """
    for name in ("position_bias", "s_aux", "softcap"):
        if options.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
