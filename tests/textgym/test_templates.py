import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.messages import Message
from textgym.tasks import Example
from textgym.templates import Template, read_templates

QUESTION = Example("2 + 2?", "4", {"topic": "sums", "level": 3, "notes": None, "tags": ["a"]})

CONVERSATION = [
    {"role": "system", "content": "Be kind. {prompt}"},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Good day."},
    {"role": "user", "content": "2 + 2?"},
]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{prompt}", "2 + 2?"),
        ("Question: {prompt}\nAnswer:", "Question: 2 + 2?\nAnswer:"),
        ("{prompt} I say: {prompt}", "2 + 2? I say: 2 + 2?"),
        ("{topic}, level {level}: {prompt}", "sums, level 3: 2 + 2?"),
        ('As {{"answer": ...}}: {prompt}', 'As {"answer": ...}: 2 + 2?'),
        ("{{prompt}} {prompt}}}", "{prompt} 2 + 2?}"),
        (" {prompt}\t", " 2 + 2?\t"),
    ],
)
def test_what_a_template_makes_of_an_example(text, filled):
    assert Template(text).fill(QUESTION) == filled


texts = st.text(st.characters(codec="utf-8"))


@given(texts, texts, texts)
def test_every_text_can_be_a_prompt_and_with_doubled_braces_a_template(before, prompt, after):
    escaped = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    template = Template("{prompt}".join(escaped))
    assert template.fill(Example(prompt)) == before + prompt + after


def test_only_the_prompt_changes():
    template = Template("Q: {prompt}")
    assert template.apply(QUESTION) == Example("Q: 2 + 2?", "4", QUESTION.columns)


def test_in_a_conversation_it_is_about_what_the_user_says_last():
    example = Example.chat(CONVERSATION, "4", {"topic": "sums"})
    applied = Template("{topic}: {prompt}").apply(example)
    assert applied.messages == (*example.messages[:-1], Message("user", "sums: 2 + 2?"))
    assert applied == Example.chat(applied.messages, "4", {"topic": "sums"})
    assert "sums: 2 + 2?" in applied.prompt


def test_it_says_which_columns_it_uses():
    assert Template("{b} {prompt} {a} {b}").columns == ("b", "a")


def test_it_is_its_text():
    template = Template("Q: {prompt}")
    assert template == Template("Q: {prompt}") != Template("{prompt}")
    assert repr(template) == "Template(text='Q: {prompt}')"
    assert pickle.loads(pickle.dumps(template)).fill(QUESTION) == "Q: 2 + 2?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Answer:", r"no \{prompt\}. Write \{prompt\} where"),
        ("{{prompt}}", r"no \{prompt\}"),
        ("{prompt.__class__.__init__.__globals__}", r"\{prompt.__class__.*not the plain name"),
        ("{prompt} {topic[0]}", r"\{topic\[0\]\} is not the plain name"),
        ("{prompt!r}", r"\{prompt!r\} is not"),
        ("{prompt:>{level}}", r"\{prompt:>\{level\}\} is not"),
        ("{prompt} {}", r"\{\} is not"),
        ('{prompt} {"answer": 5}', r"Write \{\{ and \}\} for braces"),
        ("{prompt", r"Write \{\{ and \}\} for braces"),
        ("{prompt} }", r"Write \{\{ and \}\} for braces"),
        ("{prompt} = {reference}", "would give the model the answer"),
    ],
)
def test_what_is_no_template(text, message):
    with pytest.raises(ValueError, match=message):
        Template(text)


def test_a_template_is_a_string():
    with pytest.raises(TypeError, match=r"got 3 \(int\)"):
        Template(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{prompt} {topik}", "column 'topik'.*did you mean 'topic'.*'level'"),
        ("{prompt} {notes}", "'notes', which holds None"),
        ("{prompt} {tags}", r"'tags', which holds \['a'\] \(list\)"),
    ],
)
def test_columns_that_cannot_be_filled_in(text, message):
    with pytest.raises(ValueError, match=message):
        Template(text).fill(QUESTION)


def test_a_text_file_has_a_template_a_line(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("Q: {prompt}\\nA:\n\n  {prompt}\n", encoding="utf-8")
    assert read_templates(path) == (Template("Q: {prompt}\nA:"), Template("  {prompt}"))


def test_json_lines_hold_any_template(tmp_path):
    path = tmp_path / "templates.jsonl"
    wanted = ["Q: {prompt}\nA:", r"in \nabla: {prompt}"]
    lines = [json.dumps({"template": text, "by": "me"}) for text in wanted]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_templates(path) == tuple(map(Template, wanted))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "{prompt}\nAnswer:\n", r"line 2: .*no \{prompt\}"),
        ("a.txt", "{prompt}\nQ {prompt}\n{prompt}\n", "line 3: the same template as in .*line 1"),
        ("a.txt", "\n \n", "holds no template"),
        ("a.jsonl", '{"template": "{prompt}"}\n{"templat": "x"}', "line 2: no key .*'templat'"),
        ("a.jsonl", '{"template": 3}', "line 1: expected a template as a string, got 3"),
        ("a.csv", "template\n{prompt}\n", "cannot read templates"),
    ],
)
def test_errors_of_a_file_name_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_templates(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_templates(tmp_path / "templates.txt")
