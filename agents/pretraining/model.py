"""The model that pretraining trains: its shape, its optimiser, its loss, and what it writes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from agents.pretraining.config import PretrainConfig
from agents.pretraining.windows import cut
from agents.recurrent import RecurrentForCausalLM, make_recurrent

Model: TypeAlias = LlamaForCausalLM | RecurrentForCausalLM


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` becomes bfloat16 where the hardware has units for it, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        units = torch.cpu.get_capabilities()
        fast = bool(units.get("avx512_bf16") or units.get("amx_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def build_model(config: PretrainConfig, vocab_size: int, eos: int, pad: int) -> Model:
    """A model with tied embeddings and random float32 weights (of torch's global generator)."""
    shape = config.shape
    if config.backbone != "transformer":
        return make_recurrent({"name": config.backbone, **shape}, vocab_size, eos=eos, pad=pad)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=shape["width"],
            intermediate_size=shape["feed_forward"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"],
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    )


def build_optimizer(model: Model, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms and biases alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=model.device.type in ("cpu", "cuda"),
    )


def negative_log_likelihood(
    model: Model, windows: NDArray[np.int64], dtype: torch.dtype
) -> torch.Tensor:
    """Sum of `-log p` in nats over all tokens of the windows but the first of each.

    Args:
        model: The model; gradients flow into it.
        windows: Token ids, shape `(n, length)`, length at least 2.
        dtype: Type of the matrix products; log-probabilities are float32.
    """
    tokens = torch.from_numpy(windows).to(model.device)
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not torch.float32):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return functional.cross_entropy(
        logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    )


@torch.no_grad()
def held_out_loss(
    model: Model,
    stream: NDArray[np.int64],
    context: int,
    batch_size: int,
    dtype: torch.dtype,
) -> float:
    """Mean `-log p` in nats a token over a stream, each token after the first predicted once.

    Args:
        model: The model.
        stream: Token ids, shape `(tokens,)`, at least 2; cut into neighbouring windows.
        context: Tokens that the model sees.
        batch_size: Windows in a forward pass.
        dtype: Type of the matrix products.
    """
    model.train(False)
    whole = (len(stream) - 1) // context
    starts = context * np.arange(whole)
    batches = [
        cut(stream, starts[i : i + batch_size], context) for i in range(0, whole, batch_size)
    ]
    rest = stream[None, whole * context :]
    if rest.shape[1] > 1:
        batches.append(rest)
    total = sum(float(negative_log_likelihood(model, batch, dtype)) for batch in batches)
    return total / (len(stream) - 1)


@torch.no_grad()
def sample(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    seed: int,
    max_new_tokens: int = 60,
    temperature: float = 0.8,
) -> str:
    """The prompt and its continuation, to the end of the document or of the budget.

    A prompt too long for a transformer's context loses its beginning. The global random generator
    is left as it was.
    """
    model.train(False)
    ids, budget = tokenizer.encode(prompt).ids, max_new_tokens
    if isinstance(model, LlamaForCausalLM):
        context: int = model.config.max_position_embeddings
        budget = min(budget, context // 2)
        ids = ids[-(context - budget) :]
    tokens = torch.tensor([ids], device=model.device)
    generator: Any = model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        written = generator.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=budget,
            do_sample=True,
            temperature=temperature,
            top_k=0,
        )
    return str(tokenizer.decode(written[0].tolist(), skip_special_tokens=True))
