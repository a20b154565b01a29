"""What the machine could do, and what the arithmetic of a model comes to.

Operations are counted as the model needs them, once, whatever an implementation repeats:

- a matrix of a layer, and the head: 2 operations a weight for each token that passes it. The
  embedding is looked up, which is none. Tokens of the prompt pass the layers, not the head.
- attention: 4 · width for each pair of a token and one that it sees (scores and mixing), in each
  layer. A token sees itself and all before it.
- an update: 3 times the forward pass, as gradients for inputs and weights are a product each.

Norms, activations, softmax, the value head, sampling and the optimizer are not counted.
"""

from __future__ import annotations

import torch

from speed.stopwatch import now
from speed.workload import Workload

SIZES = (1024, 2048, 4096)
SIZES_OF_A_GPU = (4096, 8192)


def matrix_product_peak(device: str, dtype: str, seconds: float = 1.0) -> float:
    """Operations a second of matrix products: the best that any size and try gave.

    Args:
        device: Where.
        dtype: Number type, by its name in torch.
        seconds: How long each size is tried.
    """
    best = 0.0
    kind = {"device": device, "dtype": getattr(torch, dtype)}
    for size in SIZES if device == "cpu" else SIZES_OF_A_GPU:
        left, right = torch.randn(2, size, size, **kind).unbind()
        product = torch.empty(size, size, **kind)
        end = now(device) + seconds
        while True:
            start = now(device)
            torch.mm(left, right, out=product)
            done = now(device)
            best = max(best, 2 * size**3 / (done - start))
            if done > end:
                break
    return best


def operations(workload: Workload, begin: int, end: int, heads: int) -> float:
    """Operations of reading some tokens of every row, where those before them are read already.

    Args:
        workload: Its rows and its model.
        begin: Place of the first token in its row.
        end: Behind the last.
        heads: For how many of them there is a distribution over the next token.
    """
    width = workload.width
    layer = 4 * width**2 + 3 * width * workload.feed_forward
    pairs = (end * (end + 1) - begin * (begin + 1)) / 2
    layers = workload.layers * (2 * layer * (end - begin) + 4 * width * pairs)
    return workload.rows * (layers + 2 * width * workload.vocabulary * heads)
