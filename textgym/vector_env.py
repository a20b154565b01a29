"""Text generation as a Gymnasium vector environment: the same dynamics, batched."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym import rendering
from textgym.arguments import as_count, check_options
from textgym.bandits import BanditSpec
from textgym.dynamics import Observation, Rows, observe, observe_rows
from textgym.env import METADATA, check_render_mode
from textgym.process import TaskSpec, TextProcess
from textgym.progress import Progress
from textgym.prompts import PromptTruncation
from textgym.rewards import Every, RewardSpec, Timing
from textgym.rewards.deferred import Owed
from textgym.tokenizer import BUILTIN, Tokenizer
from textgym.unfinished import take_up, unfinished
from textgym.vector_step import Begun, Moved, Step
from textgym.vocabulary import VocabularySpec

StepResult: TypeAlias = tuple[
    Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]


class TextGenVectorEnv(Progress, VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` environments `TextGenEnv` in one: what `SyncVectorEnv` gives, many times faster.

    Observations, rewards, flags, infos and random streams are those of `SyncVectorEnv` over
    single environments, for the same seeds and actions. Rewards see all rows in one call.

    Args:
        num_envs: Number of rows, n.
        autoreset_mode: What becomes of a row whose episode is over, by Gymnasium's
            `AutoresetMode`: NEXT_STEP resets it in the next step, which ignores its action;
            SAME_STEP resets it at once, with the last observation and info in
            `infos["final_obs"]` and `infos["final_info"]`; DISABLED leaves it to
            `reset(options={"reset_mask": mask})`.
        max_episode_steps: Truncates episodes after so many tokens, as Gymnasium's `TimeLimit`. That
            wrapper cuts a single environment from outside; here the cut is the end of the episode,
            so that a delayed reward is paid and the final info is given.
        render_mode: "ansi" or "rgb_array": `render` gives one text or picture a row; "human"
            prints the first row.
        task, split, reward, timing, every, tokenizer, vocabulary, chat, templates, prompts, \
max_new_tokens, context_length, stop, budget_is_terminal, prompt_truncation: As for `TextGenEnv`. \
All rows share what is learned of templates.

    Raises:
        ValueError: If an argument is refused; the message says what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        task: TaskSpec = "continuation",
        split: str = "train",
        reward: RewardSpec | None = None,
        timing: Timing = "immediate",
        every: Every = "token",
        tokenizer: str | Tokenizer = BUILTIN,
        vocabulary: VocabularySpec | None = None,
        chat: bool | None = None,
        templates: Sequence[str] | None = None,
        prompts: BanditSpec = "uniform",
        max_new_tokens: int = 32,
        context_length: int | None = None,
        stop: Sequence[str] | None = None,
        budget_is_terminal: bool = False,
        prompt_truncation: PromptTruncation = "error",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        num_envs = as_count("num_envs", num_envs)
        check_render_mode(render_mode)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.autoreset_mode = _as_mode(autoreset_mode)
        self.metadata = {**METADATA, "autoreset_mode": self.autoreset_mode}
        self.process = TextProcess(
            num_envs,
            task=task,
            split=split,
            reward=reward,
            timing=timing,
            every=every,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            chat=chat,
            templates=templates,
            prompts=prompts,
            max_new_tokens=max_new_tokens,
            context_length=context_length,
            stop=stop,
            budget_is_terminal=budget_is_terminal,
            prompt_truncation=prompt_truncation,
            max_episode_steps=max_episode_steps,
            record_rewards=render_mode is not None,
        )
        self.single_observation_space = self.process.observation_space
        self.single_action_space = self.process.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.arange(num_envs)
        self._generators: list[tuple[np.random.Generator, int] | None] = [None] * num_envs
        self._begun = np.zeros(num_envs, np.bool_)
        self._held = np.zeros(num_envs, np.bool_)
        self._holds = False  # whether any is held

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.process.tokenizer

    @property  # type: ignore[misc]  # one a row, as in Gymnasium's SyncVectorEnv
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random number generator of each row."""
        return tuple(self._random(row)[0] for row in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each row's generator."""
        return tuple(self._random(row)[1] for row in range(self.num_envs))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every row, or in those of `options["reset_mask"]`.

        Args:
            seed: None goes on with the generators; a number s seeds row i with s + i; a list has
                a seed, or None, for each row.
            options: `reset_mask`, bool (n,), and the options of `TextGenEnv.reset` for all rows
                that begin. With `group_size` each prompt that is drawn goes to so many episodes,
                one after another in the order in which they begin, until the next reset of all
                rows.

        Raises:
            ValueError: If seeds, mask or options do not fit.
        """
        seeds = self._seeds(seed)
        if seed is not None:
            self.process.prompts.restart()
        options = {} if options is None else options
        check_options(options)
        options = dict(options)
        rows = self._all
        if "reset_mask" in options:
            mask = self._checked_mask("option reset_mask", options.pop("reset_mask"))
            (rows,) = mask.nonzero()
            if "group_size" in options:
                raise ValueError("option group_size is for a reset of all rows; no reset_mask.")
        else:
            group_size = as_count("option group_size", options.pop("group_size", 1))
            self.process.prompts.group_by(group_size)
        self._held[rows] = False
        self._holds = bool(self._held.any())
        for row in rows.tolist():
            if seeds[row] is not None:
                self._generators[row] = seeding.np_random(seeds[row])
        infos: dict[str, Any] = {}
        self._begin(rows, options).settle(infos, self.num_envs)
        return observe(self.process.contexts), infos

    def hold(self, rows: NDArray[np.bool_]) -> None:
        """Leave rows as they are until they are reset: steps do nothing in them, and pay nothing.

        For those who have enough texts and wait for the rest of them.

        Args:
            rows: Which, bool (n,).

        Raises:
            ValueError: If it is no such array.
        """
        self._held |= self._checked_mask("rows", rows)
        self._holds = True

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Append a token to every row.

        Args:
            actions: Ids of tokens that may be written, whole numbers (n,).

        Returns:
            Observation of arrays (n, L), rewards float64 (n,), terminated bool (n,), truncated
            bool (n,), infos.

        Raises:
            gymnasium.error.ResetNeeded: If a row has not begun, or is over under DISABLED.
            ValueError: If the actions are not token ids, one a row, or one may not be written.
            textgym.RewardError: If a reward failed.
        """
        step = self._write(actions)
        rewards, infos = step.settle(self.process)
        return observe(self.process.contexts), rewards, step.terminated, step.truncated, infos

    def advance(self, actions: NDArray[np.int64]) -> Moved:
        """Append a token to every row, and leave it for later to tell what was paid.

        What a reward pays that is made elsewhere (`RemoteScore`) is asked for and not waited for,
        if `process.runs_ahead`. Settle what is `owed` step by step, in the order of the steps, and
        all of it before anything else is asked of the environment than to go on or to hold rows;
        a reset of all rows drops it.

        Args:
            actions: As for `step`.

        Returns:
            What `step` returns; rewards and infos are owed.
        """
        step = self._write(actions)
        return Moved(
            observe(self.process.contexts),
            step.terminated,
            step.truncated,
            step.ended,
            step.final_obs,
            Owed(partial(step.settle, self.process), step.paid.futures),
        )

    def state(self) -> dict[str, Any]:
        """Where all rows are, and what decides how they go on, JSON-able.

        It is taken between two steps: texts, prompts to come, what rewards and templates have
        learned. What a reward knows of a text is not in it, but made once more of the text.
        """
        generators = [self._random(row)[0].bit_generator.state for row in range(self.num_envs)]
        return {
            "episodes": unfinished(self.process),
            "ended": self.process.ended.tolist(),
            "begun": self._begun.tolist(),
            "held": self._held.tolist(),
            "generators": generators,
            "seeds": list(self.np_random_seed),
            "prompts": self.process.prompts.state(),
            "reward": self.reward_state(),
            "templates": self.template_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> tuple[Observation, NDArray[np.bool_]]:
        """Go on from a state that `state` gave, as if nothing had been between.

        Returns:
            What is observed, and which rows begin anew, bool (n,): those whose episode could not
            be written down.

        Raises:
            ValueError: If it is the state of another environment.
        """
        process = self.process
        if process.trials is not None:
            process.trials.give_up(self._all)
        self.load_template_state(state["templates"])
        self.load_reward_state(state["reward"])
        take_up(process, state["episodes"])
        self.load_reward_state(state["reward"])  # which may have learned from the texts once more
        process.prompts.load_state(state["prompts"])
        self._generators = []
        for of_row, seed in zip(state["generators"], state["seeds"], strict=True):
            generator = seeding.RNG(np.random.PCG64())
            generator.bit_generator.state = of_row
            self._generators.append((generator, seed))
        self._begun = np.array(state["begun"], np.bool_)
        self._held = np.array(state["held"], np.bool_)
        self._holds = bool(self._held.any())
        anew = process.ended & ~np.array(state["ended"], np.bool_)
        if anew.any():
            self._begin(anew.nonzero()[0], {}).settle({}, self.num_envs)
        return observe(process.contexts), anew

    def render(self) -> tuple[str | NDArray[np.uint8] | None, ...] | None:  # type: ignore[override]
        """One text or picture a row, or with "human" the first row, printed."""
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode; give make_vec(..., render_mode='ansi').")
            return None
        rows = 1 if self.render_mode == "human" else self.num_envs
        return tuple(
            rendering.render(self.process.transcript(row), self.render_mode) for row in range(rows)
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Valid actions of every row, bool (n, V); see `TextGenEnv.action_masks`."""
        return np.tile(self.process.action_mask(), (self.num_envs, 1))

    def _write(self, actions: NDArray[Any]) -> Step:
        """The first half of a step."""
        process = self.process
        actions = process.as_array(actions)
        if actions.shape != (self.num_envs,):
            raise ValueError(
                f"actions have shape {actions.shape}; expected one token id a row, "
                f"({self.num_envs},)."
            )
        over = self._over()
        if len(over) or self._holds:
            step = self._write_others(actions, over)
        else:
            step = Step(self._all, *process.advance(self._all, process.as_tokens(actions)))
        ended = self._over()
        if len(ended):
            step.ended = ended
            step.final_info = process.final_info(ended)
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                step.final_obs = observe_rows(process.contexts, ended)
                step.after = self._begin(ended, {})
        return step

    def _write_others(self, actions: NDArray[Any], over: Rows) -> Step:
        """A step in which not all rows write: those in `over` begin anew, if the mode says so."""
        begin_anew = self.autoreset_mode is AutoresetMode.NEXT_STEP and self._begun.all()
        if len(over) and not begin_anew:
            raise gym.error.ResetNeeded(
                f"rows {over.tolist()} are over or have not begun; call reset(), with "
                "options={'reset_mask': mask} for some rows only."
            )
        n, process = self.num_envs, self.process
        (rows,) = np.logical_not(process.ended | self._held).nonzero()
        tokens = process.as_tokens(actions[rows])  # refused before anything is done
        step = Step(rows, Owed(lambda: np.zeros(0)), np.zeros(n, np.bool_), np.zeros(n, np.bool_))
        if len(over):
            step.before = self._begin(over, {})
        if len(rows):
            step.paid, terminated, truncated = process.advance(rows, tokens)
            step.terminated[rows], step.truncated[rows] = terminated, truncated
        return step

    def _over(self) -> Rows:
        """Rows whose episode is over or has not begun, but for those that are held."""
        ended = self.process.ended
        return (ended & ~self._held if self._holds else ended).nonzero()[0]

    def _begin(self, rows: Rows, options: Mapping[str, Any]) -> Begun:
        generators = [self._random(row)[0] for row in rows.tolist()]
        second = self.process.begin(rows, generators, options)
        self._begun[rows] = True
        return Begun(rows, second, self.process.reset_info(rows))

    def _random(self, row: int) -> tuple[np.random.Generator, int]:
        """A row's generator and the seed that it began with; made when first needed."""
        generator = self._generators[row]
        if generator is None:
            generator = self._generators[row] = seeding.np_random()
        return generator

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        seeds = np.asarray(seed, object)
        if seeds.shape != (self.num_envs,):
            raise ValueError(
                f"got {seeds.size} seeds for {self.num_envs} rows, {seed!r}; give one whole "
                "number, or a list with a seed a row."
            )
        return [operator.index(s) if isinstance(s, np.integer) else s for s in seeds.tolist()]

    def _checked_mask(self, name: str, mask: Any) -> NDArray[np.bool_]:
        fits = isinstance(mask, np.ndarray) and mask.shape == (self.num_envs,)
        if not fits or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"{name} is a bool array of shape ({self.num_envs},) with at least one "
                f"True, got {mask!r}."
            )
        checked: NDArray[np.bool_] = mask
        return checked


def _as_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(repr(known.value) for known in AutoresetMode)
        raise ValueError(f"autoreset_mode is one of {known}, got {mode!r}.") from error
