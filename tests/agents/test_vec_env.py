import csv

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import textgym
from agents import VectorEnvBridge, make_sb3_vec_env
from textgym import TextGenVectorEnv
from textgym.tokenizer import Tokenizer

gym.register_envs(textgym)

SAME_STEP = AutoresetMode.SAME_STEP


@pytest.fixture
def text_kwargs(tiny_tokenizer_dir):
    """Episodes of 1 to 6 tokens: some end with the end-of-text token, others with the budget."""
    return {
        "task": {"name": "target_token", "targets": [*"abcdefghij"], "num_prompts": 20},
        "reward": ["target_token", {"name": "length", "weight": 0.5}],
        "tokenizer": tiny_tokenizer_dir,
        "max_new_tokens": 6,
        "context_length": 9,
    }


def native(n, kwargs):
    return gym.make_vec("TextGen-v0", n, autoreset_mode=SAME_STEP, **kwargs)


def single(n, env_id, kwargs):
    return [lambda: gym.make(env_id, **kwargs)] * n


def synced(n, env_id="CartPole-v1", **kwargs):
    return SyncVectorEnv(single(n, env_id, kwargs), autoreset_mode=SAME_STEP)


def assert_steps_alike(bridge, dummy, steps):
    """Both give the same in every step; returns how many episodes ended, by truncation or not."""
    ended = {True: 0, False: 0}
    dummy.action_space.seed(0)
    for _ in range(steps):
        actions = np.array([dummy.action_space.sample() for _ in range(dummy.num_envs)])
        observations, rewards, dones, infos = bridge.step(actions)
        expected = dummy.step(actions)
        assert_same(observations, expected[0])
        assert_same(rewards, expected[1])
        assert_same(dones, expected[2])
        assert_same(bridge.reset_infos, dummy.reset_infos)
        for done, info, expected_info in zip(dones, infos, expected[3], strict=True):
            if done:
                assert_same(info, expected_info)
                ended[info["TimeLimit.truncated"]] += 1
            else:
                assert info == {}
    return ended


