"""What is written, and by which model: the same for both sides of a comparison.

The model is a Llama of random weights, 4 layers of width 128 with 4 heads and a feed-forward part
of 344, which with 12 width² weights a layer is as large as a GPT-2 of that width. Its head has a
bias, and the bias of the end-of-text token decides how long texts are: with -100 no text ever
ends by itself, and otherwise the token has the same small probability at every step, as all other
tokens are nearly equally likely under random weights. So lengths are geometric, for every trainer
alike, without a word to any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, product
from string import ascii_lowercase
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from tokenizers import decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from agents.backbone import DType
from agents.vec_env import make_sb3_vec_env
from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer, byte_level_alphabet

EOS, PAD = "<|endoftext|>", "<|pad|>"
EOS_ID, PAD_ID = 0, 1
NEVER = -100.0
NUM_PROMPTS = 256


class TableReward:
    """Pays each token what a table says: the least that a reward can cost."""

    def __init__(self, vocabulary: int) -> None:
        self.table = np.random.default_rng(0).standard_normal(vocabulary).astype(np.float32)

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing to remember."""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """An entry of the table for each token."""
        return self.table[tokens]


@dataclass(frozen=True)
class Workload:
    """How many texts at a time, how long, and of how many different tokens.

    Attributes:
        rows: Texts that are written side by side.
        prompt: Tokens of each prompt.
        new: The most tokens that a text may have.
        mean: Mean length that the geometric distribution has without the limit of `new`; None for
            texts that all have `new` tokens.
        vocabulary: Number of different tokens.
        layers: Layers of the model.
        width: Its width.
        heads: Its attention heads.
        feed_forward: Width of its feed-forward part.
        device: Where the model is.
        dtype: What its layers compute in, "float32" or "bfloat16"; weights are float32.
    """

    rows: int
    prompt: int = 16
    new: int = 64
    mean: int | None = None
    vocabulary: int = 512
    layers: int = 4
    width: int = 128
    heads: int = 4
    feed_forward: int = 344
    device: str = "cpu"
    dtype: DType = "float32"

    def __str__(self) -> str:
        lengths = f"{self.new}" if self.mean is None else f"mean {self.mean}, at most {self.new},"
        return f"{self.rows} rows, prompt {self.prompt}, {lengths} new tokens"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Bytes, and as many longer tokens as the vocabulary wants, which no prompt contains."""
        alphabet = byte_level_alphabet()
        known = [EOS, PAD, *(alphabet[byte] for byte in range(256))]
        vocabulary = [*known, *islice(_words(), self.vocabulary - len(known))]
        backend = tokenizers.Tokenizer(
            models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[])
        )
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([EOS, PAD])
        return Tokenizer(backend, name="benchmark", eos_token=EOS, pad_token=PAD)

    @property
    def prompts(self) -> list[str]:
        """Random letters, one token each."""
        letters = np.random.default_rng(0).choice(list(ascii_lowercase), (NUM_PROMPTS, self.prompt))
        return ["".join(row) for row in letters]

    def model(self) -> Any:
        """The model, with the same weights at every call."""
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
            tie_word_embeddings=False,
        )
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
        model.lm_head = head = nn.Linear(self.width, self.vocabulary)
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        with torch.no_grad():
            # e^b / (e^b + V - 1) = 1 / mean, where every other logit is about 0.
            head.bias[EOS_ID] = (
                NEVER if self.mean is None else math.log((self.vocabulary - 1) / (self.mean - 1))
            )
        return model.eval()

    def env(self) -> VecEnv:
        """The environment, with a reward that costs next to nothing."""
        task = Task("letters", {"train": tuple(Example(prompt) for prompt in self.prompts)})
        return make_sb3_vec_env(
            "TextGen-v0",
            self.rows,
            seed=0,
            env_kwargs={
                "task": task,
                "reward": TableReward(self.vocabulary),
                "tokenizer": self.tokenizer,
                "max_new_tokens": self.new,
            },
        )


def _words() -> Iterator[str]:
    """Strings of two letters and more, each once."""
    for length in count(2):
        for letters in product(ascii_lowercase, repeat=length):
            yield "".join(letters)
