"""Which way to put a prompt a model does best with: templates, tried by a bandit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.utils import get_device

from agents.config import Spec
from agents.policy import TransformerPolicy
from agents.rollout import Rollout
from agents.sampler import Sampler
from agents.vec_env import make_sb3_vec_env
from textgym.bandits import Bandit, Uniform
from textgym.files import atomic_write
from textgym.process import TextProcess
from textgym.templates import Template, read_templates


@dataclass(frozen=True)
class PromptsConfig:
    """Find out with which of several templates a model, as it is, earns most."""

    templates: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Templates, one a line, such as "Question: {prompt}\\\\nAnswer:"; or .jsonl. None takes the
    task's own."""
    model: str = "builtin"
    """Language model, as for `textgym train`."""
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
    n_envs: int = 32
    """Texts written side by side."""
    temperature: float = 1.0
    """Divides the logits."""
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


def search_prompts(config: PromptsConfig, console: Console | None = None) -> Bandit:
    """Try templates as the config says, print what each earned, and return what is known.

    Raises:
        FileNotFoundError: If there is no such file or model.
        ValueError: If there are fewer than two templates, or a setting is refused.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    templates = None
    if config.templates is not None:
        templates = [template.text for template in read_templates(config.templates)]
    env_kwargs = {
        "task": config.task,
        "split": config.split,
        "reward": config.reward,
        "timing": "delayed",  # the same scores, taken once a text
        "tokenizer": config.model,
        "chat": config.chat,
        "templates": templates,
        # The model stays as it is, so that old texts say as much as new ones.
        "prompts": {"name": config.bandit, "discount": 1.0},
        "max_new_tokens": config.max_new_tokens,
        "context_length": config.context_length,
        "stop": config.stop,
        "budget_is_terminal": True,
    }
    env = make_sb3_vec_env(
        "TextGen-v0", min(config.n_envs, config.texts), seed=config.seed, env_kwargs=env_kwargs
    )
    process: TextProcess = env.get_attr("process")[0]
    bandit = process.prompts.selection
    if bandit is None or len(process.prompts.templates) < 2:
        raise ValueError(
            f"there {'is one template' if bandit else 'are no templates'} to choose from: give a "
            "file with two or more, one a line: --templates FILE."
        )
    policy = TransformerPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 0.0,
        model=config.model,
        dtype=config.dtype,
        temperature=config.temperature,
    ).to(get_device(config.device))
    torch.manual_seed(config.seed)
    observations = env.reset()
    assert isinstance(observations, dict)
    rollout = Rollout(Sampler(policy, env.num_envs), env, observations)
    written = 0
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("writing", total=config.texts)
        while written < config.texts:
            written += int(rollout.step().dones.sum())
            progress.update(bar, completed=written)
    env.close()
    console.print(templates_table(bandit, process.prompts.templates))
    if config.output is not None:
        record = _record(bandit, process.prompts.templates)
        atomic_write(config.output, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return bandit


def templates_table(bandit: Bandit, templates: Sequence[Template]) -> Table:
    """What is known of each template: how often it was taken, its mean score, and which won."""
    table = Table(title="Templates", title_justify="left", caption=_verdict(bandit))
    table.caption_justify = "left"
    table.add_column("", justify="right")
    table.add_column("template", ratio=1, overflow="fold")
    for heading in ("texts", "mean score", "95% interval"):
        table.add_column(heading, justify="right")
    for arm in bandit.summary():
        best = arm.arm == bandit.best
        known = arm.low is not None and arm.high is not None
        table.add_row(
            str(arm.arm),
            Text(repr(templates[arm.arm].text)[1:-1], style="bold" if best else ""),
            str(arm.count),
            "" if arm.mean is None else f"{arm.mean:+.3f}",
            f"{arm.low:+.3f} to {arm.high:+.3f}" if known else "too few",
        )
    return table


def _verdict(bandit: Bandit) -> str:
    # A bandit leaves arms while they look bad, so that at 95% it would find a winner among equals
    # in a tenth of all cases.
    confidence = 0.95 if isinstance(bandit, Uniform) else 0.99
    winner = bandit.winner(confidence)
    if bandit.best is None or winner is None:
        return "Too few texts to say which is best."
    interval = (
        f"{winner.difference:+.3f} ({confidence:.0%}: {winner.low:+.3f} to {winner.high:+.3f})"
    )
    if winner.is_significant:
        return f"Template {winner.arm} won: {interval} over template {winner.rival}, the next."
    return (
        f"Template {winner.arm} is ahead, but that may be chance: {interval} over template "
        f"{winner.rival}."
    )


def _record(bandit: Bandit, templates: Sequence[Template]) -> dict[str, Any]:
    winner = bandit.winner()
    arms = [{"template": templates[arm.arm].text, **asdict(arm)} for arm in bandit.summary()]
    return {
        "templates": arms,
        "best": bandit.best,
        "winner": None
        if winner is None
        else {**asdict(winner), "is_significant": winner.is_significant},
    }
