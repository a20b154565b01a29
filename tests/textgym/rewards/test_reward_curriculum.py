"""Weights and bars that change with training: schedules and adaptive sums."""

import json

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym  # noqa: F401  # registers the environment
from textgym import rewards
from textgym.checks import check_reward
from textgym.rewards import make, replay
from textgym.rewards.adaptive import Adaptive
from textgym.rewards.schedule import Schedule
from textgym.tasks import Example


def ones(text: str) -> float:
    return float(text.count("1"))


def minus_twos(text: str) -> float:
    return -float(text.count("2"))


def play(reward, tokenizer, *texts):
    """What each text earned in all, played side by side."""
    ids = [tokenizer.encode_plain(text) for text in texts]
    played = replay(reward, tokenizer, [Example("p")] * len(texts), ids)
    return [sum(each.rewards) for each in played]


def test_the_factor_of_a_schedule():
    schedule = Schedule("length", start=1.0, end=0.2, tokens=100, after=50)
    assert [schedule.factor(t) for t in (0, 50, 100, 150, 1000)] == pytest.approx(
        [1.0, 1.0, 0.6, 0.2, 0.2]
    )
    cosine = Schedule("length", tokens=100, shape="cosine")
    assert [cosine.factor(t) for t in (0, 25, 50, 100)] == pytest.approx([0, 0.1464466, 0.5, 1])


def test_a_schedule_pays_an_episode_by_the_weight_at_its_beginning(byte_tokenizer):
    reward = make({"warm": {"name": "schedule", "reward": ones, "tokens": 10, "weight": 2.0}})
    assert play(reward, byte_tokenizer, "11111") == [0.0]
    assert play(reward, byte_tokenizer, "11111") == pytest.approx([2 * 0.5 * 5])
    assert reward.current_weights == {"warm/ones": pytest.approx(2.0)}
    assert play(reward, byte_tokenizer, "11", "1") == pytest.approx([4.0, 2.0])


def test_scores_are_shown_as_they_are(byte_tokenizer):
    reward = make({"warm": {"name": "schedule", "reward": ones, "weight": 2.0}, "twos": minus_twos})
    (played,) = replay(reward, byte_tokenizer, [Example("p")], [byte_tokenizer.encode_plain("112")])
    assert played.scores == {"warm/ones": 2.0, "twos": -1.0}
    assert played.score == pytest.approx(2.0 * 2.0 - 1.0)
    assert sum(played.rewards) == pytest.approx(-1.0)  # the schedule starts at nothing
    assert set(reward.components) == {"warm/ones", "twos"}


def adaptive(**kwargs):
    spec = {"name": "adaptive", "rewards": {"a": ones, "b": minus_twos}, "window": 2, **kwargs}
    return make({"both": spec})


def test_what_is_reached_yields_its_weight_to_what_is_not(byte_tokenizer):
    reward = adaptive(goals={"a": 3.0, "b": 0.0}, floor=0.25)
    even = {"both/a": 1.0, "both/b": 1.0}
    assert reward.current_weights == even
    play(reward, byte_tokenizer, "1112")  # one episode is no window
    assert reward.current_weights == even
    play(reward, byte_tokenizer, "1112")
    assert reward.current_weights == {"both/a": 0.25, "both/b": 1.75}
    assert play(reward, byte_tokenizer, "122") == pytest.approx([0.25 - 2 * 1.75])
    assert reward.current_weights == even  # the mean of a fell to 2
    play(reward, byte_tokenizer, "111", "111")
    assert reward.current_weights == even  # all is reached


def test_the_bar_rises_as_the_mean_reaches_it(byte_tokenizer):
    reward = adaptive(goals={"a": {"start": 2.0, "step": 2.0, "stop": 5.0}})
    assert play(reward, byte_tokenizer, "111", "1") == [2.0, 1.0]  # counts up to 2
    assert play(reward, byte_tokenizer, "111111", "11") == [4.0, 2.0]  # and now up to 4
    # Up to 5 now, though 6 were written.
    assert play(reward, byte_tokenizer, "111111") == [5.0]


def test_a_bar_below_nothing_pays_for_coming_nearer(byte_tokenizer):
    reward = adaptive(goals={"b": {"start": -2.0, "step": 1.0, "stop": 0.0}})
    # Two of them are within the bar; each beyond it costs.
    assert play(reward, byte_tokenizer, "22", "2222") == [0.0, -2.0]


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text("12", min_size=1, max_size=6), min_size=1, max_size=12))
def test_immediate_and_delayed_pay_the_same_as_weights_move(byte_tokenizer, texts):
    spec = {
        "name": "adaptive",
        "rewards": {"a": ones, "b": minus_twos},
        "goals": {"a": {"start": 1.0, "step": 0.5, "stop": 3.0}, "b": -1.0},
        "window": 2,
    }
    spec = {"slow": {"name": "schedule", "reward": spec, "tokens": 30, "start": 0.5}}
    immediate, delayed = make(spec), make(spec, "delayed")
    for text in texts:
        assert play(immediate, byte_tokenizer, text) == pytest.approx(
            play(delayed, byte_tokenizer, text), abs=1e-5
        )
        assert immediate.current_weights == pytest.approx(delayed.current_weights)
        weights = np.array(list(immediate.current_weights.values()))
        factor = next(iter(immediate.rewards.values())).curriculum.terms()["adaptive"].factor
        assert weights.sum() == pytest.approx(2 * factor)  # yielded, not lost


