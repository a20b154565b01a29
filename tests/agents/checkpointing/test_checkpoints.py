import itertools
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agents.checkpointing.checkpoints import Checkpoints, tokens_of
from agents.checkpointing.room import check_room
from agents.checkpointing.tree import load_tree, save_tree

PROGRAM = runpy.run_path(str(Path(__file__).with_name("killed_run.py")))


def fill(text: str):
    return lambda directory: (directory / "file").write_text(text)


def names(checkpoints: Checkpoints) -> list[str]:
    return [path.name.lstrip("0") for path in checkpoints.all]


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.latest is None
    for tokens in (5, 90, 1000):
        written = checkpoints.write(tokens, fill(str(tokens)))
        assert checkpoints.latest == written
        assert tokens_of(written) == tokens
    assert names(checkpoints) == ["90", "1000"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        path.name for path in checkpoints.all
    ]


def test_those_of_the_same_moment_stand_in_the_order_in_which_they_were_made(
    tmp_path: Path,
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for number in range(12):
        written = checkpoints.write(7, fill(str(number)))
        assert tokens_of(written) == 7
        assert checkpoints.latest == written
    assert [(path / "file").read_text() for path in checkpoints.all] == ["10", "11"]
    assert checkpoints.write(8, fill("")) == checkpoints.latest


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, fill("good"))

    def full(directory: Path) -> None:
        (directory / "file").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write(2, full)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.all[0].name]
    assert (checkpoints.all[0] / "file").read_text() == "good"


def test_killed_at_any_step_of_writing_there_is_a_whole_one(tmp_path: Path) -> None:
    def fill_with(number: int) -> Callable[[Path], None]:
        tree = {"number": number, "tensor": torch.full((3,), float(number))}
        return lambda directory: save_tree(tree, directory)

    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(0, fill_with(0))
    newest = kills = 0
    for number in itertools.count(1):
        pid = os.fork()
        if pid == 0:
            PROGRAM["die_at_step"](number)
            checkpoints.write(number, fill_with(number))
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        latest = checkpoints.latest
        assert latest is not None
        tree = load_tree(latest)
        assert tree["number"] in (newest, number)
        assert tree["tensor"].tolist() == [tree["number"]] * 3
        newest, kills = tree["number"], kills + killed
        if not killed:
            break
    assert newest == number
    assert kills >= 10  # two files, their directory, and what is removed
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_run_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.write(1, fill("good"))
    (tmp_path / ".000000000002").mkdir()
    assert names(checkpoints) == ["1"]
    checkpoints.write(2, fill("good"))
    assert names(checkpoints) == ["1", "2"]
    checkpoints.remove()
    assert not tmp_path.exists()
    checkpoints.remove()


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, fill("good"))
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "backup").mkdir()
    checkpoints.write(2, fill("good"))
    assert names(checkpoints) == ["2"]
    assert (tmp_path / ".DS_Store").exists()
    assert (tmp_path / "backup").exists()


def test_a_disk_without_room_is_found_at_once(tmp_path: Path) -> None:
    check_room(tmp_path, 1_000)
    with pytest.raises(OSError, match=r"there are .* left where .* and this run may write"):
        check_room(tmp_path, 10**18)


def test_what_is_written_already_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 900)
    usage = shutil.disk_usage(tmp_path)._replace(free=200)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    check_room(tmp_path, 1_000)
    with pytest.raises(OSError, match="may write"):
        check_room(tmp_path, 1_200)
