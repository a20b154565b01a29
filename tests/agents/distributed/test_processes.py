"""What a process knows of the others."""

import accelerate.utils
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import TokenDQN, TransformerQPolicy, make_sb3_vec_env
from agents.config import RunConfig
from agents.distributed import processes as module
from agents.distributed.launcher import misunderstandings
from agents.distributed.moments import merged, moments
from agents.distributed.processes import Processes, join
from agents.distributed.run_settings import check_together

LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
LAUNCHED |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def launched(monkeypatch):
    """Be one of two processes of a launcher, as far as its variables go."""
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


def test_alone_everything_is_what_it_was():
    alone = join("cpu")
    assert (alone.index, alone.count, alone.is_first) == (0, 1, True)
    value = object()
    assert alone.gather("is alone", value) == [value]
    assert alone.seed(7) == 7
    assert alone.gather_numbers((1.0, 2.0), torch.device("cpu")).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(("found", "on_cpu"), [("cuda", False), ("cpu", True)])
def test_the_device_is_that_of_the_policy(found, on_cpu, launched, monkeypatch):
    """Where there is a GPU "auto" is one, by which processes speak to each other."""
    monkeypatch.setattr(module, "get_device", lambda asked: torch.device(found))
    monkeypatch.setattr(module, "_joined", lambda on_cpu: on_cpu)
    assert join("auto") is on_cpu


def test_each_process_has_a_seed_of_its_own():
    seeds = {Processes(index, 4).seed(seed) for index in range(4) for seed in range(3)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_processes_at_different_places_are_told_so(monkeypatch):
    told = [("logs", 1), ("collects", [2])]
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda own: told)
    with pytest.raises(RuntimeError, match=r"\['logs', 'collects'\].*same callbacks"):
        Processes(0, 2).gather("logs", 1)


def test_that_another_has_ended_is_said(monkeypatch):
    def gone(own):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")

    monkeypatch.setattr(accelerate.utils, "gather_object", gone)
    with pytest.raises(ConnectionError, match="another of the processes"):
        Processes(0, 2).gather("logs", 1)


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), max_size=6), min_size=1, max_size=4))
def test_moments_of_parts_are_those_of_all(parts):
    arrays = [np.array(part, np.float32) for part in parts]
    every = np.concatenate(arrays)
    found = merged(np.array([moments(array) for array in arrays]))
    if len(every) < 2:
        assert found is None
    else:
        expected = every.mean(dtype=np.float64), every.std(ddof=1, dtype=np.float64)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("told", "part"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "1"}, "--multi_gpu"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "2"}, "--dtype"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "--shard"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "--batch-size"),
    ],
)
def test_what_accelerate_was_told_in_vain_is_said(told, part, monkeypatch):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    (said,) = misunderstandings()
    assert part in said


def test_nothing_is_said_to_who_is_alone():
    assert not list(misunderstandings())


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"algo": "dqn"}, "take ppo"),
        ({"algo": "sb3-ppo"}, "take ppo"),
        ({"device": "cuda:1"}, "auto"),
    ],
)
def test_what_several_cannot_do_is_refused(settings, cure):
    config = RunConfig(**settings)
    check_together(config, 1)
    with pytest.raises(ValueError, match=cure):
        check_together(config, 2)


def test_dqn_is_refused_in_a_script(launched):
    env = make_sb3_vec_env("TextGen-v0", 2)
    with pytest.raises(ValueError, match="TokenDQN trains in one process"):
        TokenDQN(TransformerQPolicy, env)
