"""Models by name: the directory where a model and its tokenizer are, in Hugging Face layout.

A model is asked for by a name (`names()` lists them), by its directory, by a file in another format
that something here can read (`"model.gguf"`), or by its id on the Hugging Face hub. Packages add
names, and formats by their suffix, with entry points:

    [project.entry-points."textgym.models"]
    mine = "my_package.models:mine"
    ".gguf" = "agents.gguf:convert"

A name's function returns the directory; a format's takes the file as `path` and returns one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from textgym.registry import Registry, did_you_mean

BUILTIN = "builtin"
BUILTIN_DIRECTORY = Path(__file__).parent / "assets" / BUILTIN
"""The model and the tokenizer that come with the package, in Hugging Face layout."""

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def builtin() -> Path:
    """A small model of Shakespeare and everyday English; comes along."""
    return BUILTIN_DIRECTORY


_REGISTRY: Registry[Path] = Registry("model", group="textgym.models")
_REGISTRY.register(BUILTIN, builtin)


def names() -> list[str]:
    """The names of all models, sorted."""
    return [name for name in _REGISTRY.names() if not _is_format(name)]


def formats() -> list[str]:
    """The suffixes of files that can be read as models, sorted."""
    return [name for name in _REGISTRY.names() if _is_format(name)]


def describe() -> dict[str, str]:
    """What each model, and each format, is, in one line, by name or suffix."""
    return _REGISTRY.describe()


def documentation(name: str) -> str:
    """What a model or a format is: the docstring of its function.

    Raises:
        ValueError: If there is none of that name.
    """
    return _REGISTRY.documentation(name)


def register(name: str, factory: Callable[..., Path] | str, *, replace: bool = False) -> None:
    """Make a model of one's own known by name, or a format by its suffix.

    Args:
        name: The name, or a suffix such as `".gguf"`.
        factory: Returns the model's directory; that of a format takes the file as `path`. Or
            `"module:function"`, which is imported when it is first needed.
        replace: Whether one of that name may exist.

    Raises:
        ValueError: If the name is taken, or the string is not of that form.
        TypeError: If the factory is neither callable nor a string.
    """
    _REGISTRY.register(name, factory, replace=replace)


def model_directory(spec: str | Path) -> Path | None:
    """The directory of a model, or None if `spec` can only be an id on the Hugging Face hub.

    Args:
        spec: A name, a directory, a file in a format that is known, or a hub id. A name comes
            before a directory of that name, which `./name` means.

    Raises:
        FileNotFoundError: If it is none of these.
        TypeError: If it is no string and no path.
        ValueError: If it is a file in no format that is known.
        MissingExtra: If a package is needed to make the directory.
    """
    if not isinstance(spec, (str, Path)) or not str(spec).strip():
        raise TypeError(f"a model is a name, a directory, a file or a hub id, got {spec!r}.")
    name = str(spec)
    if name == BUILTIN or name in names():
        return _REGISTRY.make(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    suffix = path.suffix.lower()
    if suffix in formats():
        if not path.is_file():
            raise FileNotFoundError(f"no model {name!r}: there is no file {path.absolute()}.")
        return _REGISTRY.make(suffix, path=path)
    if path.is_file():
        raise ValueError(
            f"{name!r} is a file, and a model is a directory with a config.json and weights, or a "
            f"file that ends in {' or '.join(formats()) or 'nothing that is known here'}. If it "
            f"holds weights, give its directory: {path.absolute().parent}"
        )
    if _HUB_ID.fullmatch(name):
        return None
    raise FileNotFoundError(not_found(spec))


def not_found(spec: str | Path) -> str:
    """The message for a model that is nowhere."""
    path = Path(spec).expanduser().absolute()
    return (
        f"no model {str(spec)!r}: it is neither one that goes by name "
        f"({did_you_mean(str(spec), names())}), nor a directory here ({path}), nor a model that "
        "the Hugging Face hub gave. Check the spelling; offline, give a local directory."
    )


def _is_format(name: str) -> bool:
    return name.startswith(".")
