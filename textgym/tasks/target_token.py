"""The identity task: write the token that is asked for, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from textgym.tasks.base import SPLITS, Example, Task


def target_token(targets: Sequence[str] = ("a",), num_prompts: int = 8) -> Task:
    """Write the text that the prompt ends with: a task that every algorithm must solve.

    Prompt number k for a target is `"{k}:{target}"` (`"1:a"`, `"2:a"`, ...) and its reference is
    the target, for the reward `target_token` to compare with. A prompt ends with exactly its
    target, so that the task is the identity function, and the best return an episode can have is
    its number of tokens. The number before the colon says nothing about the answer.

    With one target the answer is the same everywhere: it is enough to learn one output bias, and
    whoever cannot do it has the sign of the gradient wrong. With several, the answer depends on
    the prompt: it takes an observation that reaches the policy, and credit that reaches the right
    row.

    **Reward**: `target_token`, whose best score is 1.

    All three splits hold the same examples, since this tests learning and not generalisation.

    Args:
        targets: The texts to write, cycled through. Each should be one token of the tokenizer; a
            single letter is, in nearly all.
        num_prompts: Number of prompts, at least one for each target.

    Raises:
        TypeError: If `targets` is one string or holds something else than strings, or
            `num_prompts` is not an integer.
        ValueError: If a target is empty or comes twice, or there are fewer prompts than targets.
    """
    if isinstance(targets, str) or not all(isinstance(target, str) for target in targets):
        raise TypeError(f"targets must be a list of strings such as ['a', 'b'], got {targets!r}.")
    if not targets or "" in targets or len(set(targets)) < len(targets):
        raise ValueError(f"targets must be different, non-empty strings, got {list(targets)!r}.")
    if not isinstance(num_prompts, int) or isinstance(num_prompts, bool):
        raise TypeError(f"num_prompts must be an integer, got {num_prompts!r}.")
    if num_prompts < len(targets):
        raise ValueError(
            f"num_prompts={num_prompts} leaves some of the {len(targets)} targets without a "
            f"prompt. Give num_prompts of at least {len(targets)}, or fewer targets."
        )
    examples = tuple(
        Example(prompt=f"{index // len(targets) + 1}:{target}", reference=target)
        for index, target in zip(range(num_prompts), cycle(targets), strict=False)
    )
    return Task("target_token", dict.fromkeys(SPLITS, examples), reward="target_token")
