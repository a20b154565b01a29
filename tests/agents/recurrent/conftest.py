from __future__ import annotations

from typing import Any

import pytest
import torch

from agents.recurrent import RecurrentForCausalLM, make_recurrent

VOCABULARY = 60


@pytest.fixture(params=["gru", "lstm", "rnn"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[1, 2])
def layers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def make_network() -> Any:
    """Builds a small network whose weights are large enough to tell texts apart."""

    def make(kind: str, layers: int = 1, width: int = 24, **more: Any) -> RecurrentForCausalLM:
        torch.manual_seed(0)
        spec = {"name": kind, "width": width, "layers": layers}
        network = make_recurrent(spec, VOCABULARY, **more).eval()
        with torch.no_grad():
            for parameter in network.rnn.parameters():
                # Much more would make them chaotic, and rounding grow from token to token.
                parameter += 0.1 * torch.randn_like(parameter)
            network.embed_tokens.weight.normal_(std=0.5)
        return network

    return make
