"""A server where people rate texts in their browser, and training runs fetch the ratings."""

from __future__ import annotations

import json
import shlex
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from textgym.ratings.page import CONTENT_SECURITY_POLICY, PAGE
from textgym.ratings.protocol import (
    DEFAULT_PORT,
    DEFAULT_URL,
    LARGEST_REQUEST,
    RATE_PATH,
    ProtocolError,
    Submission,
    is_loopback,
    is_rating,
)
from textgym.ratings.store import RatingStore
from textgym.shell import program


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


class RatingServer(ThreadingHTTPServer):
    """The server; `serve_forever()` runs it, `shutdown()` from another thread ends it.

    * `POST /rate`: the raters' side of `textgym.ratings.protocol`.
    * `GET /`: the page on which people rate: 1 to 5 there are -1, -0.5, 0, 0.5 and 1.
    * `GET /next`: what the page shows, `{"samples": […], "waiting": 12, "rated": 30}`.
    * `POST /ratings`: what the page sends, `{"ratings": {id: number or null, …}}`; null puts a
      text off.

    Other web sites that a rater has open cannot use it: what is posted must be declared as JSON,
    which a page of another origin may not do, and on a loopback address the request must name
    that address or localhost, against names that are made to point here.

    Args:
        port: The port; 0 for any that is free.
        store: The store, or the path of its file.
        host: The address to listen on, of IPv4 or IPv6; of a name that has both, that of IPv4.
    """

    request_queue_size = 128  # runs and pages that ask at the same moment

    def __init__(self, port: int, store: RatingStore | str | Path, host: str = "127.0.0.1") -> None:
        self.store = store if isinstance(store, RatingStore) else RatingStore(store)
        self.only_loopback = is_loopback(host)
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is a number from 0 to 65535, got {port}.")
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
        families = {family for family, *_ in found}
        self.address_family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Its address, such as `"http://127.0.0.1:8000"`."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, unless it is only that the other side has gone."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Refused(Exception):  # noqa: N818  # says what happened
    """A request is answered with an error status."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One request on one connection: kept ones would outlive a server that is shut down."""

    server: RatingServer
    timeout = 30  # seconds without a byte, after which a connection is dropped

    def do_GET(self) -> None:
        """The page, and what it shows."""
        self._answer_to(self._get)

    def do_POST(self) -> None:
        """Samples from a run, and ratings from the page."""
        self._answer_to(self._post)

    def _answer_to(self, handle: Any) -> None:
        try:
            self._check_host()
            status, body, content_type = handle(_split(self.path).path)
        except _Refused as refused:
            problem = json.dumps({"error": str(refused)})
            status, body, content_type = refused.status, problem, "application/json"
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def _get(self, path: str) -> tuple[HTTPStatus, str, str]:
        if path == "/":
            return HTTPStatus.OK, PAGE, "text/html; charset=utf-8"
        if path == "/next":
            samples = [submission.to_json() for submission in self.server.store.next()]
            return _json(HTTPStatus.OK, {"samples": samples, **self.server.store.counts()})
        raise self._not_found(path)

    def _post(self, path: str) -> tuple[HTTPStatus, str, str]:
        body = self._read_json()
        if path == RATE_PATH:
            ratings = self.server.store.request(_submissions(body))
            status = HTTPStatus.ACCEPTED if None in ratings else HTTPStatus.OK
            return _json(status, {"ratings": ratings})
        if path == "/ratings":
            return _json(HTTPStatus.OK, {"saved": self._rate(_ratings(body))})
        raise self._not_found(path)

    def _rate(self, ratings: dict[str, float | None]) -> int:
        try:
            return self.server.store.rate(ratings)
        except OSError as error:
            problem = f"{self.server.store.path} cannot be written: {error}"
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR, problem) from error

    def _check_host(self) -> None:
        host = _split(f"//{self.headers.get('Host', '')}").hostname
        if self.server.only_loopback and not is_loopback(host or ""):
            raise _Refused(
                HTTPStatus.FORBIDDEN, f"this server is {self.server.url}, and not {host!r}."
            )

    def _read_json(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            problem = "send JSON, with the header Content-Type: application/json."
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem)
        digits = self.headers.get("Content-Length", "")
        if not (digits.isascii() and digits.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "send the header Content-Length.")
        length = int(digits[:20])  # that is too many already, and int refuses thousands
        if length > LARGEST_REQUEST:
            self._discard(length)
            problem = f"the body is too large; at most {LARGEST_REQUEST} bytes at a time."
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
        try:
            body = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"this is no JSON: {error}.") from error
        if not isinstance(body, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "expected an object of JSON.")
        return body

    def _discard(self, length: int) -> None:
        """Read what is refused, within reason: a sender hears of it only once all is sent."""
        left = length if length <= 8 * LARGEST_REQUEST else 0
        while left > 0 and (chunk := self.rfile.read(min(left, 1 << 16))):
            left -= len(chunk)

    def _not_found(self, path: str) -> _Refused:
        return _Refused(
            HTTPStatus.NOT_FOUND, f"nothing at {path!r}; training runs post to {RATE_PATH!r}."
        )

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the page asks every few seconds."""


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        problem = f"{url!r:.200} is no address: {error}."
        raise _Refused(HTTPStatus.BAD_REQUEST, problem) from error


def _submissions(body: dict[str, Any]) -> list[Submission]:
    samples = body.get("samples")
    if not isinstance(samples, list):
        raise _Refused(HTTPStatus.BAD_REQUEST, "expected {'samples': [...]}.")
    try:
        return [Submission.from_json(sample) for sample in samples]
    except ProtocolError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error


def _ratings(body: dict[str, Any]) -> dict[str, float | None]:
    ratings = body.get("ratings")
    if not isinstance(ratings, dict):
        raise _Refused(HTTPStatus.BAD_REQUEST, "expected {'ratings': {id: number or null}}.")
    wrong = [value for value in ratings.values() if value is not None and not is_rating(value)]
    if wrong:
        problem = f"a rating is a finite number, or null to put a text off; got {wrong[0]!r:.200}."
        raise _Refused(HTTPStatus.BAD_REQUEST, problem)
    return ratings


def _json(status: HTTPStatus, value: Any) -> tuple[HTTPStatus, str, str]:
    return status, json.dumps(value), "application/json"
