"""Peak memory of an update at a large vocabulary: `TokenPPO` against the plain way.

The plain way makes the logits of all tokens, takes their log-softmax, and the entropy of it. Each
side runs in a process of its own and makes the same update twice: what its resident memory (on a
GPU: what torch has allocated there) grows by during the second one, at its highest, is what counts.
The layers are narrow and few, so that what is measured is the logits. Linux only, as the highest
mark is read from `/proc`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from speed.learners import LEARNING_RATE, fast
from speed.results import Figures, Section, Target
from speed.stopwatch import now
from speed.workload import Workload

NEEDED = 8 * 2**30
"""Bytes that must be free: the plain way takes several arrays of a gigabyte."""


class Cost(NamedTuple):
    """Bytes that the resident memory grew by at its highest, and seconds."""

    peak: int
    seconds: float


def measure(workload: Workload, at_most: float) -> Section:
    """Compare both sides on a workload.

    Raises:
        MemoryError: If too little memory is free.
    """
    on_gpu = workload.device != "cpu"
    memory = Path("/proc/meminfo")
    free = torch.cuda.mem_get_info()[0] if on_gpu else _kilobytes(memory, "MemAvailable")
    if free < NEEDED:
        raise MemoryError(
            f"{free / 2**30:.1f} GB of memory are free, and this comparison needs "
            f"{NEEDED / 2**30:.0f}. End other programs first."
        )
    ours, plain = (in_a_new_process(side, workload) for side in (_fast_update, _plain_update))
    tokens = workload.rows * workload.new
    array = 4 * tokens * workload.vocabulary
    case = f"{tokens:,} tokens, vocabulary {workload.vocabulary:,}"
    body = [
        [name, f"{cost.peak / 1e6:,.0f}", f"{cost.peak / array:.2f}", f"{cost.seconds:.1f}"]
        for name, cost in (("plain", plain), ("TokenPPO", ours))
    ]
    header = ["update", "peak, MB", "arrays of all logits", "seconds"]
    target = Target(
        "plain update, peak memory",
        case,
        ours.peak / plain.peak,
        at_most,
        upper=True,
        detail=f"{ours.peak / 1e6:,.0f} MB against {plain.peak / 1e6:,.0f} MB",
    )
    note = (
        f"One array of all logits, {case}, is {array / 1e6:,.0f} MB. The model is {workload.layers}"
        f" layers x {workload.width} wide."
    )
    return Section([target], [Figures("Peak memory of an update", header, body)], [note])


def in_a_new_process(side: Callable[[Workload], Cost], workload: Workload) -> Cost:
    """What a side costs where nothing else has been in memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(side, workload).result()


class _Watch(BaseCallback):
    """Notes what each update costs."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = Cost(0, 0.0)
        self._resident, self._began = 0, 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._resident, self._began = forget_peak(self.model.device), now(self.model.device)

    def _on_training_end(self) -> None:
        seconds = now(self.model.device) - self._began
        self.cost = Cost(peak(self.model.device) - self._resident, seconds)


def _fast_update(workload: Workload) -> Cost:
    batch = workload.rows * workload.new
    learner = fast(workload, n_steps=workload.new, batch_size=batch, n_epochs=1, ent_coef=0.01)
    watch = _Watch()
    learner.learn(2, watch)
    return watch.cost


def _plain_update(workload: Workload) -> Cost:
    """PPO's loss on logits of all tokens at once, with random advantages."""
    device = torch.device(workload.device)
    model = workload.model().to(device)
    value_head = nn.Linear(workload.width, 1, device=device)
    parameters = [*model.parameters(), *value_head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-5)
    shape = (workload.rows, workload.prompt + workload.new)
    ids = torch.randint(2, workload.vocabulary, shape, device=device)
    actions = ids[:, workload.prompt :]
    advantages, returns = torch.randn(2, *actions.shape, device=device).unbind()
    old_log_probs = torch.full_like(advantages, -math.log(workload.vocabulary))
    cost = Cost(0, 0.0)
    for _ in range(2):
        optimizer.zero_grad()
        resident, began = forget_peak(device), now(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=workload.dtype == "bfloat16"):
            hidden = model.model(ids[:, :-1]).last_hidden_state[:, workload.prompt - 1 :].float()
        log_softmax = model.lm_head(hidden).log_softmax(-1)
        entropy = -(log_softmax.exp() * log_softmax).sum(-1).mean()
        log_probs = log_softmax.gather(-1, actions[:, :, None])[:, :, 0]
        ratio = (log_probs - old_log_probs).exp()
        clipped = ratio.clamp(0.8, 1.2)
        surrogate = torch.minimum(ratio * advantages, clipped * advantages).mean()
        value_loss = nn.functional.mse_loss(value_head(hidden)[:, :, 0], returns)
        (0.5 * value_loss - surrogate - 0.01 * entropy).backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        seconds = now(device) - began
        cost = Cost(peak(device) - resident, seconds)
        del hidden, log_softmax, entropy, log_probs, ratio, clipped, surrogate, value_loss
    return cost


def forget_peak(device: torch.device) -> int:
    """Begin a new highest mark of memory in use, and say how much is in use now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes(Path("/proc/self/status"), "VmRSS")


def peak(device: torch.device) -> int:
    """The highest mark of memory in use since it was begun, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kilobytes(Path("/proc/self/status"), "VmHWM")


def _kilobytes(path: Path, key: str) -> int:
    """A value that a file of `/proc` has in kB, in bytes."""
    match = re.search(rf"^{key}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{path} does not say {key}; peak memory can be measured on Linux only.")
    return 1024 * int(match.group(1))
