import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.arms import Arm, ArmSummary, Winner, t_quantile
from textgym.bandits import TRAINING_DISCOUNT, UCB, Thompson, Uniform, make

KINDS = ("thompson", "ucb", "uniform")
ADAPTIVE = ("thompson", "ucb")


def arm_of(values, discount=1.0):
    arm = Arm()
    for value in values:
        arm.discount(discount)
        arm.add(value)
    return arm


def bandit_of(kind, *results):
    """A bandit whose arms gave these results."""
    bandit = make(kind, len(results))
    for arm, values in enumerate(results):
        for value in values:
            bandit.update(arm, value)
    return bandit


def play(bandit, mean_of, draw, pulls, seed, batch=8):
    """The bandit's regret a pull, `batch` pulls being pending at a time."""
    chooses, gives = np.random.default_rng(seed).spawn(2)
    regret = 0.0
    for start in range(0, pulls, batch):
        means = mean_of(start)
        arms = [bandit.choose(chooses) for _ in range(batch)]
        regret += sum(max(means) - means[arm] for arm in arms)
        for arm in arms:
            bandit.update(arm, draw(gives, means[arm]))
    return regret / pulls


def bernoulli(generator, mean):
    return float(generator.random() < mean)


def normal(spread):
    return lambda generator, mean: generator.normal(mean, spread)


# Statistics.

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(values, values)
def test_statistics_are_those_of_numpy(first, second):
    close = {"rel": 1e-9, "abs": 1e-3}
    both = [arm_of(first + second), arm_of(first).merged(arm_of(second))]
    for arm in both:
        assert arm.count == arm.weight == len(first + second)
        assert arm.mean == pytest.approx(np.mean(first + second), **close)
        assert arm.variance == pytest.approx(np.var(first + second, ddof=1), **close)


@given(values, st.floats(0.5, 1))
def test_old_values_count_less(values, discount):
    arm = arm_of(values, discount)
    weights = discount ** np.arange(len(values))[::-1]
    mean = np.average(values, weights=weights)
    assert arm.weight == pytest.approx(weights.sum())
    assert arm.mean == pytest.approx(mean, abs=1e-5)
    assert arm.squares == pytest.approx(weights @ (values - mean) ** 2, abs=1e-3)


def test_a_small_spread_far_from_zero_is_not_lost():
    assert arm_of([1e9, 1e9 + 1, 1e9 + 2]).variance == pytest.approx(1.0)


def test_equal_values_have_no_spread_at_all():
    merged = arm_of([0.1] * 7).merged(arm_of([0.1] * 3)).merged(Arm())
    assert (merged.mean, merged.squares) == (0.1, 0.0)


def test_nothing_merged_with_nothing_is_nothing():
    assert Arm().merged(Arm()) == Arm()
    assert math.isnan(Arm().variance)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("degrees", [1, 1.5, 2, 3.7, 10, 100, 1e4, 1e6, 1e12])
def test_t_quantiles_are_those_of_scipy(confidence, degrees):
    probability = (1 + confidence) / 2
    expected = scipy.stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=2e-6)


spread_values = st.lists(st.floats(-100, 100), min_size=2, max_size=20).filter(
    lambda values: np.std(values) > 1e-3
)


