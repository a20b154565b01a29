"""A run goes on with what it began with, or says what has changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from agents.cli import main
from agents.run_file import load_config
from agents.train import train


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"Number {number} is", "reference": "a b"} for number in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(byte_tokenizer: Any, make_llama: Any, prompts: Path, tmp_path: Path) -> Path:
    """A run that adapts a tiny model, and is over."""
    torch.manual_seed(0)
    make_llama().save_pretrained(tmp_path / "tiny")
    byte_tokenizer.save_pretrained(tmp_path / "tiny")
    arguments = [
        *("--model", str(tmp_path / "tiny"), "--output", str(tmp_path / "run"), "--n-envs", "8"),
        *("--task", json.dumps({"name": "file", "path": str(prompts)}), "--lora-rank", "2"),
        *("--total-timesteps", "64", "--n-steps", "8", "--max-new-tokens", "8"),
        *("--eval-prompts", "3", "--device", "cpu"),
    ]
    assert main(["train", *arguments]) == 0
    return tmp_path / "run"


def go_on(run: Path) -> int:
    return main(["train", "--resume", str(run), "--total-timesteps", "128"])


def contents(run: Path) -> dict[str, bytes]:
    names = ("config.yaml", "progress.csv", "samples.jsonl", "before.json")
    return {name: (run / name).read_bytes() for name in names}


def test_other_prompts_are_told(
    run: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, before = prompts.read_text(), contents(run)
    for changed in (whole.replace("Number", "Figure"), whole.replace("a b", "c d")):
        prompts.write_text(changed)
        assert go_on(run) == 1
        assert "references or templates are others now. Restore them" in capsys.readouterr().err
    assert contents(run) == before
    prompts.write_text(whole)
    assert go_on(run) == 0


def test_another_frozen_model_is_told(
    run: Path, make_llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    make_llama().save_pretrained(tmp_path / "tiny")
    assert go_on(run) == 1
    assert "the model below the adapters is another one now" in capsys.readouterr().err


def test_other_settings_are_refused_and_change_nothing(run: Path) -> None:
    before = contents(run)
    config = replace(load_config(run / "config.yaml"), output=run)
    for changed in ({"n_envs": 4}, {"learning_rate": 0.5}, {"algo": "a2c", "batch_size": None}):
        with pytest.raises(ValueError, match="A run goes on with its own settings, but for total_"):
            train(replace(config, **changed), resume=True)
    assert contents(run) == before


def test_a_checkpoint_that_is_refused_costs_nothing_that_was_logged(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    (latest,) = sorted((run / "checkpoints").iterdir())[-1:]
    (latest / "data.json").write_text("{}")
    assert go_on(run) == 1
    said = capsys.readouterr().err
    assert "was written by another version of textgym" in said
    assert "There is an older one" in said
    assert contents(run) == before


def test_a_run_that_is_over_is_judged_again_and_nothing_else(run: Path) -> None:
    checkpoints = sorted((run / "checkpoints").iterdir())
    result = (run / "result.json").read_bytes()
    assert main(["train", "--resume", str(run)]) == 0
    assert sorted((run / "checkpoints").iterdir()) == checkpoints
    assert (run / "result.json").read_bytes() == result
    assert yaml.safe_load((run / "config.yaml").read_text())["total_timesteps"] == 64
