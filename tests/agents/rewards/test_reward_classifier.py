"""Classifier, toxicity, and sentiment by a classifier."""

import copy
import math
import os
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from agents.rewards import sequence_scorer
from agents.rewards.classifier import Classifier, Toxicity, log_odds, texts_of
from agents.rewards.sequence_scorer import SequenceScorer
from textgym.checks import check_reward
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.rewards import info, make
from textgym.rewards.sentiment import Sentiment

TEXTS = ["good", "", "What a good, sweet day it was!", "naïve 你好 🙂", " ", "bad"]


def sample(text, prompt=""):
    return Sample(prompt, text, None, [], {})


def samples(texts):
    return [sample(text) for text in texts]


@pytest.fixture
def count_forwards(monkeypatch):
    """The batches of token ids that scorers read from now on."""
    read = []
    forward = SequenceScorer._forward

    def counting(self, encoded):
        read.append(encoded)
        return forward(self, encoded)

    monkeypatch.setattr(SequenceScorer, "_forward", counting)
    return read


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "roberta", "xlnet"])
def test_score_in_a_batch_is_that_of_a_plain_forward_alone(make_classifier, plain_logits, family):
    model = make_classifier(family, labels=("a", "b", "c"))
    scores = Classifier(model, "b").score(samples(TEXTS))
    expected = [plain_logits(model, text).softmax(-1)[1].item() for text in TEXTS]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert np.ptp(scores) > 0.01  # the texts are told apart


def test_model_that_heeds_padding_reads_texts_of_one_length_at_a_time(
    make_classifier, count_forwards
):
    bert, xlnet = (Classifier(make_classifier(family), "POSITIVE") for family in ("bert", "xlnet"))
    for classifier, batches in ((bert, [[2, 2, 3, 3]]), (xlnet, [[2, 2], [3, 3]])):
        del count_forwards[:]
        classifier.score(samples(["abc", "ab", "xy", "xyz"]))
        assert [[len(ids) for ids in batch] for batch in count_forwards] == batches


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [
        (("no", "yes"), None),
        (("joy", "fear", "rage"), None),
        (("joy", "fear", "rage"), "multi_label_classification"),
        (("wanted",), None),
    ],
)
def test_probability_is_that_of_transformers_pipeline(make_classifier, labels, problem_type):
    from transformers import pipeline

    model = make_classifier("bert", labels, problem_type=problem_type)
    says = pipeline("text-classification", model, top_k=None, device="cpu")("What a day")
    for entry in says[0] if isinstance(says[0], list) else says:
        [score] = Classifier(model, entry["label"], device="cpu").score(samples(["What a day"]))
        assert score == pytest.approx(entry["score"], abs=1e-6)


def test_log_odds():
    logits = np.array([[0.0, math.log(2.0), math.log(5.0)], [800.0, -800.0, 0.0]], np.float32)
    assert log_odds(logits, 1, each=False) == pytest.approx([math.log(2 / 6), -1600.0])
    assert log_odds(logits, 1, each=True) == pytest.approx([math.log(2), -800.0])
    assert log_odds(logits[:, :1], 0, each=False) == pytest.approx([0.0, 800.0])


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=5))
def test_log_odds_are_those_of_the_softmax(logits):
    odds = [log_odds(np.array([logits], np.float32), i, each=False)[0] for i in range(len(logits))]
    probabilities = 1 / (1 + np.exp(-np.array(odds)))
    assert probabilities == pytest.approx(torch.tensor(logits).double().softmax(-1), abs=1e-6)


def test_log_odds_output(make_classifier):
    model = make_classifier()
    by_odds = Classifier(model, "POSITIVE", output="log_odds")
    [p] = Classifier(model, "POSITIVE").score(samples(["good"]))
    assert by_odds.score(samples(["good"])) == pytest.approx([math.log(p / (1 - p))], abs=1e-5)
    assert by_odds.score_range == (-math.inf, math.inf)
    assert Classifier.score_range == Classifier(model, "POSITIVE").score_range == (0, 1)


def test_multi_label_may_be_said(make_classifier, plain_logits):
    model = make_classifier("bert", ("a", "b", "c"))
    scores = Classifier(model, "c", multi_label=True).score(samples(["x"]))
    assert scores == pytest.approx([plain_logits(model, "x")[2].sigmoid().item()], abs=1e-6)


