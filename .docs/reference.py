"""What goes by name, and the command line, as the code itself describes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe

from agents.algorithms.by_name import ALGORITHMS, NamedAlgorithm
from agents.cli import COMMANDS
from agents.score import TEXT_COLUMN
from textgym import models, rewards, tasks
from textgym.ratings import DEFAULT_PORT
from textgym.rewards.make import _REGISTRY as REWARDS
from textgym.tasks.make import _REGISTRY as TASKS

ROOT = Path(__file__).parents[1]

BEGINNING = "agents.run_options.Beginning"

SETTINGS = {
    "train": (BEGINNING, "agents.config.RunConfig"),
    "tune": (BEGINNING, "agents.tuning.config.TuneConfig"),
    "report": ("agents.reporting.command.ReportConfig",),
    "sft": (BEGINNING, "agents.supervised.config.SFTConfig"),
    "eval": ("agents.judging.config.EvalConfig",),
    "sample": ("agents.sample.SampleConfig",),
    "prompts": ("agents.prompt_search.PromptsConfig",),
    "score": ("agents.score.ScoreConfig",),
    "rate": ("textgym.ratings.server.serve",),
    "serve": ("agents.serve.ServeConfig",),
    "list": (),
    "train-reward": ("agents.reward_training.RewardTrainingConfig",),
    "pretrain": ("agents.pretraining.config.PretrainConfig",),
    "run": ("agents.pipeline.PipelineConfig",),
}
"""The dataclasses, or the function, that a command's options are made of."""

GROUPS = {
    "agents.config.RunConfig": {
        "output": "The run",
        "model": "Model and prompts",
        "reward": "Reward",
        "max_new_tokens": "Texts",
        "algo": "Algorithm",
        "temperature": "Drawing",
        "lora_rank": "Memory and speed",
        "eval_every": "Judging",
        "checkpoint_every": "Watching, saving, going on",
    },
}
"""Headings of long lists of options, by the first option below them."""


def filled_in(markdown: str) -> str:
    """A page whose marks `<!-- all rewards -->` are replaced by what is described."""
    for mark, made in MARKS.items():
        line = f"<!-- all {mark} -->"
        if line in markdown:
            markdown = markdown.replace(line, "\n".join(made()))
    return markdown


def all_tasks() -> Iterator[str]:
    """Every task: its parameters and its docstring."""
    for name in tasks.names():
        yield from _described(name, tasks.parameters(name), TASKS.get(name))


def all_rewards() -> Iterator[str]:
    """A table of all rewards, then each with its facts and its docstring."""
    yield from ("| reward | range | µs a token | needs |", "|--|--|--:|--|")
    for reward in rewards.info():
        facts = f"{_range(reward)} | {_cost(reward)} | {reward.needs}"
        yield f"| [`{reward.name}`](#{reward.name}) | {facts} |"
    yield ""
    for reward in rewards.info():
        known = [_range(reward), f"needs {reward.needs}" if reward.needs else ""]
        if reward.cost is not None:
            known.insert(1, f"{_cost(reward)} µs a token")
        line = " · ".join(fact for fact in known if fact)
        yield from _described(reward.name, reward.parameters, REWARDS.get(reward.name), line)


def _cost(reward: rewards.Info) -> str:
    if reward.cost is None:
        return ""
    return f"{reward.cost:,.0f}" if reward.cost >= 1 else "< 1"


def _range(reward: rewards.Info) -> str:
    if reward.score_range is None:
        return ""
    shown = "{:g} to {:g}".format(*reward.score_range)
    return shown.replace("inf", "∞").replace("-", "\N{MINUS SIGN}")


def all_models() -> Iterator[str]:
    """Every model that goes by name, and every format."""
    for name in [*models.names(), *models.formats()]:
        yield from (
            f"## `{name}` {{ #{name.lstrip('.')} }}",
            "",
            _text(models.documentation(name)),
            "",
        )


def all_algorithms() -> Iterator[str]:
    """Every algorithm: what its class says of it, and the settings that it takes."""
    for name, algorithm in ALGORITHMS.items():
        yield from (f"## {name} {{ #{name} }}", "")
        what = algorithm.what[0].upper() + algorithm.what[1:]
        yield f"**{what}.** In Python `{algorithm.kind.__name__}`."
        yield ""
        if not algorithm.is_stock:
            described = inspect.getdoc(algorithm.kind)
            assert described is not None
            yield from (_text(described), "")
        yield from _settings(algorithm)


def _settings(algorithm: NamedAlgorithm) -> Iterator[str]:
    named = ", ".join(f"`{setting}`" for setting in sorted(algorithm.settings))
    defaults = ", ".join(f"`{key}={value:g}`" for key, value in algorithm.defaults.items())
    yield f"Of the settings of `textgym train` it takes, beside what all take, {named}."
    yield f"Defaults that suit the built-in model: {defaults}."
    yield ""


def all_commands() -> Iterator[str]:
    """Every command and its options."""
    if set(SETTINGS) != set(COMMANDS):
        raise ValueError(f"SETTINGS names {set(SETTINGS)} and the commands are {set(COMMANDS)}.")
    for name, command in COMMANDS.items():
        yield from (f"## textgym {name} {{ #{name} }}", "", inspect.getdoc(command) or "", "")
        for path in SETTINGS[name]:
            yield from _options(path)


