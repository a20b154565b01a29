"""One training run: environment, policy, algorithm, and what is written on the way."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from stable_baselines3 import A2C, PPO
from stable_baselines3.common import logger as sb3_logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.callbacks import LiveView, SampleLog
from agents.config import RunConfig
from agents.episodes import Episode
from agents.evaluation import evaluate, mean_score
from agents.policy import TransformerPolicy
from agents.report import comparison, plot_curves, write_page
from agents.vec_env import make_sb3_vec_env
from textgym import tasks
from textgym.tokenizer import Tokenizer

ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"ppo": PPO, "a2c": A2C}


def train(config: RunConfig, console: Console | None = None) -> Path:
    """Train as the config says, showing progress, and return the run's directory.

    The directory gets `config.yaml`, `progress.csv`, TensorBoard events, `samples.jsonl`,
    `curves.png`, `samples.html` and `model/`. The model is also written when the run is
    interrupted or a reward fails.

    Raises:
        FileExistsError: If the directory holds a run already.
        textgym.RewardError: If the reward failed.
    """
    console = console or Console()
    output = _new_run(config)
    env = make_sb3_vec_env(
        "TextGen-v0", config.n_envs, seed=config.seed, env_kwargs=config.env_kwargs()
    )
    algorithm = ALGORITHMS[config.algo](
        TransformerPolicy, env, policy_kwargs={"model": config.model}, **config.algorithm_kwargs()
    )
    policy = algorithm.policy
    assert isinstance(policy, TransformerPolicy)
    tokenizer: Tokenizer = env.get_attr("tokenizer")[0]
    judge = _Judge(config)

    output.mkdir(parents=True, exist_ok=True)
    config.save(output / "config.yaml")
    algorithm.set_logger(sb3_logger.configure(str(output), ["csv", "tensorboard"]))
    _introduce(config, policy, output, console)

    before = judge(policy)
    console.print(f"{judge.what}: mean score [bold]{mean_score(before):+.3f}[/] before training")
    view = LiveView(config.total_timesteps, tokenizer, console)
    samples = SampleLog(output / "samples.jsonl")
    started = time.perf_counter()
    try:
        algorithm.learn(config.total_timesteps, callback=[samples, view])
    finally:
        view.stop()
        policy.save_pretrained(output / "model", tokenizer)
        algorithm.logger.close()
    seconds = time.perf_counter() - started
    after = judge(policy)
    plot_curves(
        output / "progress.csv", output / "curves.png", mean_score(before), mean_score(after)
    )
    write_page(output / "samples.html", before, after, tokenizer)
    console.print(comparison(before, after, tokenizer))
    console.print(
        f"{judge.what}: mean score {mean_score(before):+.3f} before, "
        f"[bold]{mean_score(after):+.3f}[/] after {algorithm.num_timesteps:,} tokens in "
        f"{seconds:.0f} s\n"
        f"Curve: {output / 'curves.png'}   Samples: {output / 'samples.html'}\n"
        f'Try it: textgym sample --model {output / "model"} --prompt "My lord, I"'
    )
    return output


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


def _new_run(config: RunConfig) -> Path:
    """The directory of the run; nothing is written yet."""
    if config.output is None:
        return Path("runs") / f"{config.algo}-{datetime.now():%Y%m%d-%H%M%S}"
    if (config.output / "config.yaml").exists() or config.output.is_file():
        raise FileExistsError(
            f"--output {config.output} holds a run already; give another directory, or remove it."
        )
    return config.output


def _introduce(
    config: RunConfig, policy: TransformerPolicy, output: Path, console: Console
) -> None:
    parameters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    reward = config.reward if isinstance(config.reward, str) else str(config.reward)
    console.print(
        f"[bold]{config.algo.upper()}[/] trains [bold]{config.model}[/] "
        f"({parameters / 1e6:.1f} M parameters, on {policy.device}): {config.timing} "
        f"[bold]{reward}[/] reward, writing to {output}"
    )
