"""Does a rollout cost more when its rewards are made elsewhere, and take 50 ms a call?

    python benchmarks/remote_reward.py          # a few minutes
    python benchmarks/remote_reward.py --quick  # a smoke run, which writes nothing

writes `benchmarks/results/remote_reward.json` and `.md`. The reward is the reward "http", asked
once a step about all rows, and its service a process of its own on this machine. It sleeps for as
long as its call takes, so that it costs this machine nothing, as one on another machine would: once
with one worker, which serves calls one after another, and once with eight.

`TokenPPO` writes rollouts with a model that takes less than 50 ms a step, and with one that takes
more. Each is timed four ways, in turn: with a reward that costs nothing (the rollout alone); only
the calls, asked all at once (the reward alone); as it is, writing on while rewards are made; and
with every call waited for, which is what it costs to step an environment by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich
import torch
from rich.table import Table
from speed.results import machine
from speed.workload import Workload
from stable_baselines3.common.callbacks import BaseCallback

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from textgym.completion import Sample
from textgym.rewards import Score
from textgym.rewards.http import HTTPScore
from textgym.rewards.serving import ScoreServer
from textgym.rewards.wire import SCORE_PATH
from textgym.tasks import Example, Task

RESULTS = Path(__file__).parent / "results"
AT_MOST = 1.2
"""Times the larger of rollout and reward, that both together may take."""

MODELS = {"faster": (4, 128), "slower": (4, 1024)}
"""Layers and width of models that write a step faster and slower than a call takes."""

ROLLOUTS = (("faster", 64), ("slower", 64), ("slower", 32))
"""Models, and steps of a rollout. Half as many steps show what its first one costs, which reads the
prompts and before which nothing can be asked."""

WORKERS = {"one after another": 1, "eight at a time": 8}


class Slow:
    """A score that takes its time, whatever it is asked."""

    text_only = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share of the letter e."""
        time.sleep(self.seconds)
        return Instant().score(samples)


class Instant:
    """The same score at once; remembers what it was asked."""

    text_only = True

    def __init__(self) -> None:
        self.asked: list[Sequence[Sample]] = []

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The share of the letter e."""
        self.asked.append(samples)
        return [sample.text.count("e") / max(len(sample.text), 1) for sample in samples]


class Awaited:
    """A score of which nobody knows that it can be asked for now and taken later."""

    text_only = True

    def __init__(self, score: Score) -> None:
        self._score = score

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """What the other one gives."""
        return self._score.score(samples)


class Unchanging(TokenPPO):
    """Writes and learns nothing, which is not measured."""

    def train(self) -> None:
        """Do nothing."""


class Stopwatch(BaseCallback):
    """Seconds of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def _on_rollout_start(self) -> None:
        self._started = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.seconds.append(time.perf_counter() - self._started)


@dataclass
class Measurement:
    """Seconds of a rollout: the least of some rounds, as other programs only ever add some.

    Attributes:
        calls: How the service takes calls.
        model: Whether it writes a step faster or slower than a call takes.
        steps: Steps of a rollout.
        step: Milliseconds of a step of the rollout alone.
        rollout: With a reward that costs nothing.
        reward: The calls alone, asked all at once.
        both: As it is.
        awaited: With each call waited for.
        ratio: What both took, by the larger of the two.
        rounds: Number of rounds.
    """

    calls: str
    model: str
    steps: int
    step: float
    rollout: float
    reward: float
    both: float
    awaited: float
    ratio: float
    rounds: int


class Writer:
    """Writes rollouts with a model, paid by a score.

    Args:
        workload: Rows, lengths and the model.
        score: What pays.
        steps: Tokens that each row gets in a rollout.
    """

    def __init__(self, workload: Workload, score: Score, steps: int) -> None:
        prompts = tuple(Example(prompt) for prompt in workload.prompts)
        env_kwargs = {
            "task": Task("letters", {"train": prompts}),
            "reward": score,
            "tokenizer": workload.tokenizer,
            "max_new_tokens": workload.new,
        }
        env = make_sb3_vec_env("TextGen-v0", workload.rows, seed=0, env_kwargs=env_kwargs)
        self._tokens = steps * workload.rows
        self._model = Unchanging(
            TransformerPolicy,
            env,
            n_steps=steps,
            policy_kwargs={"model": workload.model()},
            seed=0,
        )

    def rollout(self) -> float:
        """Seconds of a rollout."""
        stopwatch = Stopwatch()
        self._model.learn(self._tokens, callback=stopwatch)
        return stopwatch.seconds[0]


