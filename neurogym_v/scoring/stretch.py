"""Which sites are driven above the best natural image, how many, and by how much (Bashivan et al. 2019, eaav9436)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neurogym_v.scoring.aggregate import mean_of, median
from neurogym_v.scoring.bootstrap import LEVEL, cluster_bootstrap
from neurogym_v.scoring.compare import holm
from neurogym_v.stats import Estimate, bootstrap_means
from neurogym_v.types import NeuroGymError, Rates

SiteTest: TypeAlias = Callable[[Rates, Rates], float]
"""p that the mean of the first repeats is above that of the second, one-sided; lost trials (NaN) left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What a claim of stretched sites rests on."""

    p: NDArray[np.float64]
    """(sites,) that relative activation is above 1; NaN where that cannot be tested."""
    p_holm: NDArray[np.float64]
    """(sites,) corrected for the sites that could be."""
    stretched: NDArray[np.bool_]
    """(sites,) p_holm is at or below alpha."""
    fraction: Estimate
    """Of the sites that could be tested, with Wilson's interval."""
    gain: Estimate
    """(final - best natural) / best natural, median over these sites, with the interval of `cluster_bootstrap`."""
    sites: int
    """That could be tested."""


def stretched(
    final: Sequence[Rates],
    natural: Sequence[Rates],
    spontaneous: Sequence[Rates],
    rng: np.random.Generator,
    *,
    alpha: float = 0.05,
    test: SiteTest | None = None,
) -> Stretch:
    """Test each site for a relative activation above 1, and say how many have it: Holm's correction holds over all of them.

    The final image drives the site more than the best natural one; on a site that this does not drive above its spontaneous
    rate there is nothing to be tested, nor on one with fewer than two repeats of an image. A site that was searched with
    several seeds is still one: choose a seed beforehand, or call this for each.

    Args:
        final: For each site, (repeats,) spikes/s of the recommended image; NaN marks a lost trial.
        natural: ... of the best natural image, from repeats that did not choose it.
        spontaneous: ... without an image.
        rng: Draws the sites for the interval of the gain.
        alpha: Chance of any false site among all.
        test: `welch` if not given.

    Raises:
        NeuroGymError: not as many sites in each.
    """
    if not len(final) == len(natural) == len(spontaneous):
        counts = f"{len(final)}, {len(natural)} and {len(spontaneous)}"
        raise NeuroGymError(f"final, natural, spontaneous: expected repeats of the same sites, got {counts} sites")
    final, natural, spontaneous = (
        [np.asarray(repeats, dtype=np.float64) for repeats in sites] for sites in (final, natural, spontaneous)
    )
    f, n, s = (np.array([mean_of(repeats) for repeats in sites]) for sites in (final, natural, spontaneous))
    driven = zip(final, natural, n > s, strict=True)
    p = np.array([(test or welch)(one, other) if above else np.nan for one, other, above in driven])
    tested, corrected = ~np.isnan(p), holm(p)
    found = corrected <= alpha
    count = int(tested.sum())
    gains = np.where(tested, f, np.nan) / np.where(n > 0, n, np.nan) - 1
    gain = cluster_bootstrap(gains[:, None], median, rng) if len(gains) else Estimate(np.nan, np.nan, np.nan)
    return Stretch(p=p, p_holm=corrected, stretched=found, fraction=share(int(found.sum()), count), gain=gain, sites=count)


def share(count: int, of: int) -> Estimate:
    """A fraction of so many with Wilson's 95% interval, which covers as often as it says on average; NaN of none.

    Clopper and Pearson's never covers less than that, and is wider for it (Brown, Cai & DasGupta 2001).
    """
    if not of:
        return Estimate(float("nan"), float("nan"), float("nan"))
    ends = stats.binomtest(count, of).proportion_ci(LEVEL, method="wilson")
    return Estimate(count / of, float(ends.low), float(ends.high))


def welch(first: Rates, second: Rates) -> float:
    """Welch's t test, for repeats whose variances differ, as those of spike counts do; NaN with fewer than two of one.

    It is the default, and right where repeats of either image were shown at times of their own (see `paired`). With 80, 40 or
    10 repeats of either, 4.5 to 5.0% of sites without a difference come below 0.05 and 0.3 to 0.5% below 0.005; of
    `bootstrap_test` 1.1% with 10 (`python -m neurogym_v.benchmarks.coverage`). And its p goes as low as it must be to pass
    Holm's correction over many sites.
    """
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if min(len(first), len(second)) < 2:
        return float("nan")
    if not np.ptp(first) + np.ptp(second) > 0:  # without noise
        return float(first[0] <= second[0])
    return float(stats.ttest_ind(first, second, equal_var=False, alternative="greater").pvalue)


def paired(first: Rates, second: Rates) -> float:
    """Student's t test of the differences, for repeats that were shown in turn: a round of which one was lost is left out.

    What changes from round to round for both images alike, as the gain of a cell does, is in neither side of it. NaN with
    fewer than two rounds.

    Raises:
        NeuroGymError: not as many rounds of each.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(first) != len(second):
        raise NeuroGymError(f"first and second: expected as many rounds of each, got {len(first)} and {len(second)}")
    differences = first - second
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return float("nan")
    if not np.ptp(differences) > 0:  # without noise
        return float(differences[0] <= 0)
    return float(stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue)


def bootstrap_test(rng: np.random.Generator, *, resamples: int = 10_000) -> SiteTest:
    """The test by how often a resampled mean of the first is not above one of the second; see `welch`."""

    def test(first: Rates, second: Rates) -> float:
        if min(np.isfinite(first).sum(), np.isfinite(second).sum()) < 2:
            return float("nan")
        means, others = (bootstrap_means(repeats, rng, resamples=resamples) for repeats in (first, second))
        return float((1 + (means <= others).sum()) / (1 + resamples))

    return test
