"""Aggregates, intervals and comparisons against hand-worked cases, recorded values, and what they promise."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from neurogym_v.benchmarks.coverage import POPULATIONS, experiments, intervals, main
from neurogym_v.scoring import (
    bootstrap,
    cluster_bootstrap,
    counted,
    friedman,
    holm,
    improvement_by_site,
    improvement_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    paired_difference,
    probability_of_improvement,
    site_means,
    stratified_bootstrap,
    studentized_bootstrap,
    wilcoxon_holm,
)
from neurogym_v.types import NeuroGymError

NAN = float("nan")
STATISTICS = [iqm, mean, median, optimality_gap]
X = np.array(
    [
        [0.701, 0.963, 1.89, 0.812],
        [1.589, 1.264, 0.636, 1.221],
        [1.053, 0.777, 0.739, 1.064],
        [1.352, 0.749, 0.627, 0.513],
        [1.078, 0.601, 0.585, 1.234],
        [1.919, 0.305, 0.581, 1.125],
        [0.971, 1.75, 1.581, 0.92],
        [2.16, 3.172, 1.66, 0.787],
        [2.072, 1.212, 1.488, 1.015],
        [1.16, 1.699, 0.544, 1.754],
    ]
)
Y = np.array(
    [
        [0.741, 1.082, 1.702, 0.793],
        [1.493, 1.491, 0.546, 1.1],
        [0.738, 0.707, 0.751, 1.242],
        [1.571, 0.345, 0.749, 0.407],
        [1.198, 0.468, 0.528, 0.909],
        [2.167, 0.34, 0.447, 1.084],
        [0.805, 1.655, 1.544, 0.693],
        [2.16, 3.172, 1.66, 0.787],
        [1.453, 0.967, 1.296, 1.182],
        [1.328, 1.597, 0.504, 1.813],
    ]
)
RLIABLE = {  # version 1.2.0 with arch 7.2.0: value, and the percentile interval of 50,000 resamples of runs within tasks
    mean: (1.183075, 1.03972375, 1.328250625),
    median: (1.1345, 0.941625, 1.329125),
    iqm: (1.0913, 0.93224875, 1.27675),
    optimality_gap: (0.129725, 0.08029875, 0.18125),
}
scores_ = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(-50, 50).map(float))
gaps_ = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-9, 9).map(float) | st.just(NAN)
)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_values_and_intervals_are_those_of_rliable(statistic: Callable[..., np.ndarray]) -> None:
    value, low, high = RLIABLE[statistic]
    resamples = 20_000
    estimate = stratified_bootstrap(X, statistic, np.random.default_rng(0), resamples=resamples)
    assert estimate.value == pytest.approx(value, abs=1e-12)
    # an end is a quantile of a nearly normal sample; its error is sqrt(p (1 - p) / resamples) / density, theirs adds to ours
    spread, density = (high - low) / 3.92, stats.norm.pdf(stats.norm.ppf(0.025))
    error = spread / density * np.sqrt(0.025 * 0.975 * (1 / resamples + 1 / 50_000))
    assert estimate.low == pytest.approx(low, abs=4 * error)
    assert estimate.high == pytest.approx(high, abs=4 * error)
    assert 4 * error < 0.03 * (high - low)  # the wider interval over sites, below, would not pass


def test_of_many_arrays_at_once_the_statistics_are_those_of_each() -> None:
    many = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    many[0, 1, 2] = many[1, 0, :, 3] = many[2, 1, 0, 0] = NAN
    for statistic in STATISTICS:
        each = [[float(statistic(one)) for one in row] for row in many]
        np.testing.assert_allclose(statistic(many), each, rtol=1e-12)


@given(scores_)
def test_iqm_without_gaps_is_the_trimmed_mean_of_scipy(scores: np.ndarray) -> None:
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), abs=1e-9)


def test_a_site_with_missing_runs_weighs_as_much_as_others_by_hand() -> None:
    # as many runs as most sites have, 2: the single run of the second site counts twice; 2 of 8 are cut from each end
    scores = np.array([[1, 2], [3, NAN], [5, 6], [4, 10], [NAN, NAN]])
    assert iqm(scores) == pytest.approx((3 + 3 + 4 + 5) / 4)
    assert mean(scores) == pytest.approx((1.5 + 3 + 5.5 + 7) / 4)
    assert median(scores) == pytest.approx((3 + 5.5) / 2)
    assert optimality_gap(scores, target=4) == pytest.approx((2.5 + 1 + 0 + 0) / 4)
    # and across a cut: 1 of 4 is cut from each end, of the site with one run a half
    assert iqm(np.array([[1, NAN], [2, 6]])) == pytest.approx((1 * 1 + 2 * 1) / 2)
    assert iqm(np.array([[3, NAN, NAN, NAN], [1, 2, 5, 6]])) == pytest.approx(3)
    assert iqm(np.array([[1, NAN, NAN], [2, 5, 6]])) == pytest.approx((2 * 1 + 2 + 5) / 4)
    assert str(counted(scores)) == "4/5 sites, 7/10 runs"
    assert str(counted(scores, np.array([[NAN, 1], [1, 1], [1, 1], [1, 1], [1, 1]]))) == "4/5 sites, 6/10 runs"


@given(gaps_)
def test_what_is_missing_altogether_changes_nothing(scores: np.ndarray) -> None:
    wider = np.pad(scores, ((0, 2), (1, 0)), constant_values=NAN)
    for statistic in STATISTICS:
        np.testing.assert_allclose(statistic(wider), statistic(scores), rtol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(site_means(wider)[:-2], site_means(scores))
    assert counted(wider).sites == counted(scores).sites == np.isfinite(scores).any(axis=1).sum()


@given(gaps_, st.randoms(use_true_random=False))
def test_the_order_of_sites_and_seeds_means_nothing(scores: np.ndarray, random) -> None:
    rng = np.random.default_rng(random.randrange(1000))
    shuffled = rng.permuted(scores[rng.permutation(len(scores))], axis=1)
    for statistic in STATISTICS:
        np.testing.assert_allclose(statistic(shuffled), statistic(scores), rtol=1e-12, atol=1e-12, equal_nan=True)


@given(gaps_, st.sampled_from([0.5, 1.0, 3.0]), st.integers(-20, 20))
def test_units_and_zero_of_the_scores_are_free(scores: np.ndarray, scale: float, shift: int) -> None:
    for statistic in (iqm, mean, median):
        expected = scale * statistic(scores) + shift
        np.testing.assert_allclose(statistic(scale * scores + shift), expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        for interval in (stratified_bootstrap, cluster_bootstrap):
            one, other = (
                interval(data, statistic, np.random.default_rng(1), resamples=40) for data in (scores, scale * scores + shift)
            )
            np.testing.assert_allclose(
                [other.low, other.high], [scale * one.low + shift, scale * one.high + shift], atol=1e-9, equal_nan=True
            )


def test_what_each_interval_is_over() -> None:
    rng = np.random.default_rng(0)
    only_sites = np.repeat(rng.normal(size=(20, 1)), 5, axis=1)  # no seed differs
    known = stratified_bootstrap(only_sites, mean, rng)
    assert known.low == pytest.approx(known.value) and known.high == pytest.approx(known.value)
    others = cluster_bootstrap(only_sites, mean, rng)
    t = stats.t.interval(0.95, 19, known.value, stats.sem(only_sites[:, 0]))
    width = others.high - others.low  # its ends are quantiles of 2,000: as above, but further out, and of 4 errors
    p = bootstrap.levels(20)[0]
    error = width / (2 * -stats.norm.ppf(p)) * np.sqrt(p / 2000) / stats.norm.pdf(stats.norm.ppf(p))
    assert (others.low, others.high) == pytest.approx(t, abs=4 * error)
    one_run_each = stratified_bootstrap(np.array([[1, NAN], [NAN, 2], [NAN, NAN]]), mean, rng)
    assert (one_run_each.low, one_run_each.value, one_run_each.high) == (1.5, 1.5, 1.5)
    two_runs = stratified_bootstrap(np.array([[0, *[NAN] * 8, 1], [0] * 10]), mean, rng)
    assert (two_runs.low, two_runs.value, two_runs.high) == (0, 0.25, 0.5)  # one of two is drawn twice half of the time


def test_without_two_sites_there_is_no_interval_over_sites() -> None:
    rng = np.random.default_rng(0)
    one = cluster_bootstrap(np.array([[1.0, 2], [NAN, NAN]]), mean, rng)
    assert one.value == 1.5 and np.isnan(one.low) and np.isnan(one.high)
    for interval in (stratified_bootstrap, cluster_bootstrap):
        for statistic in STATISTICS:
            none = interval(np.full((3, 2), NAN), statistic, rng)
            assert np.isnan([none.value, none.low, none.high]).all()
    none = paired_difference(np.array([[1.0, NAN]]), np.array([[NAN, 1.0]]), rng)
    assert np.isnan(none.value)


def test_studentized_intervals_by_hand() -> None:
    """All resamples of four sites, as R's boot.ci(type = "stud") would weigh them, drawn here one by one."""
    means, rng = np.array([0.0, 1.0, 2.0, 9.0]), np.random.default_rng(0)
    every = np.stack(np.meshgrid(*[means] * 4), axis=-1).reshape(-1, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (every.mean(axis=1) - 3) / (every.std(axis=1, ddof=1) / 2)
    ends = np.quantile(np.nan_to_num(t, nan=0), [0.975, 0.025], method="inverted_cdf")
    low, high = 3 - ends * stats.sem(means)
    found = studentized_bootstrap(np.stack([means, means, [NAN] * 4], axis=1), rng, resamples=100_000)
    assert (found.value, found.low, found.high) == pytest.approx((3, low, high), rel=0.02)
    assert high - 3 > 2 * (3 - low)  # further out where the long tail is
    normal = rng.normal(size=(40, 1))
    t_test = stats.t.interval(0.95, 39, normal.mean(), stats.sem(normal[:, 0]))
    found = studentized_bootstrap(normal, rng, resamples=100_000)
    assert (found.low, found.high) == pytest.approx(t_test, abs=0.1 * stats.sem(normal[:, 0]))


@given(scores_, st.floats(1e-3, 1e3), st.integers(-100, 100))
def test_studentized_intervals_know_no_units(scores: np.ndarray, scale: float, shift: int) -> None:
    one, other = (studentized_bootstrap(s, np.random.default_rng(1)) for s in (scores, scale * scores + shift))
    np.testing.assert_allclose(
        [other.low, other.high], [scale * one.low + shift, scale * one.high + shift], rtol=1e-6, atol=1e-6
    )
    assert np.isnan(one.low) == (len(scores) < 4)
    if len(scores) >= 4:
        assert one.low <= one.value <= one.high
        assert (one.low == one.high) == (np.ptp(site_means(scores)) < 1e-9)


def test_memory_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cluster_bootstrap(X, iqm, np.random.default_rng(3)), stratified_bootstrap(X, iqm, np.random.default_rng(3))
    monkeypatch.setattr(bootstrap, "CHUNK", 1234)
    assert before == (
        cluster_bootstrap(X, iqm, np.random.default_rng(3)),
        stratified_bootstrap(X, iqm, np.random.default_rng(3)),
    )


def test_two_thousand_resamples_take_a_moment() -> None:
    scores, seconds = np.random.default_rng(0).normal(size=(40, 5)), []
    for _ in range(3):
        start = time.process_time()
        cluster_bootstrap(scores, iqm, np.random.default_rng(0))
        stratified_bootstrap(scores, iqm, np.random.default_rng(0))
        seconds.append(time.process_time() - start)
    assert min(seconds) / 2 < 0.2


@pytest.mark.parametrize(("population", "sites", "statistic"), [
    ("normal", 24, iqm), ("normal", 12, mean), ("skewed", 24, iqm), ("skewed", 24, mean), ("noisy", 12, median),
])  # fmt: skip
def test_intervals_over_sites_cover_93_to_97_percent(population: str, sites: int, statistic) -> None:
    low, share, high = coverage("sites, expanded", population, sites, statistic, runs=600)
    assert low <= share <= high


@pytest.mark.parametrize("population", ["heavy", "skewed", "noisy"])
def test_studentized_intervals_of_means_cover_93_to_97_percent_of_12_sites(population: str) -> None:
    low, share, high = coverage("studentized", population, 12, mean, runs=2000)
    assert low <= share <= high


def test_plain_intervals_do_not() -> None:
    low, share, _ = coverage("sites", "noisy", 8, mean, runs=600)
    assert share < low
    _, share, high = coverage("sites and seeds", "noisy", 40, median, runs=600)
    assert share > high


def coverage(kind: str, population: str, sites: int, statistic, *, runs: int) -> tuple[float, float, float]:
    """Share of intervals that hold the truth, between those that 93 and 97% may come to in so many runs (1 in 200 beyond)."""
    held = experiments(
        POPULATIONS[population], statistic, intervals(300, statistic)[kind], sites=sites, seeds=3, runs=runs, seed=1
    )
    low, high = stats.binom.ppf(0.005, runs, 0.93) / runs, stats.binom.ppf(0.995, runs, 0.97) / runs
    return float(low), float(np.mean(list(held))), float(high)


def test_the_command_prints_what_its_documentation_quotes(monkeypatch, capsys) -> None:
    options = "--runs 4 --resamples 20 --sites 5 6 --statistics mean --populations normal heavy".split()
    monkeypatch.setattr("sys.argv", ["coverage", *options])
    main()
    printed = capsys.readouterr().out
    for word in ("sites, expanded", "sites and seeds", "studentized", "mean       heavy           6", "Welch at 0.5%"):
        assert word in printed
    monkeypatch.setattr("sys.argv", ["coverage", "--sites", "1"])
    with pytest.raises(SystemExit):
        main()
    assert "--sites: expected a whole number from 2 on, got '1'" in capsys.readouterr().err


def test_probability_of_improvement_is_that_of_rliable() -> None:
    assert probability_of_improvement(X, Y) == pytest.approx(0.590625, abs=1e-12)
    assert probability_of_improvement(Y, X) == pytest.approx(0.409375, abs=1e-12)


def test_probability_of_improvement_by_hand() -> None:
    x, y = np.array([[1, 2, 3], [5, NAN, NAN], [NAN] * 3]), np.array([[2, 0], [5, 9], [1, 1]])
    np.testing.assert_allclose(improvement_by_site(x, y), [4.5 / 6, 0.25, NAN])
    assert probability_of_improvement(x, y) == pytest.approx(0.5)
    estimate = improvement_interval(X, Y, np.random.default_rng(0))
    assert 0 <= estimate.low < estimate.value == probability_of_improvement(X, Y) < estimate.high <= 1


@given(gaps_, st.data())
def test_what_one_wins_the_other_loses(x: np.ndarray, data: st.DataObject) -> None:
    y = data.draw(arrays(np.float64, (len(x), data.draw(st.integers(1, 5))), elements=st.integers(-9, 9).map(float)))
    both = probability_of_improvement(x, y) + probability_of_improvement(y, x)
    assert np.isnan(both) if np.isnan(x).all() else both == pytest.approx(1)


def test_differences_are_paired_by_site_and_seed() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 10, (12, 4))  # shared, and far larger than what differs
    estimate = paired_difference(luck + 1, luck + rng.normal(0, 0.01, luck.shape), rng)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(1, abs=0.02) and estimate.high - estimate.low < 0.03
    half = np.array([[1.0, 100], [3, 4], [5, 6]]), np.array([[0.0, NAN], [1, 2], [NAN, NAN]])
    assert paired_difference(*half, rng).value == pytest.approx((1 + 2) / 2)  # the 100 has no other half
    assert str(counted(*half)) == "2/3 sites, 3/6 runs"


