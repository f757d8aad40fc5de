"""Profiles, run times and stretched sites against closed forms and recorded values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from neurogym_v.benchmarks.coverage import false_sites
from neurogym_v.scoring import (
    alike,
    area_under,
    bootstrap_test,
    cluster_bootstrap,
    ecdf,
    expected_running_time,
    first_hits,
    mean,
    paired,
    performance_profile,
    share,
    stretched,
    welch,
)
from neurogym_v.types import NeuroGymError

NAN, INF = float("nan"), float("inf")


def test_the_profile_by_hand() -> None:
    scores = np.array([[0.5, 1.5], [1.0, NAN], [NAN, NAN]])
    found = performance_profile(scores, [0, 0.5, 1.0, 2.0], np.random.default_rng(0))
    np.testing.assert_allclose(found.value, [1, 0.75, 0.25, 0])  # above, not at; both sites weigh the same
    np.testing.assert_allclose(found.low, [1, 0.5, 0, 0])  # two sites: whichever is drawn twice
    np.testing.assert_allclose(found.high, [1, 1, 0.5, 0])
    assert found.sites == 2


def test_the_profile_of_rliable() -> None:
    # version 1.2.0, create_performance_profile on the same runs
    x = np.array([[0.701, 0.963, 1.89, 0.812], [1.589, 1.264, 0.636, 1.221], [1.053, 0.777, 0.739, 1.064],
                  [1.352, 0.749, 0.627, 0.513], [1.078, 0.601, 0.585, 1.234], [1.919, 0.305, 0.581, 1.125],
                  [0.971, 1.75, 1.581, 0.92], [2.16, 3.172, 1.66, 0.787], [2.072, 1.212, 1.488, 1.015],
                  [1.16, 1.699, 0.544, 1.754]])  # fmt: skip
    found = performance_profile(x, [0.2, 0.5, 0.8, 1.0, 1.3, 1.7, 2.5], np.random.default_rng(0))
    np.testing.assert_allclose(found.value, [1, 0.975, 0.675, 0.575, 0.325, 0.175, 0.025])
    assert (found.low <= found.value).all() and (found.value <= found.high).all()


def test_a_band_is_at_each_point_the_interval_over_sites() -> None:
    scores = np.random.default_rng(0).normal(size=(25, 4))
    band = performance_profile(scores, [0.3], np.random.default_rng(1), resamples=20_000)
    one = cluster_bootstrap((scores > 0.3).astype(float), mean, np.random.default_rng(2), resamples=20_000)
    assert band.value[0] == pytest.approx(one.value)
    assert (band.low[0], band.high[0]) == pytest.approx((one.low, one.high), abs=0.011)  # both move in steps of 0.01


@given(arrays(np.float64, (4, 3), elements=st.integers(-5, 5).map(float) | st.just(NAN)))
def test_profiles_fall_from_all_to_none(scores: np.ndarray) -> None:
    found = performance_profile(scores, [-6, -2, 0, 2, 5], np.random.default_rng(0), resamples=20)
    if np.isnan(scores).all():
        assert found.sites == 0 and np.isnan(found.value).all()
    else:
        assert (np.diff(found.value) <= 1e-12).all()
        assert (found.value[0], found.value[-1]) == (1, 0)


def test_the_share_of_targets_that_is_reached_in_time() -> None:
    hits = np.array([[[10, 20], [40, INF]], [[INF, INF], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]]])
    found = ecdf(hits, [0, 10, 39, 1000], np.random.default_rng(0))
    np.testing.assert_allclose(found.value, [0, 0.125, 0.25, 0.375])  # 0, 1, 2, 3 of 4 on one site, none on the other
    assert found.sites == 2


def test_hits_are_where_the_curve_first_reaches_each_target() -> None:
    spent, curve = [40, 80, 120, 160], [0.2, NAN, 0.9, 0.7]
    np.testing.assert_array_equal(first_hits(spent, curve, [0.1, 0.2, 0.21, 0.9, 0.91]), [40, 40, 120, 120, INF])
    np.testing.assert_array_equal(first_hits([], [], [0.5]), [INF])


@given(arrays(np.float64, 6, elements=st.integers(-3, 3).map(float) | st.just(NAN)), st.integers(-4, 4))
def test_hits_are_those_of_a_plain_loop(curve: np.ndarray, target: int) -> None:
    spent = np.arange(1, 7) * 10.0
    plain = next((at for at, height in zip(spent, curve, strict=True) if height >= target), INF)
    assert first_hits(spent, curve, [target])[0] == plain


def test_expected_running_time_is_all_that_was_spent_over_the_successes() -> None:
    assert expected_running_time([100, INF, 300, INF], [1000, 3000, 3000, 2000]) == (100 + 3000 + 300 + 2000) / 2
    assert expected_running_time([100, 300], 3000) == 200
    assert expected_running_time([INF, INF], 3000) == INF
    assert expected_running_time([100, NAN], [1000, NAN]) == 100  # a run that is missing is no failure
    assert np.isnan(expected_running_time([NAN], 3000))
    np.testing.assert_array_equal(expected_running_time([[1, INF], [INF, INF], [3, 5]], 10), [11, INF, 4])


def test_expected_running_time_is_what_restarts_need() -> None:
    # a success after 10 with chance 1/4, else 40 are spent: 10 + 40 (1 - p) / p
    rng = np.random.default_rng(0)
    hit = np.where(rng.random(100_000) < 0.25, 10, INF)
    assert expected_running_time(hit, 40) == pytest.approx(130, rel=0.02)  # 5 errors


def test_area_under_steps_by_hand() -> None:
    spent, curve = [10, 30, 80], [1.0, 2.0, 4.0]
    assert area_under(spent, curve, 100) == pytest.approx((0 * 10 + 1 * 20 + 2 * 50 + 4 * 20) / 100)
    assert area_under(spent, curve, 100, before=0.5) == pytest.approx((0.5 * 10 + 20 + 100 + 80) / 100)
    assert area_under(spent, curve, 50) == pytest.approx((20 + 2 * 20) / 50)  # what comes later does not count
    assert area_under(spent, curve, 5, before=3) == 3
    assert area_under([10, 30], [1.0, NAN], 50) == pytest.approx(40 / 50)
    assert area_under([1, 10], [1.0, 2.0], 100, log=True) == pytest.approx(1.5)  # a decade each
    assert area_under([10], [1.0], 1000, log=True, before=0.1) == pytest.approx((0.1 + 2) / 3)
    assert area_under([], [], 10, before=0.4) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(-5, 5)), max_size=6), st.booleans(), st.integers(2, 50))
def test_areas_are_those_of_a_fine_sum(points: list[tuple[int, int]], log: bool, budget: int) -> None:
    points = sorted(points, key=lambda point: point[0])
    spent, curve = [at for at, _ in points], [height for _, height in points]
    edges = np.geomspace(1, budget, 40_001) if log else np.linspace(0, budget, 40_001)
    middle = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    heights = np.append(-1.0, curve)[np.searchsorted(spent, middle, side="right")]
    assert area_under(spent, curve, budget, log=log, before=-1.0) == pytest.approx(heights.mean(), abs=0.01)


def test_welch_is_that_of_scipy_without_lost_trials() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.poisson(6, 80) * 10.0, rng.poisson(5, 40) * 10.0
    gap = np.append(first, [NAN, NAN])
    assert welch(gap, second) == pytest.approx(stats.ttest_ind(first, second, equal_var=False, alternative="greater").pvalue)
    assert bootstrap_test(rng)(gap, second) == pytest.approx(welch(gap, second), abs=0.02)
    for test in (welch, bootstrap_test(rng)):
        assert np.isnan(test(np.array([1.0, NAN]), second))
    assert welch(np.full(5, 2.0), np.full(5, 1.0)) == 0  # without noise
    assert welch(np.full(5, 2.0), np.full(5, 2.0)) == 1
    assert bootstrap_test(rng, resamples=999)(np.full(5, 2.0), np.full(5, 1.0)) == 1 / 1000


def test_rounds_are_paired() -> None:
    rng = np.random.default_rng(5)
    gain = 1 + 0.5 * rng.standard_normal(80)
    first, second = 22 * gain + rng.standard_normal(80), 20 * gain + rng.standard_normal(80)
    assert paired(first, second) == pytest.approx(stats.ttest_rel(first, second, alternative="greater").pvalue)
    assert paired(first, second) < 1e-6 < welch(first, second)
    first[0] = second[1] = NAN  # either leaves out its round
    assert paired(first, second) == pytest.approx(stats.ttest_rel(first[2:], second[2:], alternative="greater").pvalue)
    assert (paired(np.full(5, 2.0), np.full(5, 1.0)), paired(np.full(5, 2.0), np.full(5, 2.0))) == (0, 1)
    assert np.isnan(paired(np.array([1.0, NAN]), np.array([0.0, 1.0])))
    with pytest.raises(NeuroGymError, match="expected as many rounds of each, got 3 and 2"):
        paired(np.ones(3), np.ones(2))


@pytest.mark.parametrize("repeats", [10, 80])
def test_welch_takes_no_more_sites_for_stretched_than_it_says(repeats: int) -> None:
    p, runs = np.array(list(false_sites(welch, repeats=repeats, mean_count=3.0, runs=1500, seed=2))), 1500
    for level in (0.05, 0.01):
        low, high = stats.binom.ppf([0.002, 0.998], runs, level)
        assert low <= (p <= level).sum() <= high


def test_stretched_sites_their_share_and_their_gain() -> None:
    rng = np.random.default_rng(0)
    final_hz = [80, 60, 40, 50, 90, 30]
    natural_hz = [50, 40, 60, 50, 60, 10]
    grey_hz = [10, 5, 10, 10, 10, 20]  # the best natural image of the last one does not drive it
    final, natural, grey = ([rng.poisson(hz * 0.1, 80) * 10.0 for hz in each] for each in (final_hz, natural_hz, grey_hz))
    final[4][3:] = NAN
    final[4][:2] = NAN  # one trial is left
    found = stretched(final, natural, grey, rng)
    assert found.stretched.tolist() == [True, True, False, False, False, False]
    assert np.isnan(found.p).tolist() == [False] * 4 + [True] * 2
    assert (found.sites, found.fraction.value) == (4, 0.5)
    assert found.p_holm[0] == pytest.approx(4 * found.p[0]) or found.p_holm[1] == pytest.approx(4 * found.p[1])
    gains = [final[i].mean() / natural[i].mean() - 1 for i in range(4)]
    assert found.gain.value == pytest.approx(np.median(gains))
    assert found.gain.low <= found.gain.value <= found.gain.high
    by_bootstrap = stretched(final, natural, grey, rng, test=bootstrap_test(rng))
    assert by_bootstrap.stretched.tolist() == found.stretched.tolist()
    assert stretched(final, natural, grey, rng, alpha=1e-30).fraction.value == 0
    assert stretched([[30, 40, 50]], [[10, 20, 10.0]], [[0, NAN]], rng).stretched.all()
    some = stretched([[0.01, 3], [0.03, 3], [0.04, 3]], [[1, 1]] * 3, [[0, 0]] * 3, rng, test=lambda first, _: first[0])
    assert some.stretched.tolist() == [True, False, False]  # of three tests the second has to pass 0.025
    nothing = stretched([], [], [], rng)
    assert nothing.sites == 0 and np.isnan(nothing.fraction.value) and np.isnan(nothing.gain.value)


def test_the_interval_of_a_share_is_wilsons() -> None:
    z, n, k = 1.959964, 40, 27
    centre, half = (k + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    found = share(k, n)
    assert (found.low, found.value, found.high) == pytest.approx((centre - half, 27 / 40, centre + half), abs=1e-6)
    assert share(0, 10).low == pytest.approx(0) and share(0, 10).high == pytest.approx(z**2 / (10 + z**2), abs=1e-6)
    assert np.isnan(share(0, 0).value)


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: ecdf(np.zeros((2, 3)), [1], RNG), "hits: expected (sites, seeds, targets), got an array of shape (2, 3)"),
    (lambda: performance_profile(np.zeros(3), [1], RNG), "scores: expected (sites, seeds)"),
    (lambda: first_hits([1, 2], [1.0], [1]), "got shapes (2,) and (1,)"),
    (lambda: first_hits([2, 1], [1.0, 2], [1]), "never fall"),
    (lambda: area_under([1], [1.0], 0), "budget: expected presentations above 0, got 0"),
    (lambda: area_under([1], [1.0], 1, log=True), "budget: expected presentations above 1, got 1"),
    (lambda: expected_running_time([INF, 1], [NAN, 1]), "each run without success"),
    (lambda: expected_running_time([INF, 1], [1, 2, 3]), "got (3,)"),
    (lambda: stretched([np.ones(3)], [], [np.ones(3)], RNG), "got 1, 0 and 1 sites"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused_in_one_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(NeuroGymError) as refusal:
        call()
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_images_of_a_site_are_alike_as_far_as_they_differ_from_those_of_others() -> None:
    rng = np.random.default_rng(3)
    own = rng.standard_normal((6, 1, 50))
    found = alike(10 + own + 0.1 * rng.standard_normal((6, 3, 50)), rng)
    assert found.value == 1.0 and (found.low, found.high) == (1.0, 1.0)
    chance = alike(rng.standard_normal((40, 3, 50)), rng)
    assert chance.low < 0.5 < chance.high
    assert alike(np.ones((4, 2, 5)), rng).value == 0.5  # they are all the same
    # by hand: of the first site's pairs with others (-1, -1, 1, 1 times alike) its own, which are equal, beat half
    places = np.array([[[1, -1], [1, -1]], [[-1, 1], [1, -1]]], dtype=float)
    assert alike(places, rng).value == pytest.approx((0.75 + 0.25) / 2)
    gaps = own + 0.1 * rng.standard_normal((6, 3, 50))
    gaps[0, 1:] = np.nan  # has nothing to be compared with
    gaps[1, 2] = np.nan
    assert alike(gaps, rng).value == 1.0
    assert np.isnan(alike(gaps[:1], rng).value) and np.isnan(alike(gaps[:, :1], rng).value)
    assert np.isnan(alike(np.full((3, 2, 4), np.nan), rng).value)
    with pytest.raises(NeuroGymError, match=r"expected \(sites, seeds, features\), got an array of shape \(4, 2\)"):
        alike(np.ones((4, 2)), rng)
