"""What is read of the directory of a run, also of one that was killed."""

import json

import pytest

from agents.reporting.run import load_run, load_runs


def test_a_run_that_ended(make_run):
    run = load_run(make_run())
    assert (run.name, run.command, run.timesteps, run.has_ended) == ("run", "train", 300, True)
    assert run.missing == []
    assert [row["rollout/ep_rew_mean"] for row in run.progress] == [0.1, 0.3, 0.5]


def test_a_run_that_was_killed_while_it_wrote(make_run):
    path = make_run()
    for name in ("result.json", "texts.json", "about.json"):
        (path / name).unlink()
    progress = (path / "progress.csv").read_text()
    (path / "progress.csv").write_text(progress + "400,0.7,0.")
    line = json.dumps({"timesteps": 100, "text": "é"}, ensure_ascii=False) + "\n"
    (path / "samples.jsonl").write_bytes((line + line).encode()[:-5])
    run = load_run(path)
    assert not run.has_ended
    assert run.timesteps == 300
    assert len(run.samples) == 1
    stopped, about = run.missing
    assert "300 tokens" in stopped
    assert "about.json" in about


def test_a_run_that_went_on_after_its_end_has_not_ended(make_run):
    path = make_run()
    with (path / "progress.csv").open("a") as file:
        file.write("400,0.7,0.4,0.2,1.0,-3,0.0001,,\n")
    run = load_run(path)
    assert (run.timesteps, run.has_ended) == (400, False)


def test_a_run_that_logged_nothing(make_run):
    path = make_run()
    for name in ("progress.csv", "result.json", "texts.json"):
        (path / name).unlink()
    assert "no curves" in " ".join(load_run(path).missing)
    (path / "progress.csv").touch()
    assert load_run(path).progress == []


def test_what_is_no_run_is_refused(tmp_path, make_run):
    make_run()
    with pytest.raises(FileNotFoundError, match=r"holds no config.yaml.*Runs in it: run\."):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such directory"):
        load_run(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "a"),
        ("result.json", "{"),
        ("samples.jsonl", "{\n"),
        ("progress.csv", "time/total_timesteps\nabc\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(make_run, name, content):
    path = make_run()
    (path / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        load_run(path)


def test_runs_are_called_by_their_directories_or_else_by_their_paths(make_run, tmp_path):
    one, two = make_run("one"), make_run("two")
    assert [run.name for run in load_runs([one, two])] == ["one", "two"]
    (tmp_path / "more").mkdir()
    same = (tmp_path / "more" / "one").symlink_to(two) or tmp_path / "more" / "one"
    assert [run.name for run in load_runs([one, same])] == ["one", "two"]
    with pytest.raises(ValueError, match="more than once"):
        load_runs([one, two, one / ".." / "one"])