ROUNDING = np.array(  # times to round first base, three ways, 22 runners (Hollander & Wolfe 1973, p. 140; in R's friedman.test)
    "5.40 5.50 5.55 5.85 5.70 5.75 5.20 5.60 5.50 5.55 5.50 5.40 5.90 5.85 5.70 5.45 5.55 5.60 5.40 5.40 5.35 5.45 5.50 5.35 "
    "5.25 5.15 5.00 5.85 5.80 5.70 5.25 5.20 5.10 5.65 5.55 5.45 5.60 5.35 5.45 5.05 5.00 4.95 5.50 5.50 5.40 5.45 5.55 5.50 "
    "5.55 5.55 5.35 5.45 5.50 5.55 5.50 5.45 5.25 5.65 5.60 5.40 5.70 5.65 5.55 6.30 6.30 6.25".split(), dtype=float,
).reshape(22, 3).T  # fmt: skip


def test_friedman_as_in_the_textbook() -> None:
    found = friedman(-ROUNDING)  # the shortest time is best
    assert (found.statistic, found.p) == pytest.approx((11.1429, 0.003805), rel=1e-4)
    assert found.sites == 22 and found.mean_ranks.sum() == pytest.approx(6)
    assert found.mean_ranks.argmin() == 2  # the wide angle
    gap = np.hstack([-ROUNDING, [[NAN], [1], [2]]])
    assert friedman(gap).p == found.p and friedman(gap).sites == 22
    seeds = np.stack([-ROUNDING - 1, -ROUNDING + 1], axis=-1)
    seeds[0, 2, 1] = NAN  # then the first seeds of this site alone are compared
    assert friedman(seeds).p == pytest.approx(found.p)
    assert friedman(np.ones((3, 5))).p == 1
    assert np.isnan(friedman([[1, NAN], [1, 2], [3, 4]]).p)


