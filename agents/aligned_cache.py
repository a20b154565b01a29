"""Transformers' own cache for rows of different ages: all of them end in its last column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

_KEEPING_ALL: dict[type, type] = {
    DummyLayer: DummyLayer,  # of those that share another's keys and values
    DynamicLayer: DynamicLayer,
    DynamicSlidingWindowLayer: DynamicLayer,
    LinearAttentionAndFullAttentionLayer: LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer: LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer: LinearAttentionLayer,
}
"""Layers that can be put together from rows; a sliding window is left to the mask."""


class AlignedCache(DynamicCache):
    """What `generate` gives a model, except that rows can be replaced.

    Keys and values are (n, heads, columns, width), and what a row does not fill is at the left,
    to be masked. States, which some families have instead or as well, know no columns.

    Args:
        config: The model's.

    Raises:
        NotImplementedError: If the family keeps something else.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        for index, layer in enumerate(self.layers):
            if type(layer) not in _KEEPING_ALL:
                raise NotImplementedError(f"rows of a {type(layer).__name__}")
            self.layers[index] = _KEEPING_ALL[type(layer)]()

    @property
    def has_columns(self) -> bool:
        """Whether there is anything to be masked."""
        return any(isinstance(layer, DynamicLayer) for layer in self.layers)

    def spread(self, rows: Tensor, num_rows: int) -> None:
        """Make this one of more rows, of which these, (k,), are what was there."""
        for place, name, _ in self._tensors():
            old = place[name]
            place[name] = old.new_zeros(num_rows, *old.shape[1:]).index_copy_(0, rows, old)

    def put(self, rows: Tensor, other: AlignedCache) -> None:
        """Replace some rows, (k,), by those of another cache."""
        theirs = [place[name] for place, name, _ in other._tensors()]
        for (place, name, grows), new in zip(self._tensors(), theirs, strict=True):
            old = place[name]
            if grows:
                columns = max(old.shape[2], new.shape[2])
                old, new = (_widened(states, columns) for states in (old, new))
            place[name] = old.index_copy(0, rows, new)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these, (k,)."""
        for place, name, _ in self._tensors():
            place[name] = place[name][rows]

    def cut_off(self, columns: int) -> None:
        """Forget all but the last columns."""
        for place, name, grows in self._tensors():
            if grows:
                place[name] = place[name][:, :, -columns:]

    def _tensors(self) -> Iterator[tuple[dict[Any, Any], Any, bool]]:
        """Where each tensor is, under which name, and whether it has columns."""
        for layer in self.layers:
            if isinstance(layer, DynamicLayer) and layer.is_initialized:
                yield vars(layer), "keys", True
                yield vars(layer), "values", True
            if isinstance(layer, LinearAttentionLayer):
                for states in (layer.conv_states, layer.recurrent_states):
                    for index, state in states.items():
                        if state is not None:
                            yield states, index, False


def _widened(states: Tensor, columns: int) -> Tensor:
    return functional.pad(states, (0, 0, columns - states.shape[2], 0))
