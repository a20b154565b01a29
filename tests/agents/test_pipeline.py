"""Whole pipelines from the command line, small."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from agents.cli import main
from agents.pretraining.trainer import Trainer
from agents.supervised.trainer import SupervisedTrainer

TEXT = "\n\n".join(f"say {i}: yes\nand {i} men and women say yes to {i} more." for i in range(60))
TINY = {
    "vocab_size": 258, "context": 32, "width": 32, "layers": 1, "heads": 2, "feed_forward": 48,
    "batch_size": 4, "validation_fraction": 0.1, "learning_rate": 0.01,
}  # fmt: skip
SHORT = {"n_envs": 8, "n_steps": 8, "max_new_tokens": 6, "n_epochs": 1, "eval_prompts": 4}


@pytest.fixture
def stages(tmp_path: Path) -> list[dict[str, Any]]:
    """The stages of a pipeline that takes seconds."""
    (tmp_path / "corpus.txt").write_text(TEXT)
    rows = [{"prompt": f"say {i}: ", "reference": "yes"} for i in range(30)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "file", "path": str(pairs)}
    return [
        {"pretrain": {"corpus": [str(tmp_path / "corpus.txt")], "epochs": 1, **TINY}},
        {"sft": {"task": task, "epochs": 6, "batch_size": 64, "learning_rate": "1e-2"}},
        {"train": {"task": task, "reward": "edit_distance", "total_timesteps": 128, **SHORT}},
    ]


def write(path: Path, output: Path, stages: Any) -> str:
    path.write_text(yaml.safe_dump({"output": str(output), "stages": stages}))
    return str(path)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / "model.safetensors")


def test_stages_follow_each_other(
    tmp_path: Path, stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    file = write(tmp_path / "pipeline.yaml", output, stages)
    assert main(["run", file]) == 0
    printed = capsys.readouterr().out
    assert "What each stage reached" in printed
    first, second, third = (output / name for name in ("1-pretrain", "2-sft", "3-train"))
    before = json.loads((first / "training.json").read_text())["held_out_loss"]
    supervised = json.loads((second / "result.json").read_text())
    rewarded = json.loads((third / "result.json").read_text())
    assert supervised["loss_after"] < supervised["loss_before"]
    for loss in (before, supervised["loss_before"], supervised["loss_after"]):
        assert f" {loss:.3f} " in printed
    assert f"{rewarded['score_after']:+.3f}" in printed
    # Each began with what the other left.
    assert yaml.safe_load((second / "config.yaml").read_text())["model"] == str(first)
    assert yaml.safe_load((third / "config.yaml").read_text())["model"] == str(second / "model")
    assert (output / "pipeline.yaml").read_text() == Path(file).read_text()
    # The same command finds all of it done.
    assert main(["run", file]) == 0
    again = capsys.readouterr().out
    assert again.count("is over") == 3
    assert "What each stage reached" in again


def test_a_pipeline_that_was_stopped_goes_on(
    tmp_path: Path,
    stages: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(["run", write(tmp_path / "whole.yaml", whole, stages)]) == 0
    file = write(tmp_path / "stopped.yaml", stopped, stages)
    advance = SupervisedTrainer.advance
    with monkeypatch.context() as patch:

        def stop(self: SupervisedTrainer) -> None:
            advance(self)
            if self.progress.texts >= 70:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(SupervisedTrainer, "advance", stop)
        assert main(["run", file]) == 130
    assert f"Go on with all: textgym run {file}" in capsys.readouterr().out
    assert not (stopped / "2-sft" / "result.json").exists()
    assert not (stopped / "3-train").exists()
    assert main(["run", file]) == 0
    assert capsys.readouterr().out.count("is over") == 1
    for model in ("1-pretrain", "2-sft/model", "3-train/model"):
        expected, found = weights(whole / model), weights(stopped / model)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_stage_that_was_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, stages: Any
) -> None:
    output = tmp_path / "out"
    file = write(tmp_path / "pipeline.yaml", output, [{"sft": {**stages[1]["sft"], "epochs": 1}}])
    begun = output / "1-sft"
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("command: sft\n")
    (output / "pipeline.yaml").write_text(Path(file).read_text())
    assert main(["run", file]) == 0
    assert (begun / "result.json").exists()


def test_all_is_checked_before_the_first_stage_begins(
    tmp_path: Path, stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    output, file = tmp_path / "out", tmp_path / "pipeline.yaml"

    def refused(change: Any) -> str:
        altered = json.loads(json.dumps(stages))
        change(altered)
        assert main(["run", write(file, output, altered)]) == 1
        assert not output.exists()
        return capsys.readouterr().err

    assert "stage 3 (train): no setting 'rewards'; did you mean 'reward'" in refused(
        lambda s: s[2]["train"].update(rewards="length")
    )
    assert "'output'" not in refused(lambda s: s[2]["train"].update(zzz=1))
    assert "stage 2 (sft): epochs is a number, got 'many'" in refused(
        lambda s: s[1]["sft"].update(epochs="many")
    )
    assert "stage 1 (pretrain): corpus is missing" in refused(
        lambda s: s[0]["pretrain"].pop("corpus")
    )
    assert "corpus is a list of strings, got 'texts/'. Write corpus: [texts/]" in refused(
        lambda s: s[0]["pretrain"].update(corpus="texts/")
    )
    assert "indent the settings under the command" in refused(
        lambda s: s[0].update(pretrain=None, **s[0]["pretrain"])
    )
    assert "stage 1 (pretrain)" in refused(lambda s: s[0]["pretrain"].update(corpus=["none.txt"]))
    assert "stage 2 (sft): no train example of task 'continuation'" in refused(
        lambda s: s[1]["sft"].update(task="continuation")
    )
    assert "stage 3 (train)" in refused(lambda s: s[2]["train"].update(reward="no_such"))
    assert "stage 3 (train): none.txt does not exist" in refused(
        lambda s: s[2]["train"].update(sft_coef=0.5, sft_corpus=["none.txt"])
    )
    assert "stage 3 (train): no train example of task 'continuation'" in refused(
        lambda s: s[2]["train"].update(sft_coef=0.5, task="continuation")
    )
    assert "stage 3 (train): task 'game" in refused(
        lambda s: s[2]["train"].update(sft_coef=0.5, task="game", reward=None)
    )
    for number, command in ((2, "sft"), (3, "train")):
        assert f"stage {number} ({command}): backbone: expected" in refused(
            lambda s, at=number - 1, name=command: s[at][name].update(backbone="lsmt")
        )
        assert "leave lora_rank out" in refused(
            lambda s, at=number - 1, name=command: s[at][name].update(backbone="gru", lora_rank=2)
        )
    assert "stage 3 (train): no model './gone'" in refused(
        lambda s: s[2]["train"].update(model="./gone")
    )
    assert "stage 2: no command 'sfd'; did you mean 'sft'" in refused(
        lambda s: s[1].update(sfd=s[1].pop("sft"))
    )
    assert "leave it out" in refused(lambda s: s[1]["sft"].update(output="elsewhere"))
    assert "device 'cuda:77'" in refused(lambda s: s[2]["train"].update(device="cuda:77"))
    assert "expected one command" in refused(lambda s: s.append("train"))


def test_texts_without_an_end_are_checked_too(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "endless_for_run.py").write_text(
        "from textgym.tasks.base import Example, Task\n"
        "class Same:\n"
        "    def draw(self, generator):\n"
        "        return Example('a', 'b')\n"
        "def same():\n"
        "    return Task('same', {'train': Same()})\n"
    )
    monkeypatch.chdir(tmp_path)
    endless = {"task": "endless_for_run:same"}
    for settings, message in (
        (endless, "Give context_length"),
        ({**endless, "context_length": 32}, "Give total_texts"),
    ):
        file = write(tmp_path / "pipeline.yaml", tmp_path / "out", [stages[0], {"sft": settings}])
        assert main(["run", file]) == 1
        error = capsys.readouterr().err
        assert "stage 2 (sft): " in error
        assert message in error
        assert not (tmp_path / "out").exists()


def test_a_pretraining_that_was_killed_after_its_first_look_is_not_over(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / "out"
    stages[0]["pretrain"]["eval_every"] = 2
    file = write(tmp_path / "pipeline.yaml", output, stages[:1])
    advance = Trainer._advance

    def die(self: Trainer) -> None:
        advance(self)
        if self.step == 3:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", die)
        with pytest.raises(SystemExit):
            main(["run", file])
    record = output / "1-pretrain" / "training.json"
    assert len(json.loads(record.read_text())["history"]) == 1
    capsys.readouterr()
    assert main(["run", file]) == 0
    assert "is over" not in capsys.readouterr().out
    assert len(json.loads(record.read_text())["history"]) > 1


def test_a_stage_that_fails_says_which_and_how_to_go_on(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = write(tmp_path / "pipeline.yaml", tmp_path / "out", stages[1:2])

    def fail(*_: Any) -> None:
        raise FloatingPointError("the loss became nan")

    monkeypatch.setattr(SupervisedTrainer, "advance", fail)
    assert main(["run", file]) == 1
    said = capsys.readouterr()
    assert "stage 1 (sft): the loss became nan" in said.err
    assert f"Go on with all: textgym run {file}" in said.out


def test_a_stage_that_is_not_over_may_change_what_a_resumed_run_may(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output, path = tmp_path / "out", tmp_path / "pipeline.yaml"
    file = write(path, output, stages[2:])
    calls = 0

    def interrupt(self: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agents.watching.SampleLog._on_rollout_start", interrupt)
        assert main(["run", file]) == 130
    stages[2]["train"].update(gamma=0.5)
    write(path, output, stages[2:])
    assert main(["run", file]) == 1
    assert f"or remove {output / '1-train'} to begin that stage anew" in capsys.readouterr().err
    del stages[2]["train"]["gamma"]
    stages[2]["train"].update(total_timesteps=192, device="cpu")
    write(path, output, stages[2:])
    assert main(["run", file]) == 0
    assert json.loads((output / "1-train" / "result.json").read_text())["timesteps"] == 192
    # What is over may not.
    stages[2]["train"].update(total_timesteps=256)
    write(path, output, stages[2:])
    assert main(["run", file]) == 1


def test_a_network_from_scratch_has_the_tokens_of_the_stage_before(
    tmp_path: Path, stages: Any
) -> None:
    output = tmp_path / "out"
    stages[1]["sft"].update(backbone={"name": "gru", "width": 16}, epochs=1)
    assert main(["run", write(tmp_path / "pipeline.yaml", output, stages[:2])]) == 0
    made = json.loads((output / "2-sft" / "model" / "config.json").read_text())
    before = json.loads((output / "1-pretrain" / "config.json").read_text())
    assert (made["kind"], made["vocab_size"]) == ("gru", before["vocab_size"])


def test_what_was_begun_with_other_settings_is_refused(
    tmp_path: Path, stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    output, file = tmp_path / "out", tmp_path / "pipeline.yaml"
    assert main(["run", write(file, output, stages[:1])]) == 0
    stages[0]["pretrain"]["epochs"] = 2
    assert main(["run", write(file, output, stages[:1])]) == 1
    assert "was begun with other settings" in capsys.readouterr().err
    # What has not begun may change: here a stage is added.
    stages[0]["pretrain"]["epochs"] = 1
    assert main(["run", write(file, output, stages[:2])]) == 0
    assert (output / "2-sft" / "result.json").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [sft: {task: dialogue}]", "output is a directory"),
        ("output: runs/a", "stages is a list"),
        ("output: runs/a\nstage: []", "no setting 'stage'; did you mean 'stages'"),
        ("- a", "expected a mapping"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    assert main(["run", str(file)]) == 1
    assert message in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none.yaml")]) == 1
    assert "no file" in capsys.readouterr().err
