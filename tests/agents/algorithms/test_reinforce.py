"""The gradients are those of the expected return: all texts of a tiny language are counted up."""

import copy
import itertools
import json
import zlib

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from agents.algorithms.grpo import GRPO
from agents.algorithms.reinforce import Reinforce
from agents.algorithms.rloo import RLOO
from agents.losses import kl_of_policy
from agents.returns import group_centred
from textgym.tokenizer import Tokenizer

EOS, MOST = "<|endoftext|>", 3
PROMPT = [1, 2, 1]


def worth(text):
    """As wild a function of a text as there can be."""
    return zlib.crc32(text.encode()) % 1000 / 1000


def all_texts(vocab_size):
    """All that can be written: token 0 ends a text, and so does the third token."""
    texts = []
    for length in range(1, MOST + 1):
        for text in itertools.product(range(vocab_size), repeat=length):
            if 0 not in text[:-1] and (text[-1] == 0 or length == MOST):
                texts.append(text)
    return texts


def scores(text, timing, gamma=1.0):
    """What each token of a text is paid, and what is paid from each of them on."""
    letters = "".join("abc"[token - 1] for token in text if token)
    so_far = [worth(letters[: t + 1]) for t in range(len(text))]
    paid = np.diff(so_far, prepend=0) if timing == "immediate" else [0] * len(text)
    if timing == "delayed":
        paid[-1] = so_far[-1]
    to_go = [
        sum(gamma ** (k - t) * reward for k, reward in enumerate(paid) if k >= t)
        for t in range(len(text))
    ]
    return so_far[-1], to_go


@pytest.fixture
def language(tmp_path):
    """Environment arguments of a language with so many tokens; the first of them ends a text."""

    def language(vocab_size, timing, reward):
        vocabulary = {token: i for i, token in enumerate([EOS, *"abc"[: vocab_size - 1]])}
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([EOS])
        Tokenizer(backend, name="abc", eos_token=EOS).save_pretrained(tmp_path)
        (tmp_path / "task.jsonl").write_text(json.dumps({"prompt": "aba"}), encoding="utf-8")
        return {
            "task": {"name": "file", "path": str(tmp_path / "task.jsonl")},
            "reward": reward,
            "timing": timing,
            "tokenizer": str(tmp_path),
            "max_new_tokens": MOST,
            "budget_is_terminal": True,
        }

    return language


@pytest.fixture
def written(make_algorithm, language, collect, shake, monkeypatch):
    """An algorithm whose rows each wrote one given text; and its model as it was."""

    def make(algorithm, vocab_size, texts, timing, reward=worth, **settings):
        algorithm = make_algorithm(
            algorithm,
            language(vocab_size, timing, reward),
            n_envs=len(texts),
            vocab_size=vocab_size,
            n_episodes=len(texts),
            **settings,
        )
        shake(algorithm.policy)
        steps = itertools.count()

        def draw(logits):
            step = next(steps)
            tokens = torch.tensor([text[step] for text in texts if len(text) > step])
            return tokens, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]

        monkeypatch.setattr("agents.sampler.draw", draw)
        buffer = collect(algorithm)
        segments = buffer.segments
        assert [tuple(buffer.actions[s.begin : s.end, s.row]) for s in segments] == list(texts)
        assert all(segment.context.tolist() == PROMPT for segment in segments)
        return algorithm, copy.deepcopy(algorithm.policy.backbone.model)

    return make


def log_probs(model, texts):
    """Of each token of each text, (n, 3), 0 behind their ends; by nothing but the model."""
    ids = torch.tensor([[*PROMPT, *text, *[0] * (MOST - len(text))] for text in texts])
    of_all = model(ids).logits[:, len(PROMPT) - 1 : -1].log_softmax(-1)
    chosen = of_all.gather(2, ids[:, len(PROMPT) :, None])[:, :, 0]
    return chosen * torch.tensor([[t < len(text) for t in range(MOST)] for text in texts])


def gradient(model, objective):
    model.zero_grad()
    objective.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def gradient_of_expected_return(model, texts, timing):
    returns = torch.tensor([scores(text, timing)[0] for text in texts])
    probabilities = log_probs(model, texts).sum(1).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    return gradient(model, (probabilities * returns).sum())


def own_gradient(algorithm, segments):
    """What an algorithm would descend on for some texts, of the language model."""
    algorithm._gradients(segments)
    return torch.cat([p.grad.flatten() for p in algorithm.policy.backbone.model.parameters()])


def assert_same(got, expected):
    assert expected.norm() > 0.05
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def credited(model, texts, weights):
    """What should be the expectation of credit for tokens, times the gradient of their log-probs.

    By the policy gradient theorem it is that of the expected return where each token's weight is
    what is paid from it on.
    """
    of_tokens = log_probs(model, texts)
    probabilities = of_tokens.sum(1, keepdim=True).exp().detach()
    padded = torch.zeros(len(texts), MOST)
    for line, of_text in zip(padded, weights, strict=True):
        line[: len(of_text)] = torch.tensor(of_text)
    return gradient(model, (probabilities * padded * of_tokens).sum())


