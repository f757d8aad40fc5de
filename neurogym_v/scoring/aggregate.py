"""One number for an agent's runs on many sites: interquartile mean, median, mean, optimality gap.

Agarwal et al. 2021, arXiv:2108.13264; their tasks are sites here. One rule holds for all: a run that is missing is left out, a
site without runs is left out (`counted` says how many count), and the sites that count weigh the same, however many of their
runs are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurogym_v.types import NeuroGymError

Scores: TypeAlias = NDArray[np.float64]
"""(sites, seeds) of one agent, a number a run; NaN: the run is missing, or the site was lost."""
Statistic: TypeAlias = Callable[[Scores], NDArray[np.float64]]
"""(..., sites, seeds) -> (...): the aggregate of each of many score arrays at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a statistic rests on."""

    sites: int
    """With at least one run that counts."""
    of_sites: int
    runs: int
    of_runs: int

    def __str__(self) -> str:
        return f"{self.sites}/{self.of_sites} sites, {self.runs}/{self.of_runs} runs"


def counted(*scores: ArrayLike) -> Counted:
    """What there is of one agent, or of several together: then a run counts where all of them have it.

    Raises:
        NeuroGymError: not the same (sites, seeds) of all.
    """
    there: NDArray[np.bool_] = np.logical_not(np.isnan(matched(*scores)).any(axis=0))
    return Counted(sites=int(there.any(axis=1).sum()), of_sites=len(there), runs=int(there.sum()), of_runs=there.size)


def site_means(scores: Scores) -> NDArray[np.float64]:
    """(..., sites, seeds) -> (..., sites): mean of each site's runs; NaN for a site without any."""
    return mean_of(_many(scores))


def mean(scores: Scores) -> NDArray[np.float64]:
    """(..., sites, seeds) -> (...): mean over sites of the mean of their runs."""
    return mean_of(site_means(scores))


def median(scores: Scores) -> NDArray[np.float64]:
    """(..., sites, seeds) -> (...): median over sites of the mean of their runs."""
    ordered = np.sort(site_means(scores), axis=-1)  # NaN last
    count = (~np.isnan(ordered)).sum(axis=-1, keepdims=True)
    middle = np.concatenate([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, ordered.shape[-1] - 1)], axis=-1)
    halves: NDArray[np.float64] = np.take_along_axis(ordered, middle, axis=-1)
    return mean_of(halves)


def optimality_gap(scores: Scores, *, target: float = 1.0) -> NDArray[np.float64]:
    """(..., sites, seeds) -> (...): by how much runs fall short of the target on average; one above it falls short by 0."""
    return mean(np.maximum(target - _many(scores), 0))


def iqm(scores: Scores) -> NDArray[np.float64]:
    """(..., sites, seeds) -> (...): mean of the middle half of all runs, those of all sites together.

    From each end a quarter of the runs is cut, rounded down to whole runs: `scipy.stats.trim_mean(scores, 0.25, axis=None)`
    where none is missing. Where some are, those left of the site weigh as much as all would; one that lies across a cut
    counts in part.
    """
    scores = _many(scores)
    there = ~np.isnan(scores)
    runs = there.sum(axis=-1)
    most = np.maximum(runs.max(axis=-1), 1)[..., None]
    flat = scores.reshape(*scores.shape[:-2], -1)
    order = flat.argsort(axis=-1)  # NaN last
    weights = (there * (most / np.maximum(runs, 1))[..., None]).reshape(flat.shape)  # 1: a run of a site with all its runs
    weights = np.take_along_axis(weights, order, axis=-1)
    ends = weights.cumsum(axis=-1)
    whole = (runs > 0).sum(axis=-1, keepdims=True) * most
    cut = whole // 4
    kept = ends.clip(cut, whole - cut) - (ends - weights).clip(cut, whole - cut)
    values = np.where(kept > 0, np.take_along_axis(flat, order, axis=-1), 0)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (kept * values).sum(axis=-1) / kept.sum(axis=-1)
    return found


def mean_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., n) -> (...): mean over the last axis without NaN; NaN where nothing else is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.where(there, values, 0).sum(axis=-1) / there.sum(axis=-1)
    return found


def checked(scores: ArrayLike, *, name: str = "scores") -> Scores:
    """The scores of one agent.

    Raises:
        NeuroGymError: they are not (sites, seeds), there are none, or one is infinite.
    """
    made = _many(scores, name=name)
    if made.ndim != 2:
        raise NeuroGymError(f"{name}: expected (sites, seeds), got an array of shape {made.shape}")
    if np.isinf(made).any():
        raise NeuroGymError(f"{name}: expected finite numbers, or NaN for a missing run, got an infinite one")
    return made


def matched(*scores: ArrayLike) -> NDArray[np.float64]:
    """(agents, sites, seeds) of agents whose runs are paired by site and seed.

    Raises:
        NeuroGymError: one is not (sites, seeds), or they are not of the same shape.
    """
    made = [checked(one) for one in scores]
    if len({one.shape for one in made}) != 1:
        raise NeuroGymError(f"scores: expected the same sites and seeds of all agents, got {[one.shape for one in made]}")
    return np.stack(made)


def _many(scores: ArrayLike, *, name: str = "scores") -> NDArray[np.float64]:
    try:
        made = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise NeuroGymError(f"{name}: expected an array of numbers (sites, seeds), got something else") from None
    if made.ndim < 2 or not made.size:
        raise NeuroGymError(f"{name}: expected (sites, seeds), got an array of shape {made.shape}")
    return made