@settings(max_examples=40)
@given(spread_values, spread_values, st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_are_those_of_scipy(first, second, confidence):
    of_mean = scipy.stats.ttest_1samp(first, 0).confidence_interval(confidence)
    welch = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(confidence)
    one, other = arm_of(first), arm_of(second)
    assert one.interval(confidence) == pytest.approx(of_mean, rel=1e-5, abs=1e-6)
    assert one.difference(other, confidence) == pytest.approx(welch, rel=1e-5, abs=1e-6)


def test_an_interval_by_hand():
    # Mean 2, variance 1, three values: 2 -+ 4.3027 / sqrt(3).
    assert arm_of([1, 2, 3]).interval() == pytest.approx((-0.48414, 4.48414), abs=1e-5)
    assert arm_of([2, 2, 2]).interval() == (2, 2)
    assert arm_of([2, 2, 2]).interval(floor=1.0) == pytest.approx((-0.48414, 4.48414), abs=1e-5)


def test_one_value_has_no_interval():
    assert arm_of([1.0]).interval() is None
    assert arm_of([1.0]).difference(arm_of([1, 2])) is None


def test_an_interval_widens_as_its_evidence_ages():
    arm = arm_of([1.0, 2.0, 3.0, 2.0, 1.0])
    low, high = arm.interval()
    arm.discount(0.6)
    aged_low, aged_high = arm.interval()
    assert aged_low < low < high < aged_high
    arm.discount(0.6)
    assert arm.interval() is None


# What is reported.


def test_a_summary_by_hand():
    bandit = bandit_of("uniform", [1, 2, 3], [5], [])
    # The pooled variance is 1, from the first arm alone.
    first, second, third = bandit.summary()
    assert (first.arm, first.count, first.mean) == (0, 3, 2)
    assert (first.low, first.high) == pytest.approx((-0.48414, 4.48414), abs=1e-5)
    assert second == ArmSummary(1, 1, 5, None, None)
    assert third == ArmSummary(2, 0, None, None, None)
    assert bandit.best == 1


def test_before_any_result_nothing_is_best():
    assert make("ucb", 3).best is None
    assert make("ucb", 3).winner() is None


def test_the_best_can_be_below_zero():
    assert bandit_of("uniform", [], [-5], [-3], [-3]).best == 2


def test_a_winner_that_is_more_than_noise():
    low, high = [0, 1, 0, 1, 0, 1], [3, 4, 3, 4, 3, 4]
    winner = bandit_of("uniform", low, high).winner()
    welch = scipy.stats.ttest_ind(high, low, equal_var=False).confidence_interval(0.95)
    assert (winner.arm, winner.rival, winner.difference) == (1, 0, 3)
    assert (winner.low, winner.high) == pytest.approx(welch, abs=1e-5)
    assert winner.is_significant


def test_a_winner_that_may_be_noise():
    bandit = bandit_of("uniform", [0, 1, 0, 1, 0, 1], [0, 1, 1, 0, 1, 1])
    assert not bandit.winner().is_significant
    # The same difference is significant if one asks for little.
    assert bandit.winner(confidence=0.1).is_significant


def test_arms_that_are_all_the_same_have_no_significant_winner():
    winner = bandit_of("uniform", [1.0] * 9, [1.0] * 9).winner()
    assert winner == Winner(0, 1, 0.0, 0.0, 0.0)
    assert not winner.is_significant


def test_the_rival_is_the_arm_that_may_yet_be_better():
    # The third arm has the lower mean, but few results and wide ones.
    second, third = [1, 1.1] * 50, [-4, 5, -3, 4, 0]
    assert bandit_of("uniform", [2, 2.1] * 50, second, third).winner().rival == 2


def test_few_results_that_are_equal_are_no_certainty():
    won_often, never_won = [0, 1] * 50, [0] * 5
    winner = bandit_of("uniform", won_often, never_won).winner()
    assert winner.difference == 0.5
    assert not winner.is_significant


def test_no_winner_without_results_of_every_arm():
    assert bandit_of("uniform", [1, 2] * 9, [5, 6] * 2).winner() is None
    assert bandit_of("uniform", [1, 2] * 9).winner() is None


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arms_seldom_have_a_significant_winner(kind):
    claims = 0
    for seed in range(60):
        bandit = make(kind, 3)
        play(bandit, lambda _: [0.5] * 3, bernoulli, 160, seed)
        winner = bandit.winner()
        claims += winner is not None and winner.is_significant
    assert claims <= 6


# Which arm is chosen.

SCALES = {
    "shares": ([0.3, 0.4, 0.5, 0.7], bernoulli),
    "rare successes": ([0.02, 0.02, 0.02, 0.2], bernoulli),
    "-1000 to 1000": ([-500, -100, 0, 400], normal(400)),
    "thousandths": ([0, 0, 0, 5e-4], normal(5e-4)),
    "far from zero": ([1000, 1000, 1000.2, 1001], normal(1)),
    "all below zero": ([-9, -8, -7, -5], normal(2)),
    "without noise": ([1, 2, 3, 4], lambda generator, mean: mean),
    "noise of some": ([0, 0, 0, 1], lambda generator, mean: mean or generator.normal(0, 2)),
}


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("scale", SCALES)
def test_a_better_arm_is_found_at_any_scale(kind, scale):
    means, draw = SCALES[scale]
    uniform = max(means) - np.mean(means)
    bandits = [make(kind, 4) for _ in range(8)]
    regrets = [play(b, lambda _: means, draw, 800, seed) for seed, b in enumerate(bandits)]
    assert np.mean(regrets) < 0.4 * uniform
    assert sum(bandit.best == 3 for bandit in bandits) >= 7


def test_uniform_draws_uniformly():
    bandit, generator = Uniform(4), np.random.default_rng(0)
    counts = np.bincount([bandit.choose(generator) for _ in range(4000)])
    assert scipy.stats.chisquare(counts).pvalue > 0.001


@given(st.lists(st.lists(st.integers(-9, 9), max_size=4), min_size=1, max_size=4), st.data())
@pytest.mark.parametrize("kind", ADAPTIVE)
def test_the_scale_of_values_means_nothing(kind, results, data):
    # Powers of two, so that no rounding differs.
    scale = 2.0 ** data.draw(st.integers(-20, 20))
    scaled = [[scale * value for value in values] for values in results]
    pair = [bandit_of(kind, *results), bandit_of(kind, *scaled)]
    chosen = [[b.choose(g) for _ in range(9)] for b in pair for g in [np.random.default_rng(0)]]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_equal_arms_share_the_pulls_if_all_values_are_the_same(kind):
    bandit = make(kind, 4)
    play(bandit, lambda _: [0.1] * 4, lambda generator, mean: mean, 80, seed=0)
    assert [arm.count for arm in bandit.arms] == [20] * 4


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_pulls_without_results_spread_evenly(kind):
    bandit, generator = make(kind, 4), np.random.default_rng(0)
    chosen = [bandit.choose(generator) for _ in range(64)]
    assert np.bincount(chosen).tolist() == bandit.pending == [16] * 4


def test_pending_pulls_move_ucb_to_other_arms():
    bandit, generator = bandit_of("ucb", [0, 1, 0, 1], [1, 0, 1, 1]), np.random.default_rng(0)
    chosen = [bandit.choose(generator) for _ in range(64)]
    assert chosen[0] == 1
    assert chosen.count(0) >= 5


def test_the_index_of_ucb_by_hand():
    bandit = bandit_of("ucb", [0.0, 2.0], [2.0, 4.0])
    # All results have mean 2 and variance 2; two of four pulls each.
    bonus = math.sqrt(2) * math.sqrt(2 * math.log(4) / 2)
    values = bandit._values(np.random.default_rng(0))
    assert values == pytest.approx([1 + bonus, 3 + bonus])
    assert UCB(2, exploration=0.0)._values(np.random.default_rng(0)) == [math.inf] * 2
    bandit.exploration = 3.0
    assert bandit._values(np.random.default_rng(0)) == pytest.approx([1 + 3 * bonus, 3 + 3 * bonus])


def test_thompson_draws_from_the_posterior():
    bandit, generator = bandit_of("thompson", [0.0, 2.0, 1.0], []), np.random.default_rng(0)
    known, unknown = np.transpose([bandit._values(generator) for _ in range(20_000)])
    # m0 = 1, S = 2, b0 = (2/3) / 2; then k = 4, a = 2, b = b0 + 1; the prior has k = 1, a = 1/2.
    posterior = scipy.stats.t(4, loc=1, scale=math.sqrt((1 / 3 + 1) / (2 * 4)))
    prior = scipy.stats.t(1, loc=1, scale=math.sqrt((1 / 3) / 0.5))
    assert scipy.stats.kstest(known, posterior.cdf).pvalue > 0.001
    assert scipy.stats.kstest(unknown, prior.cdf).pvalue > 0.001


def test_the_posterior_is_that_of_bayes_rule():
    bandit = bandit_of("thompson", [0.5, 3.0, 1.0, 2.5], [-1.0, 0.0])
    results = np.array([0.5, 3.0, 1.0, 2.5, -1.0, 0.0])
    m0, b0 = results.mean(), results.var() / 2
    # Prior times likelihood on a grid, the variance summed out.
    means, variances = np.linspace(-20, 20, 1001), np.geomspace(1e-3, 1e4, 500)
    mean, variance = means[:, None], variances[None, :]
    logs = scipy.stats.invgamma(0.5, scale=b0).logpdf(variance)
    logs = logs + scipy.stats.norm(m0, np.sqrt(variance)).logpdf(mean)
    for value in results[:4]:
        logs = logs + scipy.stats.norm(mean, np.sqrt(variance)).logpdf(value)
    # The grid is even in the logarithm of the variance.
    density = (np.exp(logs) * variance).sum(axis=1)
    cdf = (np.cumsum(density) - density / 2) / density.sum()
    bandit._draws = lambda generator: [scipy.stats.t(5).ppf(0.8), 0.0]
    drawn = bandit._values(np.random.default_rng(0))[0]
    assert np.interp(drawn, means, cdf) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_discount_finds_the_arm_that_becomes_the_best(kind):
    def mean_of(pull):
        return [0.2, 0.3, 0.7] if pull < 1500 else [0.7, 0.3, 0.2]

    def late_share(discount, seed):
        bandit = make(kind, 3, discount=discount)
        play(bandit, mean_of, normal(0.3), 2000, seed)
        before = bandit.arms[0].count
        play(bandit, lambda _: mean_of(2000), normal(0.3), 400, seed + 100)
        return (bandit.arms[0].count - before) / 400

    assert np.mean([late_share(0.99, seed) for seed in range(4)]) > 0.6
    assert np.mean([late_share(TRAINING_DISCOUNT, seed) for seed in range(4)]) > 0.6


def test_without_a_discount_thompson_stays_with_the_old_best():
    # What the discount is for: the same switch, after as much evidence.
    bandit = make("thompson", 3)
    play(bandit, lambda _: [0.2, 0.3, 0.7], normal(0.3), 1500, seed=0)
    assert play(bandit, lambda _: [0.7, 0.3, 0.2], normal(0.3), 400, seed=1) > 0.3


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_discount_is_not_misled_by_a_policy_that_learns(kind):
    def mean_of(pull):
        return [pull / 1600 + gain for gain in (0.0, 0.05, 0.1, 0.2)]

    bandits = [make(kind, 4, discount=TRAINING_DISCOUNT) for _ in range(6)]
    regrets = [play(b, mean_of, normal(0.3), 1600, seed, 32) for seed, b in enumerate(bandits)]
    assert np.mean(regrets) < 0.4 * (0.2 - 0.0875)
    assert sum(bandit.best == 3 for bandit in bandits) >= 5


def test_with_a_discount_it_says_what_to_expect_now():
    bandit, generator = make("uniform", 2, discount=0.99), np.random.default_rng(0)
    for pull in range(3000):
        arm = bandit.choose(generator)
        bandit.update(arm, 1e-3 * pull + arm + generator.normal(0, 0.1))
    first, second = bandit.summary()
    assert (first.mean, second.mean) == pytest.approx((3.0, 4.0), abs=0.1)
    assert first.low < 3.0 < first.high
    assert bandit.winner().difference == pytest.approx(1.0, abs=0.1)


def test_levels_by_hand():
    bandit = make("ucb", 2, discount=0.5)
    for arm, value in ((0, 8.0), (1, 2.0), (0, 5.0)):
        bandit.update(arm, value)
    # The levels were 8 (its own, as the first), 8, and (8/2 + 2) / 1.5 = 4.
    assert [arm.mean for arm in bandit.arms] == pytest.approx([(0.25 * 0 + 1) / 1.25, -6.0])
    # The level is now (8/4 + 2/2 + 5) / 1.75.
    now = 8 / 1.75
    assert [arm.mean for arm in bandit.summary()] == pytest.approx([now + 0.8, now - 6])


# Bookkeeping.


def test_a_result_settles_a_pull():
    bandit, generator = make("ucb", 1), np.random.default_rng(0)
    for _ in range(3):
        bandit.choose(generator)
    bandit.update(0, 1.0)
    bandit.forget(0)
    assert bandit.pending == [1]
    assert bandit.arms[0].count == 1


@pytest.mark.parametrize("kind", KINDS)
def test_results_of_pulls_that_nobody_chose_count(kind):
    bandit = make(kind, 2)
    bandit.update(1, 4.0)
    bandit.forget(1)
    assert bandit.pending == [0, 0]
    assert bandit.best == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_choices(kind):
    first, second = (make(kind, 3) for _ in range(2))
    for bandit in (first, second):
        play(bandit, lambda _: [0, 1, 2], normal(1), 80, seed=3)
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_bandit_goes_on_as_if_nothing_had_been(kind):
    bandit = make(kind, 3, discount=0.99)
    play(bandit, lambda _: [0, 1, 2], normal(1), 80, seed=3)
    loaded = make(kind, 3, discount=0.99)
    loaded.choose(np.random.default_rng(9))
    loaded.load_state_dict(json.loads(json.dumps(bandit.state_dict())))
    for each in (bandit, loaded):
        play(each, lambda _: [0, 1, 2], normal(1), 80, seed=4)
    assert bandit.state_dict() == loaded.state_dict()
    assert bandit.summary() == loaded.summary()


@pytest.mark.parametrize("discount", [1.0, 0.99])
def test_what_numpy_counts_in_can_be_saved(discount):
    bandit = make("ucb", 2, discount=discount)
    bandit.update(np.int64(1), np.float32(0.1))
    assert json.loads(json.dumps(bandit.state_dict())) == bandit.state_dict()


@pytest.mark.parametrize("other", [UCB(4), Thompson(3)])
def test_a_state_of_another_bandit_is_refused(other):
    with pytest.raises(ValueError, match=r"the state is of '(ucb|thompson)' with . arms"):
        UCB(3).load_state_dict(other.state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True])
