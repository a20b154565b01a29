import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from agents.sampling import Sampling, draw

NEVER = torch.finfo(torch.float32).min
seeds = st.integers(0, 2**32)


def random_logits(seed, *shape, spread=2.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def warped_by_transformers(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Temperature, top-k, top-p, which is the order in which transformers applies them."""
    warpers = [TemperatureLogitsWarper(float(temperature))]
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    for warper in warpers:
        logits = warper(None, logits)
    return logits.masked_fill(logits == -math.inf, NEVER)


def is_clear_cut(logits, temperature, top_k, top_p):
    """Whether rounding and ties have no say in what is filtered.

    A token goes here if those before it reach top_p, and in transformers if it and those after
    it do not exceed 1 - top_p. This is the same, but sums are rounded otherwise; and of tokens
    that are alike at the boundary the two may keep others.
    """
    warped = warped_by_transformers(logits, temperature, top_k).double()
    ordered = warped.softmax(-1).sort(descending=True).values
    apart = all(len(row.unique()) == len(row) for row in logits)
    return apart and ((ordered.cumsum(-1) - top_p).abs() > 1e-5).all()


@given(
    seed=seeds,
    rows=st.integers(1, 4),
    vocabulary=st.integers(1, 40),
    temperature=st.sampled_from([1.0, 0.3, 2.5]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([1.0, 0.95, 0.6, 0.1]),
)
def test_it_warps_as_transformers_does(seed, rows, vocabulary, temperature, top_k, top_p):
    logits = random_logits(seed, rows, vocabulary)
    assume(top_p == 1 or is_clear_cut(logits, temperature, top_k, top_p))
    before = logits.clone()
    got = Sampling(temperature, top_k, top_p).warp(logits)
    expected = warped_by_transformers(logits, temperature, top_k, top_p)
    assert torch.equal(got, expected)
    assert torch.equal(logits, before)


def test_what_is_not_asked_for_is_not_done():
    logits = random_logits(0, 3, 7)
    assert Sampling().warp(logits) is logits
    assert torch.equal(Sampling(top_k=7).warp(logits), logits)
    assert torch.equal(Sampling(top_k=100).warp(logits, torch.tensor([0, 1, 2])), logits)


def test_top_k_keeps_all_that_are_as_good_as_the_last():
    logits = torch.tensor([[1.0, 3.0, 1.0, 0.0, 1.0]])
    got = Sampling(top_k=2).warp(logits)
    assert torch.equal(got, torch.tensor([[1.0, 3.0, 1.0, NEVER, 1.0]]))
    assert torch.equal(got, warped_by_transformers(logits, top_k=2))


def test_top_p_keeps_as_many_as_are_needed_of_those_that_are_alike():
    kept = Sampling(top_p=0.55).warp(torch.zeros(1, 4)) > NEVER
    assert kept.sum() == (warped_by_transformers(torch.zeros(1, 4), top_p=0.55) > NEVER).sum() == 3


def test_top_p_is_of_what_top_k_left():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    # 0.4 is 0.57 of the two that top-k leaves, and that is enough.
    assert (Sampling(top_k=2, top_p=0.5).warp(logits) > NEVER).tolist() == [[True] + 3 * [False]]
    assert (Sampling(top_p=0.5).warp(logits) > NEVER).tolist() == [[True, True, False, False]]


@given(seed=seeds, top_p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_that_have_this_probability(seed, top_p):
    logits = random_logits(seed, 1, 30)
    assume(is_clear_cut(logits, 1.0, 0, top_p))
    kept = (Sampling(top_p=top_p).warp(logits) > NEVER)[0]
    probabilities = logits.softmax(-1)[0]
    assert probabilities[kept].sum() >= top_p
    assert probabilities[kept].sum() - probabilities[kept].min() < top_p
    assert not kept.all()
    assert probabilities[kept].min() > probabilities[~kept].max()


@pytest.mark.parametrize("tiny", [1e-12, 1e-38])
def test_the_likeliest_token_stays_in(tiny):
    logits = random_logits(0, 5, 9)
    kept = Sampling(top_p=tiny).warp(logits) > NEVER
    assert kept.sum(-1).tolist() == [1] * 5
    assert torch.equal(kept.long().argmax(-1), logits.argmax(-1))


@given(
    seed=seeds,
    temperature=st.sampled_from([1.0, 0.5]),
    top_k=st.sampled_from([0, 1, 3]),
    top_p=st.sampled_from([1.0, 0.5]),
)
def test_a_token_that_was_drawn_stays_in(seed, temperature, top_k, top_p):
    sampling = Sampling(temperature, top_k, top_p)
    logits = random_logits(seed, 4, 12)
    taken = torch.randint(12, (4,), generator=torch.Generator().manual_seed(seed))
    expected = sampling.warp(logits).clone()
    rows = torch.arange(4)
    expected[rows, taken] = logits[rows, taken] / temperature
    got = sampling.warp(logits, taken)
    assert torch.equal(got, expected)
    assert (got[rows, taken] > NEVER).all()


allowed_sets = st.sets(st.integers(0, 11), min_size=1)


@given(
    seed=seeds,
    allowed=allowed_sets,
    temperature=st.sampled_from([1.0, 0.5]),
    top_k=st.sampled_from([0, 1, 3, 8]),
    top_p=st.sampled_from([1.0, 0.5]),
)
def test_what_is_allowed_is_warped_as_if_there_was_nothing_else(
    seed, allowed, temperature, top_k, top_p
):
    logits, ids = random_logits(seed, 4, 12), sorted(allowed)
    before = logits.clone()
    got = Sampling(temperature, top_k, top_p, ids).warp(logits)
    expected = torch.full_like(logits, NEVER)
    expected[:, ids] = Sampling(temperature, top_k, top_p).warp(logits[:, ids])
    assert torch.equal(got, expected)
    assert torch.equal(logits, before)


@given(seed=seeds, allowed=allowed_sets, top_k=st.sampled_from([0, 2]))
def test_a_token_that_is_not_allowed_stays_in_where_somebody_wrote_it(seed, allowed, top_k):
    sampling = Sampling(0.5, top_k, allowed=allowed)
    logits, rows = random_logits(seed, 4, 12), torch.arange(4)
    taken = torch.randint(12, (4,), generator=torch.Generator().manual_seed(seed))
    expected = sampling.warp(logits).clone()
    expected[rows, taken] = logits[rows, taken] / 0.5
    assert torch.equal(sampling.warp(logits, taken), expected)


def test_only_what_is_allowed_is_drawn():
    torch.manual_seed(0)
    warped = Sampling(temperature=2.0, allowed=[1, 4, 5]).warp(random_logits(3, 6))
    counts = drawn(warped[0], 100_000)
    assert counts[[0, 2, 3]].tolist() == [0] * 3
    assert surprise(counts[[1, 4, 5]], warped[0, [1, 4, 5]].softmax(-1)) < 4


def test_what_a_rollout_masks_an_update_learns_through():
    sampling = Sampling(allowed=[0, 2])
    with torch.inference_mode():
        sampling.warp(torch.zeros(1, 3))
    logits = torch.zeros(2, 3, requires_grad=True)
    sampling.warp(logits).sum().backward()
    assert logits.grad.tolist() == [[1, 0, 1]] * 2


def test_other_vocabularies_and_settings_have_masks_of_their_own():
    sampling = Sampling(allowed=[0, 2])
    for size in (3, 5, 3):
        assert (sampling.warp(torch.zeros(1, size)) > NEVER).sum() == 2
    hotter = replace(sampling, temperature=2.0)
    assert torch.equal(hotter.warp(torch.ones(1, 3)), torch.tensor([[0.5, NEVER, 0.5]]))


def test_allowed_tokens_are_part_of_what_it_is():
    sampling = Sampling(0.7, 3, 0.9, torch.tensor([4, 2, 2]))
    sampling.warp(torch.zeros(1, 7))
    assert sampling.allowed == (2, 4)
    assert sampling == Sampling(0.7, 3, 0.9, [2, 4])
    assert sampling != Sampling(0.7, 3, 0.9)
    assert hash(sampling) == hash(Sampling(0.7, 3, 0.9, [2, 4]))
    for same in (copy.deepcopy(sampling), pickle.loads(pickle.dumps(sampling))):
        assert same == sampling
    assert sampling.settings() == {"temperature": 0.7, "top_k": 3, "top_p": 0.9}
    assert Sampling(**sampling.settings()) == replace(sampling, allowed=None)


def test_gradients_pass_what_stays_and_nothing_else():
    logits = random_logits(0, 3, 8).requires_grad_()
    warped = Sampling(temperature=0.5, top_k=3).warp(logits)
    (gradient,) = torch.autograd.grad(warped.sum(), logits)
    assert torch.equal(gradient, 2.0 * (warped > NEVER))


def test_entropy_of_a_filtered_distribution_is_a_number():
    filtered = Sampling(top_k=2).warp(torch.tensor([[1.0, 1.0, 0.0, -5.0]]))
    entropy = torch.distributions.Categorical(logits=filtered).entropy()
    torch.testing.assert_close(entropy, torch.tensor([math.log(2)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0.*deterministic=True"),
        ({"temperature": -1.0}, "temperature must be above 0, got -1.0"),
        ({"temperature": math.nan}, "temperature must be above 0, got nan"),
        ({"top_k": -1}, "top_k is a number of tokens, or 0 for all, got -1"),
        ({"top_k": 2.5}, "top_k is a number of tokens, or 0 for all, got 2.5"),
        ({"top_k": 2.0}, "top_k is a number of tokens, or 0 for all, got 2.0"),
        ({"top_k": math.inf}, "top_k is a number of tokens, or 0 for all, got inf"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"top_p": math.nan}, "top_p must be above 0 and at most 1, got nan"),
        ({"allowed": []}, r"one token or more, .*or None for all tokens, got \[\]"),
        ({"allowed": [3, -1]}, r"none of them below 0, .*got \[3, -1\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)


def surprise(counts, probabilities):
    """By how many standard deviations counts are too far from what was expected.

    Pearson's chi-square, made a standard normal number by Wilson and Hilferty's cube root.
    """
    expected = probabilities.double() * counts.sum()
    assert expected.min() > 5, "too few draws to tell"
    freedom = len(counts) - 1
    ratio = float(((counts - expected) ** 2 / expected).sum()) / freedom
    return (ratio ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


def drawn(logits, times):
    """How often each token of a single distribution (vocabulary,) was drawn."""
    tokens, _ = draw(logits.expand(times, -1))
    return tokens.bincount(minlength=len(logits))


@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(10),
        torch.linspace(-3, 3, 20),
        random_logits(0, 50, spread=1.0),
        torch.tensor([0.0, 0.0]),
        torch.tensor([0.0, 9.0, 0.0]),  # one of 8,000 draws is another
        torch.tensor([100.0, 108.0, 101.0]),
        torch.tensor([-1000.0, -1001.0, -1003.0]),
    ],
    ids=["even", "slope", "random", "coin", "peaked", "high", "low"],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(logits):
    torch.manual_seed(0)
    assert surprise(drawn(logits, 200_000), logits.softmax(-1)) < 4


def test_the_test_of_frequencies_finds_a_small_bias():
    torch.manual_seed(0)
    logits = torch.linspace(-1, 1, 20)
    assert surprise(drawn(1.03 * logits, 200_000), logits.softmax(-1)) > 4


@pytest.mark.parametrize("never", [[0], [5], [0, 1, 4, 5], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4]])
def test_what_is_filtered_is_never_drawn(never):
    torch.manual_seed(0)
    logits = random_logits(3, 6)
    logits[never] = NEVER
    counts = drawn(logits, 1_000_000)
    assert counts[never].tolist() == [0] * len(never)
    kept = [token for token in range(6) if token not in never]
    assert counts.sum() == counts[kept].sum() == 1_000_000
    if len(kept) > 1:
        assert surprise(counts[kept], logits[kept].softmax(-1)) < 4


def test_each_row_is_drawn_from_its_own_distribution():
    certain = torch.full((7, 7), NEVER).fill_diagonal_(0.0).flip(0)
    tokens, log_probs = draw(certain)
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert log_probs.tolist() == [0.0] * 7


@pytest.mark.parametrize("edge", [torch.zeros_like, torch.ones_like], ids=["lowest", "highest"])
@pytest.mark.parametrize("vocabulary", [3, 1000, 50_257])
def test_the_ends_of_the_random_numbers_are_tokens_too(edge, vocabulary, monkeypatch):
    logits = random_logits(0, 8, vocabulary)
    logits[:, 0] = logits[:, -1] = NEVER
    logits[:, 1] = logits[:, -2] = 5.0
    monkeypatch.setattr(torch, "rand_like", edge)
    tokens, log_probs = draw(logits)
    assert tokens.tolist() == [1 if edge is torch.zeros_like else vocabulary - 2] * 8
    assert log_probs.isfinite().all()


@given(seed=seeds, spread=st.sampled_from([0.1, 2.0, 10.0]), top_k=st.sampled_from([0, 5]))
def test_log_probs_are_those_of_the_tokens(seed, spread, top_k):
    logits = Sampling(top_k=top_k).warp(random_logits(seed, 20, 50, spread=spread))
    torch.manual_seed(seed)
    tokens, log_probs = draw(logits)
    expected = logits.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(log_probs.double(), expected, atol=1e-6, rtol=1e-6)


def test_the_same_seed_draws_the_same():
    logits = random_logits(0, 100, 50)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(draw(logits))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])


@pytest.mark.parametrize("by_likelihood", [False, True])
def test_tiny_probabilities_of_a_large_vocabulary_add_up(by_likelihood):
    torch.manual_seed(0)
    vocabulary, likely, bins = 50_257, 25_000, 16
    logits = random_logits(1, vocabulary, spread=1.5)
    logits[likely] = logits.logsumexp(-1)  # one token has half, the others next to nothing each
    probabilities = logits.double().softmax(-1)
    order = logits.argsort() if by_likelihood else torch.arange(vocabulary)
    order = order[order != likely]
    bin_of = torch.full((vocabulary,), bins)  # neighbours in that order share a bin
    bin_of[order] = (probabilities[order].cumsum(-1) * 2 * bins).long().clamp(max=bins - 1)
    expected = torch.zeros(bins + 1).double().index_add_(0, bin_of, probabilities)
    assert expected.min() > 0.02
    assert probabilities[order].max() < 0.005
    counts = sum(drawn(logits, 128) for _ in range(16))
    got = torch.zeros_like(counts[: bins + 1]).index_add_(0, bin_of, counts)
    assert surprise(got, expected) < 4
