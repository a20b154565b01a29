"""The processes that train one model together, as one of them sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.utils import get_device
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from agents.devices import check_gpus
from agents.distributed.launcher import check_asked, launched, restarted

T = TypeVar("T")

_TIMEOUT = "TEXTGYM_DIST_TIMEOUT_SEC"
_PATIENCE = 3600
"""Seconds for which one waits for the others: one of them may be saving a large model. That a
process has ended shows before: to the launcher, and with gloo to those who wait for it."""

_ENDED = re.compile(
    r"ncclRemoteError|connection (was likely )?(closed|reset|refused)|broken pipe"
    r"|remote process exited",
    re.IGNORECASE,
)
_LATE = re.compile(r"timed out|timeout", re.IGNORECASE)


class Processes:
    """Which one of the processes this is, and what all of them say.

    What brings something together is called by all of them, in the same order. Where there is one
    process it gives back what it got.

    Args:
        index: Which one this is, from 0.
        count: How many there are.

    Attributes:
        index: Which one this is, from 0. The first writes files and speaks.
        count: How many there are.
    """

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index = index
        self.count = count

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.index == 0

    def gather(self, what: str, value: T) -> list[T]:
        """What each of them says, in their order.

        Args:
            what: What it is about, by which processes notice that they are at different places.
            value: Anything that can be pickled.

        Raises:
            ConnectionError: If one of them has ended.
            TimeoutError: If one of them does not come.
            RuntimeError: If they are at different places.
        """
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        with noticing_who_left(what):
            gathered: list[tuple[str, T]] = gather_object([(what, value)])
        told = [of_one for of_one, _ in gathered]
        if len(set(told)) > 1:
            raise RuntimeError(
                f"the processes that train together are at different places: they bring together "
                f"{told}. Let all of them do the same, with the same callbacks."
            )
        return [value for _, value in gathered]

    def wait(self) -> None:
        """Wait until all of them are here."""
        self.gather("waits", None)

    def of_first(self, what: str, value: T) -> T:
        """What the first of them says; see `gather`."""
        return self.gather(what, value if self.is_first else None)[0]  # type: ignore[return-value]

    def any(self, what: str, flag: bool) -> bool:
        """Whether one of them at least says so; see `gather`."""
        return any(self.gather(what, flag))

    def gather_numbers(self, numbers: Sequence[float], device: torch.device) -> NDArray[np.float64]:
        """Some numbers of each of them, (count, k); sooner than `gather`.

        Args:
            numbers: k numbers.
            device: On which this one computes.
        """
        if self.count == 1:
            return np.array([numbers], np.float64)
        own = torch.tensor(numbers, dtype=torch.float64, device=device)
        every = own.new_zeros(self.count, len(own))
        every[self.index] = own
        return self.sum(every).cpu().numpy()

    def concatenated(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays of all of them, by names that are the same, one after another."""
        gathered = self.gather(", ".join(columns), dict(columns))
        return {name: np.concatenate([each[name] for each in gathered]) for name in columns}

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum of what each of them has, of the same shape, on the device of this one."""
        if self.count == 1:
            return numbers
        total = numbers.clone()
        with noticing_who_left("numbers"):
            distributed.all_reduce(total)
        return total

    def share(self, module: nn.Module) -> None:
        """Give a module of all of them the weights that it has in the first."""
        if self.count > 1:
            with noticing_who_left("weights"):
                for weight in module.state_dict().values():
                    distributed.broadcast(weight, 0)

    def seed(self, seed: int) -> int:
        """A seed of this process's own, made of one that all share; the first keeps that."""
        if self.is_first:
            return seed
        return int(np.random.SeedSequence((seed, self.index)).generate_state(1)[0])


