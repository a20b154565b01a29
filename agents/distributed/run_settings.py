"""Which settings of a run several processes can carry out together."""

from __future__ import annotations

from agents.algorithms.by_name import ALGORITHMS
from agents.config import RunConfig


def check_together(config: RunConfig, count: int) -> None:
    """Raise if so many processes cannot carry out a run together.

    Raises:
        ValueError: If the algorithm is for one process, or the device is one of several.
    """
    if count == 1:
        return
    if not config.algorithm.learns_together:
        together = [name for name, named in ALGORITHMS.items() if named.learns_together]
        raise ValueError(
            f"--algo {config.algo} trains in one process, and a launcher began {count}. Call it "
            f"without torchrun or accelerate launch, or take {', '.join(together)}."
        )
    if ":" in config.device:
        raise ValueError(
            f"--device {config.device} would be that of all {count} processes, and each has one of "
            "its own. Give auto, cpu or cuda."
        )
