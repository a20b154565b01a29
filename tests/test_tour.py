"""The tour in README.md can be taken, and its pictures are there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = [
    "--total-timesteps", "64", "--n-envs", "8", "--n-steps", "8", "--max-new-tokens", "8",
    "--eval-prompts", "4",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / ".docs/make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tour_can_be_taken(
    pictures: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from agents.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_rewards.py").write_text(pictures.tour_reward(README))
    monkeypatch.setitem(sys.modules, "my_rewards", ModuleType("my_rewards"))  # is taken back
    monkeypatch.delitem(sys.modules, "my_rewards")
    commands = [shlex.split(line) for line in pictures.tour_commands(README)]
    assert [words[1] for words in commands] == ["train", "sample", "train", "train"]
    for textgym, name, *arguments in commands:
        assert textgym == ".venv/bin/textgym"
        more = {"sample": ["--max-new-tokens", "8"], "train": SMALL}[name]
        if "--resume" in arguments:
            more = ["--total-timesteps", "128"]
        assert main([name, *arguments, *more]) == 0
    assert (tmp_path / "runs" / "tour" / "report.html").is_file()
    assert (tmp_path / "runs" / "mine" / "progress.csv").read_text().count(",128,")
    assert "Going on after 64 tokens." in capsys.readouterr().out


def test_its_pictures_are_small() -> None:
    shown = re.findall(r"\]\((\.docs/pictures/[^)]+)\)", README)
    assert len(shown) >= 3
    for name in shown:
        path = ROOT / name
        assert path.stat().st_size < 150 * 1024, name
        with Image.open(path) as image:
            assert image.width >= 640, name
