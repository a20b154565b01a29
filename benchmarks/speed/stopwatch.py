"""Where time goes: functions that are timed from outside, each without those that it calls."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from stable_baselines3.common.callbacks import BaseCallback


def now(device: torch.device | str) -> float:
    """Seconds, when a device has done all that it was given so far."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Charges all time that passes to one label, the one that was entered last.

    Args:
        device: Where the work is done; it is waited for whenever the label changes.

    Attributes:
        seconds: By label.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._labels: list[str] = []
        self._since = 0.0

    @contextmanager
    def span(self, label: str) -> Iterator[None]:
        """Charge a label, but for what is charged to others inside."""
        self._charge()
        self._labels.append(label)
        try:
            yield
        finally:
            self._charge()
            self._labels.pop()

    def switch(self, label: str) -> None:
        """Charge this label from here on until the span ends that this is called in."""
        self._charge()
        self._labels[-1:] = [label]

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, charged to a label."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.span(label):
                return function(*args, **kwargs)

        return call

    def _charge(self) -> None:
        time_now = now(self._device)
        if self._labels:
            self.seconds[self._labels[-1]] += time_now - self._since
        self._since = time_now


class Phases(BaseCallback):
    """Says when rollouts and updates begin.

    Args:
        begins: Called with "rollout" and with "update", and with "" when all is over.
    """

    def __init__(self, begins: Callable[[str], None]) -> None:
        super().__init__()
        self._begins = begins

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._begins("rollout")

    def _on_rollout_end(self) -> None:
        self._begins("update")

    def _on_training_end(self) -> None:
        self._begins("")


@contextmanager
def replaced(functions: dict[tuple[Any, str], Callable[..., Any]]) -> Iterator[None]:
    """Other functions in the place of some, which are given by owner and name."""
    with ExitStack() as stack:
        for (owner, name), function in functions.items():
            stack.enter_context(patch.object(owner, name, function))
        yield
