"""Of the same texts GRPO and RLOO make what TRL's own trainers make of them."""

import sys

import numpy as np
import pytest
import torch

from agents.algorithms.grpo import GRPO
from agents.algorithms.rloo import RLOO

pytestmark = [
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="TRL is for Python 3.11 and later"),
]

GROUP_SIZE, GROUPS, N_ENVS = 4, 6, 5
CLIP_RANGE = 0.2

OURS = {"GRPO": GRPO, "RLOO": RLOO}
# A mean over all tokens; RLOO has no choice.
ARGUMENTS = {"GRPO": {"loss_type": "bnpo"}, "RLOO": {}}


def worth(prompt, token_ids):
    """Of long prompts all texts are worth the same."""
    return 0.5 if len(prompt) > 3 else float(np.sin(np.arange(1, len(token_ids) + 1) @ token_ids))


@pytest.fixture
def both(make_algorithm, collect, shake, text_kwargs, make_trl):
    """One of ours with a rollout, whose policy is no longer its reference; and TRL's with the same.

    Texts are in the order of their groups.
    """

    def make(name, kl_coef=0.0, temperature=1.0, ent_coef=0.0, **settings):
        ours = make_algorithm(
            OURS[name],
            {**text_kwargs, "reward": worth},
            {"temperature": temperature},
            n_envs=N_ENVS,
            n_episodes=GROUPS * GROUP_SIZE,
            group_size=GROUP_SIZE,
            credit="sequence",
            clip_range=CLIP_RANGE,
            kl_coef=kl_coef,
            ent_coef=ent_coef,
            max_grad_norm=0.5,
            **settings,
        )
        reference = ours.policy.backbone.model
        arguments = {"beta": kl_coef, "temperature": temperature, "epsilon": CLIP_RANGE}
        if ent_coef:
            arguments["entropy_coef"] = ent_coef
        weights_before = {k: v.clone() for k, v in reference.state_dict().items()}
        shake(ours.policy)
        with torch.no_grad():  # no critic takes part
            ours.policy.value_net.weight.zero_()
            ours.policy.value_net.bias.zero_()
        buffer = collect(ours)
        texts = []
        for segment in sorted(buffer.segments, key=lambda segment: (segment.begin, segment.row)):
            written = buffer.actions[segment.begin : segment.end, segment.row].tolist()
            prompt = segment.context.tolist()
            letters = "".join("abcdefghij"[token - 1] for token in prompt)
            texts.append((prompt, written, worth(letters, np.array(written))))
        weights = {k: v.clone() for k, v in reference.state_dict().items()}
        reference.load_state_dict(weights_before)
        trl = make_trl(
            name,
            reference,
            texts,
            num_generations=GROUP_SIZE,
            num_iterations=ours.n_epochs,
            max_grad_norm=0.5,
            **arguments,
            **ARGUMENTS[name],
        )
        for model in (reference, trl.trainer.model):
            model.load_state_dict(weights)
        return ours, trl

    return make


def in_groups(ours, column):
    """Numbers of tokens, (texts, L), 0 behind the end; texts in the order of their groups."""
    segments = sorted(ours.rollout_buffer.segments, key=lambda s: (s.begin, s.row))
    lines = np.zeros((len(segments), max(s.steps for s in segments)), np.float32)
    for line, segment in zip(lines, segments, strict=True):
        line[: segment.steps] = column[segment.begin : segment.end, segment.row]
    return torch.from_numpy(lines)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


CASES = pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("GRPO", {}),
        ("GRPO", {"kl_coef": 0.3, "temperature": 0.7, "ent_coef": 0.05}),
        ("RLOO", {}),
        ("RLOO", {"kl_coef": 0.3, "temperature": 0.7}),
    ],
    ids=["GRPO", "GRPO with all", "RLOO", "RLOO with all"],
)


@CASES
def test_advantages_are_those_of_trl(both, name, settings):
    ours, trl = both(name, **settings)
    inputs = trl.inputs()
    advantages = in_groups(ours, ours.rollout_buffer.advantages)
    written = in_groups(ours, ours.rollout_buffer.written.astype(np.float32))
    torch.testing.assert_close(written.long(), inputs["completion_mask"], rtol=0, atol=0)
    expected = inputs["advantages"][:, None] * written
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=1e-5)
    if name == "GRPO" and settings:
        references = in_groups(ours, ours.rollout_buffer.ref_log_probs)
        torch.testing.assert_close(references, inputs["ref_per_token_logps"] * written)

    # What these texts have to be for this to say anything.
    lengths = written.sum(1).reshape(GROUPS, GROUP_SIZE)
    scores = torch.tensor([text.score for text in trl.texts]).reshape(GROUPS, GROUP_SIZE)
    equal = (scores == scores[:, :1]).all(1)
    assert 1 <= equal.sum() < GROUPS
    assert (lengths != lengths[:, :1]).any()
    if not (name == "RLOO" and settings):  # there the penalty is part of what they are worth
        assert (advantages.reshape(GROUPS, -1)[equal] == 0).all()


@CASES
def test_loss_and_gradient_are_those_of_trl(both, shake, name, settings):
    """At weights that are no longer those which wrote the texts."""
    # Of a single pass TRL takes the ratio to be 1.
    ours, trl = both(name, **settings, n_epochs=2)
    inputs = trl.inputs()
    for seed in (1, 2):
        shake(ours.policy, seed)
    trl.trainer.model.load_state_dict(ours.policy.backbone.model.state_dict())
    sums = ours._gradients(ours.rollout_buffer.segments)
    expected = trl.loss(inputs)
    loss = sums.mean()["loss"]  # over tokens, or texts: what is minimised
    assert loss == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert 0.1 < sums.mean()["clip_fraction"] < 0.9
    got, wanted = gradients(ours.policy.backbone.model), gradients(trl.trainer.model)
    assert got.keys() == wanted.keys()
    assert max(gradient.abs().max() for gradient in wanted.values()) > 0.05
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], atol=1e-5, rtol=1e-4, msg=key)


@CASES
def test_updates_of_several_passes_are_those_of_trl(both, name, settings):
    ours, trl = both(name, **settings, n_epochs=4, learning_rate=3e-3)
    before = {k: v.clone() for k, v in ours.policy.backbone.model.state_dict().items()}
    trl.train(ours.policy.optimizer, 4)
    ours._setup_learn(1)
    ours.train()
    after = ours.policy.backbone.model.state_dict()
    wanted = trl.trainer.model.state_dict()
    assert max((after[key] - before[key]).abs().max() for key in after) > 5e-3
    for key in wanted:
        torch.testing.assert_close(after[key], wanted[key], atol=1e-5, rtol=0, msg=key)
    assert ours.logger.name_to_value["train/clip_fraction"] > 0.02