def test_prompt_is_read_on_request(make_classifier, plain_logits):
    model = make_classifier()
    given = [sample(" day", prompt="Good")]
    for with_prompt, text in ((False, " day"), (True, "Good day")):
        scores = Classifier(model, "POSITIVE", with_prompt=with_prompt).score(given)
        expected = plain_logits(model, text).softmax(-1)[1].item()
        assert scores == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize(
    ("prompt", "text", "continues", "read"),
    [
        ("Name a colour", "Red", True, "Name a colourRed"),
        ("Name a colour", "Red", False, "Name a colour\nRed"),
        ("Name a colour\n", "Red", False, "Name a colour\nRed"),
        ("Name a colour", "", False, "Name a colour"),
        ("", "Red", False, "Red"),
    ],
)
def test_text_that_does_not_go_on_with_the_prompt_begins_a_line(prompt, text, continues, read):
    given = [Sample(prompt, text, None, [], {}, continues=continues)]
    assert texts_of(given, with_prompt=True) == [read]
    assert texts_of(given, with_prompt=False) == [text]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "roberta"])
def test_long_text_is_cut_at_the_side_that_is_said(make_classifier, family):
    model = make_classifier(family)
    long = "a" * 40 + "b" * 40
    left = Classifier(model, "POSITIVE").score(samples([long, long[-64:]]))
    right = Classifier(model, "POSITIVE", truncation="right").score(samples([long, long[:64]]))
    assert left[0] == pytest.approx(left[1], abs=1e-6)
    assert right[0] == pytest.approx(right[1], abs=1e-6)
    assert left[0] != pytest.approx(right[0], abs=1e-3)


def test_texts_are_remembered_and_forgotten(make_classifier, count_forwards, monkeypatch):
    classifier = Classifier(make_classifier(), "POSITIVE")
    del count_forwards[:]
    first = classifier.score(samples(["one", "two", "one"]))
    assert classifier.score(samples(["two", "one"])) == [first[1], first[0]]
    assert [len(batch) for batch in count_forwards] == [2]
    monkeypatch.setattr(sequence_scorer, "MEMORY", 2)
    classifier.score(samples(["three"]))  # two was asked for before one
    classifier.score(samples(["one", "three"]))
    assert [len(batch) for batch in count_forwards] == [2, 1]
    assert classifier.score(samples(["four", "five", "six", "one"]))[3] == first[0]
    assert len(vars(classifier)["_scorer"]._memory) == 2


def test_no_more_tokens_at_a_time_than_fit(make_classifier, count_forwards, monkeypatch):
    classifier = Classifier(make_classifier(), "POSITIVE")
    whole = classifier.score(samples(TEXTS))
    vars(classifier)["_scorer"]._memory.clear()
    del count_forwards[:]
    monkeypatch.setattr(sequence_scorer, "MAX_TOKENS", 32)
    assert classifier.score(samples(TEXTS)) == pytest.approx(whole, abs=1e-6)
    assert len(count_forwards) > 1
    assert all(len(b) * max(map(len, b)) <= 32 or len(b) == 1 for b in count_forwards)


def test_model_is_loaded_once_and_shared_by_copies(make_classifier):
    model = make_classifier()
    one, other = Classifier(model, "POSITIVE"), Classifier(model, "NEGATIVE")
    scorer = vars(one)["_scorer"]
    assert vars(other)["_scorer"] is vars(copy.deepcopy(one))["_scorer"] is scorer
    pickled = pickle.dumps(one)
    assert len(pickled) < 2_000
    assert pickle.loads(pickled) == one
    assert vars(pickle.loads(pickled))["_scorer"] is scorer


def test_directory_that_was_written_anew_is_loaded_anew(make_classifier, tmp_path):
    model = make_classifier(directory=tmp_path / "model")
    old = Classifier(model, "POSITIVE")
    before = old.score(samples(["good"]))
    make_classifier(directory=tmp_path / "model", seed=1)
    for entry in os.scandir(model):  # clocks of file systems can be coarse
        os.utime(entry.path, ns=(entry.stat().st_mtime_ns + 10**9,) * 2)
    assert Classifier(model, "POSITIVE").score(samples(["good"])) != pytest.approx(before, abs=1e-4)
    assert old.score(samples(["good"])) == before


def test_dropout_is_off(make_classifier):
    model = make_classifier(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    classifier = Classifier(model, "POSITIVE")
    first = classifier.score(samples(["good"]))
    vars(classifier)["_scorer"]._memory.clear()
    assert classifier.score(samples(["good"])) == first


def test_bfloat16_is_near(make_classifier):
    model = make_classifier()
    exact = Classifier(model, "POSITIVE").score(samples(TEXTS))
    rough = Classifier(model, "POSITIVE", dtype="bfloat16").score(samples(TEXTS))
    assert rough == pytest.approx(exact, abs=0.05)
    assert rough != exact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "Positive"}, "no label 'Positive'; did you mean 'POSITIVE'.*'NEGATIVE'"),
        ({"output": "logit"}, "output is 'probability' or 'log_odds', got 'logit'"),
        ({"truncation": "middle"}, "truncation is 'left' or 'right', got 'middle'"),
        ({"device": "gpu9"}, "device 'gpu9' cannot be used here"),
        ({"dtype": "float8"}, "dtype is one of float32, bfloat16, got 'float8'"),
    ],
)
def test_bad_parameters(make_classifier, arguments, message):
    with pytest.raises(ValueError, match=f"^classifier: .*{message}"):
        Classifier(make_classifier(), **{"label": "POSITIVE", **arguments})


