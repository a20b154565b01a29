"""Text generation as a Gymnasium environment with an immediate reward at every token.

Importing this package registers the environments `TextGen-v0` and `textgym/TextGen-v0`.
"""

from typing import TYPE_CHECKING, Any

import gymnasium

__version__ = "0.1.0"

for _id in ("TextGen-v0", "textgym/TextGen-v0"):
    gymnasium.register(
        id=_id,
        entry_point="textgym.env:TextGenEnv",
        vector_entry_point="textgym.vector_env:TextGenVectorEnv",
    )

if TYPE_CHECKING:
    from textgym.completion import Completions, Sample
    from textgym.env import TextGenEnv
    from textgym.rewards import Reward, RewardError, Score
    from textgym.tasks import Example, Task
    from textgym.tokenizer import Tokenizer
    from textgym.vector_env import TextGenVectorEnv

_HOME = {
    "Completions": "textgym.completion",
    "Example": "textgym.tasks",
    "Reward": "textgym.rewards",
    "RewardError": "textgym.rewards",
    "Sample": "textgym.completion",
    "Score": "textgym.rewards",
    "Task": "textgym.tasks",
    "TextGenEnv": "textgym.env",
    "TextGenVectorEnv": "textgym.vector_env",
    "Tokenizer": "textgym.tokenizer",
}

__all__ = [
    "Completions",
    "Example",
    "Reward",
    "RewardError",
    "Sample",
    "Score",
    "Task",
    "TextGenEnv",
    "TextGenVectorEnv",
    "Tokenizer",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `import textgym` stays quick."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
