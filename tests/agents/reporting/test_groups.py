"""Runs that repeat one another are taken together."""

from dataclasses import fields
from pathlib import Path

import pytest

from agents.config import RunConfig
from agents.reporting.groups import REPEATED, differing, group
from agents.reporting.run import Run


def run(name, **settings):
    return Run(Path(name), name, settings, "")


def test_seeds_are_one_group():
    [only] = group([run("a", seed=0, lr=1), run("b", seed=1, lr=1)])
    assert [each.name for each in only.runs] == ["a", "b"]
    assert only.name == "a, b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint_every", 0.0),
        ("keep_checkpoints", 5),
        ("loggers", ["stdout"]),
        ("quiet", True),
        ("device", "cpu"),
        ("micro_batch_tokens", 512),
        ("gradient_checkpointing", True),
    ],
)
def test_what_no_result_depends_on_makes_no_group(name, value):
    runs = [run("a", lr=1), run("b", lr=1, **{name: value}), run("c", lr=2, **{name: value})]
    assert [each.name for each in group(runs)] == ["lr 1", "lr 2"]
    assert [each.name for each in group(runs)[0].runs] == ["a", "b"]


def test_settings_of_repetitions_are_settings():
    assert {field.name for field in fields(RunConfig)} >= REPEATED


def test_groups_are_called_by_what_tells_them_apart():
    runs = [
        run("a", seed=0, timing="immediate", lr=None),
        run("b", seed=0, timing="delayed", lr=None),
        run("c", seed=1, timing="immediate", lr=None),
    ]
    immediate, delayed = group(runs)
    assert (immediate.name, delayed.name) == ("timing immediate", "timing delayed")
    assert [each.name for each in immediate.runs] == ["a", "c"]


def test_groups_that_differ_in_much_are_called_by_their_runs():
    runs = [run("a", one=1, two=1, three=1), run("b", one=2, two=2, three=2, four=4)]
    assert [each.name for each in group(runs)] == ["a", "b"]


def test_a_setting_that_one_does_not_have_differs_from_none():
    assert differing([{"b": 0, "a": None}, {"b": 0}]) == ["a"]
    assert differing([{"seed": 0, "a": [1]}, {"seed": 1, "a": [1]}]) == ["seed"]
    assert [each.name for each in group([run("x", a=None), run("y")])] == ["a null", "a unset"]
