r"""What stands around a prompt: `"Question: {prompt}\nAnswer:"`, filled in for every example."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from numbers import Number
from os import PathLike
from pathlib import Path

from textgym.messages import plain_text
from textgym.registry import did_you_mean
from textgym.tasks.base import Example
from textgym.tasks.rows import read_rows

_BRACES = "Write {{ and }} for braces that belong to the text."


@dataclass(frozen=True)
class Template:
    r"""A text in which `{prompt}` stands for the prompt, and `{name}` for a column of the example.

    `{{` and `}}` stand for braces. Nothing else that `str.format` knows is allowed: templates come
    from files, and `{prompt.__class__}` would reach into objects. In a conversation the prompt is
    what the user says last.

    Args:
        text: The template, such as `"Question: {prompt}\nAnswer:"`.

    Attributes:
        columns: The columns that it uses, in the order of their first use.

    Raises:
        TypeError: If the text is not a string.
        ValueError: If it is no such template, has no `{prompt}`, or uses `{reference}`.
    """

    text: str
    columns: tuple[str, ...] = field(init=False, repr=False, compare=False)
    # Literal text and the field that follows it, by turns; an empty field is none.
    _pieces: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(
                f"expected a template as a string, got {self.text!r} ({type(self.text).__name__})."
            )
        pieces = _parse(self.text)
        fields = dict.fromkeys(name for _, name in pieces if name)
        if "prompt" not in fields:
            raise ValueError(
                f"template {self.text!r} has no {{prompt}}. Write {{prompt}} where the prompt is "
                "to stand."
            )
        if "reference" in fields:
            raise ValueError(
                f"template {self.text!r} uses {{reference}}, which would give the model the "
                "answer. Take it out."
            )
        object.__setattr__(self, "columns", tuple(name for name in fields if name != "prompt"))
        object.__setattr__(self, "_pieces", pieces)

    def fill(self, example: Example) -> str:
        """The template with the example's prompt and columns in their places.

        Raises:
            ValueError: If the example lacks a column, or it holds neither text nor a number.
        """
        values = {name: self._column(name, example) for name in self.columns}
        values["prompt"] = example.messages[-1].content
        return "".join(text + (values[name] if name else "") for text, name in self._pieces)

    def apply(self, example: Example) -> Example:
        """The example with the filled template in the place of what the user said last.

        What stands around that in the plain text of the prompt stays.

        Raises:
            ValueError: As `fill`.
        """
        said, filled = example.messages[-1], self.fill(example)
        messages = (*example.messages[:-1], said._replace(content=filled))
        prompt = plain_text(messages)
        if said.content and said.content in example.prompt:
            before, _, after = example.prompt.rpartition(said.content)
            prompt = before + filled + after
        return Example(prompt, example.reference, example.columns, messages)

    def _column(self, name: str, example: Example) -> str:
        if name not in example.columns:
            raise ValueError(
                f"template {self.text!r} uses the column {name!r}, which the example "
                f"{example.prompt[:60]!r} lacks; {did_you_mean(name, example.columns)}."
            )
        value = example.columns[name]
        if not isinstance(value, (str, Number)):
            raise ValueError(
                f"template {self.text!r} uses the column {name!r}, which holds {value!r} "
                f"({type(value).__name__}) in the example {example.prompt[:60]!r}. A template "
                "takes text and numbers."
            )
        return str(value)


def read_templates(path: str | PathLike[str]) -> tuple[Template, ...]:
    r"""Read templates from a file.

    - `.txt`: one template a line. The two characters `\n` stand for a line break, as a line cannot
      hold one; a template that needs these characters themselves goes into a .jsonl file.
    - `.jsonl`: one object a line, with the template under `"template"`. Other keys are not read.

    Returns:
        The templates in the order of the file, at least one, all different.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ValueError: If the file is of another kind or holds no template, or a line is no template
            or repeats one (the message names the line).
    """
    path = Path(path)
    places: dict[Template, str] = {}
    for where, row in read_rows(path, "template", (".jsonl", ".txt"), "template"):
        if "template" not in row:
            raise ValueError(f"{where}: no key 'template'; {did_you_mean('template', row)}.")
        text = row["template"]
        if path.suffix.lower() == ".txt":
            text = text.replace(r"\n", "\n")
        try:
            template = Template(text)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
        if template in places:
            raise ValueError(
                f"{where}: the same template as in {places[template]}. Remove one of them."
            )
        places[template] = where
    return tuple(places)


def _parse(text: str) -> tuple[tuple[str, str], ...]:
    """Literal text and the name of the field that follows it, by turns."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"template {text!r}: {error}. {_BRACES}") from error
    for _, name, spec, conversion in parsed:
        if name is None:
            continue
        if not name or spec or conversion or any(character in name for character in ".[]"):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(
                f"template {text!r}: {{{shown}}} is not the plain name of a column. Only names "
                f"like {{prompt}} are filled in, without '.', '[', '!' or ':'. {_BRACES}"
            )
    return tuple((literal, name or "") for literal, name, _, _ in parsed)
