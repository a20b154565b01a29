import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import files
from textgym.files import atomic_directory, atomic_write


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


OLD = {"config.json": "old", "model-1.safetensors": "old", "model-2.safetensors": "old"}


def test_a_new_directory_holds_what_the_block_wrote(tmp_path):
    with atomic_directory(tmp_path / "runs" / "model") as temporary:
        write(temporary, {"config.json": "new", "sub/a.txt": "new"})
    assert contents(tmp_path) == {
        "runs/model/config.json": "new",
        "runs/model/sub/a.txt": "new",
    }


def test_files_are_replaced_stale_ones_go_and_others_stay(tmp_path):
    directory = write(tmp_path / "model", {**OLD, "notes.txt": "mine", "logs/a.csv": "mine"})
    with atomic_directory(directory, stale=["*.safetensors"]) as temporary:
        write(temporary, {"config.json": "new", "model.safetensors": "new"})
    assert contents(directory) == {
        "config.json": "new",
        "model.safetensors": "new",
        "notes.txt": "mine",
        "logs/a.csv": "mine",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_directory_takes_the_place_of_one(tmp_path):
    directory = write(tmp_path, {"sub/old.txt": "old"})
    with atomic_directory(directory) as temporary:
        write(temporary, {"sub/new.txt": "new"})
    assert contents(directory) == {"sub/new.txt": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_block_leaves_what_was_there(tmp_path, error):
    def half() -> None:
        with atomic_directory(directory, stale=["*.safetensors"]) as temporary:
            write(temporary, {"config.json": "half"})
            raise error

    directory = write(tmp_path / "model", OLD)
    with pytest.raises(error):
        half()
    assert contents(directory) == OLD
    assert set(os.listdir(directory)) == set(OLD)


@pytest.mark.parametrize("links", [True, False])
def test_a_failure_at_any_renaming_leaves_what_was_there(tmp_path, monkeypatch, links):
    new = {"config.json": "new", "model.safetensors": "new"}
    replace, moves = os.replace, 4  # two new files come, two old ones leave
    if not links:  # not every file system has them
        monkeypatch.setattr(files.os, "link", _no_links)
    for failing in range(moves):
        directory = write(tmp_path / str(failing), OLD)
        calls = iter(range(100))

        def breaks(source, target, failing=failing, calls=calls):
            if next(calls) == failing:
                raise OSError("the disk is gone")
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", breaks)
        with (
            pytest.raises(OSError, match="the disk is gone"),
            atomic_directory(directory, stale=["*.safetensors"]) as temporary,
        ):
            write(temporary, new)
        monkeypatch.setattr(files.os, "replace", replace)
        assert contents(directory) == OLD
        with atomic_directory(directory, stale=["*.safetensors"]) as temporary:
            write(temporary, new)
        assert contents(directory) == new


def test_a_file_that_is_replaced_is_there_at_every_moment(tmp_path, monkeypatch):
    directory = write(tmp_path / "model", OLD)
    replace, seen = os.replace, []

    def look(source, target):
        seen.append((directory / "config.json").read_text())
        replace(source, target)
        seen.append((directory / "config.json").read_text())

    monkeypatch.setattr(files.os, "replace", look)
    with atomic_directory(directory, stale=["*.safetensors"]) as temporary:
        write(temporary, {"config.json": "new", "model.safetensors": "new"})
    assert set(seen) == {"old", "new"}


def _no_links(*_, **__):
    raise OSError("not supported")


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda f: (happened.append("sync"), fsync(f)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (happened.append("name"), replace(a, b)))
    files.durable_write(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert happened == ["sync", "name", "sync"]
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError):
        files.durable_write(tmp_path / "gone" / "file", b"data")  # and does not come back


def test_so_is_one_that_a_library_writes(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda f: (happened.append("sync"), fsync(f)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (happened.append("name"), replace(a, b)))
    for text in ("old", "new"):
        with files.durable_file(tmp_path / "file") as temporary:
            (temporary.parent / "own").write_text(text)
            (temporary.parent / "own").chmod(0o600)
            os.rename(temporary.parent / "own", temporary)
            assert temporary.parent.parent == tmp_path  # so that renaming is all it takes
    assert happened == ["sync", "name", "sync"] * 2
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").unlink()

    def half():
        with files.durable_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert contents(tmp_path) == {"file": "new"}


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "model"):
        pass
    assert (tmp_path / "model").read_text() == "mine"


def test_new_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    umask = os.umask(0o022)
    try:
        with atomic_directory(tmp_path / "model") as temporary:
            write(temporary, {"config.json": "new"})
            (temporary / "config.json").chmod(0o600)  # as safetensors makes its files
    finally:
        os.umask(umask)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "model" / "config.json").stat().st_mode & 0o777 == 0o644


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_text_comes_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "new" / "file.txt"
    atomic_write(path, "before")
    atomic_write(str(path), text)
    assert path.read_text(encoding="utf-8") == text
    assert os.listdir(path.parent) == ["file.txt"]


def test_text_that_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, "before")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(path, "half a pair: \ud800")
    assert contents(tmp_path) == {"file.txt": "before"}
