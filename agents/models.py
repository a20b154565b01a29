"""Where a causal language model comes from: a name, a directory, a hub id, with an adapter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from torch import nn

from agents.adapters import ADAPTER_CONFIG, base_of, take_out_adapter
from textgym.extras import require
from textgym.models import model_directory, not_found

ModelSpec: TypeAlias = "str | Path | nn.Module"
"""A model's name, a local directory, a GGUF file, a hub id, or a causal LM itself."""

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
    """Load a causal language model in float32, by name, directory, GGUF file or hub id.

    Names are those of `textgym.models`. Of a model that was saved with PEFT the adapter can be
    trained, and nothing else.

    Raises:
        FileNotFoundError: If there is no such model, or none that its adapter was trained on.
        TypeError: If it is a model of another kind.
        ValueError: If its files cannot be read.
        MissingExtra: If a package is needed for it, such as PEFT for an adapter.
    """
    directory = model_directory(source)
    if directory is None:
        try:
            check_reachable(str(source))
        except FileNotFoundError as error:
            raise FileNotFoundError(not_found(source)) from error
        try:
            model = _from_pretrained(str(source))
        except OSError as error:
            raise FileNotFoundError(f"{not_found(source)} ({error})") from error
    else:
        model = _load_directory(directory.absolute(), str(source))
    if has_adapter(model):
        _switch_adapter(model, True)  # transformers loads it frozen
    return model


def check_reachable(hub_id: str) -> None:
    """Raise at once if the hub gives no such model: transformers would try for a minute.

    Raises:
        FileNotFoundError: If it gives none, with what it says.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(hub_id, allow_patterns=["config.json", ADAPTER_CONFIG])
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(str(error)) from error


def model_source(model: ModelSpec) -> str | None:
    """Where a model's files are: a directory or a hub id; None for a module made in memory.

    Nothing is said of whether they are there: loading tells.
    """
    if isinstance(model, nn.Module):
        return getattr(getattr(model, "config", None), "name_or_path", None) or None
    try:
        return str(model_directory(model) or model)
    except FileNotFoundError:
        return str(Path(model).expanduser())


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


def _load_directory(directory: Path, name: str) -> nn.Module:
    """Load a model's directory, or an adapter's and the model that it was trained on.

    An absolute path is what PEFT then writes into adapters, so that they are found from anywhere.
    """
    has_config = (directory / "config.json").is_file()
    if (directory / ADAPTER_CONFIG).is_file():
        # Without PEFT transformers would leave the adapter out, and say nothing.
        require("peft", extra="lora", wanted_by=f"the adapter in {directory}")
        if not has_config:
            return _load_adapter(directory)
    if not has_config:
        raise FileNotFoundError(f"no model {name!r}: {directory} holds no config.json.")
    try:
        return _from_pretrained(str(directory))
    except OSError as error:
        raise FileNotFoundError(f"no model {name!r}: {error}") from error


def _load_adapter(directory: Path) -> nn.Module:
    base = base_of(directory)
    try:
        model: Any = load_model(base)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the adapter in {directory} needs the model that it was trained on, which is not at "
            f"{base!r}. Write where it is (a name, directory or hub id) into its {ADAPTER_CONFIG}, "
            f"as base_model_name_or_path. ({error})"
        ) from error
    with no_progress_bars():
        model.load_adapter(str(directory))
    return model  # type: ignore[no-any-return]


def _from_pretrained(location: str) -> nn.Module:
    from transformers import AutoModelForCausalLM

    _check_causal(location)
    try:
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    except (SafetensorError, UnpicklingError) as error:
        raise ValueError(
            f"the weights in {location} cannot be read: {error}. Copy or save them again, as "
            "safetensors."
        ) from error
    assert isinstance(model, nn.Module)
    return model


def _check_causal(location: str) -> None:
    """Raise if a model is not one that predicts the next token of a single text.

    transformers loads some of those all the same, and leaves weights out.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If its configuration cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
    )

    import agents.recurrent  # noqa: F401  # so that transformers knows such models

    try:
        config: Any = AutoConfig.from_pretrained(location)
    except OSError:  # an adapter on the hub, or nothing; loading tells which
        return
    except StrictDataclassError as error:
        raise ValueError(f"the config.json of {location!r} cannot be read: {error}.") from error
    kind = type(config)
    decodes = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    if config.is_encoder_decoder:
        reason = "it reads the prompt with an encoder and writes with a decoder"
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        reason = "it has no head for the next token"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING and not decodes:
        reason = "it is an encoder, which reads to both sides of a token"
    else:
        return
    raise TypeError(
        f"{location!r} is a {config.model_type} model, and cannot be trained to write token by "
        f"token here: {reason}. Take a decoder-only language model, such as GPT-2, Llama, Qwen or "
        "the built-in one."
    )


def with_lora(model: nn.Module, lora: bool | Mapping[str, Any]) -> nn.Module:
    """A model of which only low-rank adapters are trained.

    Args:
        model: A causal LM, which is changed in place.
        lora: Arguments of `peft.LoraConfig`; True for its defaults. The rank is `r`, its scale
            `lora_alpha / r`, and `target_modules` says which layers, by default those that PEFT
            takes for the family, or all linear ones; `modules_to_save` are trained whole.
            `lora_dropout` must stay 0: the probabilities of a rollout and those of the update must
            agree.

    Raises:
        MissingExtra: If PEFT is not installed.
        TypeError: If `lora` is neither True nor a mapping.
        ValueError: If the model has an adapter already, is a recurrent network, or an argument is
            refused.
    """
    from transformers.pytorch_utils import Conv1D

    from agents.recurrent import RecurrentForCausalLM

    if isinstance(model, RecurrentForCausalLM):
        raise ValueError(
            "lora is for linear layers, and a recurrent network's are inside of its cells; leave "
            "lora out, so that all of it is trained."
        )
    peft = require("peft", extra="lora", wanted_by="lora")
    if has_adapter(model):
        raise ValueError("the model has an adapter already, which is trained on; leave lora out.")
    if not isinstance(lora, (bool, Mapping)):
        raise TypeError(f"lora is True or a dict, such as {{'r': 8}}, got {lora!r}.")
    arguments = {} if lora is True else dict(lora or {})
    unknown = arguments.keys() - {field.name for field in fields(peft.LoraConfig)}
    if unknown:
        raise ValueError(
            f"peft.LoraConfig takes no {', '.join(map(repr, sorted(unknown)))}. The rank is 'r', "
            "its scale 'lora_alpha' (divided by the rank), the layers are 'target_modules'."
        )
    if arguments.get("lora_dropout"):
        raise ValueError(
            f"lora_dropout must be 0, got {arguments['lora_dropout']!r}: with dropout the "
            "probabilities of an update would not be those of its rollout. Leave it out."
        )
    # GPT-2's layers hold their weights the other way round.
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    defaults = {"task_type": "CAUSAL_LM", "fan_in_fan_out": transposed}
    if _family(model) not in peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING:
        defaults["target_modules"] = "all-linear"  # PEFT does not know which layers to take
    config = peft.LoraConfig(**{**defaults, **arguments})
    take_out_adapter(model)  # which is in a model that SB3 saved together with its policy
    with warnings.catch_warnings():
        # PEFT asks transformers under a name that transformers gave up.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted: nn.Module = peft.get_peft_model(model, config)
    return adapted


def _family(model: nn.Module) -> str | None:
    return getattr(getattr(model, "config", None), "model_type", None)


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
