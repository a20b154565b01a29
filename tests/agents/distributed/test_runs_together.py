"""Runs in several processes: one that is killed ends all, and they go on as if nothing was."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.checkpointing.checkpoints import Checkpoints

COMMON = {
    "n_envs": 4,
    "max_new_tokens": 10,
    "eval_prompts": 5,
    "checkpoint_every": 0.0,
    "learning_rate": 1e-2,
    "loggers": [],
    "device": "cpu",
    "reward": {"name": "length", "target": 5},
}
PPO = {
    "total_timesteps": 1_920,
    "n_steps": 12,
    "batch_size": 24,
    "templates": ["{prompt}", "Please: {prompt}"],
    "prompts": "bandit",
    "target_kl_ref": 0.5,
    "eval_every": 192,
}
GRPO = {
    "algo": "grpo",
    "total_timesteps": 1_440,
    "group_size": 2,
    "lora_rank": 2,
    "batch_size": 24,
}


@pytest.fixture(scope="module")
def model(byte_tokenizer: Any, make_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny model."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    make_llama(tie_word_embeddings=True).save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


def run(how: str, settings: dict[str, Any], directory: Path, *arguments: Any) -> dict[str, Any]:
    program = Path(__file__).with_name("runs_together.py")
    given = json.dumps([how, {**COMMON, **settings}, str(directory), *arguments])
    done = subprocess.run([sys.executable, program], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def weights(run: Path) -> tuple[dict[str, torch.Tensor], ...]:
    """Of the newest checkpoint, and of the model that was kept."""
    latest = Checkpoints(run / "checkpoints").latest
    assert latest is not None
    files = latest / "policy.safetensors", run / "model" / "model.safetensors"
    return tuple(load_file(file) for file in files)


def figures(run: Path) -> list[dict[str, str]]:
    """The rows of the log, without what a clock said."""
    with (run / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if v and (k == "time/total_timesteps" or k[:5] != "time/")}
        for row in rows
    ]


SHARDED = {**PPO, "shard": True, "kl_coef": 0.1}


@pytest.mark.parametrize("settings", [PPO, GRPO, SHARDED], ids=["ppo", "adapters", "sharded"])
def test_it_goes_on_as_if_none_had_been_killed(settings, model, tmp_path):
    told = run("killed", {"model": model, **settings}, tmp_path, 2 if settings is PPO else 1)
    # Who is left ends by itself, without a launcher that sees to it.
    assert max(told["waited"]) < 30
    assert min(told["reached"]) > 0
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for expected, found in zip(weights(whole), weights(killed), strict=True):
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert figures(whole) == figures(killed)
    for name in ("samples.jsonl", "result.json", "before.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


def test_only_the_first_process_speaks(model, tmp_path):
    run("resized", {"model": model, **PPO, "total_timesteps": 192}, tmp_path, [2])
    assert "2 processes" in (tmp_path / "resized-0.log").read_text()
    assert (tmp_path / "resized-1.log").read_text() == ""
    # Of 5 prompts each process wrote for its own, and all are there, in their order.
    before = json.loads((tmp_path / "resized" / "before.json").read_text())
    assert len({record["prompt"] for record in before}) == len(before) == 5


@pytest.mark.parametrize("settings", [PPO, {**SHARDED, "lora_rank": 2}], ids=["whole", "sharded"])
def test_it_goes_on_with_another_number_of_processes(settings, model, tmp_path):
    counts = [1, 3, 2]
    told = run("resized", {"model": model, **settings, "total_timesteps": 1_296}, tmp_path, counts)
    steps = [48 * count for count in counts]  # of a rollout
    parts = [432, 864, 1_296]
    ends = []
    for part, step in zip(parts, steps, strict=True):
        before = ends[-1] if ends else 0
        ends.append(before + -(-(part - before) // step) * step)
    assert told["reached"] == ends
    rows = [int(row["time/total_timesteps"]) for row in figures(tmp_path / "resized")]
    assert rows == sorted(rows)
    assert rows[-1] == ends[-1]
