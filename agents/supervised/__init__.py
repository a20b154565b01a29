"""Supervised learning: imitating texts, alone (`textgym sft`) or beside rewards (mixed loss)."""

from agents.supervised.cross_entropy import cross_entropy
from agents.supervised.demonstrations import Demonstrations
from agents.supervised.encoding import Demonstration

__all__ = ["Demonstration", "Demonstrations", "cross_entropy"]
