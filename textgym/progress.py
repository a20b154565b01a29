"""What an environment has learned of the course of training, told and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgym.bandits import Bandit
from textgym.process import TextProcess


class Progress:
    """What an environment has learned of the course of training, told and taken back.

    That is a reward that follows progress, and the choice between templates.
    """

    process: TextProcess

    def reward_weights(self) -> dict[str, float]:
        """The weight of each reward in the episodes that begin now, by name."""
        return self.process.reward.current_weights

    def reward_state(self) -> dict[str, Any]:
        """What the reward has learned of the course of training, JSON-able; mostly empty."""
        return self.process.reward.state_dict()

    def load_reward_state(self, state: Mapping[str, Any]) -> None:
        """Let the reward go on from such a state.

        Raises:
            ValueError: If it is the state of another reward.
        """
        self.process.reward.load_state_dict(state)

    def template_bandit(self) -> Bandit | None:
        """What chooses between templates, and what it knows of them; None without templates."""
        return self.process.prompts.selection

    def template_state(self) -> dict[str, Any]:
        """What has been learned of the templates, JSON-able; empty without templates."""
        bandit = self.template_bandit()
        return {} if bandit is None else bandit.state_dict()

    def load_template_state(self, state: Mapping[str, Any]) -> None:
        """Let the choice between templates go on from such a state.

        Raises:
            ValueError: If it is the state of another choice, or of other templates.
        """
        bandit = self.template_bandit()
        if bandit is not None and state:
            bandit.load_state_dict(state)
