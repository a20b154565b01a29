"""The update is that of stock PPO, and the way it is computed makes no difference."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.buffer import TokenRolloutBuffer

N_STEPS, N_ENVS = 16, 4  # of `make_token_ppo`

DROPOUT = {
    "gpt2": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
    "llama": {"attention_dropout": 0.5},
}


def spaces_of(context_length):
    return (
        gym.spaces.Dict(
            input_ids=gym.spaces.Box(0, 10, (context_length,), np.int64),
            attention_mask=gym.spaces.Box(0, 1, (context_length,), np.int8),
        ),
        gym.spaces.Discrete(11),
    )


def parameters(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()])


def gradients(algorithm, segments):
    algorithm._gradients(segments)
    return torch.cat([p.grad.flatten() for p in algorithm.policy.parameters()])


# The same step as stock PPO


@pytest.fixture
def norms(monkeypatch):
    """The gradients' norms before they were clipped."""
    seen = []
    clip = torch.nn.utils.clip_grad_norm_

    def clip_and_tell(parameters, max_norm):
        norm = clip(parameters, max_norm)
        seen.append((float(norm), max_norm))
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_and_tell)
    return seen


BITING = {
    "ent_coef": 0.05,
    "clip_range": 0.1,
    "clip_range_vf": 0.1,
    "vf_coef": 0.7,
    "max_grad_norm": 0.05,
    "learning_rate": 1e-3,
    "gamma": 0.97,
}
PLAIN = {"clip_range_vf": None, "ent_coef": 0.0, "max_grad_norm": 1e9, "normalize_advantage": False}


@pytest.fixture
def same_rollout(make_token_ppo, collect, prescribe, shake):
    """Stock PPO and TokenPPO of equal weights, with one and the same rollout in their buffers."""

    def make(**arguments):
        prescribe(np.random.default_rng(0).integers(11, size=(N_STEPS, N_ENVS)))
        stock, ours = (make_token_ppo(algorithm, **arguments) for algorithm in (PPO, TokenPPO))
        for algorithm in (stock, ours):
            shake(algorithm.policy)
            collect(algorithm)
        # The policy of the rollout is another one than that which learns: there is much to clip.
        rng = np.random.default_rng(0)
        for name, noise in {"log_probs": 0.2, "values": 0.2, "advantages": 0, "returns": 0}.items():
            numbers = getattr(stock.rollout_buffer, name)
            numbers += noise * rng.normal(size=numbers.shape).astype(np.float32)
            setattr(ours.rollout_buffer, name, numbers.copy())
        return stock, ours

    return make


def logged(algorithm):
    """What an update logs under SB3's names."""
    algorithm.set_logger(Logger(folder=None, output_formats=[]))
    algorithm.train()
    return algorithm.logger.name_to_value


@pytest.mark.parametrize("n_epochs", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("terms", [BITING, {**BITING, **PLAIN}], ids=["biting", "plain"])
def test_an_update_is_that_of_stock_ppo(same_rollout, norms, n_epochs, temperature, terms):
    stock, ours = same_rollout(n_epochs=n_epochs, policy={"temperature": temperature}, **terms)
    torch.testing.assert_close(parameters(stock), parameters(ours), atol=0, rtol=0)
    before = parameters(ours)
    expected, got = logged(stock), logged(ours)
    torch.testing.assert_close(parameters(ours), parameters(stock), atol=1e-5, rtol=0)
    assert (parameters(ours) - before).abs().max() > 5e-4

    assert {key for key in expected if key.startswith("train/")} <= got.keys()
    for key in expected:
        assert got[key] == pytest.approx(expected[key], abs=1e-5, rel=1e-4), key
    if terms is BITING:
        assert 0.1 < got["train/clip_fraction"] < 0.9
        assert 0.1 < got["val/clipfrac_avg"] < 1
        assert got["train/entropy_loss"] < -0.5
        assert all(norm > limit for norm, limit in norms)
    assert len(norms) == 2 * n_epochs


@pytest.mark.parametrize("term", ["ent_coef", "clip_range", "clip_range_vf", "max_grad_norm"])
def test_each_term_makes_a_difference(same_rollout, term):
    """Otherwise the test above would not notice if it was left out."""
    _, ours = same_rollout(n_epochs=1, **BITING)
    _, other = same_rollout(n_epochs=1, **{**BITING, term: 1e9})
    ours.train()
    other.train()
    assert (parameters(ours) - parameters(other)).abs().max() > 1e-4


# The ratio


class Spying(TokenPPO):
    """Keeps the log-ratios of all first mini-batches, and what was given to the last update."""

    first = ()

    def train(self):
        self.of_batches, self.advantages = [], []
        super().train()
        self.first = [*self.first, torch.cat(self.of_batches[0])]

    def _gradients(self, segments):
        self.of_batches.append([])
        self.advantages.append([])
        return super()._gradients(segments)

    def _policy_loss(self, tokens):
        self.of_batches[-1].append(tokens.log_ratio.detach())
        self.advantages[-1].append(tokens.advantages)
        return super()._policy_loss(tokens)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 4},
        {"top_p": 0.8},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9},
    ],
    ids=str,
)
def test_the_ratio_is_one_on_the_first_mini_batch_of_every_update(make_token_ppo, shake, sampling):
    ours = make_token_ppo(
        Spying,
        sampling,
        batch_size=16,
        n_epochs=2,
        learning_rate=3e-3,
        micro_batch_tokens=40,
        logits_budget=50,
    )
    shake(ours.policy)
    ours.learn(5 * N_STEPS * N_ENVS)
    assert len(ours.first) == 5
    assert 0 < min(map(len, ours.first)) <= max(map(len, ours.first)) < 30
    for log_ratios in ours.first:
        assert log_ratios.exp().sub(1).abs().max() <= 1e-5
    assert torch.cat(ours.of_batches[-1]).abs().max() > 1e-3  # which is not so later on


