"""With what a run began: the weights, and what else it must find as it was to go on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from agents.distributed.processes import processes_of
from agents.weights import read_notes, save_weights, trained_weights
from textgym.process import TextProcess

_CURES = {
    "prompts": "the prompts, their references or templates are others now. Restore them",
    "frozen": "the model below the adapters is another one now. Restore its files",
}
"""What is told from the beginning of a run, and what to do if it has changed."""


def save_start(path: Path, algorithm: BaseAlgorithm, process: TextProcess) -> None:
    """Keep the weights with which a run begins; of several processes the first writes.

    Args:
        path: The file.
        algorithm: Before training.
        process: The decision process of its environment.
    """
    here = processes_of(algorithm).is_first
    save_weights(algorithm.policy, path, _identity(algorithm, process), here=here)


def check_same_start(path: Path, algorithm: BaseAlgorithm, process: TextProcess) -> None:
    """Raise if a run would go on with other prompts or another frozen model.

    Raises:
        ValueError: If so; the message has the cure.
    """
    saved = read_notes(path)
    for name, told in _identity(algorithm, process).items():
        if saved.get(name) != told:
            raise ValueError(
                f"--resume {path.parent}: {_CURES[name]}, or begin another run: --config "
                f"{path.parent / 'config.yaml'} --output DIR"
            )


def _identity(algorithm: BaseAlgorithm, process: TextProcess) -> dict[str, str]:
    trained = trained_weights(algorithm.policy)
    frozen = {n: p for n, p in algorithm.policy.named_parameters() if n not in trained}
    return {"prompts": process.prompts.fingerprint(), "frozen": _fingerprint(frozen)}


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Tells weights from others: by two sums of each, rounded, as no two devices add alike."""
    told = hashlib.sha256()
    for name, weight in weights.items():
        numbers = weight.detach().double()
        sums = f"{numbers.sum():.6e} {numbers.norm():.6e}"
        told.update(f"{name} {tuple(weight.shape)} {sums}".encode())
    return told.hexdigest()
