"""Estimates against hand-worked cases and their own coverage."""

from __future__ import annotations

import numpy as np
import pytest

from neurogym_v.stats import mean_rate, median, relative_activation
from neurogym_v.types import NeuroGymError


def test_relative_activation_by_hand() -> None:
    final, natural, grey = np.array([60.0, 80, np.nan, 70]), np.array([40.0, np.nan, 50, 60]), np.array([10.0, 10, 10, np.nan])
    estimate = relative_activation(final, natural, grey, np.random.default_rng(0))
    assert estimate.value == pytest.approx((70 - 10) / (50 - 10))
    assert estimate.low < estimate.value < estimate.high


def test_without_drive_there_is_nothing_to_compare_with() -> None:
    flat = np.full(10, 5.0)
    assert np.isnan(relative_activation(flat + 3, flat, flat, np.random.default_rng(0)).value)
    assert np.isnan(relative_activation(np.full(10, np.nan), flat + 1, flat, np.random.default_rng(0)).value)
    assert np.isnan(mean_rate(np.full(4, np.nan), np.random.default_rng(0)).low)


def test_constant_repeats_have_no_uncertainty() -> None:
    estimate = relative_activation(np.full(9, 30.0), np.full(9, 20.0), np.full(9, 10.0), np.random.default_rng(0))
    assert (estimate.low, estimate.value, estimate.high) == (2, 2, 2)


def test_what_changes_slowly_is_in_both_sides_of_a_round() -> None:
    rng = np.random.default_rng(2)
    gain = np.exp(np.cumsum(rng.normal(0, 0.1, 80)))  # of all images alike
    estimate = relative_activation(90 * gain, 60 * gain, 10 * gain, rng)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((1.6, 1.6, 1.6))
    with pytest.raises(NeuroGymError, match="expected as many rounds of each, got 3, 2 and 3"):
        relative_activation(np.ones(3), np.ones(2), np.zeros(3), rng)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        final, natural, grey = (rng.poisson(rate * 0.1, 40) * 10.0 for rate in (90, 60, 10))
        estimate = relative_activation(final, natural, grey, rng)
        covered += estimate.low <= 80 / 50 <= estimate.high
    assert covered / runs == pytest.approx(0.95, abs=0.035)


def test_the_interval_of_a_median() -> None:
    estimate = median(np.arange(101.0), np.random.default_rng(0))
    assert estimate.value == 50
    assert 36 < estimate.low < 45  # by the binomial: the 40th and the 60th value
    assert 55 < estimate.high < 64
