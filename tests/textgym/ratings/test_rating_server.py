"""The server: its two kinds of clients, and whom it turns away."""

from __future__ import annotations

import functools
import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from textgym.completion import Sample
from textgym.ratings import RatingServer, serve
from textgym.ratings.protocol import LARGEST_REQUEST
from textgym.rewards.ratings import Ratings


@pytest.fixture
def http(server: RatingServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def ask(http: httpx.Client, *texts: str) -> httpx.Response:
    samples = [{"id": "any", "prompt": "Once", "text": t, "reference": None} for t in texts]
    return http.post("/rate", json={"samples": samples})


def test_texts_go_from_a_run_to_a_person_and_ratings_back(http: httpx.Client) -> None:
    answer = ask(http, "a", "<script>b")
    assert (answer.status_code, answer.json()) == (202, {"ratings": [None, None]})
    shown = http.get("/next").json()
    assert (shown["waiting"], shown["rated"]) == (2, 0)
    assert [s["text"] for s in shown["samples"]] == ["a", "<script>b"]
    first, second = (s["id"] for s in shown["samples"])
    answer = http.post("/ratings", json={"ratings": {first: 0.5, second: None}})
    assert (answer.status_code, answer.json()) == (200, {"saved": 1})
    assert ask(http, "a", "<script>b").json() == {"ratings": [0.5, None]}
    assert http.post("/ratings", json={"ratings": {second: -1}}).json() == {"saved": 1}
    answer = ask(http, "a", "<script>b", "a")
    assert (answer.status_code, answer.json()) == (200, {"ratings": [0.5, -1, 0.5]})
    assert http.get("/next").json() == {"samples": [], "waiting": 0, "rated": 2}


def test_page_may_load_nothing_and_run_nothing_else(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in answer.text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        ("/rate", b"{", 400, "no JSON"),
        ("/rate", b"\xff", 400, "no JSON"),
        ("/rate", b"[" * 100_000, 400, "no JSON"),
        ("/rate", b"[]", 400, "an object"),
        ("/rate", b"{}", 400, "expected {'samples'"),
        ("/rate", b'{"samples": [1]}', 400, "a sample is an object"),
        ("/rate", b'{"samples": [{"prompt": "a"}]}', 400, "a sample is an object"),
        ("/rate", b'{"samples": [{"prompt": "a", "text": "b", "reference": 1}]}', 400, "reference"),
        ("/ratings", b'{"ratings": [1]}', 400, "expected {'ratings'"),
        ("/ratings", b'{"ratings": {"a": "1"}}', 400, "a finite number"),
        ("/ratings", b'{"ratings": {"a": NaN}}', 400, "a finite number"),
        ("/ratings", b'{"ratings": {"a": true}}', 400, "a finite number"),
        ("/other", b"{}", 404, "POST /rate"),
    ],
)
def test_requests_that_are_wrong_hear_why(
    http: httpx.Client, path: str, body: bytes, status: int, problem: str
) -> None:
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert problem in answer.json()["error"]
    assert http.get("/next").json()["waiting"] == 0


