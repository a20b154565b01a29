"""A Hugging Face causal language model, read in the ways that policies and samplers need."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from agents.gradient_checkpointing import checkpoint_layers
from agents.models import ModelSpec, load_model, model_source, with_lora
from agents.padding import without_surplus

Pick: TypeAlias = Callable[[Tensor], Tensor]
"""Takes some of the hidden states (n, T, width): (b, k, width)."""

DType: TypeAlias = Literal["float32", "bfloat16"]


class NextToken(NamedTuple):
    """What the model says of the token that comes next.

    Attributes:
        hidden: What the model's head reads, float32 (n, width).
        logits: Scores of the next token, float32 (n, vocabulary).
    """

    hidden: Tensor
    logits: Tensor


class Backbone(nn.Module):
    """A causal language model as a trunk, which makes hidden states, and a head, which reads them.

    The head runs only where its logits are wanted. Dropout stays off: the probabilities of a
    rollout and those of the update must agree.

    Args:
        model: A model's name, a local directory, a GGUF file, a hub id, or a causal LM itself,
            which is then trained in place.
        num_tokens: Size of the tokenizer's vocabulary. A head wider than that (vocabularies are
            often padded to a round number) has its surplus cut off everywhere.
        context_length: The longest context that will come.
        lora: Train low-rank adapters only: arguments of `peft.LoraConfig`, or True for its
            defaults. None or False trains the whole model.
        dtype: "bfloat16" computes the trunk in it, by autocast; weights, head and losses stay in
            float32.
        gradient_checkpointing: Keep what goes into each layer for the backward pass and compute
            the rest again: less memory, about a third more work in an update.

    Attributes:
        model: The causal LM.
        source: Where it came from: a directory or a hub id; None for one made in memory.
        num_tokens: Size of the tokenizer's vocabulary.
        context_length: The longest context that will come.
        width: Size of what the head reads.
        dtype: What the trunk computes in.
        gradient_checkpointing: Whether layers are computed again in the backward pass.
        pluggable: Whether the model is known to give its own logits with attention functions of
            ours; `agents.reader.best_reader` finds out.
        head_is_all: Whether the head's output is the logits; some families scale or cap it.

    Raises:
        ValueError: If the head is narrower than the vocabulary, the context is longer than the
            model's positions, or what comes later changes what the model says of what is before.
        FileNotFoundError: If there is no such model.
        TypeError: If the model is not a causal LM in Hugging Face's sense.
    """

    model: Any

    def __init__(
        self,
        model: ModelSpec,
        num_tokens: int,
        context_length: int,
        lora: bool | Mapping[str, Any] | None = None,
        dtype: DType = "float32",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}.')
        self.source = model_source(model)
        self.model = model if isinstance(model, nn.Module) else load_model(model)
        self.num_tokens = num_tokens
        self.context_length = context_length
        self.dtype: DType = dtype
        if lora:
            self.model = with_lora(self.model, lora)
        self._heads = (_head(self.model),)  # in a tuple: it is a part of the model already
        head_size, self.width = self.head.weight.shape
        self._check_fit(head_size)
        self._check_weights()
        self._accepts = _accepted_inputs(self.model)
        self.train()
        self.gradient_checkpointing = gradient_checkpointing
        self.pluggable = False
        self.head_is_all = True
        with self.exact():
            self._check_causal()
        if gradient_checkpointing:
            checkpoint_layers(self.model)

    @property
    def head(self) -> Any:
        """The module that makes logits of hidden states."""
        return self._heads[0]

    @property
    def name(self) -> str:
        """The model's family and where it came from, for messages."""
        family = type(self.model).__name__
        return f"{family} from {self.source!r}" if self.source else f"given {family}"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> NextToken:
        """Read each row up to its last token.

        Args:
            input_ids: Token ids, int64 (n, L), right-padded.
            attention_mask: 1 on tokens, 0 on padding, (n, L).

        Raises:
            ValueError: If a row does not begin with a token.
        """
        ids, lengths = without_surplus(input_ids, attention_mask)
        rows = torch.arange(len(ids), device=ids.device)
        # A causal model needs no mask: what comes later changes nothing.
        return self.read(lambda hidden: hidden[rows, lengths - 1][:, None], {"input_ids": ids})

    def read(
        self,
        pick: Pick,
        inputs: Mapping[str, Any],
        within: AbstractContextManager[object] | None = None,
    ) -> NextToken:
        """Run the model, and its head on those hidden states that `pick` takes.

        Args:
            pick: Takes some of the hidden states (n, T, width).
            inputs: Of the model; those that its family does not know are left out.
            within: A context for the trunk; None for none.

        Returns:
            As many rows as were taken, in their order.
        """
        if self.dtype == "float32":
            with within or nullcontext():
                hidden, logits = self._run(pick, pick, inputs)
            return NextToken(hidden.float(), logits[:, : self.num_tokens].float())
        with within or nullcontext():
            hidden = self.hidden_states(pick, inputs)
        return NextToken(hidden, self.logits(hidden))

    def hidden_states(self, pick: Pick, inputs: Mapping[str, Any]) -> Tensor:
        """Run the model without its head: what the head would read, float32 (n, width)."""
        return self._run(pick, _nothing, inputs)[0].float()

    def logits(self, hidden: Tensor) -> Tensor:
        """Run the head alone, in float32: (n, width) to (n, vocabulary)."""
        with self.exact(), torch.autocast(hidden.device.type, enabled=False):
            if self.head_is_all:
                logits = self.head(hidden.to(self.head.weight.dtype))
            else:
                # The family scales or caps what the head gives, and does it its own way: the
                # model reads a single token, and its head these hidden states instead.
                token = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
                logits = self._run(_last, lambda _: hidden[None], {"input_ids": token})[1]
        scores: Tensor = logits[:, : self.num_tokens].float()
        return scores

    def agree(self, logits: Tensor, expected: Tensor) -> bool:
        """Whether logits are the same but for rounding.

        Half of the digits: far more than rounding takes, far less than a real disagreement.
        """
        spread = float(expected.max() - expected.min())
        rounding: float = torch.finfo(self.head.weight.dtype).eps
        return bool(_gap(logits, expected) <= spread * rounding**0.5)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Compute in the number type of the weights, for comparisons."""
        dtype, self.dtype = self.dtype, "float32"
        try:
            yield
        finally:
            self.dtype = dtype

    def autocast(self) -> AbstractContextManager[object]:
        """The number type of the trunk, as a context."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.head.weight.device.type, torch.bfloat16)

    @contextmanager
    def keeping_conversions(self) -> Iterator[None]:
        """Convert weights once for many passes, in which they must not change."""
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()

    def train(self, mode: bool = True) -> Backbone:
        """Note the mode, and leave the model in evaluation: its dropout stays off."""
        super().train(False)
        self.training = mode
        return self

    def _run(
        self, pick: Pick, head_reads: Pick, inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Hidden states that `pick` takes, and logits of those that `head_reads` takes.

        The model's own forward makes the logits: it scales or caps them where its family does so.
        """
        accepted = {key: value for key, value in inputs.items() if key in self._accepts}
        if "use_cache" in self._accepts:
            accepted.setdefault("use_cache", False)
        with self.autocast(), self._head_reading(pick, head_reads) as seen:
            logits = self.model(**accepted).logits
        return seen[-1].flatten(0, 1), logits.flatten(0, 1)

    @contextmanager
    def _head_reading(self, pick: Pick, head_reads: Pick) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []

        def replace(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            picked = pick(inputs[0])
            seen.append(picked)
            return picked if head_reads is pick else head_reads(inputs[0])

        handle = self.head.register_forward_pre_hook(replace)
        try:
            yield seen
        finally:
            handle.remove()

    def _check_fit(self, head_size: int) -> None:
        if head_size < self.num_tokens:
            raise ValueError(
                f"the tokenizer has {self.num_tokens} tokens and the {self.name} knows "
                f"{head_size}. Give the environment the model's own tokenizer "
                "(tokenizer=<the model's directory or hub id>), or enlarge the model with "
                "model.resize_token_embeddings(...)."
            )
        positions = _positions(self.model)
        if positions is not None and positions < self.context_length:
            raise ValueError(
                f"the environment's context_length is {self.context_length} and the {self.name} "
                f"has {positions} positions. Give the environment a smaller context_length or "
                "max_new_tokens."
            )

    def _check_weights(self) -> None:
        trained = {p.dtype for p in self.model.parameters() if p.requires_grad}
        if trained - {torch.float32}:
            raise ValueError(
                f"the {self.name} has weights in {', '.join(map(str, trained))}, where small steps "
                'are lost in rounding. Give model.float(), with dtype="bfloat16" to compute in it.'
            )

    @torch.no_grad()
    def _check_causal(self) -> None:
        """Raise if what comes later in a text changes what the model says of what is before.

        Rollouts read a text as it grows, and updates the whole of it at once. They agree with a
        causal model only, and nothing else would tell.
        """
        length = min(8, self.context_length)
        prefix = max(length // 4, 1)
        device = self.head.weight.device
        ids = (torch.arange(length, device=device) + self.num_tokens // 2) % self.num_tokens
        expected = self.read(_last, {"input_ids": ids[None, :prefix]})
        self.head_is_all = self.agree(self.logits(expected.hidden), expected.logits)

        def said_of_prefix(**inputs: Tensor) -> Tensor:
            return self.read(lambda hidden: hidden[:, prefix - 1 : prefix], inputs).logits

        got = said_of_prefix(input_ids=ids[None])
        if not self.agree(got, expected.logits):
            raise ValueError(
                f"the {self.name} reads a text in both directions: tokens that come later change "
                f"what it says of those before (by up to {_gap(got, expected.logits):.3g}), so "
                "that it cannot write one after another. Take a decoder, as GPT-2, Llama and Qwen "
                "are, or load this one with is_decoder=True in its config."
            )
        if "position_ids" not in self._accepts:
            return
        near = torch.arange(length, device=device)
        far = near.clone()
        far[-1] = self.context_length - 1
        of_short, of_long = (
            said_of_prefix(input_ids=ids[None], position_ids=positions[None])
            for positions in (near, far)
        )
        if not self.agree(of_long, of_short):
            raise ValueError(
                f"the {self.name} reads the first tokens of a text in another way once the text "
                f"has {self.context_length} tokens (its rotary positions depend on the longest "
                "text of a batch), so that rollout and update would disagree. Give the "
                "environment a context_length of at most the original_max_position_embeddings in "
                "the model's config."
            )


def _last(hidden: Tensor) -> Tensor:
    return hidden[:, -1:]


def _nothing(hidden: Tensor) -> Tensor:
    return hidden[:, :0]


def _gap(logits: Tensor, expected: Tensor) -> float:
    return float((logits - expected).abs().max())


def _head(model: Any) -> nn.Module:
    """The module that makes logits of hidden states; raises TypeError if there is none."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    if not isinstance(head, nn.Module) or not hasattr(head, "weight"):
        raise TypeError(
            f"expected a Hugging Face causal language model, whose get_output_embeddings() "
            f"gives its head; got {type(model).__name__}. Load one with "
            "AutoModelForCausalLM.from_pretrained(...)."
        )
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TypeError(
            f"expected a decoder, which goes on writing the text that it reads; "
            f"{type(model).__name__} has an encoder that reads and a decoder that answers. Take a "
            "causal language model, as GPT-2, Llama and Qwen are."
        )
    return head


def _positions(model: nn.Module) -> int | None:
    """The longest context that a model can read; None if it does not say."""
    config = getattr(model, "config", None)
    get_text_config = getattr(config, "get_text_config", None)  # of a model that sees, too
    text_config = get_text_config() if get_text_config is not None else config
    names = ("max_position_embeddings", "max_seq_len")  # MPT calls it the latter
    known = (getattr(text_config, name, None) for name in names)
    return next((positions for positions in known if positions is not None), None)


def _accepted_inputs(model: nn.Module) -> frozenset[str]:
    """The inputs that a model's forward knows."""
    base = getattr(model, "get_base_model", None)  # a PEFT model's forward takes *args, **kwargs
    forward = (base() if base is not None else model).forward
    known = inspect.signature(forward).parameters
    # Some hand it on without naming it, and would keep a cache that nobody asked for.
    unnamed = {"use_cache"} if any(p.kind is p.VAR_KEYWORD for p in known.values()) else set()
    return frozenset(known) | unnamed
