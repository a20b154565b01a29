"""The error that ends a training before bad numbers reach the weights, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from textgym.files import atomic_directory

ARRAYS = "batch.safetensors"
REPORT = "report.json"


class Diverged(FloatingPointError):  # noqa: N818  # what happened, as StopIteration says it
    """A loss, a gradient, a reward, a value or a probability is a NaN or infinite.

    It is raised before the optimizer steps, so that the weights are those of the last good step,
    unless the message says otherwise: Stable-Baselines3's own algorithms cannot be stopped there.

    Args:
        found: What is not finite, in words, such as "the loss is nan".
        why: What that comes from, as far as can be seen.
        cure: What to try.
        batch: What was being learned from or written; see `Attributes`.
        by_reward: Whether the environment is to blame, and nothing that was learned.

    Attributes:
        found, why, cure, by_reward: As given.
        batch: Arrays by name, a row for each text: `input_ids` (r, L), right-padded, of which
            `context_lengths` (r,) stood there before and `lengths` (r,) are tokens at all; and for
            each written token, (r, S), right-padded with zeros, whatever there is of `rewards`,
            `values`, `log_probs`, `ref_log_probs` (from the rollout), `advantages`, `returns`,
            `new_log_probs` and `new_values` (of the weights as they are). Of Q-learning there are
            m steps instead, (m,): `texts`, `before`, `after`, `actions`, `rewards`, `dones`,
            `q_values` and `targets`; see `agents.replay.TextSamples`.
        when: After how many tokens and updates; empty outside of training.
        saved: Where `save` wrote the batch; None if it was not called.
        way_on: How to go on from the last good weights; empty if nobody said.
    """

    def __init__(
        self,
        found: str,
        why: str,
        cure: str,
        batch: Mapping[str, NDArray[Any]] | None = None,
        *,
        by_reward: bool = False,
    ) -> None:
        super().__init__(found, why, cure)
        self.found, self.why, self.cure, self.by_reward = found, why, cure, by_reward
        self.batch = dict(batch or {})
        self.when = ""
        self.saved: Path | None = None
        self.way_on = ""

    def __str__(self) -> str:
        """All of it, a line each."""
        lines = [f"diverged{self.when and ' ' + self.when}: {self.found}."]
        lines += [f"  Why    {self.why}", f"  Try    {self.cure}"]
        if self.saved is not None:
            lines.append(f"  Batch  {self.saved} ({ARRAYS}, and its texts in {REPORT})")
        elif self.batch:
            names = ", ".join(self.batch)
            lines.append(f"  Batch  not saved; as arrays in error.batch: {names}")
        if self.way_on:
            lines.append(f"  Go on  {self.way_on}")
        return "\n".join(lines)

    def save(self, directory: Path, decode: Callable[[list[int]], str]) -> None:
        """Write the batch, if there is one, for somebody to look at: arrays, and texts in words.

        Args:
            directory: Where to.
            decode: Makes text of token ids.
        """
        if not self.batch:  # Stable-Baselines3's DQN does not say what it drew
            return
        report = {
            "when": self.when,
            "found": self.found,
            "why": self.why,
            "try": self.cure,
            "arrays": {name: list(array.shape) for name, array in self.batch.items()},
            "not_finite": {
                name: int((~np.isfinite(array)).sum())
                for name, array in self.batch.items()
                if not np.isfinite(array).all()
            },
            "texts": list(_in_words(self.batch, decode)),
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in self.batch.items()}
        with atomic_directory(directory) as temporary:
            (temporary / ARRAYS).write_bytes(save(arrays))
            text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
            (temporary / REPORT).write_text(text, encoding="utf-8")
        self.saved = directory


class Counting(Protocol):
    """What knows how far a training is: an algorithm of Stable-Baselines3."""

    num_timesteps: int
    _n_updates: int


@contextmanager
def dated(training: Counting) -> Iterator[None]:
    """Let a `Diverged` that is raised in the block say how far the training was."""
    try:
        yield
    except Diverged as error:
        if not error.when:
            tokens, updates = training.num_timesteps, training._n_updates
            error.when = f"after {tokens:,} tokens (n_updates {updates:,})"
        raise


def batch_of_texts(
    contexts: Sequence[NDArray[Any]],
    written: Sequence[NDArray[Any]],
    columns: Mapping[str, Sequence[NDArray[Any]]],
) -> dict[str, NDArray[Any]]:
    """Texts of different lengths as the arrays of `Diverged.batch`.

    Args:
        contexts: Token ids that stood before, for each text.
        written: Token ids that were written, for each text.
        columns: By name, for each text a number for each of its written tokens.
    """
    both = [np.concatenate([c, w]).astype(np.int32) for c, w in zip(contexts, written, strict=True)]
    return {
        "input_ids": padded(both),
        "context_lengths": np.array([len(context) for context in contexts], np.int32),
        "lengths": np.array([len(ids) for ids in both], np.int32),
        **{name: padded(column) for name, column in columns.items()},
    }


def padded(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of different lengths as one array, (r, longest), with zeros on the right."""
    array = np.zeros((len(rows), max(map(len, rows))), rows[0].dtype)
    for to, row in zip(array, rows, strict=True):
        to[: len(row)] = row
    return array


def _in_words(
    batch: Mapping[str, NDArray[Any]], decode: Callable[[list[int]], str]
) -> Iterator[dict[str, str]]:
    columns = (batch[name].tolist() for name in ("input_ids", "context_lengths", "lengths"))
    for ids, context, length in zip(*columns, strict=True):
        prompt, text = (decode(part) for part in (ids[:context], ids[context:length]))
        yield {"prompt": prompt, "text": text}
