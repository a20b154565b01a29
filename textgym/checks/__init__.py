"""Contract tests that users run on what they made themselves: rewards and vector environments."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textgym.checks.reward import check_reward
    from textgym.checks.vector_env import check_vector_env

__all__ = ["check_reward", "check_vector_env"]

_HOME = {
    "check_reward": "textgym.checks.reward",
    "check_vector_env": "textgym.checks.vector_env",
}


def __getattr__(name: str) -> Any:
    """Import a check when it is first used."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
