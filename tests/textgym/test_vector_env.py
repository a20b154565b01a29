from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from textgym import RewardError, TextGenVectorEnv
from textgym.checks import check_vector_env
from textgym.completion import Completions
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

EOS = 0
MODES = list(AutoresetMode)

Kwargs = dict[str, Any]
MakeVector = Callable[..., VectorEnv[Any, Any, Any]]


@pytest.fixture
def kwargs(tiny_tokenizer_dir: str, prompts_file: str) -> Kwargs:
    """Ten letters and the end of the text for tokens, so that episodes end in every way."""
    return {
        "tokenizer": tiny_tokenizer_dir,
        "task": {
            "name": "file",
            "path": prompts_file,
            "test_fraction": 0,
            "validation": prompts_file,
        },
        "reward": "length",
        "max_new_tokens": 8,
    }


@pytest.fixture
def make_vector(kwargs: Kwargs) -> MakeVector:
    def make(
        num_envs: int, mode: AutoresetMode = AutoresetMode.SAME_STEP, **others: Any
    ) -> VectorEnv[Any, Any, Any]:
        return gym.make_vec(
            "TextGen-v0", num_envs=num_envs, autoreset_mode=mode, **{**kwargs, **others}
        )

    return make


def count_vowels(text: str) -> float:
    return sum(text.count(vowel) for vowel in "aei") / 3


