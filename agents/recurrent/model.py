"""Elman networks, LSTMs and GRUs as causal language models of transformers."""

# Annotations are not postponed here: transformers reads those of both classes.

from typing import Any, Literal, TypeAlias

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

Kind: TypeAlias = Literal["rnn", "lstm", "gru"]

State: TypeAlias = tuple[Tensor, ...]
"""What a network knows of a text: h, and c of an LSTM, (layers, n, width) each."""

_MODULES: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

MODEL_TYPE = "textgym_recurrent"


@strict
class RecurrentConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The shape of a recurrent language model.

    Attributes:
        kind: The cell: "rnn" (Elman's, with tanh), "lstm" or "gru".
        vocab_size: Number of tokens.
        hidden_size: Size of the embeddings and of each layer's state.
        num_hidden_layers: Number of layers.
        tie_word_embeddings: Whether the head's weights are the embeddings.
        bos_token_id: Begins a text.
        eos_token_id: Ends a text.
        pad_token_id: Fills rows.
    """

    model_type = MODEL_TYPE

    kind: Kind = "lstm"
    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 1
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None


class RecurrentForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """Embeddings, a recurrent network, and a head that scores the next token.

    There are no positions and no dropout: it reads texts of any length, and what it knows of one
    is a state of fixed size. `generate` reads the text anew for each token, as its search
    strategies expect caches of keys and values; `agents.recurrent_reader` keeps the state.

    Args:
        config: Its shape.
    """

    config: RecurrentConfig
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}  # noqa: RUF012  # as others
    _is_stateful = True  # so that transformers does not try to take tokens back

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.rnn = _MODULES[config.kind](width, width, config.num_hidden_layers, batch_first=True)
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: State | None = None,
        labels: Tensor | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> CausalLMOutputWithPast:
        """Score the next token at every place.

        Args:
            input_ids: Token ids, int64 (n, T).
            attention_mask: 1 on tokens, 0 on padding, (n, T), or longer by the text before. Rows
                are padded on one side, either one. What is said at padding means nothing.
            past_key_values: The state that was returned under this name for the text before; None
                at the beginning of a text.
            labels: What is to be written, int64 (n, T): the ids themselves, which are shifted
                here, and -100 where nothing is learned, such as at padding.
            use_cache: Whether to return the state at the end as `past_key_values`.
            logits_to_keep: Score the last so many places only; 0 for all.
            output_hidden_states: Must be false; transformers passes it.
            return_dict: Must be true; transformers passes it.

        Returns:
            Logits (n, T or `logits_to_keep`, vocabulary), the state if it is wanted, and with
            labels the mean cross-entropy.

        Raises:
            ValueError: If a row holds no token, or something is asked for that is not there.
        """
        if not return_dict:
            raise ValueError("return_dict must be True, got False: there is no other output.")
        if output_hidden_states or self.config.output_hidden_states:
            raise ValueError(
                "output_hidden_states must be False, got True: torch's recurrent networks give "
                "out what their last layer says only, which read() returns."
            )
        if labels is not None and logits_to_keep:
            raise ValueError(
                f"labels want all logits, got logits_to_keep={logits_to_keep}. Leave one out."
            )
        state = past_key_values
        if attention_mask is not None:
            attention_mask = attention_mask[:, -input_ids.shape[1] :]
            empty = (~attention_mask.any(1)).nonzero().flatten().tolist()
            if empty:
                raise ValueError(
                    f"row {empty[0]} of attention_mask is all zeros, and a text has at least one "
                    "token to go on from. Leave the row out, or begin it with the end-of-text "
                    "token."
                )
        if attention_mask is None or bool(attention_mask.all()):
            hidden, state = self.read(input_ids, state=state)
        else:
            # The first column of each row's text becomes column 0, and goes back afterwards.
            columns = torch.arange(input_ids.shape[1], device=input_ids.device)
            first = attention_mask.long().argmax(1, keepdim=True)
            ids = input_ids.gather(1, (columns + first) % len(columns))
            hidden, state = self.read(ids, attention_mask.long().sum(1), state)
            back = (columns - first) % len(columns)
            hidden = hidden.take_along_dim(back[..., None], 1)
        logits = self.lm_head(hidden[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=state if use_cache else None,  # type: ignore[arg-type]  # no Cache
        )

    def read(
        self, input_ids: Tensor, lengths: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run the network without its head.

        Args:
            input_ids: Token ids, int64 (n, T).
            lengths: How many of the T are a row's, int64 (n,); None for all.
            state: What was returned for the text before; None at the beginning of a text.

        Returns:
            What the head reads at each place, (n, T, width), and the state after each row's last
            token.
        """
        inputs: Any = self.embed(input_ids)
        if lengths is not None:
            inputs = pack_padded_sequence(
                inputs, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
        # Only an LSTM's state is a pair to torch.
        known = state if state is None or self.config.kind == "lstm" else state[0]
        hidden, after = self.rnn(inputs, known)
        if lengths is not None:
            hidden, _ = pad_packed_sequence(
                hidden, batch_first=True, total_length=input_ids.shape[1]
            )
        return hidden, after if self.config.kind == "lstm" else (after,)

    def embed(self, tokens: Tensor) -> Tensor:
        """What the network reads of tokens, (...) to (..., width).

        As the head's weights embeddings are of length 1, so that all tokens begin about as likely;
        as inputs they are of variance 1 (Vaswani et al. 2017, section 3.4). After its first
        440,000 tokens an LSTM of width 256 was so at 4.5 nats a token, and without at 5.1.
        """
        embedded: Tensor = self.embed_tokens(tokens) * self.config.hidden_size**0.5
        return embedded

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """What `generate` gives to `forward` for its next token: all of the text."""
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights; of embeddings see `embed`.

        Recurrent matrices are orthogonal, a gate at a time, which keeps the length of what they
        carry on (Saxe et al. 2014). Forget gates begin open (Jozefowicz et al. 2015).
        """
        if isinstance(module, (nn.Embedding, nn.Linear)):
            initialization.normal_(module.weight, std=self.config.hidden_size**-0.5)
        if not isinstance(module, nn.RNNBase):
            return
        width = module.hidden_size
        for name, weight in module.named_parameters():
            if getattr(weight, "_is_hf_initialized", False):  # loaded; parts of it would not say
                continue
            if name.startswith("bias"):
                initialization.zeros_(weight)
                if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                    initialization.ones_(weight[width : 2 * width])
                continue
            for gate in torch.split(weight, width):
                if name.startswith("weight_hh"):
                    initialization.orthogonal_(gate)
                else:
                    initialization.xavier_uniform_(gate)


AutoConfig.register(MODEL_TYPE, RecurrentConfig)
AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM)
