"""Optional dependencies: imported when something needs them, with the cure if they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from textgym.shell import pip_install


class MissingExtra(ModuleNotFoundError):  # noqa: N818  # says what happened
    """A package is not installed that comes with an extra of ours, or by itself.

    Args:
        wanted_by: What needs it, such as `"reward 'bleu'"`.
        module: The module that could not be imported.
        install: What to give to `pip install`.
    """

    def __init__(self, wanted_by: str, module: str, install: str) -> None:
        super().__init__(
            f"{wanted_by} needs {module}, which is not installed: {pip_install(install)}",
            name=module,
        )
        self._given = (wanted_by, module, install)

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        """Rebuild from the three arguments: worker processes send errors by pickle."""
        return type(self), self._given


def require(module: str, *, extra: str, wanted_by: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: The module, such as `"sacrebleu.metrics"`.
        extra: The extra of this package that installs it.
        wanted_by: What needs it, for the error message: `"reward 'bleu'"`.

    Raises:
        MissingExtra: If it, or the package that holds it, is not installed. What an installed
            package fails to import passes unchanged.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise MissingExtra(wanted_by, missing, f"'textgym[{extra}]'") from error
        raise
