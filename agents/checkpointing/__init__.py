"""Checkpoints: all that a training needs to go on as if it had never stopped.

They are safetensors and JSON, so that nothing in them can run code; see `tree`. `algorithm` says
what belongs to an algorithm and its environment, `checkpoints` keeps the newest few in a
directory, and `callback` saves them while a training goes on.
"""

from agents.checkpointing.algorithm import load_checkpoint, save_checkpoint
from agents.checkpointing.callback import Checkpoint
from agents.checkpointing.checkpoints import Checkpoints
from agents.checkpointing.tree import load_tree, save_tree

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "load_checkpoint",
    "load_tree",
    "save_checkpoint",
    "save_tree",
]
