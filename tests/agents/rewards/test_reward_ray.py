"""A score in Ray actors: the same numbers, and what happens when one dies."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray

from agents.rewards import ray_actor
from agents.rewards.ray_actor import RayScore, _Scorer
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.rewards import RewardError, make_score
from textgym.rewards.base import RemoteScore


def sample(text: str, **fields: Any) -> Sample:
    return Sample("Once", text, None, [], {})._replace(**fields)


pytestmark = pytest.mark.usefixtures("local_ray", "_by_value")


@pytest.fixture(scope="module")
def _by_value() -> Iterator[None]:
    """Classes of this file are sent whole: actors cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


TEXTS = [sample(text) for text in ("good", "bad", "", "so so", "good")]


def free_cpus() -> float:
    return ray.available_resources().get("CPU", 0.0)


def eventually(check: Any) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


class Diary:
    """A score that notes in a file what it is asked, and by which process."""

    text_only = True
    success_threshold = 3.0

    def __init__(self, path: str, delay: float = 0.0) -> None:
        self.path, self.delay = path, delay

    def score(self, samples: Any) -> list[float]:
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()} {' '.join(s.text for s in samples)}\n")
        time.sleep(self.delay)
        if any(s.text == "quit" for s in samples):
            raise ArithmeticError("I quit")
        return [float(len(s.text)) for s in samples]


def entries(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_scores_are_those_of_the_reward() -> None:
    reward = make_score({"name": "ray", "reward": "sentiment"})
    assert isinstance(reward, RemoteScore)
    assert (reward.text_only, reward.score_range) == (True, (-1.0, 1.0))
    assert reward.score(TEXTS) == make_score("sentiment").score(TEXTS)
    future = reward.submit(TEXTS[:1])
    assert isinstance(future, Future)
    assert future.result(30) == make_score("sentiment").score(TEXTS[:1])


def test_environments_share_the_actors_and_leave_none_behind(tmp_path: Path) -> None:
    eventually(lambda: free_cpus() == 2)
    path = tmp_path / "diary"
    diary = Diary(str(path))
    first = RayScore(diary, actors=2)
    second = make_score({"name": "ray", "reward": diary, "actors": 2})
    assert copy.deepcopy(first) is first
    again = pickle.loads(pickle.dumps(first))
    for reward in (first, second, again):
        futures = [reward.submit([sample("a" * i)]) for i in range(3)]
        assert [f.result(30) for f in futures] == [[0.0], [1.0], [2.0]]
    assert len({process for process, *_ in entries(path)}) == 2
    eventually(lambda: free_cpus() == 0)
    del first, second, again, reward, futures
    gc.collect()
    eventually(lambda: free_cpus() == 2)


def test_an_actor_that_is_killed_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    reward = RayScore(Diary(str(path), delay=0.3), num_cpus=0)
    futures = [reward.submit([sample("a" * i)]) for i in range(1, 4)]
    eventually(path.exists)
    [[killed, *_]] = entries(path)
    os.kill(int(killed), signal.SIGKILL)
    assert [future.result(60) for future in futures] == [[1.0], [2.0], [3.0]]
    noted = entries(path)
    assert sorted(text for process, text in noted if process != killed) == ["a", "aa", "aaa"]


def test_an_actor_that_dies_too_often_is_an_error(tmp_path: Path) -> None:
    reward = RayScore(Fatal(), num_cpus=0, max_restarts=1)
    with pytest.raises(RewardError, match="'ray' lost its actor: ") as caught:
        reward.score([sample("a")])
    assert caught.value.sample.text == "a"


class Fatal:
    def score(self, samples: Any) -> list[float]:
        os._exit(1)


def test_texts_are_asked_once_and_what_is_raised_there_comes_out_here(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    reward = RayScore(Diary(str(path)), num_cpus=0)
    assert reward.text_only
    assert reward.success_threshold == 3.0
    columns = {"level": [1]}
    samples = [sample(text, token_ids=[i], columns=columns) for i, text in enumerate("aba")]
    assert reward.score(samples) == [1.0, 1.0, 1.0]
    assert entries(path)[0][1:] == ["a", "b"]
    with pytest.raises(RewardError, match="'Diary' raised ArithmeticError: I quit") as caught:
        reward.score([sample("a"), sample("quit")])
    assert caught.value.__cause__ is not None
    assert reward.score([sample("fine")]) == [4.0]
    wrong = RayScore({"name": "sentiment", "wanted": "x"}, num_cpus=0)
    with pytest.raises(RewardError, match="'ray' raised ValueError there: sentiment: wanted is"):
        wrong.score([sample("a")])


def test_more_than_the_cluster_has_is_told() -> None:
    reward = RayScore("sentiment", num_gpus=1, start_timeout=0.5)
    with pytest.raises(
        RewardError, match=r"Wanted: 1 x \(num_cpus=1, num_gpus=1\); .* 0 of 0 GPUs"
    ):
        reward.score([sample("a")])


def test_room_in_a_cluster_is_waited_for_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actor, "_QUIET", 0.1)
    reward = RayScore("sentiment", num_gpus=1, start_timeout=0.3)
    with (
        pytest.warns(UserWarning, match=r"is waiting for its actors, up to 0.3 s.* 0 of 0 GPUs"),
        pytest.raises(RewardError, match=r"after 0.3 s not all are there"),
    ):
        reward.score([sample("a")])


@pytest.mark.parametrize("wanted", [{"num_gpus": 0.5}, {"actors": 3}])
def test_what_this_machine_has_not_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    monkeypatch.setattr(ray_actor, "_OURS", {ray.get_runtime_context().get_node_id()})
    with pytest.raises(RewardError, match=r"wanted: .* this machine has 2 CPUs and 0 GPUs"):
        RayScore("sentiment", **wanted).score([sample("a")])


def test_an_actor_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    handle = ray.remote(Diary).options(name="diary", num_cpus=0).remote(str(path))
    for given in (handle, "diary"):
        reward = RayScore(actor=given, text_only=True)
        assert reward.score([sample("abc"), sample("")]) == [3.0, 0.0]
    assert not RayScore(actor="diary").text_only
    with pytest.raises(RewardError, match="'ray' raised ArithmeticError there: I quit"):
        reward.score([sample("quit")])
    address = ray.get_runtime_context().gcs_address
    with pytest.raises(
        RewardError,
        match=rf"no 'nobody' in this process's own .* {address}.* 'diary' in namespace .*Give",
    ):
        RayScore(actor="nobody").score([sample("a")])
    few = ray.remote(TooFew).options(num_cpus=0).remote()
    with pytest.raises(RewardError, match=r"got \[\] of its actor; expected a list of 1 numbers"):
        RayScore(actor=few).score([sample("a")])


class TooFew:
    def score(self, samples: Any) -> list[float]:
        return []


def test_where_no_actor_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: [])
    reward = RayScore(actor="nobody", namespace="there")
    with pytest.raises(RewardError, match=r"namespace 'there' of .*lifetime='detached'"):
        reward.score([sample("a")])
    monkeypatch.setattr(ray_actor, "_OURS", {ray.get_runtime_context().get_node_id()})
    with pytest.raises(RewardError, match=r"started here just now; give the address"):
        reward.score([sample("a")])


