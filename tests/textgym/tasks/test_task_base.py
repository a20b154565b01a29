import copy
import json
import pickle

import pytest

from textgym import tasks
from textgym.tasks import Example, Task
from textgym.tasks.make import _REGISTRY

TASK = Task(
    "mine",
    {"train": (Example("a", "b", {"level": [1]}), Example("c")), "validation": (), "test": ()},
)


def test_a_split_is_its_examples_and_examples_are_all_of_them():
    task = Task("mine", {"train": (Example("a"),), "test": (Example("b"), Example("c"))})
    assert task.split("test") == (Example("b"), Example("c"))
    assert [example.prompt for example in task.examples] == ["a", "b", "c"]


def test_a_missing_or_empty_split_says_which_there_are_and_what_to_do():
    with pytest.raises(
        ValueError, match="no examples in split 'test'; it has 'train' \\(2\\)"
    ) as e:
        TASK.split("test")
    assert "give the task examples for it" in str(e.value)
    with pytest.raises(ValueError, match="no examples in split 'valid'; it has 'train' \\(2\\)"):
        TASK.split("valid")


def test_a_task_holds_examples_in_known_splits():
    with pytest.raises(ValueError, match="a split 'dev'; expected one of"):
        Task("mine", {"dev": (Example("a"),)})
    with pytest.raises(ValueError, match="no example in any split"):
        Task("mine", {"train": ()})
    with pytest.raises(TypeError, match=r"split 'train', index 1: .* got 'b' \(str\)"):
        Task("mine", {"train": (Example("a"), "b")})


def test_lists_become_tuples_and_later_changes_do_not_reach_the_task():
    columns, examples = {"level": 1}, [Example("a")]
    task = Task("mine", {"train": examples})
    example = Example("a", columns=columns)
    examples.append(Example("b"))
    columns["level"] = 2
    assert task.split("train") == (Example("a"),)
    assert example.columns == {"level": 1}


def test_examples_and_tasks_can_be_pickled_copied_and_hashed():
    assert pickle.loads(pickle.dumps(TASK)) == TASK
    assert copy.deepcopy(TASK) == TASK
    assert len({TASK.split("train")[0], Example("a", "b", {"level": [2]}), Example("c")}) == 3
    assert hash(TASK) == hash(copy.deepcopy(TASK))


def test_a_task_is_hashed_whatever_its_parts_are():
    class Unhashable:
        __hash__ = None
        max_turns, longest_reply = 2, ""

        def __call__(self, sample):
            return True

        def reply(self, example, turns):
            return None

    part = Unhashable()
    task = Task("mine", {"train": [Example("a")]}, success=part, interaction=part)
    assert {task: 1}[task] == 1


def test_a_conversation_ends_with_the_user():
    said = [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}]
    for wrong in (said, said[1:], [{"role": "assistant", "content": "Ho"}]):
        with pytest.raises(ValueError, match="but the user's"):
            Example.chat(wrong)
        with pytest.raises(ValueError, match="but the user's"):
            Example("Hi", messages=wrong)
    assert Example.chat(said[::-1]).messages[-1].role == "user"


def test_an_example_is_unicode_text():
    with pytest.raises(TypeError, match=r"prompt to be a string, got 3 \(int\)"):
        Example(3)
    with pytest.raises(TypeError, match=r"reference to be a string, got \['a'\]"):
        Example("a", ["a"])
    with pytest.raises(ValueError, match="surrogate pair at index 1"):
        Example("a" + json.loads('"\\ud83d"'))


def test_make_takes_a_name_a_mapping_or_a_task():
    assert tasks.make(TASK) is TASK
    assert tasks.make("target_token").name == "target_token"
    spec = {"name": "target_token", "targets": ["x"], "num_prompts": 1}
    assert tasks.make(json.loads(json.dumps(spec))).examples[0].reference == "x"
    assert {"continuation", "file", "target_token"} <= set(tasks.names())
    assert all(tasks.describe().values())


def test_make_refuses_what_it_does_not_know():
    with pytest.raises(
        ValueError, match="no task named 'continuaton'; did you mean 'continuation'"
    ):
        tasks.make("continuaton")
    with pytest.raises(TypeError, match=r"Accepted: targets=.* num_prompts=8"):
        tasks.make({"name": "target_token", "target": "a"})
    with pytest.raises(TypeError, match="expected a task as a name or a mapping"):
        tasks.make(["a", "b"])


def test_a_registered_task_is_made_by_name(monkeypatch):
    monkeypatch.setattr(_REGISTRY, "_factories", dict(_REGISTRY._factories))

    def count(limit: int = 2) -> Task:
        """Numbers to count on from."""
        return Task("count", {"train": tuple(Example(str(i)) for i in range(limit))})

    tasks.register("count", count)
    assert len(tasks.make({"name": "count", "limit": 5}).examples) == 5
    assert tasks.describe()["count"] == "Numbers to count on from."
