"""Scripted episodes, and a stage on which a reward is tried: a batch of rows that play them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym import dynamics
from textgym.completion import Completions, Sample
from textgym.rewards import WeightedSum
from textgym.tasks import Example
from textgym.tokenizer import Tokenizer

EXAMPLES = (
    Example("When I saw the king, he", reference="smiled at me"),
    Example("The letter said that", reference="all was well"),
    Example("你好", reference="世界 🙂"),
)

_TEXTS = (
    "The king was glad. His friends sang all night: what a sweet, happy end!",
    " hate this terrible, ugly day.\nNobody came",
    "naïve café… 你好，世界。🙂🙃 مرحبا",  # noqa: RUF001
    "   \n\n  ",
    "no no no no no no no no no no no no no no no no",
    '3.14 + 2 = 5.14?! <b>&amp;</b> "quoted"',
)

_NUM_RANDOM_TEXTS = 6


class Episode(NamedTuple):
    """A prompt, int64 (p,), and what is written after it, int64 (t,), t >= 1."""

    example: Example
    prompt_ids: NDArray[np.int64]
    token_ids: NDArray[np.int64]


class Take(NamedTuple):
    """An episode to play, by its index, and given up after `stop` tokens unless that is None."""

    episode: int
    stop: int | None = None


class Tampered(Exception):  # noqa: N818  # says what happened
    """A reward wrote to something that it was given, while it paid for `sample`."""

    def __init__(self, sample: Sample) -> None:
        super().__init__(f"the reward changed its arguments at {sample!r}")
        self.sample = sample


def script(
    tokenizer: Tokenizer, examples: Sequence[Example], budget: int, seed: int
) -> Iterator[Episode]:
    """Episodes that end with an end-of-text token or, where the budget leaves no room, without."""
    generator = np.random.default_rng(seed)
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), eos)
    texts = [[], *map(tokenizer.encode_plain, _TEXTS)]
    for length in generator.integers(1, budget + 1, _NUM_RANDOM_TEXTS).tolist():
        texts.append(generator.choice(ordinary, length).tolist())
    quoted = [(e, tokenizer.encode_plain(e.reference)) for e in examples[:3] if e.reference]
    for example, text_ids in [*zip(cycle(examples), texts, strict=False), *quoted]:
        token_ids = [*text_ids, *eos][:budget]
        if token_ids:
            prompt_ids = np.array(tokenizer.encode(example.prompt), np.int64)
            yield Episode(example, prompt_ids, np.array(token_ids, np.int64))


class Stage:
    """A batch of rows that play episodes: what an environment does with a reward, no more.

    Args:
        reward: The reward, which nobody else uses.
        lanes: For each row the episodes that it plays, one after the other.
        episodes: The episodes.
        tokenizer: Decodes them.
        budget: The budget of a completion, in tokens.
        delays: For each row after how many tokens of the others it begins.

    Attributes:
        paid: For each row and take what every token was paid by each part of the reward, t arrays
            float64 (parts,).
    """

    def __init__(
        self,
        reward: WeightedSum,
        lanes: Sequence[Sequence[Take]],
        episodes: Sequence[Episode],
        tokenizer: Tokenizer,
        budget: int,
        delays: Sequence[int] | None = None,
    ) -> None:
        self.reward = reward
        self.lanes = lanes
        self.paid: list[list[list[NDArray[np.float64]]]] = [[] for _ in lanes]
        self._episodes = episodes
        self._delays = delays or [0] * len(lanes)
        self._time = 0
        self._tokens_left: list[list[int]] = [[] for _ in lanes]
        length = budget + max(len(episode.prompt_ids) for episode in episodes)
        self._contexts = dynamics.empty(len(lanes), length, tokenizer.pad_token_id)
        self._completions = Completions(self._contexts, tokenizer, budget)

    def step(self) -> bool:
        """Write a token in every row that has one left; False once all is played.

        Raises:
            RewardError: If the reward failed.
            Tampered: If it wrote to something that it was given.
        """
        self._begin()
        self._time += 1
        rows = np.array([row for row, left in enumerate(self._tokens_left) if left], np.intp)
        if len(rows):
            self._write(rows)
        return any(self._tokens_left) or any(map(self._to_come, range(len(self.lanes))))

    def _to_come(self, row: int) -> bool:
        return len(self.paid[row]) < len(self.lanes[row])

    def _begin(self) -> None:
        rows = [
            row
            for row, left in enumerate(self._tokens_left)
            if not left and self._to_come(row) and self._time >= self._delays[row]
        ]
        if not rows:
            return
        takes = [self.lanes[row][len(self.paid[row])] for row in rows]
        episodes = [self._episodes[take.episode] for take in takes]
        dynamics.begin(self._contexts, np.array(rows), [e.prompt_ids for e in episodes])
        self._completions.begin(np.array(rows), [e.example for e in episodes])
        self.reward.start(np.array(rows), self._completions)
        for row, take, episode in zip(rows, takes, episodes, strict=True):
            self._tokens_left[row] = episode.token_ids[: take.stop].tolist()
            self.paid[row].append([])

    def _write(self, rows: NDArray[np.intp]) -> None:
        tokens = np.array([self._tokens_left[row].pop(0) for row in rows.tolist()], np.int64)
        dynamics.append(self._contexts, rows, tokens)
        for row in rows.tolist():
            take = self.lanes[row][len(self.paid[row]) - 1]
            self._completions.ended[row] = take.stop is None and not self._tokens_left[row]
        given = (rows, tokens, self._contexts.input_ids, self._completions.ended)
        copies = [array.copy() for array in given]
        self.reward.step(rows, tokens, self._completions)
        if not all(map(np.array_equal, given, copies)):
            raise Tampered(self._completions.sample(int(copies[0][0])))
        paid = np.stack(list(self.reward.components.values()), axis=1).astype(np.float64)
        for row, amounts in zip(rows.tolist(), paid, strict=True):
            self.paid[row][-1].append(amounts)
