"""Whole runs from the command line, small."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stable_baselines3.common.callbacks import BaseCallback

from agents.checkpointing.checkpoints import Checkpoints, tokens_of
from agents.cli import main
from agents.config import RunConfig
from agents.distributed.launcher import this_launch
from agents.judging.intervals import Estimate
from agents.run_directory import RunDirectory
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
    """A tiny random model with its tokenizer, as a directory."""
    directory = tmp_path_factory.mktemp("model")
    make_llama().save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model_dir: str) -> Path:
    """The directory of a finished run."""
    output = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "--output", str(output), "--model", model_dir, *SMALL]) == 0
    return output


def progress(run: Path) -> list[dict[str, str]]:
    """What was logged of rollouts."""
    return [row for row in logged(run) if row["rollout/ep_rew_mean"]]


def logged(run: Path) -> list[dict[str, str]]:
    with (run / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        {key: value for key, value in row.items() if "time/" not in key or "total" in key}
        for row in rows
    ]


def test_a_run_leaves_what_the_readme_says(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "progress.csv", "samples.jsonl", "report.html", "texts.json", "about.json",
        "curves.png", "model",
    }  # fmt: skip
    assert list(run.glob("events.out.tfevents.*"))
    with Image.open(run / "curves.png") as curves:
        assert curves.width > 400
    assert progress(run)[-1]["time/total_timesteps"] == "128"
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert model.config.vocab_size == len(tokenizer)


def test_the_model_that_validation_likes_best_is_kept(run: Path) -> None:
    looks = [row for row in logged(run) if row["validation/mean_score"]]
    assert [row["validation/timesteps"] for row in looks] == ["64", "128"]
    scores = [float(row["validation/mean_score"]) for row in looks]
    best = json.loads((run / "best.json").read_text())
    assert best["score"] == pytest.approx(max(scores))
    assert best["timesteps"] == (64, 128)[scores.index(max(scores))]
    assert float(looks[-1]["validation/best_score"]) == pytest.approx(max(scores))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_an_adapter_is_saved_alone_and_folded_in(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    run = tmp_path / "lora"
    lora = [
        "--lora-rank",
        "2",
        "--lora-targets",
        "q_proj",
        "down_proj",
        "--learning-rate",
        "0.01",
        "--reward",
        "length",
    ]
    arguments = ["--output", str(run), "--model", model_dir, *SMALL, *lora]
    assert main(["train", *arguments, "--dtype", "bfloat16", "--gradient-checkpointing"]) == 0
    assert f"adapter  {run / 'adapter'}" in capsys.readouterr().out
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 4)
    assert set(config["target_modules"]) == {"q_proj", "down_proj"}
    ids = torch.arange(10)[None]
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    before = base(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(run / "model")(ids).logits
    adapted = peft.PeftModel.from_pretrained(base, str(run / "adapter"))(ids).logits
    torch.testing.assert_close(adapted, merged, atol=1e-5, rtol=1e-5)
    assert (merged - before).abs().max() > 1e-3


def test_a_chat_model_is_put_prompts_as_messages(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    model = tmp_path / "chat"
    shutil.copytree(model_dir, model)
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|endoftext|>{% endfor %}>"
    (model / "chat_template.jinja").write_text(template)
    arguments = ["--model", str(model), *SMALL]
    assert main(["train", "--output", str(tmp_path / "run"), *arguments]) == 0
    assert "Prompts are chat messages, by the model's template." in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "chat_template.jinja").read_text() == template
    assert main(["train", "--output", str(tmp_path / "plain"), "--chat", "False", *arguments]) == 0
    assert "Prompts are plain text." in capsys.readouterr().out


def test_templates_are_chosen_while_training(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    templates = ["--templates", "{prompt}", "So: {prompt}", "--prompts", "ucb"]
    arguments = ["train", "--output", str(run), "--model", model_dir, *templates, *SMALL]
    assert main([*arguments, "--total-timesteps", "512"]) == 0
    assert "So: {prompt}" in capsys.readouterr().out
    best = json.loads((run / "best.json").read_text())
    # None if the best model came before the templates could be told apart.
    assert best["templates"] in (None, ["{prompt}"], ["So: {prompt}"])
    assert main(["train", "--resume", str(run), "--total-timesteps", "576"]) == 0
    assert main(["eval", "--model", str(run), "--prompts", "4", "--output", str(run / "eval")]) == 0
    assert "Prompts are put by '" in capsys.readouterr().out
    settings = json.loads((run / "eval" / "eval.json").read_text())["settings"]
    best = json.loads((run / "best.json").read_text())
    assert settings["templates"] == (best["templates"] or ["{prompt}", "So: {prompt}"])


def test_samples_add_up(run: Path) -> None:
    lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert len(samples) >= 4
    for sample in samples:
        assert len(sample["rewards"]) == len(sample["token_ids"])
        assert np.isclose(sum(sample["rewards"]), sample["score"], atol=1e-4)
        assert np.isclose(sample["scores"]["sentiment"], sample["score"], atol=1e-4)


def test_the_config_repeats_the_run_exactly(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.yaml"), "--output", str(again)]) == 0
    assert progress(again) == progress(run)
    for weights in ("start.safetensors", "model/model.safetensors"):
        expected, found = load_file(run / weights), load_file(again / weights)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (again / "samples.jsonl").read_text() == (run / "samples.jsonl").read_text()


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path,
    model_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        ctrl_c = lambda self: signal.raise_signal(signal.SIGINT)  # noqa: E731
        patched.setattr("agents.watching.LiveView._on_rollout_start", ctrl_c)
        assert main(["train", "--output", "run", "--model", model_dir, *SMALL]) == 130
    said = capsys.readouterr()
    assert "Saved after 64 tokens. Go on: textgym train --resume run" in said.out
    assert "Stopped" not in said.err
    stopped = progress(tmp_path / "run")
    assert stopped[-1]["time/total_timesteps"] == "64"
    assert main(["train", "--resume=run"]) == 0
    finished = progress(tmp_path / "run")
    assert [row["time/total_timesteps"] for row in finished] == ["64", "128"]
    assert finished[0].items() >= stopped[0].items()
    assert (tmp_path / "run" / "curves.png").is_file()
    # It must not begin with the prompts and the tokens of the run's beginning again.
    samples = [
        json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    ]
    early = {sample["text"] for sample in samples if sample["timesteps"] <= 64}
    assert early.isdisjoint(sample["text"] for sample in samples if sample["timesteps"] > 64)
    # What is finished has nothing left to do, and can be given more.
    assert main(["train", "--resume", "run", "--total-timesteps", "192"]) == 0
    assert progress(tmp_path / "run")[-1]["time/total_timesteps"] == "192"
    assert main(["train", "--resume", "run", "--learning-rate", "1e-9"]) == 1
    assert "takes only --total-timesteps" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once_and_the_last_checkpoint_stays(
    tmp_path: Path,
    model_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ctrl_c_twice(self: Any) -> bool:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return True

    with monkeypatch.context() as patched:
        patched.setattr("agents.watching.LiveView._on_step", ctrl_c_twice)
        patched.setattr("agents.interrupts._ONE_PRESS", 0.0)
        arguments = ["--output", str(tmp_path / "run"), "--model", model_dir, *SMALL]
        assert main(["train", *arguments]) == 130
    said = capsys.readouterr().out
    assert "Stopped after 8 tokens; the newest checkpoint is after 0. Go on: textgym train" in said
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0


def test_a_reward_that_follows_progress_goes_on_where_it_was(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    late = {"name": "schedule", "reward": "length", "tokens": 160}
    pair = {"name": "adaptive", "rewards": ["sentiment"], "goals": {"sentiment": -1.0}, "window": 9}
    reward = json.dumps({"late": late, "pair": pair})
    arguments = ["--output", "run", "--model", model_dir, "--reward", reward, *SMALL]
    assert main(["train", *arguments]) == 0
    assert main(["train", "--resume", "run", "--total-timesteps", "192"]) == 0
    weights = [float(row["rewards/late/length/weight"]) for row in progress(tmp_path / "run")]
    assert weights == pytest.approx([64 / 160, 128 / 160, 1.0])
    # What is logged and judged is the score, whatever it was worth at the time.
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert sample["score"] == pytest.approx(sum(sample["scores"].values()), abs=1e-5)
    assert sum(sample["rewards"]) == pytest.approx(sample["scores"]["pair/sentiment"], abs=1e-5)


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.progress.write_text("a,time/total_timesteps\n1,64\n2,128\n3,192\n")
    run.samples.write_text("".join(json.dumps({"timesteps": t}) + "\n" for t in (64, 128, 192)))
    run.forget_after(128)
    assert run.progress.read_text() == "a,time/total_timesteps\n1,64\n2,128\n"
    assert len(run.samples.read_text().splitlines()) == 2


def test_a_run_that_was_stopped_in_its_first_rollout_goes_on(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def interrupt(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("agents.watching.SampleLog._on_rollout_start", interrupt)
        assert main(["train", "--output", str(run), "--model", model_dir, *SMALL]) == 130
    assert (run / "progress.csv").read_text() == ""
    assert main(["train", "--resume", str(run)]) == 0
    assert [row["time/total_timesteps"] for row in progress(run)] == ["64", "128"]


def test_another_seed_is_another_run(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    arguments = ["--config", str(run / "config.yaml"), "--seed", "1", "--output", str(other)]
    assert main(["train", *arguments]) == 0
    assert (other / "samples.jsonl").read_text() != (run / "samples.jsonl").read_text()


def test_a_run_is_never_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "progress.csv").read_bytes()
    assert main(["train", "--output", str(run), *SMALL]) == 1
    assert "holds a run already" in " ".join(capsys.readouterr().err.split())
    assert (run / "progress.csv").read_bytes() == before


def test_a2c_delayed_and_a_reward_of_ones_own(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_for_train.py").write_text("def vowels(text):\n    return text.count('e')\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["--algo", "sb3-a2c", "--timing", "delayed", "--reward", "mine_for_train:vowels"]
    assert main(["train", "--output", "run", "--model", model_dir, *arguments, *SMALL]) == 0
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert all(reward == 0 for reward in sample["rewards"][:-1])
    assert sample["rewards"][-1] == sample["text"].count("e")


def test_a_failing_reward_ends_the_run_and_saves_the_model(
    tmp_path: Path,
    model_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "failing_later.py").write_text(
        "calls = 0\n"
        "def fragile(text):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls > 300:\n"
        "        raise RuntimeError('the judge has left')\n"
        "    return 0.0\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--reward", "failing_later:fragile", "--total-timesteps", "100000"]
    assert main(["train", "--output", "run", "--model", model_dir, *SMALL, *arguments]) == 1
    message = capsys.readouterr().err
    for part in ("fragile", "the judge has left", "prompt:", "text:"):
        assert part in message
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "progress.csv").stat().st_size > 0


def test_the_model_of_a_run_writes_as_it_was_trained(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": f"Say {i}.", "reference": f"{i}!"}) for i in range(40)]
    Path("rows.jsonl").write_text("\n".join(rows))
    Path("templates.txt").write_text("So: {prompt}\nHm. {prompt}\n")
    task = ["--task", '{"name": "file", "path": "rows.jsonl"}', "--templates", "templates.txt"]
    assert main(["train", "--output", "run", "--model", model_dir, *task, *SMALL]) == 0
    assert "textgym sample --model run" in capsys.readouterr().out
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "- 'So: {prompt}'" in config
    # Prompts with their references, and a reward that compares with them: those of the task.
    assert main(["sample", "--model", "run", "--num-samples", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Say ") >= 6
    assert "over 6 texts" in shown
    arguments = ["--model", "run", "--prompt", "Say A.", "--reference", "A!", "--num-samples", "2"]
    assert main(["sample", *arguments]) == 0
    assert "over 2 texts" in capsys.readouterr().out


def test_one_s_own_task_is_called_by_its_name_and_one_prompt_has_no_interval(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "mine_for_riddles.py").write_text(
        "class Riddles:\n"
        "    def examples(self):\n"
        "        return ['What has keys?', 'What has a neck?', 'What has hands?']\n"
        "    def reward(self, text):\n"
        "        return -1e-5 * len(text)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    task = ["--task", "mine_for_riddles:Riddles", "--eval-prompts", "1"]
    assert main(["train", "--output", "run", "--model", model_dir, *SMALL, *task]) == 0
    shown = capsys.readouterr().out
    assert "immediate Riddles.reward reward." in shown
    assert "1 test prompt: mean score +0.000 before,\n" in shown
    assert "interval" not in shown
    assert "-0.00" not in shown


def test_a_run_that_made_it_worse_says_so(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run, tell = str(tmp_path / "run"), "agents.health.symptoms.intervals.mean"
    monkeypatch.setattr(tell, lambda gains: Estimate(-0.2, -0.3, -0.1))
    arguments = ["--output", run, "--model", model_dir, "--quiet", "--learning-rate", "0.003"]
    assert main(["train", *arguments, *SMALL]) == 0
    said = capsys.readouterr().out
    assert "After 128 tokens, the model that was kept scores less" in said
    assert "lower --learning-rate (it was 0.003)" in said


def test_a_game_brings_its_own_prompts(
    tmp_path: Path, model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    arguments = ["--output", run, "--model", model_dir, "--task", "game:2", *SMALL]
    assert main(["train", *arguments, "--stop", "a", "e"]) == 0
    assert main(["sample", "--model", run, "--num-samples", "1"]) == 0
    assert "User: I think of a whole number from" in capsys.readouterr().out
    assert main(["sample", "--model", run, "--prompt", "Hello"]) == 1
    assert "has prompts of its own" in capsys.readouterr().err


def test_the_page_of_ones_own_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "riddling.py").write_text('def riddles():\n    """Riddles, old ones."""\n')
    assert main(["list", "tasks", "riddling:riddles"]) == 0
    assert "Riddles, old ones." in capsys.readouterr().out


def test_sample_shows_texts_and_scores(model_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", model_dir, "--prompt", "My lord, I", "Good day", "--num-samples", "2"]
    assert main(["sample", *arguments, "--max-new-tokens", "5"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("My lord, I") == shown.count("Good day") == 2
    assert "mean score" in shown


def test_list_names_everything_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("TextGen-v0", "continuation", "file", "sentiment", "edit_distance", "builtin"):
        assert name in shown


def test_list_tells_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "rewards", "error_rate"]) == 0
    shown = capsys.readouterr().out
    for part in ("character or word error rate", "Args:", "ignore_case:", "Source:"):
        assert part in shown
    assert main(["list", "tasks"]) == 0
    shown = capsys.readouterr().out
    assert "continuation" in shown
    assert "sentiment" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--reward", "sentimnt"], "did you mean 'sentiment'"),
        (["train", "--task", "continuations"], "did you mean 'continuation'"),
        (["train", "--model", "no/such/model/here"], "neither one that goes by name"),
        (["train", "--config", "none.yaml"], "no run file none.yaml"),
        (["train", "--resume", "none"], "no such directory"),
        (["train", "--device", "foo"], "device 'foo' cannot be used here"),
        (["list", "all"], "takes one of environments, tasks, rewards, models, algorithms"),
        (["list", "rewards", "grammer"], "did you mean 'grammar'"),
        (["list", "environments", "TextGen-v0"], "takes one of environments, tasks, rewards,"),
    ],
)
def test_what_is_mistyped_fails_at_once_with_the_cure(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--rewrd"], "--reward"),
        (["train", "--config"], "Missing value for argument '--config'"),
        (["train", "--algo=sac"], "invalid choice 'sac'"),
        (["train", "--n-envs=many"], "--n-envs"),
        (["train", "--clip-range=-1"], "clip_range must be above 0, got -1.0 (--clip-range)"),
        (["sft", "--epochs=0", "--task=dialogue"], "epochs must be above 0, got 0.0 (--epochs)"),
        (["sample", "--num-samples=0"], "num_samples must be above 0, got 0"),
        (["pretrain", "--output", "x"], "no corpus"),
    ],
)
def test_unknown_and_ill_typed_options_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # The parser leaves by itself where it finds the fault; newer ones find more of them.
    try:
        status: object = main(arguments)
    except SystemExit as refused:
        status = refused.code
    assert status in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


ELSEWHERE = """
import time
from concurrent.futures import ThreadPoolExecutor

