"""Words that are wanted, and words that are not."""

import pytest

from textgym.rewards.banned_words import BannedWords
from textgym.rewards.keywords import Keywords


def test_every_use_of_a_banned_word_counts():
    score = BannedWords(["very", "of course", "c++"])
    assert score("Very, very good.") == -2.0
    assert score("Of course (C++) of Course") == -3.0
    assert score("every verydon c+") == 0.0
    assert str(score("")) == "0.0"


def test_a_word_that_grows_is_paid_back():
    score = BannedWords(["just"])
    assert [score(text) for text in ("ju", "just", "justi", "just ice")] == [0.0, -1.0, 0.0, -1.0]


def test_case_is_ignored_as_unicode_has_it():
    assert BannedWords(["straße"])("Strasse, STRASSE, Straße") == -3.0
    assert Keywords(["STRASSE", "Ὀδός"])("die straße, ΟΔΌΣ ὀδόσ") == 1.0


@pytest.mark.parametrize("name", ["keywords", "banned_words"])
@pytest.mark.parametrize("words", ["king", [], [""], [3], 3])
def test_what_is_no_list_of_words_is_refused(name, words):
    reward = {"keywords": Keywords, "banned_words": BannedWords}[name]
    with pytest.raises(ValueError, match=f"^{name}: expected a list of words, such as \\["):
        reward(words)