def test_nothing_else_is_served(http: httpx.Client) -> None:
    assert http.get("/ratings.jsonl").status_code == 404
    assert http.get("/../ratings.jsonl").status_code == 404
    assert http.get("/rate").headers["Allow"] == "POST"
    assert http.put("/rate", json={}).status_code == 501


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_forms_of_other_sites_are_refused(http: httpx.Client, content_type: str) -> None:
    body = json.dumps({"samples": [{"prompt": "a", "text": "b"}]}).encode()
    answer = http.post("/rate", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 415
    answer = http.options("/rate", headers={"Origin": "http://evil.invalid"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert http.get("/next").json()["waiting"] == 0


def test_names_that_are_made_to_point_here_are_refused(
    http: httpx.Client, server: RatingServer
) -> None:
    port = server.server_address[1]
    assert http.get("/next", headers={"Host": f"evil.invalid:{port}"}).status_code == 403
    assert http.get("/next", headers={"Host": f"localhost:{port}"}).status_code == 200


def test_requests_too_large_are_refused(http: httpx.Client, server: RatingServer) -> None:
    body = b" " * (LARGEST_REQUEST + 1)
    answer = http.post("/rate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert str(LARGEST_REQUEST) in answer.json()["error"]


def raw(server: RatingServer, request: bytes) -> tuple[int, Any]:
    """The status and the JSON that answer these bytes."""
    with socket.create_connection(server.server_address[:2], timeout=10) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "problem"),
    [
        ("GET /next", "Host: [", 400, "'//[' is no address"),
        ("GET /next", "Host: [::1", 400, "is no address"),
        ("GET http://[", "Host: localhost", 400, "'http://[' is no address"),
        ("POST http://[", "Host: localhost", 400, "is no address"),
        ("POST /rate", f"Host: localhost\r\nContent-Length: {'9' * 5000}", 413, "too large"),
        ("POST /rate", f"Host: localhost\r\nContent-Length: {'0' * 5000}", 400, "no JSON"),
        ("POST /rate", "Host: localhost\r\nContent-Length: -1", 411, "Content-Length"),
    ],
    ids=range(7),
)
def test_heads_that_make_no_sense_are_answered(
    server: RatingServer,
    capfd: pytest.CaptureFixture[str],
    request_line: str,
    headers: str,
    status: int,
    problem: str,
) -> None:
    head = f"{request_line} HTTP/1.0\r\n{headers}\r\nContent-Type: application/json\r\n\r\n"
    answered, body = raw(server, head.encode())
    assert answered == status
    assert problem in body["error"]
    assert "Traceback" not in capfd.readouterr().err


def test_length_must_be_known(http: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert http.post("/rate", content=iter([b"{}"]), headers=headers).status_code == 411


def test_client_that_leaves_half_way_harms_nobody(
    http: httpx.Client, server: RatingServer, capfd: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /rate HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(3):
        with socket.create_connection(server.server_address[:2]) as connection:
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n{")
    assert ask(http, "a").status_code == 202
    assert "Traceback" not in capfd.readouterr().err


def test_disk_that_cannot_be_written_is_told(
    http: httpx.Client, server: RatingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(http, "a")
    [shown] = http.get("/next").json()["samples"]
    server.store.path = Path("/nowhere/ratings.jsonl")
    answer = http.post("/ratings", json={"ratings": {shown["id"]: 1}})
    assert answer.status_code == 500
    assert "cannot be written" in answer.json()["error"]
    assert http.get("/next").json()["waiting"] == 1


def test_command_serves_until_interrupted(tmp_path: Path) -> None:
    store = tmp_path / "ratings.jsonl"
    command = [sys.executable, "-u", "-m", "textgym.ratings", "--port", "0", "--store", str(store)]
    # Where the tests run in the background, Ctrl-C may be ignored, also in what they start.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=listen) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        url = first.split()[3].rstrip("/")
        said, typed = second.split(": ", 1)
        assert said == "Train with"
        *train, reward, option, timing = shlex.split(typed)
        assert train == ["textgym", "train", "--reward"]
        assert json.loads(reward) == {"name": "ratings", "url": f"{url}/rate"}
        assert (option, timing) == ("--timing", "delayed")
        with httpx.Client(base_url=url, trust_env=False) as http:
            ask(http, "a")
            [shown] = http.get("/next").json()["samples"]
            http.post("/ratings", json={"ratings": {shown["id"]: 1}})
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert f"1 ratings in {store}" in rest
    assert json.loads(store.read_text())["text"] == "a"


def test_port_that_is_taken_is_told(server: RatingServer, tmp_path: Path) -> None:
    from textgym.ratings.__main__ import main

    port = str(server.server_address[1])
    with pytest.raises(SystemExit) as caught:
        main(["--port", port, "--store", str(tmp_path / "other.jsonl")])
    assert caught.value.code == 1


def test_default_address_needs_no_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: RatingServer) -> None:
        raise KeyboardInterrupt

    with RatingServer(0, tmp_path / "other.jsonl") as free:
        port = free.server_address[1]
    monkeypatch.setattr(RatingServer, "serve_forever", interrupted)
    monkeypatch.setattr("textgym.ratings.server.DEFAULT_URL", f"http://127.0.0.1:{port}/rate")
    serve(port, tmp_path / "ratings.jsonl")
    typed = capsys.readouterr().out.splitlines()[1]
    assert typed == "Train with: textgym train --reward ratings --timing delayed"


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_listens_on_ipv6(tmp_path: Path, run_server: Any) -> None:
    with run_server(RatingServer(0, tmp_path / "ratings.jsonl", "::1")) as server:
        assert server.url == f"http://[::1]:{server.server_address[1]}"
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            assert ask(http, "a").status_code == 202
            assert http.get("/next", headers={"Host": "evil.invalid"}).status_code == 403
        waiting = Ratings(f"{server.url}/rate", wait=0, fallback=0.25)
        with pytest.warns(UserWarning, match=r"no rating from http://\[::1\]"):
            assert waiting.score([Sample("Once", "b", None, [], {})]) == [0.25]
        assert [submission.text for submission in server.store.next()] == ["a", "b"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_listens_on_ipv4_where_there_is_a_choice(tmp_path: Path, host: str) -> None:
    with RatingServer(0, tmp_path / "ratings.jsonl", host) as server:
        assert server.socket.family == socket.AF_INET
        assert server.url.count(":") == 2


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_that_there_are_not(tmp_path: Path, port: int) -> None:
    with pytest.raises(ValueError, match=f"a port is a number from 0 to 65535, got {port}"):
        RatingServer(port, tmp_path / "ratings.jsonl")
