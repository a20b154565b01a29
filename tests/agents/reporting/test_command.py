"""`textgym report` from the command line."""

import subprocess
import sys

import pytest

from agents.cli import main


def test_a_page_of_one_run_is_put_into_it(make_run, capsys):
    path = make_run()
    assert main(["report", str(path)]) == 0
    assert (path / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert str(path / "report.html") in capsys.readouterr().out


def test_a_page_of_several_runs(make_run, tmp_path):
    paths = [str(make_run(name, seed=seed)) for seed, name in enumerate("ab")]
    page = tmp_path / "new" / "both.html"
    assert main(["report", *paths, "--output", str(page)]) == 0
    assert "2 runs" in page.read_text("utf-8")


def test_what_is_missing_is_said(make_run, capsys):
    path = make_run()
    (path / "result.json").unlink()
    assert main(["report", str(path)]) == 0
    assert "was stopped, or still goes on" in capsys.readouterr().out


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "is no run: it holds no config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "give the directory"), (["a", "b"], "--output"), (["a", "--output", "."], "directory")],
)
def test_arguments_that_make_no_sense(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(["report", *arguments])
    assert said in capsys.readouterr().err


def test_it_does_without_what_trains(make_run):
    code = (
        "import sys; from agents.cli import main; assert main(['report', sys.argv[1]]) == 0; "
        "print(*{'torch', 'transformers', 'stable_baselines3', 'matplotlib'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, str(make_run())]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ""
