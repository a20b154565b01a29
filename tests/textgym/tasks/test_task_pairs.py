import json
import pickle

import pytest

from textgym.completion import Sample
from textgym.tasks import Example
from textgym.tasks.pairs import is_reference, rewrite, summarise, translate
from textgym.templates import Template


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_text(content if isinstance(content, str) else lines, encoding="utf-8")
        return path

    return write


WHOLE = {"validation_fraction": 0, "test_fraction": 0}
GERMAN = {"source_language": "German", "target_language": "English"}


def test_the_same_pairs_are_read_from_json_lines_and_from_tables(write):
    rows = [
        {"source": 'Sag "ja", bitte.', "target": 'Say "yes", please.', "by": "a"},
        {"source": "Guten Morgen.", "target": "Good morning.", "by": "b"},
    ]
    wanted = tuple(Example(r["source"], r["target"], {"by": r["by"]}) for r in rows)
    csv_text = "source,target,by\n" + "".join(
        ",".join('"' + value.replace('"', '""') + '"' for value in row.values()) + "\r\n"
        for row in rows
    )
    lines = "".join("\t".join(row.values()) + "\n" for row in rows)
    for path in (
        write("p.jsonl", rows),
        write("p.csv", csv_text),
        write("p.tsv", "source\ttarget\tby\n" + lines),
    ):
        assert rewrite(path, **WHOLE).split("train") == wanted
    by_number = translate(
        write("n.tsv", lines), **GERMAN, source_column=1, target_column=0, **WHOLE
    )
    assert by_number.split("train") == tuple(
        Example(r["target"], r["source"], {"2": r["by"]}) for r in rows
    )


def test_each_task_brings_its_reward_template_and_stop(write):
    pairs = [{"source": f"s{i}", "target": f"t{i}"} for i in range(20)]
    task = rewrite(write("p.jsonl", pairs))
    assert (task.name, task.reward, task.stop) == ("p.jsonl", "edit_distance", ("\n",))
    assert [len(task.split(split)) for split in ("train", "validation", "test")] == [16, 2, 2]
    translation = translate(write("p.jsonl", pairs), **GERMAN)
    assert (translation.reward, translation.success) == ("chrf", None)
    filled = Template(translation.templates[0]).fill(Example("Ja."))
    assert filled == "Translate from German to English.\nGerman: Ja.\nEnglish:"
    documents = [{"document": p["source"], "summary": p["target"]} for p in pairs]
    summary = summarise(write("d.jsonl", documents))
    assert (summary.reward, summary.success) == ("rouge", None)
    assert Template(summary.templates[0]).fill(Example("Long.")).endswith("Summary of the text:")
    assert pickle.loads(pickle.dumps([task, translation, summary])) == [task, translation, summary]


def test_a_language_may_hold_braces(write):
    path = write("p.tsv", "source\ttarget\na\tb\n")
    task = translate(path, source_language="{x}", target_language="prompt", **WHOLE)
    filled = Template(task.templates[0]).fill(Example("Ja."))
    assert filled == "Translate from {x} to prompt.\n{x}: Ja.\nprompt:"


def test_texts_stop_at_a_line_break_unless_a_target_of_any_split_has_one(write):
    one_line = write("p.jsonl", [{"source": "a\nb", "target": "c\n"}])
    two_lines = write("q.jsonl", [{"source": "d", "target": "e\nf"}])
    assert rewrite(one_line).stop == ("\n",)
    assert rewrite(one_line, validation=two_lines).stop == ()


def test_pairs_with_the_same_source_stay_together(write):
    pairs = [{"source": f"s{i % 10}", "target": f"t{i}"} for i in range(40)]
    task = rewrite(write("p.jsonl", pairs), test_fraction=0.3, validation=write("v.jsonl", pairs))
    tested = {example.prompt for example in task.split("test")}
    assert len(task.split("test")) == 12
    assert not tested & {example.prompt for example in task.split("train")}
    assert len(task.split("validation")) == 40


def test_only_the_beginning_of_a_document_is_kept(write):
    rows = [{"document": " One two three.", "summary": "1"}, {"document": "Four", "summary": "2"}]
    path = write("d.jsonl", rows)
    kept = summarise(path, max_characters=7, **WHOLE).split("train")
    assert [example.prompt for example in kept] == ["One two", "Four"]
    assert summarise(path, **WHOLE).split("train")[0].prompt == " One two three."
    with pytest.raises(ValueError, match="max_characters is a whole number of at least 1"):
        summarise(path, max_characters=0)


@pytest.mark.parametrize(
    ("text", "reference", "solved"),
    [
        (" He goes\nto school.\n", "He goes to  school.", True),
        ("He goes to school", "He goes to school.", False),
        ("", "a", False),
        ("", None, False),
    ],
)
def test_a_rewriting_succeeds_if_it_is_the_target_but_for_white_space(text, reference, solved):
    assert is_reference(Sample("p", text, reference, [], {})) is solved


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "a\n", r"cannot read sources from a file that ends in '\.txt'"),
        ("p.tsv", "src\ttarget\na\tb\n", "line 1: no column 'source'; .* with source_column"),
        ("p.csv", "source,tgt\na,b\n", "no column 'target'; .* with target_column"),
        ("p.tsv", "source\ttarget\na\tb\tc\n", "line 2: 3 fields, but the header names 2"),
        ("p.tsv", "source\ttarget\na\t \n", "line 2: there is no target .* holds ' '"),
        ("p.jsonl", [{"source": "a", "target": "b"}, {"source": "a"}], "line 2: there is no targ"),
        ("p.jsonl", [{"source": " ", "target": "b"}], "line 1: the source is empty"),
        ("p.jsonl", [{"source": 1, "target": "b"}], r"line 1: expected .* got 1 \(int\)"),
        ("p.tsv", "", "holds no source"),
    ],
)
def test_half_a_pair_is_refused_with_its_line(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        rewrite(write(name, content))


def test_columns_are_both_names_or_both_numbers_of_a_table(write):
    table, lines = write("p.tsv", "a\tb\nc\td\te\n"), write("p.jsonl", [{"0": "a", "1": "b"}])
    with pytest.raises(ValueError, match="source_column=0 and target_column='target' are both"):
        rewrite(table, source_column=0)
    with pytest.raises(ValueError, match="line 2: 3 fields, but the first row has 2"):
        rewrite(table, source_column=0, target_column=1)
    with pytest.raises(ValueError, match="source_column=0 is a number, which means a column of"):
        rewrite(lines, source_column=0, target_column=1)
    with pytest.raises(ValueError, match="no column '3'; there are: '0', '1'"):
        rewrite(write("q.tsv", "a\tb\n"), source_column=3, target_column=1)


def test_a_language_is_a_word(write):
    path = write("p.tsv", "source\ttarget\na\tb\n")
    with pytest.raises(ValueError, match="a language is named by a word"):
        translate(path, source_language=" ", target_language="English")
    with pytest.raises(TypeError, match="a language is a string such as 'German', got 3"):
        translate(path, source_language=3, target_language="English")
