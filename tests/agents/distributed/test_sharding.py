"""A policy in parts on two processes takes the steps of a whole one, and becomes one again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import agents.recurrent  # noqa: F401  # so that transformers knows it

POLICIES = ["tied", "adapters", "checkpointing", "scaled head", "recurrent"]
PROCESSES = 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where the program wrote what it found."""
    path = tmp_path_factory.mktemp("sharded")
    program = Path(__file__).with_name("sharded_steps.py")
    subprocess.run(
        [sys.executable, program, path],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return path


@pytest.fixture(scope="module", params=POLICIES)
def name(request):
    return request.param


@pytest.fixture
def found(directory, name):
    """What each process found of a policy."""
    return [json.loads((directory / f"{i}.json").read_text())[name] for i in range(PROCESSES)]


def test_steps_are_those_of_one_process(found):
    for each in found:
        assert each["moved"] > 1e-2
        assert each["distance"] < 1e-5
        assert max(each["states"]) < 1e-5


def test_the_norm_is_that_of_the_whole_gradient(found):
    for each in found:
        for alone, together in each["norms"]:
            assert together == pytest.approx(alone, rel=1e-5)
            assert alone > 0.5  # it was made smaller


def test_each_process_holds_its_part(found):
    whole = found[0]["whole_bytes"]
    assert sum(each["held_bytes"] for each in found) == whole
    for each in found:
        assert each["held_bytes"] == pytest.approx(whole / PROCESSES, rel=0.02)
        assert each["gathered_bytes"] == whole
        assert each["held_bytes_again"] == each["held_bytes"]


def test_each_process_writes_as_many_tokens_as_it_likes(found):
    assert len(found[0]["written"]) != len(found[1]["written"])
    for each in found:
        assert each["written"] == each["written_alone"]


def test_the_reference_stays_what_it_was(found):
    for each in found:
        assert each["reference"] < 1e-5


def test_what_was_saved_goes_on_alone_and_in_parts(found):
    assert found[0]["resumed_alone"] < 1e-5
    for each in found:
        assert each["resumed"] < 1e-5


def test_a_policy_that_has_learned_already_goes_on_in_parts(found):
    for each in found:
        assert each["late"] < 1e-5


def test_transformers_reads_the_model_that_was_saved(found, directory, name):
    assert found[0]["copy"] < 1e-5
    model = AutoModelForCausalLM.from_pretrained(directory / name)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3]])).logits[0, -1]
    torch.testing.assert_close(logits, torch.tensor(found[0]["logits"]), atol=1e-4, rtol=1e-4)
