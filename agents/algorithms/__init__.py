"""Algorithms that read every text once."""

from agents.algorithms.ppo import TokenPPO

__all__ = ["TokenPPO"]
