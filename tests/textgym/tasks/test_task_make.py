"""From a spec to a task."""

import json

import pytest

from textgym import tasks
from textgym.tasks import Task
from textgym.tasks.make import _REGISTRY, make


def parrot(word: str, times: int = 1) -> Task:
    """Say a word again."""
    return Task(f"parrot:{word}", {"train": (tasks.Example(word * times),)})


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(_REGISTRY, "_factories", dict(_REGISTRY._factories))
    tasks.register("parrot", parrot)


def test_what_stands_behind_the_colon_is_the_first_parameter(registered, tmp_path):
    assert make("parrot:hi").examples[0].prompt == "hi"
    assert make({"name": "parrot:hi", "times": 2}).examples[0].prompt == "hihi"
    assert make("parrot:a:b").examples[0].prompt == "a:b"
    path = tmp_path / "prompts.txt"
    path.write_text("One\n")
    assert make(f"file:{path}").examples[0].prompt == "One"


def test_a_spec_is_not_changed_and_survives_json(registered):
    spec = {"name": "parrot:hi", "times": 2}
    make(json.loads(json.dumps(spec)))
    make(spec)
    assert spec == {"name": "parrot:hi", "times": 2}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("parot", ValueError, r"no task named 'parot'; did you mean 'parrot'\?.* 'module:name'"),
        ("my_tasks", ValueError, "no task named 'my_tasks'; .* asked for by 'module:name'"),
        ({"name": "parrot:hi", "word": "x"}, TypeError, "word is given twice, as 'hi' and 'x'"),
        ({"name": "parrot:hi", "tmes": 2}, TypeError, "task 'parrot': .*Accepted: word, times=1"),
        ("parrot", TypeError, "missing a required argument: 'word'"),
        ("continuation:x", TypeError, "'continuation' takes no parameters, got 'continuation:x'"),
        ({"path": "x"}, ValueError, "needs its name under 'name'"),
        (3, TypeError, "expected a task as a name or a mapping"),
    ],
)
def test_a_spec_that_asks_for_nothing_is_refused(registered, spec, error, message):
    with pytest.raises(error, match=message):
        make(spec)


def test_every_task_says_what_it_is():
    for name, summary in tasks.describe().items():
        assert summary.endswith("."), name
