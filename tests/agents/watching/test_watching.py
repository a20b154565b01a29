"""Callbacks that watch: in scripts with SB3's algorithms and ours, in terminals and out of them."""

from __future__ import annotations

import inspect
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image, KVWriter, Logger

import agents
from agents.episodes import EpisodeRecorder
from agents.watching import EpisodeCollector, LiveView, RewardLog, SampleLog, SamplePictures
from agents.watching.sample_pictures import as_markdown

ROLLOUT = 64


class Kept(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


class Fails(BaseCallback):
    """Stops a training with an error."""

    def _on_step(self) -> bool:
        if self.num_timesteps > ROLLOUT:
            raise RuntimeError("the judge has left")
        return True


class Prints(BaseCallback):
    """Prints in the middle of a training."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._console.print("Warning: look at this")
        print("and at that")


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        width=width,
        height=24,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )


def written(console: Console) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.fixture
def make_stock(make_token_ppo: Any) -> Any:
    """Makes stock PPO of the same model."""

    def make() -> PPO:
        model: PPO = make_token_ppo(PPO, batch_size=ROLLOUT)
        return model

    return make


@pytest.fixture(params=["TokenPPO", "PPO"])
def model(request: pytest.FixtureRequest, make_token_ppo: Any, make_stock: Any) -> Any:
    return make_token_ppo() if request.param == "TokenPPO" else make_stock()


def test_the_view_in_a_terminal(model: Any) -> None:
    console, out = terminal(), sys.stdout
    model.learn(3 * ROLLOUT, callback=[LiveView(console), Prints(console)])
    text = written(console)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is shown again
    assert sys.stdout is out
    assert "samples, each token by its reward" in text
    assert text.count("Warning: look at this\n") == 3
    assert text.count("and at that\n") == 3
    # What is left at the end is the figures, each once.
    left = text[text.rindex("\x1b[?25h") :]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", left)
    assert [line.split()[0] for line in plain.splitlines() if line.strip()] == [
        "score", "edit_distance", "length", "KL",
    ]  # fmt: skip
    assert "of an update" in plain


def test_the_view_ends_where_training_fails(model: Any) -> None:
    console, out = terminal(), sys.stdout
    with pytest.raises(RuntimeError, match="judge has left"), LiveView(console) as view:
        model.learn(3 * ROLLOUT, callback=[Fails(), view])
    assert sys.stdout is out
    assert written(console).count("\x1b[?25h") == 1
    writers = model.logger.output_formats
    assert not any(type(writer).__name__ == "_Tap" for writer in writers)


def test_elsewhere_it_is_plain_lines(model: Any) -> None:
    console = Console(file=io.StringIO(), width=60)
    model.learn(2 * ROLLOUT, callback=LiveView(console))
    lines = written(console).splitlines()
    assert "\x1b" not in written(console)
    assert lines[-1].startswith("128/128 tokens  score ")
    assert "edit_distance" in lines[-1]
    assert all(line.isascii() and "/128 tokens" in line for line in lines)


def test_a_quiet_console_stays_empty(make_token_ppo: Any, capfd: Any) -> None:
    view = LiveView(Console(quiet=True))
    make_token_ppo().learn(2 * ROLLOUT, callback=[view, Prints(Console(quiet=True))])
    assert capfd.readouterr().out == "and at that\n" * 2
    assert view.course.last("rollout/mean_score") is not None


def test_what_was_logged_before_is_the_past_of_the_view() -> None:
    rows = [{"rollout/mean_score": 0.25, "time/fps": 1.0}, {"rollout/mean_score": 0.5}]
    view = LiveView(terminal(), history=rows)
    ((_, label, series),) = view.course.shown()
    assert (label, series.points) == ("score", [0.25, 0.5])


def test_kl_and_validation_come_from_the_log(make_token_ppo: Any) -> None:
    class Validates(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            self.logger.record("validation/mean_score", 0.5)

    view = LiveView(Console(quiet=True))
    make_token_ppo(kl_coef=0.1).learn(2 * ROLLOUT, callback=[view, Validates()])
    assert view.kl is not None
    assert view.course.last("validation/mean_score") == 0.5


def test_logs_of_texts(model: Any, tmp_path: Path) -> None:
    kept = Kept()
    model.set_logger(Logger(None, [kept]))
    collector = EpisodeCollector()
    samples = tmp_path / "samples.jsonl"
    logs = [RewardLog(collector), SampleLog(samples, collector, 1000), SamplePictures(ROLLOUT)]
    model.learn(2 * ROLLOUT, callback=[collector, *logs])
    rows = [row for row in kept.rows if "rollout/mean_score" in row]
    texts = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    for row, timesteps in zip(rows, (ROLLOUT, 2 * ROLLOUT), strict=True):
        own = [text for text in texts if text["timesteps"] == timesteps]
        assert row["rollout/mean_score"] == pytest.approx(np.mean([t["score"] for t in own]), 1e-4)
        lengths = [len(text["token_ids"]) for text in own]
        assert row["completions/mean_length"] == pytest.approx(np.mean(lengths))
        for name in ("edit_distance", "length"):
            scores = [text["scores"][name] for text in own]
            assert row[f"rewards/{name}/mean"] == pytest.approx(np.mean(scores), abs=1e-4)
            assert row[f"rewards/{name}/std"] == pytest.approx(np.std(scores), abs=1e-4)
        assert row["rewards/length/weight"] == 0.5
        assert isinstance(row["samples/token_rewards"], Image)
        assert row["samples/token_rewards"].image.shape == (360, 640, 3)
        assert row["samples/texts"].startswith("| prompt | completion | score |\n")


def test_pictures_come_every_so_often(make_token_ppo: Any) -> None:
    kept, model = Kept(), make_token_ppo()
    model.set_logger(Logger(None, [kept]))
    pictures = SamplePictures(2 * ROLLOUT)
    model.learn(5 * ROLLOUT, callback=pictures)
    with_picture = ["samples/token_rewards" in row for row in kept.rows]
    assert with_picture == [True, True, False, True, False]
    # A run that goes on shows them at the same places.
    model.learn(2 * ROLLOUT, callback=SamplePictures(2 * ROLLOUT), reset_num_timesteps=False)
    assert ["samples/token_rewards" in row for row in kept.rows[5:]] == [True, False]
    with pytest.raises(ValueError, match="every is 0"):
        SamplePictures(0)


def test_markup_in_texts_is_shown_not_read() -> None:
    recorder = EpisodeRecorder(1)
    info = {"prompt": "a|b\n", "text": "<b>*x*</b>", "scores": {}, "score": 1.0}
    one = np.ones(1)
    (episode,) = recorder.add(one, one, one, [info]).values()
    row = as_markdown([episode]).splitlines()[-1]
    assert row == "| a&#124;b | &lt;b&gt;&#42;x&#42;&lt;/b&gt; | +1.000 |"


def test_texts_go_on_from_a_state(make_token_ppo: Any) -> None:
    whole, model = EpisodeCollector(), make_token_ppo()
    model.learn(ROLLOUT, callback=whole)
    state = json.loads(json.dumps(whole.state()))
    assert any(state["tokens"])  # some text goes on in the next rollout
    resumed = EpisodeCollector()
    resumed.load_state(state)
    assert resumed.state() == state
    model.learn(ROLLOUT, callback=[whole, resumed], reset_num_timesteps=False)
    assert resumed.episodes == whole.episodes
    assert len(whole.episodes) > 4
    with pytest.raises(ValueError, match="the state has 4 rows, and there are 2"):
        EpisodeRecorder(2).load_state(state)
    assert EpisodeCollector().state() == {}
    EpisodeCollector().load_state({})  # of a run that had not begun


@pytest.mark.parametrize("name", ["LiveView", "RewardLog", "SampleLog", "SamplePictures"])
def test_the_examples_of_docstrings_run(
    model: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = getattr(agents, name)
    (example,) = re.findall(r"^ {4}(model\.learn.*)$", inspect.getdoc(kind) or "", re.MULTILINE)
    assert "100_000" in example
    exec(example.replace("100_000", str(ROLLOUT)), {"model": model, name: kind})
    assert model.num_timesteps == ROLLOUT
