"""Processes that learn together take the step of one process that has all their rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("same_step.py")
VARIANTS = (
    "ppo",
    "ppo, all at once",
    "ppo, stopped",
    "ppo, adapters",
    "ppo, imitating",
    "ppo, sharded",
    "ppo, sharded adapters",
    "ppo, sharded, imitating",
    "a2c",
    "reinforce",
    "grpo",
    "rloo",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program found out, by number of processes, process and variant."""
    directory = tmp_path_factory.mktemp("same_step")
    ran = subprocess.run(
        [sys.executable, PROGRAM, directory], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr
    files = [directory / f"{count}-{process}.json" for count in (2, 4) for process in range(count)]
    return {file.stem: json.loads(file.read_text()) for file in files}


@pytest.mark.parametrize("variant", VARIANTS)
def test_processes_take_the_step_of_one(found, variant):
    for process, results in found.items():
        result = results[variant]
        assert result["same_start"], process
        assert result["moved"] > 0.1
        assert result["difference"] < 1e-5 * result["moved"], process


@pytest.mark.parametrize("variant", VARIANTS)
def test_figures_are_those_of_all(found, variant):
    for process, results in found.items():
        for name, (expected, got) in results[variant]["logged"].items():
            assert got == pytest.approx(expected, rel=1e-5, abs=1e-5), (process, name)


def test_rows_were_uneven(found):
    """Where texts end by themselves, processes have different numbers of tokens."""
    assert len({found[f"4-{process}"]["reinforce"]["tokens"] for process in range(4)}) > 1
