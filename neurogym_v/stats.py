"""Estimates with their uncertainty. Scores come from fresh repeats, never from the responses that a search saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import NeuroGymError, Rates

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap_means(repeats: Rates, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """(resamples,) means of repeats drawn with replacement; lost trials (NaN) are left out; all NaN if none is valid."""
    valid = repeats[np.isfinite(repeats)]
    if not len(valid):
        return np.full(resamples, np.nan)
    means: NDArray[np.float64] = valid[rng.integers(len(valid), size=(resamples, len(valid)))].mean(axis=1)
    return means


def mean_rate(repeats: Rates, rng: np.random.Generator) -> Estimate:
    """Mean of repeated presentations of one image, spikes/s, with the percentile bootstrap interval."""
    return _estimate(bootstrap_means(repeats, rng), _mean(repeats))


def relative_activation(final: Rates, natural: Rates, spontaneous: Rates, rng: np.random.Generator) -> Estimate:
    """(final - spontaneous) / (best natural - spontaneous), from repeats of each (Xiao & Kreiman 2020, with a baseline).

    NaN where the best natural image does not drive the site above its spontaneous rate: there is nothing to compare with.

    Args:
        final, natural, spontaneous: (rounds,) scores each, NaN where the trial was lost. A round shows all three, so that what
            changes slowly, such as the gain, is in all of them; the interval draws rounds.

    Raises:
        NeuroGymError: not as many rounds of each.
    """
    if not len(final) == len(natural) == len(spontaneous):
        counts = f"{len(final)}, {len(natural)} and {len(spontaneous)}"
        raise NeuroGymError(f"final, natural, spontaneous: expected as many rounds of each, got {counts}")
    denominator = _mean(natural) - _mean(spontaneous)
    if not denominator > 0:
        return Estimate(np.nan, np.nan, np.nan)
    rounds = rng.integers(len(final), size=(RESAMPLES, len(final)))
    f, n, s = (_drawn_means(repeats, rounds) for repeats in (final, natural, spontaneous))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(n > s, (f - s) / (n - s), np.inf)
    return _estimate(
        ratios[np.isfinite(f) & np.isfinite(n) & np.isfinite(s)], (_mean(final) - _mean(spontaneous)) / denominator
    )


def median(values: NDArray[np.float64], rng: np.random.Generator, *, resamples: int = RESAMPLES) -> Estimate:
    """Median of (n,) values, one a unit that a claim generalises over, with the percentile bootstrap interval."""
    drawn = values[rng.integers(len(values), size=(resamples, len(values)))]
    return _estimate(np.median(drawn, axis=1), float(np.median(values)))


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(columns,) correlations of the columns of two (n, columns) arrays; 0 where one of them is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return np.asarray((a * b).sum(axis=0) / np.maximum(np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), 1e-12))


def _drawn_means(repeats: Rates, rounds: NDArray[np.intp]) -> NDArray[np.float64]:
    """(resamples,) means over the valid ones of (resamples, rounds) that were drawn; NaN where none is."""
    valid = np.isfinite(repeats)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = np.where(valid, repeats, 0.0)[rounds].sum(axis=1) / valid[rounds].sum(axis=1)
    return means


def _mean(repeats: Rates) -> float:
    valid = repeats[np.isfinite(repeats)]
    return float(valid.mean()) if len(valid) else float("nan")


def _estimate(resampled: NDArray[np.float64], value: float) -> Estimate:
    if not len(resampled):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(resampled, [0.025, 0.975], method="inverted_cdf")
    return Estimate(value, float(low), float(high))
