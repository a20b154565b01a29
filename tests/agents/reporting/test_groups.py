"""Runs that repeat one another are taken together."""

from pathlib import Path

from agents.reporting.groups import differing, group
from agents.reporting.run import Run


def run(name, **settings):
    return Run(Path(name), name, settings, "")


def test_seeds_are_one_group():
    [only] = group([run("a", seed=0, lr=1), run("b", seed=1, lr=1)])
    assert [each.name for each in only.runs] == ["a", "b"]
    assert only.name == "a, b"


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
    assert differing([{"seed": 0, "a": None}, {"seed": 1}]) == ["a"]
    assert differing([{"seed": 0, "a": [1]}, {"seed": 1, "a": [1]}]) == []
    assert [each.name for each in group([run("x", a=None), run("y")])] == ["a null", "a unset"]
