"""Imports go one way: cli -> everything in agents -> textgym; never rewards -> environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"torch", "transformers", "stable_baselines3", "sb3_contrib", "accelerate", "peft"}


def _modules() -> dict[str, Path]:
    """Every module of ours, by its dotted name."""
    paths = [path for package in ("textgym", "agents") for path in (ROOT / package).rglob("*.py")]
    return {_dotted_name(path): path for path in sorted(paths)}


def _dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = _modules()
TEXTGYM = [name for name in MODULES if name.partition(".")[0] == "textgym"]
AGENTS = [name for name in MODULES if name.partition(".")[0] == "agents"]


def _imports(name: str, tree: ast.AST | None = None) -> set[str]:
    """All that a module imports, wherever in it: modules, and what is taken from them."""
    tree = tree or ast.parse(MODULES[name].read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import in line {node.lineno}"
            imported.add(str(node.module))
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    return imported


def _imports_when_loaded(name: str) -> set[str]:
    """Our modules that must be there before this one can be loaded."""
    body = ast.parse(MODULES[name].read_text(encoding="utf-8")).body
    statements = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    imported = _imports(name, ast.Module(statements, type_ignores=[]))
    # `from package import name` needs the module that `name` is, if it is one.
    return {other for other in imported if other in MODULES} - {name}


def _of(names: set[str], *prefixes: str) -> list[str]:
    """Those that are one of these modules, or inside of one."""
    return sorted(n for n in names if any(f"{n}.".startswith(f"{p}.") for p in prefixes))


@pytest.mark.parametrize("name", TEXTGYM)
def test_textgym_imports_neither_agents_nor_what_they_train_with(name: str) -> None:
    assert not _of(_imports(name), "agents", *TRAINING)


@pytest.mark.parametrize("name", [name for name in TEXTGYM if ".rewards" in name])
def test_rewards_know_no_environment(name: str) -> None:
    environment = ("textgym.env", "textgym.vector_env", "textgym.process", "gymnasium")
    assert not _of(_imports(name), *environment)


@pytest.mark.parametrize("name", [name for name in TEXTGYM if ".tasks" in name])
def test_tasks_know_no_reward_and_no_environment(name: str) -> None:
    environment = ("textgym.env", "textgym.vector_env", "textgym.process", "textgym.prompts")
    assert not _of(_imports(name), "textgym.rewards", "gymnasium", *environment)


def test_dynamics_import_nothing_of_ours() -> None:
    assert not _of(_imports("textgym.dynamics"), "textgym", "gymnasium")


@pytest.mark.parametrize("name", [n for n in AGENTS if n in ("agents.returns", "agents.losses")])
def test_formulas_import_nothing_of_ours(name: str) -> None:
    assert not _of(_imports(name), "textgym", "agents", "stable_baselines3", "transformers")


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "agents.__main__"])
def test_nothing_imports_the_command_line(name: str) -> None:
    assert not _of(_imports(name), "agents.cli")


def test_no_module_needs_itself_to_be_loaded() -> None:
    graph = {name: _imports_when_loaded(name) for name in MODULES}
    assert list(TopologicalSorter(graph).static_order())  # raises a CycleError that names them


def _loaded_after(code: str) -> Iterator[str]:
    """The modules that are loaded once a fresh interpreter has run some code."""
    code = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return (line.strip() for line in done.stdout.splitlines())


def test_importing_textgym_loads_next_to_nothing() -> None:
    ours = "import textgym"
    added = set(_loaded_after(ours)) - set(_loaded_after("import gymnasium"))
    assert added == {"textgym"}


def test_an_environment_runs_without_what_agents_need(byte_tokenizer_dir: str) -> None:
    code = f"""
import gymnasium as gym, textgym
arguments = dict(tokenizer={byte_tokenizer_dir!r}, reward=["sentiment", "edit_distance"],
                 task="target_token", stop=["."])
env = gym.make("TextGen-v0", **arguments)
env.reset()
env.step(5)
envs = gym.make_vec("TextGen-v0", num_envs=2, **arguments)
envs.reset()
envs.step(envs.action_space.sample())
"""
    loaded = set(_loaded_after(code))
    assert "textgym.vector_env" in loaded
    assert not _of(loaded, "agents", "huggingface_hub", "rich", "PIL", *TRAINING)
