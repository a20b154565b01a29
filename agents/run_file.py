"""The settings of a run as a YAML file that repeats it."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import yaml

from agents.config import RunConfig
from textgym.files import atomic_write
from textgym.registry import did_you_mean

Config = TypeVar("Config")
"""A dataclass of settings, as a command takes them."""


FREE_TO_CHANGE = {"train": ("total_timesteps", "device"), "sft": ("device",)}
"""Settings that may be others when a run of a command goes on."""


def save_config(config: Any, path: Path, command: str = "train") -> None:
    """Write a run file for `--config` of a command; the run's own directory is left out."""
    settings = config.as_data() if isinstance(config, RunConfig) else dataclasses.asdict(config)
    data = json.loads(json.dumps(settings, default=str))  # paths as strings
    values = {"command": command, **data}
    values.pop("output", None)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    atomic_write(path, f"# textgym {command} --config {path.name} repeats this run.\n{text}")


@overload
def load_config(path: Path) -> RunConfig: ...


@overload
def load_config(path: Path, kind: type[Config], command: str) -> Config: ...


def load_config(path: Path, kind: type[Any] = RunConfig, command: str = "train") -> Any:
    """Read a run file; settings that it does not name have their defaults.

    Args:
        path: The file.
        kind: The dataclass of the settings.
        command: Whose run it is to be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a YAML mapping of the dataclass's fields, each of its type, or is
            the file of another command.
    """
    values = read_settings(path)
    found = values.pop("command", "train")
    if found != command:
        raise ValueError(
            f"{path} is the run file of textgym {found}, and textgym {command} was asked for."
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
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {values!r}.")
    return values


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
            settings[key] = _typed(value, hints[key])
        except TypeError as error:
            cure = ""
            if isinstance(value, str) and _is_list(hints[key]):
                listed = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True)
                cure = f" Write {key}: {listed.strip()}"
            raise ValueError(f"{key} is {error}, got {value!r}.{cure}") from error
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    for field in fields:
        missing = (field.default, field.default_factory) == (dataclasses.MISSING,) * 2
        if missing and field.name not in settings:
            raise ValueError(f"{field.name} is missing.")
    return kind(**settings)


def _typed(value: Any, hint: Any) -> Any:
    """A value of YAML as a field's type wants it, or a TypeError that says what that is."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _typed(value, choice)
            except TypeError:
                continue
        raise TypeError(" or ".join(_described(choice) for choice in arguments))
    if get_origin(hint) is Literal and value in arguments:
        return value
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_typed(item, arguments[0]) for item in value)
    if hint is Any and isinstance(value, (str, dict, list)):
        return value
    if hint is float:
        return _number(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise TypeError(_described(hint))


def _is_list(hint: Any) -> bool:
    return any(get_origin(part) is tuple for part in (hint, *get_args(hint)))


def _number(value: Any) -> float:
    # YAML takes 3e-4, without a point, for text.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise TypeError(_described(float))


def _described(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list of strings"
    words: dict[Any, str] = {
        Any: "a name, a mapping or a list",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a string",
        Path: "a path",
        type(None): "null",
    }
    return words[hint]