@contextmanager
def noticing_who_left(what: str = "gradients") -> Iterator[None]:
    """Say so if another process has ended, or does not come, while this one waits for it.

    Args:
        what: What it waits for.

    Raises:
        ConnectionError: If one has ended; why is to be read in what it said itself.
        TimeoutError: If one does not come.
        ValueError: If two have the same GPU.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        is_theirs = isinstance(error, distributed.DistError) or "gloo" in said
        reason = _reason(said, what) if is_theirs else None
        if reason is None:
            raise
        raise reason from error


def _reason(said: str, what: str) -> Exception | None:
    """Why processes could not speak to each other, if what the library said can be understood."""
    first_line = said.partition("\n")[0]
    if "Duplicate GPU" in said:
        return ValueError(
            "two of the processes that train together have the same GPU, and each takes one of its "
            "own. Begin as many as there are GPUs (torchrun --nproc-per-node, accelerate launch "
            f"--num_processes), or give --device cpu. ({first_line})"
        )
    if _ENDED.search(said):
        return ConnectionError(
            "another of the processes that train together has ended, or cannot be reached, and "
            f"this one ends with it; what that one said is the reason. ({first_line})"
        )
    if _LATE.search(said):
        return TimeoutError(
            f"this process waited too long for the others (at: {what}). If they are still at work, "
            f"give them more seconds by the variable {_TIMEOUT}; if not, one of them hangs. "
            f"({first_line})"
        )
    return None


def processes_of(algorithm: Any) -> Processes:
    """The processes that train an algorithm; those of Stable-Baselines3 know one only."""
    processes: Processes = getattr(algorithm, "processes", _ALONE)
    return processes


def join(device: str | torch.device = "auto") -> Processes:
    """Join the other processes, if a launcher began some; this one is alone otherwise.

    Args:
        device: On which it computes, as Stable-Baselines3 takes it. On the CPU processes speak to
            each other by gloo, on GPUs by NCCL; each has a GPU of its own.

    Raises:
        ModuleNotFoundError: If there are others, and `accelerate` is not installed.
        TimeoutError: If they do not come.
        ValueError: If the launcher was asked for what cannot be had, or they cannot train together
            as they were begun; the message has the cure.
    """
    kind = get_device(device).type
    check_asked(kind)
    if not launched() and not distributed.is_initialized():
        return _ALONE
    return _joined(kind)


def leave() -> None:
    """Leave the others after all went well, as all of them do; after an error it may hang."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@cache
def _joined(device: str) -> Processes:
    from accelerate import PartialState

    if device == "cuda":
        check_gpus()
    timeout = _patience()
    with noticing_who_left("the start"):
        state = PartialState(cpu=device == "cpu", timeout=timeout, **_meeting(timeout))
    is_group = distributed.is_initialized()
    count = distributed.get_world_size() if is_group else int(os.environ["WORLD_SIZE"])
    if state.num_processes != count:  # accelerate takes each of them for the only one
        raise ValueError(_why_alone(device, count))
    return Processes(state.process_index, state.num_processes)


def _meeting(timeout: timedelta) -> dict[str, Any]:
    """Where processes meet that a launcher begins anew, as arguments of `init_process_group`.

    torchrun keeps what those before them wrote there, and who came too early would look for them.
    Launchers of several machines count for themselves, so that their processes would not meet.
    """
    if not restarted() or os.environ.get("GROUP_WORLD_SIZE") != "1" or distributed.is_initialized():
        return {}
    store, rank, count = next(rendezvous("env://", timeout=timeout))
    own = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    return {"store": own, "rank": rank, "world_size": count}


def _patience() -> timedelta:
    """How long one waits for the others."""
    seconds = os.environ.get(_TIMEOUT, str(_PATIENCE))
    if not seconds.isdecimal() or int(seconds) == 0:
        raise ValueError(f"{_TIMEOUT} is a whole number of seconds, at least 1, got {seconds!r}.")
    return timedelta(seconds=int(seconds))


def _why_alone(device: str, count: int) -> str:
    if "LOCAL_RANK" in os.environ:
        return (
            f"{count} processes were begun, and cannot train together on {device}: they speak to "
            "each other on CPUs and CUDA GPUs. Give --device cpu, or begin one."
        )
    return (
        f"{count} processes were begun, and LOCAL_RANK does not say which of its machine each is. "
        "Take torchrun, or set it: srun bash -c 'LOCAL_RANK=$SLURM_LOCALID textgym train ...', "
        "with mpirun to $OMPI_COMM_WORLD_LOCAL_RANK."
    )


_ALONE = Processes()
