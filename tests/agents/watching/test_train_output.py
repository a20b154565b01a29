"""What `textgym train` prints, and where its figures go."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.cli import main
from agents.config import RunConfig
from agents.train import train
from textgym.tokenizer import Tokenizer

SMALL = [
    "--total-timesteps", "128", "--n-envs", "8", "--n-steps", "8", "--max-new-tokens", "8",
    "--eval-prompts", "4",
]  # fmt: skip


@pytest.fixture(scope="module")
def model_dir(
    tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Tokenizer, make_llama: Any
) -> str:
    directory = tmp_path_factory.mktemp("model")
    make_llama().save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


def test_plain_lines_and_loggers(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["--output", str(run), "--model", model_dir, *SMALL]
    assert main(["train", *arguments, "--loggers", "tensorboard", "json"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "━" not in out.partition("test prompts before and after")[0]
    lines = re.findall(r"^([\d,]+)/128 tokens  score \S+", out, re.MULTILINE)
    assert lines[-1] == "128"
    rows = [json.loads(line) for line in (run / "progress.json").read_text().splitlines()]
    assert rows[-1]["time/total_timesteps"] == 128

    assert main(["train", "--resume", str(run), "--total-timesteps", "192"]) == 0
    events = EventAccumulator(str(run))
    events.Reload()
    assert [point.step for point in events.Scalars("rollout/mean_score")] == [64, 128, 192]
    assert events.Images("samples/token_rewards")
    assert [event.step for event in events.Tensors("samples/texts/text_summary")] == [64, 128, 192]


def test_what_is_left_in_a_terminal_has_the_last_validation_and_whole_words(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter((0.1, 0.2, 0.3))
    monkeypatch.setattr("agents.validation.mean_score", lambda episodes: next(scores))
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=True,
        color_system=None,
        width=50,
        height=30,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )
    config = RunConfig(
        output=tmp_path / "run",
        model=model_dir,
        reward="length",
        total_timesteps=192,
        eval_every=64,
        eval_prompts=4,
        n_envs=8,
        n_steps=8,
        max_new_tokens=8,
    )
    train(config, console)
    assert next(scores, None) is None
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.findall(r"^validation +(\S+)", text, re.MULTILINE)[-1] == "+0.300"
    assert "immediate length reward." in " ".join(text.split())
    assert "\ntextgym sample --model " in text


def test_quiet_leaves_the_result(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--output", str(run), "--model", model_dir, "--quiet", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["4", "mean", "curves", "report", "model"]
    assert "quiet" not in (run / "config.yaml").read_text()


def test_loggers_are_looked_for_before_any_work(
    tmp_path: Path,
    model_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = tmp_path / "run"
    arguments = ["train", "--output", str(run), "--model", model_dir, *SMALL, "--loggers"]
    assert main([*arguments, "wandb"]) == 1
    assert "pip install 'textgym[wandb]'" in capsys.readouterr().err
    assert main([*arguments, "tensor"]) == 1
    assert "no logger named 'tensor'" in capsys.readouterr().err
    assert not run.exists()


def test_a_picture_that_was_not_written_yet_is_no_hindrance(tmp_path: Path, model_dir: str) -> None:
    """Q-learning logs by episodes: a checkpoint may come between a picture and its writing."""
    run = tmp_path / "run"
    arguments = ["--output", str(run), "--model", model_dir, "--algo", "dqn", *SMALL]
    often = ["--checkpoint-every", "0", "--learning-starts", "8", "--vocabulary", "a", "b", "c"]
    assert main(["train", *arguments, *often]) == 0
    assert main(["train", "--resume", str(run), "--total-timesteps", "192"]) == 0
    rows = (run / "progress.csv").read_text().splitlines()
    assert ",192," in rows[-1]
