"""Tasks that users write: functions, classes and lists in modules of their own."""

import pickle
import sys

import gymnasium as gym
import pytest

import textgym  # noqa: F401  # registers the environments
from textgym import rewards, tasks
from textgym.completion import Sample
from textgym.tasks import Example, Task, make

SOURCE = r'''
"""Tasks for a test."""

from textgym.tasks import Example, Task

PROMPTS = ["One", "Two"]
TASK = Task("ready", {"train": [Example("p")]})
NUMBER = 3


def pets(kind="cat"):
    """Pets."""
    return [f"A {kind}", ("A dog", "barks"), Example("A cow", "moos")]


def rows():
    yield {"prompt": "2 + 2 =", "reference": "4", "level": 1}
    yield {"prompt": [{"role": "system", "content": "Be brief."},
                      {"role": "user", "content": "Hello"}]}


def many():
    return [f"prompt {i}" for i in range(40)]


def riddle_list():
    return [("What has hands and cannot clap?", "clock"), ("What has a neck?", "bottle")]


def split():
    return {"train": ["a"], "test": iter(["b"])}


def wrong(what):
    return {"none": None, "text": "a prompt", "number": 3, "row": [{"question": "?"}],
            "item": ["fine", 4], "mapping": {"prompt": "p"}, "split": {"train": "abc"},
            "surrogate": ["\ud83d"]}[what]


def fails():
    raise TypeError("my own")


class Endless:
    def draw(self, generator):
        return Example(str(generator.integers(10)))


class Riddles:
    """Riddles."""

    name = "riddles"
    stop = ["\n"]
    templates = ["Riddle: {prompt}\nAnswer:"]

    def __init__(self, level=1):
        self.level = level

    def examples(self):
        return {"train": [("What has hands and cannot clap?", "clock")] * self.level}

    def reward(self, text, reference):
        return float(reference in text.lower())

    def success(self, sample):
        return sample.text.strip().lower() == sample.reference


class Guess:
    """Guess a number."""

    max_turns = 5
    longest_reply = "higher"
    reward = {"name": "exact_match", "ignore_case": True}

    def examples(self):
        return [("Guess my number.", str(n)) for n in range(20)]

    def reply(self, example, turns):
        return None if turns[-1] == example.reference else "wrong"


class Plain:
    """A class whose attributes say all, some of them nothing."""

    examples = [("a", "b"), ("c", "d")]
    name = reward = success = stop = templates = reply = None


class Streamed:
    """A class with a stream."""

    examples = Endless()


class Taut(Guess):
    def __init__(self, **changed):
        vars(self).update(changed)


class Failing(Plain):
    reward = "length"

    def success(self, sample):
        return sample.columns["level"] > 1


class Generator(Endless):
    def __init__(self):
        self.coming = (Example(str(i)) for i in range(3))


def with_generator(how):
    return {"stream": Generator(), "split": {"train": Generator()},
            "task": Task("t", {"train": Generator()})}[how]


class Later(Endless):
    """Makes its generator at the first draw."""

    coming = None

    def draw(self, generator):
        if self.coming is None:
            self.coming = (Example(str(i)) for i in range(3))
        return next(self.coming)


class Halfway(Guess):
    max_turns = property()

    class Inner:
        @staticmethod
        def one():
            return ["one"]
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(SOURCE)
    (tmp_path / "my_broken.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_tasks", "my_broken"):
        sys.modules.pop(name, None)


def pairs(task):
    return [(e.prompt, e.reference) for e in task.examples]


def test_a_function_returns_prompts_pairs_and_examples():
    task = make({"name": "my_tasks:pets", "kind": "horse"})
    assert sorted(pairs(task), key=str) == [
        ("A cow", "moos"),
        ("A dog", "barks"),
        ("A horse", None),
    ]
    assert task.name == "my_tasks:pets"
    assert task.success is None
    assert task.reward == Task("t", {"train": [Example("p")]}).reward


def test_a_function_yields_rows():
    rows = {e.columns.get("level"): e for e in make("my_tasks:rows").examples}
    assert (rows[1].prompt, rows[1].reference, rows[1].columns) == ("2 + 2 =", "4", {"level": 1})
    assert [m.role for m in rows[None].messages] == ["system", "user"]


def test_a_tenth_is_held_out_unless_there_are_splits():
    task = make("my_tasks:many")
    assert {split: len(task.split(split)) for split in task.splits} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    given = make("my_tasks:split")
    assert {split: [e.prompt for e in given.split(split)] for split in given.splits} == {
        "train": ["a"],
        "test": ["b"],
    }


def test_a_list_or_a_task_of_a_module():
    assert [e.prompt for e in make("my_tasks:PROMPTS").examples] == ["One", "Two"]
    assert make("my_tasks:TASK").name == "ready"
    assert [e.prompt for e in make("my_tasks:Halfway.Inner.one").examples] == ["one"]
    with pytest.raises(TypeError, match="no function or class and takes no parameters, got level"):
        make({"name": "my_tasks:PROMPTS", "level": 3})


def test_a_stream_serves_all_splits():
    task = make("my_tasks:Endless")
    assert task.split("train") is task.split("test")
    import my_tasks

    assert isinstance(task.split("train"), my_tasks.Endless)


def test_a_class_says_what_is_paid_and_what_is_solved():
    task = pickle.loads(pickle.dumps(make({"name": "my_tasks:Riddles", "level": 2})))
    assert task.name == "riddles"
    assert len(task.split("train")) == 2
    assert task.stop == ("\n",)
    assert task.templates == ("Riddle: {prompt}\nAnswer:",)
    example = task.examples[0]

    def sample(text):
        return Sample(example.prompt, text, example.reference, [], example.columns)

    assert task.success(sample(" Clock\n"))
    assert not task.success(sample("A clock"))
    made = rewards.make(task.reward, timing="delayed")
    assert list(made.rewards) == ["Riddles.reward"]
    assert task.reward("a clock", "clock") == 1.0
    assert task.interaction is None


def test_a_class_that_replies_is_a_task_of_several_turns():
    task = pickle.loads(pickle.dumps(make("my_tasks:Guess")))
    assert task.interaction.max_turns == 5
    assert task.interaction.longest_reply == "higher"
    assert task.interaction.reply(Example("p", "7"), ["7"]) is None
    assert task.reward == {"name": "exact_match", "ignore_case": True}
    assert len(task.examples) == 20
    with pytest.raises(TypeError, match=r"has a method reply .* needs max_turns too"):
        make("my_tasks:Halfway")


def test_what_is_none_counts_as_absent_and_examples_may_be_an_attribute():
    task = make("my_tasks:Plain")
    assert pairs(task) == [("a", "b"), ("c", "d")]
    assert (task.name, task.reward) == ("my_tasks:Plain", "edit_distance")
    assert (task.success, task.stop, task.templates, task.interaction) == (None, (), (), None)
    assert make("my_tasks:Streamed").reward == "sentiment"
    assert len(set(map(id, make("my_tasks:Streamed").splits.values()))) == 1


def test_without_a_reward_references_are_looked_at_if_all_have_one():
    assert make("my_tasks:many").reward == make("my_tasks:Endless").reward == "sentiment"
    assert make("my_tasks:rows").reward == make("my_tasks:pets").reward == "sentiment"
    assert make("my_tasks:riddle_list").reward == "edit_distance"


def test_an_error_in_success_says_where():
    task = pickle.loads(pickle.dumps(make("my_tasks:Failing")))
    message = (
        r"success of task 'my_tasks:Failing' raised KeyError: 'level'\n"
        r"  prompt: 'a'\n  text:   'written'"
    )
    with pytest.raises(RuntimeError, match=message) as raised:
        task.success(Sample("a", "written", "b", [], {}))
    assert isinstance(raised.value.__cause__, KeyError)
    assert task.success(Sample("a", "written", "b", [], {"level": 2})) is True
    assert hash(task) == hash(make("my_tasks:Failing"))


@pytest.mark.parametrize("how", ["stream", "split", "task"])
def test_a_stream_that_cannot_be_copied_is_refused(how):
    message = (
        "its stream, a Generator, cannot be copied, .*cannot pickle 'generator' object. "
        "Make generators .* first call of draw"
    )
    with pytest.raises(TypeError, match=message):
        make({"name": "my_tasks:with_generator", "how": how})


def test_a_stream_that_makes_its_generator_later_serves_environments(byte_tokenizer):
    envs = [
        gym.make(
            "TextGen-v0",
            task=make("my_tasks:Later"),
            tokenizer=byte_tokenizer,
            context_length=40,
        )
        for _ in range(2)
    ]
    for env in envs:
        assert [env.reset(seed=s)[1]["prompt"] for s in (0, None, 3)] == ["0", "1", "0"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_turns": "2"}, r"max_turns is a whole number of at least 1, got '2' \(str\)"),
        ({"max_turns": 0}, "max_turns is a whole number of at least 1, got 0"),
        ({"max_turns": True}, "max_turns is a whole number of at least 1, got True"),
        ({"longest_reply": 9}, r"longest_reply is a string, .*got 9 \(int\)"),
        ({"success": True}, r"success is a function of a sample, .*got True \(bool\)"),
    ],
)
def test_what_a_class_says_must_be_of_its_kind(changed, message):
    with pytest.raises(TypeError, match=f"task 'my_tasks:Taut': {message}"):
        make({"name": "my_tasks:Taut", **changed})


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("none", TypeError, r"task 'my_tasks:wrong' gave None \(NoneType\). Expected a Task; or"),
        ("text", TypeError, r"gave 'a prompt' \(str\)"),
        ("number", TypeError, r"gave 3 \(int\)"),
        ("row", TypeError, r"example 0: expected a prompt, .* got {'question'"),
        ("item", TypeError, r"example 1: expected a prompt, .* got 4 \(int\)"),
        ("mapping", TypeError, r"gave {'prompt': 'p'} \(dict\). .* 'train|\"train\""),
        ("split", TypeError, r"split 'train' gave 'abc' \(str\)"),
        ("surrogate", ValueError, "example 0: .* half a surrogate pair"),
    ],
)
def test_what_is_no_task_is_refused(what, error, message):
    with pytest.raises(error, match=message):
        make({"name": "my_tasks:wrong", "what": what})


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("my_task:pets", ValueError, "there is no module 'my_task' among .* working directory, /"),
        ("my_tasks:pet", ValueError, r"has no 'pet'; did you mean 'pets'\? There are: .*'Riddles'"),
        ("my_tasks:NUMBER", TypeError, r"gave 3 \(int\)"),
        ("my_tasks:", ValueError, "expected 'package.module:name'"),
        ("my tasks:pets", ValueError, "expected 'package.module:name'"),
        ({"name": "my_tasks:pets", "knd": "x"}, TypeError, "'knd'. Given: knd. Accepted: kind='c"),
        ("my_tasks:fails", TypeError, "^my own$"),
        ("my_broken:f", ModuleNotFoundError, "No module named 'no_such_package'"),
        ("my_tasks.deep:f", ValueError, "there is no module 'my_tasks.deep'"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(spec, error, message):
    with pytest.raises(error, match=message):
        tasks.make(spec)
