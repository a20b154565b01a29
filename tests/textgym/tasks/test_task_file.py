import codecs
import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.tasks import Example, Task, make
from textgym.tasks.splitting import sizes


def read(path: Path, **params: object) -> Task:
    return make({"name": "file", "path": str(path), **params})


def read_all(path: Path, **params: object) -> tuple[Example, ...]:
    """Every example, in the order of the file."""
    return read(path, validation_fraction=0, test_fraction=0, **params).split("train")


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# Any text that UTF-8 can hold; csv in Python 3.10 refuses the null character.
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
prompts = text.filter(str.strip)
references = st.none() | text.filter(bool)
column_names = st.lists(
    text.filter(lambda name: name not in ("prompt", "reference")), unique=True, max_size=3
)


@st.composite
def examples(draw, values):
    names = draw(column_names)
    columns = st.fixed_dictionaries(dict.fromkeys(names, values))
    return draw(st.lists(st.builds(Example, prompts, references, columns), min_size=1, max_size=5))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)


@given(examples(json_values), st.booleans())
def test_jsonl_reads_back_what_was_written(tmp_path_factory, wanted, ascii_only):
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    rows = [{"prompt": e.prompt, "reference": e.reference, **e.columns} for e in wanted]
    lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows]
    path.write_bytes("".join(lines).encode())
    assert read_all(path) == tuple(wanted)


@given(examples(text), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_reads_back_what_was_written(tmp_path_factory, wanted, newline, with_bom):
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    with path.open("w", encoding="utf-8-sig" if with_bom else "utf-8", newline="") as handle:
        # QUOTE_ALL, since csv itself writes a lone "\r" unquoted before Python 3.13.
        writer = csv.writer(handle, lineterminator=newline, quoting=csv.QUOTE_ALL)
        names = list(wanted[0].columns)
        writer.writerow(["reference", "prompt", *names])
        for e in wanted:
            writer.writerow([e.reference or "", e.prompt, *(e.columns[name] for name in names)])
    assert read_all(path) == tuple(wanted)


def test_txt_is_a_prompt_a_line_with_blank_lines_skipped(write):
    path = write("p.txt", codecs.BOM_UTF8 + "One \r\n\r\n  Two\u2028b\n \t\nThree".encode())
    assert [e.prompt for e in read_all(path)] == ["One ", "  Two\u2028b", "Three"]


def test_columns_can_have_other_names(write):
    path = write("p.csv", "question,answer,level\nWhy?,So,3\nHow?,,4\n")
    assert read_all(path, prompt_column="question", reference_column="answer") == (
        Example("Why?", "So", {"level": "3"}),
        Example("How?", None, {"level": "4"}),
    )


def test_a_column_that_only_some_json_lines_have_is_none_on_the_others(write):
    path = write("p.jsonl", '{"prompt": "a", "x": 1}\n\n{"prompt": "b", "reference": "r"}\n')
    assert read_all(path) == (Example("a", None, {"x": 1}), Example("b", "r", {"x": None}))


def test_a_quoted_field_may_hold_line_breaks_and_the_line_numbers_go_on(write):
    good = 'prompt,reference\n"a\nb","c, ""d"""\n\n'
    assert read_all(write("p.csv", good)) == (Example("a\nb", 'c, "d"'),)
    with pytest.raises(ValueError, match=r"p\.csv, line 5: 1 fields, but the header names 2"):
        read(write("p.csv", good + "e\n"))
    with pytest.raises(ValueError, match=r"p\.csv, lines 5 to 6: the prompt is empty"):
        read(write("p.csv", good + '"\n",e\n'))


def test_a_tsv_has_a_header_and_takes_quotes_as_they_stand(write):
    path = write("p.tsv", 'prompt\treference\tx\nSay "a, b"\t"\t\r\n\nc\t\td\n')
    assert read_all(path) == (
        Example('Say "a, b"', '"', {"x": ""}),
        Example("c", None, {"x": "d"}),
    )


USER = {"role": "user", "content": "Name a colour."}
ANSWER = {"role": "assistant", "content": "Red."}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": [USER], "reference": "Red."}, Example.chat([USER], "Red.")),
        ({"prompt": [USER], "reference": [ANSWER]}, Example.chat([USER], "Red.")),
        ({"messages": [USER, ANSWER], "x": 1}, Example.chat([USER], "Red.", {"x": 1})),
        ({"messages": [USER, ANSWER, USER]}, Example.chat([USER, ANSWER, USER])),
        (
            {"messages": [{**USER, "name": "Ann"}, ANSWER, USER, ANSWER], "reference": None},
            Example.chat([USER, ANSWER, USER], "Red."),
        ),
        ({"prompt": "a", "messages": [USER]}, Example("a", None, {"messages": [USER]})),
    ],
)
def test_a_prompt_may_be_a_conversation(write, row, wanted):
    assert read_all(write("p.jsonl", json.dumps(row))) == (wanted,)


