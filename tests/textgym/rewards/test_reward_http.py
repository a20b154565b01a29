"""The reward: what it sends, how it tries again and complains, and whose threads it uses."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401  # registers the environments
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.http import client as http_client
from textgym.http.server import JSONHandler
from textgym.rewards import RewardError, make, make_score
from textgym.rewards.base import RemoteScore
from textgym.rewards.http import HTTPScore

FAST = {"backoff": 0.001, "timeout": 5.0}


def sample(text: str, prompt: str = "Once", **fields: Any) -> Sample:
    return Sample(prompt, text, None, [], {})._replace(**fields)


def lengths(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"rewards": [len(text) for text in body["completions"]]}


def test_sends_the_arguments_of_a_trl_reward_function(service) -> None:
    there = service(lengths)
    reward = HTTPScore(f"{there.url}/any/path", **FAST)
    texts = [" upon", "", "naïve 🙂 <b>", "\ud800"]
    assert reward.score([sample(text) for text in texts]) == [len(text) for text in texts]
    assert there.requests == [{"prompts": ["Once"] * 4, "completions": texts}]
    columns = {"level": np.int64(3), "grid": np.eye(2), "name": "x"}
    full = sample(
        "a", reference="b", columns=columns, turns=["c"], continues=False, token_ids=[1, 2]
    )
    HTTPScore(there.url, columns=["level", "grid"], token_ids=True, **FAST).score(
        [full, sample("a")]
    )
    assert there.requests[1] == {
        "prompts": ["Once"] * 2,
        "completions": ["a"] * 2,
        "reference": ["b", None],
        "completion_ids": [[1, 2], []],
        "turns": [["c"], []],
        "continues": [False, True],
        "level": [3, None],
        "grid": [[[1.0, 0.0], [0.0, 1.0]], None],
    }


def test_asks_a_server_made_for_openrlhf(service) -> None:
    there = service(lambda body: (200, {"rewards": [len(q) for q in body["query"]], "scores": []}))
    reward = HTTPScore(there.url, form="openrlhf", **FAST)
    assert reward.score([sample(" upon", reference="x"), sample("")]) == [9, 4]
    assert there.requests == [
        {"query": ["Once upon", "Once"], "prompts": ["Once"] * 2, "labels": ["x", None]}
    ]


def test_same_texts_are_asked_once(service) -> None:
    there = service(lengths)
    columns = {"level": [1]}
    samples = [sample(text, columns=columns, token_ids=[i]) for i, text in enumerate("abab")]
    samples.append(sample("a", "Another", columns=columns))
    assert HTTPScore(there.url, **FAST).score(samples) == [1.0] * 5
    assert there.requests[0]["completions"] == ["a", "b", "a"]
    HTTPScore(there.url, token_ids=True, **FAST).score(samples)
    assert len(there.requests[1]["completions"]) == 5


def test_a_token_that_leaves_the_text_as_it_was_costs_no_call(service) -> None:
    for token_ids in (False, True):
        there = service(lengths)
        spec = {"name": "http", "url": there.url, "token_ids": token_ids}
        env = gym.make("TextGen-v0", reward=spec)
        env.reset(seed=0)
        env.step(env.unwrapped.tokenizer.encode_plain("A")[0])
        _, reward, terminated, _, info = env.step(env.unwrapped.tokenizer.eos_token_id)
        assert (reward, terminated, info["score"]) == (0.0, True, 1.0)
        assert len(there.requests) == 1 + token_ids


def test_is_a_remote_score_by_name(serve) -> None:
    there = serve("sentiment")
    reward = make_score({"name": "http", "url": f"{there.url}/score"})
    assert isinstance(reward, RemoteScore)
    samples = [sample(text) for text in ("good", "bad", "", "so so")]
    assert reward.score(samples) == make_score("sentiment").score(samples)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_tries_again_after_a_passing_failure(service, status: int) -> None:
    there = service((status, "later"), (status, "later"), lengths)
    assert HTTPScore(there.url, **FAST).score([sample("abc")]) == [3]
    assert len(there.requests) == 3


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((404, {"error": "nothing here"}), "status 404 Not Found .*nothing here"),
        ((422, {"error": "too rude"}), "status 422 .*too rude"),
        ((200, "<html>hello"), "no JSON, '<html>hello'"),
        ((200, {"ratings": [1]}), r"\{.ratings.: \[1\]\}\. Expected: status 200 and"),
        ((200, {"rewards": 1}), r'\{"rewards": 1\}\. Expected'),
        (
            (200, {"rewards": [1, 2]}),
            r'2 numbers for 1 texts.*\{"rewards": \[a number for each text\]',
        ),
    ],
)
def test_a_wrong_answer_is_an_error_at_once(service, answer: Any, problem: str) -> None:
    there = service(answer)
    url = f"{there.url}/score"
    with pytest.raises(RewardError, match=rf"'http' got a wrong answer from {url}: .*{problem}"):
        HTTPScore(url, **FAST).score([sample("a")])
    assert len(there.requests) == 1


@pytest.mark.parametrize("value", ["NaN", "1e999", '"1"', "true", "null", "[1]"])
def test_what_is_no_number_is_told_with_its_text(service, value: str) -> None:
    there = service((200, f'{{"scores": [0.5, {value}]}}'))
    with pytest.raises(RewardError, match=r"'http' got .*; expected a finite") as caught:
        HTTPScore(there.url, **FAST).score([sample("a"), sample("the second")])
    assert caught.value.sample.text == "the second"


def test_columns_that_json_has_not_are_told(service) -> None:
    there = service(lengths)
    odd = [sample("a", columns={"when": object(), "level": 1})]
    with pytest.raises(RewardError, match=r"columns of the task: .*object.*columns=\[\]"):
        HTTPScore(there.url, **FAST).score(odd)
    assert HTTPScore(there.url, columns=["level"], **FAST).score(odd) == [1]


def test_a_server_that_is_gone_is_told_and_one_that_comes_back_is_not(serve, run_server) -> None:
    from textgym.rewards.serving import ScoreServer

    score = make_score("sentiment")
    with run_server(ScoreServer(score, "first", 0)) as first:
        port = first.server_address[1]
        reward = HTTPScore(f"{first.url}/score", backoff=0.01, retries=1)
        assert reward.score([sample("good")]) == score.score([sample("good")])
    with pytest.raises(RewardError, match=rf"no answer from http://127.*{port}/score: Connect.*2 "):
        reward.score([sample("good")])
    patient = HTTPScore(reward.url, backoff=0.05, retries=6)
    future = patient.submit([sample("bad")])
    time.sleep(0.1)
    serve("sentiment", port)
    assert future.result(10) == score.score([sample("bad")])


def test_a_server_that_ends_in_the_middle_of_a_call(run_server) -> None:
    from textgym.rewards.serving import ScoreServer

    asked, go_on = threading.Event(), threading.Event()

    class Slow:
        def score(self, samples: Any) -> list[float]:
            asked.set()
            go_on.wait(10)
            return [0.0] * len(samples)

    with run_server(ScoreServer(Slow(), "slow", 0)) as server:
        future = HTTPScore(f"{server.url}/score", backoff=0.01, retries=1).submit([sample("a")])
        assert asked.wait(10)
    with pytest.raises(RewardError, match="gets no answer"):
        future.result(10)
    go_on.set()


def test_so_many_calls_are_under_way_at_a_time(service) -> None:
    together = threading.Barrier(3)

    def meet(body: dict[str, Any]) -> tuple[int, Any]:
        together.wait(10)
        return lengths(body)

    there = service(meet)
    reward = HTTPScore(there.url, max_calls=3, **FAST)
    futures = [reward.submit([sample("a" * i)]) for i in range(6)]
    assert [future.result(10) for future in futures] == [[i] for i in range(6)]
    now, most = 0, 0

    def count(body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.02)
        now -= 1
        return lengths(body)

    there = service(count)
    reward = HTTPScore(there.url, max_calls=2, **FAST)
    futures = [reward.submit([sample("a" * i)]) for i in range(6)]
    assert [future.result(10) for future in futures] == [[i] for i in range(6)]
    assert most <= 2


def slow(seconds: float) -> Any:
    def score(text: str) -> float:
        time.sleep(seconds)
        return float(len(text))

    return score


def test_a_queue_of_calls_that_gets_on_may_be_longer_than_the_timeout(serve) -> None:
    there = serve(slow(0.25))
    settings = {"timeout": 2.0, "max_calls": 6, "retries": 0}
    rewards = [HTTPScore(f"{there.url}/score?{k}", **settings) for k in range(2)]
    futures = [reward.submit([sample("a" * i)]) for i in range(6) for reward in rewards]
    assert [future.result(10) for future in futures] == [[i // 2] for i in range(12)]
    assert there.calls == 12


def test_a_service_that_hangs_is_told_by_those_who_wait_for_their_turn_too(serve) -> None:
    go_on = threading.Event()

    def hang(text: str) -> float:
        go_on.wait(10)
        return 0.0

    there = serve(hang)
    reward = HTTPScore(f"{there.url}/score", timeout=0.2, max_calls=2, retries=1, backoff=0.01)
    for future in [reward.submit([sample(text)]) for text in ("a", "b")]:
        with pytest.raises(RewardError, match=r"ReadTimeout.*2 times.*raise timeout") as caught:
            future.result(10)
        assert "Start the service" not in str(caught.value)
    go_on.set()


def test_a_service_that_is_slow_or_out_of_order_need_not_be_started(service) -> None:
    go_on = threading.Event()

    def wait(body: dict[str, Any]) -> tuple[int, Any]:
        go_on.wait(10)
        return lengths(body)

    with pytest.raises(RewardError, match=r"more than 0.05 seconds .*max_calls is 3,") as caught:
        HTTPScore(service(wait).url, timeout=0.05, retries=0, max_calls=3).score([sample("a")])
    go_on.set()
    assert "Start the service" not in str(caught.value)
    with pytest.raises(RewardError, match=r"status 503 .*once. The service is there, but cannot"):
        HTTPScore(service((503, "later")).url, retries=0).score([sample("a")])
    with pytest.raises(RewardError, match=r"ConnectError.*Start the service or correct url"):
        HTTPScore("http://127.0.0.1:1/score", retries=0).score([sample("a")])


@pytest.mark.parametrize(
    ("said", "waited"), [("3", 3.0), ("999", 5.0), ("0", 0.001), ("soon", 0.001)]
)
def test_a_busy_service_says_when_to_come_again(
    service, monkeypatch, said: str, waited: float
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(http_client, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(JSONHandler, "headers_sent", (("Retry-After", said),))
    assert HTTPScore(service((503, "busy"), lengths).url, **FAST).score([sample("abc")]) == [3]
    assert slept == [waited]


def test_a_call_that_was_cancelled_is_not_made(service) -> None:
    go_on = threading.Event()

    def wait(body: dict[str, Any]) -> tuple[int, Any]:
        go_on.wait(10)
        return lengths(body)

    there = service(wait)
    reward = HTTPScore(there.url, max_calls=1, **FAST)
    first, second, third = (reward.submit([sample(text)]) for text in ("a", "bb", "ccc"))
    assert second.cancel()
    go_on.set()
    assert (first.result(10), third.result(10)) == ([1], [3])
    assert [body["completions"] for body in there.requests] == [["a"], ["ccc"]]


def test_connections_are_kept(serve, monkeypatch) -> None:
    there = serve("sentiment")
    opened = []
    real = there.process_request
    monkeypatch.setattr(there, "process_request", lambda *given: (opened.append(1), real(*given)))
    reward = HTTPScore(f"{there.url}/score", **FAST)
    for _ in range(5):
        reward.score([sample("good")])
    assert len(opened) == 1
    assert there.calls == 5


def test_the_token_comes_from_the_environment_and_is_shown_nowhere(serve, monkeypatch) -> None:
    monkeypatch.setenv("SCORE_TOKEN", "hush")
    there = serve("sentiment", token="hush")
    headers = {"Authorization": "Bearer $SCORE_TOKEN"}
    reward = HTTPScore(f"{there.url}/score", headers=headers, **FAST)
    assert reward.score([sample("good")])[0] > 0
    assert b"hush" not in pickle.dumps(reward)
    assert "SCORE_TOKEN" not in repr(reward)
    with pytest.raises(RewardError, match="status 401") as caught:
        HTTPScore(f"{there.url}/score", **FAST).score([sample("good")])
    assert "hush" not in str(caught.value)
    monkeypatch.delenv("SCORE_TOKEN")
    with pytest.raises(ValueError, match="wants the environment variable 'SCORE_TOKEN'"):
        HTTPScore(there.url, headers=headers)


def test_copies_and_pickles_are_the_same_reward(serve) -> None:
    there = serve("sentiment")
    reward = HTTPScore(f"{there.url}/score", **FAST)
    expected = reward.score([sample("good")])
    for again in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert again == reward
        assert again.score([sample("good")]) == expected
    assert copy.deepcopy(make(reward)).rewards.keys() == {"HTTPScore"}


PROCESSES = """
import sys, time, threading
import gymnasium as gym, numpy as np, textgym
from textgym.completion import Sample
from textgym.rewards.http import HTTPScore