def test_wilcoxon_as_in_the_textbook() -> None:
    # depression scores of 9 patients (Hollander & Wolfe 1973, p. 29; in R's wilcox.test: V = 40, one-sided p = 0.01953)
    first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30, NAN]
    second = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29, 1]
    (pair,) = wilcoxon_holm([first, second])
    assert (pair.first, pair.second, pair.sites) == (0, 1, 9)
    assert pair.p == pair.p_holm == pytest.approx(0.0390625)
    assert pair.difference == pytest.approx(np.nanmean(np.subtract(first, second)))


def test_pairs_and_controls_are_corrected_for_their_number() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 15, 3)) + np.array([0, 0.5, 1, 0])[:, None, None]
    scores[3] = NAN
    scores[1, 2, 1] = NAN
    pairs = wilcoxon_holm(scores)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    p = [stats.wilcoxon(np.nanmean(scores[i] - scores[j], axis=1)).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose([pair.p for pair in pairs], [p[0], p[1], NAN, p[2], NAN, NAN])
    np.testing.assert_allclose([pair.p_holm for pair in pairs if pair.sites], holm(p))
    against = wilcoxon_holm(scores[:3], control=1)
    assert [(pair.first, pair.second) for pair in against] == [(0, 1), (2, 1)]
    assert [pair.p for pair in against] == pytest.approx([p[0], p[2]])
    same = wilcoxon_holm(np.ones((2, 6)))
    assert same[0].p == 1 and same[0].difference == 0


def test_equal_sites_speak_for_neither() -> None:
    # ranks of the sizes 0 0 0 1 2 3 4 are 2 2 2 4 5 6 7; signs that give the first 6 + 7 or more are 6 of 16, either way
    (pair,) = wilcoxon_holm([[0, 0, 0, -1, -2, 3, 4], np.zeros(7)])
    assert pair.p == pytest.approx(2 * 6 / 16)  # without the equal sites: 2 * 5 / 16


def test_holm_as_in_statsmodels() -> None:
    # statsmodels 0.15.0, multipletests(p, method="holm")
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.04]), [0.05, 0.12, 0.12, 0.03, 0.2, 0.12])
    np.testing.assert_allclose(holm([0.01, NAN, 0.04]), [0.02, NAN, 0.04])
    assert len(holm([])) == 0


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_values_and_bonferroni(p: list[float]) -> None:
    found = holm(p)
    assert (found >= p).all() and (found <= np.minimum(1, len(p) * np.array(p)) + 1e-15).all()


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: iqm([1.0, 2]), "scores: expected (sites, seeds), got an array of shape (2,)"),
    (lambda: mean([["a"]]), "expected an array of numbers"),
    (lambda: cluster_bootstrap(np.array([[1, np.inf]]), mean, RNG), "expected finite numbers"),
    (lambda: cluster_bootstrap(X, lambda s: np.mean(s), RNG), "got shape () of (1, 10, 4)"),
    (lambda: stratified_bootstrap(X, mean, RNG, resamples=0), "resamples: expected 1 or more, got 0"),
    (lambda: cluster_bootstrap(X[None], mean, RNG), "got an array of shape (1, 10, 4)"),
    (lambda: studentized_bootstrap(X, RNG, resamples=0), "resamples: expected 1 or more, got 0"),
    (lambda: paired_difference(X, X[1:], RNG), "expected the same sites and seeds of all agents, got [(10, 4), (9, 4)]"),
    (lambda: probability_of_improvement(X, X[1:]), "got 10 and 9 sites"),
    (lambda: friedman([[1, 2], [3, 4]]), "expected 3 agents or more, got 2"),
    (lambda: friedman([[1, 2], [3]]), "(agents, sites)"),
    (lambda: wilcoxon_holm([1.0, 2]), "got an array of shape (2,)"),
    (lambda: wilcoxon_holm(X, control=10), "0 to 9, got 10"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused_in_one_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(NeuroGymError) as refusal:
        call()
    assert said in str(refusal.value) and "\n" not in str(refusal.value)
