"""The files of a model trained from scratch: tokenizer, weights and card in Hugging Face layout."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from textgym.files import atomic_directory

END_OF_TEXT = "<|endoftext|>"
"""Starts and ends every document; id 0."""
PAD = "<|pad|>"
"""Fills rows; id 1."""
SMALLEST_VOCABULARY = 256 + 2
"""Every byte, so that any text can be written, and the two special tokens."""


def train_tokenizer(documents: list[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE tokenizer that can write any text.

    Encoding with special tokens puts `<|endoftext|>` in front: a prompt is always the start of a
    document, and an empty prompt is one token.

    Args:
        documents: Texts to learn merges from.
        vocab_size: Upper limit; a small corpus may yield fewer tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A $B",
        special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))],
    )
    return tokenizer


def write_model_directory(
    output: Path,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    record: dict[str, Any],
    license_name: str,
) -> None:
    """Writes weights in float16, tokenizer, `training.json` and the model card.

    All is written elsewhere first and then renamed, so that a crash never leaves half a file.

    Args:
        output: Directory, made if need be; files of other names in it stay.
        model: The model; left as it is.
        tokenizer: Its tokenizer.
        record: What was done, JSON-able, with the keys that `model_card` reads.
        license_name: Licence identifier for the card.
    """
    with atomic_directory(output) as directory:
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        config.dtype = "float16"
        config.save_pretrained(directory)
        GenerationConfig(  # type: ignore[no-untyped-call]
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            do_sample=True,
        ).save_pretrained(directory)
        # The head is the embedding: it is stored once.
        weights = {
            name: tensor.to("cpu", torch.float16).contiguous()
            for name, tensor in model.state_dict().items()
            if name != "lm_head.weight"
        }
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=tokenizer,
            bos_token=END_OF_TEXT,
            eos_token=END_OF_TEXT,
            pad_token=PAD,
            model_max_length=getattr(config, "max_position_embeddings", None),
            clean_up_tokenization_spaces=False,
        ).save_pretrained(directory)
        tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "training.json").write_text(json.dumps(record, indent=1) + "\n")
        (directory / "README.md").write_text(model_card(record, license_name))


def model_card(record: dict[str, Any], license_name: str) -> str:
    """A model card in Markdown: what the model is, how it was made, what it is worth."""
    arguments = record["arguments"]
    corpus = "\n".join(f"- `{path}`" for path in dict.fromkeys(arguments["corpus"]))
    return f"""---
license: {license_name}
library_name: transformers
pipeline_tag: text-generation
---

# A small causal language model, trained from scratch

{_shape(arguments)} of {record["parameters"]:,} parameters ({arguments["layers"]} layers, width
{arguments["width"]}, context {arguments["context"]}, tied embeddings) with a byte-level BPE
tokenizer of {record["vocab_size"]:,} tokens. `<|endoftext|>` starts and ends every document.
{_loading(arguments)}
## How it was made

```
{record["command"]}
```

Held-out loss after {record["tokens_seen"]:,} tokens ({record["epochs_seen"]} epochs, best of the
run): {record["held_out_loss"]:.3f} nats a token, {record["bits_per_byte"]:.3f} bits a byte, on
{record["held_out_tokens"]:,} tokens of documents that training never saw. `training.json` holds all
arguments, the history of the loss and the versions of the libraries.

## Data

{corpus}

SHA-256 of the documents: `{record["corpus_sha256"]}`.

## Licence

{license_name}. The model can repeat passages of its training data, so the terms of that data apply
to what it writes too.

## Limits

A model of this size writes in the manner of its corpus and knows nothing else: it is made for
experiments with text generation, not for facts, advice or users.
"""


def _shape(arguments: dict[str, Any]) -> str:
    backbone = arguments["backbone"]
    if backbone == "transformer":
        return "A Llama-shaped model"
    return f"A recurrent model ({'Elman network' if backbone == 'rnn' else backbone.upper()})"


def _loading(arguments: dict[str, Any]) -> str:
    """How to load what transformers does not know by itself."""
    if arguments["backbone"] == "transformer":
        return ""
    return """
```python
import agents.recurrent  # transformers has no such models of its own
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("DIRECTORY", dtype="float32")
```
"""
