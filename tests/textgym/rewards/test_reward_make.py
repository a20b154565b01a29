"""What is taken for a reward, and what is made of it."""

import json
import pickle
import sys
import threading

import gymnasium as gym
import numpy as np
import pytest

import textgym  # registers the environments
from textgym import rewards
from textgym.rewards import WeightedSum, make
from textgym.rewards.length import Length
from textgym.rewards.make import _REGISTRY
from textgym.rewards.shaping import DelayedReward, DelayedScore, ImmediateScore

MODULE = """
from functools import lru_cache

def rate(text, scale=1.0):
    return scale * len(text)

class Rater:
    def __init__(self, scale=1.0):
        self.scale = scale
    def __call__(self, text):
        return self.scale * len(text)

class Box:
    rate = staticmethod(rate)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_rewards"
    sys.modules.pop("my_rewards", None)


def mine(text):
    return 0.0


def weights(spec):
    return make(spec).weights


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("length", {"length": 1.0}),
        ({"name": "length", "target": 20}, {"length": 1.0}),
        ({"name": "length", "weight": 0.5}, {"length": 0.5}),
        (
            {"sentiment": 1.0, "length": {"target": 20, "weight": 0.1}},
            {"sentiment": 1.0, "length": 0.1},
        ),
        ([{"name": "length"}, "sentiment"], {"length": 1.0, "sentiment": 1.0}),
        ([{"sentiment": 2, "length": 0}, mine], {"sentiment": 2.0, "length": 0.0, "mine": 1.0}),
        ({"own": mine}, {"own": 1.0}),
        ({"own": {"name": mine, "weight": -0.5}}, {"own": -0.5}),
        ([{"name": mine, "weight": np.float32(0.5)}], {"mine": 0.5}),
        ({"short": {"name": "length", "target": 3}, "long": {"name": "length"}}, None),
        (lambda text: 0.0, {"lambda": 1.0}),
        (Length(target=3), {"Length": 1.0}),
        (Length, {"Length": 1.0}),
        ({"name": Length, "target": 3}, {"Length": 1.0}),
        (("length", "sentiment"), {"length": 1.0, "sentiment": 1.0}),
    ],
)
def test_specs(spec, expected):
    assert weights(spec) == (expected or {"short": 1.0, "long": 1.0})


def test_json_specs_survive_json():
    spec = {"sentiment": 1.0, "length": {"target": 20, "weight": 0.1}}
    again = json.loads(json.dumps(spec))
    assert weights(again) == weights(spec)
    assert spec == again  # not changed by make


def test_parameters_reach_the_reward():
    made = make({"short": {"name": "length", "target": 3, "weight": 2}, "length": {"target": 9}})
    assert made.rewards == {"short": Length(3), "length": Length(9)}
    assert made.weights == {"short": 2.0, "length": 1.0}
    assert make({"name": Length, "target": 4}).rewards == {"Length": Length(4)}


def test_what_a_path_names(module, byte_tokenizer):
    def value(spec):
        env = gym.make("TextGen-v0", reward=spec, tokenizer=byte_tokenizer)
        env.reset(seed=0)
        return env.step(70)[4]["reward_components"]

    assert value("my_rewards:rate") == {"rate": 1.0}
    assert value({"name": "my_rewards:rate", "scale": 2.0}) == {"rate": 2.0}
    assert value("my_rewards:Rater") == {"Rater": 1.0}
    assert value({"name": "my_rewards:Rater", "scale": 3.0}) == {"Rater": 3.0}
    assert value("my_rewards:Box.rate") == {"Box.rate": 1.0}
    assert weights({"my_rewards:rate": 0.5}) == {"rate": 0.5}
    assert weights({"own": {"name": "my_rewards:rate", "weight": 2.0}}) == {"own": 2.0}


def test_a_path_that_leads_nowhere_says_so(module):
    for path in ("no_such_module:f", "my_rewards:nothing", "my_rewards:", ":f"):
        with pytest.raises(ValueError, match="cannot be imported"):
            make(path)


def test_registering_makes_a_name(monkeypatch):
    monkeypatch.setattr(_REGISTRY, "_factories", dict(_REGISTRY._factories))
    rewards.register("mine", lambda scale=1.0: lambda text: scale * len(text))
    assert "mine" in rewards.names()
    assert weights({"mine": {"scale": 2.0}}) == {"mine": 1.0}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("sentimant", ValueError, "did you mean 'sentiment'"),
        ({"name": "length", "targt": 3}, TypeError, "unexpected keyword argument 'targt'"),
        ({"name": mine, "scale": 3}, TypeError, "reward 'mine': .*'scale'"),
        ({"name": Length(), "target": 3}, TypeError, "reward 'Length': .*not a callable object"),
        (["length", {"name": "length", "target": 3}], ValueError, "two rewards are called"),
        ([lambda text: 0.0, lambda text: 1.0], ValueError, "two rewards are called 'lambda'"),
        ({}, ValueError, "asks for no reward; name at least one"),
        ([], ValueError, "asks for no reward"),
        (3, TypeError, "expected a reward as a name, a mapping"),
        (None, TypeError, "expected a reward"),
        ({"length": None}, TypeError, "expected a reward"),
        ({"length": True}, TypeError, "expected a reward"),
        (b"length", TypeError, "expected a reward"),
        ({"name": "length", "weight": "1"}, ValueError, "weight is a finite number, got '1'"),
        ({"length": float("nan")}, ValueError, "weight is a finite number, got nan"),
        ({"length": float("inf")}, ValueError, "weight is a finite number, got inf"),
        ({"length": 1e39}, ValueError, "weight is a finite number"),
        ({"name": "length", "weight": True}, ValueError, "weight is a finite number, got True"),
    ],
)
def test_what_is_no_reward_is_refused_with_a_cure(spec, error, message):
    with pytest.raises(error, match=message):
        make(spec)


def test_unknown_timings_are_refused():
    with pytest.raises(ValueError, match="timing is one of immediate, delayed, got 'late'"):
        make("length", "late")
    with pytest.raises(ValueError, match="every is one of token, word, sentence, got 'line'"):
        make("length", every="line")


def test_timing_decides_the_shape():
    def shaped(spec, *timing):
        (reward,) = make(spec, *timing).rewards.values()
        return type(reward)

    assert shaped("length", "immediate", "word") is Length
    assert shaped("length", "delayed") is DelayedReward
    assert shaped("sentiment", "immediate") is ImmediateScore
    assert shaped("sentiment", "delayed") is DelayedScore


class Counter:
    """A reward with state: how many tokens the row has had."""

    def __init__(self):
        self.counts = np.zeros(0)

    def start(self, rows, completions):
        if len(self.counts) != completions.num_rows:
            self.counts = np.zeros(completions.num_rows)
        self.counts[rows] = 0

    def step(self, rows, tokens, completions):
        self.counts[rows] += 1
        return self.counts[rows].astype(np.float32)


def test_one_object_can_be_given_to_several_environments(byte_tokenizer):
    counter = Counter()
    envs = [
        gym.make("TextGen-v0", reward=counter, tokenizer=byte_tokenizer, max_new_tokens=5)
        for _ in range(2)
    ]
    for env in envs:
        env.reset(seed=0)
    for expected in (1.0, 2.0, 3.0):
        assert [env.step(70)[1] for env in envs] == [expected, expected]
    assert len(counter.counts) == 0


def test_a_reward_that_cannot_be_copied_says_what_to_do():
    counter = Counter()
    counter.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"'Counter' cannot be copied.*Give its class instead"):
        make(counter)
    assert weights(Counter) == {"Counter": 1.0}


def test_the_whole_can_be_pickled():
    again = pickle.loads(pickle.dumps(make({"length": 1.0, "keywords": 0.5, "own": mine})))
    assert isinstance(again, WeightedSum)
    assert again.weights == {"length": 1.0, "keywords": 0.5, "own": 1.0}


def test_weights_and_components_add_up(byte_tokenizer):
    spec = {"length": 2.0, "vowels": {"name": lambda text: text.count("a"), "weight": -0.5}}
    env = gym.make("TextGen-v0", reward=spec, tokenizer=byte_tokenizer, max_new_tokens=4)
    env.reset(seed=0)
    total = 0.0
    for token in b"aba":
        _, reward, *_, info = env.step(token + 1)
        parts = info["reward_components"]
        assert list(parts) == ["length", "vowels"]
        assert reward == pytest.approx(sum(parts.values()))
        assert parts["length"] == pytest.approx(0.5)
        assert parts["vowels"] == (-0.5 if token == ord("a") else 0.0)
        total += reward
    *_, info = env.step(0)
    assert info["scores"] == {"length": pytest.approx(0.75), "vowels": 2.0}
    assert total == pytest.approx(2.0 * 0.75 - 0.5 * 2.0)


def test_a_weight_of_zero_watches_without_paying(byte_tokenizer):
    spec = {"length": 1.0, "keywords": {"words": ["a"], "weight": 0.0}}
    env = gym.make("TextGen-v0", reward=spec, tokenizer=byte_tokenizer, max_new_tokens=4)
    env.reset(seed=0)
    assert env.step(1 + ord("a"))[1] == pytest.approx(0.25)
    *_, info = env.step(0)
    assert info["scores"]["keywords"] == 1.0


def test_public_names():
    assert textgym.RewardError is rewards.RewardError
    assert rewards.names() == sorted(rewards.names())
    assert {"length", "edit_distance", "exact_match", "sentiment", "keywords", "target_token"} <= {
        *rewards.names()
    }
