"""Adapters of PEFT: where the model is that one was trained on, and both as a single model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from torch import nn

from agents.gguf import copies_directory
from textgym.models import model_directory, names

ADAPTER_CONFIG = "adapter_config.json"


def base_of(directory: Path) -> str:
    """Where the model is that an adapter was trained on: a directory, a name or a hub id.

    PEFT writes down the directory from which the model was loaded. Relative ones are looked for
    from here and from the adapter. Where the built-in model, or the copy of a GGUF file, is in
    another place now, it is known by the last two parts of its path.

    Args:
        directory: The adapter's.

    Raises:
        ValueError: If the adapter does not say what model it was trained on.
        MissingExtra: If a package is needed for that model.
    """
    file = directory / ADAPTER_CONFIG
    said = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not said:
        raise ValueError(
            f"{file} does not say what model the adapter was trained on. Write its name, directory "
            "or hub id there, as base_model_name_or_path."
        )
    path = Path(said).expanduser()
    if said in names() or path.is_dir():
        return str(said)
    places = [directory / path, copies_directory().joinpath(*path.parts[-2:])]
    found = next((place for place in places if place.is_dir()), None)
    if found is None and path.is_absolute() and path.name in names():
        place = model_directory(path.name)
        found = place if place is not None and place.parts[-2:] == path.parts[-2:] else None
    return str(said if found is None else found)


def merged(model: Any) -> Any:
    """A copy of a model with its adapter folded into its weights, so that PEFT is not needed.

    For the time of the copy the model takes twice its memory.

    Args:
        model: A causal LM with an adapter, which is not changed; one without is returned as it is.

    Raises:
        ValueError: If the adapter is none that can be folded in, such as a trained prompt.
    """
    if not hasattr(model, "peft_config"):
        return model
    for config in model.peft_config.values():
        if config.is_prompt_learning:
            raise ValueError(
                f"an adapter of type {config.peft_type} cannot be folded into the weights; save it "
                "as it is."
            )
    plain = copy.deepcopy(model)
    if hasattr(plain, "get_base_model"):
        plain = plain.get_base_model()
    _untie_adapted(plain)
    take_out_adapter(plain, merge=True)
    if getattr(plain, "_hf_peft_config_loaded", False):
        # What transformers notes of an adapter that it loaded, and how it would name weights then.
        plain._hf_peft_config_loaded = False
        plain._weight_conversions = None
    head, embeddings = plain.get_output_embeddings(), plain.get_input_embeddings()
    if head.weight is not embeddings.weight:
        plain.config.tie_word_embeddings = False
    return plain


def take_out_adapter(model: Any, *, merge: bool = False) -> None:
    """Make a model what it was before it got its adapter; or a plain one of what it is with it."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper) and merge:
            whole = module.unload_and_optionally_merge_module(True, False, None)
            model.set_submodule(name, whole)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            model.set_submodule(name, module.original_module)
        elif isinstance(module, BaseTunerLayer):
            if merge:
                module.merge()
            model.set_submodule(name, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _untie_adapted(model: Any) -> None:
    """Give layers with an adapter weights of their own, that folding it in changes no other."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    weights = [weight for _, weight in model.named_parameters(remove_duplicate=False)]
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            base: Any = layer.get_base_layer()
            if sum(weight is base.weight for weight in weights) > 1:
                base.weight = nn.Parameter(base.weight.detach().clone())
