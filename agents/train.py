"""One training run: environment, policy, algorithm, and what is written on the way."""

from __future__ import annotations

import shlex
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.algorithms.ppo import TokenPPO
from agents.callbacks import EpisodeCollector, LiveView, SampleLog
from agents.config import RunConfig
from agents.episodes import Episode
from agents.evaluation import evaluate, mean_score
from agents.policy import TransformerPolicy
from agents.report import comparison, plot_curves, write_page
from agents.run_directory import Checkpoint, RunDirectory, restore_reward
from agents.run_file import save_config
from agents.vec_env import make_sb3_vec_env
from textgym import tasks
from textgym.tokenizer import Tokenizer

ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {
    "ppo": TokenPPO,
    "sb3-ppo": PPO,
    "sb3-a2c": A2C,
}


def train(config: RunConfig, console: Console | None = None, *, resume: bool = False) -> Path:
    """Train as the config says, showing progress, and return the run's directory.

    The directory gets `config.yaml`, `progress.csv`, TensorBoard events, `samples.jsonl`,
    `curves.png`, `samples.html`, `model/` and `checkpoint.zip`. The model and the checkpoint are
    also written when the run is interrupted or a reward fails.

    Args:
        config: The settings.
        console: Where to show progress; the terminal if None.
        resume: Go on with the run in `config.output`, up to `config.total_timesteps`.

    Raises:
        FileExistsError: If the directory holds a run already, and `resume` is not set.
        FileNotFoundError: If `resume` is set and there is no checkpoint.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    run = RunDirectory(config.output or _dated_directory(config))
    if resume:
        run.check_resumable()
    else:
        run.check_new()
    _check_device(config.device)
    env = make_sb3_vec_env("TextGen-v0", config.n_envs, env_kwargs=config.env_kwargs())
    kind = ALGORITHMS[config.algo]
    if resume:
        algorithm = kind.load(run.checkpoint, env=env, device=config.device)
        restore_reward(algorithm)
        run.forget_after(algorithm.num_timesteps)
    else:
        algorithm = kind(TransformerPolicy, env, **config.algorithm_kwargs())
    # What goes on must not draw again the prompts and the tokens with which it began.
    algorithm.set_random_seed(_seed(config.seed, algorithm.num_timesteps))
    policy = algorithm.policy
    assert isinstance(policy, TransformerPolicy)
    tokenizer: Tokenizer = env.get_attr("tokenizer")[0]
    judge = _Judge(config)
    _introduce(config, policy, run, console)

    before = run.load_before() if resume else judge(policy)
    console.print(f"{judge.what}: mean score [bold]{mean_score(before):+.3f}[/] before training")
    run.path.mkdir(parents=True, exist_ok=True)
    run.save_before(before)
    save_config(config, run.config)

    collector = EpisodeCollector()
    view = LiveView(config.total_timesteps, collector, tokenizer, console)
    checkpoint = Checkpoint(run.checkpoint)
    algorithm.set_logger(run.logger())
    started, first = time.perf_counter(), algorithm.num_timesteps
    finished = False
    try:
        algorithm.learn(
            max(config.total_timesteps - first, 0),
            callback=[checkpoint, collector, SampleLog(run.samples, collector), view],
            reset_num_timesteps=not resume,
        )
        finished = True
    finally:
        view.stop()
        policy.save_pretrained(run.model, tokenizer)
        checkpoint.save()
        algorithm.logger.close()
        env.close()
        if not finished:
            say(
                console,
                f"Saved after {algorithm.num_timesteps:,} tokens. Go on: textgym train --resume "
                f"{run.path}",
            )
    seconds, steps = time.perf_counter() - started, algorithm.num_timesteps - first

    after = judge(policy)
    plot_curves(run.progress, run.curves, mean_score(before), mean_score(after))
    write_page(run.page, before, after, tokenizer)
    console.print(comparison(before, after, tokenizer))
    kl = "" if view.kl is None else f", at a KL of {view.kl:.1f} nats a text"
    console.print(
        f"{judge.what}: mean score {mean_score(before):+.3f} before, "
        f"[bold]{mean_score(after):+.3f}[/] after {steps:,} tokens in {seconds:.0f} s{kl}",
        soft_wrap=True,
    )
    say(console, f"curves   {run.curves}\nsamples  {run.page}\nmodel    {run.model}")
    reward = f" --reward {shlex.quote(config.reward_text)}" if config.reward != "sentiment" else ""
    say(console, f'Try it: textgym sample --model {run.model}{reward} --prompt "My lord, I"')
    return run.path


def say(console: Console, text: str) -> None:
    """Print a text as it is, in whole lines, so that paths and commands can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Judge:
    """Scores a policy on the same held-out prompts each time."""

    def __init__(self, config: RunConfig) -> None:
        splits = tasks.make(config.task).splits
        split = "test" if splits.get("test") else "train"
        count = min(config.eval_prompts, len(splits[split]))
        self._prompts = [{"prompt_index": index} for index in range(count)]
        self._env_kwargs = config.env_kwargs(split)
        self._seed = config.seed
        held_out = "held-out prompts" if split == "test" else "training prompts (no test split)"
        self.what = f"{count} {held_out}"

    def __call__(self, policy: TransformerPolicy) -> list[Episode]:
        """One text for each of the prompts."""
        return evaluate(policy, self._env_kwargs, self._prompts, seed=self._seed)


def _dated_directory(config: RunConfig) -> Path:
    return Path("runs") / f"{config.algo}-{datetime.now():%Y%m%d-%H%M%S}"


def _check_device(device: str) -> None:
    """Raise if there is no such device; SB3 would train on the CPU without a word."""
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {device} cannot be used here: {str(error).splitlines()[0]} "
            "Give auto, cpu, or a GPU that torch can use."
        ) from error


def _seed(seed: int, timesteps: int) -> int:
    """The seed of what follows after so many tokens; the run's own at the start."""
    if timesteps == 0:
        return seed
    return int(np.random.SeedSequence([seed, timesteps]).generate_state(1)[0])


def _introduce(
    config: RunConfig, policy: TransformerPolicy, run: RunDirectory, console: Console
) -> None:
    count = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    size = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
    console.print(
        f"[bold]{config.algo.upper()}[/] trains [bold]{config.model}[/] "
        f"({size} parameters, on {policy.device}): {config.timing} "
        f"[bold]{escape(config.reward_text)}[/] reward, writing to {run.path}",
        soft_wrap=True,
    )
