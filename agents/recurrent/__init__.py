"""Recurrent networks as causal language models; importing it lets transformers load them."""

from agents.recurrent.make import make_recurrent
from agents.recurrent.model import RecurrentConfig, RecurrentForCausalLM

__all__ = ["RecurrentConfig", "RecurrentForCausalLM", "make_recurrent"]
