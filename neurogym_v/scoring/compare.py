"""Whether one agent is better than another: over sites, with the seeds of a site paired.

Agents meet the same site with the same seed, so that what luck they share cancels. A run that one of them lacks is left out
for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from neurogym_v.scoring.aggregate import Scores, Statistic, checked, matched, mean, mean_of
from neurogym_v.scoring.bootstrap import RESAMPLES, cluster_bootstrap
from neurogym_v.stats import Estimate
from neurogym_v.types import NeuroGymError


@dataclass(frozen=True, slots=True, kw_only=True)
class Friedman:
    """Whether agents differ at all."""

    mean_ranks: NDArray[np.float64]
    """(agents,) over sites; 1 is best, equal scores share their ranks."""
    statistic: float
    """Chi squared with agents - 1 degrees of freedom, corrected for equal scores."""
    p: float
    sites: int
    """That every agent has; others are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Wilcoxon's signed-rank test of one agent against another."""

    first: int
    second: int
    """Their places in what was given."""
    difference: float
    """First - second, mean over sites."""
    p: float
    """Two-sided; NaN without a site that both have."""
    p_holm: float
    """Corrected for all pairs that were asked for."""
    sites: int
    """That both have."""


def probability_of_improvement(x: Scores, y: Scores) -> float:
    """P(X > Y) + P(X = Y) / 2 of a run of x and a run of y on the same site, mean over sites (Agarwal et al. 2021).

    Runs are compared with all runs of the other agent on that site, whatever their seeds; there may be more of one than of
    the other. Sites that one of them lacks are left out; NaN if that leaves none.

    Raises:
        NeuroGymError: not (sites, seeds), or not the same number of sites.
    """
    return float(mean_of(improvement_by_site(x, y)))


def improvement_interval(x: Scores, y: Scores, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> Estimate:
    """`probability_of_improvement` with the interval of `cluster_bootstrap`: sites are drawn, for both agents the same."""
    return cluster_bootstrap(improvement_by_site(x, y)[:, None], mean, rng, resamples=resamples)


def improvement_by_site(x: Scores, y: Scores) -> NDArray[np.float64]:
    """(sites,) P(X > Y) + P(X = Y) / 2 on each; NaN where one of them has no run."""
    x, y = checked(x, name="x"), checked(y, name="y")
    if len(x) != len(y):
        raise NeuroGymError(f"x and y: expected scores on the same sites, got {len(x)} and {len(y)} sites")
    a, b = x[:, :, None], y[:, None, :]
    won = np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b) + 0.5 * (a == b))
    return mean_of(won.reshape(len(x), -1))


def paired_difference(
    x: Scores, y: Scores, rng: np.random.Generator, *, statistic: Statistic = mean, resamples: int = RESAMPLES
) -> Estimate:
    """A statistic of x - y, run by run with the same site and seed, with the interval of `cluster_bootstrap`.

    Of the mean this is the difference of both means where no run is missing; of `iqm` and `median` it is the one of the
    differences, not the difference of two.

    Raises:
        NeuroGymError: not the same (sites, seeds), or infinite.
    """
    first, second = matched(x, y)
    return cluster_bootstrap(first - second, statistic, rng, resamples=resamples)


def friedman(table: ArrayLike) -> Friedman:
    """Friedman's test of 3 or more agents over (agents, sites) scores, or (agents, sites, seeds), whose seeds are averaged.

    Sites are what is ranked within; a seed counts where all agents have it, a site where all have such a seed. NaN where
    fewer than 2 sites are left; p is 1 where agents are equal on all of them.

    Raises:
        NeuroGymError: other shapes, or fewer agents.
    """
    scores = _three(table)
    if len(scores) < 3:
        raise NeuroGymError(f"friedman: expected 3 agents or more, got {len(scores)}; two are compared by wilcoxon_holm")
    means = mean_of(np.where(np.isnan(scores).any(axis=0), np.nan, scores))
    means = means[:, ~np.isnan(means[0])]
    sites = means.shape[1]
    if sites < 2:
        return Friedman(mean_ranks=np.full(len(means), np.nan), statistic=np.nan, p=np.nan, sites=sites)
    ranks = stats.rankdata(-means, axis=0).mean(axis=1)
    if (means == means[0]).all():
        return Friedman(mean_ranks=ranks, statistic=0.0, p=1.0, sites=sites)
    found = stats.friedmanchisquare(*means)
    return Friedman(mean_ranks=ranks, statistic=float(found.statistic), p=float(found.pvalue), sites=sites)


def wilcoxon_holm(table: ArrayLike, *, control: int | None = None) -> tuple[Pair, ...]:
    """Wilcoxon's signed-rank test over sites of all pairs of agents, or of all others against one control, after Holm.

    Of (agents, sites) scores, or of (agents, sites, seeds): then of the mean over seeds of a site's paired differences. Sites
    that one of a pair lacks are left out for this pair. Differences of 0 count half for either (Demšar 2006).

    Raises:
        NeuroGymError: other shapes, or no such control.
    """
    scores = _three(table)
    agents = range(len(scores))
    if control is not None and control not in agents:
        raise NeuroGymError(f"control: expected the place of an agent, 0 to {len(scores) - 1}, got {control}")
    asked = list(combinations(agents, 2)) if control is None else [(i, control) for i in agents if i != control]
    differences = [mean_of(scores[i] - scores[j]) for i, j in asked]
    differences = [one[~np.isnan(one)] for one in differences]
    p = np.array([_signed_rank(one) for one in differences])
    return tuple(
        Pair(first=i, second=j, difference=float(mean_of(one)), p=float(raw), p_holm=float(corrected), sites=len(one))
        for (i, j), one, raw, corrected in zip(asked, differences, p, holm(p), strict=True)
    )


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """(tests,) p values corrected for their number (Holm 1979); one that is NaN stays so and is not counted."""
    raw = np.asarray(p, dtype=np.float64)
    made = np.full(raw.shape, np.nan)
    order = raw.argsort()[: int((~np.isnan(raw)).sum())]  # NaN last
    made[order] = np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return made


def _signed_rank(differences: NDArray[np.float64]) -> float:
    if not len(differences):
        return float("nan")
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)


def _three(table: ArrayLike) -> NDArray[np.float64]:
    """(agents, sites, seeds)"""
    try:
        made = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError):
        raise NeuroGymError("scores: expected numbers (agents, sites) or (agents, sites, seeds), got something else") from None
    if made.ndim not in (2, 3) or not made.size:
        raise NeuroGymError(f"scores: expected (agents, sites) or (agents, sites, seeds), got an array of shape {made.shape}")
    return matched(*(made if made.ndim == 3 else made[..., None]))
