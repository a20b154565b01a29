"""Text generation as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym import rendering
from textgym.bandits import BanditSpec
from textgym.dynamics import Observation, observe_rows
from textgym.process import TaskSpec, TextProcess
from textgym.progress import Progress
from textgym.prompts import PromptTruncation
from textgym.rewards import Every, RewardSpec, Timing
from textgym.tokenizer import BUILTIN, Tokenizer
from textgym.vocabulary import VocabularySpec

METADATA: dict[str, Any] = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 10}

_ROW = np.zeros(1, np.intp)


class TextGenEnv(Progress, gym.Env[Observation, int]):
    r"""Writing a text, one token at a time, with a reward for every token.

    ## Description
    The agent is given a prompt and appends tokens to it until the text ends; every token earns
    its reward at once.

    ## Action Space
    `Discrete(V)`: the id of the next token, V being the size of the tokenizer's vocabulary. With
    `vocabulary` it is `textgym.vocabulary.Tokens(V)`, a `Discrete(V)` too, whose `allowed` ids are
    the only ones that it holds and draws.

    ## Observation Space
    `Dict` of two arrays, named as a Hugging Face model's inputs:

    | Key              | Space                  | Meaning                                       |
    |------------------|------------------------|-----------------------------------------------|
    | `input_ids`      | `Box(0, V-1, (L,), int64)` | prompt and completion, padded on the right |
    | `attention_mask` | `Box(0, 1, (L,), int8)`    | 1 where a token stands, 0 on padding       |

    L is `context_length`: at least the longest prompt plus `max_new_tokens`, so that the
    observation holds all that was written. Flattening or normalising token ids makes no sense:
    use a policy that reads them as ids, such as `agents.TransformerPolicy`.

    ## Rewards
    A score of the text, $s(x)$, is paid as the text gains it: $r_t = s(x_t) - s(x_{t-1})$ with
    $s(x_0) = 0$, so the rewards of an episode add up to the score of its text. With
    `timing="delayed"` the last token is paid all of it. See `textgym.rewards`.

    ## Starting State
    A prompt of the task, drawn uniformly by `np_random`. `reset(options=...)` chooses it instead:
    `{"prompt": text}` or `{"prompt": [messages]}`, `{"prompt_ids": [...]}` (optionally with
    `"reference": text`) or `{"prompt_index": i}`.

    ## Episode End
    * Terminated: the token ends the text (for a chat model, its turn), or the text holds a `stop`
      string. In a task of several turns the other side answers then, and the episode goes on,
      until it has no answer.
    * Truncated: `max_new_tokens` are written. A learner then bootstraps: it adds the value that
      its critic gives to the cut text. With `budget_is_terminal=True` this is a termination too,
      and the rewards of an episode are all that it is worth, though what is left of the budget
      cannot be observed. Take it when you train without discount (gamma = 1), where nothing else
      holds the critic in place, and to compare immediate with delayed rewards.

    Shorten episodes by `max_new_tokens`, not by `gym.make(max_episode_steps=...)`: that cuts from
    outside, before a delayed reward is paid and without the information of a last step.

    ## Information
    | When      | Key                 | Meaning                                                |
    |-----------|---------------------|--------------------------------------------------------|
    | reset, last step | `prompt`     | the prompt's text                                      |
    | each step | `reward_components` | what each reward paid, weight included, by name        |
    | last step | `text`              | the completion's text                                  |
    | last step | `score`             | what the text is worth: the sum of the scores, weighted |
    | last step | `scores`            | what each reward paid in the episode, without weight   |
    | last step | `is_success`        | whether the text solves its task, where that can be told |
    | last step | `replies`           | with several turns: what was answered, and where |
    | reset, last step | `template`   | with templates: the index of the one that was taken    |

    Whether a text is a success is for the task's own test, or else for the threshold of the reward,
    to say.

    ## Arguments
    All are JSON-able except a function or an object given as reward, task or tokenizer.

    | Argument             | Default          | Meaning                                           |
    |----------------------|------------------|---------------------------------------------------|
    | `task`               | `"continuation"` | where prompts come from; name or mapping          |
    | `split`              | `"train"`        | `"train"`, `"validation"` or `"test"` prompts     |
    | `reward`             | None             | name, mapping, list, function; None: the task's |
    | `timing`             | `"immediate"`    | or `"delayed"`                                    |
    | `every`              | `"token"`        | or `"word"`, `"sentence"`: how often to score     |
    | `tokenizer`          | `"builtin"`      | a model's name, directory, GGUF file or hub id    |
    | `vocabulary`         | None             | tokens that may be written; None: all             |
    | `chat`               | None             | prompts as messages; None: if there is a template |
    | `templates`          | None             | ways to put a prompt; None: the task's own        |
    | `prompts`            | `"uniform"`      | how templates are chosen; `"bandit"`: by what pays |
    | `max_new_tokens`     | 32               | the budget of a completion                        |
    | `context_length`     | None             | L; None for what the task's longest prompt needs  |
    | `stop`               | None             | strings that end a text; None: the task's own      |
    | `budget_is_terminal` | False            | see Episode End                                   |
    | `prompt_truncation`  | `"error"`        | or `"left"`: keep the end of prompts too long     |
    | `render_mode`        | None             | `"human"`, `"ansi"` or `"rgb_array"`              |

    ## Vocabulary
    `vocabulary=["king", "love", 7]` lets nothing be written but the tokens of these texts, token 7,
    and what ends a text; the path of a text file stands for all tokens in it. A word is taken as it
    stands in a text, with a space before it: see `textgym.vocabulary.allowed_ids`. Fewer tokens are
    sooner explored. Prompts, and what others answer, may hold any token.

    ## Prompts
    A tokenizer with a chat template belongs to a chat model: prompts are then messages, put by the
    template, and the token that ends the model's turn ends the text. Otherwise, or with
    `chat=False`, prompts are plain text. (`prompt_truncation="left"` cuts what the template wrote
    first, too.) With several `templates`, such as
    `["{prompt}", "Question: {prompt}\nAnswer:"]`, each episode takes one, by chance or, with
    `prompts="bandit"`, the more often the better it pays; see `textgym.templates` and
    `textgym.bandits`. Rewards see the prompt without it. What was learned of templates, and the
    state of a reward that follows progress, outlive a reset, seeded or not.

    ## Rendering
    The text with each token on a colour that shows its reward: printed as it is written
    (`human`), as a string with colour codes (`ansi`), or as a picture (`rgb_array`).

    ## Vectorized environment
    `gym.make_vec("TextGen-v0", num_envs=n)` gives `TextGenVectorEnv`: the same dynamics, batched.

    ## Version History
    * v0: Initial version.
    """

    metadata: ClassVar[dict[str, Any]] = METADATA  # type: ignore[misc]  # as in Gymnasium's own

    def __init__(
        self,
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
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.process = TextProcess(
            1,
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
            record_rewards=render_mode is not None,
        )
        self.observation_space = self.process.observation_space
        self.action_space = self.process.action_space
        self._live = rendering.LiveText()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.process.tokenizer

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode with a prompt drawn by chance, or the one that `options` ask for.

        Raises:
            ValueError: On an unknown option, or a prompt that does not fit.
        """
        super().reset(seed=seed)
        if seed is not None:
            self.process.prompts.restart()
        self.process.begin(_ROW, [self.np_random], options)()
        self._live.begin()
        if self.render_mode == "human":
            self.render()
        return observe_rows(self.process.contexts, _ROW)[0], _single(self.process.reset_info(_ROW))

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Append a token.

        Raises:
            gymnasium.error.ResetNeeded: If the episode has ended or none has begun.
            ValueError: If the action is not a token id, or that token may not be written.
            textgym.RewardError: If the reward failed.
        """
        process = self.process
        if process.ended[0]:
            raise gym.error.ResetNeeded("the episode is over or has not begun; call reset() first.")
        array = process.as_array(action)
        if isinstance(action, bool) or array.size != 1:
            raise ValueError(f"an action is a token id, a whole number, got {action!r}.")
        tokens = process.as_tokens(array.reshape(1))
        rewards, terminated, truncated = process.step(_ROW, tokens)
        info = _single(process.step_info())
        if process.ended[0]:
            info.update(_single(process.final_info(_ROW)()))
        if self.render_mode == "human":
            self.render()
        return (
            observe_rows(process.contexts, _ROW)[0],
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            info,
        )

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode: printed, as a string, or as a picture uint8 (height, width, 3)."""
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode; give gym.make(..., render_mode='ansi').")
            return None
        transcript = self.process.transcript(0)
        if self.render_mode == "human":
            self._live.show(transcript, ended=bool(self.process.completions.ended[0]))
            return None
        return rendering.render(transcript, self.render_mode)

    def action_masks(self) -> NDArray[np.bool_]:
        """Valid actions, bool (V,), for sb3-contrib's MaskablePPO: no special token but EOS.

        With a `vocabulary` only those in it.
        """
        return self.process.action_mask()


def _single(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The info of the one row that these columns are about, in plain Python values."""
    info: dict[str, Any] = {}
    for key, column in columns.items():
        if isinstance(column, Mapping):
            info[key] = _single(column)
        else:
            info[key] = column[0].item() if isinstance(column, np.ndarray) else column[0]
    return info


def check_render_mode(render_mode: str | None) -> None:
    """Raise if there is no such way to render."""
    if render_mode is not None and render_mode not in METADATA["render_modes"]:
        # A TypeError, since that is what tools which try a mode out (Stable-Baselines3's
        # make_vec_env) take as "not supported".
        raise TypeError(
            f"render_mode is one of {METADATA['render_modes']} or None, got {render_mode!r}."
        )
