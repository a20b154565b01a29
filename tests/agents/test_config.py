"""The settings of a run: typed, saved, and read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tyro
import yaml

from agents.config import RunConfig
from agents.run_file import load_config, save_config
from agents.specs import parse_spec


def parse(arguments: list[str]) -> RunConfig:
    return tyro.cli(RunConfig, args=arguments)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sentiment", "sentiment"),
        ("my_rewards:score", "my_rewards:score"),
        ("sentiment=1,length=0.1", {"sentiment": 1.0, "length": 0.1}),
        ('{"name": "length", "target": 20}', {"name": "length", "target": 20}),
        ('["length", "sentiment"]', ["length", "sentiment"]),
    ],
)
def test_a_reward_is_read_as_people_type_it(typed: str, meant: object) -> None:
    assert parse_spec(typed) == meant
    assert parse(["--reward", typed]).reward == meant


def test_every_field_is_an_option_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(RunConfig):
        assert f"--{field.name.replace('_', '-')}" in shown
    assert "help" not in [field.name for field in dataclasses.fields(RunConfig)]


def test_a_saved_config_reads_back_equal(tmp_path: Path) -> None:
    config = RunConfig(
        model="-m",
        task={"name": "file", "path": "a b.txt"},
        reward={"sentiment": 1.0, "length": {"target": 4, "weight": 0.5}},
        stop=("--", "\n", "-x"),
        budget_is_terminal=False,
        learning_rate=1e-4,
        target_kl=0.5,
        context_length=99,
        output=tmp_path,
    )
    path = tmp_path / "config.yaml"
    save_config(config, path)
    assert load_config(path) == dataclasses.replace(config, output=None)


def test_defaults_read_back_equal(tmp_path: Path) -> None:
    save_config(RunConfig(), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == RunConfig()
    (tmp_path / "empty.yaml").write_text("learning_rate: 3e-4\n")
    assert load_config(tmp_path / "empty.yaml") == RunConfig(learning_rate=3e-4)


def test_options_beside_a_config_have_the_last_word(tmp_path: Path) -> None:
    save_config(RunConfig(seed=5, stop=(".",), budget_is_terminal=False), tmp_path / "c.yaml")
    arguments = ["--seed", "6", "--stop", "!", "--budget-is-terminal"]
    changed = tyro.cli(RunConfig, default=load_config(tmp_path / "c.yaml"), args=arguments)
    assert (changed.seed, changed.stop, changed.budget_is_terminal) == (6, ("!",), True)
    assert tyro.cli(RunConfig, default=load_config(tmp_path / "c.yaml"), args=[]).seed == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("total_timestep: 5", "did you mean 'total_timesteps'"),
        ("- 1\n- 2", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("", "expected a mapping"),
        ("1: 2", "no setting 1"),
        ("n_envs: many", "n_envs is a whole number, got 'many'"),
        ("n_envs: [3]", "n_envs is a whole number"),
        ("n_envs: true", "n_envs is a whole number"),
        ("model: null", "model is a string, got None"),
        ("templates: abc", "templates is a list of strings"),
        ("stop: abc", "stop is a list of strings"),
        ("algo: sac", "algo is one of 'ppo', 'a2c', .*, got 'sac'"),
        ("target_kl: often", "target_kl is a number or null"),
        ("learning_rate: fast", "learning_rate: 'fast' is no number and no schedule"),
        ("budget_is_terminal: 1", "budget_is_terminal is true or false"),
    ],
)
def test_a_bad_config_file_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(path)


def test_a_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("total_timesteps", 0),
        ("n_envs", -1),
        ("learning_rate", 0.0),
        ("gamma", 1.5),
        ("gae_lambda", -0.1),
        ("eval_prompts", 0),
        ("clip_range", -1.0),
        ("target_kl", 0.0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_name_the_setting(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .*got {value}"):
        RunConfig(**{field: value})


def test_a_batch_that_does_not_divide_the_rollout_names_one_that_does() -> None:
    with pytest.raises(ValueError, match="Give batch_size=192"):
        RunConfig(algo="sb3-ppo", n_envs=60, n_steps=16, batch_size=200)
    with pytest.raises(ValueError, match="above 1"):
        RunConfig(algo="sb3-ppo", n_envs=1, n_steps=1)
    small = RunConfig(algo="sb3-ppo", n_envs=2, n_steps=4)
    assert small.algorithm_kwargs()["batch_size"] == 8


def test_the_file_is_plain_yaml(tmp_path: Path) -> None:
    save_config(RunConfig(), tmp_path / "config.yaml")
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert "output" not in values
    assert values["reward"] is None
