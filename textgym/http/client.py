"""Asking a service over HTTP: one request, sent again where that may help."""

from __future__ import annotations

import atexit
import ipaddress
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from textgym import extras

if TYPE_CHECKING:
    import httpx

_PASSING = (408, 425, 429)
"""Statuses below 500 that are no verdict on the request: it may be sent again."""

PROCESSING = "processing"
"""What the header `Prefer` says of a client that wants signs of life while its request waits:
interim answers of status 102. All clients should understand these; some do not."""


class ServiceDown(Exception):  # noqa: N818  # says what happened
    """A service did not answer, or said that it cannot now, however often it was asked."""


class ServiceSlow(ServiceDown):
    """A service took a request, at least the last time, and did not answer it in time."""


class ServiceRefuses(ServiceDown):
    """A service answered, at least the last time, that it cannot now."""


class WrongAnswer(Exception):  # noqa: N818  # says what happened
    """A service refused the request, or answered something else than was agreed."""


@dataclass(frozen=True)
class Endpoint:
    """An address to post JSON to.

    It holds no connection itself and may be copied and pickled. Connections are kept alive and
    shared by all that ask from this process, from whichever thread.

    Args:
        url: Where to post.
        timeout: Seconds without an answer after which a request has failed. A sign of life, an
            interim answer of status 102, begins them anew.
        retries: How often a request is sent again that failed or met with a status that says so.
        backoff: Seconds before the first such time; they double with each. A service that says by
            `Retry-After` that it needs more gets it, up to `timeout`.
        headers: Headers to send.
    """

    url: str
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def post(self, body: str, *, retry: bool = True) -> httpx.Response:
        """The first answer that is about the request, whatever it says.

        Args:
            body: What is sent, JSON.
            retry: Whether to send the request again if it fails.

        Raises:
            ServiceDown: If no request succeeded.
            WrongAnswer: If the answer cannot be decoded.
        """
        retries = self.retries if retry else 0
        library = require_httpx("what is asked over HTTP")
        connections = _connections(os.getpid(), not is_loopback(urlsplit(self.url).hostname or ""))
        headers = {**self.headers, "Content-Type": "application/json"}
        failed: type[ServiceDown]
        asked_for = 0.0
        for tried in range(retries + 1):
            if tried:
                time.sleep(max(self.backoff * 2 ** (tried - 1), min(asked_for, self.timeout)))
            asked_for = 0.0
            try:
                response: httpx.Response = connections.post(
                    self.url, content=body, headers=headers, timeout=self.timeout
                )
            except library.TransportError as error:
                failed = ServiceSlow if isinstance(error, library.ReadTimeout) else ServiceDown
                failure = f"{type(error).__name__}: {error}".removesuffix(": ")
                continue
            except library.DecodingError as error:
                raise WrongAnswer(f"a body that cannot be decoded ({error})") from error
            if response.status_code < 500 and response.status_code not in _PASSING:
                return response
            failed, failure = ServiceRefuses, f"status {described_status(response)}"
            asked_for = _retry_after(response)
        raise failed(f"{failure}, " + ("once" if not retries else f"{retries + 1} times"))


def read_list(response: httpx.Response, *keys: str) -> list[Any]:
    """The list that an answer holds under the first of `keys` that it has.

    Raises:
        WrongAnswer: If it is no JSON, or there is no such list.
    """
    try:
        answer = response.json()
    except (ValueError, RecursionError) as error:
        raise WrongAnswer(f"something that is no JSON, {response.text[:200]!r}") from error
    given = answer if isinstance(answer, dict) else {}
    found = next((given[key] for key in keys if key in given), None)
    if not isinstance(found, list):
        raise WrongAnswer(response.text[:200])
    return found


def described_status(response: httpx.Response) -> str:
    """The status of an answer and how it begins, or where it leads."""
    where = response.headers.get("Location")
    said = f"to {where}" if where else repr(response.text[:200])
    return f"{response.status_code} {response.reason_phrase} ({said})"


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # some other name
        return False


def require_httpx(wanted_by: str) -> Any:
    """The library; raises MissingExtra if it is not installed."""
    return extras.require("httpx", extra="ratings", wanted_by=wanted_by)


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a service asks for before the next try; 0 if it names none, or a date."""
    said = response.headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0


@cache
def _connections(pid: int, trust_env: bool) -> httpx.Client:
    """The connections that this process keeps; those of another would be shared after a fork.

    With `trust_env` through the proxies that environment variables name, which cannot reach
    what listens on this machine only.
    """
    library = require_httpx("what is asked over HTTP")
    # How many ask at a time is up to them: to wait for a connection would count as a failure.
    limits = library.Limits(max_connections=None, max_keepalive_connections=20)
    connections: httpx.Client = library.Client(trust_env=trust_env, limits=limits)
    atexit.register(connections.close)
    return connections
