"""Every algorithm from the command line, small."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from agents.algorithms.by_name import ALGORITHMS
from agents.cli import main
from agents.config import RunConfig
from agents.run_file import load_config
from textgym.tokenizer import Tokenizer

SMALL = [
    "--total-timesteps", "160", "--n-envs", "8", "--max-new-tokens", "6", "--eval-prompts", "4",
]  # fmt: skip

SETTINGS: dict[str, list[str]] = {
    "ppo": ["--n-steps", "8", "--temperature", "linear:1.2:0.9", "--ent-coef", "linear:0.1:0"],
    "a2c": ["--n-steps", "4", "--learning-rate", "linear:1e-3:0"],
    "reinforce": ["--no-baseline"],
    "grpo": ["--group-size", "4", "--n-episodes", "12", "--temperature", "stages:1.3:0.8"],
    "rloo": ["--group-size", "2", "--credit", "sequence", "--batch-size", "16"],
    "dqn": ["--n-steps", "2", "--learning-starts", "32", "--double"],
    "sb3-ppo": ["--n-steps", "8", "--batch-size", "32"],
    "sb3-a2c": ["--n-steps", "4"],
    "sb3-dqn": ["--n-steps", "2", "--learning-starts", "32"],
}


@pytest.fixture(scope="module")
def model_dir(
    tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Tokenizer, make_llama: Any
) -> str:
    """A tiny random model with its tokenizer, as a directory."""
    directory = tmp_path_factory.mktemp("model")
    make_llama().save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


def test_all_are_tried() -> None:
    assert SETTINGS.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("algo", SETTINGS)
def test_a_run_of_each(algo: str, tmp_path: Path, model_dir: str) -> None:
    run = tmp_path / "run"
    arguments = ["--output", str(run), "--model", model_dir, "--algo", algo]
    assert main(["train", *arguments, *SETTINGS[algo], *SMALL]) == 0
    written = json.loads((run / "result.json").read_text())["timesteps"]
    assert written >= 160
    with (run / "progress.csv").open() as file:
        assert any(row["rollout/ep_rew_mean"] for row in csv.DictReader(file))
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert all(1 <= len(sample["token_ids"]) <= 6 for sample in samples)
    assert all(
        sum(sample["rewards"]) == pytest.approx(sample["score"], abs=1e-4) for sample in samples
    )
    assert load_config(run / "config.yaml").algo == algo
    # What was saved goes on.
    assert main(["train", "--resume", str(run), "--total-timesteps", str(written + 80)]) == 0
    assert json.loads((run / "result.json").read_text())["timesteps"] >= written + 80
    assert main(["sample", "--model", str(run), "--num-samples", "1"]) == 0


def test_a_mixed_loss_imitates(tmp_path: Path, model_dir: str) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"{n} ", "reference": "ab"} for n in range(40)]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = json.dumps({"name": "file", "path": str(pairs)})
    run = tmp_path / "run"
    arguments = ["--task", task, "--sft-coef", "0.5", "--algo", "grpo", "--group-size", "4"]
    arguments += ["--output", str(run), "--model", model_dir, "--learning-rate", "0.01"]
    assert main(["train", *arguments, *SMALL, "--total-timesteps", "800"]) == 0
    with (run / "progress.csv").open() as file:
        losses = [float(row["loss/sft_avg"]) for row in csv.DictReader(file) if row["loss/sft_avg"]]
    assert losses[-1] < losses[0] - 1
    assert main(["train", "--resume", str(run), "--total-timesteps", "900"]) == 0


def test_a_recurrent_network_from_scratch(
    tmp_path: Path, model_dir: str, byte_tokenizer: Tokenizer
) -> None:
    run = tmp_path / "run"
    backbone = json.dumps({"name": "lstm", "width": 16})
    arguments = ["--output", str(run), "--model", model_dir, "--backbone", backbone]
    assert main(["train", *arguments, *SMALL, "--n-steps", "8"]) == 0
    assert main(["sample", "--model", str(run), "--num-samples", "1"]) == 0
    written = json.loads((run / "model" / "config.json").read_text())
    assert (written["hidden_size"], written["eos_token_id"]) == (16, byte_tokenizer.eos_token_id)


def test_q_learning_of_a_recurrent_network(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["--output", str(run), "--model", model_dir, "--algo", "dqn", "--backbone", "gru"]
    assert main(["train", *arguments, *SETTINGS["dqn"], *SMALL]) == 0
    begun = f"a GRU of width 256 from scratch, with the tokens of {model_dir}"
    assert begun in capsys.readouterr().out
    assert json.loads((run / "model" / "config.json").read_text())["kind"] == "gru"
    assert main(["train", "--resume", str(run), "--total-timesteps", "240"]) == 0
    assert main(["sample", "--model", str(run), "--num-samples", "1"]) == 0


def test_a_vocabulary(tmp_path: Path, model_dir: str) -> None:
    run = tmp_path / "run"
    arguments = ["--output", str(run), "--model", model_dir, "--vocabulary", ".a", ".b"]
    assert main(["train", *arguments, *SMALL, "--n-steps", "8"]) == 0
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert {letter for sample in samples for letter in sample["text"]} <= set(".ab")
    assert main(["eval", "--model", str(run)]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algo": "grpo", "vf_coef": 0.1}, "vf_coef=0.1 is for --algo ppo, a2c, reinforce"),
        ({"algo": "a2c", "n_epochs": 3}, "n_epochs=3 is for --algo ppo, grpo, rloo"),
        ({"algo": "grpo", "n_envs": 30}, "Give n_episodes=24, or another group_size"),
        ({"algo": "sb3-ppo", "temperature": "stages:1:2"}, "is a schedule, and sb3-ppo knows none"),
        ({"algo": "dqn", "temperature": 0.5}, "dqn does not take it"),
        ({"algo": "dqn", "kl_coef": 0.1}, "dqn does not take it"),
        ({"clip_range": "linear:0.2:0"}, "clip_range must be above 0"),
        ({"ent_coef": "linear:-1:0"}, "ent_coef must be 0 or above"),
        ({"temperature": "hot"}, "temperature: 'hot' is no number and no schedule"),
        ({"sft_coef": 1.5}, "sft_coef must be from 0 to 1"),
        ({"sft_corpus": (Path("x"),)}, "give that, too"),
        ({"backbone": "lsmt"}, "got 'lsmt'; did you mean 'lstm'"),
        ({"backbone": ["lstm"]}, "expected a name or a mapping"),
        ({"backbone": "gru", "lora_rank": 4}, "lora_rank=4 is for transformers"),
        ({"backbone": "gru", "gradient_checkpointing": True}, "leave gradient_checkpointing out"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(**settings)