def run(reward, vectorization_mode, **how):
    env = gym.make_vec("TextGen-v0", 2, vectorization_mode, reward=reward, max_new_tokens=4, **how)
    env.reset(seed=[1, 2])
    paid = [env.step(np.array([300 + t, 400 + t]))[1].tolist() for t in range(4)]
    env.close()
    return paid

if __name__ == "__main__":
    spec = {"name": "http", "url": sys.argv[1]}
    HTTPScore(sys.argv[1]).score([Sample("a", "good", None, [], {})])  # a connection and a thread
    for context in ("fork", "spawn"):
        how = {"vector_kwargs": {"context": context}}
        assert run(spec, "async", **how) == run("sentiment", "sync"), context
    HTTPScore(sys.argv[2], timeout=60).submit([Sample("a", "b", None, [], {})])
    time.sleep(0.2)
    print("over", time.monotonic(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_worker_processes_ask_too_and_a_call_under_way_keeps_no_program(
    serve, service, tmp_path
) -> None:
    go_on = threading.Event()

    def never(body: dict[str, Any]) -> tuple[int, Any]:
        go_on.wait(60)
        return lengths(body)

    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    slow = service(never)
    command = [sys.executable, script, f"{serve('sentiment').url}/score", slow.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ended = time.monotonic()
    go_on.set()
    assert done.returncode == 0, done.stderr
    assert slow.requests
    assert ended - float(done.stdout.split()[1]) < 5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"url": "localhost:8000"}, "url is where to post, such as 'http://127.0.0.1:8000/score'"),
        ({"url": "http://me:secret@x/"}, r"holds a password.*\$HTTP_LOGIN"),
        ({"timeout": 0}, "timeout is a number of seconds, above 0"),
        ({"retries": -1}, "retries is a whole number of at least 0"),
        ({"max_calls": 0}, "max_calls is a whole number of at least 1"),
        ({"form": "verl"}, "form is 'trl' or 'openrlhf'"),
        ({"form": "openrlhf", "token_ids": True}, "has no token_ids"),
        ({"columns": "level"}, "columns are a list of names"),
        ({"success_threshold": "1"}, "success_threshold is a number"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"http: .*{problem}") as caught:
        HTTPScore(**{"url": "http://127.0.0.1:1/score", **arguments})
    assert "secret" not in str(caught.value)


def test_httpx_is_asked_for(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match="reward 'http' needs httpx"):
        HTTPScore("http://127.0.0.1:1/score")


def test_success_is_told_by_the_threshold(serve) -> None:
    there = serve(len_score)
    for threshold, solved in ((1.0, True), (2.0, False)):
        spec = {"name": "http", "url": f"{there.url}/score", "success_threshold": threshold}
        env = gym.make("TextGen-v0", reward=spec)
        env.reset(seed=0)
        env.step(env.unwrapped.tokenizer.encode_plain("A")[0])
        info = env.step(env.unwrapped.tokenizer.eos_token_id)[-1]
        assert info["is_success"] == solved


def len_score(text: str) -> int:
    return len(text)
