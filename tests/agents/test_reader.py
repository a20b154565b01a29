"""A cache must be no more than a faster way to the same numbers."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import obs_as_tensor

import textgym
from agents import TransformerPolicy, make_sb3_vec_env
from agents.aligned_reader import AlignedReader
from agents.attention import Reading
from agents.backbone import Backbone
from agents.reader import CachedReader, UncachedReader, best_reader
from agents.rollout import Rollout
from agents.sampler import Sampler

gym.register_envs(textgym)

CONTEXT = 20
VOCABULARY = 100


@pytest.fixture
def make_policy(shake):
    def make(model):
        spaces = gym.spaces.Dict(
            input_ids=gym.spaces.Box(0, VOCABULARY - 1, (CONTEXT,), np.int64),
            attention_mask=gym.spaces.Box(0, 1, (CONTEXT,), np.int8),
        )
        actions = gym.spaces.Discrete(VOCABULARY)
        return shake(TransformerPolicy(spaces, actions, lambda _: 1e-3, model=model))

    return make


class Play:
    """Two samplers of a policy, one with a cache, do the same; their rows do as chance wants."""

    def __init__(self, policy, seed, num_rows=5):
        self.policy = policy
        self.rng = np.random.default_rng(seed)
        self.samplers = []
        for reader in (CachedReader, UncachedReader):
            policy.reader_class = reader
            self.samplers.append(Sampler(policy, num_rows))
        self.lengths = np.zeros(num_rows, np.int64)
        self.ages = set()

    def begin(self, rows):
        lengths = self.rng.choice([1, 2, *range(3, CONTEXT), CONTEXT], size=len(rows))
        ids = self.rng.integers(VOCABULARY, size=(len(rows), CONTEXT))
        for sampler in self.samplers:
            sampler.begin(rows, ids, lengths)
        self.lengths[rows] = lengths

    def step(self):
        """Begin the rows that are full and some others anew, and write a token in every row."""
        anew = (self.lengths == CONTEXT) | (self.rng.random(len(self.lengths)) < 0.1)
        while anew.any():
            self.begin(anew.nonzero()[0])
            anew = self.lengths == CONTEXT
        tokens = torch.from_numpy(self.rng.integers(VOCABULARY, size=len(self.lengths)))
        for sampler in self.samplers:
            sampler.append(tokens)
        self.lengths += 1
        self.ages.add(tuple(self.lengths.tolist()))

    def keep(self, rows):
        for sampler in self.samplers:
            sampler.keep(rows)
        self.lengths = self.lengths[rows]

    def assert_alike(self):
        cached, uncached = self.samplers
        for got, expected in zip(cached._reader.seen, uncached._reader.seen, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(cached.values(), uncached.values(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def play(policy, shake, seed):
    everyone = np.arange(5)
    played = Play(policy, seed)
    for update in range(2):
        shake(policy, update)
        played.begin(everyone)
        played.assert_alike()
        for _ in range(40):
            played.step()
            played.assert_alike()
    played.keep(np.array([0, 2, 3]))
    played.assert_alike()
    for _ in range(20):
        played.step()
        played.assert_alike()
    played.keep(np.array([1]))
    for _ in range(10):
        played.step()
        played.assert_alike()
    return played


@pytest.mark.parametrize("seed", range(2))
def test_cached_is_uncached_all_through_long_play(make_model, make_policy, shake, seed):
    model = make_model(vocab_size=VOCABULARY)
    played = play(make_policy(model), shake, seed)
    assert {max(ages) for ages in played.ages} >= {CONTEXT}
    assert any(min(ages) == 2 for ages in played.ages)
    assert sum(len(set(ages)) > 3 for ages in played.ages) > 40


def test_a_row_that_begins_anew_is_read_with_the_weights_of_now(make_model, make_policy, shake):
    policy = make_policy(make_model(vocab_size=VOCABULARY))
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(5, CONTEXT))
    values = []
    with torch.no_grad():
        sampler = Play(policy, 0).samplers[0]
        for update in range(2):
            sampler.begin(np.arange(5), ids, np.full(5, CONTEXT))
            values.append(sampler.values())
            shake(policy, update)
    assert (values[0] - values[1]).abs().min() > 0.01


def test_both_read_what_the_policy_itself_reads(make_model, make_policy):
    policy = make_policy(make_model(vocab_size=VOCABULARY))
    played = Play(policy, 0)
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(5, CONTEXT))
    lengths = np.array([CONTEXT, 1, 7, 2, 13])
    mask = (np.arange(CONTEXT) < lengths[:, None]).astype(np.int8)
    with torch.no_grad():
        expected = policy.predict_values(
            obs_as_tensor({"input_ids": ids * mask, "attention_mask": mask}, "cpu")
        )[:, 0]
        for sampler in played.samplers:
            sampler.begin(np.arange(5), ids, lengths)
            torch.testing.assert_close(sampler.values(), expected, atol=1e-5, rtol=1e-5)


# Which one is taken


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("recurrent_gemma", "raises IndexError.* with ours and gives other logits"),
        ("roberta", "gives other logits with ours and gives other logits"),  # pads its positions
        ("rwkv", "gives other logits with ours and gives other logits"),  # a state of its own
    ],
)
def test_families_that_no_cache_serves_are_read_again(family, reason, make_family):
    backbone = Backbone(make_family(family), VOCABULARY, 40)
    with pytest.warns(UserWarning, match=rf"cannot be read with a cache.*{reason}.*40 times"):
        assert best_reader(backbone) is UncachedReader


@pytest.mark.parametrize("context", [1, 2, 3, 4, 5, 40])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_windows_are_kept_to(family, context, make_family):
    for window in {max(context - 1, 1), context, 2}:
        backbone = Backbone(make_family(family, sliding_window=window), VOCABULARY, context)
        assert best_reader(backbone) is CachedReader


def test_a_family_that_does_not_keep_to_its_window_is_noticed(make_family, monkeypatch):
    backbone = Backbone(make_family("mistral", sliding_window=4), VOCABULARY, 40)
    attend = Reading.attend
    monkeypatch.setattr(
        Reading,
        "attend",
        lambda self, layer, query, key, value, kind: attend(
            self, layer, query, key, value, kind._replace(window=None)
        ),
    )
    assert best_reader(backbone) is AlignedReader


def test_a_number_type_is_not_taken_for_a_disagreement(make_model):
    backbone = Backbone(make_model(), 257, 40, dtype="bfloat16")
    assert best_reader(backbone) is CachedReader


def test_it_is_found_out_once(make_family, make_policy):
    policy = make_policy(make_family("rwkv"))
    with pytest.warns(UserWarning, match="cannot be read"):
        Sampler(policy, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sampler(policy, 3)


@pytest.mark.parametrize("family", ["bart", "recurrent_gemma", "rwkv"])
def test_rollouts_without_a_cache_are_right(family, make_family, shake, text_kwargs):
    env = make_sb3_vec_env("TextGen-v0", 3, seed=0, env_kwargs=text_kwargs)
    policy = TransformerPolicy(
        env.observation_space, env.action_space, lambda _: 1e-3, model=make_family(family)
    )
    shake(policy)
    with pytest.warns(UserWarning, match="cannot be read"):
        sampler = Sampler(policy, 3)
    rollout = Rollout(sampler, env, env.reset())
    ended = 0
    for _ in range(15):
        step = rollout.step()
        with torch.no_grad():
            values, log_probs, _ = policy.evaluate_actions(
                obs_as_tensor(step.observations, "cpu"), torch.from_numpy(step.actions)
            )
        np.testing.assert_allclose(step.values, values[:, 0], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(step.log_probs, log_probs, atol=1e-5, rtol=1e-5)
        ended += step.dones.sum()
    assert ended > 3
