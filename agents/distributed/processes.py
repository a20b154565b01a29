"""The processes that train one model together, as one of them sees them."""

from __future__ import annotations

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

from agents.distributed.launcher import launched

T = TypeVar("T")

_PATIENCE = timedelta(hours=1)
"""How long one waits for the others: one of them may be saving a large model. That a process has
ended shows before: to the launcher, and with gloo to those who wait for it."""


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
            RuntimeError: If they are at different places.
        """
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        with noticing_who_left():
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
        with noticing_who_left():
            distributed.all_reduce(total)
        return total

    def share(self, module: nn.Module) -> None:
        """Give a module of all of them the weights that it has in the first."""
        if self.count > 1:
            for weight in module.state_dict().values():
                distributed.broadcast(weight, 0)

    def seed(self, seed: int) -> int:
        """A seed of this process's own, made of one that all share; the first keeps that."""
        if self.is_first:
            return seed
        return int(np.random.SeedSequence((seed, self.index)).generate_state(1)[0])


@contextmanager
def noticing_who_left() -> Iterator[None]:
    """Say so if another process has ended while this one waited for it.

    Raises:
        ConnectionError: If one has; why is to be read in what it said itself.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise ConnectionError(
            "another of the processes that train together has ended, and this one with it; what "
            "that one said is the reason."
        ) from error


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
    """
    if not launched() and not distributed.is_initialized():
        return _ALONE
    return _joined(get_device(device).type == "cpu")


@cache
def _joined(on_cpu: bool) -> Processes:
    from accelerate import PartialState

    state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes)


_ALONE = Processes()
