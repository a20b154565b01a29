"""Held-out prompts, on which a policy is judged the same way each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agents.config import RunConfig
from agents.distributed.processes import join
from agents.episodes import Episode
from agents.evaluation import Written, episodes, write
from agents.examples import first_examples
from agents.language_policy import LanguagePolicy
from agents.vec_env import make_sb3_vec_env
from textgym.rendering.transcript import count
from textgym.tasks.base import Task


class HeldOut:
    """The first prompts of a split, and what a policy writes for them.

    Processes that train together share the prompts, and have all of the texts.

    Args:
        config: The settings of the run.
        task: Its task, which may have been dear to make.
        split: Whose prompts.
        why: Why these and no others, to be said with it.

    Attributes:
        what: The prompts, in a few words.
        count: How many there are; 0 if the task has no such split.
    """

    def __init__(self, config: RunConfig, task: Task, split: str, why: str = "") -> None:
        chosen = first_examples(task, split, config.eval_prompts, config.seed)
        self.count = len(chosen)
        self.what = count(self.count, f"{split} prompt") + (f" ({why})" if why else "")
        self._processes = join(config.device)
        self._own = range(self._processes.index, self.count, self._processes.count)
        self._rows = min(config.n_envs, len(self._own))
        self._seed = self._processes.seed(config.seed)
        self._temperature = config.final_temperature
        if chosen:
            task = replace(task, splits={split: chosen})
        self._env_kwargs = {**config.env_kwargs(split), "task": task, "prompts": "uniform"}

    def __call__(
        self, policy: LanguagePolicy, templates: Sequence[str] | None = None
    ) -> list[Episode]:
        """What came out of `write`, without what the policy had before it."""
        return episodes(self.write(policy, templates))

    def write(
        self, policy: LanguagePolicy, templates: Sequence[str] | None = None
    ) -> list[Written]:
        """One text for each of the prompts, at the temperature of the end of the run.

        Args:
            policy: Writes them.
            templates: Ways to put the prompts, which take turns; None for those of the run.
        """
        own = self._write_own(policy, templates)
        every = self._processes.gather("wrote for held-out prompts", own)
        return [every[index % len(every)][index // len(every)] for index in range(self.count)]

    def _write_own(self, policy: LanguagePolicy, templates: Sequence[str] | None) -> list[Written]:
        """The texts for this process's share of the prompts."""
        if not self._own:
            return []
        chosen = {} if templates is None else {"templates": templates}
        prompts = [{"prompt_index": index} for index in self._own]
        env = make_sb3_vec_env("TextGen-v0", self._rows, env_kwargs={**self._env_kwargs, **chosen})
        with policy.at_temperature(self._temperature):
            written = write(policy, env, prompts, seed=self._seed)
        env.close()
        return written
