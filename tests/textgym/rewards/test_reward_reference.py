"""Rewards that compare the text with a reference: their formulas, against hand and library."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from textgym.rewards.bleu import Bleu
from textgym.rewards.chrf import Chrf
from textgym.rewards.error_rate import ErrorRate
from textgym.rewards.rouge import Rouge
from textgym.rewards.token_f1 import TokenF1

WORDS = ["the", "cat", "sat", "on", "a", "mat", ",", "THE", "Cats", "running", ".", "1,000"]
WORDS += ["naïve", "你好", "it's", "&amp;", "-\n", "x"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30)
pairs = settings(max_examples=200, deadline=None)


def test_error_rate_counts_edits_against_the_length_of_the_reference():
    assert ErrorRate()("abcd", " abcd\n") == 0.0
    assert ErrorRate()("abed", "abcd") == -0.25
    assert ErrorRate()("", "abcd") == -1.0
    assert ErrorRate()("abcdabcdabcd", "abcd") == -2.0
    assert ErrorRate()("", "") == 0.0
    assert ErrorRate()("abc", "") == -3.0
    assert ErrorRate()("ABCD", "abcd") == -1.0
    assert ErrorRate(ignore_case=True)("STRASSE", "straße") == 0.0


def test_word_error_rate_counts_words():
    score = ErrorRate(unit="word")
    assert score("the  cat\nsat", "the cat sat") == 0.0
    assert score("the cat", "the cat sat down") == -0.5
    assert score("a cat sat", "the cat sat") == pytest.approx(-1 / 3)
    assert score("", "the cat") == -1.0


def test_token_f1_is_that_of_squad():
    score = TokenF1()
    assert score("The cat.", "a CAT") == 1.0
    # 2 of 3 words, 2 of 4
    assert score("cat sat there", "the cat sat on mats") == pytest.approx(4 / 7)
    assert score("cat cat cat", "cat dog") == pytest.approx(2 / 5)
    assert score("dog", "cat") == 0.0
    assert score("", "cat") == 0.0
    assert score("cat", "the") == 0.0
    assert score("", "the") == score("", "") == 1.0
    assert score("it's", "its") == 1.0
    assert TokenF1(normalize=False)("The cat.", "The cat") == 0.5


@pairs
@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_token_f1_sees_no_order_and_no_side(words, others):
    text, reference = " ".join(words), " ".join(others)
    score = TokenF1(normalize=False)
    assert score(text, reference) == score(" ".join(sorted(words)), reference)
    assert score(text, reference) == score(reference, text)


def test_bleu_by_hand():
    assert Bleu()("the cat sat on the mat", "the cat sat on the mat") == 1.0
    # All n-grams match; only the brevity penalty exp(1 - 6 / 2) is left.
    assert Bleu()("the cat", "the cat sat on the mat") == pytest.approx(2.718281828**-2)
    # 3 of 4 words, 1 of 3 pairs
    assert Bleu(max_order=2)("a b x c", "a b c d") == pytest.approx((3 / 4 * 1 / 3) ** 0.5)
    assert Bleu()("", "the cat") == Bleu()("dog", "the cat") == Bleu()("", "") == 0.0
    assert Bleu()("The Cat", "the cat") == 0.0
    assert Bleu(lowercase=True)("The Cat", "the cat") == 1.0
    assert Bleu(tokenize="char")("你好世界", "你好世人") > 0.5


@pairs
@given(texts, texts)
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"lowercase": True, "max_order": 2},
        {"tokenize": "intl", "smooth": "floor"},
        {"tokenize": "zh", "smooth": "add-k"},
        {"tokenize": "none", "smooth": "none"},
        {"tokenize": "char"},
    ],
)
def test_bleu_is_the_sentence_score_of_sacrebleu(params, text, reference):
    plain = BLEU(
        effective_order=True,
        max_ngram_order=params.get("max_order", 4),
        lowercase=params.get("lowercase", False),
        tokenize=params.get("tokenize"),
        smooth_method=params.get("smooth", "exp"),
    )
    expected = min(1.0, plain.sentence_score(text, [reference]).score / 100)
    assert Bleu(**params)(text, reference) == expected


def test_chrf_by_hand():
    assert Chrf()("the cat", "the cat") == 1.0
    assert Chrf()("", "the cat") == Chrf()("xyz", "the cat") == Chrf()("", "") == 0.0
    # Precision 1 / 2 and recall 1 / 4 of characters, beta 1
    assert Chrf(char_order=1, beta=1)("ax", "abcd") == pytest.approx(1 / 3)
    assert Chrf()("runn", "running") > Chrf()("run", "running") > Chrf()("ru", "running") > 0


@pairs
@given(texts, texts)
@pytest.mark.parametrize(
    "params",
    [{}, {"word_order": 2}, {"char_order": 3, "lowercase": True}, {"beta": 1}, {"beta": 0.7}],
)
def test_chrf_is_the_sentence_score_of_sacrebleu(params, text, reference):
    expected = CHRF(**params).sentence_score(text, [reference]).score / 100
    assert Chrf(**params)(text, reference) == min(1.0, expected)


def test_rouge_by_hand():
    text, reference = "the cat ran on a mat", "The cat sat on the mat."
    # the cat on mat, of 6 words each
    assert Rouge()(text, reference) == pytest.approx(4 / 6)
    assert Rouge("rouge2")(text, reference) == pytest.approx(1 / 5)
    assert Rouge(measure="precision")("the cat", reference) == 1.0
    assert Rouge(measure="recall")("the cat", reference) == pytest.approx(2 / 6)
    assert Rouge()("", reference) == Rouge()("你好", "你好") == Rouge()("", "") == 0.0
    assert Rouge("rouge3")("the cat", "the cat") == 0.0
    assert Rouge("rouge1")("running", "runs") == 0.0
    assert Rouge("rouge1", stem=True)("running", "runs") == 1.0


@pairs
@given(texts, texts)
@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rouge4", "rougeL", "rougeLsum"])
@pytest.mark.parametrize("stem", [False, True])
def test_rouge_is_the_score_of_rouge_score(kind, stem, text, reference):
    expected = RougeScorer([kind], use_stemmer=stem).score(reference, text)[kind]
    scores = [
        Rouge(kind, measure, stem)(text, reference) for measure in ("precision", "recall", "f")
    ]
    assert scores == list(expected)


def test_rouge_finds_long_common_subsequences():
    draw = random.Random(0)
    for _ in range(20):
        text, reference = (
            " ".join(draw.choices("abcdefghij", k=draw.randint(60, 200))) for _ in range(2)
        )
        expected = RougeScorer(["rougeL"]).score(reference, text)["rougeL"]
        assert Rouge()(text, reference) == expected.fmeasure


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ErrorRate("token"), "error_rate: unit is 'character' or 'word', got 'token'"),
        (lambda: Bleu(max_order=0), "bleu: max_order is a whole number from 1 to 100, got 0"),
        (lambda: Bleu(max_order=True), "bleu: max_order is a whole number .* got True"),
        (
            lambda: Bleu(tokenize="flores200"),
            "bleu: tokenize is '13a', .* got 'flores200'",
        ),
        (lambda: Bleu(smooth="some"), "bleu: smooth is 'exp', .* got 'some'"),
        (lambda: Chrf(char_order=0), "chrf: char_order is a whole number from 1 to 100, got 0"),
        (lambda: Chrf(word_order=-1), "chrf: word_order is a whole number from 0 to 100, got -1"),
        (lambda: Chrf(beta=float("nan")), "chrf: beta is a number above 0, got nan"),
        (lambda: Rouge("rouge0"), "rouge: kind is 'rouge1' to 'rouge9', .* got 'rouge0'"),
        (lambda: Rouge(measure="fmeasure"), "rouge: measure is 'f', .* got 'fmeasure'"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
