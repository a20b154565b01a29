"""Training a tokenizer and a small causal language model from scratch: `textgym pretrain`."""

from agents.pretraining.config import PretrainConfig
from agents.pretraining.trainer import pretrain

__all__ = ["PretrainConfig", "pretrain"]
