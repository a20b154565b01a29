"""Texts of a model, shown with every token coloured by its reward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from agents.candidates import Candidate, find
from agents.config import RunConfig
from agents.devices import known_device
from agents.evaluation import evaluate, mean_score
from agents.examples import first_examples
from agents.policy import TransformerPolicy
from agents.specs import Spec
from textgym import tasks
from textgym.env import TextGenEnv
from textgym.rendering import to_rich
from textgym.rendering.transcript import rounded
from textgym.tasks import Example, Task

DEFAULT_PROMPT = "My lord, I"


@dataclass(frozen=True)
class SampleConfig:
    """Let a model write, and show what each of its tokens earns.

    The model of a run writes as it was trained: for its task, with its reward, template, budget and
    temperature, unless others are given.
    """

    model: str = "builtin"
    """A name (see `textgym list models`), a local directory, a GGUF file, or a hub id; a run stands
    for its model/."""
    prompt: tuple[str, ...] = ()
    """Prompts to continue, or questions to a chat model. None are three test prompts of the run."""
    chat: bool | None = None
    """Prompts as chat messages; None asks whether the tokenizer has a chat template."""
    reward: Spec | None = None
    """Reward that colours the tokens, as for `textgym train`; None for the run's, or sentiment."""
    reference: str | None = None
    """Text that the reward compares with, for those that do."""
    num_samples: int = 3
    """Texts for each prompt."""
    max_new_tokens: int | None = None
    """Budget of a text, in tokens; None for the run's, or 32."""
    temperature: float | None = None
    """Divides the logits; None for the run's, or 1."""
    greedy: bool = False
    """Take the likeliest token each time instead of sampling."""
    seed: int = 0
    """Seed of the sampling."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", ..."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be above 0, got {value}.")


def sample(config: SampleConfig, console: Console | None = None) -> None:
    """Print texts as the config says, each with its score and the mean of all.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If a setting is refused.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    device = known_device(config.device)
    candidate = find(config.model)
    run = candidate.run or RunConfig()
    env_kwargs, num_prompts = _environment(config, candidate, run)
    env = TextGenEnv(**env_kwargs)
    policy = TransformerPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 0.0,
        model=candidate.source,
        temperature=run.final_temperature if config.temperature is None else config.temperature,
        top_k=run.top_k,
        top_p=run.top_p,
    ).to(device)
    prompts = [
        {"prompt_index": index} for index in range(num_prompts) for _ in range(config.num_samples)
    ]
    greedy = config.greedy or run.algorithm.is_greedy
    episodes = evaluate(policy, env_kwargs, prompts, seed=config.seed, deterministic=greedy)
    for episode in episodes:
        transcript = episode.transcript(env.tokenizer)
        if env.process.format.is_chat:
            transcript = replace(transcript, prompt=f"{transcript.prompt.rstrip()}\n")
        console.print(to_rich(transcript))
        console.print()
    if len(episodes) > 1:
        score = rounded(mean_score(episodes), "+.3f")
        console.print(f"mean score {score} over {len(episodes)} texts")


def _environment(
    config: SampleConfig, candidate: Candidate, run: RunConfig
) -> tuple[dict[str, Any], int]:
    """Arguments of the environment that is written in, and how many prompts it has."""
    task, split = tasks.make(run.task), "test"
    if config.prompt or candidate.run is None:
        task = _with_prompts(task, config)
    else:
        split = next(s for s in ("test", "validation", "train") if task.splits.get(s))
        task = replace(task, splits={split: first_examples(task, split, 3, config.seed)})
    given = {
        "reward": config.reward,
        "chat": config.chat,
        "max_new_tokens": config.max_new_tokens,
    }
    env_kwargs = {
        **run.env_kwargs(split),
        **{name: value for name, value in given.items() if value is not None},
        "task": task,
        "prompts": "uniform",
        "timing": "immediate",
        "tokenizer": candidate.source if run.tokenizer is None else run.tokenizer,
    }
    return env_kwargs, len(task.examples)


def _with_prompts(task: Task, config: SampleConfig) -> Task:
    if task.interaction is not None:
        raise ValueError(
            f"--prompt: task {task.name!r} has prompts of its own, which others answer. Leave it "
            "out to see test prompts."
        )
    prompts = config.prompt or (DEFAULT_PROMPT,)
    examples = tuple(Example(prompt, config.reference) for prompt in prompts)
    return replace(task, splits={"test": examples})