@contextmanager
def service(workers: int, seconds: float) -> Iterator[str]:
    """A service in a process of its own; yields its address."""
    command = [sys.executable, __file__, "--serve", str(workers), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip() + SCORE_PATH
        finally:
            process.terminate()


def serve(workers: int, seconds: float) -> None:
    """Be the service, until this process is ended; says where it is."""
    with ScoreServer(Slow(seconds), "slow", 0, workers=workers) as server:
        print(server.url, flush=True)
        server.serve_forever()


def measure(
    calls: str, model: str, workload: Workload, seconds: float, steps: int, rounds: int
) -> Measurement:
    """Time all four ways, round by round."""
    instant = Instant()
    with service(WORKERS[calls], seconds) as url:
        score = HTTPScore(url, max_calls=max(WORKERS.values()))
        alone = Writer(workload, instant, steps)
        together, in_turn = (Writer(workload, s, steps) for s in (score, Awaited(score)))
        times = []
        for number in range(rounds + 1):
            instant.asked.clear()
            rollout = alone.rollout()
            started = time.perf_counter()
            answers = [score.submit(samples) for samples in instant.asked]
            for answer in answers:
                answer.result()
            reward = time.perf_counter() - started
            if number:  # after one to warm up
                times.append((rollout, reward, together.rollout(), in_turn.rollout()))
            else:
                together.rollout()
    rollout, reward, both, awaited = (min(column) for column in zip(*times, strict=True))
    ratio = both / max(rollout, reward)
    step = 1e3 * rollout / steps
    return Measurement(calls, model, steps, step, rollout, reward, both, awaited, ratio, rounds)


HEADER = [
    "calls are served",
    "steps",
    "a step, ms",
    "rollout alone, s",
    "reward alone, s",
    "their sum",
    "the larger",
    "measured",
    "by the larger",
    "each call awaited",
]


def cells(measured: Measurement) -> list[str]:
    """What a row of the table shows."""
    parts = measured.rollout, measured.reward
    figures = *parts, sum(parts), max(parts), measured.both
    verdict = "" if measured.ratio < AT_MOST else " **missed**"
    return [
        measured.calls,
        f"{measured.steps}",
        f"{measured.step:.0f}",
        *(f"{figure:.2f}" for figure in figures),
        f"{measured.ratio:.2f}{verdict}",
        f"{measured.awaited:.2f}",
    ]


def markdown(title: str, facts: dict[str, Any], rows: list[list[str]]) -> str:
    """The report."""
    lines = ["# A reward that is made elsewhere", "", *(f"{k}: {v}  " for k, v in facts.items())]
    lines += ["", title, "", "| " + " | ".join(HEADER) + " |", "|--:" * len(HEADER) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run, which writes nothing")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the least counts")
    parser.add_argument("--seconds", type=float, default=0.05, help="what a call takes")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the results")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(int(given.serve[0]), float(given.serve[1]))
        return
    torch.set_num_threads(1)
    rows, rounds = (16, given.rounds) if not given.quick else (4, 1)
    models = MODELS if not given.quick else {"faster": (1, 32)}
    measurements = []
    for model, steps in ROLLOUTS if not given.quick else (("faster", 16),):
        layers, width = models[model]
        workload = Workload(rows, layers=layers, width=width, feed_forward=width * 8 // 3)
        for calls in WORKERS:
            measurements.append(measure(calls, model, workload, given.seconds, steps, rounds))
            rich.print(measurements[-1])
    title = (
        f"Rollouts with {rows} rows; a call a step, which takes {1e3 * given.seconds:.0f} ms. "
        f"Seconds, the least of {rounds} rounds. Both together may take less than {AT_MOST} times "
        f"the larger of them."
    )
    table = Table(*HEADER, title=title)
    for measured in measurements:
        table.add_row(*cells(measured))
    rich.print(table)
    if given.quick:
        return
    facts = machine("cpu", "float32")
    given.output.mkdir(parents=True, exist_ok=True)
    text = markdown(title, facts, [cells(measured) for measured in measurements])
    (given.output / "remote_reward.md").write_text(text, encoding="utf-8")
    everything = {"machine": facts, "measurements": [asdict(each) for each in measurements]}
    path = given.output / "remote_reward.json"
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
