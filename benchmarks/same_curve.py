"""Does TokenPPO learn what stock PPO learns, in the same number of tokens?

    python benchmarks/same_curve.py

trains both on two tasks with several seeds, the same settings and the built-in model, and writes
`benchmarks/results/same_curve.json`, `.md` and `.png`. Both draw their tokens in their own way, so
that single runs differ; the bands over the seeds should lie over each other. A run that was
stopped goes on with the seeds that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from textgym.files import atomic_write

RESULTS = Path(__file__).parent / "results"
ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"stock PPO": PPO, "TokenPPO": TokenPPO}
COLORS = {"stock PPO": "#c8501e", "TokenPPO": "#12836b"}

SETTINGS = {
    "n_steps": 16,
    "batch_size": 256,
    "n_epochs": 2,
    "learning_rate": 1e-4,
    "gamma": 1.0,
    "gae_lambda": 0.95,
}
N_ENVS = 64
TASKS: dict[str, tuple[int, dict[str, Any]]] = {
    "sentiment": (20_480, {"max_new_tokens": 16}),
    "target token": (
        20_480,
        {
            "task": {"name": "target_token", "targets": list("abcde"), "num_prompts": 5},
            "reward": "target_token",
            "max_new_tokens": 8,
        },
    ),
}
"""Tokens of a run, and arguments of the environment."""


class Scores(BaseCallback):
    """The mean score of the texts that ended in each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.means: list[float] = []
        self._scores: list[float] = []

    def _on_step(self) -> bool:
        infos = (self.locals["infos"][row] for row in self.locals["dones"].nonzero()[0])
        self._scores += [info["episode"]["r"] for info in infos]
        return True

    def _on_rollout_end(self) -> None:
        self.means.append(float(np.mean(self._scores)))
        self._scores = []


def run(task: str, algorithm: str, seed: int) -> dict[str, Any]:
    """One run: the mean score of each rollout, and the seconds that all took."""
    tokens, env_kwargs = TASKS[task]
    env_kwargs = {**env_kwargs, "budget_is_terminal": True}
    env = make_sb3_vec_env("TextGen-v0", N_ENVS, seed=seed, env_kwargs=env_kwargs)
    learner = ALGORITHMS[algorithm](TransformerPolicy, env, seed=seed, device="cpu", **SETTINGS)
    scores, began = Scores(), time.perf_counter()
    learner.learn(tokens, callback=scores)
    return {"scores": scores.means, "seconds": round(time.perf_counter() - began, 1)}


def curves(runs: Mapping[str, Any], task: str, algorithm: str) -> Any:
    """Scores by seed and rollout."""
    found = [r["scores"] for key, r in runs.items() if key.startswith(f"{task}|{algorithm}|")]
    return np.array(found)


def report(results: Mapping[str, Any]) -> str:
    """The table, in Markdown."""
    runs = results["runs"]
    lines = ["# TokenPPO and stock PPO: the same curve", ""]
    lines += [f"{key}: {value}  " for key, value in results["machine"].items()]
    lines += ["", f"Settings: {SETTINGS}, {N_ENVS} environments, built-in model.", ""]
    lines += [
        "| task | algorithm | seeds | first rollout | half way | last rollout | mean of all "
        "| seconds a run |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for task in TASKS:
        for algorithm in ALGORITHMS:
            scores = curves(runs, task, algorithm)
            chosen = [scores[:, 0], scores[:, scores.shape[1] // 2], scores[:, -1], scores.mean(1)]
            cells = [f"{column.mean():.3f} ± {column.std(ddof=1):.3f}" for column in chosen]
            seconds = [r["seconds"] for k, r in runs.items() if k.startswith(f"{task}|{algorithm}")]
            row = [task, algorithm, str(len(scores)), *cells, f"{np.median(seconds):.0f}"]
            lines.append("| " + " | ".join(row) + " |")
    lines += ["", "Mean score of a rollout's texts, mean ± standard deviation over the seeds.", ""]
    for task in TASKS:
        stock, ours = (curves(runs, task, algorithm) for algorithm in ALGORITHMS)
        gap = np.abs(stock.mean(0) - ours.mean(0))
        spread = stock.std(0, ddof=1) + ours.std(0, ddof=1)
        over = (gap <= spread).mean()
        lines.append(
            f"- {task}: the bands (mean ± one standard deviation) overlap in {over:.0%} of the "
            f"rollouts; over all rollouts the means differ by "
            f"{abs(stock.mean() - ours.mean()):.3f}."
        )
    return "\n".join([*lines, "", "![curves](same_curve.png)", ""])


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Both algorithms' means, with a band of one standard deviation."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(TASKS), figsize=(5 * len(TASKS), 3.4), squeeze=False)
    for axis, task in zip(axes[0], TASKS, strict=True):
        for algorithm in ALGORITHMS:
            scores = curves(results["runs"], task, algorithm)
            tokens = (np.arange(scores.shape[1]) + 1) * N_ENVS * SETTINGS["n_steps"]
            mean, spread = scores.mean(0), scores.std(0, ddof=1)
            axis.plot(tokens, mean, color=COLORS[algorithm], label=algorithm, linewidth=1.8)
            axis.fill_between(
                tokens, mean - spread, mean + spread, color=COLORS[algorithm], alpha=0.2, lw=0
            )
        axis.set_title(f"{task}: mean score of a text", loc="left", fontsize=10)
        axis.set_xlabel("tokens written in training")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False, loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4, help="runs of each kind")
    seeds = parser.parse_args().seeds
    path = RESULTS / "same_curve.json"
    results = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
    results["machine"] = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    for seed in range(seeds):
        for task in TASKS:
            for algorithm in ALGORITHMS:
                key = f"{task}|{algorithm}|{seed}"
                if key in results["runs"]:
                    continue
                results["runs"][key] = run(task, algorithm, seed)
                print(key, results["runs"][key]["seconds"], "s", results["runs"][key]["scores"][-1])
                atomic_write(path, json.dumps(results, indent=1) + "\n")
    atomic_write(path.with_suffix(".md"), report(results))
    plot(results, path.with_suffix(".png"))
    print(report(results))


if __name__ == "__main__":
    main()
