"""Texts of a model, shown with every token coloured by its reward."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from agents.candidates import find
from agents.config import Spec
from agents.devices import known_device
from agents.evaluation import evaluate, mean_score
from agents.policy import TransformerPolicy
from textgym.env import TextGenEnv
from textgym.rendering import to_rich
from textgym.tasks import Example, Task


@dataclass(frozen=True)
class SampleConfig:
    """Let a model write, and show what each of its tokens earns."""

    model: str = "builtin"
    """A name (see `textgym list models`), a local directory, a GGUF file, or a hub id; a run stands
    for its model/."""
    prompt: tuple[str, ...] = ("My lord, I",)
    """One or more prompts to continue, or questions to a chat model."""
    chat: bool | None = None
    """Prompts as chat messages; None asks whether the tokenizer has a chat template."""
    reward: Spec = "sentiment"
    """Reward that colours the tokens, as for `textgym train`."""
    reference: str | None = None
    """Text that the reward compares with, for those that do."""
    num_samples: int = 3
    """Texts for each prompt."""
    max_new_tokens: int = 32
    """Budget of a text, in tokens."""
    greedy: bool = False
    """Take the likeliest token each time instead of sampling."""
    seed: int = 0
    """Seed of the sampling."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", ..."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not self.prompt:
            raise ValueError('--prompt wants at least one text, such as --prompt "My lord, I".')


def sample(config: SampleConfig, console: Console | None = None) -> None:
    """Print texts as the config says, each with its score and the mean of all."""
    console = console or Console()
    device = known_device(config.device)
    source = find(config.model).source
    examples = tuple(Example(prompt, config.reference) for prompt in config.prompt)
    env_kwargs = {
        "task": Task("prompts", {"train": examples}),
        "reward": config.reward,
        "tokenizer": source,
        "chat": config.chat,
        "max_new_tokens": config.max_new_tokens,
    }
    env = TextGenEnv(**env_kwargs)
    policy = TransformerPolicy(
        env.observation_space, env.action_space, lambda _: 0.0, model=source
    ).to(device)
    prompts = [
        {"prompt_index": index} for index in range(len(examples)) for _ in range(config.num_samples)
    ]
    episodes = evaluate(policy, env_kwargs, prompts, seed=config.seed, deterministic=config.greedy)
    for episode in episodes:
        console.print(to_rich(episode.transcript(env.tokenizer)))
        console.print()
    if len(episodes) > 1:
        console.print(f"mean score {mean_score(episodes):+.3f} over {len(episodes)} texts")
