"""The loss of supervised learning against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from agents.backbone import Backbone
from agents.supervised import Demonstrations, cross_entropy
from agents.supervised.cross_entropy import mean_cross_entropy
from agents.supervised.demonstrations import batches
from textgym.prompt_format import PlainFormat
from textgym.tasks.base import Example, Task
from textgym.tokenizer import Tokenizer

EXAMPLES = tuple(Example("abcdefg"[:n], "hijklmnop"[: 9 - n]) for n in range(1, 8))


@pytest.mark.parametrize("max_tokens", [16, 10_000])
def test_it_is_torchs_on_the_same_texts(
    make_model: Any, byte_tokenizer: Tokenizer, max_tokens: int
) -> None:
    backbone = Backbone(make_model(), 257, 64)
    task = Task("mine", {"train": EXAMPLES})
    demonstrations = Demonstrations.of_task(task, "train", PlainFormat(byte_tokenizer)).all()
    losses = torch.zeros(sum(len(written) for _, written in demonstrations))
    for batch in batches(demonstrations, max_tokens, torch.device("cpu")):
        losses[torch.from_numpy(batch.places)] = cross_entropy(backbone, batch, 1_000)
    gradient = torch.autograd.grad(losses.mean(), backbone.head.weight)[0]

    expected = []
    for context, written in demonstrations:
        ids = torch.tensor([[*context, *written]])
        logits = backbone.model(ids).logits[0, len(context) - 1 : -1]
        labels = torch.tensor(written.tolist())
        expected.append(functional.cross_entropy(logits, labels, reduction="none"))
    theirs = torch.cat(expected)
    their_gradient = torch.autograd.grad(theirs.mean(), backbone.head.weight)[0]
    torch.testing.assert_close(losses, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, their_gradient, atol=1e-6, rtol=1e-4)
    theirs = theirs.detach()
    mean = mean_cross_entropy(backbone, demonstrations, max_tokens)
    assert mean == pytest.approx(theirs.mean().item(), abs=1e-5)
