"""Gradients of all processes, made together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from agents.distributed.processes import Processes, noticing_who_left, processes_of
from agents.distributed.root import Root
from agents.distributed.sharding import Sharded
from agents.distributed.whole import whole

Piece: TypeAlias = Callable[[float], Tensor]
"""Reads some texts, and returns what they add to a loss, times the number that it is given."""


class Learner:
    """Adds up the gradients of one network over many texts, and over all processes.

    Each process holds all of the network (DistributedDataParallel), or a part of every tensor
    (FSDP2). One process alone has neither.

    Args:
        network: What is trained; the same in all processes.
        processes: Who trains it.
        shards: Whether each process is to hold a part; for several.
    """

    def __init__(self, network: nn.Module, processes: Processes, *, shards: bool = False) -> None:
        self._network = network
        self._processes = processes
        self._root: nn.Module = Root(network)
        self.shards = shards and processes.count > 1
        self._sharded: Sharded | None = None
        self._reference: Sharded | None = None

    def begin(self, optimizer: Optimizer, reference: nn.Module | None = None) -> None:
        """Take a network apart that is to be sharded, once; it may have been loaded before.

        Args:
            optimizer: Of the network.
            reference: Another network, which is not trained.
        """
        if not self.shards or self._sharded is not None:
            return
        device = next(self._network.parameters()).device
        mesh = init_device_mesh(device.type, (self._processes.count,))
        if reference is not None and next(reference.parameters(), None) is not None:
            self._reference = Sharded(reference, mesh)
        self._sharded = Sharded(self._network, mesh, optimizer)
        self._root = self._sharded.root

    def gathered(self) -> AbstractContextManager[None]:
        """Have the network whole on each process, which all enter, to be read by each alone."""
        return nullcontext() if self._sharded is None else self._sharded.gathered()

    def gathered_reference(self) -> AbstractContextManager[None]:
        """Have the reference whole, as `gathered` has the network, which it may be a part of."""
        return self.gathered() if self._reference is None else self._reference.gathered()

    def whole(self) -> Any:
        """The network; of one that is sharded a copy that is not, on the CPU of the first process.

        All processes call it. Of a sharded one the others get None.
        """
        if self._sharded is None:
            return self._network
        return self._sharded.plain_copy(self._processes.is_first)

    @property
    def is_sharded(self) -> bool:
        """Whether this process holds a part only."""
        return self._sharded is not None

    def check_whole(self, *, changes: bool = False) -> None:
        """Raise if the network cannot be read here, or changed, since there is a part of it only.

        Raises:
            RuntimeError: If so; the message has the cure.
        """
        if self._sharded is None or (self._sharded.is_gathered and not changes):
            return
        cure = (
            "Make a new one, which is whole until learn()"
            if changes
            else "Let all of them enter `with model.learner.gathered():` and do it there"
        )
        raise RuntimeError(f"each process has a part of the policy only (shard=True). {cure}.")

    def whole_reference(self) -> Any:
        """The reference as it was before it was sharded, as `whole` gives the network, or None."""
        if self._reference is None:
            return None
        return self._reference.plain_copy(self._processes.is_first)

    def add_up(self, pieces: Sequence[Piece], count: int) -> None:
        """Put the gradient of the sum of losses, over all processes, into the parameters.

        Processes read together: one that has fewer pieces than another reads its last again, and
        does not count it.

        Args:
            pieces: The losses, one at least; the last of them has to do with the whole network.
            count: The largest number of pieces that a process has.
        """
        if self._processes.count > 1 and not self.is_sharded and isinstance(self._root, Root):
            self._root = self._shared(pieces[-1])
        for index in range(count):
            piece, weight = (pieces[index], 1.0) if index < len(pieces) else (pieces[-1], 0.0)
            kept = nullcontext() if index == count - 1 else self._kept()
            with kept, noticing_who_left():
                # What comes out is the mean over processes.
                self._root(piece, weight * self._processes.count).backward()

    def clip_gradients(self, largest: float) -> Tensor:
        """Make all gradients together at most so large; their norm before that, a scalar."""
        norm: Tensor = whole(nn.utils.clip_grad_norm_(self._root.parameters(), largest))
        return norm

    def _shared(self, piece: Piece) -> DistributedDataParallel:
        """The network, with gradients that all processes share.

        A part of a network may have nothing to do with a loss: a critic that is not trained, an
        expert that nobody asked. To look for them takes time, and torch complains if there are
        none, so that they are looked for where there may be some.

        Args:
            piece: Of a loss.
        """
        self._root(piece, 0.0).backward()
        trained = {n: p for n, p in self._root.named_parameters() if p.requires_grad}
        unused = any(p.grad is None or "expert" in name for name, p in trained.items())
        for parameter in trained.values():
            parameter.grad = None
        return DistributedDataParallel(
            self._root,
            init_sync=False,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=self._processes.any("has unused parameters", unused),
        )

    def _kept(self) -> AbstractContextManager[None]:
        """Keep gradients to oneself, until those of all pieces are there.

        Of a sharded network no process has room for whole gradients: they are sent at once.
        """
        root = self._root
        return root.no_sync() if isinstance(root, DistributedDataParallel) else nullcontext()


def learner_of(algorithm: Any) -> Learner:
    """What makes an algorithm's gradients; one of Stable-Baselines3 makes them itself, alone."""
    learner: Learner | None = getattr(algorithm, "learner", None)
    return Learner(algorithm.policy, processes_of(algorithm)) if learner is None else learner
