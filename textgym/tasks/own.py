"""Tasks of one's own: a function, a class or a list of prompts in a module of the user."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from textgym.registry import call, import_object
from textgym.tasks.base import SPLITS, Example, Interaction, Stream, Task
from textgym.tasks.columns import Columns
from textgym.tasks.default_reward import default_reward
from textgym.tasks.splitting import hold_out

if TYPE_CHECKING:
    from textgym.completion import Sample

_HELD_OUT = {"validation": 0.1, "test": 0.1}

_EXPECTED = """\
Expected a Task; or prompts (strings), Examples or rows {"prompt": ..., "reference": ...}, in a \
list or from a generator; or a mapping of the splits "train", "validation" and "test" to such \
lists; or an object with examples, a list of these or a method that returns it."""

_SAID = ("name", "reward", "success", "stop", "templates")


def make_own(path: str, params: Mapping[str, Any]) -> Task:
    r'''The task that `"package.module:name"` names.

    What stands there may be

    * a function or a class, which is called with the parameters;
    * a `Task`, a list of prompts, or anything else that such a function may return.

    A function returns, or yields, what `as_task` takes. In `my_tasks.py`:

        def riddles(level=1):
            """Riddles, and what they are about."""
            yield "What has hands and cannot clap?"
            yield {"prompt": "What has keys and opens no lock?", "reference": "A piano"}

    and then

        textgym train --task my_tasks:riddles
        gym.make("TextGen-v0", task={"name": "my_tasks:riddles", "level": 2})

    A class can say more about its task: what is paid, what counts as solved, and what is said
    between the turns of the model.

        class Riddles:
            """Riddles whose answer is one word."""

            stop = ("\n",)

            def __init__(self, level=1):
                self.level = level

            def examples(self):
                return [("What has hands and cannot clap?", "clock"), ...]

            def reward(self, text, reference):
                return float(reference in text.lower())

            def success(self, sample):
                return sample.text.strip().lower() == sample.reference

    Args:
        path: The place. Modules are looked for beside the script, in the working directory for the
            commands of `textgym`, and among installed packages.
        params: Parameters of the function or class.

    Raises:
        ValueError: If it cannot be imported.
        TypeError: If a parameter is unknown or missing, or what is there is no task.
    '''
    made = import_object(path, "task")
    if callable(made):
        made = call(f"task {path!r}", made, params)
    elif params:
        raise TypeError(
            f"task {path!r} is no function or class and takes no parameters, got "
            f"{', '.join(params)}."
        )
    return as_task(made, path)


def as_task(made: Any, name: str) -> Task:
    """What a user's function returned, as a task.

    Args:
        made: One of

            * a `Task`;
            * examples: prompts (strings), pairs of a prompt and its reference, rows
              `{"prompt": ..., "reference": ..., **columns}` as in a .jsonl file, whose prompt is a
              string or a list of messages, or `Example`s;
            * a mapping of `"train"`, `"validation"` and `"test"` to examples or to a `Stream`;
            * a `Stream`, which all three splits then draw from;
            * an object with `examples`, any of the last three or a method that returns it. If it
              has them, its `name`, `reward`, `success`, `stop` and `templates` are the task's;
              they mean what they mean in `Task`, and `reward` and `success` may be methods. If it
              has a method `reply(example, turns)`, it is the `Interaction` of a task with several
              turns, and needs `max_turns` and `longest_reply` too. What is None counts as absent.

            Without a reward it is "edit_distance" if every prompt has a reference, and otherwise,
            or for a `Stream`, "sentiment". Without splits a tenth of the prompts is held out for
            validation and another for tests, by content.
        name: Names the task, if it has no name of its own.

    Raises:
        TypeError: If it is none of these, or a stream cannot be copied.
        ValueError: If there is no example, or one is no text.
    """
    task = made if isinstance(made, Task) else _task(made, name)
    streams = {id(e): e for e in task.splits.values() if isinstance(e, Stream)}
    for stream in streams.values():
        _check_copies(stream, name)
    return task


@dataclass(frozen=True)
class Success:
    """A user's test of whether a text solves its example, which says where it fails.

    Attributes:
        test: The test.
        name: The task, for error messages.
    """

    test: Callable[[Sample], Any]
    name: str

    def __call__(self, sample: Sample) -> bool:
        """What the test says.

        Raises:
            RuntimeError: If it raised; the message has prompt and text.
        """
        try:
            return bool(self.test(sample))
        except Exception as error:
            raise RuntimeError(
                f"success of task {self.name!r} raised {type(error).__name__}: {error}\n"
                f"  prompt: {sample.prompt!r}\n  text:   {sample.text!r}"
            ) from error


def _task(made: Any, name: str) -> Task:
    if not hasattr(made, "examples"):
        splits = _splits(made, name)
        return Task(name, splits, default_reward(splits))
    said = {key: getattr(made, key) for key in _SAID if getattr(made, key, None) is not None}
    if "success" in said:
        if not callable(said["success"]):
            raise TypeError(
                f"task {name!r}: success is a function of a sample, or a method, got "
                f"{_shown(said['success'])}."
            )
        said["success"] = Success(said["success"], name)
    splits = _splits(made.examples() if callable(made.examples) else made.examples, name)
    return Task(
        **{"name": name, "reward": default_reward(splits), **said},
        splits=splits,
        interaction=_interaction(made, name),
    )


def _splits(made: Any, name: str) -> dict[str, Any]:
    if isinstance(made, Stream):
        return dict.fromkeys(SPLITS, made)
    if isinstance(made, Mapping):
        if not made.keys() <= set(SPLITS):
            raise TypeError(f"task {name!r} gave {_shown(made)}. {_EXPECTED}")
        return {
            split: examples if isinstance(examples, Stream) else _examples(examples, name, split)
            for split, examples in made.items()
        }
    return dict(hold_out(_examples(made, name), _HELD_OUT, seed=0))


def _examples(made: Any, name: str, split: str = "") -> list[Example]:
    if not isinstance(made, Iterable) or isinstance(made, (str, bytes, Mapping)):
        where = f", split {split!r}" if split else ""
        raise TypeError(f"task {name!r}{where} gave {_shown(made)}. {_EXPECTED}")
    return [_example(row, name, index) for index, row in enumerate(made)]


def _example(row: Any, name: str, index: int) -> Example:
    where = f"task {name!r}, example {index}"
    if isinstance(row, Example):
        return row
    if isinstance(row, tuple) and len(row) == 2:
        row = dict(zip(("prompt", "reference"), row, strict=True))
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, Mapping) or not row.keys() & {"prompt", "messages"}:
        raise TypeError(
            f"{where}: expected a prompt, a pair of a prompt and its reference, a row "
            f'{{"prompt": ..., "reference": ...}} or an Example, got {_shown(row)}.'
        )
    return Columns().example(where, row)


def _interaction(made: Any, name: str) -> Interaction | None:
    if getattr(made, "reply", None) is None:
        return None
    missing = [key for key in ("max_turns", "longest_reply") if not hasattr(made, key)]
    if missing:
        raise TypeError(
            f"task {name!r} has a method reply and so several turns; it needs "
            f"{' and '.join(missing)} too: how many turns of the model there are at most, and a "
            "reply as long as any."
        )
    turns, longest = made.max_turns, made.longest_reply
    if not isinstance(turns, int) or isinstance(turns, bool) or turns < 1:
        raise TypeError(
            f"task {name!r}: max_turns is a whole number of at least 1, got {_shown(turns)}."
        )
    if not isinstance(longest, str):
        raise TypeError(
            f"task {name!r}: longest_reply is a string, a reply as long as any, got "
            f"{_shown(longest)}."
        )
    return cast(Interaction, made)


def _check_copies(stream: Stream, name: str) -> None:
    try:
        copy.deepcopy(stream)
    except TypeError as error:
        raise TypeError(
            f"task {name!r}: its stream, a {type(stream).__name__}, cannot be copied, and every "
            f"environment draws from a copy of its own: {error}. Make generators and open files "
            "in the first call of draw, not before; see textgym.tasks.Stream."
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:80] + '...'} ({type(value).__name__})"
