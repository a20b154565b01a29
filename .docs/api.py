"""Pages of the API: one for each public class of the two packages, one for each module beside."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]

MODULES = {
    "textgym": (
        "rewards",
        "rewards.wire",
        "rewards.serving",
        "tasks",
        "checks",
        "rendering",
        "ratings",
        "models",
        "templates",
        "bandits",
        "vocabulary",
        "dynamics",
    ),
    "agents": (
        "algorithms.base",
        "algorithms.clipped",
        "algorithms.groups",
        "returns",
        "losses",
        "log_probs",
        "schedules",
        "sampling",
        "distributed.processes",
        "distributed.learner",
        "train",
        "tuning.config",
        "tuning.sweep",
        "ray_cluster",
        "evaluation",
        "watching",
        "loggers",
        "health",
        "health.symptoms",
        "checkpointing",
        "weights",
        "supervised",
        "recurrent",
        "pretraining",
        "judging.intervals",
        "judging.measures",
        "judging.diversity",
    ),
}
"""What is public beside the names of the packages themselves, in the order of the navigation."""

Pages = dict[str, str]


def navigation() -> list[Any]:
    """The API's part of the navigation."""
    found: list[Any] = []
    for package, modules in MODULES.items():
        shown: list[Any] = [f"api/{package}/index.md"]
        shown += [{name: f"api/{package}/{name}.md"} for name in _own_names(package)]
        shown += [{f".{module}": _uri(f"{package}.{module}")} for module in modules]
        found.append({package: shown})
    return found


@cache
def pages() -> Pages:
    """All pages by their place in the site."""
    made: Pages = {}
    for package, modules in MODULES.items():
        made[f"api/{package}/index.md"] = _index(package)
        for name in _own_names(package):
            made[f"api/{package}/{name}.md"] = _page(f"{package}.{name}")
        for module in modules:
            path = f"{package}.{module}"
            made[_uri(path)] = _page(path, _members(path))
    return made


@cache
def names() -> dict[str, str]:
    """What can be linked: the names of what the pages show, short and in full."""
    found: dict[str, str] = {}
    for package, modules in MODULES.items():
        for name in _own_names(package):
            found[f"{package}.{name}"] = found[name] = f"{package}.{name}"
        for module in modules:
            path = f"{package}.{module}"
            found[path] = path
            for name in _members(path):
                found[f"{path}.{name}"] = _home(path, name)
                if name[0].isupper() or "_" in name:  # `make` and `names` say too little
                    found.setdefault(name, _home(path, name))
        for name, home in _elsewhere(package).items():
            found[f"{package}.{name}"] = found[name] = home
    return found


@cache
def _package(name: str) -> griffe.Module:
    loaded = griffe.load(name, search_paths=[str(ROOT)], docstring_parser="google")
    assert isinstance(loaded, griffe.Module)
    return loaded


def _module(path: str) -> griffe.Module:
    package, _, rest = path.partition(".")
    module = _package(package)[rest] if rest else _package(package)
    assert isinstance(module, griffe.Module)
    return module


def _members(path: str) -> list[str]:
    """The public names of a module, in the order of its source, or of `__all__`."""
    module = _module(path)
    if module.exports is not None:
        return [str(name) for name in module.exports]
    return [
        name
        for name, member in module.members.items()
        if name[0] != "_" and not member.is_alias and member.has_docstring
    ]


@cache
def _elsewhere(package: str) -> dict[str, str]:
    """Names of a package that the page of one of its modules shows."""
    found = {}
    for module in MODULES[package]:
        path = f"{package}.{module}"
        found.update({name: f"{path}.{name}" for name in _members(path)})
    return {name: found[name] for name in _members(package) if name in found}


def _home(path: str, name: str) -> str:
    """Where mkdocstrings finds a name of a module: in a submodule if one is called like it."""
    return f"{path}.{name}.{name}" if _module(path).members[name].is_module else f"{path}.{name}"


def _own_names(package: str) -> list[str]:
    return [name for name in _members(package) if name not in _elsewhere(package)]


def _uri(path: str) -> str:
    package, _, module = path.partition(".")
    return f"api/{package}/{module}.md"


def _index(package: str) -> str:
    """The first page of a package: its docstring and its names, a line each."""
    module = _package(package)
    assert module.docstring is not None
    lines = [f"# {package}", "", module.docstring.value, "", "| name | |", "|--|--|"]
    for name in _members(package):
        home = _elsewhere(package).get(name, f"{package}.{name}")
        lines.append(f"| [`{name}`][{home}] | {_first_line(module[name])} |")
    lines += ["", "| module | |", "|--|--|"]
    for name in MODULES[package]:
        path = f"{package}.{name}"
        lines.append(f"| [`{path}`][{path}] | {_first_line(_module(path))} |")
    return "\n".join(lines) + "\n"


def _first_line(of: griffe.Object | griffe.Alias) -> str:
    assert of.docstring is not None, f"{of.path} has no docstring"
    return of.docstring.value.partition("\n")[0].replace("|", "\\|")


def _page(path: str, members: list[str] | None = None) -> str:
    page = f"---\ntitle: {path}\n---\n\n" + _block(path, 1, members)
    for name in members or []:
        if _home(path, name) != f"{path}.{name}":
            page += _block(_home(path, name), 2, None)
    return page


def _block(path: str, level: int, members: list[str] | None) -> str:
    options = ["show_root_heading: true", f"heading_level: {level}"]
    options.append(f"show_root_full_path: {str(level == 1).lower()}")
    if members is not None:
        options.append(f"members: [{', '.join(members)}]")
    return f"::: {path}\n    options:\n" + "".join(f"        {o}\n" for o in options) + "\n"