def test_advantages_are_normalised_over_each_mini_batch(make_token_ppo):
    ours = make_token_ppo(Spying, batch_size=16, n_epochs=2, micro_batch_tokens=20)
    ours.learn(N_STEPS * N_ENVS)
    assert len(ours.advantages) > 4
    for advantages in map(torch.cat, ours.advantages):
        assert advantages.mean().abs() < 1e-5
        assert advantages.std() == pytest.approx(1, abs=1e-4)


def test_filters_keep_out_what_they_should(make_token_ppo, collect, shake):
    ours = make_token_ppo(Spying, {"top_k": 2}, learning_rate=1e-3)
    shake(ours.policy)
    collect(ours)
    # Two tokens are possible: the likelier one has at least half of the probability.
    everything = next(ours.rollout_buffer.sequence_batches(ours.rollout_buffer.segments, 10**6))
    with torch.no_grad():
        _, log_probs, entropies = ours.policy.evaluate_sequences(everything)
    assert entropies.max() <= np.log(2) + 1e-6
    assert log_probs.exp().max() >= 0.5


# Memory is a setting


@pytest.fixture(scope="module")
def algorithms(fill, shake, tiny_tokenizer_dir):
    """Of both families, made once: hundreds of rollouts are put into them."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    env_kwargs = {
        "task": {"name": "target_token", "targets": [*"abc"], "num_prompts": 3},
        "reward": "target_token",
        "tokenizer": tiny_tokenizer_dir,
        "max_new_tokens": 11,
    }
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "max_position_embeddings": 12}
    gpt2 = GPT2Config(vocab_size=11, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    made = []
    for model in (
        GPT2LMHeadModel(gpt2),
        LlamaForCausalLM(LlamaConfig(vocab_size=11, **sizes, **heads)),
    ):
        env = make_sb3_vec_env("TextGen-v0", 3, env_kwargs=env_kwargs)
        ours = TokenPPO(
            TransformerPolicy,
            env,
            n_steps=10,
            ent_coef=0.05,
            clip_range_vf=0.2,
            policy_kwargs={"model": model, "temperature": 0.7},
        )
        shake(ours.policy)
        shake(ours.policy, 1)
        made.append(ours)
    return made


@settings(max_examples=25)
@given(
    family=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32 - 1),
    micro_batch_tokens=st.one_of(st.just(1), st.integers(1, 300), st.just(10**9)),
    logits_budget=st.one_of(st.just(1), st.integers(1, 400)),
)
def test_how_much_is_read_at_a_time_never_changes_the_gradient(
    algorithms, fill, family, seed, micro_batch_tokens, logits_budget
):
    ours = algorithms[family]
    fill(ours.rollout_buffer, seed)
    for segments in filter(None, ours.rollout_buffer.mini_batches(3)):
        ours.micro_batch_tokens, ours.logits_budget = 10**9, 10**9
        expected = gradients(ours, segments)
        ours.micro_batch_tokens, ours.logits_budget = micro_batch_tokens, logits_budget
        got = gradients(ours, segments)
        assert (got - expected).norm() <= 1e-5 * expected.norm()


@settings(max_examples=25)
@given(family=st.sampled_from([0, 1]), seed=st.integers(0, 2**32 - 1), padding=st.integers(0, 10))
def test_padding_never_changes_what_is_said_of_a_token(algorithms, fill, family, seed, padding):
    ours = algorithms[family]
    fill(ours.rollout_buffer, seed)
    segments = ours.rollout_buffer.segments
    (together,) = ours.rollout_buffer.sequence_batches(segments, 10**9)
    columns = together.input_ids.shape[1]
    holds_text = torch.arange(columns) < torch.tensor(
        sorted((segment.length for segment in segments), reverse=True)
    ).unsqueeze(1)
    otherwise = copy.copy(together)
    object.__setattr__(otherwise, "input_ids", torch.where(holds_text, together.input_ids, padding))
    with torch.no_grad():
        expected = ours.policy.evaluate_sequences(together)
        for got, numbers in zip(ours.policy.evaluate_sequences(otherwise), expected, strict=True):
            torch.testing.assert_close(got, numbers, atol=1e-6, rtol=0)
        for alone in ours.rollout_buffer.sequence_batches(segments, 1):
            where = torch.from_numpy(np.flatnonzero(np.isin(together.places, alone.places)))
            for got, numbers in zip(ours.policy.evaluate_sequences(alone), expected, strict=True):
                torch.testing.assert_close(got, numbers[where], atol=1e-5, rtol=0)


def test_no_more_logits_are_made_than_the_budget_allows(algorithms, fill):
    ours = algorithms[1]
    fill(ours.rollout_buffer, 0)
    made = []
    hook = ours.policy.backbone.head.register_forward_hook(lambda *call: made.append(call[2]))
    ours.micro_batch_tokens, ours.logits_budget = 10**9, 44
    ours._gradients(ours.rollout_buffer.segments)
    hook.remove()
    assert max(logits.numel() for logits in made) == 44


# Other ways to save memory


def count_runs(model):
    """How often layers begin to be computed, in a list that grows; and how many there are."""
    begun = []
    layers = [module for name, module in model.named_modules() if name.endswith(".mlp")]
    for layer in layers:
        layer.register_forward_pre_hook(lambda *_: begun.append(1))
    return begun, len(layers)


@pytest.mark.parametrize("family", DROPOUT)
def test_layers_that_are_computed_again_give_the_same_gradient(family, make_family, fill, shake):
    space, actions = spaces_of(12)
    found = {}
    for again in (False, True):
        policy = TransformerPolicy(
            space,
            actions,
            lambda _: 1e-3,
            model=make_family(family, vocab_size=11, **DROPOUT[family]).train(),
            gradient_checkpointing=again,
        )
        shake(policy).set_training_mode(True)
        buffer = TokenRolloutBuffer(10, space, actions, n_envs=4)
        fill(buffer, 0)
        (batch,) = buffer.sequence_batches(buffer.segments, 10**6)
        begun, layers = count_runs(policy.backbone.model)
        values, log_probs, entropies = policy.evaluate_sequences(batch)
        (values + log_probs + entropies).sum().backward()
        assert len(begun) == layers * (2 if again else 1)
        found[again] = torch.cat([p.grad.flatten() for p in policy.parameters()])
        with torch.no_grad():
            begun.clear()
            policy.evaluate_sequences(batch)
            assert len(begun) == layers
    assert found[False].norm() > 0.1
    assert (found[True] - found[False]).norm() <= 1e-6 * found[False].norm()


def test_bfloat16_trains_with_weights_in_float32(make_token_ppo, shake):
    ours = make_token_ppo(
        Spying, {"dtype": "bfloat16"}, batch_size=16, learning_rate=1e-3, n_epochs=2
    )
    shake(ours.policy)
    before = parameters(ours)
    products = set()
    for name, module in ours.policy.backbone.model.named_modules():
        if name.endswith("mlp"):
            module.register_forward_hook(lambda *call: products.add(call[2].dtype))
    ours.learn(3 * N_STEPS * N_ENVS)
    assert products == {torch.bfloat16}
    assert {p.dtype for p in ours.policy.parameters()} == {torch.float32}
    assert parameters(ours).isfinite().all()
    assert (parameters(ours) - before).abs().max() > 1e-3
    for log_ratios in ours.first:
        assert log_ratios.abs().max() < 0.02
    assert np.isfinite(ours.logger.name_to_value["train/loss"])