def count_tokens(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [len(p) + 0.1 * len(ids) for p, ids in zip(prompts, completion_ids, strict=True)]


class RunningSum:
    """A reward of the protocol with a state, which depends on every token so far."""

    success_threshold = 1.0

    def start(self, rows: np.ndarray, completions: Completions) -> None:
        if not hasattr(self, "_state"):
            self._state = np.zeros(completions.num_rows)
        self._state[rows] = [len(completions.examples[row].prompt) for row in rows.tolist()]

    def step(self, rows: np.ndarray, tokens: np.ndarray, completions: Completions) -> np.ndarray:
        self._state[rows] = (self._state[rows] * 7 + tokens) % 11
        return (self._state[rows] / 11).astype(np.float32)


class TestSameAsSingle:
    """Every observation, reward, flag and info is that of single environments."""

    @pytest.mark.parametrize(
        "others",
        [
            {},
            {"reward": count_vowels, "timing": "delayed", "stop": ["ab", "j"]},
            {"reward": {"edit_distance": 0.3, "length": -2.0}, "budget_is_terminal": True},
            {"reward": count_vowels, "every": "word", "max_new_tokens": 1},
            {"reward": count_tokens, "stop": ["c"], "budget_is_terminal": True},
            {"reward": RunningSum(), "context_length": 9, "prompt_truncation": "left"},
            {"reward": RunningSum(), "timing": "delayed", "max_new_tokens": 3},
            {"reward": "exact_match", "split": "validation"},
        ],
        ids=lambda others: ",".join(others) or "defaults",
    )
    def test_in_all_modes(self, kwargs: Kwargs, others: Kwargs) -> None:
        both = {**kwargs, **others}
        check_vector_env(
            partial(TextGenVectorEnv, **both),
            partial(gym.make, "TextGen-v0", **both),
            num_steps=150,
        )

    def test_over_thousands_of_steps(self, kwargs: Kwargs) -> None:
        kwargs["reward"] = {"edit_distance": 1.0, "length": 0.5}
        from textgym import TextGenEnv

        check_vector_env(
            partial(gym.make_vec, "TextGen-v0", **kwargs),
            partial(TextGenEnv, **kwargs),
            num_envs=5,
            num_steps=500,
            seed=1,
        )

    def test_words_and_characters_of_several_bytes(self, byte_tokenizer: Tokenizer) -> None:
        alphabet = "a 你🙂."
        task = Task("mine", {"train": [Example(f"{letter}?") for letter in alphabet]})
        both = {
            "task": task,
            "tokenizer": byte_tokenizer,
            "reward": lambda text: len(text.split()),
            "every": "word",
            "stop": ["你"],
            "max_new_tokens": 30,
        }
        vector = TextGenVectorEnv(3, autoreset_mode=AutoresetMode.SAME_STEP, **both)
        single = SyncVectorEnv(
            [partial(gym.make, "TextGen-v0", **both)] * 3, autoreset_mode=AutoresetMode.SAME_STEP
        )
        rng = np.random.default_rng(0)
        stream = [
            b"".join(alphabet[i].encode() for i in rng.integers(0, len(alphabet), 300))[:300]
            for _ in range(3)
        ]
        assert data_equivalence(vector.reset(seed=0), single.reset(seed=0))
        for data in zip(*stream, strict=True):
            actions = 1 + np.array(data)
            assert data_equivalence(vector.step(actions), single.step(actions))

    def test_with_the_default_reward_task_and_tokenizer(self) -> None:
        check_vector_env(
            partial(gym.make_vec, "TextGen-v0"), partial(gym.make, "TextGen-v0"), num_steps=70
        )

    def test_in_processes_of_their_own(self, kwargs: Kwargs, make_vector: MakeVector) -> None:
        other = AsyncVectorEnv(
            [partial(gym.make, "TextGen-v0", **kwargs)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
        )
        vector = make_vector(2)
        try:
            assert data_equivalence(vector.reset(seed=0), other.reset(seed=0))
            rng = np.random.default_rng(0)
            for _ in range(30):
                actions = rng.integers(0, 11, 2)
                assert data_equivalence(vector.step(actions), other.step(actions))
        finally:
            other.close()


class TestMake:
    @pytest.mark.parametrize("env_id", ["TextGen-v0", "textgym/TextGen-v0", "textgym:TextGen-v0"])
    def test_no_argument_is_needed(self, env_id: str) -> None:
        envs = gym.make_vec(env_id, num_envs=3)
        assert isinstance(envs, TextGenVectorEnv)
        assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        observation, infos = envs.reset(seed=0)
        assert observation in envs.observation_space
        assert infos["_prompt"].all()
        observation, *_ = envs.step(envs.action_space.sample())
        assert observation in envs.observation_space
        assert observation["input_ids"].dtype == np.int64
        assert observation["attention_mask"].dtype == np.int8
        envs.close()

    @pytest.mark.parametrize("mode", MODES)
    def test_autoreset_mode_belongs_to_the_instance(
        self, make_vector: MakeVector, mode: AutoresetMode
    ) -> None:
        envs, other = make_vector(2, mode), make_vector(2, AutoresetMode.NEXT_STEP)
        assert envs.metadata["autoreset_mode"] is mode
        assert other.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        assert make_vector(2, mode.value).metadata["autoreset_mode"] is mode

    def test_spec_round_trip(self, kwargs: Kwargs) -> None:
        envs = gym.make_vec("TextGen-v0", num_envs=2, **kwargs)
        text = envs.spec.to_json()
        json.loads(text)
        again = gym.make_vec(gym.envs.registration.EnvSpec.from_json(text), num_envs=2)
        assert data_equivalence(again.reset(seed=0), envs.reset(seed=0))

    def test_sync_and_async_are_still_to_be_had(self, kwargs: Kwargs) -> None:
        envs = gym.make_vec("TextGen-v0", num_envs=2, vectorization_mode="sync", **kwargs)
        assert isinstance(envs, SyncVectorEnv)

    @pytest.mark.parametrize("num_envs", [0, -1, 2.0])
    def test_number_of_rows(self, kwargs: Kwargs, num_envs: Any) -> None:
        with pytest.raises(ValueError, match="num_envs is a whole number of at least 1"):
            TextGenVectorEnv(num_envs, **kwargs)

    def test_max_episode_steps_truncates_as_a_time_limit(
        self, kwargs: Kwargs, make_vector: MakeVector
    ) -> None:
        vector = make_vector(3, max_episode_steps=5)
        single = SyncVectorEnv(
            [partial(gym.make, "TextGen-v0", max_episode_steps=5, **kwargs)] * 3,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        assert data_equivalence(vector.reset(seed=0), single.reset(seed=0))
        rng = np.random.default_rng(0)
        cut = 0
        for _ in range(300):
            actions = rng.integers(0, 11, 3)
            one, other = vector.step(actions), single.step(actions)
            # A TimeLimit cuts from outside: single environments give no final info then.
            assert data_equivalence(one[:4], other[:4])
            cut += int(one[3].sum())
        assert cut > 50

    def test_a_delayed_reward_is_paid_when_max_episode_steps_cut(self, kwargs: Kwargs) -> None:
        kwargs = {**kwargs, "timing": "delayed", "reward": "length", "max_new_tokens": 8}
        envs = gym.make_vec("TextGen-v0", num_envs=1, max_episode_steps=4, **kwargs)
        envs.reset(seed=0)
        *_, last = steps = [envs.step(np.array([1])) for _ in range(4)]
        assert [float(step[1][0]) for step in steps] == [0.0, 0.0, 0.0, 0.5]
        assert last[3][0]
        assert last[4]["scores"]["length"][0] == 0.5


class TestAutoreset:
    def test_same_step(self, make_vector: MakeVector) -> None:
        envs = make_vector(3)
        envs.reset(seed=0, options={"prompt": "a"})
        envs.step(np.array([2, 3, 4]))
        observation, rewards, terminated, truncated, infos = envs.step(np.array([5, EOS, 6]))
        assert (rewards.dtype, terminated.dtype, truncated.dtype) == (float, bool, bool)
        assert rewards.tolist() == [0.125, 0.0, 0.125]
        assert terminated.tolist() == [False, True, False]
        assert not truncated.any()
        assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [False, True, False]
        assert infos["final_obs"][0] is None
        final = infos["final_obs"][1]
        assert final in envs.single_observation_space
        assert final["input_ids"].tolist()[:4] == [1, 3, EOS, EOS]
        assert final["attention_mask"].tolist()[:4] == [1, 1, 1, 0]
        assert infos["final_info"]["text"].tolist() == [None, "c", None]
        assert infos["final_info"]["prompt"].tolist() == [None, "a", None]
        assert infos["final_info"]["scores"]["length"].tolist() == [0.0, 0.125, 0.0]
        assert infos["reward_components"]["_length"].tolist() == [True, False, True]
        # The observation is the next episode's, and so is the prompt.
        assert infos["_prompt"].tolist() == [False, True, False]
        assert infos["prompt"][1] in ("ab", "abc", "h", "fgh")
        assert observation["attention_mask"][1].sum() == len(infos["prompt"][1])
        assert observation["input_ids"][0, :3].tolist() == [1, 2, 5]

    def test_next_step(self, make_vector: MakeVector) -> None:
        envs = make_vector(2, AutoresetMode.NEXT_STEP)
        envs.reset(seed=0, options={"prompt": "a"})
        observation, _, terminated, _, infos = envs.step(np.array([2, EOS]))
        assert terminated.tolist() == [False, True]
        assert observation["input_ids"][1, :3].tolist() == [1, EOS, EOS]
        assert infos["text"].tolist() == [None, ""]
        assert "final_obs" not in infos
        # The action of the row that begins anew is not looked at.
        observation, rewards, terminated, _, infos = envs.step(np.array([3, 999]))
        assert rewards.tolist() == [0.125, 0.0]
        assert not terminated.any()
        assert infos["_prompt"].tolist() == [False, True]
        assert infos["_reward_components"].tolist() == [True, False]
        assert observation["attention_mask"][1].sum() == len(infos["prompt"][1])

    def test_disabled(self, make_vector: MakeVector) -> None:
        envs = make_vector(2, AutoresetMode.DISABLED)
        envs.reset(seed=0)
        envs.step(np.array([2, EOS]))
        with pytest.raises(gym.error.ResetNeeded, match=r"rows \[1\] are over"):
            envs.step(np.array([2, 2]))
        options = {"reset_mask": np.array([False, True])}
        _, infos = envs.reset(options=options)
        assert infos["_prompt"].tolist() == [False, True]
        assert list(options) == ["reset_mask"]  # RecordEpisodeStatistics reads it afterwards
        envs.step(np.array([2, 2]))

    def test_a_refused_action_loses_nothing(self, make_vector: MakeVector) -> None:
        envs = make_vector(3, AutoresetMode.NEXT_STEP)
        envs.reset(seed=0)
        envs.step(np.array([2, EOS, 3]))
        before = pickle.dumps(envs.np_random)
        with pytest.raises(ValueError, match="from 0 to 10, got 11"):
            envs.step(np.array([2, 2, 11]))
        assert pickle.dumps(envs.np_random) == before
        assert envs.step(np.array([2, 2, 2]))[4]["_prompt"].tolist() == [False, True, False]

    @pytest.mark.parametrize("mode", MODES)
    def test_no_step_before_every_row_began(
        self, make_vector: MakeVector, mode: AutoresetMode
    ) -> None:
        envs = make_vector(2, mode)
        with pytest.raises(
            gym.error.ResetNeeded, match=r"rows \[0, 1\] are over or have not begun"
        ):
            envs.step(np.array([1, 1]))
        assert len(envs.np_random) == len(envs.np_random_seed) == 2
        envs.reset(options={"reset_mask": np.array([True, False])})
        with pytest.raises(gym.error.ResetNeeded, match=r"rows \[1\] are"):
            envs.step(np.array([1, 1]))


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """All arrays in what a step returned, and in the objects in them."""
    if isinstance(value, np.ndarray):
        yield value
        value = value.tolist() if value.dtype == object else []
    values = value.values() if isinstance(value, dict) else value
    if isinstance(values, Iterable) and not isinstance(values, str):
        for item in values:
            yield from _arrays(item)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reward", ["length", {"length": 2.0, "edit_distance": 1.0}])
def test_no_two_arrays_share_memory(
    make_vector: MakeVector, mode: AutoresetMode, reward: Any
) -> None:
    envs = make_vector(3, mode, reward=reward)
    returned = [envs.reset(seed=0)]
    returned += [envs.step(np.array(actions)) for actions in ([1, 2, 3], [4, EOS, 5])]
    arrays = list(_arrays(returned))
    assert len(arrays) > 20
    assert not any(np.shares_memory(one, other) for one, other in combinations(arrays, 2))
    # Writing to them changes nothing for the environment.
    other = copy.deepcopy(envs)
    for array in arrays:
        array[...] = None if array.dtype == object else 0
    for letter in range(1, 11):
        if mode is AutoresetMode.DISABLED:
            options = {"reset_mask": np.ones(3, np.bool_)}
            assert data_equivalence(*(e.reset(options=options) for e in (envs, other)))
        actions = np.array([letter, letter, EOS])
        assert data_equivalence(envs.step(actions), other.step(actions))


class TestReset:
    def test_seeds(self, make_vector: MakeVector) -> None:
        envs = make_vector(3)
        for seed, expected in [(5, (5, 6, 7)), (np.int64(2), (2, 3, 4)), ([9, None, 1], (9, 3, 1))]:
            envs.reset(seed=seed)
            assert envs.np_random_seed == expected

    @pytest.mark.parametrize("seed", [[1], [1, 2, 3, 4]])
    def test_wrong_number_of_seeds(self, make_vector: MakeVector, seed: list[int]) -> None:
        with pytest.raises(ValueError, match=f"got {len(seed)} seeds for 3 rows"):
            make_vector(3).reset(seed=seed)

    def test_options_are_for_all_rows_that_begin(self, make_vector: MakeVector) -> None:
        envs = make_vector(3)
        envs.reset(options={"prompt": "ab"})
        _, infos = envs.reset(
            options={"prompt_ids": [7], "reset_mask": np.array([True, False, True])}
        )
        assert infos["prompt"].tolist() == ["g", None, "g"]
        with pytest.raises(ValueError, match="unknown reset option 'promt'"):
            envs.reset(options={"promt": "ab"})

    @pytest.mark.parametrize(
        "mask", [[True, False], np.array([True]), np.array([1, 0]), np.zeros(2, np.bool_), None]
    )
    def test_wrong_masks(self, make_vector: MakeVector, mask: Any) -> None:
        envs = make_vector(2)
        envs.reset()
        with pytest.raises(ValueError, match=r"reset_mask is a bool array of shape \(2,\)"):
            envs.reset(options={"reset_mask": mask})


class TestActions:
    @pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
    def test_whole_numbers_of_any_kind(self, make_vector: MakeVector, dtype: type) -> None:
        envs = make_vector(2)
        envs.reset(options={"prompt": "a"})
        actions = np.array([3, 4], dtype)
        assert envs.step(actions)[0]["input_ids"][:, 1].tolist() == [3, 4]
        assert actions.tolist() == [3, 4]

    def test_every_other_one_of_a_longer_array(self, make_vector: MakeVector) -> None:
        envs = make_vector(2)
        envs.reset(options={"prompt": "a"})
        assert envs.step(np.array([3, 9, 4, 9])[::2])[0]["input_ids"][:, 1].tolist() == [3, 4]

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            ([1], r"shape \(1,\); expected one token id a row, \(2,\)"),
            ([[1], [1]], r"shape \(2, 1\)"),
            (3, r"shape \(\)"),
            ([1.0, 2.0], "whole numbers, got an array of float64"),
            ([True, False], "whole numbers, got an array of bool"),
            ([1, 11], "from 0 to 10, got 11"),
            ([-1, 1], "from 0 to 10, got -1"),
        ],
    )
    def test_what_is_refused(self, make_vector: MakeVector, actions: Any, message: str) -> None:
        envs = make_vector(2)
        before = copy.deepcopy(envs.reset(options={"prompt": "a"})[0])
        with pytest.raises(ValueError, match=message):
            envs.step(np.array(actions))
        after = envs.step(np.array([3, 3]))[0]
        assert (after["attention_mask"].sum(1) == before["attention_mask"].sum(1) + 1).all()

    def test_masks(self, make_vector: MakeVector) -> None:
        masks = make_vector(3).action_masks()
        assert (masks.shape, masks.dtype) == ((3, 11), np.bool_)


class TestRewards:
    def test_one_call_for_all_rows_and_only_for_texts_that_changed(
        self, byte_tokenizer: Tokenizer
    ) -> None:
        calls: list[list[str]] = []

        class Recorder:
            text_only = True

            def score(self, samples: Any) -> list[float]:
                calls.append([sample.text for sample in samples])
                return [float(len(sample.text)) for sample in samples]

        envs = TextGenVectorEnv(3, tokenizer=byte_tokenizer, reward=Recorder(), max_new_tokens=4)
        envs.reset(seed=0)
        first, second, *_ = "é".encode()
        for letters in ([97, 97, first], [98, -1, second], [99, 98, first], [100, 100, 100]):
            envs.step(np.array([1 + letter for letter in letters]))
        # Row 1 ends, begins anew while its action is ignored, and goes on; row 2 writes an "é",
        # half of another one, and a letter.
        assert calls == [["a", "a"], ["ab", "é"], ["abc"], ["abcd", "d", "é\ufffdd"]]

    def test_an_object_is_copied_for_every_environment(self, make_vector: MakeVector) -> None:
        reward = RunningSum()
        one, other = make_vector(2, reward=reward), make_vector(3, reward=reward)
        one.reset(seed=0)
        other.reset(seed=0)
        actions = np.array([1, 2, 3])
        for _ in range(5):
            np.testing.assert_array_equal(one.step(actions[:2])[1], other.step(actions)[1][:2])
        assert not hasattr(reward, "_state")

    def test_a_reward_that_fails_says_where(self, make_vector: MakeVector) -> None:
        def picky(text: str) -> float:
            return float("nan") if text == "b" else 0.0

        envs = make_vector(3, reward=picky)
        envs.reset(options={"prompt": "j"})
        with pytest.raises(RewardError, match=r"(?s)'picky'.*nan.*prompt: 'j'.*text: +'b'"):
            envs.step(np.array([1, 2, 3]))


class TestTools:
    def test_pickle_in_the_middle_of_an_episode(self, make_vector: MakeVector) -> None:
        envs = make_vector(3, reward={"edit_distance": 1.0, "length": 1.0}, stop=["ab"])
        envs.reset(seed=0)
        rng = np.random.default_rng(0)
        for _ in range(5):
            envs.step(rng.integers(0, 11, 3))
        copies = [pickle.loads(pickle.dumps(envs)), copy.deepcopy(envs)]
        actions = rng.integers(0, 11, (20, 3))
        expected = [envs.step(action) for action in actions]
        for other in copies:
            assert data_equivalence([other.step(action) for action in actions], expected)

    def test_render(self, make_vector: MakeVector, capsys: pytest.CaptureFixture[str]) -> None:
        actions = np.array([1, 2])
        shown = {}
        for mode in ("ansi", "rgb_array", "human", None):
            envs = make_vector(2, render_mode=mode)
            envs.reset(seed=0, options={"prompt": "h"})
            envs.step(actions)
            if mode is None:
                with pytest.warns(UserWarning, match="render_mode='ansi'"):
                    assert envs.render() is None
            else:
                shown[mode] = envs.render()
        assert len(shown["ansi"]) == 2
        assert all(isinstance(text, str) for text in shown["ansi"])
        assert [picture.shape for picture in shown["rgb_array"]] == [(360, 640, 3)] * 2
        assert (shown["rgb_array"][0] != shown["rgb_array"][1]).any()
        assert shown["human"] == (None,)
        assert "h" in capsys.readouterr().out
