"""Plain Python functions and TRL reward functions as scores."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache, partial
from itertools import takewhile
from typing import Any

from textgym.completion import Sample
from textgym.rewards.base import RewardError, Score, described

_FIELDS = ("prompt", "text", "reference", "token_ids", "turns")
_BATCH_FIELDS = ("prompts", "completions", "completion_ids")


def function_name(function: Any) -> str:
    """The name by which a function's rewards are reported.

    A method goes by its class, too, as in "Riddles.reward"; a lambda is "lambda".
    """
    function = _unwrapped(function)
    name: str = getattr(function, "__name__", type(function).__name__)
    if inspect.ismethod(function):
        owner = function.__self__
        name = f"{(owner if isinstance(owner, type) else type(owner)).__name__}.{name}"
    return name.strip("<>")


def from_function(function: Callable[..., Any]) -> Score:
    """Make a score of a function, by what its parameters are called.

    * `prompt`, `text`, `reference`, `token_ids`, `turns` (in tasks of several turns those that are
      over): any of them, one completion a call, and any column of the task's file by its name. If
      none of the five is among them, the first parameter gets the text, whatever it is called.
    * `prompts`, `completions` or `completion_ids` among them: a reward function as TRL's
      trainers take it, one batch a call.

    A parameter that the task knows nothing of keeps its default. `**columns` gets all columns.

    Raises:
        TypeError: If the function takes nothing that has a name, or is a coroutine function of
            one completion.
    """
    if _parameters(function).keys() & set(_BATCH_FIELDS):
        return TRLScore(function)
    return FunctionScore(function)


class FunctionScore:
    """A score from a function of one completion, called once a sample.

    Args:
        function: Returns a number; see `from_function` for what it may take.

    Attributes:
        text_only: Whether the function leaves the token ids alone.
        success_threshold: The function's own, or None.
        score_range: The function's own lowest and highest score, or None.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
            raise TypeError(
                f"reward function {function_name(function)!r} is a coroutine function of one "
                "completion; let it take a batch, so that its requests run side by side: "
                "async def reward(prompts, completions, **columns) -> list[float]."
            )
        self.function = function
        self._arguments = _Arguments(function)
        names = self._arguments.names
        self._text_parameter = "text" if set(names) & set(_FIELDS) else names[0]
        self.text_only = "token_ids" not in names
        self.success_threshold = _attribute(function, "success_threshold")
        self.score_range = _attribute(function, "score_range")

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The function's value for each sample."""
        return [self._score_one(sample) for sample in samples]

    def _score_one(self, sample: Sample) -> float:
        known = {
            **sample.columns,
            "prompt": sample.prompt,
            "token_ids": sample.token_ids,
            "turns": sample.turns,
            self._text_parameter: sample.text,
        }
        if sample.reference is not None:
            known["reference"] = sample.reference
        args, kwargs = self._arguments.select(known, sample.columns, sample)
        try:
            value = self.function(*args, **kwargs)
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error}"
            raise RewardError(function_name(self.function), problem, sample) from error
        return _number(value, self.function, sample)


