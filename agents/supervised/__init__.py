"""Supervised learning: imitating texts, alone (`textgym sft`) or beside rewards (mixed loss)."""

from agents.supervised.cross_entropy import cross_entropy
from agents.supervised.demonstrations import Demonstration, Demonstrations

__all__ = ["Demonstration", "Demonstrations", "cross_entropy"]
