"""A fresh recurrent language model by name, so that settings can say which one they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast, get_args

from agents.recurrent.model import Kind, RecurrentConfig, RecurrentForCausalLM
from textgym.registry import did_you_mean

RecurrentSpec: TypeAlias = "str | Mapping[str, Any]"
"""A name, "lstm", or a name with sizes, {"name": "lstm", "width": 256, "layers": 1}."""

_SIZES = {"width": 256, "layers": 1}


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
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    for key in given.keys() - {"name", *_SIZES}:
        raise ValueError(
            f"backbone: no setting {key!r}; {did_you_mean(str(key), ['name', *_SIZES])}."
        )
    name = given.get("name")
    if name not in get_args(Kind):
        raise ValueError(
            f"backbone: expected the name of a recurrent network, got {name!r}; "
            f"{did_you_mean(str(name), get_args(Kind))}."
        )
    sizes = {**_SIZES, **given, "num_tokens": num_tokens}
    for key in (*_SIZES, "num_tokens"):
        size = sizes[key]
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"backbone: {key} must be a whole number above 0, got {size!r}. Give for instance "
                f"{{'name': {name!r}, 'width': 256, 'layers': 1}}."
            )
    return RecurrentForCausalLM(
        RecurrentConfig(
            kind=cast(Kind, name),
            vocab_size=num_tokens,
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["layers"],
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    )
