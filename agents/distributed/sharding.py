"""Weights, gradients and optimizer state in parts, one on each process: PyTorch's FSDP2."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

from agents.backbone import Backbone
from agents.distributed.root import Root
from agents.distributed.whole import in_parts_of, whole
from agents.gradient_checkpointing import layers_of

Module = TypeVar("Module", bound=nn.Module)


class Sharded:
    """A network of which each process holds a part of every tensor.

    A pass through `root` brings the weights of a layer together while it reads, and makes each
    process's part of the gradients: their mean over processes. All processes make their passes
    together. Where they do not, as in decoding, weights are whole on all of them: see `gathered`.

    Args:
        network: What is sharded, in place.
        mesh: The processes, in one dimension.
        optimizer: Of the network's parameters; afterwards of the parts, its state included.

    Attributes:
        root: To make passes with: `root(read, *arguments)` is what `read` returns of them.
    """

    def __init__(
        self, network: nn.Module, mesh: DeviceMesh, optimizer: Optimizer | None = None
    ) -> None:
        self.root = root = Root(network)
        whole_ones = dict(root.named_parameters())
        self._blank = _with_parameters(
            root,
            {name: torch.empty_like(one, device="meta") for name, one in whole_ones.items()},
            left_out=optimizer,
        )
        # Where the head is not all, the model around it runs once for each chunk of logits, and
        # processes have different numbers of chunks. Layers stay whole then after they were read
        # first, so that nothing is sent again.
        frees = all(part.head_is_all for part in root.modules() if isinstance(part, Backbone))
        self._layers = layers_of(root)[::-1]  # those within others come first
        for layer in self._layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=frees)
        # The head is read at the end of a pass, and again when the backward pass begins.
        fully_shard(root, mesh=mesh, reshard_after_forward=False)
        self._frees, self._depth = frees, 0
        for part in self._parts:
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no mean
            # An expert may be asked on some processes only, and all send the same tensors.
            part.set_reduce_scatter_unused_params(True, recurse=False)
        with torch.no_grad():
            root(_nothing)  # torch takes the first module that is called for the root
        self._root.reset_iter_state()
        self._parameters = dict(root.named_parameters())
        if optimizer is not None:
            _move(optimizer, whole_ones, self._parameters)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Have all weights whole on each process for a while, in which nothing is sent.

        Every process enters. Weights are to be read only: changes are lost. `state_dict` would
        take them apart; `agents.weights` does not.
        """
        if self._depth == 0:
            self._root.set_reshard_after_forward(False)
            with torch.inference_mode(False):  # an update reads the same tensors
                for part in self._parts:
                    part.unshard()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._root.reset_iter_state()
                for part in self._parts:
                    frees = self._frees and part is not self._root
                    part.set_reshard_after_forward(frees, recurse=False)

    @property
    def is_gathered(self) -> bool:
        """Whether all weights are whole on each process now."""
        return self._depth > 0

    def plain_copy(self, here: bool = True) -> Any:
        """The network as it was before it was sharded, with the weights of now, on the CPU.

        Every process calls it.

        Args:
            here: Whether this process is to have the copy; the others get None.
        """
        weights = whole(self._parameters, here)
        return _with_parameters(self._blank, weights).network.cpu() if here else None

    @property
    def _root(self) -> FSDPModule:
        assert isinstance(self.root, FSDPModule)
        return self.root

    @property
    def _parts(self) -> list[FSDPModule]:
        return [part for part in (self.root, *self._layers) if isinstance(part, FSDPModule)]


def _move(optimizer: Optimizer, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Let an optimizer go on with other parameters, those of the same names."""
    others = {parameter: after[name] for name, parameter in before.items()}
    for group in optimizer.param_groups:
        group["params"] = [others[parameter] for parameter in group["params"]]
    state = {others[p]: in_parts_of(others[p], values) for p, values in optimizer.state.items()}
    optimizer.state = defaultdict(dict, state)


def _with_parameters(
    module: Module, parameters: Mapping[str, Tensor], left_out: object = None
) -> Module:
    """A copy of a module with other parameters, by name, in place of its own.

    Args:
        module: The module.
        parameters: For each of its own.
        left_out: A part of it that the copy has None for.
    """
    memo: dict[int, Any] = {id(left_out): None}
    for name, parameter in module.named_parameters():
        memo[id(parameter)] = nn.Parameter(parameters[name], parameter.requires_grad)
    return copy.deepcopy(module, memo)


def _nothing() -> None:
    """Read nothing."""
