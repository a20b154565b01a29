"""Things that are made by name, so that a run file can say which ones it means."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """A clause for an error message: the names nearest to `word`, then all that exist.

    Case is ignored. Returns, for instance, `"did you mean 'rouge'? There are: 'bleu', 'rouge'"`, or
    without one that is near `"there are: 'bleu', 'rouge'"`.
    """
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[key] for key in difflib.get_close_matches(word.lower(), by_lower)]
    everything = ", ".join(map(repr, sorted(known))) or "none"
    if near:
        return f"did you mean {' or '.join(map(repr, near))}? There are: {everything}"
    return f"there are: {everything}"


def import_object(path: str, what: str) -> Any:
    """The object that `"package.module:name"` names; the name may have dots, `"Class.method"`.

    Args:
        path: Of an installed package, or of a module beside the script or in the working
            directory.
        what: What is looked for, in one word, for error messages.

    Raises:
        ValueError: If there is no such module, or nothing of that name in it. What a module that
            exists raises while it is imported passes unchanged.
    """
    module_name, _, attributes = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attributes.split(".")]):
        raise ValueError(f"{what} {path!r} cannot be imported: expected 'package.module:name'.")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"{what} {path!r} cannot be imported: there is no module {error.name!r} among the "
            f"installed packages, beside the script or in the working directory, {Path.cwd()}."
        ) from error
    found: Any = module
    for name in attributes.split("."):
        if not hasattr(found, name):
            offered = [k for k in dir(found) if k[0] != "_" and callable(getattr(found, k))]
            raise ValueError(
                f"{what} {path!r} cannot be imported: {found!r} has no {name!r}; "
                f"{did_you_mean(name, offered)}."
            )
        found = getattr(found, name)
    return found


def call(what: str, factory: Callable[..., T], params: Mapping[str, Any]) -> T:
    """Call a factory with parameters that a person wrote.

    Args:
        what: What is made, for error messages: `"task 'file'"`.
        factory: Makes it.
        params: Its parameters by name.

    Raises:
        TypeError: If a parameter is unknown, a required one missing, or a flag is no bool; the
            message lists what the factory accepts. What the factory raises itself passes unchanged.
    """
    signature = inspect.signature(factory)
    try:
        # Only the call itself is checked here: a TypeError of the factory's own is its own.
        signature.bind(**params)
    except TypeError as error:
        raise TypeError(
            f"{what}: {error}. Given: {', '.join(params) or 'nothing'}. "
            f"Accepted: {_accepted(signature) or 'nothing'}."
        ) from error
    for name, value in params.items():
        parameter = signature.parameters.get(name)
        # Any other value would do for a truth value, and "no" would mean yes.
        if parameter and parameter.annotation in (bool, "bool") and not isinstance(value, bool):
            raise TypeError(f"{what}: {name} is true or false, got {value!r}.")
    return factory(**params)


class Registry(Generic[T]):
    """Factories by name.

    A factory is a callable, a class among them, or a string `"module:name"` that is imported
    when it is first needed: registering costs nothing, whatever the factory's module imports.

    Installed packages add to it by entry points, which are looked up when a name is asked for
    that is not known otherwise:

        [project.entry-points."textgym.rewards"]
        politeness = "my_package.rewards:Politeness"

    Args:
        kind: What is made here, in one word, for error messages: `"task"`, `"reward"`.
        group: The group of entry points; None if packages cannot add to it.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._factories: dict[str, Callable[..., T] | str] = {}

    def register(
        self, name: str, factory: Callable[..., T] | str, *, replace: bool = False
    ) -> None:
        """Make `factory` known as `name`.

        Args:
            name: What run files and `make` will call it.
            factory: Takes the parameters and returns the object, or `"module:name"` of one.
            replace: Whether a factory of that name may exist; useful in a notebook cell that is
                run again.

        Raises:
            ValueError: If the name is taken, or a string is not of the form `"module:name"`.
            TypeError: If the name is not a string, or the factory neither callable nor a string.
        """
        if not isinstance(name, str) or not name:
            raise TypeError(f"a {self.kind} is registered under a non-empty name, got {name!r}.")
        if isinstance(factory, str):
            module, _, attribute = factory.partition(":")
            if not module or not attribute:
                raise ValueError(
                    f"{self.kind} {name!r}: expected a factory as 'module:name', got {factory!r}."
                )
        elif not callable(factory):
            raise TypeError(
                f"{self.kind} {name!r}: the factory must be callable or a string 'module:name', "
                f"got {factory!r}."
            )
        if name in self._factories and not replace:
            raise ValueError(
                f"a {self.kind} named {name!r} is registered already. Choose another name, or "
                "pass replace=True."
            )
        self._factories[name] = factory

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load_entry_points()
        return sorted(self._factories)

    def describe(self) -> dict[str, str]:
        """The first line of each factory's docstring, by name; imports every factory."""
        return {name: self._summary(name) for name in self.names()}

    def documentation(self, name: str) -> str:
        """The docstring of a factory.

        Raises:
            ValueError: If there is no such name.
        """
        return inspect.getdoc(self.get(name)) or ""

    def get(self, name: str) -> Callable[..., T]:
        """The factory of that name.

        Raises:
            ValueError: If there is none; the message lists those that exist.
        """
        if name not in self._factories:
            self._load_entry_points()
        if name not in self._factories:
            raise ValueError(f"no {self.kind} named {name!r}; {did_you_mean(name, self.names())}.")
        factory = self._factories[name]
        if isinstance(factory, str):
            module, _, attribute = factory.partition(":")
            loaded: Callable[..., T] = getattr(import_module(module), attribute)
            self._factories[name] = factory = loaded
        return factory

    def parameters(self, name: str) -> str:
        """The parameters of a factory with their defaults, `"(target=None)"`; `""` if none."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        shown = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters)
        return f"({shown})" if shown else ""

    def make(self, name: str, /, **params: Any) -> T:
        """Call the factory `name` with `params`.

        Raises:
            ValueError: If there is no such name; the message lists those that exist.
            TypeError: If a parameter is unknown or a required one missing; the message lists
                what the factory accepts. What the factory raises itself passes unchanged.
        """
        return call(f"{self.kind} {name!r}", self.get(name), params)

    def resolve(self, spec: str | Mapping[str, Any]) -> T:
        """Make what a JSON-able spec asks for.

        Args:
            spec: A name, or a mapping `{"name": ..., **params}`. It is not changed.

        Raises:
            ValueError: If the mapping has no `"name"`, or as `make`.
            TypeError: If the spec is neither a string nor a mapping, or as `make`.
        """
        if isinstance(spec, str):
            return self.make(spec)
        if not isinstance(spec, Mapping):
            raise TypeError(
                f"expected a {self.kind} as a name or a mapping {{'name': ..., **parameters}}, "
                f"got {spec!r} ({type(spec).__name__})."
            )
        params = dict(spec)
        name = params.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(
                f"a {self.kind} given as a mapping needs its name under 'name', got {spec!r}. "
                f"There are: {', '.join(map(repr, self.names()))}."
            )
        return self.make(name, **params)

    def _load_entry_points(self) -> None:
        """Register what installed packages offer; a name that is taken stays as it is."""
        if self._group is not None:
            for point in entry_points(group=self._group):
                self._factories.setdefault(point.name, point.value)
            self._group = None

    def _summary(self, name: str) -> str:
        return self.documentation(name).partition("\n")[0]


def _accepted(signature: inspect.Signature) -> str:
    """The parameters of a signature with their defaults, annotations left out."""
    return ", ".join(
        str(parameter.replace(annotation=parameter.empty))
        for parameter in signature.parameters.values()
    )
