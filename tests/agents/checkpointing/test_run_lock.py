import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agents import run_lock as module
from agents.distributed.processes import Processes
from agents.run_lock import LOCK, check_in_common, run_lock, sees_lock, this_process

pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from agents.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_held_until_its_process_ends_in_whatever_way(tmp_path: Path) -> None:
    run = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, run], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "held\n"
        told = rf"another process \({other.pid} on .*\).*--output"
        with pytest.raises(BlockingIOError, match=told), run_lock(run):
            pass
        other.kill()
    with run_lock(run):
        assert sees_lock(run, this_process())
        assert (run / LOCK).read_text() == this_process()
    assert not (run / LOCK).exists()


def test_a_process_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    ending = ExitStack()
    ending.enter_context(run_lock(tmp_path))
    ended: list[bool] = []
    ending.callback(ended.append, True)
    threading.Timer(0.2, ending.close).start()
    with run_lock(tmp_path, patience=20.0):
        assert ended


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "model" / ".writing-abc" / "new").mkdir(parents=True)
    (tmp_path / ".config.yaml.123").write_text("half")
    (tmp_path / ".gitignore").write_text("mine")
    (tmp_path / ".notes.2024").write_text("mine")
    with run_lock(tmp_path):
        assert not (tmp_path / "model" / ".writing-abc").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".gitignore",
            LOCK,
            ".notes.2024",
            "model",
        ]


def test_what_cannot_be_written_to_is_said_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = r"nothing can be written to .*Give another --output"
    with pytest.raises(OSError, match=told), run_lock(tmp_path / "file" / "run"):
        pass


class First(Processes):
    """The first of two, of which the other says what it is told to."""

    def __init__(self, other: str | None) -> None:
        super().__init__(0, 2)
        self.other = other

    def gather(self, what: str, value: Any) -> list[Any]:
        """What both say."""
        return [value, self.other]


def test_processes_with_other_files_are_found_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    with run_lock(tmp_path):
        check_in_common(tmp_path, First(None))
        told = r"7 on node-b did not see what .* Give an --output on a file system"
        with pytest.raises(OSError, match=told):
            check_in_common(tmp_path, First("7 on node-b"))
        with pytest.raises(OSError, match=f"{this_process()} did not see"):
            check_in_common(tmp_path / "elsewhere", First(None))
