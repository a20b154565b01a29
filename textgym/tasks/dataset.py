"""Prompts from a data set of the library `datasets`: in memory, on disk or streamed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from textgym.extras import require
from textgym.registry import did_you_mean
from textgym.tasks.base import Example, Examples, Task
from textgym.tasks.columns import PROMPT, REFERENCE, Columns
from textgym.tasks.default_reward import default_reward
from textgym.tasks.lazy import LazyExamples, hold_out_rows
from textgym.tasks.splitting import check_fractions
from textgym.tasks.streaming import ExampleStream, StreamedRows

DataFiles: TypeAlias = "str | Sequence[str] | Mapping[str, str | Sequence[str]]"

MOST_IN_MEMORY = 50_000


def dataset(
    path: str,
    config: str | None = None,
    *,
    data_files: DataFiles | None = None,
    prompt_column: str = PROMPT,
    reference_column: str = REFERENCE,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    in_memory: bool | None = None,
    streaming: bool = False,
    buffer_size: int = 1000,
    num_held_out: int = 256,
) -> Task:
    r"""Read prompts or conversations from a Hugging Face data set, on disk or on the Hub.

    `path` is what `datasets` can read, looked for in this order:

    - a directory written by `save_to_disk`;
    - a file: .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt (the column of a .txt is "text");
    - a directory of such files, in which names such as `train.jsonl` and `test.jsonl` make splits;
    - the name of a data set on the Hugging Face Hub, `"owner/name"`, which is fetched once and
      kept in the cache of `datasets` (under `HF_HOME`).

    It needs the package of that name, which the extra `datasets` of this one installs.

    A prompt is a string or a conversation, a list of messages such as

        {"prompt": "Name a colour.", "reference": "Red."}
        {"prompt": [{"role": "user", "content": "Name a colour."}], "reference": "Red."}
        {"messages": [{"role": "user", "content": "Name a colour."},
                      {"role": "assistant", "content": "Red."}]}

    with the roles "system", "user" and "assistant"; the task `file` says how they are read. A data
    set without a column "prompt" that has a column "messages" is read as the third of these, where
    the last message of the assistant is the reference. A reference is a string, or a list of one
    message of the assistant; one that is absent, empty or null is None. Every other column goes to
    `Example.columns` under its name, as TRL passes columns to reward functions.

    Splits: those of the data set called "train", "validation" and "test"; say which they are if
    they are called otherwise: `validation_split="dev"`. Validation and test are held out of the
    training split if the data set has none: their fraction of the different prompts, but at least
    one. Rows with the same prompt stay together, and which are held out depends on `seed` and the
    prompts alone. The data set's own splits are taken as they are, shared prompts included.

    Memory: a data set of at most 50,000 rows is read at once. A larger one stays on disk, and an
    example is made when its turn comes; environments then want to be told a `context_length`, and
    a row that is no example is found only when it is drawn. The held-out prompts are the same in
    either case.

    Streaming: with `streaming=True` nothing is fetched beforehand, for data sets that are too large
    even for the disk. Training draws from a window of the next `buffer_size` rows; the files of a
    data set of several are read in an order of chance, another in each pass. What stands far apart
    in one file is not mixed. Validation and test are the first `num_held_out` rows of these splits,
    or, where there is none, the first of the stream that fall into their fraction; they are read
    when the task is made, and training leaves out all rows of that fraction. Every copy of the task
    begins the stream anew, and so does a training run that is resumed.

    Reward, if you give none: "edit_distance" if every prompt of every split has a reference, from
    0 to 1 for the reference itself; otherwise, and for a data set that is streamed, "sentiment",
    which looks at no reference. Success is up to the reward, and there are neither templates nor
    stop strings.

    Args:
        path: A directory, a file, or the name of a data set on the Hub.
        config: The configuration of a data set that has several ("subset" on the Hub).
        data_files: Which files of `path` to read, as `datasets.load_dataset` takes it; by split if
            it is a mapping.
        prompt_column: The column of the prompts.
        reference_column: The column of the references. It may be absent if it is "reference".
        train_split: The data set's split to train on.
        validation_split: Its split to choose settings by. None: "validation" if there is one, else
            held out of the training split.
        test_split: Its split to report on. None: "test" if there is one, else held out of the
            training split.
        validation_fraction: Share of prompts to hold out for validation, from 0 (no such split) to
            below 1. Not used if the data set has that split.
        test_fraction: The same for the test split.
        seed: Chooses which prompts are held out.
        in_memory: Whether to read all rows at once; None does so up to 50,000.
        streaming: Whether to read training rows only when they are needed, one after the other.
        buffer_size: Rows in the window that a stream is drawn from.
        num_held_out: Most examples of validation, and of test, if the data set is streamed.

    Raises:
        MissingExtra: If `datasets` is not installed.
        FileNotFoundError: If there is no such data set, here or on the Hub, or the Hub cannot be
            reached.
        ValueError: If there is no such split or column, a split is empty, a row is no example (the
            message names its index), or a number is out of range. Errors of `datasets` about files
            that it cannot read pass unchanged.
    """
    _check_numbers(buffer_size=buffer_size, num_held_out=num_held_out)
    if streaming and in_memory is not None:
        raise ValueError(
            f"in_memory={in_memory} says how a data set that is not streamed is kept. Leave it "
            "out, or leave out streaming=True."
        )
    columns = Columns(prompt_column, reference_column)
    loaded = _load(path, config, data_files, streaming)
    asked = {"train": train_split, "validation": validation_split, "test": test_split}
    own = _own_splits(path, asked, loaded)
    fractions = {"validation": validation_fraction, "test": test_fraction}
    fractions = {split: f for split, f in fractions.items() if split not in own}
    check_fractions(fractions)
    fractions = {split: f for split, f in fractions.items() if f > 0}
    where = {split: f"dataset {path!r}, split {name!r}" for split, name in own.items()}
    splits: Mapping[str, Examples]
    if streaming:
        streamed = {
            split: StreamedRows(
                loaded[name], columns, where[split], fractions if split == "train" else {}, seed
            )
            for split, name in own.items()
        }
        splits = _streams(streamed, buffer_size, num_held_out)
    else:
        stored = {
            split: LazyExamples(loaded[name], columns, where[split]) for split, name in own.items()
        }
        splits = _sequences(stored, fractions, seed, in_memory)
    judged = {s: e.bare() if isinstance(e, LazyExamples) else e for s, e in splits.items()}
    name = Path(path).name if Path(path).expanduser().exists() else path
    return Task(name, splits, default_reward(judged))


def _sequences(
    stored: Mapping[str, LazyExamples],
    fractions: Mapping[str, float],
    seed: int,
    in_memory: bool | None,
) -> Mapping[str, Sequence[Example]]:
    """The splits of a data set that is on disk, with what is to be held out of training."""
    if in_memory is None:
        in_memory = sum(map(len, stored.values())) <= MOST_IN_MEMORY
    splits = dict(stored)
    if fractions:
        training = stored["train"]
        held_out = hold_out_rows(training.lots(seed), fractions)
        splits |= {split: training.take(rows) for split, rows in held_out.items()}
    if in_memory:
        return {split: tuple(examples) for split, examples in splits.items()}
    return splits


def _streams(
    streamed: Mapping[str, StreamedRows], buffer_size: int, num_held_out: int
) -> Mapping[str, Examples]:
    """The splits of a data set that is streamed: a stream to train on, the others in memory."""
    own = {
        split: tuple(islice(rows.read(), num_held_out))
        for split, rows in streamed.items()
        if split != "train"
    }
    training = streamed["train"]
    held_out = training.held_out(num_held_out)
    return {"train": ExampleStream(training, buffer_size), **own, **held_out}


def _own_splits(
    path: str, asked: Mapping[str, str | None], found: Collection[str]
) -> dict[str, str]:
    """The data set's name of each of our splits that it has."""
    own: dict[str, str] = {}
    for split, name in asked.items():
        if name is None:
            # Somebody who trains on "test" does not want to be tested on it.
            if split in found and split not in asked.values():
                own[split] = split
        elif name in found:
            own[split] = name
        else:
            raise ValueError(
                f"dataset {path!r} has no split {name!r}; {did_you_mean(name, found)}. Say which "
                f"one to use with {split}_split."
            )
    return own


