"""The laws that all rewards with a reference or an answer keep."""

import copy
import pickle
import sys

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym  # noqa: F401  # registers the environments
from textgym import rewards
from textgym.checks import check_reward
from textgym.extras import MissingExtra
from textgym.rewards.bleu import Bleu
from textgym.rewards.chrf import Chrf
from textgym.rewards.contains import Contains
from textgym.rewards.edit_distance import EditDistance
from textgym.rewards.error_rate import ErrorRate
from textgym.rewards.exact_match import ExactMatch
from textgym.rewards.multiple_choice import MultipleChoice
from textgym.rewards.numeric_error import NumericError
from textgym.rewards.rouge import Rouge
from textgym.rewards.token_f1 import TokenF1
from textgym.tasks import Example, Task

# What each may be compared with.
SENTENCES = ["The cat sat on the mat, and a dog ran.", "all 3 were well", "世界 🙂 naïve", "a"]
LETTERS = ["A", "(B)", "the answer is c", "D. Paris"]
NUMBERS = ["7", "-12.5", "1,234", "0", "#### 6e23"]
REWARDS = [
    (Bleu(), SENTENCES),
    (Bleu(max_order=2, smooth="add-k", tokenize="char"), SENTENCES),
    (Chrf(), SENTENCES),
    (Chrf(word_order=2, beta=0.7, lowercase=True), SENTENCES),
    (Contains(), SENTENCES),
    (EditDistance(), SENTENCES),
    (ErrorRate(), SENTENCES),
    (ErrorRate(unit="word"), SENTENCES),
    (ExactMatch(), SENTENCES),
    (MultipleChoice(), LETTERS),
    (NumericError(), NUMBERS),
    (NumericError(scale=0.1, cap=50), NUMBERS),
    (Rouge(), SENTENCES),
    (Rouge("rouge1", "recall", stem=True), SENTENCES),
    (Rouge("rougeLsum", "precision"), SENTENCES),
    (TokenF1(), SENTENCES),
]
NAMES = {
    "bleu": {"name": "bleu", "max_order": 2},
    "chrf": {"name": "chrf", "word_order": 2},
    "contains": {"name": "contains", "ignore_case": False},
    "edit_distance": "edit_distance",
    "error_rate": {"name": "error_rate", "unit": "word"},
    "exact_match": {"name": "exact_match", "ignore_case": True},
    "multiple_choice": {"name": "multiple_choice", "choices": 5},
    "numeric_error": {"name": "numeric_error", "cap": 4.0},
    "rouge": {"name": "rouge", "kind": "rouge1"},
    "token_f1": {"name": "token_f1", "normalize": False},
}
EXAMPLES = {
    "multiple_choice": [Example("p", reference) for reference in LETTERS],
    "numeric_error": [Example("p", reference) for reference in NUMBERS],
}

texts = st.text(max_size=60) | st.text("aAbBcdD T0123456789.,-+()'eE\n", max_size=60)
every = pytest.mark.parametrize(
    ("reward", "references"), REWARDS, ids=lambda value: str(value)[:40]
)


@every
@given(data=st.data())
def test_a_score_keeps_its_range(reward, references, data):
    reference = data.draw(st.sampled_from(references))
    text = data.draw(texts | st.sampled_from(references).map(lambda it: it[: len(it) // 2]))
    low, high = reward.score_range
    assert low <= reward(text, reference) <= high


@every
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_reference_itself_is_a_success(reward, references, end):
    for reference in references:
        threshold = getattr(reward, "success_threshold", 1.0)
        if isinstance(reward, Rouge) and not reference.isascii():
            continue  # words are ASCII
        assert reward(reference + end, reference) >= threshold - 1e-6


@every
def test_the_empty_text_is_worth_the_least_or_nothing(reward, references):
    worst = -1.0 if isinstance(reward, ErrorRate) else reward.score_range[0]
    expected = 0.0 if isinstance(reward, MultipleChoice) else worst
    # "a" is no word to TokenF1, and of two texts without words one is as good as the other.
    references = references[:-1] if isinstance(reward, TokenF1) else references
    assert [reward("", reference) for reference in references] == [expected] * len(references)


@every
def test_a_copy_scores_alike(reward, references):
    for again in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert again == reward
        assert again.score_range == reward.score_range
        text, reference = references[0][:12], references[0]
        assert again(text, reference) == reward(text, reference)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract(name, byte_tokenizer):
    check_reward(
        NAMES[name],
        examples=EXAMPLES.get(name),
        tokenizer=byte_tokenizer,
        max_new_tokens=12,
    )


def make(name, example, byte_tokenizer):
    return gym.make(
        "TextGen-v0",
        task=Task("one", {"train": (example,)}),
        reward=NAMES[name],
        tokenizer=byte_tokenizer,
    )


@pytest.mark.parametrize("name", NAMES)
def test_writing_the_reference_earns_its_score_and_success(name, byte_tokenizer):
    reference = {"multiple_choice": "E", "numeric_error": "12.5"}.get(name, "the cat")
    env = make(name, Example("p", reference), byte_tokenizer)
    env.reset(seed=0)
    paid, info = [], {}
    for token in [*(byte + 1 for byte in reference.encode()), 0]:
        _, reward, _, _, info = env.step(token)
        paid.append(reward)
    success = 0.0 if name in ("error_rate", "numeric_error") else 1.0
    assert sum(paid) == pytest.approx(success, abs=1e-6)
    assert info.get("is_success") is (None if name == "rouge" else True)


def test_the_first_token_is_charged_for_the_empty_text(byte_tokenizer):
    env = make("error_rate", Example("p", "the cat"), byte_tokenizer)
    env.reset(seed=0)
    paid = [env.step(byte + 1)[1] for byte in b"the cat"]
    assert paid == pytest.approx([-1, 0, 0.5, 0, 0, 0, 0.5])


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_without_a_reference_is_an_error(name, byte_tokenizer):
    env = make(name, Example("p"), byte_tokenizer)
    env.reset(seed=0)
    with pytest.raises(rewards.RewardError, match=r"this prompt has (none|no reference)") as error:
        env.step(1 + ord("a"))
    assert error.value.name == name


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("bleu", "sacrebleu.metrics"),
        ("chrf", "sacrebleu.metrics"),
        ("rouge", "rouge_score.rouge_scorer"),
    ],
)
def test_without_its_library_it_says_what_to_install(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"reward '{name}' needs .*'textgym\[metrics\]'"):
        rewards.make(name)


def test_each_says_what_it_pays_and_needs():
    for reward, _ in REWARDS:
        first = type(reward).__doc__.splitlines()[0]
        assert first.endswith(".")
        assert 20 < len(first) < 100
        assert "reference" in type(reward).needs
        assert type(reward).score_range[0] < type(reward).score_range[1]
