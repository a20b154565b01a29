"""What algorithms have in common that compare several texts of the same prompt."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from agents.algorithms.clipped import ClippedAlgorithm
from agents.algorithms.settings import Settings, check, with_defaults
from agents.policy import TransformerPolicy
from agents.returns import by_episode, rewards_to_go

Credit: TypeAlias = Literal["token", "sequence"]
"""What a token is credited with: what was paid from it on, or all that its text was paid."""


class GroupAlgorithm(ClippedAlgorithm):
    """Whole texts, `group_size` of each prompt, which are each other's baseline.

    The prompt source of the environment hands each prompt out so many times. An algorithm adds
    its two hooks, `_compare` and `_policy_loss`.

    Args:
        policy, env, learning_rate: See `TokenOnPolicyAlgorithm`. The environment must hand out
            prompts in groups when a reset asks for it, as one of `make_sb3_vec_env` does.
        group_size: Texts of each prompt.
        credit: "token" credits a token with what was paid from it on, and compares it with the
            same place in the other texts; "sequence" credits each token with all that its text
            was paid. Where rewards are delayed both differ only in whom a token is compared with.
        clip_range: Clipping of the probability ratio, or a schedule; see `TokenPPO`.
        **settings: What all algorithms have; see `TokenOnPolicyAlgorithm`. `n_episodes` is a
            multiple of `group_size`, by default one for each environment.

    Raises:
        ValueError: If groups are not whole, or another argument is out of its range.
    """

    defaults: ClassVar[Settings] = {"vf_coef": 0.0}
    whole_episodes = True

    def __init__(
        self,
        policy: type[TransformerPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-5,
        *,
        group_size: int = 8,
        credit: Credit = "token",
        clip_range: float | Schedule = 0.2,
        **settings: Unpack[Settings],
    ) -> None:
        whole = isinstance(group_size, int) and group_size >= 2
        check("group_size", group_size, whole, "a whole number of at least 2")
        if credit not in get_args(Credit):
            raise ValueError(f'credit is "token" or "sequence", got {credit!r}.')
        self.group_size = group_size
        self.credit: Credit = credit
        settings = with_defaults(self.defaults, settings)
        super().__init__(policy, env, learning_rate, clip_range=clip_range, **settings)

    @abstractmethod
    def _compare(self, returns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Advantages of texts that are compared with others of their prompt.

        Args:
            returns: What was paid from each token on, NaN behind the end, (groups, G, L); or for
                whole texts, L = 1.

        Returns:
            As many as there are returns.
        """

    def _setup_model(self) -> None:
        super()._setup_model()
        n_episodes = self.episodes_wanted
        assert n_episodes is not None
        if n_episodes % self.group_size:
            raise ValueError(
                f"{n_episodes} texts between updates are no whole groups of "
                f"group_size={self.group_size}. Give n_episodes={self.group_size} times a whole "
                "number (it is the number of environments unless you say otherwise)."
            )

    def _reset_options(self) -> dict[str, Any]:
        return {"group_size": self.group_size}

    def _estimate_advantages(
        self, last_values: NDArray[np.float32], last_dones: NDArray[np.bool_]
    ) -> None:
        buffer = self.rollout_buffer
        episodes = buffer.episodes
        self._check_groups(episodes)
        buffer.returns = rewards_to_go(buffer.rewards, buffer.episode_starts, self.gamma)
        lines, positions = by_episode(buffer.returns, episodes)
        groups = lines.reshape(-1, self.group_size, lines.shape[1])
        totals = groups[..., :1]
        compared = self._compare(groups if self.credit == "token" else totals)
        compared = np.broadcast_to(compared, groups.shape).reshape(lines.shape)
        advantages = compared[episodes, np.where(buffer.written, positions, 0)]
        buffer.advantages = np.where(buffer.written, advantages, np.float32(0))
        totals = self.processes.concatenated({"totals of groups": totals})["totals of groups"]
        self.logger.record("frac_reward_zero_std", float((totals.std(1) < 1e-8).mean()))
        self.logger.record("reward_std", float(totals.std(ddof=1)))

    def _check_groups(self, episodes: NDArray[np.int64]) -> None:
        """Raise if the texts of a group do not begin with the same prompt."""
        prompts: dict[int, NDArray[np.int32]] = {}
        for segment in self.rollout_buffer.segments:
            episode = int(episodes[segment.begin, segment.row])
            prompts.setdefault(episode, segment.context)
        for episode, prompt in prompts.items():
            first = prompts[episode - episode % self.group_size]
            if not np.array_equal(prompt, first):
                raise ValueError(
                    f"{type(self).__name__} compares {self.group_size} texts of each prompt, and "
                    "the environment gave them different prompts. It must obey the reset option "
                    "group_size, as one of make_sb3_vec_env('TextGen-v0', n_envs) does."
                )
