"""One training run: environment, policy, algorithm, and what is written on the way."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.callbacks import LiveView, SampleLog
from agents.config import RunConfig
from agents.episodes import Episode
from agents.evaluation import evaluate, mean_score
from agents.policy import TransformerPolicy
from agents.report import comparison, plot_curves, write_page
from agents.run_directory import Checkpoint, RunDirectory
from agents.vec_env import make_sb3_vec_env
from textgym import tasks
from textgym.tokenizer import Tokenizer

ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"ppo": PPO, "a2c": A2C}


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
    run = _run_directory(config, resume)
    env = make_sb3_vec_env(
        "TextGen-v0", config.n_envs, seed=config.seed, env_kwargs=config.env_kwargs()
    )
    kind = ALGORITHMS[config.algo]
    if resume:
        algorithm = kind.load(run.checkpoint, env=env, device=config.device)
    else:
        policy_kwargs = {"model": config.model}
        algorithm = kind(
            TransformerPolicy, env, policy_kwargs=policy_kwargs, **config.algorithm_kwargs()
        )
    policy = algorithm.policy
    assert isinstance(policy, TransformerPolicy)
    tokenizer: Tokenizer = env.get_attr("tokenizer")[0]
    judge = _Judge(config)
    _introduce(config, policy, run, console)

    if resume:
        before = run.load_before()
    else:
        before = judge(policy)
        run.path.mkdir(parents=True, exist_ok=True)
        run.save_before(before)
        config.save(run.config)
    console.print(f"{judge.what}: mean score [bold]{mean_score(before):+.3f}[/] before training")

    view = LiveView(config.total_timesteps, tokenizer, console)
    checkpoint = Checkpoint(run.checkpoint)
    algorithm.set_logger(run.logger())
    started, steps = time.perf_counter(), algorithm.num_timesteps
    try:
        algorithm.learn(
            max(config.total_timesteps - steps, 0),
            callback=[checkpoint, SampleLog(run.samples), view],
            reset_num_timesteps=not resume,
        )
    finally:
        view.stop()
        policy.save_pretrained(run.model, tokenizer)
        checkpoint.save()
        algorithm.logger.close()
        env.close()
    seconds, steps = time.perf_counter() - started, algorithm.num_timesteps - steps

    after = judge(policy)
    plot_curves(run.progress, run.curves, mean_score(before), mean_score(after))
    write_page(run.page, before, after, tokenizer)
    console.print(comparison(before, after, tokenizer))
    console.print(
        f"{judge.what}: mean score {mean_score(before):+.3f} before, "
        f"[bold]{mean_score(after):+.3f}[/] after {steps:,} tokens in {seconds:.0f} s\n"
        f"Curve: {run.curves}   Samples: {run.page}\n"
        f'Try it: textgym sample --model {run.model} --prompt "My lord, I"'
    )
    return run.path


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


def _run_directory(config: RunConfig, resume: bool) -> RunDirectory:
    """The directory of the run; nothing is written yet."""
    path = config.output or Path("runs") / f"{config.algo}-{datetime.now():%Y%m%d-%H%M%S}"
    run = RunDirectory(path)
    if resume and not (run.checkpoint.is_file() and run.before.is_file()):
        raise FileNotFoundError(
            f"--resume {path}: there is no {run.checkpoint.name} to go on with. Start the run "
            f"again with --config {run.config}."
        )
    if not resume and (run.config.exists() or path.is_file()):
        raise FileExistsError(
            f"--output {path} holds a run already. Give another directory, or go on with that "
            f"run: textgym train --resume {path}"
        )
    return run


def _introduce(
    config: RunConfig, policy: TransformerPolicy, run: RunDirectory, console: Console
) -> None:
    parameters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    reward = config.reward if isinstance(config.reward, str) else str(config.reward)
    console.print(
        f"[bold]{config.algo.upper()}[/] trains [bold]{config.model}[/] "
        f"({parameters / 1e6:.1f} M parameters, on {policy.device}): {config.timing} "
        f"[bold]{reward}[/] reward, writing to {run.path}"
    )
