"""A score that is made in Ray actors: on another device, or another machine of a cluster."""

from __future__ import annotations

import atexit
import math
import os
import re
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import cycle
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from agents.distributed.launcher import launched
from agents.ray_cluster import connected, described, machines, sizes
from textgym.arguments import is_payable
from textgym.completion import Sample
from textgym.extras import require
from textgym.rewards.base import RewardError, Score
from textgym.rewards.make import RewardSpec, make_score, makers
from textgym.rewards.parameters import check_whole_number
from textgym.rewards.remote import distinct
from textgym.rewards.shaping import checked_scores

_NAME = "ray"

_QUIET = 10.0
"""Seconds for which nothing is said while actors start."""

_LAUNCHERS = re.compile(
    r"((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)$|ROLE_NAME$|MASTER_(ADDR|PORT)$"
    r"|(TORCHELASTIC|ACCELERATE|FSDP)_"
)
"""Environment variables by which launchers tell a process which one it is of several."""


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
    Processes that a launcher began together, such as torchrun, need the address of a cluster.

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
            cluster included. A Ray that was started for this reward refuses at once what the
            machine has not.
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
        _ray()
        _check_shared(self.address)
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
        ray = _ray()
        try:
            return ray.get_actor(self.actor, namespace=self.namespace)
        except ValueError as error:
            raise ValueError(self._absent()) from error

    def _absent(self) -> str:
        """That there is no actor of that name, where it was looked for, and who is there."""
        actors = _ray().util.list_named_actors(all_namespaces=True)
        there = ", ".join(f"{one['name']!r} in namespace {one['namespace']!r}" for one in actors)
        mine = self.namespace is None
        where = "this process's own namespace" if mine else f"namespace {self.namespace!r}"
        if there:
            cure = f"There are: {there}. Give both name and namespace of one."
        elif _is_ours():
            cure = "It was started here just now; give the address of the one where the actor is."
        else:
            cure = (
                "There is none with a name. Start it: ray.remote(CLASS).options("
                f"name={self.actor!r}, namespace='NAME', lifetime='detached').remote(), and give "
                "its namespace."
            )
        return f"no {self.actor!r} in {where} of the {described(self.address)}. {cure}"

    def _start(self) -> list[Any]:
        """Start the actors, and wait until they are there.

        Raises:
            ValueError: If this machine has no room for them, and all is here.
            TimeoutError: If that takes too long.
            RayError: If the reward cannot be made there.
        """
        ray = _ray()
        wanted = f"{self.actors} x (num_cpus={self.num_cpus:g}, num_gpus={self.num_gpus:g})"
        if _is_ours():
            self._check_room(wanted)
        scorer = ray.remote(_Scorer).options(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            max_restarts=self.max_restarts,
            max_task_retries=-1,
        )
        handles = [scorer.remote(self.reward) for _ in range(self.actors)]
        ready = [handle.prepare.remote() for handle in handles]
        quiet = min(_QUIET, self.start_timeout)
        _, late = ray.wait(ready, num_returns=len(ready), timeout=quiet)
        if late and quiet < self.start_timeout:
            warnings.warn(
                f"reward {_NAME!r} is waiting for its actors, up to {self.start_timeout:g} s. "
                f"Wanted: {wanted}; free in the cluster: {_free()}.",
                stacklevel=2,
            )
        try:
            ray.get(ready, timeout=self.start_timeout - quiet)
        except ray.exceptions.GetTimeoutError as error:
            raise TimeoutError(
                f"after {self.start_timeout:g} s not all are there. Wanted: {wanted}; free in the "
                f"cluster: {_free()}. Ask for less, make room, or raise start_timeout."
            ) from error
        return handles

    def _check_room(self, wanted: str) -> None:
        (has,) = machines()
        cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
        if self.actors * self.num_cpus > cpus or self.actors * self.num_gpus > gpus:
            raise ValueError(
                f"wanted: {wanted}, and this machine has {' and '.join(sizes(cpus, gpus))}. Ask "
                "for less, or give the address of a cluster."
            )


class _Scorer:
    """What runs in an actor."""

    def __init__(self, reward: RewardSpec) -> None:
        self._reward = reward
        # A Ray that was begun in a launcher's process hands on what that was told.
        for name in [name for name in os.environ if _LAUNCHERS.match(name)]:
            del os.environ[name]

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


def _free() -> str:
    """How much of the cluster is free."""
    ray = _ray()
    has, free = ray.cluster_resources(), ray.available_resources()
    return ", ".join(f"{free.get(of, 0):g} of {has.get(of, 0):g} {of}s" for of in ("CPU", "GPU"))


def _check_shared(address: str | None) -> None:
    """Raise if each of a launcher's processes would start a Ray of its own.

    Each of those would think that all the machine is its own, and take the same GPU.

    Raises:
        ValueError: If it would.
    """
    if address is None and launched() and not _ray().is_initialized():
        raise ValueError(
            "ray: a launcher began several processes, and without an address each would start a "
            "Ray of its own, for the same CPUs and GPUs. Run 'ray start --head' on one machine, "
            "and give address='auto' (elsewhere 'HOST:6379')."
        )


def _connected(address: str | None) -> Any:
    """The library, connected to a cluster.

    Raises:
        ConnectionError: If there is none at the address.
        ValueError: If there must be an address.
        RuntimeError: If this process was forked off one that was connected.
    """
    ray = _ray()
    _check_shared(address)
    if os.getpid() in _FORKED:
        raise RuntimeError(
            "this process was forked off one that is connected to Ray, and the connection cannot "
            "be shared. Start worker processes with 'spawn' or 'forkserver' (start_method=, "
            "context=)."
        )
    if not ray.is_initialized():
        _CONNECTION.enter_context(connected(address, wanted_by=f"reward {_NAME!r}"))
        if address is None:
            _OURS.add(ray.get_runtime_context().get_node_id())
    return ray


def _is_ours() -> bool:
    """Whether the Ray that this process is connected to was started here: no machine joins it."""
    return _ray().get_runtime_context().get_node_id() in _OURS


_CONNECTION = ExitStack()
"""What ends a connection that was made here, with this process."""

atexit.register(_CONNECTION.close)

_OURS: set[str] = set()
"""Ray's names of this machine in those that were started here."""

_FORKED: set[int] = set()
"""This process, if it took over a connection that it cannot use."""


def _note_fork() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        _FORKED.add(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
