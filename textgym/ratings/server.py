"""A server where people rate texts in their browser, and training runs fetch the ratings."""

from __future__ import annotations

import json
import shlex
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

from textgym.arguments import is_payable
from textgym.http.client import is_loopback
from textgym.http.server import Answer, JSONHandler, JSONServer, Refused, as_json, misdirected
from textgym.ratings.page import CONTENT_SECURITY_POLICY, PAGE
from textgym.ratings.protocol import (
    DEFAULT_PORT,
    DEFAULT_URL,
    LARGEST_REQUEST,
    RATE_PATH,
    ProtocolError,
    Submission,
)
from textgym.ratings.store import RatingStore
from textgym.shell import program

_SERVED = {"/": "GET", "/next": "GET", RATE_PATH: "POST", "/ratings": "POST"}


def serve(
    port: int = DEFAULT_PORT, store: str | Path = "ratings.jsonl", host: str = "127.0.0.1"
) -> None:
    """Let people rate texts at `http://host:port/`, until Ctrl-C.

    There is no password. On the default host only this machine gets in (from another one by
    `ssh -L 8000:127.0.0.1:8000 machine`); on any other, whoever reaches it can read the texts
    and rate them.

    Args:
        port: The port; 0 for any that is free.
        store: The file of ratings, JSON lines; it is kept and added to.
        host: The address to listen on.

    Raises:
        OSError: If the port is taken, or the address unknown.
        ValueError: If the file holds something else than ratings, or there is no such port.
    """
    with RatingServer(port, store, host) as server:
        print(f"Rate texts at {server.url}/ - ratings are kept in {server.store.path}.", flush=True)
        print(f"Train with: {_command(server.url + RATE_PATH)}", flush=True)
        if not is_loopback(host):
            print(f"No password: whoever reaches {host} can read and rate.", file=sys.stderr)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\n{server.store.counts()['rated']} ratings in {server.store.path}.")


def _command(url: str) -> str:
    """What to type so that training asks there; delayed, for nobody can rate each token."""
    reward = "ratings" if url == DEFAULT_URL else json.dumps({"name": "ratings", "url": url})
    return f"{program()} train --reward {shlex.quote(reward)} --timing delayed"


class RatingServer(JSONServer):
    """The server; `serve_forever()` runs it, `shutdown()` from another thread ends it.

    * `POST /rate`: the raters' side of `textgym.ratings.protocol`.
    * `GET /`: the page on which people rate: 1 to 5 there are -1, -0.5, 0, 0.5 and 1.
    * `GET /next`: what the page shows, `{"samples": […], "waiting": 12, "rated": 30}`.
    * `POST /ratings`: what the page sends, `{"ratings": {id: number or null, …}}`; null puts a
      text off.

    Args:
        port: The port; 0 for any that is free.
        store: The store, or the path of its file.
        host: The address to listen on, of IPv4 or IPv6; of a name that has both, that of IPv4.
    """

    largest_request = LARGEST_REQUEST

    def __init__(self, port: int, store: RatingStore | str | Path, host: str = "127.0.0.1") -> None:
        self.store = store if isinstance(store, RatingStore) else RatingStore(store)
        super().__init__(port, host, _Handler)


class _Handler(JSONHandler):
    """One request on one connection: kept ones would outlive a server that is shut down."""

    server: RatingServer
    headers_sent = (
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    )

    def get(self, path: str) -> Answer:
        """The page, and what it shows."""
        if path == "/":
            return Answer(HTTPStatus.OK, PAGE, "text/html; charset=utf-8")
        if path == "/next":
            samples = [submission.to_json() for submission in self.server.store.next()]
            return as_json({"samples": samples, **self.server.store.counts()})
        raise misdirected("GET", path, _SERVED)

    def post(self, path: str) -> Answer:
        """Samples from a run, and ratings from the page."""
        body = self.read_json()
        if path == RATE_PATH:
            ratings = self.server.store.request(_submissions(body))
            status = HTTPStatus.ACCEPTED if None in ratings else HTTPStatus.OK
            return as_json({"ratings": ratings}, status)
        if path == "/ratings":
            return as_json({"saved": self._rate(_ratings(body))})
        raise misdirected("POST", path, _SERVED)

    def _rate(self, ratings: dict[str, float | None]) -> int:
        try:
            return self.server.store.rate(ratings)
        except OSError as error:
            problem = f"{self.server.store.path} cannot be written: {error}"
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, problem) from error


def _submissions(body: dict[str, Any]) -> list[Submission]:
    samples = body.get("samples")
    if not isinstance(samples, list):
        raise Refused(HTTPStatus.BAD_REQUEST, "expected {'samples': [...]}.")
    try:
        return [Submission.from_json(sample) for sample in samples]
    except ProtocolError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error


def _ratings(body: dict[str, Any]) -> dict[str, float | None]:
    ratings = body.get("ratings")
    if not isinstance(ratings, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "expected {'ratings': {id: number or null}}.")
    wrong = [value for value in ratings.values() if value is not None and not is_payable(value)]
    if wrong:
        problem = f"a rating is a finite number, or null to put a text off; got {wrong[0]!r:.200}."
        raise Refused(HTTPStatus.BAD_REQUEST, problem)
    return ratings
