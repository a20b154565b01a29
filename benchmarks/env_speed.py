"""How long does a step of the environment take, in each way that there is to run many of them?

    python benchmarks/env_speed.py

writes `benchmarks/results/env_speed.json` and `.md`. All ways take random actions, drawn
beforehand, in one thread. With the table reward, which costs next to nothing, the environment
itself is measured; with the sentiment reward what a user of the defaults waits for. Times are of
the processor and not of the clock on the wall, so that other programs disturb them less.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import rich
import stable_baselines3
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from rich.table import Table
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.vec_env import VectorEnvBridge, make_sb3_vec_env
from textgym.completion import Completions
from textgym.dynamics import Rows
from textgym.rewards.sentiment import Sentiment

RESULTS = Path(__file__).parent / "results"
EPISODE = 32
"""Tokens of an episode: the default `max_new_tokens`. Runs are whole episodes, resets included."""

END_OF_TEXT = 0
"""The built-in tokenizer's end-of-text token."""

Step = Callable[[NDArray[np.int64]], Any]


class TableReward:
    """Pays each token what a table says: the least that a reward can cost."""

    def __init__(self, vocab_size: int) -> None:
        self._table = np.random.default_rng(0).standard_normal(vocab_size).astype(np.float32)

    def start(self, rows: Rows, completions: Completions) -> None:
        """Nothing to remember."""

    def step(
        self, rows: Rows, tokens: NDArray[np.int64], completions: Completions
    ) -> NDArray[np.float32]:
        """An entry of the table for each token."""
        return self._table[tokens]


class TimedSentiment:
    """The sentiment reward, with a count of the texts and of the seconds spent on them."""

    def __init__(self) -> None:
        self._score = Sentiment()
        self.texts = 0
        self.seconds = 0.0

    def __call__(self, text: str) -> float:
        """The score of a text."""
        start = time.process_time()
        score = self._score(text)
        self.seconds += time.process_time() - start
        self.texts += 1
        return score


