"""The registry of rewards, and the one function that turns a reward spec into a reward."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, NamedTuple, TypeAlias, get_args

from textgym.arguments import is_number
from textgym.registry import Registry, import_object
from textgym.rewards.base import Reward, Score
from textgym.rewards.combine import WeightedSum
from textgym.rewards.functions import from_function, function_name
from textgym.rewards.score_sum import ScoreSum
from textgym.rewards.shaping import DelayedScore, Every, Shapeable, Timing, shape

RewardSpec: TypeAlias = (
    "str | Mapping[str, Any] | Sequence[Any] | Callable[..., Any] | Reward | Score"
)
"""Whatever says which reward is meant; JSON-able but for functions and objects."""

_HEAVIEST = 1e30
"""Weights beyond this are refused: agents keep rewards as float32, in which they overflow."""

_REGISTRY: Registry[Any] = Registry("reward", group="textgym.rewards")
_REGISTRY.register("adaptive", "textgym.rewards.adaptive:Adaptive")
_REGISTRY.register("balanced", "textgym.rewards.balanced:Balanced")
_REGISTRY.register("banned_words", "textgym.rewards.banned_words:BannedWords")
_REGISTRY.register("bleu", "textgym.rewards.bleu:Bleu")
_REGISTRY.register("chrf", "textgym.rewards.chrf:Chrf")
_REGISTRY.register("contains", "textgym.rewards.contains:Contains")
_REGISTRY.register("edit_distance", "textgym.rewards.edit_distance:EditDistance")
_REGISTRY.register("eos", "textgym.rewards.eos:Eos")
_REGISTRY.register("error_rate", "textgym.rewards.error_rate:ErrorRate")
_REGISTRY.register("exact_match", "textgym.rewards.exact_match:ExactMatch")
_REGISTRY.register("grammar", "textgym.rewards.grammar:Grammar")
_REGISTRY.register("http", "textgym.rewards.http:HTTPScore")
_REGISTRY.register("json_valid", "textgym.rewards.json_valid:JsonValid")
_REGISTRY.register("keywords", "textgym.rewards.keywords:Keywords")
_REGISTRY.register("length", "textgym.rewards.length:Length")
_REGISTRY.register("multiple_choice", "textgym.rewards.multiple_choice:MultipleChoice")
_REGISTRY.register("numeric_error", "textgym.rewards.numeric_error:NumericError")
_REGISTRY.register("ratings", "textgym.rewards.ratings:Ratings")
_REGISTRY.register("readability", "textgym.rewards.readability:Readability")
_REGISTRY.register("regex", "textgym.rewards.regex:Regex")
_REGISTRY.register("repetition", "textgym.rewards.repetition:Repetition")
_REGISTRY.register("rouge", "textgym.rewards.rouge:Rouge")
_REGISTRY.register("schedule", "textgym.rewards.schedule:Schedule")
_REGISTRY.register("sentiment", "textgym.rewards.sentiment:Sentiment")
_REGISTRY.register("spelling", "textgym.rewards.spelling:Spelling")
_REGISTRY.register("target_token", "textgym.rewards.target_token:TargetToken")
_REGISTRY.register("token_f1", "textgym.rewards.token_f1:TokenF1")
_REGISTRY.register("verifier", "textgym.rewards.verifier:Verifier")


def names() -> list[str]:
    """The names of all rewards, sorted."""
    return _REGISTRY.names()


class Info(NamedTuple):
    """What is known of a reward before it is made.

    Attributes:
        name: Its name.
        parameters: Its parameters with their defaults, `"(target=None)"`.
        summary: What it pays, in one line.
        score_range: The lowest and the highest score with default parameters, if it says so.
        needs: What it needs beside the text; "" if nothing.
        cost: Microseconds a token in a batch of 64 texts, where that was measured.
    """

    name: str
    parameters: str
    summary: str
    score_range: tuple[float, float] | None
    needs: str
    cost: float | None


def info() -> list[Info]:
    """What is known of each reward, sorted by name; imports all of them."""
    costs = measured_costs()["microseconds"]
    summaries = _REGISTRY.describe()
    return [
        Info(
            name,
            _REGISTRY.parameters(name),
            summaries[name],
            getattr(_REGISTRY.get(name), "score_range", None),
            getattr(_REGISTRY.get(name), "needs", ""),
            costs.get(name),
        )
        for name in names()
    ]


def measured_costs() -> dict[str, Any]:
    """What `benchmarks/reward_cost.py` measured: `machine`, `date` and `microseconds` a token."""
    text = (files("textgym.assets") / "reward_costs.json").read_text(encoding="utf-8")
    costs: dict[str, Any] = json.loads(text)
    return costs


def documentation(name: str) -> str:
    """What a reward is and what its parameters mean: its docstring.

    Raises:
        ValueError: If there is no reward of that name.
    """
    return _REGISTRY.documentation(name)


def register(name: str, factory: Callable[..., Any] | str, *, replace: bool = False) -> None:
    """Make a reward of one's own known by name, so that run files can ask for it.

    Args:
        name: The name.
        factory: Returns a function, a `Score` or a new `Reward`; its parameters are the reward's.
            Or `"module:factory"`, which is imported when the reward is first made.
        replace: Whether a reward of that name may exist.

    Raises:
        ValueError: If the name is taken, or the string is not of that form.
        TypeError: If the factory is neither callable nor a string.
    """
    _REGISTRY.register(name, factory, replace=replace)


def build(name: str, /, **parameters: Any) -> Any:
    """The reward of that name as it was registered: a function, a `Score` or a `Reward`.

    Raises:
        ValueError: If there is no such name, or a parameter's value is refused.
        TypeError: If a parameter is unknown or missing.
    """
    return _REGISTRY.make(name, **parameters)


def make(spec: RewardSpec, timing: Timing = "immediate", every: Every = "token") -> WeightedSum:
    """The reward that a spec asks for.

    Args:
        spec: One of

            * a name;
            * `"package.module:function"`, for what can be imported;
            * a function, a TRL reward function, a `Score` or a `Reward`, or a class of them;
            * a mapping with one of these under `"name"`; `"weight"`, if given, is the reward's
              weight, and all else are its parameters;
            * for several, a mapping of names to weights, to parameters, or to any of the above;
              or a list of any of the above. The key of a mapping is what `info` and logs call
              the reward.
        timing: Pay scores as the text gains them, or whole with the last token.
        every: Score after every token, or after whole words or sentences only.

    Returns:
        The weighted sum of the rewards asked for, with state of its own: a `Reward` that is given
        as an object is copied, so that one object can be given to several environments.

    Raises:
        ValueError: If a name, a weight, timing or `every` is refused, or nothing is asked for.
        TypeError: If the spec is none of the above, or a parameter is unknown.
    """
    for argument, value, allowed in (
        ("timing", timing, get_args(Timing)),
        ("every", every, get_args(Every)),
    ):
        if value not in allowed:
            raise ValueError(f"{argument} is one of {', '.join(allowed)}, got {value!r}.")
    weights: dict[str, float] = {}
    shaped: dict[str, Reward] = {}
    thresholds: dict[str, float] = {}
    for name, single in _singles(spec):
        if name in weights:
            raise ValueError(
                f"two rewards are called {name!r}; give a mapping with a name of your own for "
                "each, such as {'short': {'name': 'length', 'target': 10}}."
            )
        weights[name], reward = _build(name, single)
        shaped[name] = shape(reward, timing, every)
        threshold = getattr(reward, "success_threshold", None)
        if threshold is not None:
            thresholds[name] = float(threshold)
    if not weights:
        raise ValueError(f"reward={spec!r} asks for no reward; name at least one of {names()}.")
    return WeightedSum(shaped, weights, thresholds)


def make_score(spec: RewardSpec) -> Score:
    """The score of texts that a spec asks for, without a timing: the weighted sum of several.

    Args:
        spec: As for `make`.

    Raises:
        ValueError: As `make`.
        TypeError: If a reward is no score of a text but pays tokens as they come; or as `make`.
    """
    weights: list[float] = []
    scores: list[Score] = []
    for name, single in _singles(spec):
        weight, reward = _build(name, single)
        if isinstance(reward, Shapeable):  # which may make one
            shaped = reward.shaped("delayed", "token")
            reward = shaped.inner if isinstance(shaped, DelayedScore) else shaped
        if not isinstance(reward, Score):
            raise TypeError(
                f"reward {name!r} pays each token as it comes and is no score of a text, which is "
                "all that can be made elsewhere. Let it pay where the text is written, beside the "
                "score that is made elsewhere."
            )
        weights.append(weight)
        scores.append(reward)
    if not scores:
        raise ValueError(f"reward={spec!r} asks for no reward; name at least one of {names()}.")
    return scores[0] if weights == [1.0] else ScoreSum(scores, weights)


def makers(spec: RewardSpec) -> list[Any]:
    """What would make the rewards of a spec, for what it declares: nothing is made.

    Classes and factories; functions of texts as scores; objects as they are.

    Raises:
        ValueError: If there is no such name or module.
        TypeError: If a function takes nothing that has a name.
    """
    found: list[Any] = []
    for _, single in _singles(spec):
        target = single["name"] if isinstance(single, Mapping) else single
        if isinstance(target, str) and ":" not in target:
            found.append(_REGISTRY.get(target))
            continue
        given = import_object(target, "reward") if isinstance(target, str) else target
        is_function = not isinstance(given, (type, Reward, Score, Shapeable)) and callable(given)
        found.append(from_function(given) if is_function else given)
    return found


def _singles(spec: Any) -> list[tuple[str, Any]]:
    """Each single reward in a spec: what it is called, and its own spec."""
    if isinstance(spec, Mapping) and "name" not in spec:
        return [_named(str(key), value) for key, value in spec.items()]
    if isinstance(spec, Sequence) and not isinstance(spec, (str, bytes)):
        return [single for item in spec for single in _singles(item)]
    return [(_label(spec["name"] if isinstance(spec, Mapping) else spec), spec)]


def _named(key: str, value: Any) -> tuple[str, Any]:
    """One item of a mapping: a weight or parameters for the reward `key`, or a spec so called."""
    if is_number(value):
        return _label(key), {"name": key, "weight": value}
    if isinstance(value, Mapping):
        return _label(key), {"name": key, **value}
    return key, value


def _label(target: Any) -> str:
    """What a reward is called if nobody says otherwise."""
    return target.rpartition(":")[2] if isinstance(target, str) else function_name(target)


def _build(label: str, spec: Any) -> tuple[float, Reward | Score | Shapeable]:
    """The weight and the object, as yet without a timing, that the spec of one reward means."""
    params = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    target, weight = params.pop("name"), params.pop("weight", 1.0)
    if not is_number(weight) or not abs(weight) <= _HEAVIEST:
        raise ValueError(f"reward {label!r}: weight is a finite number, got {weight!r}.")
    given: Any = target
    if isinstance(target, str) and ":" in target:
        given = import_object(target, "reward")
    if isinstance(given, str):
        made: Any = build(given, **params)
    elif isinstance(given, type):
        made = given(**params)
    elif params:
        made = _partial(label, given, params)
    else:
        made = _copied(label, given) if isinstance(given, Reward) else given
    if isinstance(made, WeightedSum):
        raise TypeError(
            f"reward {label!r} is made already, with a timing of its own; give the spec of which "
            "it was made."
        )
    if isinstance(made, (Reward, Score, Shapeable)):
        return float(weight), made
    if callable(made):
        return float(weight), from_function(made)
    raise TypeError(
        f"expected a reward as a name, a mapping, a function, or an object with `score` or with "
        f"`start` and `step`; got {spec!r} ({type(spec).__name__})."
    )


def _partial(label: str, function: Any, params: dict[str, Any]) -> Callable[..., Any]:
    try:
        inspect.signature(function).bind_partial(**params)
    except TypeError as error:
        raise TypeError(f"reward {label!r}: {error}. Given: {', '.join(params)}.") from error
    return partial(function, **params)


def _copied(label: str, reward: Reward) -> Reward:
    try:
        return copy.deepcopy(reward)
    except TypeError as error:
        raise TypeError(
            f"reward {label!r} cannot be copied, and every environment needs one of its own: "
            f"{error}. Give its class instead, or define __deepcopy__."
        ) from error
