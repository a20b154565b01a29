"""Keeping up with texts that grow by a token at a time, for networks whose memory is a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.backbone import Backbone, NextToken
from agents.recurrent.model import RecurrentForCausalLM, State
from agents.seen import MAX_TOKENS, nothing_seen, put, take

_CELLS: dict[str, Any] = {
    "gru": torch.gru_cell,
    "lstm": torch.lstm_cell,
    "rnn": torch.rnn_tanh_cell,
}
"""One step each; torch's layers check and pack more than a step computes."""


class RecurrentReader:
    """Reads every token once, and keeps the state of each row.

    Prompts of different lengths are read together. Texts that have ended are read on until their
    next begins: a step costs the same.

    Args:
        backbone: The model, a `RecurrentForCausalLM`.
        num_rows: Number of rows, n.

    Attributes:
        seen: What the model says at the end of each row, n rows.
    """

    def __init__(self, backbone: Backbone, num_rows: int) -> None:
        self._backbone = backbone
        self._model: RecurrentForCausalLM = backbone.model
        config = self._model.config
        self.seen = nothing_seen(backbone, num_rows)
        empty = self.seen.hidden.new_zeros(num_rows, backbone.width)
        parts = 2 if config.kind == "lstm" else 1
        self._states: list[State] = [(empty,) * parts for _ in range(config.num_hidden_layers)]
        self._cell = _CELLS[config.kind]
        self._weights = [
            [
                getattr(self._model.rnn, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            for layer in range(config.num_hidden_layers)
        ]

    def begin(
        self, rows: NDArray[np.intp], input_ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """See `Reader`."""
        columns = int(lengths.max())
        count = max(MAX_TOKENS // columns, 1)
        for first in range(0, len(rows), count):
            some = slice(first, first + count)
            ids = self._on_device(input_ids[some, :columns])
            with self._backbone.autocast():
                _, state = self._model.read(ids, torch.from_numpy(lengths[some]))
            index = self._on_device(rows[some])
            self._states = [
                tuple(old.index_copy(0, index, new.float()) for old, new in zip(*both, strict=True))
                for both in zip(self._states, zip(*state, strict=True), strict=True)
            ]
            put(self.seen, rows[some], self._said(state[0][-1]))

    def append(self, tokens: Tensor) -> None:
        """See `Reader`."""
        hidden = self._model.embed(tokens)
        with self._backbone.autocast():
            for layer, (known, weights) in enumerate(zip(self._states, self._weights, strict=True)):
                if len(known) == 2:
                    after = self._cell(hidden, known, *weights)
                else:
                    after = (self._cell(hidden, *known, *weights),)
                hidden = after[0]
                self._states[layer] = tuple(part.float() for part in after)
        self.seen = self._said(hidden)

    def keep(self, rows: NDArray[np.intp]) -> None:
        """See `Reader`."""
        index = self._on_device(rows)
        self._states = [tuple(part[index] for part in state) for state in self._states]
        self.seen = take(self.seen, rows)

    def _said(self, hidden: Tensor) -> NextToken:
        hidden = hidden.float()
        return NextToken(hidden, self._backbone.logits(hidden))

    def _on_device(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.seen.hidden.device)
