from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from hypothesis import given
from hypothesis import strategies as st

from textgym.checks import check_vector_env
from textgym.tokenizer import Tokenizer
from textgym.vocabulary import BatchedTokens, Tokens, allowed_ids

BUILTIN = Tokenizer.from_pretrained("builtin")
EOS = 0
LETTERS = {letter: 1 + i for i, letter in enumerate("abcdefghij")}
SPACE = Tokens(11, [7, 2, 2, 4])

allowed_sets = st.sets(st.integers(0, 19), min_size=1)


def texts(ids: Any) -> set[str]:
    return {BUILTIN.decode([i]) for i in ids}


class TestAllowedIds:
    """Which tokens a person means."""

    def test_words_stand_as_in_a_text(self) -> None:
        # "the" is a token at the beginning of a line, too; "king" would be "k" and "ing".
        assert texts(allowed_ids(["king", "love", "the", ","], BUILTIN)) == {
            *(" king", " love", " the", "the", ","),
        }

    def test_words_that_the_tokenizer_does_not_know_are_taken_in_pieces(self) -> None:
        expected = {*BUILTIN.encode_plain("zyzzyva"), *BUILTIN.encode_plain(" zyzzyva")}
        assert set(allowed_ids(["zyzzyva"], BUILTIN).tolist()) == expected
        assert len(expected) > 3

    def test_words_of_a_tokenizer_of_bytes_are_told_apart_by_spaces(
        self, byte_tokenizer: Tokenizer
    ) -> None:
        ids = allowed_ids(["king"], byte_tokenizer)
        assert sorted(byte_tokenizer.decode([i]) for i in ids) == [" ", "g", "i", "k", "n"]

    def test_a_word_that_begins_with_a_space_is_taken_as_it_is(self) -> None:
        assert texts(allowed_ids([" the", " love"], BUILTIN)) == {" the", " love"}
        assert texts(allowed_ids(["\nking"], BUILTIN)) == {"\n", "k", "ing"}

    @given(st.lists(st.sampled_from(["king", "love", "the", "sword", "Romeo"]), min_size=1))
    def test_what_is_made_of_the_words_can_be_written(self, words: list[str]) -> None:
        allowed = set(allowed_ids(words, BUILTIN).tolist())
        assert allowed.issuperset(BUILTIN.encode_plain(f" {' '.join(words)}"))

    def test_a_text_stands_for_all_that_is_in_it(self) -> None:
        text = "ROMEO:\nO, speak again, bright angel!\n\nJULIET:\nO Romeo, Romeo!"
        allowed = set(allowed_ids([text], BUILTIN).tolist())
        assert allowed.issuperset(BUILTIN.encode_plain(text))
        assert allowed.issuperset(BUILTIN.encode_plain(" O Romeo, Romeo!"))
        assert len(allowed) < 60

    def test_a_file_is_one_text(self, tmp_path: Path) -> None:
        text = "the king\nthe naïve love"
        path = tmp_path / "words.txt"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n")
        expected = allowed_ids([text], BUILTIN)
        np.testing.assert_array_equal(allowed_ids(str(path), BUILTIN), expected)
        np.testing.assert_array_equal(allowed_ids(path, BUILTIN), expected)

    def test_line_breaks_are_allowed_where_lines_are(self, tmp_path: Path) -> None:
        path = tmp_path / "words.txt"
        for written, expected in [("king\n", False), ("king\nlove\n", True)]:
            path.write_text(written, encoding="utf-8")
            assert ("\n" in texts(allowed_ids(str(path), BUILTIN))) is expected

    def test_ids_are_ascending_and_each_is_there_once(self) -> None:
        got = allowed_ids([9, np.int64(5), " the", 9, 5], BUILTIN, end_ids=[0])
        assert got.dtype == np.int64
        assert got.tolist() == sorted({9, 5, 0, *BUILTIN.encode_plain(" the")})

    @pytest.mark.parametrize(
        ("vocabulary", "error", "message"),
        [
            ([], ValueError, r"vocabulary is empty, .*\['king', 'love', 7\], or None"),
            (["king", ""], ValueError, "an empty text, which stands for no token"),
            ([2048], ValueError, "2048 is no token id of .*'builtin'.*0 to 2047.*'2048'"),
            ([-1], ValueError, "-1 is no token id"),
            ([1.0], TypeError, r"texts and token ids.*got 1.0 \(float\)"),
            ([True], TypeError, r"texts and token ids.*got True \(bool\)"),
            ([["king"]], TypeError, r"got \['king'\] \(list\)"),
            (7, TypeError, "a list of texts and token ids.*path of a text file, got 7"),
            ({"king": 1}, TypeError, "a list of texts and token ids"),
            ("the king", FileNotFoundError, r"no file 'the king'.*in a list: \['the king'\]"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, vocabulary: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            allowed_ids(vocabulary, BUILTIN, [0])

    def test_files_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "words.txt"
        path.write_bytes("naïve".encode("latin-1"))
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*Save the file as UTF-8"):
            allowed_ids(str(path), BUILTIN)
        path.write_bytes(b"\n")
        with pytest.raises(ValueError, match="the file is empty"):
            allowed_ids(str(path), BUILTIN)
        with pytest.raises(FileNotFoundError, match="no file"):
            allowed_ids(str(tmp_path), BUILTIN)


class TestTokens:
    """The space of one row."""

    def test_it_is_a_discrete_of_the_whole_vocabulary(self) -> None:
        assert isinstance(SPACE, gym.spaces.Discrete)
        assert (SPACE.n, SPACE.start, SPACE.shape, SPACE.dtype) == (11, 0, (), np.int64)
        assert SPACE.allowed.dtype == np.int64
        assert SPACE.allowed.tolist() == [2, 4, 7]
        with pytest.raises(ValueError, match="read-only"):
            SPACE.allowed[0] = 1

    def test_what_it_contains(self) -> None:
        for token in range(-2, 13):
            for form in (int, np.int64, np.int32, np.array):
                assert SPACE.contains(form(token)) is (token in (2, 4, 7))
        assert not any(SPACE.contains(x) for x in (2.0, "2", None, np.array([2]), 2**70))

    @given(allowed_sets, st.integers(0, 99))
    def test_samples_are_all_allowed_tokens_and_no_other(
        self, allowed: set[int], seed: int
    ) -> None:
        space = Tokens(20, allowed, seed)
        samples = [space.sample() for _ in range(60 * len(allowed))]
        assert set(samples) == allowed
        assert all(isinstance(sample, np.int64) for sample in samples)

    @given(allowed_sets, st.sets(st.integers(0, 19)))
    def test_samples_of_a_mask(self, allowed: set[int], masked: set[int]) -> None:
        space = Tokens(20, allowed, 0)
        mask = np.isin(np.arange(20), list(masked)).astype(np.int8)
        before = mask.copy()
        samples = {int(space.sample(mask=mask)) for _ in range(60)}
        assert samples <= (allowed & masked or {min(allowed)})
        np.testing.assert_array_equal(mask, before)

    @given(allowed_sets, st.integers(0, 99))
    def test_samples_by_probability(self, allowed: set[int], seed: int) -> None:
        space = Tokens(20, allowed, 0)
        probability = np.random.default_rng(seed).dirichlet(np.ones(20))
        assert {int(space.sample(probability=probability)) for _ in range(60)} <= allowed

    def test_probabilities_are_those_given_that_a_token_is_allowed(self) -> None:
        space = Tokens(4, [1, 3], 0)
        drawn = [space.sample(probability=np.array([0.5, 0.1, 0.0, 0.4])) for _ in range(2000)]
        assert np.mean(np.array(drawn) == 1) == pytest.approx(0.2, abs=0.04)

    def test_masks_and_probabilities_that_make_no_sense_are_refused(self) -> None:
        space = Tokens(4, [1, 3], 0)
        with pytest.raises(ValueError, match="nothing to any of the allowed tokens of Tokens"):
            space.sample(probability=np.array([1.0, 0, 0, 0]))
        with pytest.raises(AssertionError, match="sum"):
            space.sample(probability=np.array([0.5, 0.25, 0, 0]))
        with pytest.raises(AssertionError, match="dtype"):
            space.sample(mask=np.ones(4))
        with pytest.raises(ValueError, match="Only one of"):
            space.sample(mask=np.ones(4, np.int8), probability=np.full(4, 0.25))

    def test_seeds(self) -> None:
        runs = []
        for seed in (1, 1, 2):
            space = Tokens(1000, range(0, 1000, 3))
            space.seed(seed)
            runs.append([space.sample() for _ in range(20)])
        assert runs[0] == runs[1] != runs[2]

    def test_equality(self) -> None:
        space = Tokens(11, [7, 4, 2])
        assert space == SPACE
        for other in (
            Tokens(11, [2, 4]),
            Tokens(12, [2, 4, 7]),
            gym.spaces.Discrete(11),
            Tokens(11, range(11)),
            None,
        ):
            assert other != space
            assert space != other
        assert Tokens(11, range(11)) != gym.spaces.Discrete(11)

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
    def test_copies(self, duplicate: Callable[[Tokens], Tokens]) -> None:
        space = Tokens(11, [2, 4, 7], seed=3)
        other = duplicate(space)
        assert other == space
        assert [other.sample() for _ in range(9)] == [space.sample() for _ in range(9)]

    def test_repr(self) -> None:
        assert repr(SPACE) == "Tokens(11, allowed=[2, 4, 7])"
        shown = repr(Tokens(50_000, range(0, 50_000, 2)))
        assert shown == "Tokens(50000, allowed=[0, 2, 4, ..., 49998] (25000 tokens))"

    @pytest.mark.parametrize(
        ("allowed", "message"),
        [
            ([], "no token is allowed"),
            ([11], "from 0 to 10, got 11"),
            ([-1, 3], "from 0 to 10, got -1"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, allowed: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Tokens(11, allowed)


class TestBatch:
    """The space of several rows."""

    def test_samples_and_what_it_contains(self) -> None:
        batch = batch_space(SPACE, 5)
        assert isinstance(batch, gym.spaces.MultiDiscrete)
        batch.seed(0)
        samples = np.array([batch.sample() for _ in range(100)])
        assert samples.shape == (100, 5)
        assert samples.dtype == np.int64
        assert [set(row) for row in samples.T.tolist()] == [{2, 4, 7}] * 5
        assert all(sample in batch for sample in samples)
        assert np.array([2, 4, 7, 2, 3]) not in batch
        assert np.array([2, 4, 7, 2]) not in batch
        assert np.array([2.0, 4, 7, 2, 2]) not in batch

    def test_samples_of_masks_and_probabilities(self) -> None:
        batch = batch_space(SPACE, 3)
        masks = tuple(np.isin(np.arange(11), ids).astype(np.int8) for ids in ([3, 4], [7], [0]))
        assert {tuple(batch.sample(mask=masks).tolist()) for _ in range(9)} == {(4, 7, 2)}
        sure = np.eye(11)[[4, 7, 2]]
        assert batch.sample(
            probability=tuple(0.5 * sure + 0.5 * np.eye(11)[[3, 3, 3]])
        ).tolist() == [*(4, 7, 2)]

    def test_equality_copies_and_repr(self) -> None:
        batch = batch_space(Tokens(11, [2, 4, 7], 0), 3)
        assert batch == batch_space(SPACE, 3)
        for other in (
            batch_space(SPACE, 2),
            batch_space(Tokens(11, [2]), 3),
            gym.spaces.MultiDiscrete([11, 11, 11]),
        ):
            assert batch != other
            assert other != batch
        for same in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
            assert same == batch
            np.testing.assert_array_equal(same.sample(), copy.deepcopy(batch).sample())
        assert repr(batch) == "BatchedTokens(Tokens(11, allowed=[2, 4, 7]), 3)"

    def test_its_rows(self) -> None:
        batch = batch_space(SPACE, 3)
        assert batch[1] == SPACE
        assert batch[1:] == batch_space(SPACE, 2)
        assert isinstance(batch[:], BatchedTokens)

    def test_gymnasiums_functions_for_batches(self) -> None:
        batch = batch_space(SPACE, 3)
        sample = batch.sample()
        assert list(iterate(batch, sample)) == sample.tolist()
        out = create_empty_array(SPACE, 3)
        np.testing.assert_array_equal(concatenate(SPACE, list(sample), out), sample)
        both = batch_space(gym.spaces.Dict(token=SPACE), 2)
        assert set(both.sample()["token"].tolist()) <= {2, 4, 7}


@pytest.fixture
def kwargs(tiny_tokenizer_dir: str, prompts_file: str) -> dict[str, Any]:
    """Of ten letters only b, d and g may be written."""
    return {
        "tokenizer": tiny_tokenizer_dir,
        "task": {"name": "file", "path": prompts_file},
        "reward": "length",
        "max_new_tokens": 8,
        "vocabulary": ["b", "d", LETTERS["g"]],
    }


ALLOWED = [EOS, LETTERS["b"], LETTERS["d"], LETTERS["g"]]


class TestEnvironment:
    """What may be written in it."""

    def test_action_space(self, kwargs: dict[str, Any]) -> None:
        assert gym.make("TextGen-v0", **kwargs).action_space == Tokens(11, ALLOWED)
        envs = gym.make_vec("TextGen-v0", 3, **kwargs)
        assert envs.single_action_space == Tokens(11, ALLOWED)
        assert envs.action_space == batch_space(Tokens(11, ALLOWED), 3)
        plain = gym.make("TextGen-v0", **{**kwargs, "vocabulary": None})
        assert plain.action_space == gym.spaces.Discrete(11)

    @pytest.mark.parametrize("every", [{}, {"reward": "edit_distance", "stop": ["db"]}])
    def test_gymnasiums_check_and_ours(self, kwargs: dict[str, Any], every: Any) -> None:
        kwargs.update(every)
        check_env(gym.make("TextGen-v0", **kwargs).unwrapped, skip_render_check=True)
        check_vector_env(
            partial(gym.make_vec, "TextGen-v0", **kwargs), partial(gym.make, "TextGen-v0", **kwargs)
        )

    def test_a_spec_is_json(self, kwargs: dict[str, Any], tmp_path: Path) -> None:
        path = tmp_path / "words.txt"
        path.write_text("bd", encoding="utf-8")
        for vocabulary in (kwargs["vocabulary"], str(path)):
            env = gym.make("TextGen-v0", **{**kwargs, "vocabulary": vocabulary})
            spec = EnvSpec.from_json(env.spec.to_json())
            assert json.loads(env.spec.to_json())["kwargs"]["vocabulary"] == vocabulary
            assert gym.make(spec).action_space == env.action_space

    def test_the_end_of_a_text_is_always_allowed(self, kwargs: dict[str, Any]) -> None:
        env = gym.make("TextGen-v0", **{**kwargs, "vocabulary": ["b"]})
        assert env.action_space.allowed.tolist() == [EOS, LETTERS["b"]]
        env.reset(seed=0)
        *_, terminated, _, info = env.step(EOS)
        assert terminated
        assert info["text"] == ""

    def test_prompts_may_hold_any_token(self, kwargs: dict[str, Any]) -> None:
        env = gym.make("TextGen-v0", **kwargs)
        observation, info = env.reset(options={"prompt": "ahj"})
        assert info["prompt"] == "ahj"
        assert observation in env.observation_space

    @pytest.mark.parametrize("token", ["a", "j"])
    def test_a_token_that_is_not_allowed_is_refused(
        self, kwargs: dict[str, Any], token: str
    ) -> None:
        message = f"token {LETTERS[token]} \\('{token}'\\) is none of the 4 that may be written"
        env = gym.make("TextGen-v0", **kwargs)
        before, _ = env.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            env.step(LETTERS[token])
        after, *_ = env.step(LETTERS["b"])  # as if nothing had been
        assert after["attention_mask"].sum() == before["attention_mask"].sum() + 1

        envs = gym.make_vec("TextGen-v0", 3, **kwargs)
        envs.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            envs.step(np.array([LETTERS["b"], LETTERS[token], EOS]))

    def test_numbers_that_are_no_tokens_are_refused_as_before(self, kwargs: dict[str, Any]) -> None:
        env = gym.make("TextGen-v0", **kwargs)
        env.reset(seed=0)
        for action, message in [(11, "from 0 to 10, got 11"), (-1, "got -1"), (1.5, "float64")]:
            with pytest.raises(ValueError, match=message):
                env.step(action)

    def test_the_action_of_a_row_that_resets_is_not_looked_at(self, kwargs: dict[str, Any]) -> None:
        envs = gym.make_vec("TextGen-v0", 2, autoreset_mode=AutoresetMode.NEXT_STEP, **kwargs)
        envs.reset(seed=0)
        envs.step(np.array([EOS, LETTERS["b"]]))
        envs.step(np.array([LETTERS["a"], LETTERS["b"]]))

    def test_action_masks(self, kwargs: dict[str, Any], byte_tokenizer_dir: str) -> None:
        expected = np.isin(np.arange(11), ALLOWED)
        env = gym.make("TextGen-v0", **kwargs)
        np.testing.assert_array_equal(env.unwrapped.action_masks(), expected)
        envs = gym.make_vec("TextGen-v0", 3, **kwargs)
        np.testing.assert_array_equal(envs.unwrapped.action_masks(), [expected] * 3)
        # Padding may be allowed, and still makes no sense in a text.
        builtin = gym.make("TextGen-v0", vocabulary=[0, 1, 500])
        assert builtin.action_space.allowed.tolist() == [0, 1, 500]
        assert builtin.unwrapped.action_masks().nonzero()[0].tolist() == [0, 500]

    def test_in_processes_of_their_own(self, kwargs: dict[str, Any]) -> None:
        make = partial(gym.make, "TextGen-v0", **kwargs)
        reference = SyncVectorEnv([make] * 2)
        envs = AsyncVectorEnv([make] * 2, context="fork")
        try:
            assert envs.action_space == reference.action_space
            envs.action_space.seed(0)
            envs.reset(seed=0)
            reference.reset(seed=0)
            for _ in range(12):
                actions = envs.action_space.sample()
                got, expected = envs.step(actions), reference.step(actions)
                np.testing.assert_array_equal(got[0]["input_ids"], expected[0]["input_ids"])
                np.testing.assert_array_equal(got[1], expected[1])
        finally:
            envs.close()
            reference.close()

    def test_bad_vocabularies_are_refused(self, kwargs: dict[str, Any]) -> None:
        for vocabulary, error in [([], ValueError), ([11], ValueError), ("x", FileNotFoundError)]:
            with pytest.raises(error, match="vocabulary"):
                gym.make("TextGen-v0", **{**kwargs, "vocabulary": vocabulary})
            with pytest.raises(error, match="vocabulary"):
                gym.make_vec("TextGen-v0", 2, **{**kwargs, "vocabulary": vocabulary})
