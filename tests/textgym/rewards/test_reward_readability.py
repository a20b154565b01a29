"""Readability of English text, by textstat."""

import sys

import pytest

from textgym.extras import MissingExtra
from textgym.rewards import readability
from textgym.rewards.readability import Readability

EASY = "The cat sat on the mat. It was a big cat. The dog ran to it."
HARD = (
    "Notwithstanding considerable methodological difficulties, contemporary investigations "
    "demonstrate extraordinarily heterogeneous characteristics throughout the population."
)
MEASURES = list(readability._MEASURES)


@pytest.fixture(autouse=True)
def no_memory():
    """Which measures can be had is found out anew."""
    readability._grader.cache_clear()
    yield
    readability._grader.cache_clear()


@pytest.fixture
def dictionary(tmp_path, monkeypatch):
    """A dictionary of pronunciation, small, where nltk looks for it."""
    data = pytest.importorskip("nltk.data")
    path = tmp_path / "corpora" / "cmudict" / "cmudict"
    path.parent.mkdir(parents=True)
    path.write_text("CAT 1 K AE1 T\nMAT 1 M AE1 T\n", encoding="utf-8")
    monkeypatch.setattr(data, "path", [str(tmp_path), *data.path])


@pytest.fixture
def no_dictionary(monkeypatch):
    """A machine without the dictionary."""
    monkeypatch.setattr(pytest.importorskip("nltk.data"), "path", [])


def test_the_automated_readability_index():
    text = "I see a cat."  # 9 characters that are no space, 4 words, 1 sentence
    grade = 4.71 * 9 / 4 + 0.5 * 4 / 1 - 21.43
    assert Readability(target=None)(text) == pytest.approx(grade)
    assert Readability(target=grade)(text) == pytest.approx(1.0)
    assert Readability(target=grade + 1)(text) == pytest.approx(1 / 2)
    assert Readability(target=grade - 3)(text) == pytest.approx(1 / 4)


def test_the_coleman_liau_index():
    grade = 5.88 * 8 / 4 - 29.6 * 1 / 4 - 15.8
    score = Readability(target=None, measure="coleman_liau_index")("I see a cat.")
    # textstat rounds the first coefficient to 5.8.
    assert score == pytest.approx(grade - 0.08 * 8 / 4)


@pytest.mark.parametrize("measure", MEASURES)
def test_long_words_and_sentences_are_harder(dictionary, measure):
    grade = Readability(target=None, measure=measure)
    assert grade(EASY) < grade(HARD)
    towards = Readability(target=grade(EASY), measure=measure)
    assert towards(EASY) == 1.0 > towards(HARD)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("text", ["", " ", "...", "🙂", "(—)", "_"])
def test_a_text_without_a_word_scores_zero(dictionary, measure, text):
    assert Readability(measure=measure)(text) == 0.0
    assert Readability(target=None, measure=measure)(text) == 0.0


@pytest.mark.parametrize("measure", MEASURES)
def test_no_download_is_tried(no_dictionary, monkeypatch, measure):
    def download(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("nltk.download", download)
    if readability._MEASURES[measure]:
        cure = r"python -m nltk.downloader cmudict, or choose 'automated_readability_index' or "
        with pytest.raises(FileNotFoundError, match=f"measure '{measure}' needs .*{cure}"):
            Readability(measure=measure)
    else:
        assert 0.0 < Readability(measure=measure)(EASY) < 1.0


def test_textstat_is_wanted_when_the_reward_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "textstat", None)
    with pytest.raises(MissingExtra, match=r"reward 'readability' needs textstat, .*\[metrics\]"):
        Readability()


@pytest.mark.parametrize("measure", ["flesch", None, 3])
def test_a_measure_is_one_of_those(measure):
    with pytest.raises(ValueError, match="readability: measure is 'automated_readability_index', "):
        Readability(measure=measure)


@pytest.mark.parametrize("target", [float("nan"), float("inf"), "6", True])
def test_a_target_is_a_grade(target):
    with pytest.raises(ValueError, match=r"readability: target is a school grade, such as 6\.0"):
        Readability(target=target)
