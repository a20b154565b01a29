"""A rating server, services that answer as a script says, and a person who rates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from textgym.ratings import RatingServer

Answer = Callable[[list[dict[str, Any]]], tuple[int, Any]]


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RatingServer]:
    with running(RatingServer(0, tmp_path / "ratings.jsonl")) as server:
        yield server


class Service(ThreadingHTTPServer):
    """Answers each request by the next of some answers, the last of them for ever.

    An answer is a function of the samples, which returns a status and what to send as JSON, or
    bytes to send as they are.
    """

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _ServiceHandler)
        self.answers = list(answers)
        self.requests: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/rate"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side may have given up."""


class _ServiceHandler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        samples = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["samples"]
        self.server.requests.append(samples)
        self.server.headers.append(dict(self.headers))
        answers = self.server.answers
        status, body = (answers.pop(0) if len(answers) > 1 else answers[0])(samples)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Starts a service with these answers."""
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(running(Service(*answers)))


@pytest.fixture
def run_server() -> Any:
    """A context manager that runs a server in a thread."""
    return running


@pytest.fixture
def person() -> Any:
    """A context manager: somebody rates."""
    return _person


@contextmanager
def _person(url: str, opinion: Callable[[str], float]) -> Iterator[list[str]]:
    """Somebody who has the page open and rates whatever comes; yields the texts rated."""
    rated: list[str] = []
    gone = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=url, trust_env=False) as browser:
            while not gone.wait(0.01):
                samples = browser.get("/next").json()["samples"]
                ratings = {sample["id"]: opinion(sample["text"]) for sample in samples}
                if ratings:
                    assert browser.post("/ratings", json={"ratings": ratings}).status_code == 200
                    rated.extend(sample["text"] for sample in samples)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield rated
    finally:
        gone.set()
        thread.join()