def test_in_worker_processes_of_sb3(local_ray: str) -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    make = partial(gym.make, "textgym:TextGen-v0", max_new_tokens=4)
    spec = {"name": "ray", "reward": "sentiment", "address": local_ray, "num_cpus": 0}
    spawned = SubprocVecEnv([partial(make, reward=spec)], start_method="spawn")
    at_home = DummyVecEnv([partial(make, reward="sentiment")])
    paid = []
    for envs in (spawned, at_home):
        envs.seed(0)
        envs.reset()
        tokens = make().unwrapped.tokenizer.encode_plain(" good bad")
        paid.append([envs.step(np.array([t]))[1].tolist() for t in tokens[:4]])
        envs.close()
    assert paid[0] == paid[1]
    assert np.abs(paid[0]).sum() > 0


def _score_in_fork(answer: Any) -> None:
    try:
        RayScore("sentiment").score([sample("a")])
    except RewardError as error:
        answer.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_a_connected_process_is_told_what_to_do() -> None:
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=_score_in_fork, args=(answer,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert "forked off one that is connected to Ray" in answer.get()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "give the reward that is scored elsewhere"),
        ({"reward": "sentiment", "actor": "diary"}, "give the reward"),
        ({"reward": "sentimental"}, "did you mean 'sentiment'"),
        ({"reward": "sentiment", "actors": 0}, "actors is a whole number of at least 1"),
        ({"reward": "sentiment", "num_gpus": -1}, "num_gpus is a number from 0 on"),
        ({"reward": "sentiment", "max_restarts": -2}, "max_restarts is a whole number of"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RayScore(**arguments)


def test_nothing_answers_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(RewardError, match=r"no actor to ask: nothing answers at 127.0.0.1:1 "):
        RayScore("sentiment", address="127.0.0.1:1").score([sample("a")])


def test_processes_of_a_launcher_need_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    connected = RayScore("sentiment", num_cpus=0)  # as this process is, to one for all
    assert connected.score(TEXTS[:1]) == make_score("sentiment").score(TEXTS[:1])
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    RayScore("sentiment", address="auto")
    with pytest.raises(ValueError, match=r"'ray start --head' .* address='auto'"):
        RayScore("sentiment")
    with pytest.raises(RewardError, match=r"no actor to ask: .*'ray start --head'"):
        pickle.loads(pickle.dumps(connected)).score([sample("a")])


def test_actors_do_not_take_themselves_for_processes_of_a_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    told |= {"TORCHELASTIC_RUN_ID", "ACCELERATE_USE_FSDP", "FSDP_VERSION", "ROLE_NAME"}
    for name in {*told, "OMP_NUM_THREADS", "RANKING"}:
        monkeypatch.setenv(name, "1")
    _Scorer("sentiment")
    assert not told & os.environ.keys()
    assert {"OMP_NUM_THREADS", "RANKING"} <= os.environ.keys()


def test_ray_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match="reward 'ray' needs ray"):
        RayScore("sentiment")
