"""Which way to put a prompt a model does best with: templates, tried by a bandit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.vec_env import VecEnv

from agents.candidates import find
from agents.devices import known_device
from agents.judging.intervals import LEVEL
from agents.policy import TransformerPolicy
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.sampling import Sampling
from agents.specs import Spec
from agents.vec_env import make_sb3_vec_env
from agents.wording import prompts_in_words, say
from textgym import bandits, tasks
from textgym.arms import Winner
from textgym.bandits import Bandit, Uniform
from textgym.files import atomic_write
from textgym.process import TextProcess
from textgym.rendering.transcript import rounded
from textgym.templates import Template, read_templates


@dataclass(frozen=True)
class PromptsConfig:
    """Find out with which of several templates a model, as it is, earns most."""

    templates: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Templates, one a line, such as "Question: {prompt}\\\\nAnswer:"; or .jsonl. None takes the
    task's own."""
    model: str = "builtin"
    """Language model, as for `textgym train`; a run stands for its model/."""
    tokenizer: str | None = None
    """Tokenizer: as for the model; None takes the model's own."""
    task: Spec = "continuation"
    """Where prompts come from, as for `textgym train`."""
    split: str = "train"
    """Whose prompts: train, validation or test."""
    reward: Spec | None = None
    """What a text is worth; None for the task's own."""
    bandit: Literal["thompson", "ucb", "uniform"] = "thompson"
    """How templates are chosen: by Thompson sampling, by upper confidence bounds, or all as
    often."""
    texts: int = 512
    """Texts to write in all."""
    max_new_tokens: int = 32
    """Budget of a text, in tokens."""
    stop: tuple[str, ...] | None = None
    """Strings that end a text; None for the task's own."""
    chat: bool | None = None
    """Prompts as chat messages; None asks whether the tokenizer has a template."""
    context_length: int | None = None
    """Tokens that an observation holds; None for what the longest prompt needs."""
    prompt_truncation: Literal["error", "left"] = "error"
    """What becomes of prompts that do not fit: refused, or only their end is kept."""
    n_envs: int = 32
    """Texts written side by side."""
    temperature: float = 1.0
    """Divides the logits."""
    top_k: int = 0
    """Write only the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Write only the likeliest tokens that together have this probability; 1 for all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the transformer."""
    seed: int = 0
    """Seed of prompts, choices and sampling."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", ..."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write what was found as JSON."""

    def __post_init__(self) -> None:
        for name in ("texts", "max_new_tokens", "n_envs", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        Sampling(self.temperature, self.top_k, self.top_p)  # refuses what makes no sense


def search_prompts(config: PromptsConfig, console: Console | None = None) -> Bandit:
    """Try templates as the config says, print what each earned, and return what is known.

    Exactly `config.texts` texts are begun, and each of them counts, however long it gets.

    Raises:
        FileNotFoundError: If there is no such file or model.
        ValueError: If there are fewer than two templates, or a setting is refused.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    device = known_device(config.device)
    source = find(config.model).source
    task = tasks.make(config.task)
    templates = tuple(Template(text) for text in task.templates)
    if config.templates is not None:
        templates = read_templates(config.templates)
    if len(templates) < 2:
        raise ValueError(
            f"there {'is one template' if templates else 'are no templates'} to choose from: give "
            "a file with two or more, one a line: --templates FILE."
        )
    env_kwargs = {
        "task": task,
        "split": config.split,
        "reward": config.reward,
        "timing": "delayed",  # the same scores, taken once a text
        "tokenizer": source if config.tokenizer is None else find(config.tokenizer).source,
        "chat": config.chat,
        "templates": [template.text for template in templates],
        # The model stays as it is, so that old texts say as much as new ones.
        "prompts": {"name": config.bandit, "discount": 1.0},
        "max_new_tokens": config.max_new_tokens,
        "context_length": config.context_length,
        "stop": config.stop,
        "prompt_truncation": config.prompt_truncation,
        "budget_is_terminal": True,
    }
    env = make_sb3_vec_env(
        "TextGen-v0", min(config.n_envs, config.texts), seed=config.seed, env_kwargs=env_kwargs
    )
    process: TextProcess = env.get_attr("process")[0]
    policy = TransformerPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 0.0,
        model=source,
        dtype=config.dtype,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
    ).to(device)
    prompts = prompts_in_words(process.format.is_chat)
    say(console, f"Prompts are {prompts}.")
    torch.manual_seed(config.seed)
    bandit = bandits.make(config.bandit, len(templates))
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("writing", total=config.texts)
        for template, score in _results(policy, env, config.texts):
            bandit.update(template, score)
            progress.advance(bar)
    env.close()
    console.print(templates_table(bandit, templates))
    say(console, verdict(bandit))
    if config.output is not None:
        record = _record(bandit, templates)
        atomic_write(config.output, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return bandit


def _results(policy: TransformerPolicy, env: VecEnv, texts: int) -> Iterator[tuple[int, float]]:
    """The templates and the scores of exactly so many texts, as they end.

    To stop at the first that end would favour short texts, and templates that lead to them.
    """
    observations = env.reset()
    assert isinstance(observations, dict)
    rollout = Rollout(Sampler(policy, env.num_envs), env, observations)
    writing = np.ones(env.num_envs, np.bool_)
    begun = env.num_envs
    while writing.any():
        step = rollout.step()
        (ended,) = (step.dones & writing).nonzero()
        for row in ended.tolist():
            yield step.infos[row]["template"], step.infos[row]["score"]
        # The environment has begun the next text in all rows that ended, and goes on there with
        # anything, of which its own bandit learns: the choices that count are made by then.
        over = ended[texts - begun :]
        begun += len(ended) - len(over)
        writing[over] = False
        rollout.leave_out(~writing)


def templates_table(bandit: Bandit, templates: Sequence[Template]) -> Table:
    """What is known of each template: how often it was taken, and its mean score."""
    table = Table(title="Templates", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("template", ratio=1, overflow="fold")
    for heading in ("texts", "mean score", f"{LEVEL:.0%} interval"):
        table.add_column(heading, justify="right")
    for arm in bandit.summary(LEVEL):
        best = arm.arm == bandit.best
        interval = "too few"
        if arm.low is not None and arm.high is not None:
            interval = f"{rounded(arm.low, '+.3f')} to {rounded(arm.high, '+.3f')}"
        table.add_row(
            str(arm.arm),
            Text(repr(templates[arm.arm].text)[1:-1], style="bold" if best else ""),
            str(arm.count),
            "" if arm.mean is None else rounded(arm.mean, "+.3f"),
            interval,
        )
    return table


def verdict(bandit: Bandit) -> str:
    """Which template won, or that none did, in a line."""
    winner, confidence = _winner(bandit)
    if winner is None:
        return "Too few texts to say which is best."
    ends = (winner.difference, winner.low, winner.high)
    difference, low, high = (rounded(number, "+.3f") for number in ends)
    interval = f"{difference} ({confidence:.0%}: {low} to {high})"
    if winner.is_significant:
        return f"Template {winner.arm} won: {interval} over template {winner.rival}, the next."
    return (
        f"Template {winner.arm} is ahead, but that may be chance: {interval} over template "
        f"{winner.rival}."
    )


def _winner(bandit: Bandit) -> tuple[Winner | None, float]:
    """How the best template compares with the next, and how sure the interval of that is."""
    # A bandit leaves arms while they look bad, so that at 95% it would find a winner among equals
    # in a tenth of all cases.
    confidence = LEVEL if isinstance(bandit, Uniform) else 0.99
    return bandit.winner(confidence), confidence


def _record(bandit: Bandit, templates: Sequence[Template]) -> dict[str, Any]:
    winner, confidence = _winner(bandit)
    arms = [
        {"template": templates[arm.arm].text, **asdict(arm), "confidence": LEVEL}
        for arm in bandit.summary(LEVEL)
    ]
    return {
        "templates": arms,
        "best": bandit.best,
        "winner": None
        if winner is None
        else {
            **asdict(winner),
            "confidence": confidence,
            "is_significant": winner.is_significant,
        },
    }
