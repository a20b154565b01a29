"""The contract of a reward, as a test that users run on their own."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple, NoReturn

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray

from textgym import dynamics, rewards, tasks
from textgym.completion import Completions, Sample
from textgym.process import TaskSpec
from textgym.rewards import Every, Reward, RewardError, RewardSpec, Score, Timing
from textgym.rewards.make import build
from textgym.tasks import Example
from textgym.tokenizer import BUILTIN, Tokenizer

_EXAMPLES = (
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


class _Law(NamedTuple):
    """Something that holds for every reward, and what to do about one for which it does not."""

    text: str
    cure: str


_ONE_NUMBER = _Law(
    "it pays every token one finite number",
    "Return one number for each of `rows`, shape (k,), and a number such as 0.0 where there is "
    "nothing to score, as in the empty text.",
)
_SAME_AGAIN = _Law(
    "it pays the same for the same text each time",
    "Draw no random numbers, read no clock and count no calls. Keep state in the object, not in "
    "its class or module, and reset it in `start`.",
)
_ARGUMENTS = _Law(
    "it changes nothing that it is given",
    "Copy an array of `rows`, `tokens` or `completions` before writing to it.",
)
_ROW = _Law(
    "a text earns the same in every row",
    "State has a slot for each of completions.num_rows rows. The number of a row finds its slot "
    "and matters for nothing else.",
)
_BATCH = _Law(
    "a text earns the same whatever the other rows of its batch are doing",
    "Compute what a row earns from that row alone: no mean or rank over the batch. A call is "
    "about some rows only: find state with `rows`, as in state[rows], not by the place in the "
    "call.",
)
_EPISODES = _Law(
    "an episode begins with nothing left of the one before",
    "In `start`, reset all state of `rows`; the episode before may have been given up half-way.",
)
_COPIES = _Law(
    "two environments do not share state",
    "Keep state in the object, not in its class or module; a `Score` keeps none at all.",
)
_SUM = _Law(
    "the immediate rewards add up to what the delayed timing pays",
    "A score depends on the sample alone, not on when or how often it is asked for. If it reads "
    "token_ids, do not let it say `text_only = True`.",
)
_PICKLE = _Law(
    "it goes on after pickling as if nothing had happened",
    "Let __getstate__ keep all that `step` needs.",
)


def check_reward(
    reward: RewardSpec,
    *,
    task: TaskSpec | None = None,
    examples: Sequence[Example] | None = None,
    tokenizer: str | Tokenizer = BUILTIN,
    max_new_tokens: int = 24,
    num_rows: int = 8,
    seed: int = 0,
    tolerance: float = 1e-4,
) -> None:
    """Test whether a reward keeps its contract.

    Plays sentences in several scripts, random tokens and the empty text: alone, in every row of a
    batch, among rows of different ages, after other episodes, beside a second copy of the reward,
    with both timings and through a pickle. That takes some 15 episodes a dozen times each.

    Args:
        reward: Any spec that `textgym.rewards.make` takes. Weights do not matter.
        task: Where to take prompts, references and columns from, if the reward needs those of a
            certain task.
        examples: The same as a list, instead of a task.
        tokenizer: Built-in name, local directory, hub id, or a tokenizer.
        max_new_tokens: The budget of a completion.
        num_rows: Size of the batches, at least 2.
        seed: Of the random tokens.
        tolerance: How far apart two rewards may be that should be equal, relative to the largest
            reward of the episode or to 1. The scores of a neural network depend a little on the
            size of the batch.

    Raises:
        AssertionError: If the reward broke a law; the message says which, for which prompt and
            text, what was expected and what came, and the cure.
        ValueError: If an argument is refused.

    Warns:
        UserWarning: If the reward cannot be pickled. Environments in processes of their own
            (AsyncVectorEnv, SubprocVecEnv) cannot have it then; `TextGenVectorEnv` can.
    """
    if num_rows < 2:
        raise ValueError(f"num_rows is the size of a batch, at least 2, got {num_rows}.")
    if task is not None and examples is not None:
        raise ValueError("task and examples both say where prompts come from; give one of them.")
    if task is not None:
        examples = tasks.make(task).examples
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.from_pretrained(tokenizer)
    parts = {name: part.reward for name, part in build(reward).items()}
    episodes = list(_episodes(tokenizer, examples or _EXAMPLES, max_new_tokens, seed))
    _Check(parts, tokenizer, episodes, max_new_tokens, num_rows, tolerance).run()


class _Episode(NamedTuple):
    example: Example
    prompt_ids: NDArray[np.int64]
    token_ids: NDArray[np.int64]


class _Take(NamedTuple):
    """An episode to play, by its index, and given up after `stop` tokens unless that is None."""

    episode: int
    stop: int | None = None


def _episodes(
    tokenizer: Tokenizer, examples: Sequence[Example], budget: int, seed: int
) -> Iterator[_Episode]:
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
            yield _Episode(example, prompt_ids, np.array(token_ids, np.int64))


class _Stage:
    """A batch of rows that play episodes: what an environment does with a reward, no more.

    Attributes:
        lanes: For each row the episodes that it plays, one after the other.
        paid: For each of them what every token of it was paid by each part, float64 (t, parts).
    """

    def __init__(
        self,
        check: _Check,
        lanes: Sequence[Sequence[_Take]],
        *,
        delays: Sequence[int] | None = None,
        timing: Timing = "immediate",
        every: Every = "token",
    ) -> None:
        self.lanes = lanes
        self.paid: list[list[list[NDArray[np.float64]]]] = [[] for _ in lanes]
        self.reward = rewards.make(check.parts, timing, every)
        self._episodes = check.episodes
        self._delays = delays or [0] * len(lanes)
        self._time = 0
        self._tokens_left: list[list[int]] = [[] for _ in lanes]
        length = check.budget + max(len(episode.prompt_ids) for episode in check.episodes)
        self._contexts = dynamics.empty(len(lanes), length, check.tokenizer.pad_token_id)
        self._completions = Completions(self._contexts, check.tokenizer, check.budget)

    def step(self) -> bool:
        """Write a token in every row that has one left; False once all is played."""
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
            name = " or ".join(self.reward.rewards)
            _fail(_ARGUMENTS, name, self._completions.sample(int(copies[0][0])), {})
        paid = np.stack(list(self.reward.components.values()), axis=1).astype(np.float64)
        for row, amounts in zip(rows.tolist(), paid, strict=True):
            self.paid[row][-1].append(amounts)


class _Check:
    """The laws, each tried on all episodes; a law is tried once those before it hold."""

    def __init__(
        self,
        parts: Mapping[str, Reward | Score],
        tokenizer: Tokenizer,
        episodes: Sequence[_Episode],
        budget: int,
        num_rows: int,
        tolerance: float,
    ) -> None:
        self.parts = parts
        self.tokenizer = tokenizer
        self.episodes = episodes
        self.budget = budget
        self._num_rows = num_rows
        self._tolerance = tolerance
        self._alone: list[NDArray[np.float64]] = []

    def run(self) -> None:
        """Try all laws."""
        takes = [_Take(i) for i in range(len(self.episodes))]
        for take in takes:
            stage = self._played(_ONE_NUMBER, _Stage(self, [[take]]))
            self._alone.append(np.array(stage.paid[0][0]))
        for take in takes:
            self._compare(_SAME_AGAIN, "once more", _Stage(self, [[take]]))
        n = self._num_rows
        for take in takes:
            row = 1 + take.episode % (n - 1)
            lanes = [[take] if k == row else [] for k in range(n)]
            self._compare(_ROW, f"in row {row} of {n}", _Stage(self, lanes))
        for start in range(0, len(takes), n):
            batch = takes[start : start + n]
            self._try_batch([[take] for take in batch])

    def _try_batch(self, lanes: list[list[_Take]]) -> None:
        n = len(lanes)
        self._compare(_BATCH, f"in a batch of {n} rows", _Stage(self, lanes))
        delays = [3 * row % 7 for row in range(n)]
        stage = _Stage(self, lanes[::-1], delays=delays)
        self._compare(_BATCH, f"in a batch of {n} rows of different ages", stage)

        others = [*lanes[1:], lanes[0]]
        given_up = [[_Take(lane[0].episode, stop)] for stop, lane in enumerate(others)]
        again = [[*a, *b, *a, *c, *a] for a, b, c in zip(lanes, others, given_up, strict=True)]
        self._compare(_EPISODES, "in a row that has played before", _Stage(self, again))

        stages = _Stage(self, lanes), _Stage(self, others)
        self._compare(_COPIES, "beside an environment with a copy of the reward", *stages)
        self._try_sum(lanes)
        self._try_pickle(_Stage(self, lanes))

    def _try_sum(self, lanes: list[list[_Take]]) -> None:
        delayed = self._played(_SUM, _Stage(self, lanes, timing="delayed"))
        everies: tuple[Every, ...] = ("token", "word", "sentence")
        for every in everies:
            immediate = self._played(_SUM, _Stage(self, lanes, every=every))
            for row, [take] in enumerate(lanes):
                got, expected = (np.array(s.paid[row][0]).sum(0) for s in (immediate, delayed))
                scale = np.abs(np.cumsum(immediate.paid[row][0], axis=0)).max()
                self._equal(_SUM, take, got, expected, scale, f"immediate, every {every}")

    def _try_pickle(self, stage: _Stage) -> None:
        stage.step()
        try:
            data = pickle.dumps(CloudpickleWrapper(stage.reward))
        except Exception as error:  # whatever an object's own __getstate__ may raise
            warnings.warn(
                f"reward {' or '.join(self.parts)!r} cannot be pickled ({error}), so that "
                "environments in processes of their own cannot have it. Open files, connections "
                "and locks when they are first used, and leave them out in __getstate__.",
                stacklevel=5,
            )
            return
        stage.reward = pickle.loads(data).fn
        self._compare(_PICKLE, "after pickling", stage)
