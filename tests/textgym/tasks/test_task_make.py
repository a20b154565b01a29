"""From a spec to a task."""

import json

import pytest

from textgym import tasks
from textgym.tasks import Task
from textgym.tasks.make import _REGISTRY, make


def parrot(word: str, times: int = 1) -> Task:
    """Say a word again."""
    return Task(f"parrot:{word}", {"train": (tasks.Example(word * times),)})


def count(limit: int) -> Task:
    """Count."""
    return Task("count", {"train": tuple(tasks.Example(str(i)) for i in range(limit))})


def count_later(limit: "int") -> Task:
    """Count, as a module does that evaluates annotations later."""
    return count(limit)


def imported_later(word: "NotImportedHere") -> Task:  # noqa: F821
    """Say a word, whose annotation cannot be evaluated here."""
    return parrot(word)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(_REGISTRY, "_factories", dict(_REGISTRY._factories))
    tasks.register("parrot", parrot)
    tasks.register("count", count)
    tasks.register("count_later", count_later)
    tasks.register("imported_later", imported_later)


def test_what_stands_behind_the_colon_is_the_first_parameter(registered, tmp_path):
    assert make("parrot:hi").examples[0].prompt == "hi"
    assert make({"name": "parrot:hi", "times": 2}).examples[0].prompt == "hihi"
    assert make("parrot:a:b").examples[0].prompt == "a:b"
    path = tmp_path / "prompts.txt"
    path.write_text("One\n")
    assert make(f"file:{path}").examples[0].prompt == "One"


def test_a_whole_number_behind_the_colon_is_one_where_it_is_asked_for(registered):
    assert len(make("count:3").examples) == len(make("count_later:3").examples) == 3
    assert make("game:6").interaction.max_turns == 6
    assert make("parrot:6").examples[0].prompt == "6"
    assert make("imported_later:6").examples[0].prompt == "6"
    for name in ("count", "count_later"):
        with pytest.raises(ValueError, match=f"task '{name}:many': limit is a whole .* 'many'"):
            make(f"{name}:many")
    with pytest.raises(ValueError, match="task 'game:': max_turns is a whole number, got ''"):
        make("game:")


def test_a_registered_name_goes_before_a_module(monkeypatch, tmp_path):
    (tmp_path / "parrot.py").write_text("def count(): return ['from the module']\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert make("parrot:count").examples[0].prompt == "from the module"
    monkeypatch.setattr(_REGISTRY, "_factories", {**_REGISTRY._factories, "parrot": parrot})
    assert make("parrot:count").examples[0].prompt == "count"


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