def test_conversations_and_plain_prompts_may_stand_in_one_file(write):
    rows = [{"prompt": "a"}, {"messages": [USER, ANSWER]}]
    path = write("p.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_all(path) == (
        Example("a", columns={"messages": None}),
        Example.chat([USER], "Red."),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [ANSWER]}, "line 1: a conversation to go on with holds at least one"),
        ({"messages": [{**USER, "role": "system"}]}, "line 1: .* system's but the user's"),
        ({"messages": []}, "line 1: a conversation to go on with holds at least one"),
        ({"messages": None}, "line 1: expected the prompt to be a string, got None"),
        ({"prompt": ["a"]}, "line 1: expected a message .* got 'a'"),
        ({"prompt": [{"role": "tool", "content": "1"}]}, "line 1: the role of a message is one of"),
        ({"prompt": [{**USER, "content": " "}]}, "line 1: the prompt is empty"),
        ({"messages": [USER, {"role": "assistant"}]}, "line 1: the content of a message is a str"),
        ({"messages": [USER, ANSWER], "reference": "Blue."}, "line 1: there are two references"),
        ({"prompt": "a", "reference": ["b", "c"]}, "expected the reference to be a string"),
    ],
)
def test_a_malformed_conversation_is_refused_with_its_line(write, row, message):
    with pytest.raises(ValueError, match=message):
        read(write("p.jsonl", json.dumps(row)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "p.txt holds no prompt"),
        ("p.txt", " \n\n", "p.txt holds no prompt"),
        ("p.csv", "", "p.csv holds no prompt"),
        ("p.csv", "prompt,reference\n", "p.csv holds no prompt"),
        ("p.jsonl", "\n", "p.jsonl holds no prompt"),
        ("p.json", '{"prompt": "a"}', r"ends in '\.json'; did you mean '\.jsonl'"),
        ("p", "a", r"ends in ''; there are: '\.csv', '\.jsonl', '\.tsv', '\.txt'"),
        ("p.txt", b"a\nb\nc\xe9\n", "line 3: byte 0xe9 at offset 5 of the file is not UTF-8"),
        ("p.csv", b"\xff\xfep\0", "line 1: byte 0xff at offset 0 of the file is not UTF-8"),
        ("p.csv", "Prompt,x\na,b\n", "line 1: no column 'prompt'; did you mean 'Prompt'"),
        ("p.csv", "prompt,x,x\na,b,c\n", r"line 1: the header names \['x'\] more than once"),
        ("p.csv", "prompt,x\na,b\na,b,c\n", "line 3: 3 fields, but the header names 2 columns"),
        ("p.csv", "prompt,x\na\n", "line 2: 1 fields, but the header names 2 columns"),
        ("p.csv", "prompt,x\n,b\n", "line 2: the prompt is empty"),
        ("p.csv", 'prompt\na\n"b\nc\n', "lines 3 to 4: not CSV: unexpected end of data"),
        ("p.csv", 'prompt\n"b" c\n', "line 2: not CSV: ',' expected after '\"'"),
        ("p.jsonl", '{"prompt": "a"}\n' * 16 + "{prompt: 1}\n", "line 17: not JSON: .* column 2"),
        ("p.jsonl", '[{"prompt": "a"}]', "line 1: expected a JSON object"),
        (
            "p.jsonl",
            '{"prompt": "a"}\n{"promt": "a"}',
            "line 2: no column 'prompt'; did .* 'promt'",
        ),
        ("p.jsonl", '{"prompt": 3}', r"line 1: expected the prompt to be a string, got 3 \(int\)"),
        (
            "p.jsonl",
            '{"prompt": "a", "reference": 0}',
            "line 1: expected the reference to be a str",
        ),
        ("p.jsonl", '{"prompt": " "}', "line 1: the prompt is empty"),
        ("p.jsonl", '{"prompt": "\\ud83d"}', "line 1: .* half a surrogate pair"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name_and_line(write, name, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(write(name, content))
    assert str(write(name, content)) in str(error.value)


def test_a_path_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.txt"):
        read(tmp_path / "nowhere.txt")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        read(tmp_path)


def test_a_reference_column_asked_for_by_name_must_exist(write):
    path = write("p.csv", "prompt,answer\na,b\n")
    assert read_all(path)[0].reference is None
    with pytest.raises(ValueError, match="no column 'anser'; did you mean 'answer'"):
        read(path, reference_column="anser")


def test_the_default_reward_looks_at_references_if_all_have_one(write):
    path = write("p.csv", "prompt,reference\na,b\nc,d\ne,f\ng,h\n")
    assert read(path).reward == "edit_distance"
    lacks = write("q.csv", "prompt,reference\na,b\nc,\n")
    assert read(lacks).reward == "sentiment"
    assert read(path, validation=str(lacks)).reward == "sentiment"
    assert read(write("p.txt", "a\nb\n")).reward == "sentiment"


def numbered(count: int) -> str:
    return "".join(f"prompt {i}\n" for i in range(count))


def test_held_out_splits_have_their_share_and_share_no_prompt(write):
    task = read(write("p.txt", numbered(200)), validation_fraction=0.2)
    found = {split: len(task.split(split)) for split in ("train", "validation", "test")}
    assert found == {"train": 140, "validation": 40, "test": 20}
    assert len({e.prompt for e in task.examples}) == 200


def test_who_is_held_out_depends_on_seed_and_prompts_only(write):
    path = write("p.txt", numbered(50))
    backwards = write("q.txt", "".join(reversed(numbered(50).splitlines(keepends=True))))
    held_out = set(read(path).split("test"))
    assert held_out == set(read(path).split("test")) == set(read(backwards).split("test"))
    assert held_out != set(read(path, seed=1).split("test"))
    # Pinned: a run file names a seed, and must mean the same prompts in years to come.
    assert {e.prompt for e in held_out} == {f"prompt {i}" for i in (1, 10, 18, 39, 45)}


def test_rows_with_the_same_prompt_stay_together(write):
    rows = [f"p{i % 10},answer {i}\n" for i in range(40)]
    task = read(write("p.csv", "prompt,reference\n" + "".join(rows)), validation_fraction=0.3)
    of = {split: {e.prompt for e in task.split(split)} for split in task.splits}
    assert not of["train"] & of["validation"]
    assert not of["train"] & of["test"]
    assert {split: len(task.split(split)) for split in task.splits} == {
        "train": 24,
        "validation": 12,
        "test": 4,
    }


def test_three_prompts_give_each_split_one_and_two_go_to_training(write):
    task = read(write("p.txt", numbered(3)))
    assert [len(task.split(split)) for split in ("train", "validation", "test")] == [1, 1, 1]
    small = read(write("p.txt", numbered(2)))
    assert len(small.split("train")) == 2
    with pytest.raises(ValueError, match=r"no examples in split 'test'; it has 'train' \(2\)"):
        small.split("test")


@given(st.integers(1, 400), st.lists(st.floats(0.001, 0.499), min_size=1, max_size=2))
def test_every_held_out_split_gets_some_and_leaves_some(total, fractions):
    counts = sizes(total, fractions)
    if total > len(fractions):
        assert min(counts) >= 1
        assert sum(counts) < total
    else:
        assert sum(counts) == 0
    for size, fraction in zip(counts, fractions, strict=True):
        assert size <= max(1, round(total * fraction))


def test_splits_can_be_files_of_their_own(write):
    path, other = write("p.txt", numbered(10)), write("v.jsonl", '{"prompt": "v"}')
    task = read(path, validation=str(other))
    assert task.split("validation") == (Example("v"),)
    assert [len(task.split("train")), len(task.split("test"))] == [9, 1]
    same = read(path, validation=str(path), test=str(path))
    assert same.split("train") == same.split("validation") == same.split("test")
    with pytest.raises(ValueError, match=r"e\.txt holds no prompt"):
        read(path, test=str(write("e.txt", "")))


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (1.0, 0.0), (0.5, 0.5), (float("nan"), 0)])
def test_impossible_fractions_are_refused(write, fractions):
    validation_fraction, test_fraction = fractions
    with pytest.raises(ValueError, match="fractions to hold out must be from 0 to below 1"):
        read(
            write("p.txt", numbered(9)),
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
