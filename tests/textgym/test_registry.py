import subprocess
import sys

import pytest

from textgym.registry import Registry, did_you_mean


def box(width: int, height: int = 2) -> tuple[int, int]:
    """A box.

    Not in the summary.
    """
    return width, height


def broken(size: int = 1) -> tuple[int, int]:
    return len(size), 0  # type: ignore[arg-type]


class Crate:
    """A crate of wood."""

    def __init__(self, *, weight: float) -> None:
        self.weight = weight


@pytest.fixture
def shapes() -> Registry[object]:
    registry: Registry[object] = Registry("shape")
    registry.register("box", box)
    registry.register("crate", Crate)
    registry.register("path", "pathlib:PurePosixPath")
    return registry


def test_makes_from_functions_classes_and_import_strings(shapes):
    assert shapes.make("box", width=3) == (3, 2)
    assert shapes.make("crate", weight=1.5).weight == 1.5
    assert str(shapes.make("path")) == "."
    assert shapes.names() == ["box", "crate", "path"]
    assert shapes.describe()["box"] == "A box."
    assert shapes.describe()["crate"] == "A crate of wood."


def test_resolves_names_and_mappings_without_changing_them(shapes):
    spec = {"name": "box", "width": 5}
    assert shapes.resolve(spec) == (5, 2)
    assert spec == {"name": "box", "width": 5}
    assert str(shapes.resolve("path")) == "."


def test_an_import_string_is_imported_only_when_used():
    code = (
        "import sys; from textgym.registry import Registry; r = Registry('shape');"
        "r.register('x', 'wave:open'); r.names(); assert 'wave' not in sys.modules;"
        "r.describe(); assert 'wave' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_what_exists_and_what_is_near(shapes):
    with pytest.raises(ValueError, match=r"no shape named 'Boxx'; did you mean 'box'\?") as error:
        shapes.make("Boxx")
    assert "There are: 'box', 'crate', 'path'." in str(error.value)
    with pytest.raises(ValueError, match="no shape named 'zzzz'; there are"):
        shapes.resolve("zzzz")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"widht": 3}, "missing a required argument: 'width'"),
        ({"width": 3, "depth": 1}, "got an unexpected keyword argument 'depth'"),
        ({}, "missing a required argument: 'width'"),
    ],
)
def test_wrong_parameters_name_the_accepted_ones(shapes, params, reason):
    with pytest.raises(TypeError) as error:
        shapes.make("box", **params)
    message = str(error.value)
    assert message.startswith(f"shape 'box': {reason}")
    assert f"Given: {', '.join(params) or 'nothing'}." in message
    assert "Accepted: width, height=2." in message


def test_a_type_error_inside_the_factory_is_not_taken_for_a_wrong_parameter(shapes):
    shapes.register("broken", broken)
    with pytest.raises(TypeError, match="object of type 'int' has no len"):
        shapes.make("broken", size=4)


def test_a_name_is_taken_once_unless_replaced(shapes):
    with pytest.raises(ValueError, match="'box' is registered already"):
        shapes.register("box", Crate)
    shapes.register("box", Crate, replace=True)
    assert isinstance(shapes.make("box", weight=2), Crate)


@pytest.mark.parametrize("factory", ["pathlib", "pathlib:", ":PurePath"])
def test_import_strings_need_a_module_and_a_name(shapes, factory):
    with pytest.raises(ValueError, match="'module:name'"):
        shapes.register("new", factory)


def test_what_is_no_factory_name_or_spec_is_refused(shapes):
    with pytest.raises(TypeError, match="must be callable"):
        shapes.register("new", 3)
    with pytest.raises(TypeError, match="non-empty name, got ''"):
        shapes.register("", box)
    with pytest.raises(TypeError, match=r"got 3 \(int\)"):
        shapes.resolve(3)
    with pytest.raises(ValueError, match="needs its name under 'name'"):
        shapes.resolve({"width": 3})


def test_did_you_mean_keeps_the_case_of_what_exists():
    assert did_you_mean("PROMPT", ["Prompt", "answer"]).startswith("did you mean 'Prompt'?")
    assert did_you_mean("x", []) == "there are: none"


def test_installed_packages_add_to_it(tmp_path, monkeypatch):
    (tmp_path / "polite.py").write_text("def politeness():\n    return 'please'\n")
    info = tmp_path / "polite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[textgym.manners]\npoliteness = polite:politeness\nbow = polite:no_such_thing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[object] = Registry("manner", group="textgym.manners")
    registry.register("bow", box)
    assert registry.make("politeness") == "please"
    assert registry.names() == ["bow", "politeness"]
    assert registry.make("bow", width=1) == (1, 2)  # what is ours stays ours