class TRLScore:
    """A score from a TRL reward function, called once a batch with keyword arguments.

    The function gets `prompts`, `completions`, `completion_ids` and every column of the task as
    lists of equal length, with `trainer_state=None`, `log_extra` and `log_metric` that do
    nothing; of these, those that it takes. Prompts and completions are strings, which TRL calls
    the standard format. It may be a coroutine function. It returns one number for each
    completion; `None`, TRL's "does not apply to this sample", counts as 0.

    Source: the `reward_funcs` argument of TRL's GRPOTrainer.

    Args:
        function: The reward function.

    Attributes:
        text_only: Whether the function has no way to see the token ids.
        success_threshold: The function's own, or None.
        score_range: The function's own lowest and highest score, or None.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._arguments = _Arguments(function)
        self.text_only = not self._arguments.takes("completion_ids")
        self.success_threshold = _attribute(function, "success_threshold")
        self.score_range = _attribute(function, "score_range")

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The function's value for each sample."""
        columns = {name for sample in samples for name in sample.columns}
        known: dict[str, Any] = {
            **{name: [sample.columns.get(name) for sample in samples] for name in columns},
            "prompts": [sample.prompt for sample in samples],
            "completions": [sample.text for sample in samples],
            "completion_ids": [sample.token_ids for sample in samples],
            "trainer_state": None,
            "log_extra": _ignore,
            "log_metric": _ignore,
        }
        if any(sample.reference is not None for sample in samples):
            known["reference"] = [sample.reference for sample in samples]
        args, kwargs = self._arguments.select(known, known, samples[0])
        values = self.function(*args, **kwargs)
        if inspect.iscoroutine(values):
            values = _result(values)
        if not hasattr(values, "__len__") or len(values) != len(samples):
            problem = f"returned {described(values)}; expected a list of {len(samples)} numbers"
            raise RewardError(function_name(self.function), problem, samples[0])
        return [
            0.0 if value is None else _number(value, self.function, sample)
            for value, sample in zip(values, samples, strict=True)
        ]


class _Arguments:
    """What a function takes of all that could be given to it, by the names of its parameters."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = _parameters(function).values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not named:
            raise TypeError(
                f"reward function {function_name(function)!r} takes nothing by name; expected any "
                f"of the parameters {', '.join(_FIELDS)}, or for a whole batch any of "
                f"{', '.join(_BATCH_FIELDS)}. A decorator hides them unless it uses "
                "functools.wraps."
            )
        self.names = [p.name for p in named]
        self._function_name = function_name(function)
        self._required = [p.name for p in named if p.default is p.empty]
        self._positional_only = [p.name for p in named if p.kind is p.POSITIONAL_ONLY]
        self._takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def takes(self, name: str) -> bool:
        """Whether a value of this name, if there is one, reaches the function."""
        return self._takes_rest or name in self.names

    def select(
        self, known: Mapping[str, Any], rest: Mapping[str, Any], sample: Sample
    ) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments from what is known, and `rest` for its `**kwargs`."""
        for name in self._required:
            if name not in known:
                raise RewardError(self._function_name, _not_known(name, known), sample)
        kwargs = {name: known[name] for name in self.names if name in known}
        args = [kwargs.pop(p) for p in takewhile(kwargs.__contains__, self._positional_only)]
        return args, {**rest, **kwargs} if self._takes_rest else kwargs


def _not_known(name: str, known: Mapping[str, Any]) -> str:
    if name == "reference":
        return (
            "compares with a reference, and this prompt has none; give one in the column "
            "'reference' of a file or data set, or by reset(options={'prompt': ..., 'reference': "
            "...})"
        )
    return (
        f"has a parameter {name!r}, which the task does not provide; it provides "
        f"{', '.join(known)}. Beside prompt, reference or token_ids the text's own parameter is "
        "called 'text'"
    )


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # some functions written in C do not tell
        return {"text": inspect.Parameter("text", inspect.Parameter.POSITIONAL_ONLY)}


def _unwrapped(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _attribute(function: Any, name: str) -> Any:
    return getattr(_unwrapped(function), name, None)


def _number(value: Any, function: Callable[..., Any], sample: Sample) -> float:
    """A function's value as a float: of Python, numpy, or an array without dimensions."""
    if type(value) is float:
        return value
    is_number = hasattr(value, "__float__") and not isinstance(value, str)
    if not is_number or getattr(value, "ndim", 0) != 0:
        problem = f"returned {value!r} of type {type(value).__name__}; expected a number"
        raise RewardError(function_name(function), problem, sample)
    return float(value)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stand in for TRL's logging functions."""


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a coroutine, also where this thread is running a loop already (a notebook)."""
    return asyncio.run_coroutine_threadsafe(coroutine, _event_loop(os.getpid())).result()


@cache
def _event_loop(pid: int) -> asyncio.AbstractEventLoop:
    """A loop that runs in a thread of its own, one a process since threads do not survive a fork.

    It is kept, so that connections which a function opened are still good at its next call.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async rewards", daemon=True).start()
    return loop
