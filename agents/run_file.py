"""The settings of a run as a YAML file that repeats it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import (
    Any,
    TypeVar,
    get_type_hints,
    overload,
)

import yaml

from agents.config import RunConfig
from agents.typed import is_list, typed
from textgym.files import durable_write
from textgym.registry import did_you_mean
from textgym.shell import program

Config = TypeVar("Config")
"""A dataclass of settings, as a command takes them."""


FREE_TO_CHANGE = {
    "train": ("total_timesteps", "device", "loggers", "quiet"),
    "sft": ("device",),
    "tune": (
        "address",
        "at_once",
        "cpus_per_trial",
        "device",
        "gpus_per_trial",
        "loggers",
        "prune",
        "quiet",
        "retries",
        "trials",
    ),
}
"""Settings that may be others when a run of a command goes on."""


def save_config(config: Any, path: Path, command: str = "train") -> None:
    """Write a run file for `--config` of a command; the run's own directory is left out."""
    values = {"command": command, **_as_plain(config)}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    text = f"# textgym {command} --config {path.name} repeats this run.\n{text}"
    path.parent.mkdir(parents=True, exist_ok=True)
    durable_write(path, text.encode())


def check_same_run(config: RunConfig, path: Path) -> None:
    """Raise if a run is not to go on with the settings that it began with.

    Args:
        config: The settings.
        path: The run's own file.

    Raises:
        ValueError: If others than those of `FREE_TO_CHANGE` differ.
    """
    wanted, own = _as_plain(config), _as_plain(load_config(path))
    for name in {**own, **wanted}:
        if wanted.get(name) != own.get(name) and name not in FREE_TO_CHANGE["train"]:
            raise ValueError(
                f"{name} is {wanted.get(name)!r}, and the run in {path.parent} has "
                f"{own.get(name)!r}. A run goes on with its own settings, but for "
                f"{', '.join(FREE_TO_CHANGE['train'])}; begin another run for others."
            )


def _as_plain(config: Any) -> dict[str, Any]:
    """Settings as YAML has them, without those that are about one call only."""
    settings = config.as_data() if isinstance(config, RunConfig) else dataclasses.asdict(config)
    values: dict[str, Any] = json.loads(json.dumps(settings, default=str))  # paths as strings
    for of_this_call in ("output", "quiet"):
        values.pop(of_this_call, None)
    return values


@overload
def load_config(path: Path) -> RunConfig: ...


@overload
def load_config(path: Path, kind: type[Config], command: str, given: str = "") -> Config: ...


def load_config(
    path: Path, kind: type[Any] = RunConfig, command: str = "train", given: str = ""
) -> Any:
    """Read a run file; settings that it does not name have their defaults.

    Args:
        path: The file.
        kind: The dataclass of the settings.
        command: Whose run it is to be.
        given: The option by which a person named it, and with which its own command takes it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a YAML mapping of the dataclass's fields, each of its type, or is
            the file of another command.
    """
    values = read_settings(path)
    found = values.pop("command", "train")
    if found != command:
        cure = f" Give it to that one: {program()} {found} {given}" if given else ""
        raise ValueError(
            f"{path} is the run file of textgym {found}, and textgym {command} was asked for.{cure}"
        )
    try:
        return as_config(kind, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """A YAML file that is a mapping, as it stands.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no run file {path}; expected the config.yaml of a run.")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(
            f"{path} holds {path.stat().st_size:,} bytes, and a file of settings at most "
            f"{_MOST_BYTES:,}. Is it the right file?"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # too deep; too long a number
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: expected a mapping of settings, such as 'seed: 1', got {values!r}."
        )
    _check_size(path, values)
    return values


_MOST_BYTES = 1_000_000
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """Plain data only, and no name twice in a mapping, of which YAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise yaml.composer.ComposerError(
                None, None, f"found {twice[0]!r} more than once; take one out", node.start_mark
            )
        return node


def _check_size(path: Path, values: Any) -> None:
    """Raise if anchors make a file hold itself, or more than anyone would write."""
    waiting, seen = [values], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ValueError(
                f"{path} holds more than {_MOST_VALUES:,} values, or an anchor (&) inside of what "
                "it stands for. Write them out."
            )
        if isinstance(value, (dict, list)):
            waiting.extend(value.values() if isinstance(value, dict) else value)


def as_config(kind: type[Config], values: Mapping[str, Any], **settled: Any) -> Config:
    """Settings as their dataclass.

    Args:
        kind: The dataclass.
        values: Settings as YAML gives them, by name.
        **settled: Settings as the dataclass has them, which are not for the YAML to give.

    Raises:
        ValueError: If a setting is unknown, not of its type or refused, or one is missing.
    """
    hints = get_type_hints(kind)
    settings: dict[str, Any] = dict(settled)
    for key, value in values.items():
        if key not in hints.keys() - settled.keys():
            names = [name for name in hints if name not in settled]
            raise ValueError(f"no setting {key!r}; {did_you_mean(str(key), names)}.")
        try:
            settings[key] = typed(value, hints[key])
        except TypeError as error:
            cure = ""
            if isinstance(value, str) and is_list(hints[key]):
                listed = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True)
                cure = f" Write {key}: {listed.strip()}"
            raise ValueError(f"{key} is {error}, got {value!r}.{cure}") from error
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    for field in fields:
        missing = (field.default, field.default_factory) == (dataclasses.MISSING,) * 2
        if missing and field.name not in settings:
            raise ValueError(f"{field.name} is missing.")
    return kind(**settings)
