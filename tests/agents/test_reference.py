"""The model before training stays what it was, and straying from it is paid for."""

import copy
import warnings

import numpy as np
import pytest
import torch

from agents import TokenPPO

KL_COEF = 0.3

with_peft = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # its own


def initial(policy):
    """A model's copy, made before it is trained."""
    return copy.deepcopy(policy.backbone.model)


@torch.no_grad()
def plain_log_probs(model, buffer, temperature=1.0):
    """Log-probabilities of all tokens of a buffer under a plain model, text by text, (T, n)."""
    found = np.zeros_like(buffer.log_probs)
    for segment in buffer.segments:
        written = buffer.actions[segment.begin : segment.end, segment.row]
        text = torch.from_numpy(np.concatenate([segment.context, written]).astype(np.int64))
        logits = model(text[None]).logits[0, len(segment.context) - 1 : -1, :11] / temperature
        chosen = torch.from_numpy(written.astype(np.int64))[:, None]
        of_tokens = logits.log_softmax(-1).gather(1, chosen)[:, 0]
        found[segment.begin : segment.end, segment.row] = of_tokens
    return found


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "policy", [{}, {"temperature": 0.7}, {"top_k": 5, "top_p": 0.9}, {"gradient_checkpointing": 1}]
)
def test_nothing_has_changed_before_the_first_update(make_token_ppo, collect, policy):
    buffer = collect(make_token_ppo(policy=policy, kl_coef=KL_COEF))
    assert_close(buffer.ref_log_probs, buffer.log_probs)
    assert (buffer.log_probs < -0.01).any()


def test_the_penalty_is_taken_from_the_rewards(make_token_ppo, text_kwargs, shake):
    text_kwargs["budget_is_terminal"] = True  # nothing but rewards and penalties is in the rewards
    ours = make_token_ppo(kl_coef=KL_COEF, n_steps=30, gamma=0.9, gae_lambda=1.0)
    shake(ours.policy)
    paid, dones = [], []

    def note(variables, _):
        paid.append(variables["rewards"].copy())
        dones.append(variables["dones"].copy())
        return True

    ours.learn(30 * 4, callback=note)
    buffer = ours.rollout_buffer
    penalty = -KL_COEF * (buffer.log_probs - buffer.ref_log_probs)
    assert np.abs(penalty).max() > 0.1
    np.testing.assert_array_equal(buffer.rewards, np.stack(paid) + penalty)
    # And what is learnt from is the discounted sum of both.
    last = np.flatnonzero(np.stack(dones)[:, 0])[-1]
    expected = 0.0
    for step in range(last, -1, -1):
        expected = paid[step][0] + penalty[step, 0] + 0.9 * expected * (not dones[step][0])
        assert buffer.returns[step, 0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("policy", [{}, {"temperature": 0.7}, {"gradient_checkpointing": True}])
def test_the_reference_stays_while_the_policy_learns(make_token_ppo, collect, policy):
    ours = make_token_ppo(policy=policy, kl_coef=KL_COEF, learning_rate=3e-3)
    model = initial(ours.policy)
    if "gradient_checkpointing" in policy:
        for layer in model.transformer.h if hasattr(model, "transformer") else model.model.layers:
            del layer.forward
    ours.learn(3 * 64)
    buffer = collect(ours)
    temperature = policy.get("temperature", 1.0)
    assert_close(buffer.ref_log_probs, plain_log_probs(model, buffer, temperature))
    now = plain_log_probs(ours.policy.backbone.model, buffer, temperature)
    assert_close(buffer.log_probs, now)
    assert np.abs(buffer.log_probs - buffer.ref_log_probs).max() > 0.1
    assert not any(p.requires_grad for p in ours.reference.parameters())


def test_there_is_no_reference_unless_it_is_asked_for(make_token_ppo, collect):
    ours = make_token_ppo()
    assert ours.reference is None
    assert not collect(ours).ref_log_probs.any()


# An adapter


@pytest.fixture
def adapted(make_token_ppo, request):
    """A TokenPPO that trains an adapter, and the model without one."""
    pytest.importorskip("peft")

    def make(**arguments):
        names = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}
        family = request.node.callspec.params["make_model"]
        lora = {"r": 4, "target_modules": names[family]}
        plain = initial(make_token_ppo().policy)
        return make_token_ppo(policy={"lora": lora}, learning_rate=1e-2, **arguments), plain

    return make


