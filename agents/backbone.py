"""A Hugging Face causal language model as a function of SB3 observations."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

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


class NextToken(NamedTuple):
    """What the model says at the last token of each row.

    Attributes:
        hidden: What the model's head reads, float32 (n, width).
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

    Attributes:
        model: The causal LM.
        source: Where it came from: a directory or a hub id; None for one made in memory.
        num_tokens: Size of the tokenizer's vocabulary.
        width: Size of what the head reads.

    Raises:
        ValueError: If the head is narrower than the vocabulary, the context is longer than the
            model's positions, or padding changes what the model says.
        FileNotFoundError: If there is no such model.
        TypeError: If the model is not a causal LM in Hugging Face's sense.
    """

    model: Any

    def __init__(self, model: ModelSpec, num_tokens: int, context_length: int) -> None:
        super().__init__()
        self.source = model_source(model)
        self.model = model if isinstance(model, nn.Module) else load_model(model)
        self.num_tokens = num_tokens
        head_size, self.width = self._head().weight.shape
        self._accepts = _accepted_inputs(self.model)
        self.train()
        self._check_fit(head_size, context_length)
        self._check_padding(context_length)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> NextToken:
        """Read each row up to its last token.

        Args:
            input_ids: Token ids, int64 (n, L), right-padded.
            attention_mask: 1 on tokens, 0 on padding, (n, L).

        Raises:
            ValueError: If a row does not begin with a token.
        """
        return self._last(left_padded(input_ids, attention_mask))

    def train(self, mode: bool = True) -> Backbone:
        """Note the mode, and leave the model in evaluation: its dropout stays off."""
        super().train(False)
        self.training = mode
        return self

    def _last(self, inputs: Mapping[str, Tensor]) -> NextToken:
        """What the model says in the last column of its inputs, (n, T) each."""
        options: dict[str, object] = {"logits_to_keep": 1, "use_cache": False, **inputs}
        accepted = {key: value for key, value in options.items() if key in self._accepts}
        with self._watched_head() as seen:
            logits = self.model(**accepted).logits
        return NextToken(seen[-1][:, -1].float(), logits[:, -1, : self.num_tokens].float())

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

    def _head(self) -> Any:
        get_head = getattr(self.model, "get_output_embeddings", None)
        head = get_head() if get_head is not None else None
        if not isinstance(head, nn.Module) or not hasattr(head, "weight"):
            raise TypeError(
                f"expected a Hugging Face causal language model, whose get_output_embeddings() "
                f"gives its head; got {type(self.model).__name__}. Load one with "
                "AutoModelForCausalLM.from_pretrained(...)."
            )
        return head

    def _name(self) -> str:
        family = type(self.model).__name__
        return f"{family} from {self.source!r}" if self.source else f"given {family}"

    def _check_fit(self, head_size: int, context_length: int) -> None:
        if head_size < self.num_tokens:
            raise ValueError(
                f"the tokenizer has {self.num_tokens} tokens and the {self._name()} knows "
                f"{head_size}. Give the environment the model's own tokenizer "
                "(tokenizer=<the model's directory or hub id>), or enlarge the model with "
                "model.resize_token_embeddings(...)."
            )
        positions = _positions(self.model)
        if positions is not None and positions < context_length:
            raise ValueError(
                f"the environment's context_length is {context_length} and the {self._name()} "
                f"has {positions} positions. Give the environment a smaller context_length or "
                "max_new_tokens."
            )

    @torch.no_grad()
    def _check_padding(self, context_length: int) -> None:
        """Raise if a row's logits change when a longer row stands beside it.

        Few families do that (RWKV's state runs through the padding; RoBERTa counts positions in
        its own way), but with them rollout and update would disagree, and nothing would tell.
        """
        longest = min(8, context_length)
        shortest = longest // 4
        if shortest == 0:
            return
        weight = self._head().weight
        ids = torch.arange(longest, device=weight.device) + self.num_tokens // 2
        ids = (ids % self.num_tokens).expand(2, -1)
        mask = torch.ones_like(ids)
        mask[0, shortest:] = 0
        alone = {"input_ids": ids[:1, :shortest], "attention_mask": mask[:1, :shortest]}
        expected, got = self._last(alone).logits[0], self(ids, mask).logits[0]
        gap, spread = float((got - expected).abs().max()), float(expected.max() - expected.min())
        # Half of the digits: far more than rounding takes, and far less than a real disagreement.
        if not gap <= spread * torch.finfo(weight.dtype).eps ** 0.5:
            raise ValueError(
                f"the {self._name()} gives other logits for a row with padding before it than "
                f"without (they differ by up to {gap:.3g}, where they spread over {spread:.3g}), "
                "so it cannot be trained on texts of different lengths. Take a decoder that heeds "
                "attention_mask and position_ids, as GPT-2, Llama and Qwen do."
            )


def left_padded(input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
    """Move every row's tokens to the right edge and drop the columns that hold none.

    The last token of each row is then in the last column, where `logits_to_keep=1` wants it,
    and the model runs on as many columns as the longest row has tokens.

    Args:
        input_ids: int64 (n, L), right-padded.
        attention_mask: (n, L).

    Returns:
        `input_ids`, `attention_mask` and `position_ids`, int64 (n, T), left-padded; positions
        count from each row's first token.

    Raises:
        ValueError: If a row does not begin with a token.
    """
    lengths = attention_mask.long().sum(dim=1, keepdim=True)
    begins = attention_mask[:, :1].long()
    columns, all_begin = torch.stack([lengths.max(), begins.min()]).tolist()
    if not all_begin:
        raise ValueError(
            f"row {int(begins.argmin())} of attention_mask does not begin with 1. Rows hold at "
            "least one token and are padded on the right, as TextGen-v0 gives them."
        )
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


def _positions(model: nn.Module) -> int | None:
    """The longest context that a model can read; None if it does not say."""
    config = getattr(model, "config", None)
    get_text_config = getattr(config, "get_text_config", None)  # of a model that sees, too
    text_config = get_text_config() if get_text_config is not None else config
    return getattr(text_config, "max_position_embeddings", None)


def _accepted_inputs(model: nn.Module) -> frozenset[str]:
    """The inputs that a model's forward knows."""
    base = getattr(model, "get_base_model", None)  # a PEFT model's forward takes *args, **kwargs
    forward = (base() if base is not None else model).forward
    return frozenset(inspect.signature(forward).parameters)
