"""The command: what it prints can be pasted, and trains as if the reward were at home."""

from __future__ import annotations

import csv
import functools
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.cli import main

SMALL = [
    "--total-timesteps", "128", "--n-envs", "8", "--n-steps", "8", "--max-new-tokens", "8",
    "--eval-prompts", "4",
]  # fmt: skip


@contextmanager
def serving(*options: str) -> Iterator[Any]:
    """The command, running; yields what to call of the lines that it printed."""
    command = [sys.executable, "-u", "-m", "agents.cli", "serve", "--port", "0", *options]
    # Where the tests run in the background, Ctrl-C may be ignored, also in what they start.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=listen) as process:
        try:
            yield process
        finally:
            process.kill()


def scores(run: Path) -> list[tuple[str, ...]]:
    """What was logged of rewards and losses."""
    with (run / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ["rollout/ep_rew_mean", "validation/mean_score", "train/loss", "train/value_loss"]
    return [tuple(row[name] for name in names) for row in rows]


def test_training_is_the_same_as_with_the_reward_at_home(tmp_path: Path) -> None:
    with serving("--reward", "sentiment") as process:
        first, second = process.stdout.readline(), process.stdout.readline()
        said, typed = second.split(": ", 1)
        assert said == "Train with"
        *_, command, option, reward = shlex.split(typed)
        assert (command, option) == ("train", "--reward")
        url = json.loads(reward)["url"]
        assert first == f"Reward sentiment is served at {url}, and its state at /health.\n"
        assert json.loads(reward) == {"name": "http", "url": url}
        for name, spec in {"http": reward, "home": "sentiment"}.items():
            output = ["--output", str(tmp_path / name)]
            assert main(["train", "--reward", spec, *output, *SMALL]) == 0
        counts = httpx.get(url.replace("/score", "/health"), trust_env=False).json()
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=30)
        assert process.returncode == 0
        assert f"{counts['texts']} texts scored in {counts['calls']} calls." in rest
        assert complaints == ""
    elsewhere, home = scores(tmp_path / "http"), scores(tmp_path / "home")
    assert elsewhere == home
    assert len({row[0] for row in home}) > 2
    assert counts["calls"] >= 16


def test_a_server_that_is_gone_ends_the_run_with_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = {"name": "http", "url": "http://127.0.0.1:1/score", "retries": 0}
    output = ["--output", str(tmp_path / "run")]
    assert main(["train", "--reward", json.dumps(reward), *output, *SMALL]) == 1
    complaint = capsys.readouterr().err
    assert "reward 'http' gets no answer from http://127.0.0.1:1/score: ConnectError" in complaint
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--reward", "length"], "reward 'length' pays each token as it comes"),
        (["--token", "NO_SUCH_VARIABLE"], "the environment variable 'NO_SUCH_VARIABLE' is not set"),
        (["--workers", "0"], "workers is a whole number of at least 1"),
        (["--port", "70000"], "a port is a number from 0 to 65535"),
    ],
)
def test_settings_that_are_refused(
    options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) == 1
    assert problem in capsys.readouterr().err


def test_what_the_client_must_know_is_in_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textgym.rewards.serving import ScoreServer

    (tmp_path / "scores_of_mine.py").write_text(
        "class OfTokens:\n"
        "    success_threshold = 0.5\n\n"
        "    def score(self, samples):\n"
        "        return [float(len(sample.token_ids)) for sample in samples]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def interrupted(self: ScoreServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("SCORE_TOKEN", "hush")
    monkeypatch.setattr(ScoreServer, "serve_forever", interrupted)
    options = ["--reward", "scores_of_mine:OfTokens", "--token", "SCORE_TOKEN", "--port", "0"]
    options += ["--workers", "8"]
    assert main(["serve", "--host", "0.0.0.0", *options]) == 0
    said = capsys.readouterr()
    reward = json.loads(shlex.split(said.out.splitlines()[1])[-1])
    assert "0.0.0.0" not in reward.pop("url")
    assert reward == {
        "name": "http",
        "token_ids": True,
        "success_threshold": 0.5,
        "max_calls": 8,
        "headers": {"Authorization": "Bearer $SCORE_TOKEN"},
    }
    assert "hush" not in said.out
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 0
    assert "No token: whoever reaches 0.0.0.0" in capsys.readouterr().out