def native(num_envs: int, reward: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The vector environment of this package."""
    return gym.make_vec(
        "TextGen-v0", num_envs=num_envs, reward=reward, autoreset_mode=AutoresetMode.SAME_STEP
    )


def singles(num_envs: int, reward: Any) -> list[Callable[[], gym.Env[Any, Any]]]:
    """Single environments, without the checker that `gym.make` puts around them."""
    return [partial(gym.make, "TextGen-v0", reward=reward, disable_env_checker=True)] * num_envs


WAYS: dict[str, Callable[[int, Any], Any]] = {
    "native": native,
    "native, SB3 bridge": lambda n, reward: VectorEnvBridge(native(n, reward)),
    "native, SB3 bridge and VecMonitor": lambda n, reward: make_sb3_vec_env(
        "TextGen-v0", n, env_kwargs={"reward": reward}
    ),
    "gymnasium SyncVectorEnv": lambda n, reward: SyncVectorEnv(
        singles(n, reward), autoreset_mode=AutoresetMode.SAME_STEP
    ),
    "SB3 DummyVecEnv": lambda n, reward: DummyVecEnv(singles(n, reward)),
}


@dataclass
class Measurement:
    """Microseconds of a batch step: the median and the least of some runs of whole episodes."""

    reward: str
    ages: str
    num_envs: int
    way: str
    median_us: float
    min_us: float
    steps: int
    runs: int


def measure(
    reward_name: str, reward: Any, num_envs: int, *, apart: bool, seconds: float, runs: int
) -> Iterator[Measurement]:
    """Time all ways, run by run in turn, so that what disturbs one of them disturbs all."""
    envs = {way: make(num_envs, reward) for way, make in WAYS.items()}
    vocab_size = envs["native"].single_action_space.n
    timings: dict[str, list[float]] = {}
    steps: dict[str, int] = {}
    for way, env in envs.items():
        env.reset()
        actions = draw_actions([0], vocab_size, (EPISODE, num_envs))
        if apart:
            actions[np.arange(num_envs) % EPISODE, np.arange(num_envs)] = END_OF_TEXT
        one_run = run(env.step, actions) * EPISODE
        steps[way] = EPISODE * max(1, round(seconds / one_run))
        timings[way] = []
    for number in range(1, runs + 1):
        for place, (way, env) in enumerate(envs.items()):
            # Others for each, as the sentiment reward remembers what it has read.
            actions = draw_actions([number, place], vocab_size, (steps[way], num_envs))
            timings[way].append(run(env.step, actions))
    for way, env in envs.items():
        with closing(env):
            micro = [1e6 * timing for timing in timings[way]]
            yield Measurement(
                reward_name,
                "apart" if apart else "together",
                num_envs,
                way,
                round(median(micro), 2),
                round(min(micro), 2),
                steps[way],
                runs,
            )


def draw_actions(seed: list[int], vocab_size: int, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Tokens that do not end a text: rows go on ending together, or as far apart as they are."""
    return np.random.default_rng(seed).integers(1, vocab_size, shape)


def run(step: Step, actions: NDArray[np.int64]) -> float:
    """Seconds of one step, the mean of as many as there are actions."""
    start = time.process_time()
    for action in actions:
        step(action)
    return (time.process_time() - start) / len(actions)


def scoring_share(num_envs: int, episodes: int) -> dict[str, float]:
    """Where a step with the sentiment reward goes: texts scored, their cost, and their share."""
    reward = TimedSentiment()
    env = native(num_envs, reward)
    env.reset(seed=0)
    vocab_size = env.single_action_space.n  # type: ignore[attr-defined]
    actions = draw_actions([0], vocab_size, (EPISODE * episodes, num_envs))
    seconds = len(actions) * run(env.step, actions)
    tokens = actions.size
    return {
        "num_envs": num_envs,
        "texts scored, of 100 tokens": round(100 * reward.texts / tokens, 1),
        "microseconds a text": round(1e6 * reward.seconds / reward.texts, 1),
        "percent of the time spent on scoring": round(100 * reward.seconds / seconds, 1),
    }


def machine() -> dict[str, Any]:
    """What was measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gymnasium": gym.__version__,
        "stable-baselines3": stable_baselines3.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def tables(measurements: list[Measurement]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of a table for each kind of run: rows by number, ways by column."""
    kinds = dict.fromkeys((m.reward, m.ages) for m in measurements)
    for reward, ages in kinds:
        chosen = [m for m in measurements if (m.reward, m.ages) == (reward, ages)]
        cells = {(m.num_envs, m.way): m for m in chosen}
        body = []
        for n in dict.fromkeys(m.num_envs for m in chosen):
            times = [cells[n, way].median_us for way in WAYS]
            sync = cells[n, "gymnasium SyncVectorEnv"].median_us
            body.append([str(n), *(f"{t:,.1f}" for t in times), f"{sync / times[0]:.1f}"])
        title = f"{reward} reward, episodes that end {ages}: microseconds a batch step (median)"
        yield title, ["rows", *WAYS, "native against Sync, times"], body


def report(measurements: list[Measurement], shares: list[dict[str, float]]) -> str:
    """Print the tables, and return them as Markdown."""
    lines = ["# Speed of the environment", ""]
    lines += [f"{key}: {value}  " for key, value in machine().items()]
    sections = list(tables(measurements))
    header = list(shares[0])
    body = [[f"{share[key]:g}" for key in header] for share in shares]
    sections.append(("Where a step with the sentiment reward goes (native)", header, body))
    for title, header, body in sections:
        shown = Table(title=title)
        for column in header:
            shown.add_column(column, justify="right")
        lines += [
            "",
            f"## {title}",
            "",
            "| " + " | ".join(header) + " |",
            "|--:" * len(header) + "|",
        ]
        for row in body:
            shown.add_row(*row)
            lines.append("| " + " | ".join(row) + " |")
        rich.print(shown)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--runs", type=int, default=7, help="runs, of which the median counts")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a run, at least")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the results")
    arguments = parser.parse_args()

    vocab_size = native(1, "length").single_action_space.n  # type: ignore[attr-defined]
    table = TableReward(vocab_size)
    limits = {"seconds": arguments.seconds, "runs": arguments.runs}
    measurements: list[Measurement] = []
    for num_envs in arguments.rows:
        measurements += measure("table", table, num_envs, apart=False, **limits)
        measurements += measure("table", table, num_envs, apart=True, **limits)
        measurements += measure("sentiment", "sentiment", num_envs, apart=False, **limits)
    shares = [scoring_share(num_envs, max(1, 256 // num_envs)) for num_envs in arguments.rows]

    arguments.output.mkdir(parents=True, exist_ok=True)
    text = report(measurements, shares)
    (arguments.output / "env_speed.md").write_text(text, encoding="utf-8")
    everything = {
        "machine": machine(),
        "measurements": [asdict(measurement) for measurement in measurements],
        "sentiment": shares,
    }
    path = arguments.output / "env_speed.json"
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
