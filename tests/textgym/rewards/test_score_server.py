"""The server: what it takes and answers, and whom it turns away."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.completion import Sample
from textgym.rewards import make_score
from textgym.rewards.wire import FormatError, read_request, request

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
_SAMPLES = st.builds(
    Sample,
    _TEXTS,
    _TEXTS,
    st.none() | _TEXTS,
    st.lists(st.integers(0, 99), max_size=3),
    st.dictionaries(st.sampled_from(["level", "name"]), st.integers() | _TEXTS),
    st.lists(_TEXTS, max_size=2),
    st.booleans(),
)


@given(st.lists(_SAMPLES, min_size=1, max_size=4))
def test_what_is_sent_is_what_was_meant(samples: list[Sample]) -> None:
    body = json.loads(json.dumps(request(samples, token_ids=True)))
    assert [s._replace(turns=list(s.turns)) for s in read_request(body)] == samples


@given(st.lists(_SAMPLES, min_size=1, max_size=4))
def test_openrlhf_is_understood_both_ways(samples: list[Sample]) -> None:
    body = json.loads(json.dumps(request(samples, "openrlhf")))
    meant = [Sample(s.prompt, s.text, s.reference, [], {}) for s in samples]
    assert read_request(body) == meant


def test_a_column_called_query_is_a_column() -> None:
    meant = [Sample("a", "b", None, [], {"query": "a"})]
    assert read_request(request(meant)) == [meant[0]._replace(turns=(), continues=True)]


def test_a_column_may_not_be_called_as_what_is_sent_beside_it() -> None:
    samples = [Sample("a", "b", None, [], {"turns": ["c"], "level": 1})]
    with pytest.raises(FormatError, match="'turns' is no name for one"):
        request(samples)
    assert request(samples, columns=["level"])["level"] == [1]


@pytest.fixture
def http(serve: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve("sentiment").url, trust_env=False) as client:
        yield client


def test_scores_and_says_how_it_is(http: httpx.Client) -> None:
    body = {"prompts": ["a", "a"], "completions": ["good", "bad"]}
    good, bad = http.post("/score", json=body).json()["rewards"]
    assert good > 0 > bad
    query = {"query": ["a good"], "prompts": ["a"]}
    assert http.post("/score", json=query).json() == {"rewards": [good]}
    assert http.post("/score", json={"query": ["good"]}).json() == {"rewards": [good]}
    health = {"status": "ok", "reward": "a reward", "calls": 3, "texts": 4, "waiting": 0}
    assert http.get("/health").json() == health


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        ("/score", b"{", 400, "no JSON"),
        ("/score", b"[]", 400, "an object"),
        ("/score", b"{}", 400, "'prompts' is None"),
        ("/score", b'{"prompts": [], "completions": []}', 400, "at least one text"),
        ("/score", b'{"prompts": ["a"], "completions": [1]}', 400, "'completions' is [1]"),
        ("/score", b'{"prompts": [], "completions": ["a"]}', 400, "0 prompts for 1 texts"),
        (
            "/score",
            b'{"prompts": ["a"], "completions": ["b"], "level": [1, 2]}',
            400,
            "'level' is a list of 1",
        ),
        (
            "/score",
            b'{"prompts": ["a"], "completions": ["b"], "reference": [1]}',
            400,
            "a reference is a string",
        ),
        ("/score", b'{"query": ["ab"], "prompts": ["b"]}', 400, "begins with its prompt"),
        ("/score", b'{"query": ["a"], "labels": []}', 400, "'labels' is a list of 1"),
        (
            "/score",
            b'{"prompts": ["a"], "completions": ["b"], "completion_ids": ["c"]}',
            400,
            "a list of whole numbers, got 'c'",
        ),
        (
            "/score",
            b'{"prompts": ["a"], "completions": ["b"], "turns": [[1]]}',
            400,
            "a list of strings, got [1]",
        ),
        (
            "/score",
            b'{"prompts": ["a"], "completions": ["b"], "continues": [1]}',
            400,
            "true or false, got 1",
        ),
        ("/other", b"{}", 404, "this server has POST /score, GET /health"),
    ],
)
def test_requests_that_are_wrong_hear_why(
    http: httpx.Client, path: str, body: bytes, status: int, problem: str
) -> None:
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert problem in answer.json()["error"]


def test_others_are_turned_away(http: httpx.Client, serve: Any) -> None:
    assert http.post("/score", content=b"{}").status_code == 415
    assert http.get("/health", headers={"Host": "evil.invalid"}).status_code == 403
    guarded = serve("sentiment", token="hush")
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        body = {"prompts": ["a"], "completions": ["good"]}
        for given, status in (
            ("", 401),
            ("Bearer no", 401),
            ("Bearer é", 401),
            ("Bearer hush", 200),
        ):
            headers = {"Authorization": given.encode()}
            assert client.post("/score", json=body, headers=headers).status_code == status
        # Nothing is made of what they send, but they hear of it, however much that was.
        assert client.post("/score", json="a" * (4 << 20)).status_code == 401


def test_another_method_is_told_which_one_it_is(http: httpx.Client) -> None:
    for method, path, allowed in (("GET", "/score", "POST"), ("POST", "/health", "GET")):
        answer = http.request(method, path, json={} if method == "POST" else None)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
        assert f"'{path}' takes {allowed}, not {method}" in answer.json()["error"]
    assert "nothing at '/'; this server has POST /score" in http.get("/").json()["error"]


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("127.0.0.1", "port {port}: another program has the port.*0 is any free one"),
        ("192.0.2.1", "no such address. Give 127.0.0.1 .* or 0.0.0.0"),
        ("no host", "cannot listen on no host, .*no such address"),
    ],
)
def test_an_address_that_cannot_be_had(serve: Any, host: str, problem: str) -> None:
    port = serve("sentiment").server_address[1]
    with pytest.raises(OSError, match=problem.format(port=port)) as caught:
        serve("sentiment", port, host=host)
    assert "Errno" not in str(caught.value)


def test_texts_that_the_score_refuses_are_no_reason_to_ask_again(serve: Any) -> None:
    def picky(text: str) -> float:
        return float("nan") if text == "b" else 1 / len(text)

    with httpx.Client(base_url=serve(picky).url, trust_env=False) as client:
        for text, problem in (("", "ZeroDivisionError"), ("b", "nan; expected a finite")):
            body = {"prompts": ["a"] * 2, "completions": ["fine", text]}
            answer = client.post("/score", json=body)
            assert answer.status_code == 422
            assert problem in answer.json()["error"]
            assert f"text:   {text!r}" in answer.json()["error"]


@pytest.mark.parametrize("workers", [1, 2])
def test_so_many_batches_are_scored_at_a_time(serve: Any, workers: int) -> None:
    together = threading.Barrier(2)

    def meet(text: str) -> float:
        try:
            together.wait(0.3)
        except threading.BrokenBarrierError:
            return 0.0
        return 1.0

    server = serve(meet, workers=workers)
    found = []

    def ask() -> None:
        body = {"prompts": ["a"], "completions": ["b"]}
        answer = httpx.post(f"{server.url}/score", json=body, trust_env=False)
        found.extend(answer.json()["rewards"])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [float(workers == 2)] * 2


def asking(text: str, *headers: str, version: str = "1.1") -> bytes:
    """A request as it is sent."""
    body = json.dumps({"prompts": ["a"], "completions": [text]})
    named = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines = [f"POST /score HTTP/{version}", *named, *headers, "", body]
    return "\r\n".join(lines).encode()


class Held:
    """A score that waits, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.began, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def score(self, samples: list[Sample]) -> list[float]:
        self.asked += [sample.text for sample in samples]
        self.began.release()
        assert self.go_on.acquire(timeout=10)
        return [0.0] * len(samples)


