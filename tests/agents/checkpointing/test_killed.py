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
    "learning_rate": 1e-2,
    "loggers": [],
    "device": "cpu",
}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {  # all that changes as it goes on, and more looks than checkpoints
        "total_timesteps": 1_920,
        "n_steps": 12,
        "batch_size": 48,
        "reward": {"name": "adaptive", "rewards": {"length": {"target": 5}, "sentiment": 0.5}}
        | {"goals": {"length": 0.6}, "window": 8},
        "templates": ["{prompt}", "Please: {prompt}"],
        "prompts": "bandit",
        "target_kl_ref": 0.5,
        "temperature": "linear:1.2:0.8",
        "learning_rate": "linear:1e-2:0",
        "eval_every": 96,
        "checkpoint_every": 0.15,
    },
    "grpo": {"total_timesteps": 1_920, "group_size": 4, "lora_rank": 2, "batch_size": 48},
    "dqn": {
        "total_timesteps": 960,
        "n_steps": 12,
        "learning_starts": 200,
        "buffer_size": 480,
        "target_update_interval": 96,
        "double": True,
    },
    "reinforce": {"total_timesteps": 960, "sft_coef": 0.3},
    "sb3-a2c": {
        "total_timesteps": 960,
        "n_steps": 12,
        "task": {"name": "game"},
        "reward": {"name": "length", "target": 5},
        "max_new_tokens": 12,
    },
}
KILLS = {"ppo": 12, "grpo": 4, "dqn": 4, "reinforce": 2, "sb3-a2c": 2}


@pytest.fixture(scope="module")
def model(byte_tokenizer: Any, make_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny model."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    make_llama(tie_word_embeddings=True).save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with references to imitate."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"{number} and", "reference": "a b c d e f"} for number in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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


def assert_it_learned(run: Path) -> None:
    """Something was earned, so that there is something to lose, and every weight moved."""
    scores = {row["rollout/ep_rew_mean"] for row in figures(run) if "rollout/ep_rew_mean" in row}
    assert len(scores) > 2
    latest = Checkpoints(run / "checkpoints").latest
    assert latest is not None
    start, end = load_file(run / "start.safetensors"), load_file(latest / "policy.safetensors")
    still = [name for name in start if torch.equal(start[name], end[name])]
    assert len(still) < len(start) / 4, still


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


@pytest.mark.parametrize("algo", RUNS)
def test_it_may_be_killed_at_any_moment(algo: str, model: str, pairs: Path, tmp_path: Path) -> None:
    settings = settings_of(algo, model)
    # Edit distance to a reference: any gibberish earns some of it.
    settings = {"task": {"name": "file", "path": str(pairs)}, **settings}
    told = run("random", settings, tmp_path, KILLS[algo])
    assert len(told["reached"]) >= KILLS[algo]
    assert_it_learned(tmp_path / "whole")
    for number in range(told["runs"]):
        assert_same_run(tmp_path / "whole", tmp_path / f"killed-{number + 1}")


def test_it_may_be_killed_while_it_writes_a_checkpoint(model: str, tmp_path: Path) -> None:
    steps = [2, 6, 10, 14, 17]  # of weights, tensors and data; the renaming, and what is removed
    run("writing", settings_of("ppo", model), tmp_path, steps)
    assert_same_run(tmp_path / "whole", tmp_path / "written")
