"""Small talk: what becomes of the corpus, and what keeps its splits apart."""

import pickle
import sys
from importlib.metadata import version

import pytest
import yaml

from textgym import rewards, tasks
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.tasks.dialogue import is_known
from textgym.tasks.splitting import content_key


def corpus(monkeypatch, tmp_path, **files):
    """A corpus of one language, "test", by file name."""
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    for name, conversations in files.items():
        text = yaml.safe_dump({"conversations": conversations}, allow_unicode=True)
        (folder / f"{name}.yml").write_text(text, encoding="utf-8-sig")
    package = type(sys)("chatterbot_corpus")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "chatterbot_corpus", package)


def make(**params):
    return tasks.make({"name": "dialogue:test", "validation_fraction": 0.0, **params})


def test_every_turn_of_the_assistant_is_an_example(monkeypatch, tmp_path):
    corpus(monkeypatch, tmp_path, conversations=[["Hello ", "Hi", "How  are\tyou?", "Fine.", "So"]])
    first, second = make(test_fraction=0).split("train")
    assert (first.prompt, first.reference) == ("Hello\n", "Hi")
    assert (second.prompt, second.reference) == ("Hello\nHi\nHow are you?\n", "Fine.")
    assert [tuple(m) for m in second.messages] == [
        ("user", "Hello"),
        ("assistant", "Hi"),
        ("user", "How are you?"),
    ]
    assert [e.reference for e in make(test_fraction=0, max_turns=1).examples] == ["Hi"]


def test_elsewhere_further_lines_are_other_replies(monkeypatch, tmp_path):
    said = [["Are you sad?", "No.", "Are you sad", "Never."], ["are you SAD", "At times."]]
    corpus(monkeypatch, tmp_path, emotion=said)
    sad, shouted = make(test_fraction=0).split("train")
    assert (sad.prompt, sad.reference) == ("Are you sad?\n", "No.")
    assert (shouted.prompt, shouted.reference) == ("are you SAD\n", "At times.")
    # What is known of one spelling is known of the other.
    everything = {"category": "emotion", "replies": ["No.", "Never.", "At times."]}
    assert sad.columns == shouted.columns == everything


def test_scalars_are_text_and_programs_are_left_out(monkeypatch, tmp_path):
    said = [["Which year?", "1963"], ["Code?", "a\nb"], ["Yes", "No"], "Broken? - Yes."]
    corpus(monkeypatch, tmp_path, trivia=said)
    pairs = {e.prompt: e.reference for e in make(test_fraction=0).examples}
    assert pairs == {"Which year?\n": "1963", "Yes\n": "No"}


@pytest.mark.parametrize("language", ["english", "chinese", "german", "hebrew"])
def test_no_conversation_is_both_trained_and_tested_on(language):
    task = tasks.make({"name": "dialogue", "language": language, "max_turns": None})
    first = {
        split: {content_key(e.messages[0].content) for e in task.split(split)}
        for split in task.splits
    }
    assert not first["train"] & first["test"]
    assert not first["train"] & first["validation"]
    assert not first["validation"] & first["test"]
    assert {e.messages[-1].role for e in task.examples} == {"user"}
    for example in task.examples:
        assert example.reference in example.columns["replies"]
        assert example.prompt == "".join(f"{m.content}\n" for m in example.messages)
        assert "\n" not in example.reference
        assert example.reference.strip()


@pytest.mark.skipif(version("chatterbot-corpus") != "1.3.3", reason="counts of version 1.3.3")
def test_the_table_of_the_documentation():
    for row in tasks.documentation("dialogue").splitlines():
        cells = [cell.strip() for cell in row.strip(" |").split("|")]
        if len(cells) != 8 or not cells[1].isdigit():
            continue
        for language, *sizes in (cells[:4], cells[4:]):
            if language in ("english", "chinese", "german", "yoruba", "traditionalchinese"):
                task = tasks.make(f"dialogue:{language}")
                assert [len(task.split(split)) for split in task.splits] == list(map(int, sizes))


def test_who_is_held_out_depends_on_the_seed():
    def held_out(**params):
        return {e.prompt for e in tasks.make({"name": "dialogue", **params}).split("test")}

    assert held_out() == held_out(seed=0) != held_out(seed=1)


def test_the_reward_and_the_success_that_it_brings():
    task = tasks.make("dialogue:chinese")
    example = next(e for e in task.split("test") if len(e.reference) > 10)
    score = rewards.make(task.reward)
    assert list(score.rewards) == ["chrf"]
    assert task.stop == ("\n",)

    def success(text):
        sample = Sample(example.prompt, text, example.reference, [], example.columns)
        return pickle.loads(pickle.dumps(task)).success(sample)

    assert success(f" {example.reference}!\n")
    assert not success(example.reference[:-2])
    assert not success("")


def test_success_ignores_case_and_punctuation_and_knows_all_replies():
    columns = {"replies": ["I'm fine.", "?!", "是的,我可以"]}

    def known(text, reference="I'm fine.", columns=columns):
        return is_known(Sample("p", text, reference, [], columns))

    assert known("im FINE")
    assert known("是的,我可以。")
    assert known("?!\n")
    assert not known("!")
    assert not known("fine")
    assert known("yes", "Yes!", {})  # a prompt of one's own
    assert not known("", None, {})


def test_what_does_not_exist_is_answered_with_what_does():
    with pytest.raises(ValueError, match=r"in 'englsh'; did you mean 'english' or"):
        tasks.make("dialogue:englsh")
    with pytest.raises(ValueError, match=r"category 'greeting' in english; did you mean 'greet"):
        tasks.make({"name": "dialogue", "categories": ["greeting"]})
    with pytest.raises(TypeError, match=r"a list of names, such as \['ai'\]"):
        tasks.make({"name": "dialogue", "categories": "ai"})
    with pytest.raises(ValueError, match="max_turns is a whole number of at least 1"):
        tasks.make({"name": "dialogue", "max_turns": 0})
    with pytest.raises(ValueError, match="no example in any split"):
        tasks.make({"name": "dialogue", "categories": ["coding"]})


def test_categories_are_chosen_by_name():
    task = tasks.make({"name": "dialogue", "categories": ["greetings", "trivia"]})
    assert {e.columns["category"] for e in task.examples} == {"greetings", "trivia"}


def test_without_the_corpus_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "chatterbot_corpus", None)
    with pytest.raises(MissingExtra, match=r"task 'dialogue' needs .*'textgym\[dialogue\]"):
        tasks.make("dialogue")