def expectation(model, texts, gradients, members=1):
    """Over all texts, or all pairs of them in `combinations_with_replacement`, of a gradient."""
    single = log_probs(model, texts).sum(1).exp().tolist()
    expected, total = 0, 0
    chosen = itertools.combinations_with_replacement(range(len(texts)), members)
    for group, gradient_of_group in zip(chosen, gradients, strict=True):
        orders = len(set(itertools.permutations(group)))
        probability = orders * np.prod([single[member] for member in group])
        expected, total = expected + probability * gradient_of_group, total + probability
    assert total == pytest.approx(1, abs=1e-5)
    return expected


TIMINGS = pytest.mark.parametrize("timing", ["immediate", "delayed"])


@TIMINGS
@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_follows_the_gradient_of_the_expected_return(written, timing, baseline):
    texts = all_texts(4)
    assert len(texts) == 1 + 3 + 9 + 27
    settings = {"baseline": baseline, "vf_coef": 0.0}
    ours, model = written(Reinforce, 4, texts, timing, **settings)
    buffer = ours.rollout_buffer
    # What is subtracted is not the same for all texts, nor nothing.
    subtracted = (buffer.returns - buffer.advantages)[buffer.written]
    assert subtracted.std() > 0.1 if baseline else not subtracted.any()

    gradients = (own_gradient(ours, [segment]) for segment in buffer.segments)
    got = -expectation(model, texts, gradients)
    assert_same(got, gradient_of_expected_return(model, texts, timing))
    assert_same(got, credited(model, texts, [scores(text, timing)[1] for text in texts]))


def test_discounted_reinforce_credits_a_token_with_what_is_near(written):
    texts, gamma = all_texts(4), 0.7
    ours, model = written(Reinforce, 4, texts, "immediate", baseline=False, gamma=gamma)
    gradients = (own_gradient(ours, [segment]) for segment in ours.rollout_buffer.segments)
    weights = [scores(text, "immediate", gamma)[1] for text in texts]
    assert_same(-expectation(model, texts, gradients), credited(model, texts, weights))


class MeanOfAll(GRPO):
    """Without the division by a group's spread, which is a choice and no expectation."""

    def _compare(self, returns):
        return group_centred(returns)


class ByText(MeanOfAll):
    """And losses averaged over texts, since a mean over tokens depends on how long they are."""

    averages_over = "texts"


@pytest.mark.parametrize(
    ("algorithm", "credit", "timing"),
    [
        (RLOO, "token", "immediate"),
        (RLOO, "token", "delayed"),
        (RLOO, "sequence", "immediate"),
        (ByText, "token", "immediate"),
        (ByText, "sequence", "immediate"),
    ],
)
def test_groups_of_two(written, algorithm, credit, timing):
    """All pairs of texts: the others as a baseline leave the gradient as it is, one's own not."""
    texts = all_texts(3)
    assert len(texts) == 1 + 2 + 4 + 8
    pairs = list(itertools.combinations_with_replacement(texts, 2))
    settings = {"group_size": 2, "credit": credit}
    ours, model = written(algorithm, 3, list(itertools.chain(*pairs)), timing, **settings)
    segments = ours.rollout_buffer.segments
    gradients = (own_gradient(ours, segments[2 * i : 2 * i + 2]) for i in range(len(pairs)))
    got = -expectation(model, texts, gradients, members=2)

    exact = gradient_of_expected_return(model, texts, timing)
    if algorithm is RLOO:
        assert_same(got, exact)
    elif credit == "sequence":
        assert_same(got, exact / 2)  # (G - 1) / G
    else:
        # A text that no other got as far as is compared with itself alone, and learns nothing.
        so_likely = log_probs(model, texts).sum(1).exp()
        alive = [
            sum(p for text, p in zip(texts, so_likely.tolist(), strict=True) if len(text) > t)
            for t in range(MOST)
        ]
        assert alive[0] == pytest.approx(1)
        assert alive[2] < 0.8
        weights = [
            [share / 2 * paid for share, paid in zip(alive, scores(text, timing)[1], strict=False)]
            for text in texts
        ]
        assert_same(got, credited(model, texts, weights))


def test_the_penalty_of_grpo_has_the_gradient_of_the_divergence():
    """In expectation over tokens, whether they are of the policy itself or of an older one."""
    torch.manual_seed(0)
    logits = torch.randn(6, requires_grad=True)
    policy, reference = logits.log_softmax(0), torch.randn(6).log_softmax(0)
    divergence = (policy.exp() * (policy - reference)).sum()
    (expected,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    for wrote in (policy.detach(), torch.randn(6).log_softmax(0)):
        penalty = (wrote.exp() * kl_of_policy(policy, reference, policy - wrote)).sum()
        (got,) = torch.autograd.grad(penalty, logits, retain_graph=True)
        assert penalty.item() == pytest.approx(divergence.item(), abs=1e-5)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    assert expected.norm() > 0.1


def test_texts_that_earn_the_same_at_different_times_are_no_thousands_apart(written):
    """Which they would be if divided by how much all that they earn differs."""
    texts = [(1, 2, 2), (2, 2, 1)]
    ours, _ = written(
        GRPO, 3, texts, "immediate", reward=lambda text: float("a" in text), group_size=2
    )
    buffer = ours.rollout_buffer
    assert buffer.rewards.T.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert np.abs(buffer.advantages).max() < 10
