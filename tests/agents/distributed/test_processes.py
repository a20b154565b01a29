"""What a process knows of the others."""

from datetime import timedelta
from types import SimpleNamespace

import accelerate
import accelerate.utils
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import DistBackendError, DistStoreError

from agents import TokenDQN, TransformerQPolicy, make_sb3_vec_env
from agents.config import RunConfig
from agents.devices import check_gpus, own_gpu
from agents.distributed import processes as module
from agents.distributed.launcher import misunderstandings
from agents.distributed.moments import merged, moments
from agents.distributed.processes import Processes, join, leave
from agents.distributed.run_settings import check_together

LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
LAUNCHED |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def launched(monkeypatch):
    """Be one of two processes of a launcher, as far as its variables go."""
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def begun(launched, monkeypatch):
    """What accelerate is asked for, and how many processes it then finds."""
    seen = SimpleNamespace(found=2)

    def state(**asked):
        seen.asked = asked
        return SimpleNamespace(process_index=1, num_processes=seen.found)

    monkeypatch.setattr(accelerate, "PartialState", state)
    monkeypatch.setattr(module, "get_device", torch.device)
    module._joined.cache_clear()
    yield seen
    module._joined.cache_clear()


def test_alone_everything_is_what_it_was():
    alone = join("cpu")
    assert (alone.index, alone.count, alone.is_first) == (0, 1, True)
    value = object()
    assert alone.gather("is alone", value) == [value]
    assert alone.seed(7) == 7
    assert alone.gather_numbers((1.0, 2.0), torch.device("cpu")).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(("found", "on_cpu"), [("cuda:0", False), ("cpu", True)])
def test_the_device_is_that_of_the_policy(found, on_cpu, begun, monkeypatch):
    """Where there is a GPU "auto" is one, by which processes speak to each other."""
    monkeypatch.setattr(module, "get_device", lambda asked: torch.device(found))
    joined = join("auto")
    assert (joined.index, joined.count) == (1, 2)
    assert begun.asked == {"cpu": on_cpu, "timeout": timedelta(hours=1)}


@pytest.mark.parametrize(
    ("device", "local_rank", "cure"), [("cuda", None, "SLURM_LOCALID"), ("mps", "1", "device cpu")]
)
def test_nobody_trains_a_model_of_its_own(device, local_rank, cure, begun, monkeypatch):
    begun.found = 1
    monkeypatch.delenv("LOCAL_RANK")
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(ValueError, match=cure):
        join(device)


def test_those_begun_anew_do_not_meet_those_before_them(begun, monkeypatch):
    """torchrun's store is the same, with what those wrote of themselves."""
    store = torch.distributed.HashStore()
    store.set("0", "of the first that ended")
    monkeypatch.setattr(module, "rendezvous", lambda url, timeout: iter([(store, 1, 2)]))
    for name, value in {"TORCHELASTIC_RESTART_COUNT": "1", "GROUP_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    join("cpu")
    own = begun.asked["store"]
    assert not own.check(["0"])
    own.set("0", "of the first")
    assert store.get("0") == b"of the first that ended"
    assert (begun.asked["rank"], begun.asked["world_size"]) == (1, 2)


def test_patience_can_be_chosen(begun, monkeypatch):
    monkeypatch.setenv("TEXTGYM_DIST_TIMEOUT_SEC", "7200")
    join("cpu")
    assert begun.asked["timeout"] == timedelta(hours=2)


@pytest.mark.parametrize("seconds", ["", "0", "-1", "1h"])
def test_patience_is_a_number(seconds, begun, monkeypatch):
    monkeypatch.setenv("TEXTGYM_DIST_TIMEOUT_SEC", seconds)
    with pytest.raises(ValueError, match=f"at least 1, got '{seconds}'"):
        join("cpu")


@pytest.mark.parametrize(
    ("name", "device", "cure"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "cpu", "trained on one device give --shard"),
        ("ACCELERATE_USE_CPU", "cuda", "--device cpu"),
    ],
)
def test_what_accelerate_cannot_have_is_refused(name, device, cure, monkeypatch):
    monkeypatch.setattr(module, "get_device", torch.device)
    monkeypatch.setenv(name, "True")
    with pytest.raises(ValueError, match=cure):
        join(device)


