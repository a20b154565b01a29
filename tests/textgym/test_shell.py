"""Commands that are printed to be pasted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from textgym.shell import pip_install, program


@pytest.fixture
def bin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an environment in a clone that is the working directory, and is not activated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.defpath)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("textgym", "python"):
        (folder / name).touch(0o755)
    return folder


@pytest.mark.parametrize("called", [".venv/bin/textgym", "{folder}/textgym"])
def test_the_program_of_an_environment_that_is_not_active(
    called: str, bin_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called.format(folder=bin_directory), "train"])
    assert program() == ".venv/bin/textgym"


def test_an_active_environment_needs_no_path(
    bin_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(bin_directory / "textgym")])
    monkeypatch.setattr(sys, "executable", str(bin_directory / "python"))
    monkeypatch.setenv("PATH", str(bin_directory))
    assert program() == "textgym"
    assert pip_install("'textgym[metrics]'") == "python -m pip install 'textgym[metrics]'"


def test_from_elsewhere_the_path_is_as_short_as_can_be(
    bin_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(bin_directory / "textgym")])
    deep = bin_directory.joinpath(*["x"] * len(str(bin_directory)))
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert program() == str(bin_directory / "textgym")
    monkeypatch.chdir(bin_directory)
    assert program() == "./textgym"  # the shell looks for a bare name elsewhere


def test_paths_with_spaces_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my things"
    folder.mkdir()
    (folder / "textgym").touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["my things/textgym"])
    assert program() == "'my things/textgym'"


def test_as_a_module(bin_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agents.cli

    monkeypatch.setattr(sys, "argv", [agents.cli.__file__, "train"])
    monkeypatch.setattr(sys, "executable", str(bin_directory / "python"))
    assert program() == ".venv/bin/python -m agents.cli"


def test_from_a_script_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["my_script.py"])
    assert program() == "textgym"


def test_what_is_missing_is_installed_where_this_python_finds_it(
    bin_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(bin_directory / "python"))
    assert pip_install("--no-deps x") == ".venv/bin/python -m pip install --no-deps x"
