"""What every command has in common: its options, and what it says of what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agents import cli
from agents.distributed import speaking
from agents.run_file import FREE_TO_CHANGE

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize("command", ["train", "sft"])
def test_resume_and_config_are_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "--resume DIR Go on with the run in this directory" in shown
    assert "--config FILE Begin a new run" in shown
    text = shown.partition("--resume DIR")[2].partition("--config FILE")[0]
    for name in FREE_TO_CHANGE[command]:
        assert f"--{name.replace('_', '-')}" in text


@pytest.mark.parametrize("command", ["train", "sft"])
@pytest.mark.parametrize(
    ("typed", "meant"), [("--resme", "--resume DIR"), ("--confg", "--config FILE")]
)
def test_a_slip_gets_a_hint(
    command: str, typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, typed, "somewhere"])
    said = capsys.readouterr().err
    assert "Perhaps you meant" in said
    assert meant in said


@pytest.mark.parametrize("option", ["--resume", "--config"])
def test_a_path_is_wanted(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for behind in ([], ["--quiet", "True"]):
        with pytest.raises(SystemExit):
            cli.main(["train", option, *behind])
        assert option in capsys.readouterr().err


def test_a_run_goes_on_or_begins(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", "a", "--config=b"]) == 1
    assert "not both" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["agents.health", "textgym.checks", "agents"])
def test_a_module_of_ours_that_is_missing_is_not_to_be_installed(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(arguments: list[str]) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setitem(cli.COMMANDS, "train", broken)
    with pytest.raises(ModuleNotFoundError, match=missing):
        cli.main(["train"])


@pytest.mark.parametrize("missing", ["torch", "agentsmith", "textgym_plus"])
def test_what_else_is_missing_comes_with_its_pip_line(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: list[str]) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setitem(cli.COMMANDS, "train", broken)
    assert cli.main(["train"]) == 1
    said = capsys.readouterr().err
    assert f"needs {missing}, which is not installed: " in said
    assert said.endswith(" -m pip install 'textgym[all]'\n")


@pytest.mark.parametrize(("rank", "waits"), [("0", 0), ("3", 1)])
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (["list"], 2, "textgym list runs in one process"),
        (["train", "--n-envs", "0"], 1, "n_envs must be above 0"),
        (["train", "--n-envz", "1"], 2, "--n-envz"),
        (["train"], 1, "DeepSpeed is not used"),
    ],
)
def test_the_first_process_says_what_all_have_wrong(
    line: list[str],
    status: int,
    said: str,
    rank: str,
    waits: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The launcher ends the others meanwhile; one that goes on says what it alone has wrong."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "4"}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "ACCELERATE_USE_DEEPSPEED": "true"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    waited = []

    def sleep(seconds: float) -> None:
        waited.append((seconds, capsys.readouterr().err))

    monkeypatch.setattr(speaking, "time", SimpleNamespace(sleep=sleep))
    try:
        found = cli.main(line)
    except SystemExit as exit:  # the parser's
        found = int(exit.code or 0)
    assert found == status
    assert waited == [(speaking.A_MOMENT, "")] * waits
    assert said in capsys.readouterr().err


def test_every_package_is_installed() -> None:
    """An editable install finds them all, so that no other test would miss one."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("textgym", "agents")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == found
