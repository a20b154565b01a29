"""Gradients of all processes, made together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from agents.distributed.processes import Processes

Piece: TypeAlias = Callable[[float], Tensor]
"""Reads some texts, and returns what they add to a loss, times the number that it is given."""


class _Reads(nn.Module):
    """Has a network as a part, and for its forward whatever reads that network.

    DistributedDataParallel and FSDP2 act where a module's forward is called.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, piece: Piece, weight: float) -> Tensor:
        return piece(weight)


class Learner:
    """Adds up the gradients of one network over many texts, and over all processes.

    Args:
        network: What is trained.
        processes: Who trains it.
    """

    def __init__(self, network: nn.Module, processes: Processes) -> None:
        self._processes = processes
        self._module: nn.Module = _Reads(network)

    def add_up(self, pieces: Sequence[Piece]) -> None:
        """Put the gradient of the sum of losses, over all processes, into the parameters.

        Processes read together: one that has fewer pieces than another reads its last again, and
        does not count it.

        Args:
            pieces: The losses, one at least; the last of them has to do with the whole network.
        """
        if self._processes.count > 1 and isinstance(self._module, _Reads):
            self._module = self._shared(pieces[-1])
        count = max(self._processes.gather(len(pieces)))
        for index in range(count):
            piece, weight = (pieces[index], 1.0) if index < len(pieces) else (pieces[-1], 0.0)
            with nullcontext() if index == count - 1 else self._not_shared():
                # What is shared is the mean over processes.
                loss = self._module(piece, weight * self._processes.count)
                loss.backward()

    def _shared(self, piece: Piece) -> DistributedDataParallel:
        """The network, with gradients that all processes share.

        A part of a network may have nothing to do with a loss: a critic that is not trained, an
        expert that nobody asked. To look for them takes time, and torch complains if there are
        none, so that they are looked for where there may be some.

        Args:
            piece: Of a loss.
        """
        self._module(piece, 0.0).backward()
        trained = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        unused = any(p.grad is None or "expert" in name for name, p in trained.items())
        for parameter in trained.values():
            parameter.grad = None
        unused = self._processes.any(unused)
        return DistributedDataParallel(
            self._module,
            init_sync=False,
            forward_sync_buffers=False,
            find_unused_parameters=unused,
        )

    def clip_gradients(self, largest: float) -> Tensor:
        """Make all gradients together at most so large; their norm before that, a scalar."""
        return nn.utils.clip_grad_norm_(self._module.parameters(), largest)

    def _not_shared(self) -> AbstractContextManager[None]:
        """Keep gradients to oneself, until those of all pieces are there."""
        module = self._module
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()
