"""A Hugging Face causal language model as a function of SB3 observations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from textgym.tokenizer import BUILTIN, BUILTIN_DIRECTORY

ModelSpec: TypeAlias = "str | Path | nn.Module"
"""A built-in model's name, a local directory, a hub id, or a causal LM itself."""


class NextToken(NamedTuple):
    """What the model says at the last token of each row.

    Attributes:
        hidden: What the model's head reads, float (n, width).
        logits: Scores of the next token, float32 (n, vocabulary).
    """

    hidden: Tensor
    logits: Tensor


class Backbone(nn.Module):
    """A causal language model that reads right-padded token ids and looks at the last one.

    Dropout stays off: the probabilities of a rollout and those of the update must agree.

    Args:
        model: The built-in model's name, a local directory, a hub id, or a causal LM itself,
            which is then trained in place.
        num_tokens: Size of the tokenizer's vocabulary. A head wider than that (vocabularies are
            often padded to a round number) has its surplus cut off everywhere.
        context_length: The longest context that will come.

    Raises:
        ValueError: If the head is narrower than the vocabulary, or the context is longer than
            the model's positions.
        FileNotFoundError: If there is no such model.
        TypeError: If the model is not a causal LM in Hugging Face's sense.
    """

    def __init__(self, model: ModelSpec, num_tokens: int, context_length: int) -> None:
        super().__init__()
        self.source = model_source(model)
        self.model = model if isinstance(model, nn.Module) else load_model(model)
        self.num_tokens = num_tokens
        head = self._head()
        self.width = int(head.weight.shape[-1])
        self._check_fit(int(head.weight.shape[0]), context_length)
        self._accepts = _accepted_inputs(self.model)
        self.model.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> NextToken:
        """Read each row up to its last token.

        Args:
            input_ids: Token ids, int64 (n, L), right-padded.
            attention_mask: 1 on tokens, 0 on padding, (n, L).
        """
        batch = left_aligned(input_ids, attention_mask)
        inputs = {key: value for key, value in batch.items() if key in self._accepts}
        if "logits_to_keep" in self._accepts:
            inputs["logits_to_keep"] = 1
        if "use_cache" in self._accepts:
            inputs["use_cache"] = False
        with self._watched_head() as seen:
            logits = self.model(**inputs).logits
        return NextToken(seen[-1][:, -1].float(), logits[:, -1, : self.num_tokens].float())

    def train(self, mode: bool = True) -> Backbone:
        """Switch the mode of everything but the model: its dropout stays off."""
        super().train(mode)
        self.model.eval()
        return self

    @contextmanager
    def _watched_head(self) -> Iterator[list[Tensor]]:
        """Collect what the head reads.

        The model's own forward goes on to scale or cap the logits where its family does so,
        which calling the head by ourselves would miss.
        """
        seen: list[Tensor] = []
        handle = self._head().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            yield seen
        finally:
            handle.remove()

    def _head(self) -> nn.Module:
        get_head = getattr(self.model, "get_output_embeddings", None)
        head = get_head() if get_head is not None else None
        if not isinstance(head, nn.Module) or not hasattr(head, "weight"):
            raise TypeError(
                f"expected a Hugging Face causal language model, whose get_output_embeddings() "
                f"gives its head; got {type(self.model).__name__}. Load one with "
                "AutoModelForCausalLM.from_pretrained(...)."
            )
        return head

    def _check_fit(self, head_size: int, context_length: int) -> None:
        if head_size < self.num_tokens:
            raise ValueError(
                f"the tokenizer has {self.num_tokens} tokens and the model {self.source!r} knows "
                f"{head_size}. Give the environment the model's own tokenizer "
                "(tokenizer=<the model's directory or hub id>), or enlarge the model with "
                "model.resize_token_embeddings(...)."
            )
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and positions < context_length:
            raise ValueError(
                f"the environment's context_length is {context_length} and the model "
                f"{self.source!r} has {positions} positions. Give the environment a smaller "
                "context_length or max_new_tokens."
            )


def left_aligned(input_ids: Tensor, attention_mask: Tensor) -> Mapping[str, Tensor]:
    """Move every row's tokens to the right edge and drop the columns that hold none.

    The last token of each row is then in the last column, where `logits_to_keep=1` wants it,
    and the model runs on as many columns as the longest row has tokens.

    Args:
        input_ids: int64 (n, L), right-padded.
        attention_mask: (n, L).

    Returns:
        `input_ids`, `attention_mask` and `position_ids`, int64 (n, T), left-padded; positions
        count from each row's first token.
    """
    lengths = attention_mask.long().sum(dim=1, keepdim=True)
    columns = int(lengths.max())
    index = torch.arange(columns, device=input_ids.device) - (columns - lengths)
    positions = index.clamp(min=0)
    return {
        "input_ids": input_ids.gather(1, positions),
        "attention_mask": (index >= 0).long(),
        "position_ids": positions,
    }


def load_model(source: str | Path) -> nn.Module:
    """Load a causal language model in float32, by built-in name, directory or hub id.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    path = str(BUILTIN_DIRECTORY if str(source) == BUILTIN else Path(source).expanduser())
    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    except OSError as error:
        raise FileNotFoundError(
            f"no model {str(source)!r}: it is neither {BUILTIN!r}, nor a directory with a "
            f"config.json and weights, nor a model that the Hugging Face hub gave. ({error})"
        ) from error
    finally:
        if shows_progress:
            logging.enable_progress_bar()
    assert isinstance(model, nn.Module)
    return model


def model_source(model: ModelSpec) -> str | None:
    """Where a model's files are: a directory or a hub id; None for a module made in memory."""
    if isinstance(model, nn.Module):
        name = getattr(getattr(model, "config", None), "name_or_path", "")
        return str(name) or None
    return str(BUILTIN_DIRECTORY if str(model) == BUILTIN else Path(model).expanduser())


def _accepted_inputs(model: nn.Module) -> frozenset[str]:
    """The inputs that a model's forward knows, of those that we could give it."""
    base = getattr(model, "get_base_model", None)  # a PEFT model's forward takes *args, **kwargs
    forward = (base() if base is not None else model).forward
    return frozenset(inspect.signature(forward).parameters)
