"""What is searched: settings of a run by name, each with a range or a list of values."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_type_hints

from agents.config import RunConfig
from agents.specs import parse_spec
from agents.typed import is_list, typed
from textgym.registry import did_you_mean

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_EXAMPLES = "learning_rate=log:1e-5:1e-3, n_steps=int:16:64, gamma=float:0.9:1 or algo=ppo,grpo"

_KINDS = ("int", "float", "log")

_NOTHING_LEARNED = "what is learned does not depend on it"

_NOT_SEARCHED = {
    "output": "each trial has a directory of its own",
    "shard": "a trial is one process, which has nobody to share a model with",
    "checkpoint_every": _NOTHING_LEARNED,
    "keep_checkpoints": _NOTHING_LEARNED,
    "loggers": _NOTHING_LEARNED,
    "quiet": _NOTHING_LEARNED,
}
"""Settings among which there is nothing to be found, and why."""


@dataclass(frozen=True)
class Range:
    """Numbers from one to another, both of them included.

    Attributes:
        name: The setting.
        low: The smallest.
        high: The largest.
        log: Whether to draw their logarithm evenly.
    """

    name: str
    low: float
    high: float
    log: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest."""
        return self.low, self.high

    def suggest(self, trial: BaseTrial) -> float:
        """What a trial takes."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def draw(self, chance: random.Random) -> float:
        """Any of them."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return chance.randint(self.low, self.high)
        return chance.uniform(self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        name: The setting.
        texts: The values as they were typed: Optuna keeps strings.
        ends: The values.
    """

    name: str
    texts: tuple[str, ...]
    ends: tuple[Any, ...]

    def suggest(self, trial: BaseTrial) -> Any:
        """What a trial takes."""
        return self.ends[self.texts.index(trial.suggest_categorical(self.name, self.texts))]

    def draw(self, chance: random.Random) -> Any:
        """Any of them."""
        return chance.choice(self.ends)


Dimension: TypeAlias = Range | Choice
"""A setting that is searched."""


def parse_space(searches: Sequence[str]) -> tuple[Dimension, ...]:
    """What is searched, the algorithm first, on which it depends what else is taken.

    Raises:
        ValueError: With what was typed, what was expected, and the cure.
    """
    if not searches:
        raise ValueError(f"give what is to be searched: --search {_EXAMPLES}")
    space = [_parse(text) for text in searches]
    names = [dimension.name for dimension in space]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--search {name} is given more than once; put all its values in one.")
    return tuple(sorted(space, key=lambda dimension: dimension.name != "algo"))


def _parse(text: str) -> Dimension:
    name, equals, values = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if not equals or not values:
        raise ValueError(
            f"--search {text!r}: expected a setting and its values, such as {_EXAMPLES}."
        )
    if name in _NOT_SEARCHED:
        raise ValueError(f"--search {text!r}: {name} cannot be searched: {_NOT_SEARCHED[name]}.")
    known = [field.name for field in fields(RunConfig) if field.name not in _NOT_SEARCHED]
    if name not in known:
        raise ValueError(f"--search {text!r}: no setting {name!r}; {did_you_mean(name, known)}.")
    kind, *ends = values.split(":")
    if kind in _KINDS:
        return _range(text, name, kind, ends)
    if _is_bare_range(name, values):
        kinds = ("float", "log") if _is_fractional(name) else ("int",)
        meant = " or ".join(f"{name}={kind}:{values}" for kind in kinds)
        raise ValueError(f"--search {text!r}: a range names its kind; did you mean {meant}?")
    texts = tuple(_split(values))
    if len(set(texts)) < max(len(texts), 2):
        raise ValueError(
            f"--search {text!r}: expected different values, two at least. A setting with one value "
            f"is no search: give --{name.replace('_', '-')}."
        )
    return Choice(name, texts, tuple(_value(name, each) for each in texts))


def _range(text: str, name: str, kind: str, ends: Sequence[str]) -> Range:
    if len(ends) != 2:
        raise ValueError(f"--search {text!r}: a range is {kind}:LOW:HIGH, such as in {_EXAMPLES}.")
    low, high = (_value(name, end) for end in ends)
    if kind == "int" and _is_fractional(name):
        low, high = (int(end) if float(end).is_integer() else end for end in (low, high))
    numbers = int if kind == "int" else (int, float)
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, numbers):
            raise ValueError(f"--search {text!r}: {end!r} is no end of a range of {kind}.")
    if kind == "float" and not _is_fractional(name):
        raise ValueError(f"--search {text!r}: {name} is a whole number: int:{ends[0]}:{ends[1]}")
    if not low < high or (kind == "log" and low <= 0):
        above = " above 0 and" if kind == "log" else ""
        raise ValueError(f"--search {text!r}: the first end must be{above} below the second.")
    return Range(name, low, high, kind == "log")


def _split(values: str) -> list[str]:
    """Values between commas; or between bars, if there are any, since JSON has commas, too."""
    return [each.strip() for each in values.split("|" if "|" in values else ",")]


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(RunConfig)


def _is_bare_range(name: str, values: str) -> bool:
    """Whether values are two numbers with a colon, for a setting that is a number."""
    hint = _hints()[name]
    is_number = any(kind in (hint, *get_args(hint)) for kind in (int, float))
    ends = values.split(":")
    return is_number and len(ends) == 2 and all(map(_number_or_flag, ends))


def _is_fractional(name: str) -> bool:
    hint = _hints()[name]
    return float in (hint, *get_args(hint))


def _value(name: str, text: str) -> Any:
    """A value as a setting's type wants it."""
    hint = _hints()[name]
    if text in ("None", "null"):
        candidates: list[Any] = [None]
    elif Any in (hint, *get_args(hint)):
        candidates = [parse_spec(text)]
    else:
        candidates = [*_number_or_flag(text), text]
    if is_list(hint):
        candidates.append([text])
    for candidate in candidates:
        try:
            return typed(candidate, hint)
        except TypeError as error:
            expected = error
    raise ValueError(f"--search {name}: {name} is {expected}, got {text!r}.") from expected


def _number_or_flag(text: str) -> list[Any]:
    try:
        value = json.loads(text.lower())
    except json.JSONDecodeError:
        return []
    return [value] if isinstance(value, (int, float)) else []
