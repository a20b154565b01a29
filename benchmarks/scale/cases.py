"""What is measured: models, texts and processes; and what is kept apart, to be predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from speed.workload import Workload

from scale.shape import Load, Shape


@dataclass(frozen=True)
class Case:
    """Work for some processes.

    Attributes:
        workload: What each process writes, with which model.
        mini_batches: Steps of the optimizer in a pass over the rollout.
        epochs: Passes.
        processes: How many.
        together: Whether they train one model; otherwise each one of its own, at the same time,
            which costs what so many processes cost without any exchange.
        held_out: Whether it is predicted, and not fitted.
        lora: Rank of adapters that are trained alone; None to train all.
        shard: Whether weights are sharded, by FSDP2.
    """

    workload: Workload
    mini_batches: int = 4
    epochs: int = 1
    processes: int = 1
    together: bool = True
    held_out: bool = False
    lora: int | None = None
    shard: bool = False

    @property
    def shape(self) -> Shape:
        """Of the model."""
        of = self.workload
        return Shape(of.layers, of.width, of.feed_forward, of.vocabulary, biased=True)

    @property
    def load(self) -> Load:
        """Of each process."""
        of = self.workload
        return Load(of.rows, of.prompt, of.new, self.mini_batches, self.epochs)

    @property
    def name(self) -> str:
        """In short."""
        of = self.workload
        words = [f"{self.shape.parameters / 1e6:.2g} M ({of.layers} x {of.width})"]
        words += [f"vocabulary {of.vocabulary:,}", f"{of.rows} rows of {of.prompt} + {of.new}"]
        words += [f"{self.epochs} x {self.mini_batches} mini-batches"]
        words += [f"LoRA {self.lora}"] if self.lora else []
        words += ["FSDP2"] if self.shard else []
        return ", ".join(words)


def model(layers: int, width: int, **others: Any) -> Workload:
    """Work with a model of some size: heads of 32, a feed-forward part of 8/3 of the width."""
    usual = {"rows": 16, "prompt": 16, "new": 32, "feed_forward": round(width * 8 / 3)}
    return Workload(**{**usual, **others}, layers=layers, width=width, heads=width // 32)


SMALLEST, SMALL, BASE = (2, 64), (2, 96), (4, 128)
MEDIUM, LARGE, LARGEST = (6, 192), (6, 320), (8, 512)

ALONE = [
    *(Case(model(*size)) for size in (SMALL, BASE, MEDIUM, LARGE, LARGEST)),
    Case(model(8, 96)),
    Case(model(2, 320)),
    *(Case(model(*BASE, rows=rows)) for rows in (4, 64, 128)),
    *(Case(model(*LARGE, rows=rows)) for rows in (4, 64)),
    *(Case(model(*BASE, new=new)) for new in (8, 128, 256)),
    Case(model(*LARGE, new=128)),
    *(Case(model(*BASE, prompt=prompt)) for prompt in (64, 192)),
    *(Case(model(*BASE, vocabulary=size)) for size in (4_096, 32_768)),
    Case(model(*SMALL, vocabulary=32_768, rows=32)),
    Case(model(*LARGE, vocabulary=16_384)),
    *(Case(model(*BASE, rows=64), mini_batches=count) for count in (1, 16)),
    Case(model(*LARGE), mini_batches=1),
    Case(model(*BASE), epochs=4),
]
"""What the cost of computing is fitted to."""

APART = [
    Case(model(*SMALLEST), held_out=True),
    Case(model(3, 160, rows=24, new=48, vocabulary=1_024), held_out=True),
    Case(model(5, 160, rows=32, prompt=32, new=64), held_out=True),
    Case(model(6, 256, rows=12, vocabulary=2_048), mini_batches=2, held_out=True),
    Case(model(4, 192, vocabulary=8_192, rows=32), mini_batches=8, held_out=True),
    Case(model(7, 416, rows=32, new=24), epochs=2, held_out=True),
    Case(model(*BASE, rows=2), mini_batches=2, held_out=True),
    Case(model(*BASE, rows=256), held_out=True),
    Case(model(*BASE, new=384), held_out=True),
    Case(model(*BASE, vocabulary=50_257), held_out=True),
    Case(model(10, 704), held_out=True),
]
"""What it has to predict: sizes in between, and some beyond what was fitted, in each direction."""

_SHARED = [
    *(Case(model(*size)) for size in (SMALL, BASE, MEDIUM, LARGE, LARGEST)),
    Case(model(*BASE, rows=64)),
    Case(model(*BASE, rows=64), mini_batches=16),
    Case(model(*LARGE), mini_batches=1),
    Case(model(*LARGE, new=128)),
    Case(model(*BASE, vocabulary=32_768)),
]
_SHARED_APART = [
    Case(model(5, 160, rows=32, prompt=32, new=64), held_out=True),
    Case(model(4, 192, vocabulary=8_192, rows=32), mini_batches=8, held_out=True),
    Case(model(7, 416, rows=32, new=24), epochs=2, held_out=True),
    Case(model(10, 704), held_out=True),
]
PAIRS = [
    replace(case, processes=2, together=together)
    for case in _SHARED + _SHARED_APART
    for together in (True, False)
]
"""Two processes that exchange, and two that do not."""

FOURS = [
    replace(case, processes=4, together=together)
    for case in (
        *(Case(model(*size)) for size in (BASE, LARGE)),
        Case(model(*BASE, rows=64), mini_batches=16),
        Case(model(5, 160, rows=32, prompt=32, new=64), held_out=True),
        Case(model(7, 416, rows=32, new=24), epochs=2, held_out=True),
    )
    for together in (True, False)
]
"""Four: on two cores they show what exchange costs, and never that anything gets faster."""

OTHERS = [Case(model(*LARGE), processes=count, lora=8) for count in (1, 2)] + [
    Case(model(*LARGE), processes=count, shard=True) for count in (2, 4)
]
"""Other things to send: gradients of adapters alone, and weights in parts."""
