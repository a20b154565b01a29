"""Algorithms that read every text once.

| class | learns from | baseline | objective |
|--|--|--|--|
| `TokenPPO` | steps | critic, GAE | clipped, several passes |
| `TokenA2C` | steps | critic, GAE | policy gradient, one step |
| `Reinforce` | whole texts | critic, or none | policy gradient, one step |
| `GRPO` | whole texts in groups | mean of the group, over its spread | clipped; KL in the loss |
| `RLOO` | whole texts in groups | mean of the others | clipped, by text |
| `TokenDQN` | steps, old ones too | | temporal differences of Q |

`base` has the one collect and the one train loop; each algorithm adds its defaults and two hooks.
"""

from agents.algorithms.a2c import TokenA2C
from agents.algorithms.dqn import TokenDQN
from agents.algorithms.grpo import GRPO
from agents.algorithms.ppo import TokenPPO
from agents.algorithms.reinforce import Reinforce
from agents.algorithms.rloo import RLOO

__all__ = ["GRPO", "RLOO", "Reinforce", "TokenA2C", "TokenDQN", "TokenPPO"]