class Elsewhere:
    text_only = True
    pool = ThreadPoolExecutor(2)

    def submit(self, samples):
        return self.pool.submit(self.score, samples)

    def score(self, samples):
        time.sleep(0.003)
        return [len(sample.text) / 10 for sample in samples]
"""


class Stops(BaseCallback):
    """Stops a training in the middle of a rollout."""

    def _on_step(self) -> bool:
        return self.n_calls < 11


def test_a_run_that_a_callback_stops_ends_well(
    tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its texts are ahead of their rewards, and given up; it can go on all the same."""
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.syspath_prepend(tmp_path)
    config = RunConfig(
        output=tmp_path / "run", model=model_dir, reward="elsewhere:Elsewhere", n_envs=8,
        total_timesteps=192, n_steps=8, max_new_tokens=8, eval_prompts=4, device="cpu", quiet=True,
    )  # fmt: skip
    run = RunDirectory(train(config, callbacks=[Stops()]))
    latest = Checkpoints(run.checkpoints).latest
    assert latest is not None
    assert tokens_of(latest) == 88
    assert json.loads(run.result.read_text())["timesteps"] == 88
    assert (run.model / "model.safetensors").is_file()
    assert (run.path / "report.html").is_file()
    train(config, resume=True)
    assert progress(run.path)[-1]["time/total_timesteps"] == "216"


def test_what_a_launcher_begins_anew_goes_on_with_its_own_run_only(
    run: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    line = ["train", "--output", str(run), "--model", model_dir, *SMALL]
    assert main(line) == 0
    assert "Going on after 128 tokens" in capsys.readouterr().out
    about = run / "about.json"
    about.write_text(about.read_text().replace(this_launch(), "7 on node-b"))
    assert main(line) == 1
    assert "holds a run already" in capsys.readouterr().err
