"""The settings of a run from the command line: new ones, those of a run file, or a run's own."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from agents.option_groups import option_groups
from agents.run_directory import RunDirectory
from agents.run_file import FREE_TO_CHANGE, load_config
from textgym.shell import program

Config = TypeVar("Config")
"""The settings of a command."""


@dataclass(frozen=True)
class Beginning:
    """Where a run begins, and so which settings it has unless others are given."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Go on with the run in this directory, which was stopped, with its own settings. Beside it
    only --device is taken; for train --total-timesteps, --loggers and --quiet; and for tune
    --trials, and what says where and how trials run."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Begin a new run with the settings of another one, from its config.yaml; what is given
    beside it comes first."""


def run_options(
    kind: type[Config],
    command: str,
    arguments: list[str],
    check_resumable: Callable[[RunDirectory], None],
    titles: Sequence[str] = ("",),
) -> tuple[Config, bool]:
    """The settings of a run, and whether it goes on with one that was stopped.

    Args:
        kind: The dataclass of the settings.
        command: The command.
        arguments: What was typed behind it.
        check_resumable: Raises if a run cannot go on.
        titles: What the groups of options are called in which `--help` shows the settings: those of
            the kind, then those that it inherits.

    Raises:
        ValueError: If a run is to go on with settings that are not its own.
    """
    resumed, config_file = _value(arguments, "--resume"), _value(arguments, "--config")
    if resumed is not None and config_file is not None:
        raise ValueError("give --resume, or --config for a new run: not both.")
    default: Any = None
    if resumed is not None:
        directory = RunDirectory(Path(resumed))
        check_resumable(directory)
        given = f"--resume {shlex.quote(resumed)}"
        settings: Any = load_config(directory.config, kind, command, given)
        default = replace(settings, output=directory.path)
    elif config_file is not None:
        given = f"--config {shlex.quote(config_file)}"
        default = load_config(Path(config_file), kind, command, given)
    groups = [*option_groups(Beginning), *option_groups(kind)]
    options = make_dataclass(
        kind.__name__,
        [
            (
                f"group_{place}",
                Annotated[group, tyro.conf.arg(name=title), tyro.conf.OmitArgPrefixes],
            )
            for place, (group, title) in enumerate(zip(groups, ("", *titles), strict=True))
        ],
        frozen=True,
    )
    parsed: Any = tyro.cli(
        options,
        default=options(groups[0](), *(_filled(group, default) for group in groups[1:])),
        prog=f"{program()} {command}",
        args=arguments,
        description=inspect.getdoc(kind),
    )
    _, *filled = vars(parsed).values()
    config: Any = kind(**{name: value for group in filled for name, value in vars(group).items()})
    changed = {name: getattr(config, name) for name in FREE_TO_CHANGE[command]}
    if resumed is not None and config != replace(default, **changed):
        free = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise ValueError(
            f"--resume takes only {free} beside it: the run goes on with its own settings. To "
            "change others, start a new run with --config and --model."
        )
    return config, resumed is not None


def given_options(arguments: Sequence[str]) -> set[str]:
    """The settings that are typed as options, by name: `--no-prune` is `prune`."""
    options = [each.partition("=")[0][2:] for each in arguments if each.startswith("--")]
    names = {option.replace("-", "_") for option in options}
    return names | {name.removeprefix("no_") for name in names}


def _filled(group: type[Any], default: Any) -> Any:
    """A group of options with the values that a run has; as it is by itself if there is none."""
    if default is None:
        return group()
    return group(**{field.name: getattr(default, field.name) for field in fields(group)})


def _value(arguments: list[str], option: str) -> str | None:
    """What is given for an option, on which the defaults of others depend; None if it is not."""
    value = None
    for argument, behind in pairwise([*arguments, ""]):
        name, equals, joined = argument.partition("=")
        given = joined if equals else behind
        if name == option and given and not given.startswith("--"):
            value = given
    return value
