"""The registry of rewards, and the one function that turns a reward spec into a reward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias, cast, get_args

from textgym.registry import Registry
from textgym.rewards.base import Reward, Score
from textgym.rewards.combine import WeightedSum
from textgym.rewards.functions import from_function, function_name
from textgym.rewards.shaping import Every, Timing, shape

RewardSpec: TypeAlias = "str | Mapping[str, Any] | Sequence[Any] | Callable[..., Any] | Reward | Score"
"""Whatever says which reward is meant; JSON-able but for functions and objects."""

_REGISTRY: Registry[Any] = Registry("reward")
_REGISTRY.register("edit_distance", "textgym.rewards.edit_distance:EditDistance")
_REGISTRY.register("exact_match", "textgym.rewards.exact_match:ExactMatch")
_REGISTRY.register("keywords", "textgym.rewards.keywords:Keywords")
_REGISTRY.register("length", "textgym.rewards.length:Length")
_REGISTRY.register("sentiment", "textgym.rewards.sentiment:Sentiment")
_REGISTRY.register("target_token", "textgym.rewards.target_token:TargetToken")


def names() -> list[str]:
    """The names of all rewards, sorted."""
    return _REGISTRY.names()


def describe() -> dict[str, str]:
    """What each reward is, in one line, by name."""
    return _REGISTRY.describe()


def register(name: str, factory: Callable[..., Any] | str, *, replace: bool = False) -> None:
    """Make a reward of one's own known by name, so that run files can ask for it.

    Args:
        name: The name.
        factory: Returns a function, a `Score` or a `Reward`; its parameters are the reward's. Or
            `"module:factory"`, which is imported when the reward is first made.
        replace: Whether a reward of that name may exist.

    Raises:
        ValueError: If the name is taken, or the string is not of that form.
        TypeError: If the factory is neither callable nor a string.
    """
    _REGISTRY.register(name, factory, replace=replace)


def make(
    spec: RewardSpec, timing: Timing = "immediate", every: Every = "token"
) -> WeightedSum:
    """Make the reward that a spec asks for.

    Args:
        spec: One of
            a registered name, `"sentiment"`;
            a mapping with `"name"`, the rest being its parameters;
            `"package.module:function"`;
            a function, a TRL reward function, a `Score` or a `Reward`;
            several: a mapping of names to weights (or to specs, which may hold a `"weight"`), or
            a list of specs.
        timing: Pay scores as the text gains them, or whole with the last token.
        every: Score after every token, or after whole words or sentences only.

    Returns:
        The weighted sum of the rewards asked for, with state of its own: an object in the spec
        is copied, so that one object can be given to several environments.

    Raises:
        ValueError: If a name, timing or `every` is unknown; the message lists those that exist.
        TypeError: If the spec is none of the above, or a parameter is unknown.
    """
    for argument, value, allowed in (
        ("timing", timing, get_args(Timing)),
        ("every", every, get_args(Every)),
    ):
        if value not in allowed:
            raise ValueError(f"{argument} is one of {', '.join(allowed)}, got {value!r}.")
    rewards: dict[str, Reward] = {}
    weights: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    for name, weight, part in _parts(spec):
        if name in rewards:
            raise ValueError(
                f"two rewards are called {name!r}; give a mapping with a name of your own for "
                "each, such as {'short': {'name': 'length', 'target': 10}}."
            )
        reward = _build(part)
        threshold = getattr(reward, "success_threshold", None)
        if threshold is not None:
            thresholds[name] = float(threshold)
        rewards[name] = shape(reward, timing, every)
        weights[name] = weight
    return WeightedSum(rewards, weights, thresholds)


def _parts(spec: RewardSpec) -> list[tuple[str, float, Any]]:
    """Name, weight and spec of each single reward in a spec."""
    if isinstance(spec, Mapping) and "name" not in spec:
        if not spec:
            raise ValueError("the mapping of rewards is empty; name at least one reward.")
        return [_named(str(name), value) for name, value in spec.items()]
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        if not spec:
            raise ValueError("the list of rewards is empty; name at least one reward.")
        return [part for item in spec for part in _parts(item)]
    if isinstance(spec, Mapping):
        return [_named(str(spec["name"]), spec)]
    return [(_label(spec), 1.0, spec)]


def _named(name: str, value: Any) -> tuple[str, float, Any]:
    """One item of a mapping: a weight for the reward of that name, or a spec under that name."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _label(name), float(value), name
    if isinstance(value, Mapping):
        params = {"name": name, **value}
        weight = params.pop("weight", 1.0)
        if not isinstance(weight, (int, float)) or isinstance(weight, bool):
            raise TypeError(f"reward {name!r}: weight is a number, got {weight!r}.")
        return _label(name), float(weight), params
    return name, 1.0, value


def _label(spec: Any) -> str:
    """What a reward is called in `info` and in logs."""
    if isinstance(spec, str):
        return spec.rpartition(":")[2]
    return function_name(spec)


def _build(spec: Any) -> Reward | Score:
    """The object that a spec of one reward means, as yet without a timing."""
    made = spec
    if isinstance(spec, (str, Mapping)):
        name = spec if isinstance(spec, str) else str(spec["name"])
        if ":" in name:
            made = _import(name)
            params = {} if isinstance(spec, str) else {k: v for k, v in spec.items() if k != "name"}
            if params or isinstance(made, type):
                made = made(**params)
        else:
            made = _REGISTRY.resolve(spec)
    if isinstance(made, Reward):
        return copy.deepcopy(made)
    if isinstance(made, Score):
        return made
    if callable(made):
        return from_function(made)
    raise TypeError(
        f"expected a reward as a name, a mapping, a function, or an object with `score` or with "
        f"`start` and `step`; got {spec!r} ({type(spec).__name__})."
    )


def _import(path: str) -> Any:
    """The object that "package.module:name" names."""
    module_name, _, attribute = path.partition(":")
    try:
        made: Any = import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"reward {path!r} cannot be imported: {error}. Expected 'package.module:function', "
            "with the package installed or in the current directory."
        ) from error
    return cast("Any", made)