def test_a_state_goes_through_json_and_goes_on(byte_tokenizer):
    spec = {
        "name": "adaptive",
        "rewards": {"a": ones, "late": {"name": "schedule", "reward": minus_twos, "tokens": 9}},
        "goals": {"a": {"start": 1.0, "step": 1.0, "stop": 3.0}},
        "window": 2,
    }
    first, second = make(spec), make(spec)
    play(first, byte_tokenizer, "11", "112")
    state = json.loads(json.dumps(first.state_dict()))
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert second.current_weights == first.current_weights != make(spec).current_weights
    assert play(first, byte_tokenizer, "1112") == play(second, byte_tokenizer, "1112")


def test_the_state_of_other_rewards_is_refused():
    state = make({"x": {"name": "schedule", "reward": "length"}}).state_dict()
    with pytest.raises(ValueError, match=r"other rewards: it holds \['x'\].*these are \['length'"):
        make("length").load_state_dict(state)
    goals = adaptive(goals={"a": 1.0}).state_dict()
    with pytest.raises(ValueError, match="goals for \\['a'\\], and these are for \\['b'\\]"):
        adaptive(goals={"b": 1.0}).load_state_dict(goals)


def test_a_reward_without_a_course_has_no_state():
    assert make({"length": 1.0, "sentiment": 1.0}).state_dict() == {}


def test_environments_give_and_take_the_state(byte_tokenizer):
    spec = {"warm": {"name": "schedule", "reward": ones, "tokens": 4}}
    kwargs = {"reward": spec, "tokenizer": byte_tokenizer, "max_new_tokens": 2}
    envs = gym.make_vec("TextGen-v0", num_envs=2, **kwargs)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    env = gym.make("TextGen-v0", **kwargs).unwrapped
    env.load_reward_state(envs.unwrapped.reward_state())
    assert env.reward_weights() == envs.unwrapped.reward_weights() == {"warm/ones": 0.5}


def test_a_goal_is_for_the_score_whatever_it_pays_now(byte_tokenizer):
    slow = {"name": "schedule", "reward": ones, "tokens": 10**6}
    spec = {"name": "adaptive", "rewards": {"slow": slow, "b": minus_twos}, "goals": {"slow": 2.0}}
    reward = make({**spec, "window": 1, "floor": 0.5})
    play(reward, byte_tokenizer, "11")
    assert reward.current_weights["adaptive/b"] == 1.5


def test_the_weights_of_a_network_are_no_state(byte_tokenizer):
    class Judge:
        def score(self, samples):
            return [0.0] * len(samples)

        def state_dict(self):
            raise AssertionError("not asked for")

        def load_state_dict(self, state):
            raise AssertionError("not asked for")

    for timing in ("immediate", "delayed"):
        assert make(Judge(), timing).state_dict() == {}


def test_what_is_made_already_is_no_spec():
    with pytest.raises(TypeError, match=r"'WeightedSum' is made already.* give the spec"):
        make(make("length"))


def test_success_is_that_of_the_parts(byte_tokenizer):
    reward = make({"name": "schedule", "reward": {"target_token": {"target": "1"}}})
    ids = [byte_tokenizer.encode_plain(text) for text in ("11", "12")]
    replay(reward, byte_tokenizer, [Example("p")] * 2, ids)
    assert reward.success(np.arange(2)).tolist() == [True, False]


def test_adaptive_rewards_keep_the_contract():
    check_reward({"name": "adaptive", "rewards": ["length", "sentiment"], "goals": {"length": 0.5}})


def test_a_schedule_that_stands_still_keeps_the_contract():
    check_reward({"name": "schedule", "reward": "sentiment", "start": 0.5, "end": 0.5})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"start": "x"}, "schedule: start is a finite number, got 'x'"),
        ({"end": float("inf")}, "schedule: end is a finite number, got inf"),
        ({"tokens": 0}, "schedule: tokens is a whole number of at least 1, got 0"),
        ({"after": -1}, "schedule: after is a whole number of at least 0, got -1"),
        ({"shape": "round"}, "schedule: shape is one of linear, cosine, got 'round'"),
        ({"reward": "lenght"}, "did you mean 'length'"),
    ],
)
def test_a_schedule_refuses(spec, message):
    with pytest.raises(ValueError, match=message):
        make({"name": "schedule", "reward": "length", **spec})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"window": 0}, "adaptive: window is a whole number of episodes, at least 1, got 0"),
        ({"floor": 2}, "adaptive: floor is a share from 0 to 1, got 2"),
        ({"goals": {}}, "adaptive: goals are scores by the rewards' names"),
        ({"goals": {"lenght": 1}}, "a goal is set for 'lenght'.*did you mean 'length'"),
        (
            {"rewards": {"length": -1.0}},
            "'length' has a goal and the weight -1, so that less of it",
        ),
        (
            {
                "rewards": {"slow": {"name": "schedule", "reward": "length"}},
                "goals": {"slow": {"start": 0, "step": 1, "stop": 2}},
            },
            "'slow' is made of other rewards and cannot have a bar",
        ),
        ({"goals": {"length": "high"}}, "the goal of 'length' is a score, or a bar"),
        ({"goals": {"length": {"start": 1}}}, "the goal of 'length' is a score, or a bar"),
        (
            {"goals": {"length": {"start": 1, "step": 1, "stop": 0}}},
            "the bar of 'length' rises from start to a higher stop",
        ),
    ],
)
def test_an_adaptive_reward_refuses(spec, message):
    with pytest.raises(ValueError, match=message):
        make({"name": "adaptive", "rewards": {"length": 1.0}, "goals": {"length": 1}, **spec})


def test_a_missing_parameter_is_named():
    with pytest.raises(TypeError, match="'adaptive': missing a required argument: 'rewards"):
        make("adaptive")


def test_both_are_plain_python_too(byte_tokenizer):
    spec = Adaptive(rewards=Schedule(ones, start=1.0), goals={"Schedule": 1.0})
    assert play(rewards.make(spec), byte_tokenizer, "11") == [2.0]
