"""Curves over agents' whole distributions: performance profiles, and the share of targets that is reached in time.

Agarwal et al. 2021, arXiv:2108.13264; Hansen et al. 2016, arXiv:1605.03560.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurogym_v.scoring.aggregate import Scores, checked
from neurogym_v.scoring.bootstrap import RESAMPLES, cluster_band
from neurogym_v.types import NeuroGymError


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A curve with a 95% interval at each of its points (not of the curve as a whole)."""

    at: NDArray[np.float64]
    """(points,)"""
    value: NDArray[np.float64]
    """(points,), NaN if no site has a run."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """(points,), NaN with fewer than two sites; where all sites agree the interval is a point."""
    sites: int
    """That have a run; others are left out."""


def performance_profile(scores: Scores, taus: ArrayLike, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> Band:
    """Share of runs, (sites, seeds), above each tau; sites weigh the same, and are what the interval is over.

    Raises:
        NeuroGymError: scores that are not (sites, seeds), or infinite.
    """
    at = np.atleast_1d(np.asarray(taus, dtype=np.float64))
    return _band(at, 1 - _shares(checked(scores), at), rng, resamples)


def ecdf(hits: ArrayLike, at: ArrayLike, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> Band:
    """Share of the pairs of a run and a target that are reached within so many presentations; sites weigh the same.

    Args:
        hits: (sites, seeds, targets) presentations until a target is reached; inf: never; NaN: the run is missing.
        at: (points,) presentations.
        rng: Draws the sites for the interval.
        resamples: How often.

    Raises:
        NeuroGymError: hits of another shape.
    """
    times, points = np.asarray(hits, dtype=np.float64), np.atleast_1d(np.asarray(at, dtype=np.float64))
    if times.ndim != 3 or not times.size:
        raise NeuroGymError(f"hits: expected (sites, seeds, targets), got an array of shape {times.shape}")
    return _band(points, _shares(times.reshape(len(times), -1), points), rng, resamples)


def _shares(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """(sites, points) share of each site's values that are at or below a point; NaN for a site without values."""
    ordered = [np.sort(row[~np.isnan(row)]) for row in values]
    return np.array([np.searchsorted(row, at, side="right") / len(row) if len(row) else np.full(len(at), np.nan)
                     for row in ordered])  # fmt: skip


def _band(at: NDArray[np.float64], rows: NDArray[np.float64], rng: np.random.Generator, resamples: int) -> Band:
    kept = rows[~np.isnan(rows).any(axis=1)]
    value = kept.mean(axis=0) if len(kept) else np.full(len(at), np.nan)
    low, high = cluster_band(kept, rng, resamples=resamples)
    return Band(at=at, value=value, low=low, high=high, sites=len(kept))
