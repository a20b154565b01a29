"""Settings of files, of the command line and of Python work, or are refused at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import TokenDQN, TokenPPO, TransformerPolicy, TransformerQPolicy, make_sb3_vec_env
from agents.algorithms.grpo import GRPO
from agents.cli import main
from agents.config import RunConfig
from agents.pipeline import PipelineConfig, run_pipeline
from agents.run_file import load_config, read_settings

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{later}: &{later} [{', '.join([f'*{earlier}'] * 9)}]\n"
    for earlier, later in zip("abcdef", "bcdefg", strict=True)
)

REFUSED_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "expected a mapping of settings, such as 'seed: 1', got None"),
    "a comment": ("# nothing\n", "got None"),
    "a list": ("- seed\n- 1\n", "expected a mapping"),
    "a word": ("hello", "expected a mapping"),
    "half a mapping": ("{", "not valid YAML"),
    "tabs": ("\tseed: 1", "cannot start any token"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "expected a single document"),
    "a name twice": ("seed: 1\nreward: length\nseed: 2\n", "found 'seed' more than once"),
    "twice inside": ("reward: {length: 1, length: 2}", "found 'length' more than once"),
    "a list as a name": ("[1, 2]: 3", "unhashable key"),
    "latin": ("model: café".encode("latin1"), "not valid YAML: 'utf-8' codec"),
    "UTF-16": ("seed: 1".encode("utf-16"), "not valid YAML"),
    "NUL": ("seed: \0", "special characters are not allowed"),
    "Python": ("reward: !!python/object/apply:os.mkdir [executed]", "not valid YAML: could not"),
    "a Python name": ("reward: !!python/name:os.mkdir", "not valid YAML: could not"),
    "a list in itself": ("reward: &a [*a]", "an anchor .* inside of what it stands for"),
    "a mapping in itself": ("reward: &a {length: *a}", "an anchor"),
    "a bomb": (BOMB, "holds more than 100,000 values"),
    "deep": ("reward: " + "[" * 1500, "not valid YAML: maximum recursion"),
    "digits": ("seed: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
    "huge": ("model: '" + "x" * 1_000_000 + "'", "holds 1,000,009 bytes, .* Is it the right file"),
    "unknown": ("n_env: 1", "no setting 'n_env'; did you mean 'n_envs'"),
    "a number as a name": ("1: 2", "no setting 1"),
    "a string": ("n_envs: '8'", "n_envs is a whole number, got '8'"),
    "a float": ("n_envs: 8.0", "n_envs is a whole number, got 8.0"),
    "true": ("n_envs: true", "n_envs is a whole number, got True"),
    "a quoted no": ("budget_is_terminal: 'no'", "true or false, got 'no'"),
    "a date": ("model: 2020-01-01", "model is a string"),
    "no list": ("stop: .", r"Write stop: \[.\]"),
    "nan": ("learning_rate: .nan", "learning_rate: expected a finite number, got nan"),
    "infinite": ("kl_coef: .inf", "kl_coef must be a finite number, got inf"),
    "seed": ("seed: 4294967296", "seed must be from 0 to 4294967295, got 4294967296"),
    "another command": ("command: sft", "run file of textgym sft"),
}


@pytest.mark.parametrize("kind", REFUSED_FILES)
def test_run_files_are_refused_with_the_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, message = REFUSED_FILES[kind]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ValueError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert main(["train", "--config", str(path)]) == 1
    assert "textgym train: " in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [path]  # nothing was executed, and nothing begun


def test_run_files_may_have_anchors_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfstop: &ends ['.']\r\nseed: 0x10\r\ntemplates: *ends\r\n")
    assert read_settings(path) == {"stop": ["."], "seed": 16, "templates": ["."]}
    path.write_text("one: &one {a: 1}\nother: {<<: *one, a: 2}\n")
    assert read_settings(path)["other"] == {"a": 2}


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=3,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(RunConfig.__dataclass_fields__)), value=yaml_values)
def test_any_setting_of_a_file_is_taken_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    import yaml

    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({name: value}), encoding="utf-8")
    try:
        config = load_config(path)
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert len(str(error)) > 15  # noqa: PT017  # that it may be refused is the point
        return
    assert getattr(config, name) is not None or value is None


OF_PYTHON: dict[str, list[Any]] = {
    "n_envs": [True, "8", 8.0, None],
    "seed": [True, 1.5, "1", -1],
    "model": [5, None],
    "output": [5],
    "stop": [".", [1]],
    "vocabulary": ["king", [1]],
    "templates": ["{prompt}"],
    "budget_is_terminal": ["no", 0, None],
    "timing": ["late", None],
    "algo": ["pppo", None],
    "gamma": ["1", True, 2, math.nan],
    "learning_rate": ["fast", True, math.nan],
    "sft_corpus": ["texts.txt"],
}


@pytest.mark.parametrize("name", OF_PYTHON)
def test_settings_of_python_are_refused_as_those_of_files_are(name: str) -> None:
    for value in OF_PYTHON[name]:
        with pytest.raises((TypeError, ValueError), match=rf"{name}( is|:| must be) .*"):
            RunConfig(**{name: value})
    with pytest.raises(TypeError, match=r"algo is one of 'ppo', 'a2c', .*, got 'pppo'"):
        RunConfig(algo="pppo")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward", "{"], "is no JSON"),
        (["--reward", "[" * 10**5], "is no JSON"),
        (["--reward", "lenght"], "did you mean 'length'"),
        (["--task", '{"name": "file", "path": "no.txt"}'], "there is no file no.txt"),
        (["--vocabulary", "no.txt"], "vocabulary: there is no file 'no.txt'"),
        (["--templates", "no.txt"], "there is no file no.txt"),
        (["--model", ""], "a model is a name, a directory, a file or a hub id, got ''"),
        (["--model", "no-such-model"], "no model 'no-such-model'"),
        (["--seed", "4294967296"], "seed must be from 0 to 4294967295"),
        (["--vf-coef", "inf"], "vf_coef must be a finite number, got inf"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--context-length", "33"], "Give context_length="),
        (["--algo", "grpo", "--n-envs", "1"], "no whole groups of group_size=8"),
        (["--algo", "grpo", "--n-episodes", "4"], "Give n_episodes=8"),
        (["--n-envs", "1", "--n-steps", "1"], "n_envs * n_steps must be above 1, got 1"),
        (["--max-new-tokens", "0"], "max_new_tokens must be above 0, got 0"),
        (["--total-timestep", "5"], "Perhaps you meant"),
    ],
)
def test_commands_are_refused_before_anything_is_made(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "300")
    try:
        code: Any = main(["train", "--output", "out", "--device", "cpu", *options])
    except SystemExit as exit_:
        code = exit_.code
    assert code in (1, 2)
    told = capsys.readouterr()
    assert message in " ".join((told.err + told.out).split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("- train: {reward: lenght}", r"stage 2 \(train\): no reward named 'lenght'"),
        ("- train: {model: no-such-model}", r"stage 2 \(train\): no model 'no-such-model'"),
        ("- sft: {task: {name: file, path: no.txt}}", r"stage 2 \(sft\): there is no file"),
        ("- train: {reward: length, reward: eos}", "found 'reward' more than once"),
        ("- null", "stage 2: expected one command"),
    ],
)
def test_later_stages_are_checked_before_the_first_begins(
    stages: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"output: {tmp_path}/out\nstages:\n- train: {{device: cpu}}\n{stages}\n")
    with pytest.raises(ValueError, match=message):
        run_pipeline(PipelineConfig(path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["''", "/dev/null", "5", "[a]"])
def test_outputs_of_pipelines_are_directories(output: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"output: {output}\nstages:\n- train: {{device: cpu, reward: length}}\n")
    with pytest.raises(ValueError, match=r"output"):
        run_pipeline(PipelineConfig(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "no text in a column 'text'"),
        ('{"text": 5}', "line 1: expected the text to be a string, got 5"),
        (r'{"text": "\ud800"}', "line 1: the text .* half a surrogate pair"),
        ('{"text": "a", "prompt": 5}', "line 1: expected the prompt"),
    ],
)
def test_texts_to_score_are_refused(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(line, encoding="utf-8")
    assert main(["score", str(path), "--reward", "length"]) == 1
    import re

    assert re.search(message, capsys.readouterr().err)


ALGORITHM: dict[str, list[Any]] = {
    "n_steps": [0, -1, 1.5, True, "4", math.nan, math.inf],
    "n_episodes": [0, -1, 1.5, True],
    "batch_size": [0, -1, "4"],
    "n_epochs": [0, 1.5],
    "gamma": [math.nan, 2, -1, "1"],
    "gae_lambda": [math.nan, 2],
    "clip_range": [math.nan, -1, 0],
    "ent_coef": [math.nan, math.inf, -1, "0"],
    "vf_coef": [math.nan, math.inf, -1],
    "max_grad_norm": [math.nan, 0, -1, "1"],
    "learning_rate": [math.nan, math.inf, -1, "1e-4"],
    "target_kl": [math.nan, math.inf, 0, -1],
    "kl_coef": [math.nan, math.inf, -1],
    "target_kl_ref": [math.nan, -1, 0.1],
    "temperature": [0.0, math.nan, math.inf, "1"],
    "seed": [-1, 2**32, 1.5, "x", True],
    "micro_batch_tokens": [0, -1, True],
    "policy_kwargs": [{"lora": 5}, {"model": ""}, {"model": 5}, {"model": None}],
}
CASES = [(name, value) for name, values in ALGORITHM.items() for value in values]


@pytest.fixture(scope="module")
def env() -> Any:
    return make_sb3_vec_env("TextGen-v0", 2, env_kwargs={"reward": "length", "max_new_tokens": 3})


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{n}={v!r}"[:50] for n, v in CASES])
def test_arguments_of_algorithms_are_refused_at_once(env: Any, name: str, value: Any) -> None:
    given_ = {"device": "cpu", "n_steps": 4, name: value}
    with pytest.raises((ValueError, TypeError)) as caught:
        TokenPPO(TransformerPolicy, env, **given_)
    told = str(caught.value)
    assert name in told or "lora is True" in told or "a model is a name" in told
    assert "got" in told or "try kl_coef" in told


def test_no_environment_is_refused() -> None:
    with pytest.raises(TypeError, match=r"needs an environment, got None. Give for instance"):
        TokenPPO(TransformerPolicy, None)  # type: ignore[arg-type]


def test_fewer_texts_than_a_group_are_refused(env: Any) -> None:
    for given_ in ({}, {"n_episodes": 3}, {"n_episodes": 4, "group_size": 3}):
        with pytest.raises(ValueError, match=r"no whole groups of group_size=.*Give n_episodes="):
            GRPO(TransformerPolicy, env, device="cpu", **given_)  # type: ignore[arg-type]


OF_DQN: dict[str, list[Any]] = {
    "train_freq": [0, -1, (0, "step"), "x", math.nan],
    "buffer_size": [0, 2.5],
    "batch_size": [0, True],
    "sequence_length": [0, 1.5, 10**6],
    "tau": [math.nan, 2],
    "gamma": [math.nan],
    "epsilon": [math.nan, 2, "x"],
    "learning_rate": [math.nan, -1],
    "learning_starts": [-1, math.inf],
    "target_update_interval": [0],
    "max_grad_norm": [0, math.nan],
}


@pytest.mark.parametrize("name", OF_DQN)
def test_arguments_of_dqn_are_refused_at_once(env: Any, name: str) -> None:
    for value in OF_DQN[name]:
        with pytest.raises((ValueError, TypeError), match=rf"{name} (must be|is) .*got"):
            TokenDQN(TransformerQPolicy, env, device="cpu", **{name: value})