def assert_same(actual, expected):
    """Equal values, nested as they are; arrays exactly and of one type."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    else:
        assert type(actual) is type(expected)
        assert actual == expected


# The same as SB3's own vector environment


@pytest.mark.parametrize("make", [native, lambda n, kwargs: synced(n, "TextGen-v0", **kwargs)])
def test_text_steps_as_in_dummy_vec_env(make, text_kwargs):
    bridge = VectorEnvBridge(make(5, text_kwargs))
    dummy = DummyVecEnv(single(5, "TextGen-v0", text_kwargs))
    for env in (bridge, dummy):
        env.seed(7)
    assert_same(bridge.reset(), dummy.reset())
    assert_same(bridge.reset_infos, dummy.reset_infos)
    ended = assert_steps_alike(bridge, dummy, 1000)
    assert min(ended.values()) > 100
    assert_same(bridge.reset(), dummy.reset())  # in the middle of episodes, without seeds
    assert_steps_alike(bridge, dummy, 20)


def test_cart_pole_steps_as_in_dummy_vec_env():
    kwargs = {"max_episode_steps": 20}
    bridge = VectorEnvBridge(synced(3, **kwargs))
    dummy = DummyVecEnv(single(3, "CartPole-v1", kwargs))
    for env in (bridge, dummy):
        env.seed(7)
    assert_same(bridge.reset(), dummy.reset())
    ended = assert_steps_alike(bridge, dummy, 1000)
    assert min(ended.values()) > 20


def test_the_space_and_what_is_given_agree(text_kwargs):
    env = make_sb3_vec_env("TextGen-v0", 3, seed=0, env_kwargs=text_kwargs)
    observations = env.reset()
    for row in range(3):
        assert env.observation_space.contains({k: v[row] for k, v in observations.items()})
    _, rewards, dones, infos = env.step(np.array([1, 2, 3]))
    assert (rewards.dtype, rewards.shape) == (np.float32, (3,))
    assert (dones.dtype, dones.shape) == (np.bool_, (3,))
    assert infos == [{}, {}, {}]


def test_an_observation_stays_as_it_was_given(text_kwargs):
    env = make_sb3_vec_env("TextGen-v0", 3, seed=0, env_kwargs=text_kwargs)
    given = [env.reset(), *(env.step(np.array([1, 2, 0]))[0] for _ in range(7))]
    before = [{key: value.copy() for key, value in obs.items()} for obs in given]
    env.step(np.array([3, 3, 3]))
    assert_same(given, before)


# Autoreset


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode, text_kwargs):
    envs = [
        TextGenVectorEnv(2, autoreset_mode=mode, **text_kwargs),
        SyncVectorEnv(single(2, "CartPole-v1", {}), autoreset_mode=mode),
    ]
    for env in envs:
        with pytest.raises(ValueError, match=rf"has autoreset mode {mode}.*SAME_STEP"):
            VectorEnvBridge(env)


def test_an_environment_that_does_not_say_how_it_resets_is_refused():
    env = synced(2)
    del env.metadata["autoreset_mode"]
    with pytest.raises(ValueError, match="has autoreset mode None"):
        VectorEnvBridge(env)


# Seeds


def test_seeds_are_used_once(text_kwargs):
    def prompts(env):
        env.reset()
        return [info["prompt"] for info in env.unwrapped.reset_infos]

    first = make_sb3_vec_env("TextGen-v0", 50, seed=3, env_kwargs=text_kwargs)
    second = make_sb3_vec_env("TextGen-v0", 50, seed=3, env_kwargs=text_kwargs)
    once, twice = prompts(first), prompts(first)
    assert prompts(second) == once != twice
    assert prompts(second) == twice
    second.seed(3)
    assert prompts(second) == once
    second.seed(4)
    assert prompts(second)[:-1] == once[1:]


def test_without_a_seed_nothing_is_seeded_and_numpys_generator_rests(text_kwargs):
    def prompts():
        env = make_sb3_vec_env("TextGen-v0", 50, env_kwargs=text_kwargs)
        env.reset()
        return [info["prompt"] for info in env.unwrapped.reset_infos]

    np.random.seed(0)
    before = np.random.get_state()
    first = prompts()
    after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert first != prompts()


# Options


@pytest.mark.parametrize("make", [native, lambda n, kwargs: synced(n, "TextGen-v0", **kwargs)])
def test_one_option_for_all_rows(make, text_kwargs):
    env = VectorEnvBridge(make(3, text_kwargs))
    env.set_options({"prompt": "abc", "reference": "d"})
    assert env.reset()["input_ids"][:, :4].tolist() == [[1, 2, 3, 0]] * 3
    assert env.reset_infos == [{"prompt": "abc"}] * 3
    env.reset()
    assert {"prompt": "abc"} not in env.reset_infos, "options are used once"


@pytest.mark.parametrize("make", [native, lambda n, kwargs: synced(n, "TextGen-v0", **kwargs)])
@pytest.mark.parametrize("begun", [False, True])
def test_options_of_each_row_as_in_dummy_vec_env(make, begun, text_kwargs):
    bridge = VectorEnvBridge(make(4, text_kwargs))
    dummy = DummyVecEnv(single(4, "TextGen-v0", text_kwargs))
    ids = {"prompt_ids": np.array([4, 5]), "reference": "a"}  # arrays cannot be compared as a whole
    options = [{"prompt": "a", "reference": "b"}, {}, ids, ids]
    for env in (bridge, dummy):
        env.seed(1)
        if begun:
            env.reset()
            env.step(np.array([1, 2, 3, 4]))
        else:
            env.seed(2)
        env.set_options(options)
    assert_same(bridge.reset(), dummy.reset())
    assert_same(bridge.reset_infos, dummy.reset_infos)
    assert_steps_alike(bridge, dummy, 50)


def test_rows_with_the_same_options_are_reset_in_one_call(text_kwargs, monkeypatch):
    env = VectorEnvBridge(native(4, text_kwargs))
    reset, calls = env.env.reset, []

    def recorded(**arguments):
        calls.append(arguments)
        return reset(**arguments)

    monkeypatch.setattr(env.env, "reset", recorded)
    env.reset()
    env.seed(5)
    env.set_options({"prompt_index": 1})
    env.reset()
    assert calls == [{"seed": None, "options": None}, {"seed": 5, "options": {"prompt_index": 1}}]


def test_options_must_be_as_many_as_rows(text_kwargs):
    env = VectorEnvBridge(native(3, text_kwargs))
    env.set_options([{"prompt": "a"}] * 2)
    with pytest.raises(ValueError, match=r"given 2 dicts for 3 rows"):
        env.reset()


# Attributes and methods


def test_attributes_and_methods_of_a_native_environment(text_kwargs):
    env = make_sb3_vec_env("TextGen-v0", 3, env_kwargs=text_kwargs)
    assert all(isinstance(tokenizer, Tokenizer) for tokenizer in env.get_attr("tokenizer"))
    assert env.get_attr("render_mode") == [None] * 3
    assert len(env.get_attr("tokenizer", [0, 2])) == 2
    assert len(env.get_attr("tokenizer", 1)) == 1
    assert env.has_attr("action_masks")
    assert not env.has_attr("no_such_thing")
    masks = env.env_method("action_masks")
    assert [(mask.dtype, mask.shape) for mask in masks] == [(np.bool_, (11,))] * 3
    assert len(env.env_method("action_masks", indices=[1])) == 1
    env.set_attr("note", "hello")
    assert env.get_attr("note") == ["hello"] * 3
    assert env.unwrapped.env.note == "hello"
    with pytest.raises(ValueError, match=r"set_attr\('note'\) for rows \[1\] only"):
        env.set_attr("note", "bye", indices=1)
    with pytest.raises(AttributeError):
        env.env_method("no_such_thing")
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    assert env.env_is_wrapped(gym.Wrapper, [0]) == [False]


def test_attributes_and_methods_of_single_environments():
    env = VectorEnvBridge(synced(3))
    dummy = DummyVecEnv(single(3, "CartPole-v1", {}))
    for both in (env, dummy):
        both.set_attr("gravity", [1, 2, 3])  # one value, though it has as many items as rows
        both.set_attr("length", 2.0, indices=[0, 2])
        assert both.get_attr("gravity") == [[1, 2, 3]] * 3
        assert both.get_attr("length") == [2.0, 0.5, 2.0]
        assert both.get_attr("length", 1) == [0.5]
        both.env_method("set_wrapper_attr", "length", 7.0, indices=[1])
        assert both.get_attr("length") == [2.0, 7.0, 2.0]
        assert both.env_is_wrapped(gym.wrappers.TimeLimit) == [True] * 3
        assert both.env_is_wrapped(gym.wrappers.FlattenObservation, 1) == [False]
        assert both.has_attr("tau")
        assert not both.has_attr("no_such_thing")


def test_a_vector_wrapper_is_seen_through(text_kwargs):
    class Doubled(VectorWrapper):
        def step(self, actions):
            observations, rewards, *rest = self.env.step(actions)
            return observations, 2 * rewards, *rest

    def begin(env):
        bridge = VectorEnvBridge(env)
        bridge.seed(0)
        bridge.reset()
        return bridge

    actions = np.array([1, 2, 3])
    for make in (native, lambda n, kwargs: synced(n, "TextGen-v0", **kwargs)):
        plain, doubled = begin(make(3, text_kwargs)), begin(Doubled(make(3, text_kwargs)))
        np.testing.assert_array_equal(2 * plain.step(actions)[1], doubled.step(actions)[1])
        assert len(doubled.env_method("action_masks")) == 3
        assert isinstance(doubled.get_attr("tokenizer")[0], Tokenizer)
        assert not doubled.has_attr("no_such_thing")
        doubled.set_attr("note", "hello")
        assert doubled.get_attr("note") == ["hello"] * 3


def test_environments_in_processes(text_kwargs):
    env = AsyncVectorEnv(single(2, "TextGen-v0", text_kwargs), autoreset_mode=SAME_STEP)
    bridge = VectorEnvBridge(env)
    dummy = DummyVecEnv(single(2, "TextGen-v0", text_kwargs))
    try:
        for both in (bridge, dummy):
            both.seed(0)
        assert_same(bridge.reset(), dummy.reset())
        assert_steps_alike(bridge, dummy, 20)
        assert bridge.get_attr("render_mode", 0) == [None]
        assert len(bridge.env_method("action_masks", indices=[1])) == 1
    finally:
        bridge.close()


# Pictures


def test_pictures(text_kwargs):
    env = make_sb3_vec_env(
        "TextGen-v0", 2, seed=0, env_kwargs={**text_kwargs, "render_mode": "rgb_array"}
    )
    env.reset()
    env.step(np.array([1, 2]))
    images = env.get_images()
    assert [(image.dtype, image.ndim) for image in images] == [(np.uint8, 3)] * 2
    tiled = env.render("rgb_array")
    assert tiled.dtype == np.uint8
    assert tiled.shape[1] >= images[0].shape[1]


def test_texts_are_printed(text_kwargs, capsys):
    env = make_sb3_vec_env(
        "TextGen-v0", 2, seed=0, env_kwargs={**text_kwargs, "render_mode": "human"}
    )
    env.reset()
    capsys.readouterr()
    env.render()
    assert env.unwrapped.reset_infos[0]["prompt"] in capsys.readouterr().out


def test_no_pictures_without_a_render_mode(text_kwargs):
    env = VectorEnvBridge(native(2, text_kwargs))
    assert env.get_images() == [None, None]


def test_close_closes(text_kwargs):
    env = VectorEnvBridge(native(2, text_kwargs))
    env.close()
    assert env.env.closed
    env.close()


# The factory


def test_episodes_are_recorded(text_kwargs, tmp_path):
    env = make_sb3_vec_env(
        "TextGen-v0", 2, seed=0, env_kwargs=text_kwargs, monitor_dir=tmp_path / "new" / "logs"
    )
    assert isinstance(env, VecMonitor)
    env.reset()
    total = np.zeros(2)
    for step in range(6):
        _, rewards, dones, infos = env.step(np.array([1, 2]))
        total += rewards
        assert dones.all() == (step == 5)
    assert [info["episode"]["l"] for info in infos] == [6, 6]
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], total, rtol=1e-6)
    env.close()
    header, *rows = (tmp_path / "new" / "logs" / "monitor.csv").read_text().splitlines()
    assert '"env_id": "TextGen-v0"' in header
    returns = [float(row["r"]) for row in csv.DictReader(rows)]
    np.testing.assert_allclose(returns, total, rtol=1e-5)


@pytest.mark.parametrize("env_id", ["TextGen-v0", "textgym/TextGen-v0", "textgym:TextGen-v0"])
def test_text_environments_are_one_native_batch(env_id, text_kwargs):
    env = make_sb3_vec_env(env_id, 2, env_kwargs=text_kwargs)
    assert isinstance(env.unwrapped.env, TextGenVectorEnv)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_other_environments_are_single_ones(env_id):
    # CartPole has a vector environment of its own, which resets in the next step only.
    env = make_sb3_vec_env(env_id, 2, seed=0)
    assert isinstance(env.unwrapped.env, SyncVectorEnv)
    PPO("MlpPolicy", env, n_steps=32, batch_size=64, device="cpu").learn(64)


def test_an_unknown_id_is_refused():
    with pytest.raises(gym.error.Error, match="TextGem"):
        make_sb3_vec_env("TextGem-v0", 2)


def test_rewards_can_be_normalised(text_kwargs):
    env = VecNormalize(
        make_sb3_vec_env("TextGen-v0", 2, seed=0, env_kwargs=text_kwargs), norm_obs=False
    )
    observations = env.reset()
    assert observations["input_ids"].dtype == np.int64
    for _ in range(20):
        observations, _, _, _ = env.step(np.array([1, 0]))
    assert observations["input_ids"].dtype == np.int64
    assert len(env.get_original_reward()) == 2