def test_a_result_is_a_finite_number(kind, value):
    bandit = make(kind, 2)
    with pytest.raises(ValueError, match="a result is a finite number"):
        bandit.update(0, value)
    assert bandit.best is None


@pytest.mark.parametrize("arm", [-1, 2])
def test_there_is_no_such_arm(arm):
    with pytest.raises(ValueError, match="arms are 0 to 1"):
        make("ucb", 2).update(arm, 1.0)


# Specs.


def test_a_bandit_by_its_name_or_with_parameters():
    assert isinstance(make("bandit", 2), Thompson)
    assert isinstance(make("thompson", 2), Thompson)
    assert isinstance(make({"name": "uniform"}, 2), Uniform)
    ucb = make({"name": "ucb", "exploration": 2, "discount": 0.9}, 5, discount=0.5)
    assert isinstance(ucb, UCB)
    assert (ucb.exploration, ucb.discount, len(ucb.arms)) == (2.0, 0.9, 5)
    assert make("ucb", 2, discount=0.5).discount == 0.5


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("thomson", ValueError, "did you mean 'thompson'"),
        ({"exploration": 2}, ValueError, "needs its name"),
        ({"name": "thompson", "exploration": 2}, TypeError, "exploration"),
        ({"name": "ucb", "exploration": -1}, ValueError, "exploration is a finite number"),
        ({"name": "ucb", "exploration": math.nan}, ValueError, "exploration is a finite number"),
        ({"name": "ucb", "discount": 0}, ValueError, "discount is a number above 0"),
        ({"name": "ucb", "discount": 1.1}, ValueError, "discount is a number above 0"),
        ({"name": "ucb", "num_arms": 3}, ValueError, "Leave num_arms out"),
        (3, TypeError, "expected a bandit as a name"),
    ],
)
def test_specs_that_are_refused(spec, error, message):
    with pytest.raises(error, match=message):
        make(spec, 2)


@pytest.mark.parametrize("num_arms", [0, -1, 2.0, True])
def test_a_bandit_has_arms(num_arms):
    with pytest.raises(ValueError, match="num_arms is a whole number above 0"):
        make("ucb", num_arms)
