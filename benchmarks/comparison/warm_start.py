"""Models that know how an answer looks, and not which one is right.

The built-in model has read no arithmetic: it goes on with a speech after "3 + 4 =", and a reward
for right answers would never be paid. As is usual before training with such rewards, the model
first learns the form of an answer from examples; but their answers are drawn at random, so that
what is right is left to the reward.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

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


@cache
def model_for(task: str) -> str:
    """The model with which training on a task begins: "builtin" or a directory.

    The same in every process: seeded, and made by one thread.
    """
    possible = answers(task)
    if not possible:
        return BUILTIN
    directory = _kept(tempfile.TemporaryDirectory(prefix="compare-rewards-"))
    policy, tokenizer = new_policy(task, BUILTIN), Tokenizer.from_pretrained(BUILTIN)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        fit(policy, task, possible, tokenizer)
    policy.save_pretrained(directory, tokenizer)
    return str(directory)


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


_directories: list[tempfile.TemporaryDirectory[str]] = []


def _kept(directory: tempfile.TemporaryDirectory[str]) -> Path:
    """A temporary directory that stays as long as the process."""
    _directories.append(directory)
    return Path(directory.name)


def clean_up() -> None:
    """Remove what was written, where the process ends without doing so itself."""
    for directory in _directories:
        directory.cleanup()
