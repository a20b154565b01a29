"""A fresh recurrent language model by name, so that settings can say which one they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast, get_args

from agents.recurrent.model import Kind, RecurrentConfig, RecurrentForCausalLM
from textgym.registry import did_you_mean

RecurrentSpec: TypeAlias = "str | Mapping[str, Any]"
"""A name, "lstm", or a name with sizes, {"name": "lstm", "width": 256, "layers": 1}."""

_SIZES = {"width": 256, "layers": 1}
"""Of a network that is only named."""


def check_backbone(
    spec: RecurrentSpec | None, lora_rank: int | None, gradient_checkpointing: bool
) -> None:
    """Raise if settings of a run ask for a recurrent network that cannot be made.

    Args:
        spec: As for `make_recurrent`; None for no such network.
        lora_rank: The rank of adapters, which it cannot have.
        gradient_checkpointing: Whether its layers are to be computed twice, which they cannot be.

    Raises:
        ValueError: With what was expected.
    """
    if spec is None:
        return
    recurrent_sizes(spec)
    refused = {"lora_rank": lora_rank, "gradient_checkpointing": gradient_checkpointing or None}
    for name, value in refused.items():
        if value is not None:
            raise ValueError(
                f"{name}={value!r} is for transformers, and backbone={spec!r} is a recurrent "
                f"network from scratch; leave {name} out."
            )


def recurrent_sizes(spec: RecurrentSpec) -> tuple[Kind, int, int]:
    """The kind, the width and the number of layers that a spec asks for.

    Raises:
        ValueError: If a name or a key is unknown, or a size is not a positive whole number.
    """
    if not isinstance(spec, (str, Mapping)):
        raise ValueError(
            f"backbone: expected a name or a mapping, got {spec!r}. Give for instance 'lstm', or "
            "{'name': 'lstm', 'width': 256, 'layers': 1}."
        )
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    for key in given.keys() - {"name", *_SIZES}:
        raise ValueError(
            f"backbone: no setting {key!r}; {did_you_mean(str(key), ['name', *_SIZES])}."
        )
    name: Any = given.get("name")
    if name not in get_args(Kind):
        raise ValueError(
            f"backbone: expected the name of a recurrent network, got {name!r}; "
            f"{did_you_mean(str(name), get_args(Kind))}."
        )
    sizes = {**_SIZES, **given}
    for key in _SIZES:
        _check_size(key, sizes[key], name)
    return cast(Kind, name), sizes["width"], sizes["layers"]


def make_recurrent(
    spec: RecurrentSpec, num_tokens: int, *, eos: int | None = None, pad: int | None = None
) -> RecurrentForCausalLM:
    """A recurrent language model with random weights, of torch's global generator.

    Args:
        spec: "rnn", "lstm" or "gru", or a mapping with the `name` and any of `width` (of the
            embeddings and of each layer's state; 256) and `layers` (1).
        num_tokens: Size of the vocabulary.
        eos: The token that begins and ends a text, for `generate`; None if there is none.
        pad: The token that fills rows.

    Raises:
        ValueError: If a name or a key is unknown, or a size is not a positive whole number.
    """
    name, width, layers = recurrent_sizes(spec)
    _check_size("num_tokens", num_tokens, name)
    return RecurrentForCausalLM(
        RecurrentConfig(
            kind=name,
            vocab_size=num_tokens,
            hidden_size=width,
            num_hidden_layers=layers,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    )


def _check_size(key: str, size: Any, name: str) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"backbone: {key} must be a whole number above 0, got {size!r}. Give for instance "
            f"{{'name': {name!r}, 'width': 256, 'layers': 1}}."
        )


def backbone_in_words(spec: RecurrentSpec, tokenizer: str) -> str:
    """A network from scratch: `an LSTM of width 256 from scratch, with the tokens of builtin`."""
    name, width, layers = recurrent_sizes(spec)
    article = "a" if name == "gru" else "an"
    size = f"width {width}" if layers == 1 else f"{layers} layers of width {width}"
    return f"{article} {name.upper()} of {size} from scratch, with the tokens of {tokenizer}"
