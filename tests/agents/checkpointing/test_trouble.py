"""What a full disk or a closed directory does to a run: it is told, and nothing is lost."""

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.checkpointing import algorithm as module
from agents.checkpointing.checkpoints import Checkpoints
from agents.cli import main

ARGUMENTS = [
    "--total-timesteps", "384", "--n-envs", "8", "--n-steps", "8", "--max-new-tokens", "8",
    "--batch-size", "32", "--eval-prompts", "4", "--checkpoint-every", "0", "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def arguments(byte_tokenizer: Any, make_llama: Any, tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    make_llama().save_pretrained(tmp_path / "tiny")
    byte_tokenizer.save_pretrained(tmp_path / "tiny")
    where = ["--model", str(tmp_path / "tiny"), "--output", str(tmp_path / "run")]
    return ["train", *where, *ARGUMENTS]


def test_a_disk_that_is_full_costs_nothing_that_was_saved(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save, calls = module.save_tree, 0

    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(tree: Any, directory: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # and from now on
            (directory / "half").write_bytes(b"half")
            patched.setattr("agents.policy.TransformerPolicy.save_pretrained", no_room)
            no_room()
        save(tree, directory)

    arguments = [*arguments, "--eval-every", "0"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "save_tree", full)
        assert main(arguments) == 1
    said = capsys.readouterr()
    run = tmp_path / "run"
    assert "checkpoint after 192 tokens could not be written (No space left on device)" in said.err
    assert str(run / "checkpoints" / "000000000128") in said.err.replace("\n", "")
    assert "Stopped after 192 tokens; the newest checkpoint is after 128. Go on: " in said.out
    assert "the model could not be saved: [Errno 28] No space left on device" in said.out
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        "000000000064",
        "000000000128",
    ]
    assert main(["train", "--resume", str(run)]) == 0
    whole = tmp_path / "whole"
    assert main([*arguments, "--output", str(whole)]) == 0
    ends = [Checkpoints(path / "checkpoints").latest for path in (run, whole)]
    weights, others = (load_file(end / "policy.safetensors") for end in ends if end)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_limit_of_the_system_is_told_as_such(arguments: list[str], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    pid = os.fork()
    if pid == 0:  # as a quota would stop it
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with (tmp_path / "said").open("w") as said:
            sys.stderr = said
            status = main(arguments)
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "File too large" in (tmp_path / "said").read_text()
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert main(arguments) == 0  # nothing is in the way


def test_what_cannot_be_written_to_is_found_before_anything_is_done(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*arguments, "--output", str(tmp_path / "file" / "run")]) == 1
    assert "nothing can be written to" in capsys.readouterr().err


def test_a_disk_without_room_is_found_before_anything_is_done(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert main(arguments) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "there are 0.0 MB left where" in said
    assert "Make room, give an --output elsewhere, or train adapters (--lora-rank 16)." in said
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_damaged_checkpoint_is_said_to_be_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    latest = Checkpoints(tmp_path / "run" / "checkpoints").latest
    assert latest is not None
    (latest / "data.json").write_text("{")
    assert main(["train", "--resume", str(tmp_path / "run"), "--total-timesteps", "448"]) == 1
    said = capsys.readouterr().err
    assert "cannot be read" in said
    shutil.rmtree(latest)  # then the one before it is the newest
    assert main(["train", "--resume", str(tmp_path / "run"), "--total-timesteps", "448"]) == 0
