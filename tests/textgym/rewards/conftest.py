"""Servers that score texts, and services that answer as a script says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any

import pytest

from textgym.http.server import Answer, JSONHandler, JSONServer, as_json
from textgym.rewards import make_score
from textgym.rewards.serving import ScoreServer


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
def run_server() -> Any:
    """A context manager that runs a server in a thread."""
    return running


@pytest.fixture
def serve() -> Iterator[Callable[..., ScoreServer]]:
    """Serves a reward on a free port."""
    with ExitStack() as stack:

        def serve(reward: Any, port: int = 0, **settings: Any) -> ScoreServer:
            server = ScoreServer(make_score(reward), "a reward", port, **settings)
            return stack.enter_context(running(server))

        yield serve


class Service(JSONServer):
    """Answers each request by the next of some answers, the last of them for ever.

    An answer is a status and what to send as JSON or as it stands, or what makes both of the body.
    """

    def __init__(self, *answers: Any) -> None:
        super().__init__(0, "127.0.0.1", _ServiceHandler)
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []


class _ServiceHandler(JSONHandler):
    server: Service

    def post(self, path: str) -> Answer:
        body = self.read_json()
        self.server.requests.append(body)
        self.server.headers.append(dict(self.headers))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        status, said = answer(body) if callable(answer) else answer
        if isinstance(said, str):
            return Answer(HTTPStatus(status), said)
        return as_json(said, HTTPStatus(status))


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Starts a service with these answers."""
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(running(Service(*answers)))
