"""A server of JSON for programs of ours, careful about who asks."""

from __future__ import annotations

import errno
import json
import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from textgym.http.client import PROCESSING, is_loopback


class Answer(NamedTuple):
    """What a request is answered with.

    Attributes:
        status: The status.
        body: What is sent.
        content_type: What that is.
    """

    status: HTTPStatus
    body: str
    content_type: str = "application/json"


class Refused(Exception):  # noqa: N818  # says what happened
    """A request is answered with an error status, and with what the matter is."""

    def __init__(
        self, status: HTTPStatus, problem: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


class JSONServer(ThreadingHTTPServer):
    """A server; `serve_forever()` runs it, `shutdown()` from another thread ends it.

    Other web sites that somebody has open cannot use it: what is posted must be declared as JSON,
    which a page of another origin may not do, and on a loopback address the request must name
    that address or localhost, against names that are made to point here.

    Args:
        port: The port; 0 for any that is free.
        host: The address to listen on, of IPv4 or IPv6; of a name that has both, that of IPv4.
        handler: Answers the requests.

    Raises:
        OSError: If the port is taken, or the address unknown.
        ValueError: If there is no such port.
    """

    request_queue_size = 128  # those that ask at the same moment
    largest_request = 8 << 20

    def __init__(self, port: int, host: str, handler: type[JSONHandler]) -> None:
        self.only_loopback = is_loopback(host)
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is a number from 0 to 65535, got {port}.")
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
            families = {family for family, *_ in found}
            self.address_family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
            super().__init__((host, port), handler)
        except OSError as error:
            raise OSError(f"cannot listen on {host}, port {port}: {_cure(error)}.") from error

    @property
    def url(self) -> str:
        """Its address, such as `"http://127.0.0.1:8000"`."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, unless it is only that the other side has gone."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class JSONHandler(BaseHTTPRequestHandler):
    """Reads requests and answers them; `get` and `post` say what with."""

    timeout = 30  # seconds without a byte, after which a connection is dropped
    headers_sent: tuple[tuple[str, str], ...] = ()
    """Headers of every answer, beside those that all have."""

    def get(self, path: str) -> Answer:
        """The answer to GET; raises Refused."""
        raise NotImplementedError

    def post(self, path: str) -> Answer:
        """The answer to POST, whose body `read_json` gives; raises Refused."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer by `get`."""
        self._answer_by(self.get)

    def do_POST(self) -> None:
        """Answer by `post`."""
        self._answer_by(self.post)

    def read_json(self) -> dict[str, Any]:
        """The body of the request.

        Raises:
            Refused: If it is no object of JSON, or too large.
        """
        if self.headers.get_content_type() != "application/json":
            problem = "send JSON, with the header Content-Type: application/json."
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem)
        length = self._length()
        if length > self._server.largest_request:
            self.discard_body()
            problem = (
                f"the body is too large; at most {self._server.largest_request} bytes at a time."
            )
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
        try:
            body = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"this is no JSON: {error}.") from error
        if not isinstance(body, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "expected an object of JSON.")
        return body

    def discard_body(self) -> None:
        """Read what is refused, within reason: a sender hears of it only once all is sent.

        Raises:
            Refused: If its length is not said.
        """
        length = self._length()
        left = length if length <= 8 * self._server.largest_request else 0
        while left > 0 and (chunk := self.rfile.read(min(left, 1 << 16))):
            left -= len(chunk)

    def say_processing(self) -> None:
        """Tell who asked that all is well so far, if they prefer to hear that.

        Raises:
            ConnectionAbortedError: If they have gone: nobody would read the answer.
        """
        if self._is_alone():
            raise ConnectionAbortedError("the other side has gone")
        preferred = {name.strip() for name in self.headers.get("Prefer", "").split(",")}
        # HTTP/1.0 has no such answers.
        if PROCESSING in preferred and self.request_version != "HTTP/1.0":
            self.send_response_only(HTTPStatus.PROCESSING)
            self.end_headers()
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: some ask every few seconds, others many times a second."""

    @property
    def _server(self) -> JSONServer:
        assert isinstance(self.server, JSONServer)
        return self.server

    def _answer_by(self, answer: Callable[[str], Answer]) -> None:
        try:
            self._check_host()
            status, body, content_type = answer(_split(self.path).path)
            headers = self.headers_sent
        except Refused as refused:
            # What is left of the body would be taken for the next request.
            self.close_connection = True
            status, body, content_type = as_json({"error": str(refused)}, refused.status)
            headers = self.headers_sent + refused.headers
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _is_alone(self) -> bool:
        """Whether the other side has closed the connection."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:  # it is there, and says nothing
            return False
        except ConnectionError:
            return True
        finally:
            self.connection.settimeout(self.timeout)

    def _check_host(self) -> None:
        host = _split(f"//{self.headers.get('Host', '')}").hostname
        if self._server.only_loopback and not is_loopback(host or ""):
            raise Refused(
                HTTPStatus.FORBIDDEN, f"this server is {self._server.url}, and not {host!r}."
            )

    def _length(self) -> int:
        digits = self.headers.get("Content-Length", "")
        if not (digits.isascii() and digits.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send the header Content-Length.")
        return int(digits[:20])  # that is too many already, and int refuses thousands


def as_json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer that is JSON."""
    return Answer(status, json.dumps(value))


def misdirected(method: str, path: str, served: Mapping[str, str]) -> Refused:
    """What those hear who ask for what is not served, or by another method than it is.

    Args:
        method: By which they ask.
        path: What they ask for.
        served: The method of each path.
    """
    there = ", ".join(f"{served[path]} {path}" for path in served)
    if path in served:
        problem = f"{path!r} takes {served[path]}, not {method}; this server has {there}."
        return Refused(HTTPStatus.METHOD_NOT_ALLOWED, problem, (("Allow", served[path]),))
    return Refused(HTTPStatus.NOT_FOUND, f"nothing at {path!r}; this server has {there}.")


def _cure(error: OSError) -> str:
    """Why there is no listening at an address, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return "another program has the port. End that, or give another port; 0 is any free one"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return (
            "this machine has no such address. Give 127.0.0.1 as the host, which only this machine "
            "reaches, or 0.0.0.0 for all addresses that it has"
        )
    if error.errno == errno.EACCES:
        return "the system lets only administrators have it. Give another port, from 1024 on"
    return error.strerror or str(error)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{url!r:.200} is no address: {error}.") from error
