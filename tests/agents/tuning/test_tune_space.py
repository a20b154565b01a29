"""What is searched: how it is typed, and what is refused before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.config import RunConfig
from agents.run_file import load_config, save_config
from agents.run_options import given_options, run_options
from agents.tuning.board import Report
from agents.tuning.config import TuneConfig
from agents.tuning.space import Choice, Range, parse_space
from agents.tuning.study import Study
from agents.tuning.trial import Outcome
from textgym.shell import program


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("learning_rate=log:1e-5:1e-3", Range("learning_rate", 1e-5, 1e-3, True)),
        ("n-steps=int:16:64", Range("n_steps", 16, 64, False)),
        ("n_envs=log:8:128", Range("n_envs", 8, 128, True)),
        ("gamma=float:0.9:1", Range("gamma", 0.9, 1.0, False)),
        ("kl_coef=0.01,1e-1", Choice("kl_coef", ("0.01", "1e-1"), (0.01, 0.1))),
        ("algo=ppo, grpo", Choice("algo", ("ppo", "grpo"), ("ppo", "grpo"))),
        ("lora_rank=None,4", Choice("lora_rank", ("None", "4"), (None, 4))),
        ("baseline=true,false", Choice("baseline", ("true", "false"), (True, False))),
        ("temperature=1.0,linear:1.3:0.8", Choice("temperature", ("1.0", "linear:1.3:0.8"),
                                                   (1.0, "linear:1.3:0.8"))),
        (
            'reward=sentiment=1,length=0.1|{"name": "length", "target": 3}',
            Choice(
                "reward",
                ("sentiment=1,length=0.1", '{"name": "length", "target": 3}'),
                ({"sentiment": 1.0, "length": 0.1}, {"name": "length", "target": 3}),
            ),
        ),
        ("stop=.,!", Choice("stop", (".", "!"), ((".",), ("!",)))),
    ],
)  # fmt: skip
def test_settings_have_the_types_of_their_fields(text: str, dimension: Any) -> None:
    (parsed,) = parse_space([text])
    assert parsed == dimension
    assert [*map(type, parsed.ends)] == [*map(type, dimension.ends)]


@pytest.mark.parametrize(
    ("searches", "complaint"),
    [
        ([], "give what is to be searched"),
        (["learning_rat=log:1:2"], "did you mean 'learning_rate'"),
        (["output=a,b"], "output cannot be searched: each trial has a directory of its own"),
        (["shard=true,false"], "shard cannot be searched: a trial is one process"),
        (["keep-checkpoints=int:1:9"], "what is learned does not depend on it"),
        (["device=cpu,cuda"], "device='cuda' wants a GPU, and a trial has none: --gpus-per-trial"),
        (["device=cpu,cudda"], "device='cudda' is none that torch knows"),
        (["eval_every=0,1000"], "eval_every=0 looks at none"),
        (["learning_rate"], "expected a setting and its values"),
        (["learning_rate=log:1e-3:1e-5"], "above 0 and below the second"),
        (["learning_rate=log:0:1"], "above 0 and below the second"),
        (["n_steps=float:1:3"], "n_steps is a whole number: int:1:3"),
        (["n_steps=16:64"], "did you mean n_steps=int:16:64?"),
        (["gamma=0.9:1"], "did you mean gamma=float:0.9:1 or gamma=log:0.9:1?"),
        (["algo=16:64"], "two at least"),
        (["n_steps=int:1"], "a range is int:LOW:HIGH"),
        (["n_steps=int:1:x"], "n_steps is a whole number, got 'x'"),
        (["algo=int:1:3"], "algo is one of"),
        (["kl_coef=a,b"], "kl_coef is a number or null, got 'a'"),
        (["algo=ppo"], "give --algo"),
        (["algo=ppo,a2c", "algo=grpo,rloo"], "more than once"),
        (["group_size=4,8"], "ppo does not take it. It is for --algo or --search algo=grpo,rloo"),
        (["top_p=0.5,2.0"], "top_p must be above 0 and at most 1, got 2.0"),
        (["group_size=5,7", "algo=grpo,rloo"], "no whole groups"),
    ],
)
def test_what_cannot_be_is_refused(searches: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        TuneConfig(search=tuple(searches))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"trials": 0}, "trials must be above 0"),
        ({"cpus_per_trial": 0}, "cpus_per_trial must be above 0"),
        ({"gpus_per_trial": 1.5}, "at most 1, or whole"),
        ({"device": "cuda"}, "--gpus-per-trial 1"),
        ({"device": "cuda:1", "gpus_per_trial": 1.0}, "GPU number 2 of a trial, which has 1"),
        ({"shard": True}, "a trial is one process"),
        ({"loggers": ("stdout",)}, "Give log in place of stdout"),
        ({"eval_every": 0}, "give another metric"),
        ({"group_size": 4}, "ppo do not take it"),
        ({"gamma": 2.0}, "gamma must be from 0 to 1"),
    ],
)
def test_settings_of_the_sweep_are_checked(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TuneConfig(search=("learning_rate=log:1e-5:1e-3",), **settings)


def test_a_trial_with_gpus_may_name_them() -> None:
    searched = TuneConfig(search=("device=auto,cuda:1",), gpus_per_trial=2.0)
    assert [trial.device for trial in searched.examples] == ["auto", "cuda:1"]


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--search", "n_step=int:1:2"]) == 1
    assert "did you mean 'n_steps'" in capsys.readouterr().err
    assert main(["tune", "--search", "n_steps=16,32", "--shard"]) == 1
    assert "a trial is one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("search", "typed", "option"),
    [
        ("learning_rate=log:1e-5:1e-3", ["--learning-rate", "1e-4"], "--learning-rate"),
        ("n-steps=16,32", ["--n_steps=16"], "--n-steps"),
        ("double=true,false", ["--algo=dqn", "--no-double"], "--double"),
    ],
)
def test_what_is_searched_is_not_typed_too(
    search: str, typed: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--search", search, *typed]) == 1
    assert f"{option[2:].replace('-', '_')} is searched; leave out {option}." in (
        capsys.readouterr().err
    )


def test_a_search_comes_over_the_settings_of_a_file(tmp_path: Path) -> None:
    config = TuneConfig(search=("gamma=0.9,1",), gamma=0.5)
    save_config(config, tmp_path / "config.yaml", "tune")
    arguments = ["--config", str(tmp_path / "config.yaml")]
    parsed, _ = run_options(TuneConfig, "tune", arguments, lambda run: None, ("sweep", "trial"))
    parsed.check_not_given(given_options(arguments))
    assert [trial.gamma for trial in parsed.examples] == [0.9, 1.0]


@pytest.mark.parametrize(("asked", "own"), [("tune", "train"), ("train", "tune")])
@pytest.mark.parametrize("option", ["--resume", "--config"])
def test_a_run_of_another_command_is_given_to_that(
    asked: str, own: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = {"train": RunConfig(), "tune": TuneConfig(search=("gamma=0.9,1",))}
    save_config(configs[own], tmp_path / "config.yaml", own)
    given = tmp_path if option == "--resume" else tmp_path / "config.yaml"
    assert main([asked, option, str(given)]) == 1
    said = capsys.readouterr().err
    assert said.endswith(f"Give it to that one: {program()} {own} {option} {given}\n")


def test_help_shows_the_options_of_the_sweep_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    sweep, trial = capsys.readouterr().out.partition("sweep options")[2].split("trial options")
    assert all(option in sweep for option in ("--output DIR", "--search", "--retries INT"))
    assert all(option in trial for option in ("--total-timesteps INT", "--algo", "--quiet"))


def test_options_come_over_those_of_a_file(tmp_path: Path) -> None:
    config = TuneConfig(search=("n_steps=16,32",), trials=3, algo="a2c", loggers=())
    save_config(config, tmp_path / "config.yaml", "tune")
    arguments = ["--config", str(tmp_path / "config.yaml"), "--search", "seed=1,2", "--gamma", "1"]
    parsed, resumed = run_options(
        TuneConfig, "tune", arguments, lambda run: None, titles=("sweep", "trial")
    )
    assert not resumed
    assert parsed == replace(config, search=("n_steps=16,32", "seed=1,2"), gamma=1.0)


def test_a_trial_has_only_settings_that_its_algorithm_takes(tmp_path: Path) -> None:
    config = TuneConfig(search=("algo=ppo,grpo", "n_steps=16,24"), n_steps=8, group_size=4)
    assert config.run_config({"algo": "grpo"}) == RunConfig(algo="grpo", group_size=4)
    drawn = config.run_config({"algo": "ppo", "n_steps": 24}, tmp_path)
    assert drawn == RunConfig(algo="ppo", n_steps=24, output=tmp_path)
    study = Study(config, tmp_path)
    tried = [study.values(study.begin()) for _ in range(study.left)]
    assert tried == [
        {"algo": "ppo", "n_steps": 16},
        {"algo": "ppo", "n_steps": 24},
        {"algo": "grpo"},
    ]


def test_a_sweep_repeats_from_its_file(tmp_path: Path) -> None:
    config = TuneConfig(
        search=("learning_rate=log:1e-5:1e-3", "algo=ppo,grpo"), trials=3, group_size=4, seed=5
    )
    save_config(config, tmp_path / "config.yaml", "tune")
    assert load_config(tmp_path / "config.yaml", TuneConfig, "tune") == config
    with pytest.raises(ValueError, match="the run file of textgym tune"):
        load_config(tmp_path / "config.yaml")


@pytest.fixture
def ranged() -> TuneConfig:
    return TuneConfig(search=("learning_rate=log:1e-5:1e-3",), trials=12)


def test_a_study_that_was_killed_goes_on(tmp_path: Path, ranged: TuneConfig) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    study = Study(ranged, whole)
    drawn = [study.values(study.begin()) for _ in range(3)]
    assert len({each["learning_rate"] for each in drawn}) == 3
    study = Study(ranged, cut)
    study.begin()
    study = Study(ranged, cut)
    assert (study.unfinished, study.left) == ([0], 11)
    assert [study.values(0)] + [study.values(study.begin()) for _ in range(2)] == drawn
    study.end(1, Outcome("done", 0.5, 100))
    assert study.died(2) == 1
    study = Study(replace(ranged, trials=4), cut)
    assert (study.unfinished, study.left) == ([0, 2], 1)
    assert study.records[1].outcome == Outcome("done", 0.5, 100)
    assert study.records[2].deaths == 1


def test_what_is_worse_than_half_of_the_others_is_pruned(
    tmp_path: Path, ranged: TuneConfig
) -> None:
    study = Study(ranged, tmp_path)
    for score in (0.1, 0.2, 0.3, 0.4):
        number = study.begin()
        assert not any(study.hear(Report(number, 0, score, look)) for look in (1, 2, 3))
        study.end(number, Outcome("done", score, 100))
    number = study.begin()
    assert not study.hear(Report(number, 0, 0.0, 1))  # it may yet come
    assert study.hear(Report(number, 0, 0.24, 2))
    better = study.begin()
    assert not study.hear(Report(better, 0, 0.26, 2))
    patient = Study(replace(ranged, prune=False), tmp_path)
    assert not patient.hear(Report(number, 0, 0.0, 3))
