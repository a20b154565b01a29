"""A run that is killed, at whatever moment, and goes on ends as the one that was not."""

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
    "n_envs": 8,
    "max_new_tokens": 10,
    "eval_prompts": 4,
    "checkpoint_every": 0.0,
    "loggers": [],
    "device": "cpu",
}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {
        "total_timesteps": 1_920,
        "n_steps": 12,
        "batch_size": 48,
        "reward": {"name": "adaptive", "rewards": {"sentiment": 1.0, "length": 0.5}}
        | {"goals": {"sentiment": 0.05}, "window": 8},
        "templates": ["{prompt}", "Please: {prompt}"],
        "prompts": "bandit",
        "target_kl_ref": 0.5,
        "temperature": "linear:1.2:0.8",
        "learning_rate": "linear:1e-3:0",
    },
    "grpo": {"total_timesteps": 1_920, "group_size": 4, "lora_rank": 2, "batch_size": 48},
    "dqn": {
        "total_timesteps": 960,
        "n_steps": 12,
        "learning_starts": 200,
        "buffer_size": 480,
        "double": True,
    },
    "sb3-a2c": {
        "total_timesteps": 960,
        "n_steps": 12,
        "task": {"name": "game"},
        "max_new_tokens": 12,
    },
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
    program = Path(__file__).with_name("killed_run.py")
    given = json.dumps([how, settings, str(directory), *arguments])
    done = subprocess.run(
        [sys.executable, program], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def assert_same_run(expected: Path, found: Path) -> None:
    """The same weights, at the end and of the model that was kept, and the same figures."""
    ends = [Checkpoints(path / "checkpoints").latest for path in (expected, found)]
    assert all(ends)
    pairs = [(end / "policy.safetensors") for end in ends if end]
    for one, other in (pairs, [path / "model" / "model.safetensors" for path in (expected, found)]):
        weights, others = load_file(one), load_file(other)
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert figures(expected) == figures(found)
    for name in ("samples.jsonl", "result.json", "best.json"):
        assert (expected / name).read_bytes() == (found / name).read_bytes()


def figures(run: Path) -> list[dict[str, str]]:
    """The rows of the log, without what a clock said."""
    with (run / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if v and (k == "time/total_timesteps" or k[:5] != "time/")}
        for row in rows
    ]


def settings_of(algo: str, model: str) -> dict[str, Any]:
    return {"algo": algo, "model": model, **COMMON, **RUNS[algo]}


@pytest.mark.parametrize(("algo", "kills"), [("ppo", 12), ("grpo", 4), ("dqn", 4), ("sb3-a2c", 3)])
def test_it_may_be_killed_at_any_moment(algo: str, kills: int, model: str, tmp_path: Path) -> None:
    told = run("random", settings_of(algo, model), tmp_path, kills)
    assert len(told["reached"]) >= kills
    for number in range(told["runs"]):
        assert_same_run(tmp_path / "whole", tmp_path / f"killed-{number + 1}")


def test_it_may_be_killed_while_it_writes_a_checkpoint(model: str, tmp_path: Path) -> None:
    steps = [2, 5, 8, 11, 13]  # of weights, tensors and data; the renaming, and what is removed
    run("writing", settings_of("ppo", model), tmp_path, steps)
    assert_same_run(tmp_path / "whole", tmp_path / "written")