def _load(
    path: str, config: str | None, data_files: DataFiles | None, streaming: bool
) -> Mapping[str, Any]:
    """The splits that a data set has, as the library reads them."""
    datasets = require("datasets", extra="datasets", wanted_by="task 'dataset'")
    place = Path(path).expanduser().absolute()  # the library does not read files in "."
    is_saved = any((place / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if (is_saved or place.is_file()) and (config is not None or data_files is not None):
        raise ValueError(
            f"dataset {path!r} is a {'saved data set' if is_saved else 'file'}, which has neither "
            "configurations nor data files. Leave config and data_files out."
        )
    if is_saved:
        return _load_saved(datasets.load_from_disk(str(place)), streaming)
    if place.is_file():
        path, data_files = str(place.parent), place.name
    elif place.exists():
        path = str(place)
    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(
            path, config, data_files=data_files, streaming=streaming
        )
    except (FileNotFoundError, ConnectionError) as error:
        if place.exists():
            raise
        raise FileNotFoundError(
            f"there is no data set {path!r}: nothing stands at {place}, and the Hugging "
            f"Face Hub did not give it ({error}). Check the spelling and the working directory. "
            "Without a network, fetch it where there is one, write it with save_to_disk, and give "
            "that directory."
        ) from error
    return loaded


def _load_saved(saved: Any, streaming: bool) -> Mapping[str, Any]:
    """The splits of a data set that `save_to_disk` wrote."""
    splits = saved if isinstance(saved, Mapping) else {"train": saved}
    # It may have been saved to give tensors.
    splits = {name: rows.with_format(None) for name, rows in splits.items()}
    if not streaming:
        return splits
    # Cut into pieces, that each pass may read them in another order.
    return {
        name: rows.to_iterable_dataset(num_shards=max(1, min(64, len(rows))))
        for name, rows in splits.items()
    }


def _check_numbers(**numbers: Any) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is a whole number of at least 1, got {value!r}.")
