"""A score that is made elsewhere, and asked for over HTTP."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, partial
from typing import ClassVar

from textgym.arguments import is_number, is_payable
from textgym.completion import Sample
from textgym.http.arguments import check_number, check_url, expand_headers
from textgym.http.client import (
    PROCESSING,
    Endpoint,
    ServiceDown,
    ServiceRefuses,
    ServiceSlow,
    WrongAnswer,
    described_status,
    read_list,
)
from textgym.rewards.base import RewardError
from textgym.rewards.parameters import check_choice, check_whole_number
from textgym.rewards.remote import DaemonThreads, distinct
from textgym.rewards.wire import ANSWERS, DEFAULT_PORT, SCORE_PATH, Form, FormatError, request

_NAME = "http"

_EXAMPLE = f"http://127.0.0.1:{DEFAULT_PORT}{SCORE_PATH}"


@dataclass(frozen=True)
class HTTPScore:
    """What a service over HTTP gives the text; the range is the service's.

    `textgym serve --reward NAME` is such a service, on another machine if need be;
    `textgym.rewards.wire` shows what is sent and answered as JSON, in a form that services for TRL
    or OpenRLHF understand. All texts of a step are one request, a text that occurs twice in it is
    sent once, and connections are kept. Nothing is asked before the first text is scored.

    The service must give a text the same number whatever it is asked beside it and whenever.

    Args:
        url: Where to post. The proxies that environment variables name are used, but not for an
            address of this machine.
        timeout: Seconds without an answer after which a request has failed. While `textgym serve`
            scores others they do not count; with another service, those in its queue do.
        retries: How often a request is sent again that failed, or met with status 408, 425, 429
            or from 500 on.
        backoff: Seconds before the first such time; they double with each. A service that says by
            `Retry-After` that it needs more gets it, up to `timeout`.
        max_calls: Requests that a process has under way at a time; others wait here, which counts
            for nothing. As many as the service scores at a time (`textgym serve --workers`).
        headers: Headers to send, such as `{"Authorization": "Bearer $SCORE_TOKEN"}`. `$NAME`
            stands for an environment variable, so that a run file holds no secret, `$$` for `$`.
        form: "trl", the arguments of a TRL reward function, or "openrlhf", for servers made for
            its `remote_rm_url`.
        columns: The columns of the task that are sent; None for all.
        token_ids: Whether the service looks at token ids, too: then they are sent, and a token
            that leaves the text as it was is scored like any other.
        success_threshold: The score from which on a finished text counts as a success; None if
            the score does not tell.

    Raises:
        ValueError: If an argument is refused.
        MissingExtra: If httpx is not installed.
        RewardError: When it scores: if there is no answer, or the answer is wrong, which is one
            of another form or a status that no repetition mends.
    """

    url: str
    timeout: float = 30.0
    retries: int = 4
    backoff: float = 0.5
    max_calls: int = 1
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    form: Form = "trl"
    columns: Sequence[str] | None = None
    token_ids: bool = False
    success_threshold: float | None = None

    score_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    needs: ClassVar[str] = "a scoring service; httpx"

    def __post_init__(self) -> None:
        check_url(_NAME, self.url, _EXAMPLE)
        check_number(_NAME, "timeout", self.timeout, "seconds, above 0", 1e-9)
        check_whole_number(_NAME, "retries", self.retries, 0)
        check_number(_NAME, "backoff", self.backoff, "seconds, from 0 on", 0.0)
        check_whole_number(_NAME, "max_calls", self.max_calls, 1)
        expand_headers(_NAME, self.headers)
        check_choice(_NAME, "form", self.form, ("trl", "openrlhf"))
        if self.token_ids and self.form == "openrlhf":
            raise ValueError("http: the form 'openrlhf' has no token_ids; leave them out.")
        names = () if self.columns is None else self.columns
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"http: columns are a list of names, got {self.columns!r}.")
        if self.success_threshold is not None and not is_number(self.success_threshold):
            raise ValueError(
                f"http: success_threshold is a number or None, got {self.success_threshold!r}."
            )

    @property
    def text_only(self) -> bool:
        """Whether the score depends on the text alone."""
        return not self.token_ids

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """What the service gives each sample."""
        return self.submit(samples).result()

    def submit(self, samples: Sequence[Sample]) -> Future[Sequence[float]]:
        """Have samples scored; what `score` would return or raise is the result of the future."""
        threads = _threads(os.getpid(), self.url, self.max_calls)
        return threads.submit(partial(self._ask, samples))

    def _ask(self, samples: Sequence[Sample]) -> Sequence[float]:
        asked, which = distinct(samples, text_only=self.text_only)
        try:
            body = json.dumps(request(asked, self.form, self.columns, token_ids=self.token_ids))
        except (TypeError, FormatError) as error:
            problem = (
                f"cannot send the columns of the task: {error}. Say which ones to send, such as "
                "columns=[]"
            )
            raise RewardError(_NAME, problem, samples[0]) from error
        headers = {"Prefer": PROCESSING, **expand_headers(_NAME, self.headers)}
        endpoint = Endpoint(self.url, self.timeout, self.retries, self.backoff, headers)
        try:
            response = endpoint.post(body)
            if response.status_code != 200:
                raise WrongAnswer(f"status {described_status(response)}")
            scores = read_list(response, *ANSWERS)
            if len(scores) != len(asked):
                raise WrongAnswer(f"{len(scores)} numbers for {len(asked)} texts")
        except ServiceDown as error:
            problem = f"gets no answer from {self.url}: {error}. {self._cure(error)}"
            raise RewardError(_NAME, problem, samples[0]) from error
        except WrongAnswer as error:
            problem = (
                f"got a wrong answer from {self.url}: {error}. Expected: status 200 and "
                f'{{"{ANSWERS[0]}": [a number for each text]}}'
            )
            raise RewardError(_NAME, problem, samples[0]) from error
        for score, sample in zip(scores, asked, strict=True):
            if not is_payable(score):
                problem = f"got {score!r:.200} from {self.url}; expected a finite number"
                raise RewardError(_NAME, problem, sample)
        return [float(scores[k]) for k in which]

    def _cure(self, error: ServiceDown) -> str:
        if isinstance(error, ServiceSlow):
            return (
                f"The service is there, but took more than {self.timeout:g} seconds for a call: "
                "raise timeout, let it score more calls at a time (textgym serve --workers), or "
                f"send it fewer (max_calls is {self.max_calls}, for each process)"
            )
        if isinstance(error, ServiceRefuses):
            return "The service is there, but cannot: see why there, or raise retries"
        return "Start the service or correct url"


@cache
def _threads(pid: int, url: str, max_calls: int) -> DaemonThreads:
    """The threads of this process that ask one service; those of another do not survive a fork."""
    return DaemonThreads(max_calls)
