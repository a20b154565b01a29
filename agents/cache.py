"""Keys and values of a batch in which every row has its own length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache


class SlotCache(Cache):
    """A slot a row, which grows by a token a step and starts anew when its text does.

    Transformers' own caches let all rows grow together: a row whose text has ended waits for the
    longest one. Here it takes its next prompt at once, while the others go on.

    A model gives it the keys and values of tokens of any rows, all in one sequence. It puts them
    in their places and hands them back as they came; `agents.attention` reads the slots.

    Args:
        num_rows: Number of rows, n.
        capacity: Most tokens of a row.

    Attributes:
        keys: Of each layer, (n, heads, capacity, width).
        values: Of each layer, (n, heads, capacity, width).
        lengths: Tokens in each row, int64 (n,).
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.lengths = np.zeros(num_rows, np.int64)
        self.num_rows, self.capacity = num_rows, capacity
        self._rows = self._positions = self._places = torch.empty(0, dtype=torch.long)

    def place(self, rows: Tensor, positions: Tensor) -> None:
        """Say where the next keys and values belong: a row and a position for each, int64 (m,)."""
        self._rows, self._positions = rows, positions
        self._places = rows[:0]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Put a layer's keys and values of m tokens, (1, heads, m, width), in their places."""
        if layer_idx == len(self.keys):
            self.keys.append(self._room(key_states))
            self.values.append(self._room(value_states))
        slots = self.keys[layer_idx], self.values[layer_idx]
        places = self._places_of_heads(key_states.shape[1])
        for slot, states in zip(slots, (key_states, value_states), strict=True):
            # Heads within tokens, as projections make them; so that nothing is moved for it.
            stripes = states[0].transpose(0, 1).flatten(0, 1)
            slot.flatten(0, 2).index_copy_(0, places, stripes.to(slot.dtype))
        return key_states, value_states

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Forget all rows but these, which move together."""
        self.lengths, self.num_rows = self.lengths[rows], len(rows)
        for layers in (self.keys, self.values):
            for index, slots in enumerate(layers):
                layers[index] = slots[torch.from_numpy(rows).to(slots.device)]

    def get_seq_length(self, *args: Any) -> int:
        """None that models should count from: tokens say by position where they stand."""
        return 0

    def _places_of_heads(self, heads: int) -> Tensor:
        """The places of m tokens in all heads, counted through a flattened layer, (m heads,)."""
        if len(self._places) != heads * len(self._rows):
            head = torch.arange(heads, device=self._rows.device)
            slot = self._rows[:, None] * heads + head
            self._places = (slot * self.capacity + self._positions[:, None]).flatten()
        return self._places

    def _room(self, states: Tensor) -> Tensor:
        device, dtype = states.device.type, states.dtype
        if torch.is_autocast_enabled(device):
            # What attention will read them in; rotary keys come in float32, and values do not.
            dtype = torch.get_autocast_dtype(device)
        _, heads, _, width = states.shape
        return states.new_zeros(self.num_rows, heads, self.capacity, width, dtype=dtype)
