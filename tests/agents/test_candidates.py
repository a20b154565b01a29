"""Which model is meant, and what the runs of several agree on."""

import pytest

from agents.candidates import Candidate, find, find_all
from agents.config import RunConfig
from agents.judging.config import EvalConfig
from agents.run_file import save_config
from agents.sampling import Sampling
from textgym.tokenizer import BUILTIN_DIRECTORY


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "run"
    (directory / "model").mkdir(parents=True)
    save_config(RunConfig(reward="length", max_new_tokens=7), directory / "config.yaml")
    return directory


def test_a_name_is_a_name():
    assert find("builtin").is_at(str(BUILTIN_DIRECTORY))
    assert not find("builtin").is_at("someone/something")
    assert find("builtin") == Candidate("builtin", "builtin")
    assert find("someone/something") == Candidate("someone/something", "someone/something")


def test_a_run_stands_for_its_model(run, monkeypatch):
    of_run, of_model = find(str(run)), find(str(run / "model"))
    assert of_run.source == of_model.source == str(run / "model")
    assert of_run.run == of_model.run == RunConfig(reward="length", max_new_tokens=7)
    assert of_run.is_at(str(run / ".." / "run" / "model"))
    assert not of_run.is_at("builtin")
    (run / "adapter").mkdir()
    assert find(str(run / "adapter")).run == of_run.run
    monkeypatch.chdir(run / "model")
    assert find(".").run == of_run.run


def test_a_name_comes_before_a_run_of_that_name(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    run.rename("builtin")
    assert find("builtin").run is None
    assert find("./builtin").run is not None


def test_a_model_that_is_given_twice_has_two_names(run):
    names = ["builtin", str(run), "builtin"]
    found = find_all(names)
    assert [each.name for each in found] == ["builtin (1)", str(run), "builtin (2)"]
    assert [each.source for each in found] == ["builtin", str(run / "model"), "builtin"]


def test_a_directory_beside_a_run_is_not_of_it(run):
    (run / "other").mkdir()
    assert find(str(run / "other")).run is None


def test_a_run_without_a_model(run):
    (run / "model").rmdir()
    with pytest.raises(FileNotFoundError, match="textgym train --resume"):
        find(str(run))


def test_settings_are_the_runs_unless_given(run):
    candidates = [find("builtin"), find(str(run))]
    settled = EvalConfig().settled(candidates)
    assert (settled["reward"], settled["max_new_tokens"]) == ("length", 7)
    settled = EvalConfig(reward="sentiment", max_new_tokens=9).settled(candidates)
    assert (settled["reward"], settled["max_new_tokens"]) == ("sentiment", 9)


def test_without_a_run_the_environment_decides():
    assert EvalConfig().settled([find("builtin")]) == {"task": RunConfig.task}


def test_runs_that_differ(run):
    others = [Candidate("b", "b", RunConfig(reward="sentiment", max_new_tokens=7))]
    candidates = [find(str(run)), *others]
    with pytest.raises(
        ValueError, match=r"reward='length' and b with reward='sentiment'\. Say.*--"
    ):
        EvalConfig().settled(candidates)
    assert EvalConfig(reward="length").settled(candidates)["max_new_tokens"] == 7


def test_texts_are_drawn_as_in_the_run_unless_told(tmp_path):
    drawn = RunConfig(temperature=0.7, top_k=40)
    candidates = [find("builtin"), Candidate("a", "a", drawn)]
    assert EvalConfig().sampling(candidates) == Sampling(0.7, 40, 1.0)
    assert EvalConfig(temperature=1.0, top_k=0, top_p=0.9).sampling(candidates) == Sampling(
        1.0, 0, 0.9
    )
    assert EvalConfig().sampling([find("builtin")]) == Sampling()
    candidates.append(Candidate("b", "b", RunConfig(top_k=40)))
    with pytest.raises(ValueError, match=r"temperature=0\.7 and b with .*=1\.0\. Say with --temp"):
        EvalConfig().sampling(candidates)


def test_the_likeliest_tokens_have_an_option_of_their_own():
    with pytest.raises(ValueError, match=r"above 0, got 0\. .* give --decoding greedy"):
        EvalConfig(temperature=0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ()},
        {"prompts": 0},
        {"samples": 0},
        {"n_envs": 0},
        {"show": -1},
        {"top_p": 0.0},
        {"top_k": -1},
    ],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match=r"must be|at least one|top_k is"):
        EvalConfig(**settings)
