"""Any Hugging Face causal language model as an ordinary Stable-Baselines3 policy."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.algorithms.a2c import TokenA2C
    from agents.algorithms.dqn import TokenDQN
    from agents.algorithms.grpo import GRPO
    from agents.algorithms.ppo import TokenPPO
    from agents.algorithms.reinforce import Reinforce
    from agents.algorithms.rloo import RLOO
    from agents.health.check import HealthCheck
    from agents.health.diverged import Diverged
    from agents.loggers import WandbLog
    from agents.maskable_policy import MaskableTransformerPolicy
    from agents.policy import TransformerPolicy
    from agents.q_policy import TransformerQPolicy
    from agents.replay import TokenReplayBuffer
    from agents.supervised.demonstrations import Demonstrations
    from agents.vec_env import VectorEnvBridge, make_sb3_vec_env
    from agents.watching import EpisodeCallback, LiveView, RewardLog, SampleLog, SamplePictures

_HOME = {
    "Demonstrations": "agents.supervised.demonstrations",
    "Diverged": "agents.health.diverged",
    "EpisodeCallback": "agents.watching",
    "GRPO": "agents.algorithms.grpo",
    "HealthCheck": "agents.health.check",
    "LiveView": "agents.watching",
    "MaskableTransformerPolicy": "agents.maskable_policy",
    "RLOO": "agents.algorithms.rloo",
    "Reinforce": "agents.algorithms.reinforce",
    "RewardLog": "agents.watching",
    "SampleLog": "agents.watching",
    "SamplePictures": "agents.watching",
    "TokenA2C": "agents.algorithms.a2c",
    "TokenDQN": "agents.algorithms.dqn",
    "TokenPPO": "agents.algorithms.ppo",
    "TokenReplayBuffer": "agents.replay",
    "TransformerPolicy": "agents.policy",
    "TransformerQPolicy": "agents.q_policy",
    "VectorEnvBridge": "agents.vec_env",
    "WandbLog": "agents.loggers",
    "make_sb3_vec_env": "agents.vec_env",
}

__all__ = [
    "GRPO",
    "RLOO",
    "Demonstrations",
    "Diverged",
    "EpisodeCallback",
    "HealthCheck",
    "LiveView",
    "MaskableTransformerPolicy",
    "Reinforce",
    "RewardLog",
    "SampleLog",
    "SamplePictures",
    "TokenA2C",
    "TokenDQN",
    "TokenPPO",
    "TokenReplayBuffer",
    "TransformerPolicy",
    "TransformerQPolicy",
    "VectorEnvBridge",
    "WandbLog",
    "make_sb3_vec_env",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: torch takes seconds, `textgym list` none."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
