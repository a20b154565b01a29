"""SmolLM2-135M-Instruct, trained on two CPU cores to reply shortly and kindly: before and after.

    python benchmarks/smollm2.py

runs the command that the README shows, judges the model before and after it on the test prompts,
and writes `benchmarks/results/smollm2.md`, `.csv`, `_curves.png` and `_samples.html`. It takes a
quarter of an hour. `--device cuda --total-timesteps 400_000` does the same with more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import tyro

from agents.config import RunConfig
from agents.judging.config import EvalConfig
from agents.judging.judge import Judgement, evaluate_models
from agents.train import train
from textgym.files import atomic_write
from textgym.rendering import Transcript, to_html

RESULTS = Path(__file__).parent / "results"
COMMAND = """\
textgym train --model smollm2 --task '{"name": "dialogue", "max_turns": 1}' \\
  --reward '{"length": {"weight": 0.5, "target": 12}, "sentiment": 0.5, "token_f1": 1.0}' \\
  --lora-rank 16 --lora-alpha 8 --learning-rate 2e-3 --kl-coef 0.05 --temperature 0.7 \\
  --dtype bfloat16 --n-envs 32 --n-steps 32 --batch-size 256 --total-timesteps 24_576"""
"""As it stands in the README."""

SHOWN = 16
"""Test prompts whose replies are in the table."""


def recipe() -> RunConfig:
    """The settings of the command."""
    return tyro.cli(RunConfig, args=shlex.split(COMMAND.replace("\\\n", ""))[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--total-timesteps", type=int)
    parser.add_argument("--output", type=Path, help="keep the run here")
    options = parser.parse_args()
    config = replace(recipe(), device=options.device)
    if options.total_timesteps is not None:
        config = replace(config, total_timesteps=options.total_timesteps)
    with tempfile.TemporaryDirectory() as directory:
        output = options.output or Path(directory, "run")
        started = time.perf_counter()
        train(replace(config, output=output))
        seconds = time.perf_counter() - started
        judgements = evaluate_models(
            EvalConfig(
                model=("smollm2", str(output)),
                temperature=config.temperature,
                samples=2,
                n_envs=32,
                dtype=config.dtype,
                device=config.device,
                output=Path(directory, "eval"),
            )
        )
        for source, target in (
            (output / "curves.png", "smollm2_curves.png"),
            (Path(directory, "eval", "eval.csv"), "smollm2.csv"),
        ):
            shutil.copyfile(source, RESULTS / target)
        atomic_write(RESULTS / "smollm2_samples.html", _samples(output / "texts.json"))
    # The run's directory may be a temporary one: it is the trained model all the same.
    csv = (RESULTS / "smollm2.csv").read_text(encoding="utf-8")
    atomic_write(RESULTS / "smollm2.csv", csv.replace(str(output), "trained"))
    atomic_write(RESULTS / "smollm2.md", _report(config, seconds, judgements))


def _samples(path: Path) -> str:
    """The test prompts before and after, as a page of a size for a repository."""
    texts = json.loads(path.read_text(encoding="utf-8"))
    pairs = zip(texts["before"], texts["after"], strict=True)
    transcripts = [
        Transcript(text["prompt"], text["pieces"], text["rewards"])
        for pair in pairs
        for text in pair
    ]
    labels = ["Before", "After"] * len(texts["before"])
    return to_html(transcripts, title=f"{texts['what']}, before and after training", labels=labels)


def _report(config: RunConfig, seconds: float, judgements: Sequence[Judgement]) -> str:
    device = platform.processor() or platform.machine()
    if config.device not in ("auto", "cpu"):
        device = torch.cuda.get_device_name(config.device)
    prompts = len(judgements[0].episodes) // judgements[0].samples
    lines = [
        "# SmolLM2-135M-Instruct, before and after",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {device}, torch "
        f"{torch.__version__}. {config.total_timesteps:,} tokens, {seconds / 60:.1f} minutes from "
        "the start of the command to its end, judging before and after included.",
        "",
        "```bash",
        COMMAND,
        "```",
        "",
        f"The test prompts of the task, {prompts} lines of small talk that were neither trained "
        "on nor looked at by validation; replies drawn at temperature "
        f"{config.temperature:g}, {judgements[0].samples} for each, or greedy. Intervals are of "
        "95%, over prompts. The settings were found in four shorter tries on another division of "
        "the same small corpus, in which some of these prompts were seen; there is one seed.",
        "",
        "What is wanted is short and kind. The likeness to the reply that a person wrote "
        "(token_f1) is there to keep it on the subject, and was not to be raised by it. Read the "
        "replies for what else became of them: many begin with thanks or gladness.",
        "",
        "| | " + " | ".join(f"{_name(j)}, {j.decoding}" for j in judgements) + " |",
        "|--|" + "--:|" * len(judgements),
        *_figures(judgements),
        "",
        "![The course of the run](smollm2_curves.png)",
        "",
        f"The first {SHOWN} test prompts, greedy (nothing chosen by hand); all that the run's own "
        "judge saw, every token coloured by its reward, is in `smollm2_samples.html`.",
        "",
        "| prompt | before | after |",
        "|--|--|--|",
        *_replies(judgements),
    ]
    return "\n".join(lines) + "\n"


def _name(judgement: Judgement) -> str:
    return "before" if judgement.model == "smollm2" else "after"


def _figures(judgements: Sequence[Judgement]) -> list[str]:
    names = dict.fromkeys(name for judgement in judgements for name in judgement.figures)
    rows = []
    for name in names:
        cells = []
        for judgement in judgements:
            figure = judgement.figures.get(name)
            if figure is None or figure.value != figure.value:  # NaN: not known
                cells.append("")
            elif figure.low != figure.low:
                cells.append(f"{figure.value:.3f}")
            else:
                cells.append(f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})")
        if any(cells):
            rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def _replies(judgements: Sequence[Judgement]) -> list[str]:
    before, after = (judgement for judgement in judgements if judgement.decoding == "greedy")
    return [
        f"| {_cell(old.prompt)} | {_cell(old.text)} | {_cell(new.text)} |"
        for old, new in list(zip(before.episodes, after.episodes, strict=True))[:SHOWN]
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
