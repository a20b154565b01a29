"""Asking a rating service: one request, sent again where that may help, its answer checked."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from textgym import extras
from textgym.ratings.protocol import Submission, is_loopback, is_rating

if TYPE_CHECKING:
    import httpx

_PASSING = (408, 425, 429)
"""Statuses below 500 that are no verdict on the request: it may be sent again."""


class ServiceDown(Exception):  # noqa: N818  # says what happened
    """A service did not answer, or said that it cannot now, however often it was asked."""


class WrongAnswer(Exception):  # noqa: N818  # says what happened
    """A service answered something else than ratings of what it was asked about."""


@dataclass(frozen=True)
class RatingClient:
    """The training run's side of `textgym.ratings.protocol`.

    It holds no connection itself and may be copied and pickled.

    Args:
        url: Where to post.
        timeout: Seconds without an answer after which a request has failed.
        retries: How often a request is sent again that failed or met with a status that says so.
        backoff: Seconds before the first such time; they double with each.
        headers: Headers to send.
    """

    url: str
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ask(
        self, submissions: Sequence[Submission], *, retry: bool = True
    ) -> tuple[list[float | None], bool]:
        """The ratings of some texts.

        Args:
            submissions: The texts.
            retry: Whether to send the request again if it fails.

        Returns:
            The rating of each, None where there is none; and whether those are still to come.

        Raises:
            ServiceDown: If no request succeeded.
            WrongAnswer: If the request is refused, or the answer is not as agreed.
        """
        body = json.dumps({"samples": [submission.to_json() for submission in submissions]})
        response = self._post(body, self.retries if retry else 0)
        if response.status_code not in (200, 202):
            raise WrongAnswer(f"status {_status(response)}; expected 200 or 202")
        ratings = _ratings(response)
        if len(ratings) != len(submissions):
            raise WrongAnswer(f"{len(ratings)} ratings for {len(submissions)} samples")
        for rating in ratings:
            if rating is not None and not is_rating(rating):
                raise WrongAnswer(f"the rating {rating!r:.200}; expected a finite number or null")
        return ratings, response.status_code == 202

    def _post(self, body: str, retries: int) -> httpx.Response:
        """The first answer that is about the request, whatever it says."""
        library = _httpx()
        connections = _connections(os.getpid(), not is_loopback(urlsplit(self.url).hostname or ""))
        headers = {**self.headers, "Content-Type": "application/json"}
        for tried in range(retries + 1):
            if tried:
                time.sleep(self.backoff * 2 ** (tried - 1))
            try:
                response: httpx.Response = connections.post(
                    self.url, content=body, headers=headers, timeout=self.timeout
                )
            except library.TransportError as error:
                failure = f"{type(error).__name__}: {error}".removesuffix(": ")
                continue
            except library.DecodingError as error:
                raise WrongAnswer(f"a body that cannot be decoded ({error})") from error
            if response.status_code < 500 and response.status_code not in _PASSING:
                return response
            failure = f"status {_status(response)}"
        raise ServiceDown(f"{failure}, " + ("once" if not retries else f"{retries + 1} times"))


def _ratings(response: httpx.Response) -> list[Any]:
    try:
        answer = response.json()
    except (ValueError, RecursionError) as error:
        raise WrongAnswer(f"something that is no JSON, {response.text[:200]!r}") from error
    ratings = answer.get("ratings") if isinstance(answer, dict) else None
    if not isinstance(ratings, list):
        raise WrongAnswer(f"{response.text[:200]}; expected {{'ratings': [number, ...]}}")
    return ratings


def _status(response: httpx.Response) -> str:
    where = response.headers.get("Location")
    said = f"to {where}" if where else repr(response.text[:200])
    return f"{response.status_code} {response.reason_phrase} ({said})"


def _httpx() -> Any:
    return extras.require("httpx", extra="ratings", wanted_by="reward 'ratings'")


@cache
def _connections(pid: int, trust_env: bool) -> httpx.Client:
    """The connections that this process keeps; those of another would be shared after a fork.

    With `trust_env` through the proxies that environment variables name, which cannot reach
    what listens on this machine only.
    """
    connections: httpx.Client = _httpx().Client(trust_env=trust_env)
    atexit.register(connections.close)
    return connections
