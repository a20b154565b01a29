"""A server that scores texts for training runs on other machines."""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from textgym.completion import Sample
from textgym.http.server import Answer, JSONHandler, JSONServer, Refused, as_json, misdirected
from textgym.http.turns import Turns
from textgym.rewards.base import RewardError, Score
from textgym.rewards.shaping import checked_scores
from textgym.rewards.wire import ANSWERS, SCORE_PATH, FormatError, read_request

HEALTH_PATH = "/health"

_SERVED = {SCORE_PATH: "POST", HEALTH_PATH: "GET"}


class ScoreServer(JSONServer):
    """The service that the reward "http" asks; `serve_forever()` runs it, `shutdown()` ends it.

    * `POST /score`: the service's side of `textgym.rewards.wire`. Texts that the score refuses
      are answered with status 422, which no repetition mends.
    * `GET /health`: `{"status": "ok", "reward": "sentiment", "calls": 12, "texts": 768,
      "waiting": 0}`, of which the last are calls that wait.

    Connections are kept. Calls are scored in the order in which they came; one that has to wait
    may hear that others get on, and one whose sender has gone is not scored. See `JSONServer`
    about who may ask.

    Args:
        score: Scores the texts.
        name: What it is called, for `/health`.
        port: The port; 0 for any that is free.
        host: The address to listen on.
        workers: Batches that are scored at a time; others wait. More than one for a score that is
            thread-safe and waits for something.
        token: What requests must bear, `Authorization: Bearer TOKEN`; None lets everybody ask.

    Raises:
        OSError: If the port is taken, or the address unknown.
        ValueError: If there is no such port.
    """

    largest_request = 64 << 20

    def __init__(
        self,
        score: Score,
        name: str,
        port: int,
        host: str = "127.0.0.1",
        *,
        workers: int = 1,
        token: str | None = None,
    ) -> None:
        self.score = score
        self.name = name
        self.token = token
        self.calls = self.texts = 0
        self.turns = Turns(workers)
        self._counting = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(port, host, _Handler)

    def scores(self, samples: Sequence[Sample]) -> list[float]:
        """The checked scores of some samples.

        Raises:
            RewardError: If the score raises, or gives something else.
        """
        scores: list[float] = checked_scores(self.score, samples).tolist()
        with self._counting:
            self.calls += 1
            self.texts += len(samples)
        return scores

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, and remember it."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close all connections, too: those that are kept would go on to be served."""
        super().server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the other side was faster
                continue


class _Handler(JSONHandler):
    """The requests of one connection, one after the other."""

    server: ScoreServer
    protocol_version = "HTTP/1.1"  # connections are kept
    wbufsize = -1  # head and body of an answer leave together
    disable_nagle_algorithm = True

    def get(self, path: str) -> Answer:
        """Whether all is well, and what was done so far."""
        server = self.server
        if path != HEALTH_PATH:
            raise misdirected("GET", path, _SERVED)
        counts = {"calls": server.calls, "texts": server.texts, "waiting": server.turns.waiting}
        return as_json({"status": "ok", "reward": server.name, **counts})

    def post(self, path: str) -> Answer:
        """The scores of a batch."""
        self._check_token()  # nothing is made of what others send
        body = self.read_json()
        if path != SCORE_PATH:
            raise misdirected("POST", path, _SERVED)
        try:
            samples = read_request(body)
            with self.server.turns.turn(self.say_processing):
                scores = self.server.scores(samples)
        except FormatError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        except RewardError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return as_json({ANSWERS[0]: scores})

    def _check_token(self) -> None:
        token = self.server.token
        given = self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {token}".encode()
        ):
            self.discard_body()
            problem = "send the header Authorization: Bearer TOKEN with the token of this server."
            raise Refused(HTTPStatus.UNAUTHORIZED, problem)
