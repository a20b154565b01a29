"""A score that is made in Ray actors: on another device, or another machine of a cluster."""

from __future__ import annotations

import atexit
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import cycle
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from agents.ray_cluster import connected
from textgym.arguments import is_payable
from textgym.completion import Sample
from textgym.extras import require
from textgym.rewards.base import RewardError, Score
from textgym.rewards.make import RewardSpec, make_score, makers
from textgym.rewards.parameters import check_whole_number
from textgym.rewards.remote import distinct
from textgym.rewards.shaping import checked_scores

_NAME = "ray"


@dataclass(frozen=True, eq=False)
class RayScore:
    """Another reward's score of the text, made in Ray actors; the range is that reward's.

    A classifier or reward model then has a device of its own, of this machine or of another in the
    cluster. The reward must be one that scores texts, not one that pays tokens as they come, and
    the machines must have this package. Ray is first asked when the first text is scored: the one
    that this process is connected to, or else that of `address`.

    All environments of a process that ask for the same share the actors. An actor that dies is
    started again, and what it was asked is asked again; when the last environment goes, so do they.
    Environments in processes of their own have actors of their own, unless all name one `actor`.

    Args:
        reward: The reward, as any spec that `textgym train --reward` takes; several are added up.
        actor: Instead of a reward, an actor that runs already: its handle, or its name. It has a
            method `score(samples)`, as the protocol `textgym.rewards.Score` says.
        namespace: Of an actor's name; None for this process's own.
        actors: How many actors; steps go to them in turn.
        num_cpus: CPUs that Ray sets aside for each.
        num_gpus: GPUs, or a share of one, that Ray sets aside for each.
        address: The cluster, such as "auto", "host:6379" or "ray://host:10001"; None starts a Ray
            on this machine.
        max_restarts: How often each actor that died is started again; -1 for ever.
        start_timeout: Seconds that the actors may take to be there, waiting for room in the
            cluster included.
        text_only: Whether the score depends on the text alone, so that a token which leaves it as
            it was costs nothing. None for what the reward says of itself; of an actor, False.

    Raises:
        ValueError: If an argument is refused, or there is no such reward.
        MissingExtra: If ray is not installed.
        RewardError: When it scores: if there is no such cluster, no room or no such actor, or the
            reward cannot be made or raises there.
    """

    reward: RewardSpec | None = None
    actor: Any = None
    namespace: str | None = None
    actors: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    address: str | None = None
    max_restarts: int = 3
    start_timeout: float = 300.0
    text_only: bool | None = None

    score_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    needs: ClassVar[str] = "another reward; ray"

    def __post_init__(self) -> None:
        require("ray", extra="ray", wanted_by=f"reward {_NAME!r}")
        if (self.reward is None) == (self.actor is None):
            raise ValueError(
                "ray: give the reward that is scored elsewhere, such as {'name': 'ray', 'reward': "
                "'sentiment'}, or the actor that does so."
            )
        check_whole_number(_NAME, "actors", self.actors, 1)
        check_whole_number(_NAME, "max_restarts", self.max_restarts, -1)
        for name in ("num_cpus", "num_gpus", "start_timeout"):
            value = getattr(self, name)
            if not is_payable(value) or value < 0:
                raise ValueError(f"ray: {name} is a number from 0 on, got {value!r}.")
        made_by = [] if self.reward is None else makers(self.reward)
        if self.text_only is None:
            declared = [getattr(maker, "text_only", False) is True for maker in made_by]
            object.__setattr__(self, "text_only", bool(declared) and all(declared))
        if len(made_by) == 1:
            for name in ("score_range", "success_threshold"):
                value = getattr(made_by[0], name, None)
                if isinstance(value, (tuple, float, int)):
                    object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What it is, without the actors: another process has others."""
        return {name: value for name, value in vars(self).items() if name != "_held"}

    def __deepcopy__(self, memo: dict[int, Any]) -> RayScore:
        """Itself: it never changes, and a handle cannot be copied."""
        return self

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """The reward's score of each sample."""
        return self.submit(samples).result()

    def submit(self, samples: Sequence[Sample]) -> Future[Sequence[float]]:
        """Have samples scored; what `score` would return or raise is the result of the future."""
        asked, which = distinct(samples, text_only=bool(self.text_only))
        answer: Future[Sequence[float]] = Future()
        try:
            said = self._actors().next().score.remote(asked).future()
        except _ray().exceptions.RayError as error:
            answer.set_exception(_reward_error(error, samples[0]))
        except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
            raise RewardError(_NAME, f"has no actor to ask: {error}", samples[0]) from error
        else:
            said.add_done_callback(partial(_pass_on, answer, asked, which))
        return answer

    def _actors(self) -> _Actors:
        """The actors of this process, started if need be."""
        ray = _connected(self.address)
        context = ray.get_runtime_context()
        connection = (context.get_node_id(), context.get_job_id())
        held: _Actors | None = vars(self).get("_held")
        if held is None or held.connection != connection:
            if self.actor is not None:
                held = _Actors(connection, [self._given()])
            else:
                spec = [getattr(self, argument.name) for argument in fields(self)]
                key = ray.cloudpickle.dumps((os.getpid(), connection, spec))
                held = _STARTED.get(key)
                if held is None:
                    held = _STARTED[key] = _Actors(connection, self._start())
            object.__setattr__(self, "_held", held)
        return held

    def _given(self) -> Any:
        if not isinstance(self.actor, str):
            return self.actor
        return _ray().get_actor(self.actor, namespace=self.namespace)

    def _start(self) -> list[Any]:
        """Start the actors, and wait until they are there.

        Raises:
            TimeoutError: If that takes too long.
            RayError: If the reward cannot be made there.
        """
        ray = _ray()
        scorer = ray.remote(_Scorer).options(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            max_restarts=self.max_restarts,
            max_task_retries=-1,
        )
        handles = [scorer.remote(self.reward) for _ in range(self.actors)]
        ready = [handle.prepare.remote() for handle in handles]
        try:
            ray.get(ready, timeout=self.start_timeout)
        except ray.exceptions.GetTimeoutError as error:
            wanted = f"{self.actors} x (num_cpus={self.num_cpus:g}, num_gpus={self.num_gpus:g})"
            free = ", ".join(
                f"{ray.available_resources().get(kind, 0):g} of {count:g} {kind}s"
                for kind, count in ray.cluster_resources().items()
                if kind in ("CPU", "GPU")
            )
            raise TimeoutError(
                f"after {self.start_timeout:g} s not all are there. Wanted: {wanted}; free in the "
                f"cluster: {free}. Ask for less, make room, or raise start_timeout."
            ) from error
        return handles


