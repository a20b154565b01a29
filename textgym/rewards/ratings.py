"""Ratings by people, or by any service, fetched over HTTP while training waits or goes on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from textgym.completion import Sample
from textgym.http.arguments import check_number, check_url, expand_headers
from textgym.http.client import ServiceDown, WrongAnswer
from textgym.ratings.arguments import check_fallback
from textgym.ratings.client import RatingClient
from textgym.ratings.protocol import DEFAULT_URL, Submission
from textgym.rewards.base import RewardError
from textgym.rewards.parameters import check_whole_number

_NAME = "ratings"

_REMEMBERED = 1 << 16
"""Ratings that an object remembers; what it forgets, the service still knows."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """What raters give the text over HTTP, people or a service; the range is theirs.

    Texts are posted to `url` and their ratings come back; `textgym.ratings.protocol` shows both
    as JSON. `textgym rate` is such a service: a page on which people rate from -1 to 1. Every
    text is sent, the empty one too. One that has its rating is not asked for again: the rating
    belongs to prompt, text and reference.

    Nobody can rate each token: give `timing="delayed"`, or `every="sentence"` with patient
    raters; and many environments, so that there are texts to compare.

    What happens to a text that has no rating yet:

    * Training waits, up to `wait` seconds, and asks again every `poll` seconds.
    * Training goes on, with `wait=0` and a `fallback`: the text is paid the fallback now. The
      raters keep it. The last `batch_size` of such texts are asked for again along with new
      ones, and their ratings count in the mean, and for the text if it is written once more. So
      with a fallback the score of a text depends on when it is asked for.

    Args:
        url: Where to post. The proxies that environment variables name are used, but not for an
            address of this machine.
        wait: Seconds to wait for ratings that are promised (status 202); None for as long as it
            takes.
        fallback: What a text is paid that has no rating, because the service is down, rates it
            not, or the wait is over: a number, or "mean" for the mean of the ratings received so
            far, 0 before the first; the mean starts anew when a run is resumed. A warning says
            so. While the service is down it is asked every `timeout` seconds, once. None raises
            an error instead. A wrong answer is an error in any case.
        batch_size: Texts a request, at most.
        timeout: Seconds without an answer after which a request has failed.
        retries: How often a request is sent again that failed or met with a status that says so.
        backoff: Seconds before the first such time; they double with each.
        poll: Seconds between asking for ratings that are promised.
        headers: Headers to send, such as `{"Authorization": "Bearer $RATINGS_TOKEN"}`. `$NAME`
            stands for an environment variable, so that a run file holds no secret, `$$` for `$`.

    Raises:
        ValueError: If an argument is refused.
        MissingExtra: If httpx is not installed.
        RewardError: When it scores: if there is no rating and no fallback, or if the answer is
            wrong, which is one of another form or a status that no repetition mends.
    """

    url: str = DEFAULT_URL
    wait: float | None = 600.0
    fallback: float | str | None = None
    batch_size: int = 32
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    poll: float = 1.0
    headers: Mapping[str, str] | None = field(default=None, repr=False)

    score_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    needs: ClassVar[str] = "a rating service; httpx"
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_url(_NAME, self.url, DEFAULT_URL)
        check_fallback(self.fallback)
        if self.wait is not None:
            check_number(
                _NAME, "wait", self.wait, "seconds, 0 to go on at once, or None for ever", 0.0
            )
        check_whole_number(_NAME, "batch_size", self.batch_size, 1)
        check_whole_number(_NAME, "retries", self.retries, 0)
        check_number(_NAME, "timeout", self.timeout, "seconds, above 0", 1e-9)
        check_number(_NAME, "poll", self.poll, "seconds, above 0", 1e-9)
        check_number(_NAME, "backoff", self.backoff, "seconds, from 0 on", 0.0)
        expand_headers(_NAME, self.headers)

    def __getstate__(self) -> dict[str, Any]:
        """The arguments alone: what has been rated, the service knows."""
        return {argument.name: getattr(self, argument.name) for argument in fields(self)}

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The rating of each text, or the fallback."""
        submissions = [Submission(s.prompt, s.text, s.reference) for s in samples]
        known = self._memory.ratings
        ratings = {s: known[s] for s in submissions if s in known}
        missing = {
            submission: sample
            for submission, sample in zip(submissions, samples, strict=True)
            if submission not in ratings
        }
        if missing:
            ratings.update(self._fetch(missing))
        return [ratings[submission] for submission in submissions]

    @cached_property
    def _memory(self) -> _Memory:
        return _Memory()

    @cached_property
    def _client(self) -> RatingClient:
        headers = expand_headers(_NAME, self.headers)
        return RatingClient(self.url, self.timeout, self.retries, self.backoff, headers)

    def _fetch(self, missing: Mapping[Submission, Sample]) -> dict[Submission, float]:
        """The ratings of some texts; the fallback for those that have none."""
        ratings: dict[Submission, float] = {}
        promised: list[Submission] = []
        down = None
        try:
            promised = self._collect(missing, ratings)
        except ServiceDown as error:
            down = error
        except WrongAnswer as wrong:
            problem = (
                f"got a wrong answer from {self.url}: {wrong}. Expected: status 200, or 202 while "
                'raters think, and {"ratings": [a number or null for each sample]}'
            )
            raise RewardError("ratings", problem, next(iter(missing.values()))) from wrong
        unrated = [submission for submission in missing if submission not in ratings]
        if unrated:
            why = self._why(down, unrated[0] in promised)
            if self.fallback is None:
                raise RewardError("ratings", why.in_full, missing[unrated[0]]) from down
            ratings.update(dict.fromkeys(unrated, self._paid_instead(self.fallback, why)))
        return ratings

    def _collect(
        self, missing: Mapping[Submission, Sample], ratings: dict[Submission, float]
    ) -> list[Submission]:
        """Put what is rated into `ratings`; what is still to come once the wait is over."""
        memory = self._memory
        deadline = math.inf if self.wait is None else time.monotonic() + self.wait
        late = [submission for submission in memory.late if submission not in missing]
        promised = self._ask([*missing, *late], ratings)
        late = [submission for submission in promised if submission not in missing]
        while promised := [submission for submission in promised if submission in missing]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(self.poll, left))
            promised = self._ask(promised, ratings)
        memory.late = [*late, *promised][-self.batch_size :]
        return promised

    def _ask(
        self, submissions: Sequence[Submission], ratings: dict[Submission, float]
    ) -> list[Submission]:
        """Put what is rated into `ratings`; those whose ratings are still to come."""
        memory = self._memory
        promised: list[Submission] = []
        for start in range(0, len(submissions), self.batch_size):
            batch = submissions[start : start + self.batch_size]
            if time.monotonic() < memory.ask_from:
                raise ServiceDown("it was down a moment ago")
            try:
                answer, more_to_come = self._client.ask(batch, retry=not memory.is_down)
            except ServiceDown:
                if self.fallback is not None:
                    memory.is_down, memory.ask_from = True, time.monotonic() + self.timeout
                raise
            if memory.is_down:
                memory.is_down = False
                memory.warned.discard("down")
            for submission, rating in zip(batch, answer, strict=True):
                if rating is not None:
                    ratings[submission] = memory.keep(submission, float(rating))
                elif more_to_come:
                    promised.append(submission)
        return promised

    def _why(self, down: ServiceDown | None, promised: bool) -> _Why:
        """Why a text has no rating."""
        if down is not None:
            cure = "Start the service (`textgym rate` is one) or correct url"
            return _Why("down", f"gets no answer from {self.url}: {down}", cure)
        if promised:
            problem = f"has no rating from {self.url} yet, after {self.wait} s"
            return _Why("late", problem, "Rate the text there, or raise wait")
        return _Why("declined", f"is refused a rating by {self.url}", "Ask there why")

    def _paid_instead(self, fallback: float | str, why: _Why) -> float:
        """The fallback, with a warning the first time."""
        memory = self._memory
        paid = memory.mean() if isinstance(fallback, str) else float(fallback)
        if why.kind not in memory.warned:
            memory.warned.add(why.kind)
            named = f"the mean so far ({paid:g})," if fallback == "mean" else f"{paid:g},"
            warnings.warn(
                f"reward 'ratings' {why.problem}. Such texts are paid the fallback, {named} "
                "without another warning.",
                stacklevel=2,
            )
        return paid


class _Why(NamedTuple):
    """Why a text has no rating, and what can be done."""

    kind: str
    problem: str
    cure: str

    @property
    def in_full(self) -> str:
        """For an error message."""
        return f"{self.problem}. {self.cure}; or give a fallback, such as 0.0, to go on without"


class _Memory:
    """What an object has learned; no part of what it is."""

    def __init__(self) -> None:
        self.ratings: dict[Submission, float] = {}
        self.late: list[Submission] = []
        self.is_down = False
        self.ask_from = -math.inf
        self.warned: set[str] = set()
        self._sum = 0.0
        self._count = 0

    def keep(self, submission: Submission, rating: float) -> float:
        """Remember a rating, and forget the oldest if there are too many."""
        if submission not in self.ratings:
            self._sum += rating
            self._count += 1
            if len(self.ratings) >= _REMEMBERED:
                del self.ratings[next(iter(self.ratings))]
        self.ratings[submission] = rating
        return rating

    def mean(self) -> float:
        """The mean of the ratings so far, 0 before the first."""
        return self._sum / self._count if self._count else 0.0
