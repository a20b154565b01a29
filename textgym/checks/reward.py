"""The contract of a reward, as a test that users run on their own."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray

from textgym import rewards, tasks
from textgym.checks.law import Law, broken
from textgym.checks.stage import EXAMPLES, Episode, Stage, Take, Tampered, script
from textgym.completion import Sample
from textgym.process import TaskSpec
from textgym.rewards import Every, RewardError, RewardSpec, Timing
from textgym.tasks import Example
from textgym.tokenizer import BUILTIN, Tokenizer

_ONE_NUMBER = Law(
    "it pays every token one finite number",
    "Return one number for each of `rows`, shape (k,), and a number such as 0.0 where there is "
    "nothing to score, as in the empty text. If it is the examples that do not fit, as for a "
    "reward that wants a reference of its own kind, give task= or examples= that do.",
)
_SAME_AGAIN = Law(
    "it pays the same for the same text each time",
    "Draw no random numbers, read no clock and count no calls. Keep state in the object, not in "
    "its class or module, and reset it in `start`.",
)
_ARGUMENTS = Law(
    "it changes nothing that it is given",
    "Copy an array of `rows`, `tokens` or `completions` before writing to it.",
)
_ROW = Law(
    "a text earns the same in every row",
    "State has a slot for each of completions.num_rows rows. The number of a row finds its slot "
    "and matters for nothing else.",
)
_BATCH = Law(
    "a text earns the same whatever the other rows of its batch are doing",
    "Compute what a row earns from that row alone: no mean or rank over the batch. A call is "
    "about some rows only: find state with `rows`, as in state[rows], not by the place in the "
    "call.",
)
_EPISODES = Law(
    "an episode begins with nothing left of the one before",
    "In `start`, reset all state of `rows`; the episode before may have been given up half-way. A "
    "`Score` keeps no state at all.",
)
_COPIES = Law(
    "two environments do not share state",
    "Keep state in the object, not in its class or module.",
)
_SUM = Law(
    "the immediate rewards add up to what the delayed timing pays",
    "A score depends on the sample alone, not on when or how often it is asked for. If it reads "
    "token_ids, do not let it say `text_only = True`.",
)
_RANGE = Law(
    "its scores stay within its score_range",
    "Correct score_range = (lowest, highest), or the score.",
)
_PICKLE = Law(
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
        reward: Any spec that `textgym.rewards.make` takes. It is made some 70 times; if that takes
            long, give an object and not a name or a class. Weights do not matter.
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
    episodes = list(script(tokenizer, examples or EXAMPLES, max_new_tokens, seed))
    _Check(reward, tokenizer, episodes, max_new_tokens, num_rows, tolerance).run()


class _Check:
    """The laws, each tried on all episodes; a law is tried once those before it hold."""

    def __init__(
        self,
        spec: RewardSpec,
        tokenizer: Tokenizer,
        episodes: Sequence[Episode],
        budget: int,
        num_rows: int,
        tolerance: float,
    ) -> None:
        self._spec = spec
        made = rewards.make(spec).rewards
        self._names = list(made)
        self._ranges = [_score_range(reward) for reward in made.values()]
        self._tokenizer = tokenizer
        self._episodes = episodes
        self._budget = budget
        self._num_rows = num_rows
        self._tolerance = tolerance
        self._alone: list[NDArray[np.float64]] = []

    def run(self) -> None:
        """Try all laws."""
        takes = [Take(i) for i in range(len(self._episodes))]
        for take in takes:
            stage = self._played(_ONE_NUMBER, self._stage([[take]]))
            self._alone.append(np.array(stage.paid[0][0]))
        for take in takes:
            self._try_range(take)
        for take in takes:
            self._compare(_SAME_AGAIN, "once more", self._stage([[take]]))
        n = self._num_rows
        for take in takes:
            row = 1 + take.episode % (n - 1)
            lanes = [[take] if k == row else [] for k in range(n)]
            self._compare(_ROW, f"in row {row} of {n}", self._stage(lanes))
        lane = [take for i in range(len(takes)) for take in self._again(takes[i], takes[i - 1])]
        self._compare(_EPISODES, "after other episodes", self._stage([lane]))
        batches = [[[take] for take in takes[k : k + n]] for k in range(0, len(takes), n)]
        for lanes in batches:
            self._try_batch(lanes)
            self._try_sum(lanes)
        self._try_pickle(self._stage(batches[0]))

    def _try_range(self, take: Take) -> None:
        scores = self._alone[take.episode].sum(axis=0)
        nearest = np.clip(scores, *np.array(self._ranges).T)
        how = ("the nearest in its score_range", "the sum of its rewards")
        self._hold(_RANGE, take, how, nearest, scores, scale=scores)

    def _again(self, take: Take, other: Take) -> list[Take]:
        """A take after itself, after another, and after one that was given up before its end."""
        half = len(self._episodes[other.episode].token_ids) // 2
        return [take, take, other, take, Take(other.episode, half), take]

    def _try_batch(self, lanes: list[list[Take]]) -> None:
        n = len(lanes)
        self._compare(_BATCH, f"in a batch of {n}", self._stage(lanes))
        others = [*lanes[1:], lanes[0]]
        crowd = [[*a, *b] for a, b in zip(others, lanes, strict=True)]
        stage = self._stage(crowd, delays=[3 * row % 7 for row in range(n)])
        self._compare(_BATCH, f"in a batch of {n} of different ages", stage)
        stages = self._stage(lanes), self._stage(others)
        self._compare(_COPIES, "beside a second environment", *stages)

    def _try_sum(self, lanes: list[list[Take]]) -> None:
        delayed = self._played(_SUM, self._stage(lanes, timing="delayed"))
        everies: tuple[Every, ...] = ("token", "word", "sentence")
        for every in everies:
            immediate = self._played(_SUM, self._stage(lanes, every=every))
            for [take], [paid], [paid_late] in zip(
                lanes, immediate.paid, delayed.paid, strict=True
            ):
                how = ("the delayed reward", f"the sum of immediate rewards, every {every}")
                sums = np.cumsum(paid, axis=0)
                self._hold(_SUM, take, how, np.sum(paid_late, 0), sums[-1], scale=sums)

    def _try_pickle(self, stage: Stage) -> None:
        stage.step()
        try:
            # As AsyncVectorEnv does it; the wrapper takes any object, whatever its annotation says.
            data = pickle.dumps(CloudpickleWrapper(stage.reward))  # type: ignore[arg-type]
        except Exception as error:  # whatever an object's own __getstate__ may raise
            warnings.warn(
                f"reward {' or '.join(self._names)!r} cannot be pickled ({error}), so that "
                "environments in processes of their own cannot have it. Open files, connections "
                "and locks when they are first used, and leave them out in __getstate__.",
                stacklevel=4,
            )
            return
        stage.reward = pickle.loads(data).fn
        self._compare(_PICKLE, "after pickling", stage)

    def _stage(
        self,
        lanes: Sequence[Sequence[Take]],
        timing: Timing = "immediate",
        every: Every = "token",
        delays: Sequence[int] | None = None,
    ) -> Stage:
        reward = rewards.make(self._spec, timing, every)
        reward.weights = dict.fromkeys(self._names, 1.0)
        return Stage(reward, lanes, self._episodes, self._tokenizer, self._budget, delays)

    def _played(self, law: Law, *stages: Stage) -> Stage:
        """The first of some stages, after playing all of them side by side."""
        try:
            while any([stage.step() for stage in stages]):
                pass
        except RewardError as error:
            _fail(law, error.name, error.sample, {"got": f"it {error.problem}"}, error)
        except Tampered as error:
            _fail(_ARGUMENTS, " or ".join(self._names), error.sample, {}, error)
        return stages[0]

    def _compare(self, law: Law, how: str, *stages: Stage) -> None:
        """Play, and hold what every whole episode earned against what it earned alone."""
        self._played(law, *stages)
        for stage in stages:
            for lane, paid in zip(stage.lanes, stage.paid, strict=True):
                for take, got in zip(lane, paid, strict=True):
                    if take.stop is None:
                        expected = self._alone[take.episode]
                        self._hold(law, take, ("alone", how), expected, np.array(got), expected)

    def _hold(
        self,
        law: Law,
        take: Take,
        how: tuple[str, str],
        expected: NDArray[np.float64],
        got: NDArray[np.float64],
        scale: NDArray[np.float64],
    ) -> None:
        """Fail if what an episode earned, (parts,) or (t, parts), is not what was expected."""
        wrong = np.abs(got - expected) > self._tolerance * max(1.0, float(np.abs(scale).max()))
        if not wrong.any():
            return
        *token, k = where = tuple(np.argwhere(wrong)[0].tolist())
        details = {
            "expected": f"{expected[where]:.6g} ({how[0]})",
            "got": f"{got[where]:.6g} ({how[1]})",
        }
        example, prompt_ids, token_ids = self._episodes[take.episode]
        if token:
            pieces = self._tokenizer.pieces(prompt_ids, token_ids.tolist())
            place = f"{token[0] + 1} of {len(pieces)}, {pieces[token[0]]!r}"
            details = {"token": place, **details}
        text = self._tokenizer.decode(token_ids.tolist())
        sample = Sample(example.prompt, text, example.reference, [], example.columns)
        _fail(law, self._names[k], sample, details)


def _score_range(reward: object) -> tuple[float, float]:
    """The lowest and highest score that a reward, or what was shaped to one, says it gives."""
    while getattr(reward, "inner", None) is not None:
        reward = reward.inner  # type: ignore[attr-defined]  # just looked
    return getattr(reward, "score_range", None) or (-np.inf, np.inf)


def _fail(
    law: Law, name: str, sample: Sample, details: dict[str, str], cause: Exception | None = None
) -> NoReturn:
    lines = {"prompt": repr(sample.prompt), "text": repr(sample.text)}
    if sample.reference is not None:
        lines["reference"] = repr(sample.reference)
    raise broken(f"reward {name!r}", law, {**lines, **details}) from cause