class _Scorer:
    """What runs in an actor."""

    def __init__(self, reward: RewardSpec) -> None:
        self._reward = reward

    @cached_property
    def _score(self) -> Score:
        # Not in the constructor, of whose errors Ray gives no more than the text.
        return make_score(self._reward)

    def prepare(self) -> None:
        """Make the reward."""
        assert self._score

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The checked scores of some samples."""
        scores: list[float] = checked_scores(self._score, samples).tolist()
        return scores


class _Actors:
    """Some actors, to be asked in turn; they end when nobody holds them any more.

    Attributes:
        connection: Ray's names of what they can be reached by.
    """

    def __init__(self, connection: tuple[str, str], handles: Sequence[Any]) -> None:
        self.connection = connection
        self._turns = cycle(handles)

    def next(self) -> Any:
        """The one whose turn it is."""
        return next(self._turns)


_STARTED: WeakValueDictionary[bytes, _Actors] = WeakValueDictionary()
"""The actors of this process, by all that was asked for."""


def _pass_on(
    answer: Future[Sequence[float]],
    asked: Sequence[Sample],
    which: Sequence[int],
    said: Future[Any],
) -> None:
    """Give what an actor said of distinct samples to those who asked."""
    if not answer.set_running_or_notify_cancel():
        return
    error = said.exception()
    if error is not None:
        answer.set_exception(_reward_error(error, asked[0]))
        return
    scores = said.result()
    if not isinstance(scores, (list, tuple)) or len(scores) != len(asked):
        problem = f"got {scores!r:.200} of its actor; expected a list of {len(asked)} numbers"
        answer.set_exception(RewardError(_NAME, problem, asked[0]))
        return
    answer.set_result([scores[k] for k in which])


def _reward_error(error: BaseException, sample: Sample) -> RewardError:
    """What went wrong in an actor or with it, as an error of a reward."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, RewardError):
        result = RewardError(cause.name, cause.problem, cause.sample)
    elif cause is not None:
        result = RewardError(_NAME, f"raised {type(cause).__name__} there: {cause}", sample)
    else:
        result = RewardError(_NAME, f"lost its actor: {error}", sample)
    result.__cause__ = error
    return result


def _ray() -> Any:
    return require("ray", extra="ray", wanted_by=f"reward {_NAME!r}")


def _connected(address: str | None) -> Any:
    """The library, connected to a cluster.

    Raises:
        ConnectionError: If there is none at the address.
        RuntimeError: If this process was forked off one that was connected.
    """
    ray = _ray()
    if os.getpid() in _FORKED:
        raise RuntimeError(
            "this process was forked off one that is connected to Ray, and the connection cannot "
            "be shared. Start worker processes with 'spawn' or 'forkserver' (start_method=, "
            "context=)."
        )
    if not ray.is_initialized():
        _CONNECTION.enter_context(connected(address, wanted_by=f"reward {_NAME!r}"))
    return ray


_CONNECTION = ExitStack()
"""What ends a connection that was made here, with this process."""

atexit.register(_CONNECTION.close)

_FORKED: set[int] = set()
"""This process, if it took over a connection that it cannot use."""


def _note_fork() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        _FORKED.add(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