def all_modules() -> Iterator[str]:
    """Every module of both packages, with the first line of its docstring."""
    for package in ("textgym", "agents"):
        for module in _modules(_package(package)):
            assert module.docstring is not None, f"{module.path} has no docstring"
            what = module.docstring.value.partition("\n")[0]
            yield from (f"`{module.path}`", f":   {what}", "")


def _modules(of: griffe.Object) -> Iterator[griffe.Object]:
    yield of
    for _, module in sorted(of.modules.items()):
        if not module.is_alias:
            yield from _modules(module)


def _options(path: str) -> Iterator[str]:
    groups = dict(GROUPS.get(path, {}))
    for option, kind, default, help_text in _fields(path):
        if option in groups:
            yield from (f"### {groups.pop(option)}", "")
        flag = f"`--{option.replace('_', '-')}`"
        if kind == "positional":
            flag, kind = f"`{option.upper()}`", ""
        given = f" = `{default}`" if default not in (None, "None", "()") else ""
        yield f"{flag} {kind}{given}"
        yield f":   {' '.join(help_text.split())}"
        yield ""
    if groups:
        raise ValueError(f"{path} has no {', '.join(groups)}, before which a heading stands.")


def _fields(path: str) -> Iterator[tuple[str, str, str | None, str]]:
    """Name, kind of value, default and help of each option."""
    found = _object(path)
    if isinstance(found, griffe.Function):
        texts = {p.name: p.description for p in _section(found, "parameters")}
        for parameter in found.parameters:
            kind = _kind(str(parameter.annotation))
            yield parameter.name, kind, _plain(parameter.default), texts[parameter.name]
        return
    for name, member in found.members.items():
        if isinstance(member, griffe.Attribute) and member.annotation is not None:
            if "instance-attribute" not in member.labels or name[0] == "_":
                continue
            assert member.docstring is not None, f"{path}.{name} has no docstring"
            kind = _kind(str(member.annotation))
            yield name, kind, _plain(member.value), member.docstring.value


def _object(path: str) -> griffe.Object:
    package, _, rest = path.partition(".")
    found = _package(package)[rest]
    assert isinstance(found, griffe.Object)
    return found


@cache
def _package(name: str) -> griffe.Object:
    loaded = griffe.load(name, search_paths=[str(ROOT)], docstring_parser="google")
    assert isinstance(loaded, griffe.Object)
    return loaded


_KINDS = {
    "str": "TEXT",
    "int": "INT",
    "float": "NUMBER",
    "Path": "PATH",
    "Spec": "NAME or JSON",
    "ScheduleSpec": "NUMBER or schedule",
    "str | Path": "PATH",
    "Every": "token | word | sentence",
    "rewards.Every": "token | word | sentence",
    "DType": "float32 | bfloat16",
    "bool": "True | False",
}


def _kind(annotation: str) -> str:
    """What is typed behind an option, of its annotation: `INT`, `a | b`, `TEXT ...`."""
    if "Positional" in annotation:
        return "positional"
    metavar = re.search(r"metavar=['\"]([\w:=]+)['\"]", annotation)
    if metavar is not None:
        return metavar[1]
    bare = annotation.replace(" | None", "")
    choices = re.fullmatch(r"Literal\[(.*)\]", bare, re.DOTALL)
    if choices is not None:
        return " | ".join(re.findall(r"['\"]([^'\"]+)['\"]", choices[1]))
    several = re.fullmatch(r"tuple\[(\w+), \.\.\.\]", bare)
    if several is not None:
        return f"{_KINDS[several[1]]} ..."
    return _KINDS[bare]


def _plain(value: Any) -> str | None:
    """A default as one would type it."""
    if value is None:
        return None
    text = str(value)
    return NAMED.get(text, text.strip("'\""))


NAMED = {"TEXT_COLUMN": TEXT_COLUMN, "DEFAULT_PORT": str(DEFAULT_PORT)}
"""Defaults that the code has under a name."""


def _section(of: griffe.Object, kind: str) -> Any:
    assert of.docstring is not None
    (found,) = [part for part in of.docstring.parsed if part.kind.value == kind]
    return found.value


def _text(docstring: str) -> str:
    """A docstring up to its first section (Args, Raises, ...)."""
    parts = griffe.Docstring(docstring).parse("google", warnings=False)
    return "\n\n".join(part.value for part in parts if part.kind.value == "text")


def _described(
    name: str, parameters: str, factory: Callable[..., Any], facts: str = ""
) -> Iterator[str]:
    """A heading, facts in a line, and what mkdocstrings makes of a factory's docstring."""
    yield from (f"## {name} {{ #{name} }}", "", facts, "")
    if parameters:
        yield from (f"```py\n{_wrapped(name, parameters)}\n```", "")
    yield f"::: {factory.__module__}.{factory.__qualname__}"
    yield "    options:"
    for option in ("show_root_heading: false", "show_root_toc_entry: false", "members: false"):
        yield f"        {option}"
    yield "        show_bases: false"
    yield ""


def _wrapped(name: str, parameters: str) -> str:
    """A call, on several lines if it is long."""
    line = name + parameters
    if len(line) <= 72:
        return line
    inner = re.sub(r", (?=\w+(=|,|$))", ",\n    ", parameters[1:-1])
    return f"{name}(\n    {inner},\n)"


MARKS: dict[str, Callable[[], Iterator[str]]] = {
    "tasks": all_tasks,
    "rewards": all_rewards,
    "models": all_models,
    "algorithms": all_algorithms,
    "commands": all_commands,
    "modules": all_modules,
}