def test_one_that_waits_hears_that_others_get_on_and_one_that_has_gone_is_not_scored(
    serve: Any,
) -> None:
    held = Held()
    server = serve(held)
    with ExitStack() as stack:

        def send(text: str, *headers: str, version: str = "1.1") -> socket.socket:
            connection = socket.create_connection(server.server_address, timeout=10)
            connection.sendall(asking(text, *headers, version=version))
            stack.callback(connection.close)
            # Those that wait stand in the order of this test.
            end = time.monotonic() + 10
            while len(held.asked) + server.turns.waiting < len(sent):
                assert time.monotonic() < end
                time.sleep(0.001)
            return connection

        preferred = "Prefer: respond-async, processing"
        sent = ["first"]
        first = send("first", preferred)
        assert held.began.acquire(timeout=10)
        others = []
        for text, headers, version in (
            ("gone", (preferred,), "1.1"),
            ("plain", (), "1.1"),
            ("old", (preferred,), "1.0"),
            ("last", (preferred,), "1.1"),
        ):
            sent.append(text)
            others.append(send(text, *headers, version=version))
        gone, plain, old, last = others
        gone.close()
        held.go_on.release()
        sign = b"HTTP/1.1 102 Processing\r\n\r\n"
        assert last.recv(len(sign)) == sign
        held.go_on.release(3)
        for connection in (first, plain, old):
            assert b" 200 OK" in connection.recv(1 << 16).partition(b"\r\n")[0]
        answer = b""
        while b"rewards" not in answer:
            answer += last.recv(1 << 16)
        assert b"HTTP/1.1 200 OK" in answer
    assert held.asked == ["first", "plain", "old", "last"]
    assert server.calls == 4


def test_several_rewards_are_added_up() -> None:
    samples = [Sample("a", text, None, [], {}) for text in ("good", "bad", "")]
    both = make_score({"sentiment": 0.5, "mine": len_score})
    assert both.text_only
    expected = [
        0.5 * sentiment + len(sample.text)
        for sentiment, sample in zip(make_score("sentiment").score(samples), samples, strict=True)
    ]
    assert both.score(samples) == pytest.approx(expected)
    assert not make_score([len_score, lambda token_ids: len(token_ids)]).text_only


@pytest.mark.parametrize("reward", ["length", {"sentiment": 1.0, "eos": 0.1}, "adaptive_of_two"])
def test_what_pays_tokens_cannot_be_made_elsewhere(reward: Any) -> None:
    if reward == "adaptive_of_two":
        goals = {"sentiment": 0.5}
        reward = {"name": "adaptive", "rewards": {"sentiment": 1, "length": 1}, "goals": goals}
    with pytest.raises(TypeError, match="pays each token as it comes and is no score of a text"):
        make_score(reward)


def test_nothing_asked_for() -> None:
    with pytest.raises(ValueError, match="asks for no reward"):
        make_score({})


def len_score(text: str) -> int:
    return len(text)
