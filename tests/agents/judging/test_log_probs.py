"""What a model says of texts is what transformers computes of each, one by one."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import TransformerPolicy, make_sb3_vec_env
from agents.evaluation import Written, write
from agents.judging.log_probs import log_probs
from agents.sampling import Sampling

PROMPTS = [{"prompt_index": index % 2} for index in range(7)]


@pytest.fixture
def policy(make_model, text_kwargs, shake):
    env = gym.make("TextGen-v0", **text_kwargs)
    spaces = env.observation_space, env.action_space
    return shake(
        TransformerPolicy(*spaces, lambda _: 1e-3, model=make_model(vocab_size=11), top_k=4)
    )


@pytest.fixture
def written(policy, text_kwargs):
    env = make_sb3_vec_env("TextGen-v0", 4, env_kwargs=text_kwargs)
    return write(policy, env, PROMPTS, seed=1)


def by_transformers(model, context, tokens):
    ids = torch.tensor([[*context, *tokens]])
    with torch.no_grad():
        said = model(input_ids=ids).logits.log_softmax(-1)[0, len(context) - 1 : -1]
    return said.gather(1, torch.tensor(tokens)[:, None])[:, 0].numpy()


@pytest.mark.parametrize("max_tokens", [1, 20, 8_192])
def test_each_token_of_each_text(policy, written, max_tokens):
    found = log_probs(policy.backbone, Sampling(), written, max_tokens=max_tokens, logits_budget=30)
    assert len(found) == len(PROMPTS)
    for each, numbers in zip(written, found, strict=True):
        ((begin, context),) = each.contexts
        assert begin == 0
        tokens = each.episode.token_ids
        expected = by_transformers(policy.backbone.model, context.tolist(), tokens)
        np.testing.assert_allclose(numbers, expected, rtol=1e-4, atol=1e-5)


def test_temperature_and_filters_count(policy, written):
    own = log_probs(policy.backbone, policy.sampling, written)
    plain = log_probs(policy.backbone, Sampling(), written)
    for filtered, unfiltered in zip(own, plain, strict=True):
        assert (filtered > unfiltered).all()  # what is left out leaves more for the others


def test_what_an_environment_adds_is_read_and_not_counted(policy, written):
    each = copy.deepcopy(max(written, key=lambda each: len(each.episode.token_ids)))
    tokens = each.episode.token_ids
    ((_, prompt),) = each.contexts
    answered = np.array([*prompt, *tokens[:2], 5, 6], np.int32)
    dialogue = Written(each.episode, [(0, prompt), (2, answered)])
    (found,) = log_probs(policy.backbone, Sampling(), [dialogue])
    model = policy.backbone.model
    first = by_transformers(model, prompt.tolist(), tokens[:2])
    second = by_transformers(model, answered.tolist(), tokens[2:])
    np.testing.assert_allclose(found, [*first, *second], rtol=1e-4, atol=1e-5)
