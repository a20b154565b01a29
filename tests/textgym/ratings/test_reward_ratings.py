"""The reward: what it sends, how it waits, goes on, tries again and complains."""

from __future__ import annotations

import copy
import pickle
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest

import textgym  # noqa: F401  # registers the environments
from textgym.checks import check_reward
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.http import client as http_client
from textgym.ratings import Submission
from textgym.rewards import RewardError
from textgym.rewards.ratings import Ratings

FAST = {"backoff": 0.001, "poll": 0.005, "timeout": 5.0}


def sample(text: str, prompt: str = "Once", reference: str | None = None) -> Sample:
    return Sample(prompt, text, reference, [], {})


def opinion(text: str) -> float:
    return len(text) % 7 / 3 - 1


def rated(samples: list[dict[str, Any]]) -> tuple[int, Any]:
    return 200, {"ratings": [opinion(sample["text"]) for sample in samples]}


def unrated(samples: list[dict[str, Any]]) -> tuple[int, Any]:
    return 202, {"ratings": [None] * len(samples)}


def fails(status: int) -> Any:
    return lambda samples: (status, {"error": "out of order"})


def says(body: Any) -> Any:
    return lambda samples: (200, body)


def refused_url() -> str:
    """An address on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/rate"


def test_sends_what_the_protocol_says_and_returns_the_ratings_in_order(service) -> None:
    there = service(rated)
    texts = [" upon a time", "", "naïve 🙂 <b>", "\ud800"]
    reward = Ratings(there.url, **FAST)
    samples = [sample(text, reference="an end") for text in texts]
    assert reward.score(samples) == [opinion(text) for text in texts]
    [sent] = there.requests
    assert [s["text"] for s in sent] == texts
    assert sent[0] == {
        "id": Submission("Once", " upon a time", "an end").id,
        "prompt": "Once",
        "text": " upon a time",
        "reference": "an end",
    }
    assert there.headers[0]["Content-Type"] == "application/json"


def test_asks_for_a_text_once_and_in_batches(service) -> None:
    there = service(rated)
    reward = Ratings(there.url, batch_size=2, **FAST)
    texts = ["a", "bb", "a", "ccc", "dddd", "eeeee"]
    assert reward.score([sample(t) for t in texts]) == [opinion(t) for t in texts]
    assert [[s["text"] for s in sent] for sent in there.requests] == [
        ["a", "bb"],
        ["ccc", "dddd"],
        ["eeeee"],
    ]
    reward.score([sample("dddd"), sample("a")])
    assert len(there.requests) == 3
    reward.score([sample("a", prompt="Another"), sample("a", reference="one")])
    assert len(there.requests) == 4


def test_memory_is_bounded(service, monkeypatch) -> None:
    monkeypatch.setattr("textgym.rewards.ratings._REMEMBERED", 2)
    there = service(rated)
    reward = Ratings(there.url, **FAST)
    texts = ["a", "bb", "ccc"]
    assert reward.score([sample(t) for t in texts]) == [opinion(t) for t in texts]
    reward.score([sample("ccc")])
    assert len(there.requests) == 1
    reward.score([sample("a")])
    assert len(there.requests) == 2


def test_waits_until_everything_is_rated(service) -> None:
    def half(samples: list[dict[str, Any]]) -> tuple[int, Any]:
        return 202, {"ratings": [0.25, *[None] * (len(samples) - 1)]}

    there = service(unrated, half, fails(503), half, rated)
    reward = Ratings(there.url, wait=None, **FAST)
    assert reward.score([sample("a"), sample("bb"), sample("ccc")]) == [0.25, 0.25, opinion("ccc")]
    assert [len(sent) for sent in there.requests] == [3, 3, 2, 2, 1]


def test_wait_that_is_over_is_an_error_that_says_where_to_rate(service) -> None:
    there = service(unrated)
    start = time.monotonic()
    with pytest.raises(
        RewardError, match=r"'ratings' has no rating from http://127.* after 0.05 s"
    ):
        Ratings(there.url, wait=0.05, **FAST).score([sample("a")])
    assert 0.05 <= time.monotonic() - start < 2
    assert len(there.requests) > 2


def test_text_that_is_refused_a_rating_is_not_waited_for(service) -> None:
    there = service(lambda samples: (200, {"ratings": [1, None]}))
    samples = [sample("a"), sample("bb")]
    with pytest.raises(RewardError, match=r"is refused a rating by(.|\n)*text: +'bb'"):
        Ratings(there.url, **FAST).score(samples)
    with pytest.warns(UserWarning, match="refused a rating"):
        assert Ratings(there.url, fallback=-1, **FAST).score(samples) == [1, -1]


def test_goes_on_with_the_fallback_and_one_warning_and_picks_ratings_up_later(service) -> None:
    there = service(unrated, unrated, rated)
    reward = Ratings(there.url, wait=0, fallback=0.125, **FAST)
    with pytest.warns(UserWarning, match=r"no rating from .* paid the fallback, 0.125"):
        assert reward.score([sample("a")]) == [0.125]
    assert reward.score([sample("a")]) == [0.125]
    assert reward.score([sample("a")]) == [opinion("a")]
    assert reward.score([sample("a")]) == [opinion("a")]
    assert len(there.requests) == 3


def test_mean_of_the_ratings_so_far_counts_those_that_came_late(service) -> None:
    there = service(unrated, lambda samples: (202, {"ratings": [None, 0.5]}), rated)
    reward = Ratings(there.url, wait=0, fallback="mean", **FAST)
    with pytest.warns(UserWarning, match=r"the mean so far \(0\)"):
        assert reward.score([sample("a")]) == [0.0]
    assert reward.score([sample("bb")]) == [0.5]  # that of "a" came with it
    assert [s["text"] for s in there.requests[1]] == ["bb", "a"]
    assert reward.score([sample("a")]) == [0.5]
    assert len(there.requests) == 2


def test_only_the_last_unrated_texts_are_asked_for_again(service) -> None:
    there = service(unrated)
    reward = Ratings(there.url, wait=0, fallback=0, batch_size=2, **FAST)
    with pytest.warns(UserWarning, match="paid the fallback"):
        reward.score([sample("a"), sample("bb"), sample("ccc")])
    there.requests.clear()
    reward.score([sample("dddd")])
    assert [s["text"] for sent in there.requests for s in sent] == ["dddd", "bb", "ccc"]
    there.requests.clear()
    reward.score([sample("eeeee")])
    assert [s["text"] for sent in there.requests for s in sent] == ["eeeee", "ccc", "dddd"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_tries_again_after_a_passing_failure(service, status: int) -> None:
    there = service(fails(status), fails(status), rated)
    assert Ratings(there.url, **FAST).score([sample("a")]) == [opinion("a")]
    assert len(there.requests) == 3


def test_waits_twice_as_long_before_each_next_try(service, monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(http_client, "time", SimpleNamespace(sleep=slept.append))
    there = service(fails(500))
    with pytest.raises(RewardError, match=r"500 Internal Server Error .*out of order.*, 4 times"):
        Ratings(there.url, backoff=0.5).score([sample("a")])
    assert slept == [0.5, 1.0, 2.0]


def test_endpoint_that_is_down_is_an_error_that_names_it() -> None:
    url = refused_url()
    with pytest.raises(RewardError) as caught:
        Ratings(url, retries=1, **FAST).score([sample("a")])
    message = str(caught.value)
    assert f"gets no answer from {url}: ConnectError" in message
    assert "2 times" in message
    assert "textgym rate" in message
    assert "fallback" in message


def test_endpoint_that_is_down_pays_the_fallback_and_is_asked_now_and_then(
    service, monkeypatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("textgym.rewards.ratings.time", SimpleNamespace(monotonic=lambda: now[0]))
    there = service(fails(503), fails(503), fails(503), rated, fails(503))
    reward = Ratings(there.url, fallback=-0.5, retries=1, backoff=0.001, timeout=10)
    with pytest.warns(UserWarning, match=r"gets no answer .* paid the fallback, -0.5"):
        assert reward.score([sample("a"), sample("bb")]) == [-0.5, -0.5]
    assert len(there.requests) == 2
    assert reward.score([sample("a")]) == [-0.5]
    assert len(there.requests) == 2  # not asked yet
    now[0] += 11
    assert reward.score([sample("a")]) == [-0.5]
    assert len(there.requests) == 3  # asked once
    now[0] += 11
    assert reward.score([sample("a")]) == [opinion("a")]
    with pytest.warns(UserWarning, match="gets no answer"):  # another outage
        assert reward.score([sample("bb")]) == [-0.5]


def test_timeout(service) -> None:
    answer = threading.Event()

    def slow(samples: list[dict[str, Any]]) -> tuple[int, Any]:
        answer.wait(5)
        return rated(samples)

    there = service(slow)
    with pytest.raises(RewardError, match="ReadTimeout"):
        Ratings(there.url, timeout=0.05, retries=1, backoff=0.001).score([sample("a")])
    answer.set()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (says(b"<html>hello"), "no JSON, '<html>hello'"),
        (says(b"\xff\xfe\x00"), "no JSON"),
        (says(b"[" * 100_000), "no JSON"),
        (says([1]), r"\[1\]. Expected: status 200, or 202"),
        (says({"scores": [1]}), r'\{"scores": \[1\]\}. Expected: '),
        (says({"ratings": 1}), r'Expected: .*\{"ratings": \[a number or null for each'),
        (says({"ratings": []}), "0 ratings for 1 samples"),
        (says({"ratings": [1, 2]}), "2 ratings for 1 samples"),
        (says({"ratings": ["1"]}), "the rating '1'; expected a finite number"),
        (says({"ratings": [True]}), "the rating True"),
        (says({"ratings": [[1]]}), r"the rating \[1\]"),
        (says(b'{"ratings": [NaN]}'), "the rating nan"),
        (says(b'{"ratings": [1e999]}'), "the rating inf"),
        (says({"ratings": [10**400]}), "the rating 1000"),
        (fails(404), r"status 404 Not Found .*out of order"),
        (fails(401), "status 401"),
        (lambda samples: (204, b""), "status 204"),
    ],
)
@pytest.mark.parametrize("fallback", [None, 0.0])
def test_wrong_answer_is_an_error_at_once_fallback_or_not(
    service, answer: Any, problem: str, fallback: float | None
) -> None:
    there = service(answer)
    with pytest.raises(RewardError, match=rf"wrong answer from http://127(.|\n)*{problem}"):
        Ratings(there.url, fallback=fallback, **FAST).score([sample("a")])
    assert len(there.requests) == 1


def test_proxies_of_the_environment_do_not_come_between_loopback_and_us(
    service, monkeypatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    there = service(rated)
    for url in (there.url, there.url.replace("127.0.0.1", "localhost")):
        assert Ratings(url, **FAST).score([sample("a")]) == [opinion("a")]


def test_other_hosts_are_reached_through_the_proxy_of_the_environment(service, monkeypatch) -> None:
    proxy = service(rated)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url.removesuffix("/rate"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    http_client._connections.cache_clear()
    try:
        reward = Ratings("http://ratings.invalid/rate", **FAST)
        assert reward.score([sample("a")]) == [opinion("a")]
    finally:
        http_client._connections.cache_clear()


def test_headers_take_secrets_from_the_environment_and_show_them_nowhere(
    service, monkeypatch
) -> None:
    monkeypatch.setenv("RATINGS_TOKEN", "hush")
    there = service(rated, fails(500))
    headers = {"Authorization": "Bearer $RATINGS_TOKEN", "X-Price": "$$5"}
    reward = Ratings(there.url, headers=headers, retries=0)
    reward.score([sample("a")])
    assert there.headers[0]["Authorization"] == "Bearer hush"
    assert there.headers[0]["X-Price"] == "$5"
    assert b"hush" not in pickle.dumps(reward)
    assert "Authorization" not in repr(reward)
    with pytest.raises(RewardError) as caught:
        reward.score([sample("bb")])
    assert "hush" not in str(caught.value)


def test_copies_hold_no_connection_and_go_on(service) -> None:
    there = service(rated)
    reward = Ratings(there.url, **FAST)
    reward.score([sample("a")])
    for again in (pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)):
        assert vars(again) == {k: v for k, v in vars(reward).items() if not k.startswith("_")}
        assert again.score([sample("a")]) == [opinion("a")]
    assert len(there.requests) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "127.0.0.1:8000"}, "url is where to post"),
        ({"url": "ftp://127.0.0.1/rate"}, "url is where to post"),
        ({"url": "http://127.0.0.1:port/rate"}, "url is where to post"),
        ({"url": None}, "url is where to post.*got None"),
        ({"url": "http://[::1/rate"}, "url is where to post"),
        ({"url": "http://me:hush@127.0.0.1/rate"}, "url holds a password"),
        ({"wait": -1}, "wait is a number of seconds.*got -1"),
        ({"wait": "long"}, "wait is a number of seconds"),
        ({"fallback": "zero"}, "fallback is .* a number or 'mean'.*got 'zero'"),
        ({"fallback": float("nan")}, "fallback is"),
        ({"fallback": True}, "fallback is"),
        ({"batch_size": 0}, "batch_size is a whole number of at least 1, got 0"),
        ({"retries": -1}, "retries is a whole number of at least 0"),
        ({"retries": 1.5}, "retries is a whole number of at least 0"),
        ({"timeout": 0}, "timeout is a number of seconds, above 0, got 0"),
        ({"poll": 0}, "poll is a number of seconds, above 0"),
        ({"backoff": -0.5}, "backoff is a number of seconds"),
        ({"headers": ["a"]}, "headers are a mapping"),
        ({"headers": {"A": 1}}, "header 'A' is a string"),
        ({"headers": {"A": "50$"}}, "header 'A' is a string"),
        ({"headers": {"A": "$NOT_SET"}}, "wants the environment variable 'NOT_SET"),
        ({"headers": {"A": "hush\n"}}, "header 'A' holds a line break"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^ratings: .*{message}") as caught:
        Ratings(**arguments)
    assert "hush" not in str(caught.value)


def test_says_what_to_install_when_the_environment_is_made(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"reward 'ratings' needs httpx.*textgym\[ratings\]"):
        gym.make("TextGen-v0", reward="ratings")


def test_keeps_the_contract_of_a_reward(service) -> None:
    check_reward(Ratings(service(rated).url, **FAST))


def play(env: gym.Env[Any, Any], tokens: bytes) -> tuple[list[float], dict[str, Any]]:
    """Write bytes with the byte tokenizer, and end the text."""
    env.reset(options={"prompt": "ab"})
    rewards: list[float] = []
    info: dict[str, Any] = {}
    for token in [*(byte + 1 for byte in tokens), 0]:
        _, reward, _, _, info = env.step(token)
        rewards.append(float(reward))
    return rewards, info


def test_episode_waits_for_a_person(server, person, byte_tokenizer_dir: str) -> None:
    env = gym.make(
        "TextGen-v0",
        tokenizer=byte_tokenizer_dir,
        reward={"name": "ratings", "url": f"{server.url}/rate", **FAST},
        timing="delayed",
    )
    with person(server.url, opinion) as seen:
        rewards, info = play(env, b"cd!")
    assert seen == ["cd!"]
    assert rewards == pytest.approx([0, 0, 0, opinion("cd!")])
    assert info["scores"] == {"ratings": pytest.approx(opinion("cd!"))}


def test_sentences_are_rated_one_by_one(server, person, byte_tokenizer_dir: str) -> None:
    env = gym.make(
        "TextGen-v0",
        tokenizer=byte_tokenizer_dir,
        reward={"name": "ratings", "url": f"{server.url}/rate", **FAST},
        every="sentence",
    )
    with person(server.url, opinion) as seen:
        rewards, _ = play(env, b"a. b")
    assert seen == ["a.", "a. b"]
    assert sum(rewards) == pytest.approx(opinion("a. b"))


def test_training_goes_on_while_nobody_rates(server, byte_tokenizer_dir: str) -> None:
    envs = gym.make_vec(
        "TextGen-v0",
        num_envs=2,
        tokenizer=byte_tokenizer_dir,
        reward={"name": "ratings", "url": f"{server.url}/rate", "wait": 0, "fallback": 0.25},
        timing="delayed",
        max_new_tokens=1,
    )
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="paid the fallback"):
        _, rewards, *_ = envs.step(envs.action_space.sample() * 0 + [66, 67])
    assert rewards.tolist() == [0.25, 0.25]
    assert {s.text for s in server.store.next()} == {"A", "B"}
    server.store.rate({s.id: 1.0 for s in server.store.next()})
    envs.close()


def test_restarted_service_knows_what_was_rated(server, run_server, tmp_path) -> None:
    from textgym.ratings import RatingServer

    waiting = Ratings(f"{server.url}/rate", wait=0, fallback=0, **FAST)
    with pytest.warns(UserWarning, match="paid the fallback"):
        waiting.score([sample("a"), sample("bb")])
    first = server.store.next()[0]
    assert server.store.rate({first.id: 1}) == 1
    with run_server(RatingServer(0, tmp_path / "ratings.jsonl")) as again:
        reward = Ratings(f"{again.url}/rate", wait=0, fallback=0, **FAST)
        with pytest.warns(UserWarning, match="paid the fallback"):
            assert reward.score([sample("a"), sample("bb")]) == [1.0, 0.0]
        assert [s.text for s in again.store.next()] == ["bb"]


def test_two_runs_at_once_share_the_ratings(server, person) -> None:
    results: dict[str, list[float]] = {}
    texts = [f"{'x' * k}" for k in range(12)]

    def run(name: str) -> None:
        reward = Ratings(f"{server.url}/rate", batch_size=5, **FAST)
        results[name] = reward.score([sample(text) for text in texts])

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "other")]
    with person(server.url, opinion) as seen:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results["one"] == results["other"] == pytest.approx([opinion(t) for t in texts])
    assert sorted(seen) == sorted(texts)  # each was rated once
    assert server.store.counts() == {"waiting": 0, "rated": 12}
