"""Keys and values of a batch in which every row has its own length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotCache(Cache):
    """A slot a row, which grows by a token a step and starts anew when its text does.

    Transformers' own caches let all rows grow together: a row whose text has ended waits for the
    longest one. Here it takes its next prompt at once, while the others go on.

    Args:
        num_rows: Number of rows, n.
        capacity: Most tokens of a row.

    Attributes:
        lengths: Tokens in each row, int64 (n,).
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        self._slots: list[_SlotLayer] = []
        super().__init__(layers=self._slots)  # type: ignore[arg-type]
        self.lengths = np.zeros(num_rows, np.int64)
        self._shape = (num_rows, capacity)

    def fill(self, rows: NDArray[np.intp], read: Cache, lengths: NDArray[np.int64]) -> None:
        """Start rows anew with what an ordinary cache has read.

        Args:
            rows: Which, (k,).
            read: Keys and values (k, heads, T, width) of each layer, right-padded.
            lengths: How many of the T tokens are a row's, (k,).
        """
        for index, layer in enumerate(read.layers):
            if index == len(self._slots):
                self._slots.append(_SlotLayer(*self._shape))
            self._slots[index].fill(rows, layer.keys, layer.values)  # type: ignore[arg-type, union-attr]
        self.lengths[rows] = lengths

    def append(self, device: torch.device) -> dict[str, Tensor]:
        """Make room for one token in every row.

        Returns:
            Inputs of the model beside the tokens: `position_ids` int64 (n, 1), and
            `attention_mask` (n, 1, 1, T), to be added to the attention scores: 0 on a row's own
            tokens, the new one among them, and the least number elsewhere.
        """
        num_rows, capacity = self._shape
        columns = int(self.lengths.max()) + 1
        positions = torch.tensor(self.lengths[:, None], device=device)
        heads = self._slots[0].keys.shape[1]
        slots = torch.arange(num_rows * heads, device=device).view(num_rows, heads)
        places = (slots * capacity + positions).flatten()
        for layer in self._slots:
            layer.places, layer.columns = places, columns
        beyond = torch.arange(columns, device=device) > positions
        mask = torch.zeros(num_rows, columns, device=device, dtype=self._slots[0].keys.dtype)
        mask.masked_fill_(beyond, torch.finfo(mask.dtype).min)
        self.lengths += 1
        return {"position_ids": positions, "attention_mask": mask[:, None, None]}

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Forget all rows but these, which move together."""
        self.lengths = self.lengths[rows]
        self._shape = (len(rows), self._shape[1])
        for layer in self._slots:
            layer.keep(rows)


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, (n, heads, capacity, width) each."""

    is_sliding = False
    keys: Tensor
    values: Tensor
    places: Tensor
    columns: int

    def __init__(self, num_rows: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shape = (num_rows, capacity)

    def fill(self, rows: NDArray[np.intp], keys: Tensor, values: Tensor) -> None:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        index = torch.from_numpy(rows).to(keys.device)
        columns = keys.shape[2]
        self.keys[index, :, :columns] = keys.to(self.keys.dtype)
        self.values[index, :, :columns] = values.to(self.values.dtype)

    def keep(self, rows: NDArray[np.intp]) -> None:
        index = torch.from_numpy(rows).to(self.keys.device)
        self.keys, self.values = self.keys[index], self.values[index]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        num_rows, capacity = self._shape
        device, dtype = key_states.device.type, key_states.dtype
        if torch.is_autocast_enabled(device):
            # What attention will read them in; rotary keys come in float32, and values do not.
            dtype = torch.get_autocast_dtype(device)

        def room(states: Tensor) -> Tensor:
            _, heads, _, width = states.shape
            return states.new_zeros(num_rows, heads, capacity, width, dtype=dtype)

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token's keys and values (n, heads, 1, width) at the end of every row."""
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def _write(self, slots: Tensor, states: Tensor) -> Tensor:
        slots.flatten(0, 2).index_copy_(0, self.places, states.flatten(0, 2).to(slots.dtype))
        return slots[:, :, : self.columns]

    def get_seq_length(self, *args: Any) -> int:
        """Tokens of the longest row; rows say on their own, by position, where they stand."""
        return self.columns - 1

    def get_mask_sizes(self, *args: Any) -> tuple[int, int]:
        """Columns, and the first of them."""
        return self.columns, 0

    def get_max_length(self) -> int:
        """Most tokens of a row."""
        return self._shape[1]

    get_max_cache_shape = get_max_length  # its name in transformers before 5.10
