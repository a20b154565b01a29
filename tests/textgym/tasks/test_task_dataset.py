import copy
import json
import pickle
import sys
from collections import Counter

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.extras import MissingExtra
from textgym.tasks import SPLITS, Example, Stream
from textgym.tasks.columns import Columns
from textgym.tasks.dataset import dataset
from textgym.tasks.lazy import LazyExamples, hold_out_rows
from textgym.tasks.splitting import hold_out, lot

USER = {"role": "user", "content": "Name a colour."}
ANSWER = {"role": "assistant", "content": "Red."}
WHOLE = {"validation_fraction": 0, "test_fraction": 0}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(count: int, start: int = 0) -> list[dict[str, object]]:
    return [
        {"prompt": f"p{i}", "reference": f"r{i}", "level": i} for i in range(start, start + count)
    ]


def saved(path, **splits):
    tables = {split: datasets.Dataset.from_list(each) for split, each in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(path)
    return str(path)


def jsonl(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def sizes(task) -> dict[str, int]:
    return {split: len(task.split(split)) for split in task.splits}


def drawn(task, count: int) -> list[Example]:
    generator = np.random.default_rng(0)
    stream = task.split("train")
    return [stream.draw(generator) for _ in range(count)]


def test_a_file_a_directory_and_a_saved_data_set_hold_the_same_examples(tmp_path):
    content = rows(6)
    table = datasets.Dataset.from_list(content)
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "a.parquet")
    wanted = tuple(Example(f"p{i}", f"r{i}", {"level": i}) for i in range(6))
    for path in (
        tmp_path / "saved",
        tmp_path / "a.parquet",
        jsonl(tmp_path / "a.jsonl", content),
        jsonl(tmp_path / "some" / "train.jsonl", content),
        tmp_path / "some",
    ):
        task = dataset(str(path), **WHOLE)
        assert task.split("train") == wanted
        assert task.name == str(path).rpartition("/")[2]
        assert drawn(dataset(str(path), streaming=True, buffer_size=1, **WHOLE), 1)[0] in wanted


def test_a_path_may_be_relative(tmp_path, monkeypatch):
    jsonl(tmp_path / "d" / "train.jsonl", rows(3))
    monkeypatch.chdir(tmp_path / "d")
    assert dataset("train.jsonl").name == "train.jsonl"
    assert sizes(dataset(".")) == sizes(dataset("train.jsonl")) == dict.fromkeys(SPLITS, 1)


def test_files_of_a_directory_can_be_chosen_and_columns_have_other_names(tmp_path):
    jsonl(tmp_path / "d" / "x.jsonl", [{"question": "Why?", "answer": "So."}])
    jsonl(tmp_path / "d" / "y.jsonl", [{"question": "How?", "answer": ""}])
    task = dataset(
        str(tmp_path / "d"),
        data_files={"train": "x.jsonl", "test": "y.jsonl"},
        prompt_column="question",
        reference_column="answer",
    )
    assert task.split("train") == (Example("Why?", "So."),)
    assert task.split("test") == (Example("How?", None),)


def test_the_default_reward_looks_at_references_if_all_have_one(tmp_path):
    path = saved(tmp_path / "d", train=rows(8))
    assert dataset(path).reward == dataset(path, in_memory=False).reward == "edit_distance"
    assert dataset(path, streaming=True).reward == "sentiment"
    chat = saved(tmp_path / "c", train=[{"messages": [USER, ANSWER]}] * 3)
    assert dataset(chat, in_memory=False).reward == "edit_distance"
    for split in ("train", "test"):
        lacks = {"train": rows(8), split: [*rows(2, 20), {"prompt": "p", "reference": ""}]}
        path = saved(tmp_path / split, **lacks)
        for in_memory in (True, False):
            assert dataset(path, in_memory=in_memory).reward == "sentiment"


def test_only_prompts_and_references_are_read_to_choose_the_reward():
    table = datasets.Dataset.from_list(rows(5))
    examples = LazyExamples(table, Columns(), "dataset 'd'").take(range(1, 3)).bare()
    assert [*examples] == [Example("p1", "r1"), Example("p2", "r2")]
    assert [*LazyExamples(table.remove_columns("reference"), Columns(), "d").bare()] == [
        Example(f"p{i}") for i in range(5)
    ]


def test_conversations_are_read_as_the_task_file_reads_them(tmp_path):
    chosen = [{"prompt": [USER], "completion": [ANSWER], "level": 1}]
    path = saved(tmp_path / "d", train=chosen)
    assert dataset(path, reference_column="completion").split("train") == (
        Example.chat([USER], "Red.", {"level": 1}),
    )
    path = saved(tmp_path / "e", train=[{"messages": [USER, ANSWER, USER, ANSWER]}])
    for in_memory in (True, False):
        task = dataset(path, in_memory=in_memory)
        assert task.split("train")[0] == Example.chat([USER, ANSWER, USER], "Red.")


def test_the_data_sets_own_splits_are_used_and_others_held_out(tmp_path):
    path = saved(tmp_path / "d", train=rows(20), dev=rows(3, 20), test=rows(4, 30))
    assert sizes(dataset(path)) == {"train": 18, "validation": 2, "test": 4}
    named = dataset(path, validation_split="dev")
    assert sizes(named) == {"train": 20, "validation": 3, "test": 4}
    assert named.split("validation")[0].prompt == "p20"
    # Who trains on "test" is tested on prompts that are held out of it.
    trained_on_test = dataset(path, train_split="test", validation_split="dev")
    assert sizes(trained_on_test) == {"train": 3, "validation": 3, "test": 1}


@pytest.mark.parametrize("seed", [0, 1])
def test_on_disk_and_in_memory_hold_the_same_examples_and_hold_out_the_same(tmp_path, seed):
    content = rows(60) + rows(30)
    path = saved(tmp_path / "d", train=content)
    in_memory, on_disk = (
        dataset(path, in_memory=choice, seed=seed, validation_fraction=0.2)
        for choice in (True, False)
    )
    assert sizes(in_memory) == sizes(on_disk)
    assert len({e.prompt for e in in_memory.split("validation")}) == 12
    assert isinstance(in_memory.split("train"), tuple)
    assert isinstance(on_disk.split("train"), LazyExamples)
    examples = [Example(r["prompt"], r["reference"], {"level": r["level"]}) for r in content]
    wanted = hold_out(examples, {"validation": 0.2, "test": 0.1}, seed)
    for split in ("train", "validation", "test"):
        lazy = on_disk.split(split)
        assert in_memory.split(split) == tuple(lazy) == wanted[split]
        assert [lazy[i] for i in range(len(lazy))] == list(wanted[split])
        assert (lazy[-1], tuple(lazy[1:3])) == (wanted[split][-1], wanted[split][1:3])
        with pytest.raises(IndexError):
            lazy[len(lazy)]


@given(st.lists(st.text(max_size=2), max_size=30), st.integers(0, 3), st.booleans())
def test_rows_are_held_out_as_examples_in_memory_are(prompts, seed, with_test):
    fractions = {"validation": 0.3, "test": 0.2} if with_test else {"validation": 0.3}
    lots = np.array([lot(prompt, seed) for prompt in prompts], np.uint64)
    found = hold_out_rows(lots, fractions)
    wanted = hold_out([Example(prompt) for prompt in prompts], fractions, seed)
    assert {s: [prompts[i] for i in indices] for s, indices in found.items()} == {
        split: [example.prompt for example in examples] for split, examples in wanted.items()
    }


def test_large_data_sets_stay_on_disk(tmp_path, monkeypatch):
    path = saved(tmp_path / "d", train=rows(8), test=rows(2))
    monkeypatch.setattr("textgym.tasks.dataset.MOST_IN_MEMORY", 10)
    assert isinstance(dataset(path).split("train"), tuple)
    monkeypatch.setattr("textgym.tasks.dataset.MOST_IN_MEMORY", 9)
    assert isinstance(dataset(path).split("test"), LazyExamples)


def test_examples_on_disk_can_be_pickled_and_copied(tmp_path):
    path = saved(tmp_path / "d", train=rows(20))
    task = dataset(path, in_memory=False)
    for copied in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        for split in ("train", "validation", "test"):
            assert tuple(copied.split(split)) == tuple(task.split(split))


def test_a_stream_trains_on_all_that_is_not_held_out(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", rows(200))
    task = dataset(path, streaming=True, buffer_size=20, num_held_out=8)
    assert isinstance(task.split("train"), Stream)
    assert len(task.split("validation")) == len(task.split("test")) == 8
    several_passes = drawn(task, 600)
    trained = {e.prompt for e in several_passes}
    held_out = {e.prompt for split in ("validation", "test") for e in task.split(split)}
    assert not trained & held_out
    # The rest of the share that is held out is not trained on either.
    everything = dataset(path, streaming=True, num_held_out=200)
    shares = [{e.prompt for e in everything.split(s)} for s in ("validation", "test")]
    assert trained == {f"p{i}" for i in range(200)} - shares[0] - shares[1]
    assert several_passes[0].columns.keys() == {"level"}
    again = dataset(path, streaming=True, buffer_size=20, num_held_out=8)
    assert drawn(again, 600) == several_passes
    assert drawn(copy.deepcopy(task), 600) == several_passes
    assert drawn(pickle.loads(pickle.dumps(task)), 600) == several_passes


def test_a_streamed_data_set_has_its_own_splits_up_to_a_number(tmp_path):
    path = saved(tmp_path / "d", train=rows(10), validation=rows(5, 20), test=rows(2, 30))
    task = dataset(path, streaming=True, num_held_out=3)
    assert [e.prompt for e in task.split("validation")] == ["p20", "p21", "p22"]
    assert len(task.split("test")) == 2
    assert Counter(e.prompt for e in drawn(task, 20)) == {f"p{i}": 2 for i in range(10)}


def test_the_files_of_a_stream_are_read_in_another_order_in_each_pass(tmp_path):
    for i in range(20):
        jsonl(tmp_path / "d" / f"train-{i}.jsonl", rows(50, 50 * i))
    task = dataset(str(tmp_path / "d"), streaming=True, buffer_size=1, **WHOLE)
    numbers = [int(e.prompt[1:]) for e in drawn(task, 2000)]
    passes = [numbers[:1000], numbers[1000:]]
    begun_with = [{number // 50 for number in each[:100]} for each in passes]
    for each, files in zip(passes, begun_with, strict=True):
        assert sorted(each) == list(range(1000))
        assert len(files) <= 15  # not all rows are shuffled
    assert begun_with[0] != begun_with[1]


def first_example(task) -> Example:
    train = task.split("train")
    return drawn(task, 1)[0] if isinstance(train, Stream) else train[0]


@pytest.mark.parametrize("mode", [{}, {"in_memory": False}, {"streaming": True}])
@pytest.mark.parametrize(
    ("row", "params", "message"),
    [
        ({"promt": "a"}, {}, "no column 'prompt'; did you mean 'promt'.* with prompt_column"),
        ({"prompt": "a"}, {"reference_column": "x"}, "no column 'x'; .* with reference_column"),
        ({"prompt": 3}, {}, r"split 'train', row 0: expected the prompt to be a string, got 3"),
        ({"prompt": None}, {}, "split 'train', row 0: expected the prompt to be a string"),
        ({"prompt": "a", "reference": 0}, {}, "split 'train', row 0: expected the reference to"),
    ],
)
def test_a_row_that_is_no_example_is_refused_with_its_index(tmp_path, mode, row, params, message):
    path = jsonl(tmp_path / "a.jsonl", [row])
    with pytest.raises(ValueError, match=message):
        first_example(dataset(path, **mode, **params, **WHOLE))


def test_a_broken_row_further_down_is_named(tmp_path):
    path = saved(tmp_path / "d", train=[*rows(5), {"prompt": " ", "reference": "", "level": 5}])
    with pytest.raises(ValueError, match=r"/d', split 'train', row 5: the prompt is empty"):
        dataset(path)


def test_a_split_that_is_not_there_or_empty_is_refused(tmp_path):
    path = saved(tmp_path / "d", train=rows(3), tests=rows(1))
    with pytest.raises(
        ValueError, match=r"no split 'test'; did you mean 'tests'.* with test_split"
    ):
        dataset(path, test_split="test")
    empty = datasets.Dataset.from_list(rows(1)).select([])
    with pytest.raises(ValueError, match="dataset 'd', split 'test' is empty"):
        LazyExamples(empty, Columns(), "dataset 'd', split 'test'")


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing_here.jsonl", "./nothing/here"])
def test_a_data_set_that_is_nowhere_is_refused_with_what_to_do(name):
    with pytest.raises(FileNotFoundError, match=r"there is no data set .* save_to_disk"):
        dataset(name)


def test_parameters_that_make_no_sense_are_refused(tmp_path):
    path = saved(tmp_path / "d", train=rows(3))
    with pytest.raises(ValueError, match="in_memory=True says how a data set that is not streamed"):
        dataset(path, streaming=True, in_memory=True)
    with pytest.raises(ValueError, match="buffer_size is a whole number of at least 1, got 0"):
        dataset(path, streaming=True, buffer_size=0)
    with pytest.raises(ValueError, match="fractions to hold out must be from 0 to below 1"):
        dataset(path, test_fraction=1.0)
    with pytest.raises(ValueError, match="neither configurations nor data files"):
        dataset(path, "main")


def test_the_library_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'textgym\[datasets\]'"):
        dataset(str(tmp_path))