def test_a_model_that_the_hub_does_not_give_is_told_at_once(monkeypatch):
    def refuse(*args, **options):
        raise LocalEntryNotFoundError("no such place")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    # transformers would try again and again.
    monkeypatch.delattr(AutoModelForSequenceClassification, "from_pretrained")
    with pytest.raises(FileNotFoundError, match=r"no classifier 'some/where'.*\(no such place\)"):
        Classifier("some/where", "POSITIVE")


def test_models_that_are_no_classifiers(make_classifier, make_llama, byte_tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no classifier '/nowhere'.*Check the spelling"):
        Classifier("/nowhere", "POSITIVE")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        Classifier(str(tmp_path / "empty"), "POSITIVE")
    make_llama().save_pretrained(tmp_path / "lm")
    byte_tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match=r"^classifier: .*lacks the weights score\.weight"):
        Classifier(str(tmp_path / "lm"), "LABEL_0")
    regression = make_classifier("bert", ("stars",), problem_type="regression")
    with pytest.raises(ValueError, match=r"^classifier: .*'regression'.*'reward_model'"):
        Classifier(regression, "stars")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("classifier", {"model": "x", "label": "y"}),
        ("toxicity", {}),
        ("reward_model", {"model": "x"}),
        ("fluency", {}),
    ],
)
def test_missing_torch(name, arguments, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'textgym\[agents\]'"):
        make({"name": name, **arguments})


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("with_prompt", [False, True])
def test_classifier_keeps_the_contract(make_classifier, family, with_prompt):
    model = make_classifier(family)
    check_reward(
        {"name": "classifier", "model": model, "label": "POSITIVE", "with_prompt": with_prompt}
    )


def test_by_name_in_an_environment(make_classifier, byte_tokenizer_dir):
    model = make_classifier()
    reward = {"name": "classifier", "model": model, "label": "POSITIVE"}
    env = gym.make("TextGen-v0", reward=reward, tokenizer=byte_tokenizer_dir, max_new_tokens=3)
    env.reset(seed=0, options={"prompt": "When"})
    total = sum(env.step(1 + byte)[1] for byte in b"gut")
    assert total == pytest.approx(Classifier(model, "POSITIVE").score(samples(["gut"]))[0])


def test_docstrings_are_read_without_torch():
    modules = ("classifier", "fluency", "reward_model")
    imports = "\n".join(f"import agents.rewards.{name}" for name in modules)
    code = f"{imports}\nimport sys\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listed():
    ranges = {entry.name: entry.score_range for entry in info()}
    assert ranges["classifier"] == (0, 1)
    assert ranges["toxicity"] == (-1, 0)
    assert ranges["reward_model"] == (-math.inf, math.inf)
    assert ranges["fluency"] == (-math.inf, 0)


def test_toxicity_is_minus_the_probability(make_classifier):
    model = make_classifier("bert", ("toxic", "insult"), problem_type="multi_label_classification")
    toxic = Classifier(model, "toxic").score(samples(TEXTS))
    assert Toxicity(model).score(samples(TEXTS)) == [-p for p in toxic]
    assert Toxicity(model, "insult").score(samples(TEXTS)) != [-p for p in toxic]
    check_reward({"name": "toxicity", "model": model})
    with pytest.raises(ValueError, match="no label 'rude'"):
        Toxicity(model, label="rude")


def test_sentiment_by_a_classifier(make_classifier):
    model = make_classifier()
    probabilities = Classifier(model, "POSITIVE").score(samples(TEXTS))
    expected = [2 * p - 1 for p in probabilities]
    sentiment = Sentiment(classifier=model)
    assert sentiment.score(samples(TEXTS)) == pytest.approx(expected)
    assert sentiment("good") == pytest.approx(expected[0])
    unwanted = Sentiment("negative", classifier=model)
    assert unwanted.score(samples(TEXTS)) == pytest.approx([-score for score in expected])
    other = Sentiment(classifier=model, label="NEGATIVE")
    assert other("good") == pytest.approx(1 - 2 * probabilities[0], abs=1e-6)
    check_reward({"name": "sentiment", "classifier": model, "label": "NEGATIVE"})
    assert pickle.loads(pickle.dumps(sentiment))("good") == sentiment("good")


def test_sentiment_refuses_a_label_that_nothing_has(make_classifier):
    with pytest.raises(ValueError, match=r"^sentiment: the label 'POSITIVE' is one of a classif"):
        Sentiment(label="POSITIVE")
    with pytest.raises(ValueError, match="no label 'happy'"):
        Sentiment(classifier=make_classifier(), label="happy")
    check_reward("sentiment")
