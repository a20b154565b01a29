"""Rewards that are neural networks."""