def test_on_a_cpu_accelerate_may_be_told_so(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert join("cpu").count == 1


@pytest.mark.parametrize(
    ("local_rank", "gpus", "own"), [(0, 4, 0), (3, 4, 3), (3, 1, 0), (3, 2, 1), (3, 0, None)]
)
def test_each_process_has_a_gpu(local_rank, gpus, own, launched, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert own_gpu() == own


def test_who_is_alone_takes_any_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_gpu() is None


def test_more_processes_than_gpus_are_refused(begun, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="--nproc-per-node 2"):
        join("cuda")
    assert join("cpu").count == 2
    for gpus in (1, 3):  # one each, or one that each was given
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        check_gpus()


def test_leaving_is_for_those_who_joined(monkeypatch):
    left = []
    monkeypatch.setattr(module.distributed, "destroy_process_group", lambda: left.append(True))
    leave()
    assert not left
    monkeypatch.setattr(module.distributed, "is_initialized", lambda: True)
    leave()
    assert left


def test_each_process_has_a_seed_of_its_own():
    seeds = {Processes(index, 4).seed(seed) for index in range(4) for seed in range(3)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_processes_at_different_places_are_told_so(monkeypatch):
    told = [("logs", 1), ("collects", [2])]
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda own: told)
    with pytest.raises(RuntimeError, match=r"\['logs', 'collects'\].*same callbacks"):
        Processes(0, 2).gather("logs", 1)


GLOO = "[gloo/transport/tcp/pair.cc:1] "
NCCL = "NCCL error in: NCCLUtils.hpp:1, {}, NCCL version 2.27.5\n{}\nLast error:\n{}"


@pytest.mark.parametrize(
    ("kind", "cause", "reason", "said"),
    [
        (RuntimeError, GLOO + "Connection closed by peer [::1]:1", ConnectionError, "has ended"),
        (
            RuntimeError,
            GLOO + "Read error [::1]:1: Connection reset by peer",
            ConnectionError,
            "has ended",
        ),
        (
            DistBackendError,
            NCCL.format("remote process exited", "ncclRemoteError: ...", ""),
            ConnectionError,
            "has ended",
        ),
        (
            RuntimeError,
            GLOO + "Timed out waiting 5000ms for recv operation to complete",
            TimeoutError,
            r"too long .*logs.*TEXTGYM_DIST_TIMEOUT_SEC",
        ),
        (
            DistStoreError,
            "Timed out after 5 seconds waiting for clients. 1/2 clients joined.",
            TimeoutError,
            "too long",
        ),
        (
            DistBackendError,
            NCCL.format(
                "invalid usage", "ncclInvalidUsage: ...", "Duplicate GPU detected : rank 1 and ..."
            ),
            ValueError,
            "--nproc-per-node",
        ),
    ],
)
def test_why_processes_part_is_said(kind, cause, reason, said, monkeypatch):
    def fail(own):
        raise kind(cause)

    monkeypatch.setattr(accelerate.utils, "gather_object", fail)
    with pytest.raises(reason, match=said) as raised:
        Processes(0, 2).gather("logs", 1)
    first_line = cause.splitlines()[0]
    assert str(raised.value).endswith(f"({first_line})")


@pytest.mark.parametrize(
    "error",
    [
        DistBackendError(
            NCCL.format("unhandled cuda error", "ncclUnhandledCudaError", "no memory")
        ),
        RuntimeError("the handler timed out"),  # of a reward, say: not theirs
    ],
)
def test_what_is_not_understood_is_left_as_it_is(error, monkeypatch):
    def fail(tensor):
        raise error

    monkeypatch.setattr(module.distributed, "all_reduce", fail)
    with pytest.raises(type(error)) as raised:
        Processes(0, 2).sum(torch.ones(1))
    assert raised.value is error


def test_that_another_has_ended_is_said_of_weights(monkeypatch):
    def gone(tensor, source):
        raise RuntimeError(GLOO + "Connection closed by peer")

    monkeypatch.setattr(module.distributed, "broadcast", gone)
    with pytest.raises(ConnectionError, match="has ended"):
        Processes(0, 2).share(torch.nn.Linear(1, 1))


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
