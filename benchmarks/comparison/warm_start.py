"""Models that know how an answer looks, and not which one is right.

The built-in model has read no arithmetic: it goes on with a speech after "3 + 4 =", and a reward
for right answers would never be paid. As is usual before training with such rewards, the model
first learns the form of an answer from examples; but their answers are drawn at random, so that
what is right is left to the reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory

import torch

from agents import TransformerPolicy
from comparison import tasks
from comparison.setup import new_policy
from textgym.tokenizer import BUILTIN, Tokenizer

STEPS, BATCH, LEARNING_RATE, SEED = 100, 64, 5e-4, 0
IGNORED = -100
"""What transformers takes for a token without a loss."""


def answers(task: str) -> list[str]:
    """What may be answered to any prompt of a task; none if the model knows how as it is."""
    known = {"sums": [f" {total}" for total in range(19)], "choices": [" A", " B"]}
    return known.get(task, [])


@contextmanager
def model_for(task: str) -> Iterator[str]:
    """The model with which training on a task begins, to be loaded: "builtin" or a directory.

    The directory is gone after the block: workers of a cluster leave without cleaning up.
    """
    if not answers(task):
        yield BUILTIN
        return
    with TemporaryDirectory(prefix="compare-rewards-") as directory:
        _fitted(task).save_pretrained(directory, Tokenizer.from_pretrained(BUILTIN))
        yield directory


@cache
def _fitted(task: str) -> TransformerPolicy:
    """The same in every process: seeded, and made by one thread."""
    policy = new_policy(task, BUILTIN)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        fit(policy, task, answers(task), Tokenizer.from_pretrained(BUILTIN))
    return policy


def fit(policy: TransformerPolicy, task: str, possible: list[str], tokenizer: Tokenizer) -> None:
    """Train a policy's model on the training prompts with answers drawn at random."""
    prompts = [example.prompt for example in tasks.make(task).split("train")]
    model = policy.backbone.model
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    assert tokenizer.eos_token_id is not None
    for _ in range(STEPS):
        drawn = torch.randint(len(prompts), (BATCH,)).tolist()
        chosen = torch.randint(len(possible), (BATCH,)).tolist()
        ids, labels = [], []
        for prompt, answer in zip(drawn, chosen, strict=True):
            begin = len(tokenizer.encode(prompts[prompt]))
            whole = [*tokenizer.encode(prompts[prompt] + possible[answer]), tokenizer.eos_token_id]
            ids.append(torch.tensor(whole))
            labels.append(torch.tensor([IGNORED] * begin + whole[begin:]))
        padded = torch.nn.utils.rnn.pad_sequence(
            ids, batch_first=True, padding_value=tokenizer.eos_token_id
        )
        wanted = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        loss = model(input_ids=padded, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
