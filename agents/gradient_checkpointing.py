"""Less memory in an update: layers compute their inside again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a model's trunk; none of a family that does not tell."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]


def checkpoint_layers(model: nn.Module) -> None:
    """Let every layer compute its inside again in the backward pass.

    The way that transformers offers works in its training mode only, which turns on dropout.
    """
    layers = layers_of(model)
    if not layers:
        raise ValueError(
            f"gradient_checkpointing does not know the layers of {type(model).__name__}; "
            "leave it off, or make micro_batch_tokens smaller."
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
