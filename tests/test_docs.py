"""The parts of the documentation's build that are ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "guides").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="guides/one.html#here">one</a><a href="#top">up</a>'
        '<a href="https://example.org/">elsewhere</a><img src="data:image/png;base64,AA==">'
    )
    (tmp_path / "guides" / "one.html").write_text('<p id="here"><a href="../index.html">A</a></p>')
    return tmp_path


def test_links_that_lead_somewhere_pass(site: Path) -> None:
    problems, external = load("links").check(site)
    assert problems == []
    assert external == ["https://example.org/"]


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        ('<a href="two.html">two</a>', "guides/one.html: two.html leads to no file"),
        (
            '<a href="../index.html#gone">x</a>',
            "guides/one.html: ../index.html#gone leads to no anchor",
        ),
        ('<a href="#gone">x</a>', "guides/one.html: #gone leads to no anchor"),
        ('<a href="/gone.html">x</a>', "guides/one.html: /gone.html leads to no file"),
        ('<img src="gone.png">', "guides/one.html: gone.png leads to no file"),
        (
            '<script src="https://example.org/x.js"></script>',
            "guides/one.html: <script> fetches https://example.org/x.js",
        ),
    ],
)
def test_a_link_to_nothing_and_a_fetch_are_found(site: Path, added: str, complaint: str) -> None:
    page = site / "guides" / "one.html"
    page.write_text(page.read_text() + added)
    problems, _ = load("links").check(site)
    assert problems == [complaint]


def test_every_command_and_every_option_is_described() -> None:
    reference = load("reference")
    described = "\n".join(reference.all_commands())
    from dataclasses import fields

    from agents.config import RunConfig

    for field in fields(RunConfig):
        assert f"`--{field.name.replace('_', '-')}`" in described
    for command in ("train", "tune", "report", "rate", "pretrain"):
        assert f"## textgym {command} " in described
    assert described.count("`--resume` DIR") == described.count("`--config` FILE") == 3


def test_every_name_is_described_with_its_docstring() -> None:
    from textgym import rewards, tasks

    reference = load("reference")
    for names, described in (
        (rewards.names(), "\n".join(reference.all_rewards())),
        (tasks.names(), "\n".join(reference.all_tasks())),
    ):
        for name in names:
            assert f"## {name} {{ #{name} }}" in described


def test_parameters_that_are_explained_together_are_read_one_by_one() -> None:
    import griffe

    source = '''def f(a, b, c):
    """Do.

    Args:
        a, b: See
            there.
        c: More.

    Example:
        >>> f(1, 2, 3)
    """
'''
    extensions = griffe.load_extensions(load("docstrings").AsWritten())
    with griffe.temporary_visited_package(
        "example",
        {"__init__.py": source},
        extensions=extensions,
        docstring_parser="google",
    ) as package:
        sections = package["f"].docstring.parsed
    read = {part.kind.value: part.value for part in sections}
    described = {p.name: p.description for p in read["parameters"]}
    assert described == {"a": "See\nthere.", "b": "See\nthere.", "c": "More."}
    assert "examples" in read
