"""The module whose forward is any reading of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Result = TypeVar("Result")


class Root(nn.Module):
    """Has a network as a part, and for its forward whatever reads that network.

    DistributedDataParallel and FSDP2 act where a module's forward is called, and a policy is read
    in several ways, none of which is its forward.

    Args:
        network: What is read.

    Attributes:
        network: What is read.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, read: Callable[..., Result], *arguments: Any) -> Result:
        """What `read` returns of these arguments."""
        return read(*arguments)
