"""Plain Python functions and TRL reward functions as scores."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from textgym.completion import Sample
from textgym.rewards.base import RewardError, Score

_FIELDS = ("prompt", "text", "reference", "token_ids")


def function_name(function: Callable[..., Any]) -> str:
    """The name by which a function's rewards are reported."""
    return getattr(function, "__name__", None) or type(function).__name__


def from_function(function: Callable[..., Any]) -> Score:
    """Make a score of a function, by what its parameters are called.

    * `prompt`, `text`, `reference`, `token_ids`: any of them, one completion a call, and any
      column of the task's file by its name. A function with one parameter gets the text,
      whatever the parameter is called.
    * `completions` among them: a reward function as TRL's trainers take it, one batch a call.
    """
    parameters = _parameters(function)
    if "completions" in parameters:
        return TRLScore(function)
    return FunctionScore(function)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # some functions written in C do not tell
        return {}


@dataclass
class FunctionScore:
    """A score from a function of one completion, called once a sample.

    Args:
        function: Returns a number, and takes any of `prompt`, `text`, `reference`, `token_ids`
            and columns of the task by name; or takes one argument, the text.
    """

    function: Callable[..., float]
    text_only: bool = field(init=False, default=False)
    success_threshold: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        parameters = _parameters(self.function)
        required = [p for p in parameters.values() if p.default is p.empty]
        kinds = {p.kind for p in parameters.values()}
        if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            raise TypeError(
                f"reward function {function_name(self.function)!r} takes *args or **kwargs; "
                f"expected named parameters, any of {', '.join(_FIELDS)} or column names."
            )
        single = len(required) <= 1 and not {p.name for p in required} & set(_FIELDS)
        if single and not (set(parameters) & set(_FIELDS)):
            self._arguments: dict[str, bool] | None = None
        else:
            self._arguments = {p.name: p.default is p.empty for p in parameters.values()}
        self.text_only = "token_ids" not in parameters
        self.success_threshold = getattr(self.function, "success_threshold", None)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The function's value for each sample."""
        return [self._score_one(sample) for sample in samples]

    def _score_one(self, sample: Sample) -> float:
        name = function_name(self.function)
        try:
            if self._arguments is None:
                value = self.function(sample.text)
            else:
                value = self.function(**self._keywords(self._arguments, sample))
        except RewardError:
            raise
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error}"
            raise RewardError(name, problem, sample) from error
        if not isinstance(value, Real):
            problem = f"returned {value!r} of type {type(value).__name__}; expected a number"
            raise RewardError(name, problem, sample)
        return float(value)

    def _keywords(self, arguments: Mapping[str, bool], sample: Sample) -> dict[str, Any]:
        keywords: dict[str, Any] = {}
        for argument, required in arguments.items():
            if argument in _FIELDS:
                keywords[argument] = getattr(sample, argument)
            elif argument in sample.columns:
                keywords[argument] = sample.columns[argument]
            elif required:
                known = ", ".join([*_FIELDS, *sample.columns])
                raise RewardError(
                    function_name(self.function),
                    f"has a parameter {argument!r}, which the task does not provide; "
                    f"it provides {known}",
                    sample,
                )
        if keywords.get("reference", "") is None:
            raise RewardError(
                function_name(self.function),
                "compares with a reference, and this prompt has none; choose a task with "
                "references, or give one with reset(options={'prompt': ..., 'reference': ...})",
                sample,
            )
        return keywords


@dataclass
class TRLScore:
    """A score from a TRL reward function, called once a batch with keyword arguments.

    The function gets `prompts`, `completions`, `completion_ids` and every column of the task as
    lists of equal length, with `trainer_state=None`, `log_extra` and `log_metric` that do
    nothing; of these, those that it takes. It may be a coroutine function. It returns one number
    for each completion; `None`, TRL's "does not apply to this sample", counts as 0.

    Source: the `reward_funcs` argument of TRL's GRPOTrainer.
    """

    function: Callable[..., Any]

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The function's value for each sample."""
        arguments: dict[str, Any] = {
            "prompts": [sample.prompt for sample in samples],
            "completions": [sample.text for sample in samples],
            "completion_ids": [sample.token_ids for sample in samples],
            "reference": [sample.reference for sample in samples],
            "trainer_state": None,
            "log_extra": _ignore,
            "log_metric": _ignore,
        }
        for column in {name for sample in samples for name in sample.columns}:
            arguments[column] = [sample.columns.get(column) for sample in samples]
        parameters = _parameters(self.function)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            arguments = {key: value for key, value in arguments.items() if key in parameters}
        values = self.function(**arguments)
        if inspect.iscoroutine(values):
            values = asyncio.run(values)
        return [0.0 if value is None else value for value in values]


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stand in for TRL's logging functions."""
