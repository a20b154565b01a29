"""Stable-Baselines3's own callbacks that save, where several processes train together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    ProgressBarCallback,
)

from agents.algorithms.stock_callbacks import those_of_process


@pytest.fixture(scope="module")
def directory(byte_tokenizer, make_llama, tmp_path_factory):
    """Where the program wrote what it found."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("stock")
    make_llama(tie_word_embeddings=True).save_pretrained(path / "model")
    byte_tokenizer.save_pretrained(path / "model")
    program = Path(__file__).with_name("stock_callbacks.py")
    subprocess.run(
        [sys.executable, program, path / "model", path],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return path


def test_the_first_process_evaluates_and_saves_for_all(directory):
    first, second = (json.loads((directory / f"{index}.json").read_text()) for index in range(2))
    assert first["evaluations"] > 2
    assert second["evaluations"] == 0
    assert (directory / "best" / "best_model.zip").is_file()
    with np.load(directory / "best" / "evaluations.npz") as evaluations:
        assert len(evaluations["timesteps"]) == first["evaluations"]
    assert len(list((directory / "every").glob("*.zip"))) > 2


def test_what_the_first_saved_all_can_load(directory):
    for index in range(2):
        told = json.loads((directory / f"{index}.json").read_text())
        assert told["same"]
        assert len(set(told["tokens"])) == 1


def test_a_sharded_policy_that_not_all_save_at_once_is_told(directory):
    told = [(directory / f"sharded-{index}").read_text() for index in range(2)]
    for each in told:
        assert each.startswith("RuntimeError: the processes that train together are at different")
        assert "brings its weights together" in each


def test_who_saves_what(tiny_env):
    evaluates = EvalCallback(tiny_env, best_model_save_path="best", verbose=0)
    logs = EvalCallback(tiny_env, verbose=0)
    saves, other = CheckpointCallback(5, "every"), ProgressBarCallback()
    nested = [evaluates, CallbackList([saves, other])]

    def left(is_first, shards, given):
        found = those_of_process(given, is_first, shards)
        flat = []
        for one in found.callbacks:
            flat += one.callbacks if isinstance(one, CallbackList) else [one]
        return flat

    assert left(True, False, nested) == [evaluates, saves, other]
    assert left(False, False, nested) == [other]
    assert left(False, True, [logs, saves, other]) == [saves, other]
    assert those_of_process(evaluates, False, False) is None
    often = EveryNTimesteps(5, saves)
    assert those_of_process(often, True, False).callback is saves
    assert those_of_process(often, False, False).callback is None
    for is_first in (True, False):
        with pytest.raises(ValueError, match=r"agents\.checkpointing\.Checkpoint"):
            those_of_process(nested, is_first, True)


@pytest.fixture
def tiny_env(tiny_tokenizer_dir):
    from agents import make_sb3_vec_env

    env_kwargs = {"tokenizer": tiny_tokenizer_dir, "task": {"name": "target_token"}}
    return make_sb3_vec_env("TextGen-v0", n_envs=1, env_kwargs=env_kwargs)
