"""Whole supervised runs from the command line, small."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from agents.candidates import find
from agents.cli import main
from agents.supervised.config import SFTConfig
from agents.supervised.sft import sft
from agents.supervised.trainer import SupervisedTrainer
from textgym.tokenizer import Tokenizer

FAST = ["--learning-rate", "0.01", "--batch-size", "32", "--epochs", "10"]


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


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts whose answer is always the same word, so that a tiny model can learn it."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"say {i}: ", "reference": "yes"} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(model: str, pairs: Path, output: Path) -> list[str]:
    task = json.dumps({"name": "file", "path": str(pairs)})
    return ["--model", model, "--task", task, "--output", str(output)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model_dir: str, pairs: Path) -> Path:
    """The directory of a finished run."""
    output = tmp_path_factory.mktemp("runs") / "first"
    assert main(["sft", *arguments(model_dir, pairs, output), *FAST]) == 0
    return output


def weights(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / "model" / "model.safetensors")


def logged(directory: Path) -> list[dict[str, str]]:
    with (directory / "progress.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "time/tokens_per_second"}
            for row in csv.DictReader(file)
        ]


def test_it_lowers_the_held_out_loss_and_the_model_writes_the_reference(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["loss_before"] > 4
    assert result["loss_after"] < 0.1
    assert (result["texts"], result["tokens"]) == (48 * 10, 48 * 10 * 4)
    assert main(["sample", "--model", str(run), "--reward", "exact_match", "--greedy"]) == 0
    written = capsys.readouterr().out
    assert written.count("yes") == 3 * 3
    assert "mean score +1.000" in written


def test_a_run_leaves_what_other_commands_take(run: Path, capsys: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "progress.csv", "curves.png", "model", "result.json",
    }  # fmt: skip
    assert not (run / "checkpoints").exists()
    with Image.open(run / "curves.png") as curve:
        assert curve.width > 400
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(run / "model"))
    settings = find(str(run)).run
    assert settings is not None
    assert settings.task["name"] == "file"
    small = ["--total-timesteps", "64", "--n-envs", "8", "--n-steps", "8", "--eval-prompts", "4"]
    output = run.parent / "rewarded"
    task = ["--task", json.dumps(settings.task)]
    assert main(["train", "--model", str(run), "--output", str(output), *task, *small]) == 0
    assert "mean score +1.000" in capsys.readouterr().out  # before training, that is
    record = json.loads((output / "result.json").read_text())
    assert record["score_before"] == pytest.approx(1.0)
    assert main(["eval", "--model", str(run), "--prompts", "4", "--decoding", "greedy"]) == 0
    assert "task pairs.jsonl" in capsys.readouterr().out


def test_the_model_with_the_lowest_held_out_loss_is_kept(run: Path) -> None:
    rows = logged(run)
    looks = {int(row["train/texts"]): float(row["validation/loss"]) for row in rows
             if row["validation/loss"]}  # fmt: skip
    assert len(looks) >= 5
    assert max(looks) == 48 * 10
    result = json.loads((run / "result.json").read_text())
    assert looks[result["kept_after_texts"]] == pytest.approx(min(looks.values()))
    rates = [float(row["train/learning_rate"]) for row in rows]
    assert max(rates[:4]) > 0.009
    assert rates[-1] < 0.0005


def _stop_at(monkeypatch: pytest.MonkeyPatch, texts: int, how: Callable[[], None]) -> None:
    advance = SupervisedTrainer.advance

    def stop(self: SupervisedTrainer) -> None:
        advance(self)
        if self.progress.texts >= texts:
            how()

    monkeypatch.setattr(SupervisedTrainer, "advance", stop)


@pytest.mark.parametrize("lora", [(), ("--lora-rank", "2", "--lora-targets", "all-linear")])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    model_dir: str,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lora: tuple[str, ...],
) -> None:
    ways = ["--templates", "{prompt}", "{prompt}- ", *FAST, *lora]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(["sft", *arguments(model_dir, pairs, whole), *ways]) == 0
    with monkeypatch.context() as patch:
        _stop_at(patch, 100, lambda: signal.raise_signal(signal.SIGINT))
        assert main(["sft", *arguments(model_dir, pairs, stopped), *ways]) == 130
    assert f"textgym sft --resume {stopped}" in capsys.readouterr().out
    assert (stopped / "model").is_dir()
    assert len(logged(stopped)) < len(logged(whole))
    assert main(["sft", "--resume", str(stopped)]) == 0
    expected, found = weights(whole), weights(stopped)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert logged(stopped) == logged(whole)
    results = [json.loads((path / "result.json").read_text()) for path in (whole, stopped)]
    assert len({json.dumps({**result, "seconds": 0}) for result in results}) == 1


def test_a_run_that_was_stopped_in_its_first_step_goes_on(
    model_dir: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    # Fewer texts than a row of the log is written for.
    ways = ["--total-texts", "4000", "--learning-rate", "0.01", "--batch-size", "4"]
    with monkeypatch.context() as patch:
        _stop_at(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        assert main(["sft", *arguments(model_dir, pairs, run), *ways]) == 130
    assert (run / "progress.csv").read_text() == ""
    with monkeypatch.context() as patch:
        _stop_at(patch, 100, lambda: signal.raise_signal(signal.SIGINT))
        assert main(["sft", "--resume", str(run)]) == 130
    assert len(logged(run)) == 5


def test_what_is_resumed_must_be_a_run_that_was_stopped(
    run: Path, tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", "--resume", str(run)]) == 1
    assert "has read all its texts" in capsys.readouterr().err
    assert main(["sft", "--resume", str(tmp_path / "none")]) == 1
    assert "no such directory" in capsys.readouterr().err
    assert main(["train", "--config", str(run / "config.yaml")]) == 1
    assert "run file of textgym sft" in capsys.readouterr().err
    assert main(["sft", "--task", "dialogue", "--output", str(run)]) == 1
    assert "textgym sft --resume" in capsys.readouterr().err


def test_texts_that_were_changed_are_not_gone_on_with(
    model_dir: str,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, run = tmp_path / "own.jsonl", tmp_path / "run"
    lines = pairs.read_text().splitlines(keepends=True)
    own.write_text("".join(lines))
    with monkeypatch.context() as patch:
        _stop_at(patch, 30, lambda: signal.raise_signal(signal.SIGINT))
        assert main(["sft", *arguments(model_dir, own, run), *FAST]) == 130
    other = [line.replace("yes", "nay") for line in lines]  # as many, and as long
    for changed in (lines[:-3], other):
        own.write_text("".join(changed))
        assert main(["sft", "--resume", str(run)]) == 1
        assert "not those with which the run began" in capsys.readouterr().err


def test_a_run_is_repeated_by_its_config(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["sft", "--config", str(run / "config.yaml"), "--output", str(again)]) == 0
    first, second = weights(run), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_an_adapter_is_saved_alone_and_folded_in(
    model_dir: str, pairs: Path, tmp_path: Path
) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    lora = ["--lora-rank", "4", "--lora-targets", "q_proj", "down_proj", "--dtype", "bfloat16"]
    run = tmp_path / "lora"
    assert main(["sft", *arguments(model_dir, pairs, run), *FAST, *lora]) == 0
    ids = torch.arange(10)[None]
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    before = base(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(run / "model")(ids).logits
    adapted = peft.PeftModel.from_pretrained(base, str(run / "adapter"))(ids).logits
    torch.testing.assert_close(adapted, merged, atol=1e-5, rtol=1e-5)
    assert (merged - before).abs().max() > 1e-2


def test_a_chat_model_learns_its_turn(
    model_dir: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "chat"
    shutil.copytree(model_dir, model)
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|endoftext|>{% endfor %}>"
    (model / "chat_template.jinja").write_text(template)
    run = tmp_path / "run"
    assert main(["sft", *arguments(str(model), pairs, run), *FAST, "--epochs", "20"]) == 0
    assert "Prompts are chat messages" in capsys.readouterr().out
    assert (run / "model" / "chat_template.jinja").read_text() == template
    assert json.loads((run / "result.json").read_text())["loss_after"] < 0.5
    chat = ["--reward", "exact_match", "--greedy"]
    assert main(["sample", "--model", str(run), *chat]) == 0
    assert "mean score +1.000" in capsys.readouterr().out


def test_a_corpus_is_learned_from_nothing(
    model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"{i} men and {i} women" for i in range(40)))
    given = ["--model", model_dir, "--corpus", str(corpus), "--context-length", "16"]
    run = tmp_path / "run"
    more = ["--validation-fraction", "0.2", "--output", str(run), *FAST]
    assert main(["sft", *given, *more]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["loss_after"] < result["loss_before"] - 2
    assert "Prompts are" not in capsys.readouterr().out
    assert main(["sample", "--model", str(run), "--prompt", "4 men"]) == 0


def test_a_recurrent_network_learns_from_scratch(
    model_dir: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ["--backbone", '{"name": "lstm", "width": 32}', "--epochs", "20"]
    run = tmp_path / "run"
    assert main(["sft", *arguments(model_dir, pairs, run), *FAST, *network]) == 0
    begun = f"an LSTM of width 32 from scratch, with the tokens of {model_dir}"
    assert begun in capsys.readouterr().out
    assert json.loads((run / "result.json").read_text())["loss_after"] < 0.1
    assert main(["sample", "--model", str(run), "--reward", "exact_match", "--greedy"]) == 0
    assert "mean score +1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a task with references or a corpus, and not both"),
        ({"task": "dialogue", "corpus": (Path("a.txt"),)}, "not both"),
        ({"corpus": (Path("a.txt"),), "max_new_tokens": 3}, "a corpus has none"),
        ({"task": "dialogue", "epochs": 0}, "epochs must be above 0"),
        ({"task": "dialogue", "lora_alpha": 1.0}, "give lora_rank"),
        ({"task": "dialogue", "learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"task": "dialogue", "backbone": "lsmt"}, "did you mean 'lstm'"),
        ({"task": "dialogue", "backbone": "gru", "lora_rank": 2}, "leave lora_rank out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SFTConfig(**settings)


def test_a_network_from_scratch_has_another_learning_rate() -> None:
    assert SFTConfig(task="dialogue").peak == 3e-4
    assert SFTConfig(task="dialogue", backbone="gru").peak == 3e-3
    assert SFTConfig(task="dialogue", backbone="gru", learning_rate=1e-4).peak == 1e-4


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_bad_input_is_refused_before_anything_is_written(
    model_dir: str, pairs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    task = {"name": "file", "path": str(pairs)}
    with pytest.raises(ValueError, match="nothing to imitate"):
        sft(SFTConfig(output=output, model=model_dir, task="continuation"), quiet())
    with pytest.raises(FileNotFoundError):
        sft(SFTConfig(output=output, model=model_dir, corpus=(tmp_path / "none.txt",)), quiet())
    with pytest.raises(FileNotFoundError, match="no model"):
        sft(SFTConfig(output=output, model=str(tmp_path / "none"), task=task), quiet())
    with pytest.raises(ValueError, match="knows 257"):
        sft(SFTConfig(output=output, tokenizer="builtin", model=model_dir, task=task), quiet())
    assert not output.exists()


def test_a_loss_that_is_no_number_stops_the_run(
    model_dir: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "agents.supervised.trainer.cross_entropy",
        lambda *_: torch.full((3,), torch.nan, requires_grad=True),
    )
    task = {"name": "file", "path": str(pairs)}
    config = SFTConfig(output=tmp_path / "run", model=model_dir, task=task)
    with pytest.raises(FloatingPointError, match=r"(?s)after 0 texts.*nan.*--learning-rate"):
        sft(config, quiet())


def test_without_a_validation_split_the_last_model_is_kept(
    model_dir: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"name": "file", "path": str(pairs), "validation_fraction": 0, "test_fraction": 0}
    run = tmp_path / "run"
    given = ["--model", model_dir, "--task", json.dumps(whole), "--output", str(run)]
    assert main(["sft", *given, *FAST]) == 0
    assert "the last model is kept" in capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    assert (result["loss_before"], result["kept_after_texts"]) == (None, 600)
    assert main(["sample", "--model", str(run), "--greedy"]) == 0
    assert capsys.readouterr().out.count("yes") == 9
