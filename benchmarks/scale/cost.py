r"""What a rollout and an update cost, as a sum of terms that mean something.

$$ \text{seconds} = s_k \sum_i c_i x_i + \alpha \cdot \text{messages} + \beta \cdot \text{bytes} $$

The x are counts: operations, bytes, steps. The c are what one of them takes on a machine, are not
negative, and are fitted to what was measured (`fitted`); s_k is by how much k processes at a time
are slower than one, without any exchange; alpha and beta are what exchange takes.

Letters: n rows, prompts of P tokens, T new tokens, a trunk of W weights in L layers of width d, of
which D are those of keys, and feed-forward parts of width f, a vocabulary of V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls  # type: ignore[import-untyped]

from scale.shape import Load, Shape

FLOAT = 4
SHORT = 128
"""Texts of so many tokens are read by one product a head on a CPU; see `agents.short_attention`."""
CHUNK = 2**24
"""Logits that are held at a time in an update; if there are more they are made twice."""

Terms = dict[str, float]


def rollout_terms(shape: Shape, load: Load) -> Terms:
    r"""What is counted in a rollout.

    * prompts, operations: $2 n P W + 2 L d n P^2$, products and attention of whole texts, many
      tokens at a time
    * products, operations: $2 n T (W + d V)$, one token of each row at a time
    * weights, bytes: $4 T (W + d V)$; each step reads all of them, however few rows there are
    * cache, bytes: $8 L D n \sum_{t<T} (P + t)$, keys and values that each step reads
    * logits, bytes: $4 n T V$, to draw from
    * layers: $L T$, what a layer's Python and small kernels take in each step
    * steps: $T$, the same for all that is not in a layer
    * tokens: $n T$, environment, reward and buffer
    * layers' tokens: $n T L d$, norms, rotations, activations

    Args:
        shape: Of the model.
        load: Of the process.
    """
    n, p, t = load.rows, load.prompt, load.new
    columns = t * p + t * (t - 1) / 2
    matrices = shape.trunk + shape.head
    return {
        "prompts": 2 * n * p * shape.trunk + 2 * shape.layers * shape.width * n * p**2,
        "products": 2 * n * t * matrices,
        "weights": FLOAT * t * matrices,
        "cache": 2 * FLOAT * shape.layers * shape.cache_width * n * columns,
        "logits": FLOAT * n * t * shape.vocabulary,
        "layers": shape.layers * t,
        "steps": t,
        "tokens": n * t,
        "layers' tokens": n * t * shape.layers * shape.width,
    }


def update_terms(shape: Shape, load: Load) -> Terms:
    r"""What is counted in an update of E passes in M mini-batches, N = n (P + T - 1) tokens each.

    * products, operations: $6 E N W$, forward, and backward for inputs and weights
    * attention, operations: $6 E L d N (P + T - 1)$
    * head, operations: $6 E n T d V$, and a third more where logits are made twice
    * logits, bytes: $4 E n T V$
    * activations, numbers: $E N L (d + f)$, norms, rotations, gates, forward and backward
    * parameters, bytes: 4 E M times all parameters; the optimizer, the norm of the gradient
    * layers: $E M L$ times the pieces of a mini-batch, Python and small kernels
    * mini-batches: $E M$, the same for all that is not in a layer
    * tokens: $E n T$, losses, buffer

    Args:
        shape: Of the model.
        load: Of the process.
    """
    read = load.epochs * load.read
    written = load.epochs * load.written
    length = load.prompt + load.new - 1
    in_a_piece = load.written / load.mini_batches / load.pieces * shape.vocabulary
    twice = 4 / 3 if in_a_piece > CHUNK else 1.0
    return {
        "products": 6 * read * shape.trunk,
        "attention": 6 * read * shape.layers * shape.width * length,
        "head": 6 * twice * written * shape.head,
        "logits": FLOAT * written * shape.vocabulary,
        "activations": read * shape.layers * (shape.width + shape.feed_forward),
        "parameters": FLOAT * load.steps * shape.parameters,
        "layers": load.steps * load.pieces * shape.layers,
        "mini-batches": load.steps,
        "tokens": written,
    }


def exchange_terms(messages: float, sent: float, processes: int) -> Terms:
    r"""What is counted of exchange.

    * messages: times $k - 1$ hops round a ring
    * bytes that each process sends

    Args:
        messages: How often all wait for each other.
        sent: Bytes that each process sends.
        processes: How many there are, k.
    """
    return {"messages": messages * (processes - 1), "bytes": sent}


def seconds(terms: Mapping[str, float], coefficients: Mapping[str, float]) -> float:
    """What some counts take, with what one of each takes."""
    return sum(coefficients[name] * count for name, count in terms.items())


def fitted(terms: Sequence[Mapping[str, float]], measured: Sequence[float]) -> dict[str, float]:
    r"""What one of each takes: the c that are at least 0 and make the relative errors least.

    $$ \min_{c \ge 0} \sum_j \Big( \frac{\sum_i c_i x_{ij}}{y_j} - 1 \Big)^2 $$

    Lawson and Hanson 1974, "Solving Least Squares Problems", by SciPy's `nnls`.

    Args:
        terms: Counts of each measurement, of the same names.
        measured: Seconds of each.
    """
    names = list(terms[0])
    counts = np.array([[one[name] for name in names] for one in terms], float)
    relative = counts / np.array(measured, float)[:, None]
    # Of one size, so that none is lost in rounding beside operations by the billion.
    sizes = relative.max(axis=0)
    sizes[sizes == 0] = 1.0
    found, _ = nnls(relative / sizes, np.ones(len(relative)))
    return dict(zip(names, (found / sizes).tolist(), strict=True))


@dataclass(frozen=True)
class Machine:
    """What was fitted on a machine, in seconds for each of what is counted.

    Attributes:
        rollout: See `rollout_terms`.
        update: See `update_terms`.
        exchange: See `exchange_terms`.
        slowdown: By how much k processes at a time are slower than one alone, by k, of rollouts
            and of updates.
    """

    rollout: dict[str, float]
    update: dict[str, float]
    exchange: dict[str, float]
    slowdown: dict[int, tuple[float, float]]

    def predict(
        self, shape: Shape, load: Load, processes: int, messages: float, sent: float
    ) -> tuple[float, float, float]:
        """Seconds of a rollout, of an update, and of that what is exchange."""
        of_rollout, of_update = self.slowdown[processes]
        exchange = seconds(exchange_terms(messages, sent, processes), self.exchange)
        rollout = of_rollout * seconds(rollout_terms(shape, load), self.rollout)
        update = of_update * seconds(update_terms(shape, load), self.update)
        return rollout, update + exchange, exchange
