"""Tasks whose data are pairs of texts: what is given, and what is to be made of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textgym.tasks.base import Example, Task
from textgym.tasks.columns import Columns
from textgym.tasks.file import FilePath, read_examples, read_splits

if TYPE_CHECKING:
    from textgym.completion import Sample

KINDS = (".csv", ".jsonl", ".tsv")


def rewrite(
    path: FilePath,
    validation: FilePath | None = None,
    test: FilePath | None = None,
    *,
    source_column: str | int = "source",
    target_column: str | int = "target",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Task:
    r"""Rewrite texts as a file of pairs shows it: correct, simplify, change the style.

    A prompt is a source text and its reference the target text, from a .jsonl, .csv or .tsv file
    (see the task `file` for these formats) such as:

        {"source": "He go to school.", "target": "He goes to school."}
        {"source": "gonna be late", "target": "I am going to be late."}

    Other columns go to `Example.columns`. A table without a header is read by giving both columns
    as numbers, from 0: `source_column=0, target_column=1`.

    Template: "Rewrite the text.\nText: {prompt}\nRewritten text:". What kind of rewriting is meant
    the model can only learn from the rewards; say it with a template of your own, for instance
    `templates=["Correct the mistakes.\nText: {prompt}\nCorrected text:"]` of the environment.

    Splits: as in the task `file`. Those without a file are held out of `path` by their sources:
    pairs with the same source stay together.

    Reward: "edit_distance", from 0 to 1 for the target itself. Mind that a text which needs few
    changes scores high when it is copied as it is: what a model has learned is the difference from
    the score of the sources. "error_rate" charges for every wrong character instead.

    Success: the text is the target, where any run of white space is one space. There may be other
    good ways to rewrite a text, so that this is a lower bound.

    Stop: a line break, in plain form, if no target of any split has one.

    Args:
        path: The file to train on.
        validation: The file to choose settings by; held out of `path` if None.
        test: The file to report on; held out of `path` if None.
        source_column: The column of the texts to rewrite.
        target_column: The column of the rewritten texts.
        validation_fraction: Share of the different sources to hold out for validation, from 0 (no
            such split) to below 1. Not used if `validation` is given.
        test_fraction: The same for the test split.
        seed: Chooses which sources are held out.

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        ValueError: If a file is of another kind, holds no pair or half a pair, or is malformed
            (the message names the line), or if the fractions are out of range.
    """
    splits = read_splits(
        path,
        {"validation": validation, "test": test},
        {"validation": validation_fraction, "test": test_fraction},
        seed,
        _reader((source_column, target_column), ("source", "target")),
    )
    template = "Rewrite the text.\nText: {prompt}\nRewritten text:"
    return _task(path, splits, "edit_distance", template, is_reference)


def translate(
    path: FilePath,
    validation: FilePath | None = None,
    test: FilePath | None = None,
    *,
    source_language: str,
    target_language: str,
    source_column: str | int = "source",
    target_column: str | int = "target",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Task:
    r"""Translate texts between two languages, as a file of pairs shows it.

    A prompt is a text in the one language and its reference a translation of it, from a .jsonl,
    .csv or .tsv file (see the task `file` for these formats) such as:

        {"source": "Guten Morgen.", "target": "Good morning."}

    Other columns go to `Example.columns`. Parallel texts are often lines with a tab between the
    languages and no header; such a .tsv or .csv file is read by giving both columns as numbers,
    from 0: `source_column=0, target_column=1`. Exchange the columns, and the languages, to
    translate the other way.

    Template, if the languages are German and English:
    "Translate from German to English.\nGerman: {prompt}\nEnglish:".

    Splits: as in the task `file`. Those without a file are held out of `path` by their sources:
    several translations of one text stay together.

    Reward: "chrf", from 0 to 1, which looks at the characters that text and reference share and
    so suits languages without spaces; it needs sacrebleu (the extra `metrics`), and an
    environment without it says so when it is made. "bleu" looks at words.

    Success: that of the reward. With "chrf" it is a score of 1, which hardly any good translation
    has. There is no threshold below it that means a good translation in every language and for
    every length; compare scores instead.

    Stop: a line break, in plain form, if no translation of any split has one.

    Args:
        path: The file to train on.
        validation: The file to choose settings by; held out of `path` if None.
        test: The file to report on; held out of `path` if None.
        source_language: The language to translate from, as the model should read it: "German".
        target_language: The language to translate to.
        source_column: The column of the texts to translate.
        target_column: The column of the translations.
        validation_fraction: Share of the different sources to hold out for validation, from 0 (no
            such split) to below 1. Not used if `validation` is given.
        test_fraction: The same for the test split.
        seed: Chooses which sources are held out.

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        TypeError: If a language is not a string.
        ValueError: If a file is of another kind, holds no pair or half a pair, or is malformed
            (the message names the line), a language is empty, or the fractions are out of range.
    """
    source, target = _language(source_language), _language(target_language)
    splits = read_splits(
        path,
        {"validation": validation, "test": test},
        {"validation": validation_fraction, "test": test_fraction},
        seed,
        _reader((source_column, target_column), ("source", "target")),
    )
    template = f"Translate from {source} to {target}.\n{source}: {{prompt}}\n{target}:"
    return _task(path, splits, "chrf", template)


def summarise(
    path: FilePath,
    validation: FilePath | None = None,
    test: FilePath | None = None,
    *,
    document_column: str | int = "document",
    summary_column: str | int = "summary",
    max_characters: int | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Task:
    r"""Summarise documents, as a file of documents and their summaries shows it.

    A prompt is a document and its reference a summary, from a .jsonl, .csv or .tsv file (see the
    task `file` for these formats; .jsonl suits long documents best) such as:

        {"document": "The council met on Monday. It ...", "summary": "The council closed a road."}

    Other columns go to `Example.columns`. A table without a header is read by giving both columns
    as numbers, from 0: `document_column=0, summary_column=1`.

    Template: "{prompt}\n\nSummary of the text:". The instruction stands at the end, so that it is
    still there when the environment cuts a prompt that is longer than its context to the end
    (`prompt_truncation="left"`). Of a news article that loses what matters most, the beginning;
    `max_characters` keeps the beginning instead.

    Splits: as in the task `file`. Those without a file are held out of `path` by their documents,
    as far as they are kept: summaries of one document stay together.

    Reward: "rouge", the F-score of ROUGE-L, from 0 to 1; it needs rouge-score (the extra
    `metrics`), and an environment without it says so when it is made. It compares words of ASCII
    letters and digits; for languages with other letters, use "chrf".

    Success: none. Two good summaries of a document rarely share most of their words, so that no
    threshold on ROUGE means a good one.

    Stop: a line break, in plain form, if no summary of any split has one.

    Args:
        path: The file to train on.
        validation: The file to choose settings by; held out of `path` if None.
        test: The file to report on; held out of `path` if None.
        document_column: The column of the documents.
        summary_column: The column of the summaries.
        max_characters: Keep only so many characters from the beginning of a document, without the
            white space around it. None keeps documents whole.
        validation_fraction: Share of the different documents to hold out for validation, from 0
            (no such split) to below 1. Not used if `validation` is given.
        test_fraction: The same for the test split.
        seed: Chooses which documents are held out.

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        ValueError: If a file is of another kind, holds no pair or half a pair, or is malformed
            (the message names the line), or a number is out of range.
    """
    if max_characters is not None and (not isinstance(max_characters, int) or max_characters < 1):
        raise ValueError(
            f"max_characters is a whole number of at least 1, or None to keep documents whole, "
            f"got {max_characters!r}."
        )
    read = _reader((document_column, summary_column), ("document", "summary"))
    splits = read_splits(
        path,
        {"validation": validation, "test": test},
        {"validation": validation_fraction, "test": test_fraction},
        seed,
        lambda each: [_cut(example, max_characters) for example in read(each)],
    )
    return _task(path, splits, "rouge", "{prompt}\n\nSummary of the text:")


def is_reference(sample: Sample) -> bool:
    """Whether a text is its reference, any run of white space being one space."""
    return sample.reference is not None and sample.text.split() == sample.reference.split()


def _reader(
    columns: tuple[str | int, str | int], called: tuple[str, str]
) -> Callable[[Path], list[Example]]:
    """Reads the examples of a file whose columns are given by name, or both by number."""
    numbers = [type(column) is int for column in columns]  # True is none
    if any(numbers) and not all(numbers):
        raise ValueError(
            f"{called[0]}_column={columns[0]!r} and {called[1]}_column={columns[1]!r} are both "
            "names, or both numbers for a table without a header."
        )
    prompt, reference = map(str, columns)
    read_as = Columns(prompt, reference, called, reference_needed=True)
    return partial(read_examples, columns=read_as, kinds=KINDS, header=not any(numbers))


def _task(
    path: FilePath,
    splits: dict[str, tuple[Example, ...]],
    reward: str,
    template: str,
    success: Callable[[Sample], bool] | None = None,
) -> Task:
    references = (example.reference or "" for each in splits.values() for example in each)
    stop = () if any("\n" in reference.strip() for reference in references) else ("\n",)
    return Task(Path(path).name, splits, reward, success, stop, (template,))


def _cut(document: Example, max_characters: int | None) -> Example:
    if max_characters is None:
        return document
    kept = document.prompt.strip()[:max_characters]
    return Example(kept, document.reference, document.columns)


def _language(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a language is a string such as 'German', got {name!r}.")
    if not name.strip():
        raise ValueError("a language is named by a word such as 'German', got an empty string.")
    return name.replace("{", "{{").replace("}", "}}")  # braces mean something in a template