@with_peft
def test_the_reference_is_the_model_without_its_adapter(adapted, collect):
    ours, plain = adapted(kl_coef=KL_COEF)
    buffer = collect(ours)
    assert_close(buffer.ref_log_probs, plain_log_probs(plain, buffer))
    assert_close(buffer.ref_log_probs, buffer.log_probs)
    before = {name: p.clone() for name, p in ours.policy.named_parameters()}
    ours.learn(3 * 64)
    buffer = collect(ours)
    assert_close(buffer.ref_log_probs, plain_log_probs(plain, buffer))
    assert np.abs(buffer.log_probs - buffer.ref_log_probs).max() > 0.05
    moved = {n for n, p in ours.policy.named_parameters() if not torch.equal(p, before[n])}
    trained = {n for n, p in ours.policy.named_parameters() if p.requires_grad}
    assert moved == trained
    assert all("lora_" in name or name.startswith("value_net") for name in trained)
    assert not [*ours.reference.parameters()], "weights that the policy has already"


@with_peft
def test_an_adapter_is_told_how_the_weights_lie(adapted):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours, _ = adapted()
    assert not [str(w.message) for w in caught if w.category is not FutureWarning]
    layers = [m for m in ours.policy.modules() if hasattr(m, "fan_in_fan_out")]
    is_gpt2 = type(ours.policy.backbone.model.get_base_model()).__name__ == "GPT2LMHeadModel"
    assert {m.fan_in_fan_out for m in layers} == {is_gpt2}


@with_peft
def test_an_adapter_is_read_alike_in_rollout_and_update(adapted, collect):
    ours, _ = adapted()
    ours.learn(2 * 64)
    buffer = collect(ours)
    (batch,) = buffer.sequence_batches(buffer.segments, 10**6)
    with torch.no_grad():
        values, log_probs, _ = ours.policy.evaluate_sequences(batch)
    assert_close(log_probs, buffer.log_probs.reshape(-1)[batch.places])
    assert_close(values, buffer.values.reshape(-1)[batch.places])


@with_peft
def test_a_run_with_an_adapter_is_saved_and_loaded(adapted, collect, tmp_path):
    ours, plain = adapted(kl_coef=KL_COEF)
    ours.learn(2 * 64)
    ours.save(tmp_path / "run.zip")
    loaded = TokenPPO.load(tmp_path / "run.zip", env=ours.env)
    for one, other in zip(ours.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad == other.requires_grad
    buffer = collect(loaded)
    assert_close(buffer.ref_log_probs, plain_log_probs(plain, buffer))
    loaded.learn(64)


# A coefficient that follows a target


@pytest.mark.parametrize("target", [1e-4, 1.0, 1e4])
def test_the_coefficient_moves_towards_its_target(make_token_ppo, collect, shake, target):
    ours = make_token_ppo(kl_coef=KL_COEF, target_kl_ref=target)
    shake(ours.policy)
    coef = KL_COEF
    for _ in range(3):
        collect(ours)
        logged = ours.logger.name_to_value
        assert logged["objective/kl_coef"] == coef  # what the rewards were penalised with
        # A tenth of the error, of which a fifth counts at most.
        error = min(max(logged["objective/kl"] / target - 1, -0.2), 0.2)
        assert ours.kl_coef == pytest.approx(coef * (1 + 0.1 * error))
        assert ours.kl_coef != coef
        coef = ours.kl_coef


def test_without_a_target_the_coefficient_stays(make_token_ppo, collect, shake):
    ours = make_token_ppo(kl_coef=KL_COEF)
    shake(ours.policy)
    for _ in range(3):
        collect(ours)
    assert ours.kl_coef == KL_COEF


def test_a_penalty_keeps_the_policy_near(make_token_ppo, collect):
    strayed = {}
    for kl_coef in (1e-6, 10.0):
        ours = make_token_ppo(n_envs=16, kl_coef=kl_coef, learning_rate=5e-4, n_epochs=4)
        ours.learn(5 * 256)
        buffer = collect(ours)
        # An estimate of the KL divergence that is never below 0, whatever was drawn.
        d = buffer.log_probs - buffer.ref_log_probs
        strayed[kl_coef] = np.mean(np.expm1(-d) + d)
    assert strayed[10.0] < 0.5 * strayed[1e-6]
