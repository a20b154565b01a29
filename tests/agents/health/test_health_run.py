"""A run that diverges leaves what it takes to see why, and to go on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.cli import main
from textgym.tokenizer import Tokenizer

SMALL = [
    "--total-timesteps", "128", "--n-envs", "8", "--n-steps", "8", "--max-new-tokens", "8",
    "--eval-prompts", "4", "--reward", "length",
]  # fmt: skip


@pytest.fixture(scope="module")
def model_dir(
    tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Tokenizer, make_llama: Any
) -> str:
    """A tiny random model with its tokenizer, as a directory."""
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    make_llama().save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


def finite(weights: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in load_file(weights).values())


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.mark.parametrize("algo", ["ppo", "sb3-ppo"])
def test_it_says_how_to_go_on_and_that_works(
    algo: str, tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["--algo", algo, "--model", model_dir, "--learning-rate", "1e18", *SMALL]
    assert main(["train", "--output", str(run), *arguments, "--eval-every", "0"]) == 1
    message = said(capsys)
    assert "textgym train: diverged after 64 tokens" in message
    assert "(it is 1e+18)" in message
    assert str(run / "diverged") in message
    assert "Traceback" not in message

    report = json.loads((run / "diverged" / "report.json").read_text())
    arrays = load_file(run / "diverged" / "batch.safetensors")
    assert len(report["texts"]) == len(arrays["input_ids"]) > 0
    assert report["when"].startswith("after 64 tokens")

    (checkpoint,) = (run / "checkpoints").iterdir()
    assert str(checkpoint) in message
    assert finite(checkpoint / "policy.safetensors")
    assert finite(run / "model" / "model.safetensors")
    untouched = load_file(Path(model_dir) / "model.safetensors")
    for name, tensor in load_file(run / "model" / "model.safetensors").items():
        torch.testing.assert_close(tensor, untouched[name], rtol=0, atol=0)

    command = shlex.split(message.splitlines()[-1])
    assert command[:2] == ["textgym", "train"]
    assert main([*command[1:], "--output", str(tmp_path / "again")]) == 0
    assert finite(tmp_path / "again" / "model" / "model.safetensors")


def test_supervised_learning_says_so_too(
    tmp_path: Path,
    model_dir: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [json.dumps({"prompt": "abc"[:n], "reference": "cab"[:n]}) for n in (1, 2, 3)] * 20
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    task = json.dumps({"name": "file", "path": str(tmp_path / "pairs.jsonl")})
    run = tmp_path / "run"
    arguments = ["--model", model_dir, "--task", task, "--batch-size", "16", "--eval-every", "0"]
    arguments += ["--learning-rate", "1e18", "--epochs", "10"]
    assert main(["sft", "--output", str(run), *arguments]) == 1
    message = said(capsys)
    assert "textgym sft: diverged after" in message
    assert "lower --learning-rate (1e+18)" in message
    report = json.loads((run / "diverged" / "report.json").read_text())
    assert {text["prompt"][-3:] for text in report["texts"]} <= {"a", "ab", "abc"}
    assert finite(run / "model" / "model.safetensors")
    command = shlex.split(message.splitlines()[-1])
    command[command.index("--learning-rate") + 1] = "1e-4"
    assert command[:2] == ["textgym", "sft"]


def test_pretraining_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        line = f"To be {number} times, or not to be, that is the question.\n"
        (texts / f"{number}.txt").write_text(line * 5)
    output = tmp_path / "model"
    sizes = ["--vocab-size", "300", "--width", "16", "--heads", "2", "--context", "16"]
    arguments = [str(texts), "--output", str(output), *sizes, "--batch-size", "4"]
    arguments += ["--validation-fraction", "0.2"]
    assert main(["pretrain", *arguments, "--learning-rate", "1e30", "--epochs", "3"]) == 1
    message = said(capsys)
    assert "textgym pretrain: diverged after" in message
    assert "--learning-rate (1e+30)" in message
    assert "--learning-rate 1e+29" in message.splitlines()[-1]
    report = json.loads((output / "diverged" / "report.json").read_text())
    assert "question" in " ".join(text["text"] for text in report["texts"])
