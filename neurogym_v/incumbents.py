"""Candidates that have to earn their place by repeats: the best of n noisy samples is mostly the luckiest one."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import Latents, NeuroGymError, Rates

RECENT = 20
"""A new image is shrunk to the mean of the fresh images of its round, or, if these are fewer, of so many recent ones: a search
that gets better has better priors, and the mean of a handful has a luck of its own."""
FEWEST = 10
"""Re-tests from which their spread says how reliable a single trial is."""
UNRELIABLE = 4.0
"""Before that: the trials that the prior counts for, as where the reliability of one is 0.2, usual in visual cortex."""


class Incumbents:
    """Images shown so far that may be the best, each with an estimate of its rate from all its shows.

    An estimate is the mean of an image's trials and of a prior, the mean of the fresh images shown about when it was, which
    counts for as many trials as the noise makes worth: the variance of repeats of one image over that between images, both as
    measured so far (empirical Bayes). The best is the one whose estimate less its own standard error is highest, so that an
    image that was shown often is preferred to one that was lucky once. With no repeats at all nothing can tell these apart.

    A round is asked as `again(n)` followed by fresh latents, and told in the same order.

    Args:
        latent_dim: d.
        shows: a candidate shown this often is known well enough, and its place goes to the next.
        pool: candidates kept in memory.

    Raises:
        NeuroGymError: shows or pool below 1.
    """

    def __init__(self, latent_dim: int, *, shows: int = 8, pool: int = 64) -> None:
        if shows < 1 or pool < 1:
            raise NeuroGymError(f"incumbents: expected shows and pool of at least 1, got {shows} and {pool}")
        self.shows, self.pool = shows, pool
        self._latents: Latents = np.empty((0, latent_dim), np.float32)  # as shown
        self._prior: NDArray[np.float64] = np.empty(0)
        self._total: NDArray[np.float64] = np.empty(0)  # of the rates of its valid trials
        self._count: NDArray[np.intp] = np.empty(0, np.intp)
        self._first: NDArray[np.float64] = np.empty(0)  # of these, the one for which it was chosen
        self._again: NDArray[np.intp] = np.empty(0, np.intp)  # those at the head of the batch that was asked
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._within = self._between = 0.0  # sums of squares: of repeats of an image, of fresh images of a round
        self._n_within = self._n_between = 0  # their degrees of freedom

    def __len__(self) -> int:
        return len(self._latents)

    def again(self, n: int) -> Latents:
        """(up to n, d) candidates that are worth another show; the next `tell` expects their rates first."""
        order = np.argsort(-self._mean(), kind="stable")
        self._again = order[self._count[order] < self.shows][:n]
        return self._latents[self._again]

    def tell(self, latents: Latents, rates: Rates) -> None:
        """(n, d) latents as shown and their (n,) rates: those of the last `again`, then fresh ones; NaN is a lost trial."""
        again, self._again = self._again[: len(latents)], self._again[:0]
        old, fresh = rates[: len(again)], ~np.isnan(rates)
        fresh[: len(again)] = False  # a fresh image whose trial was lost is forgotten: another one is as good
        for place, rate in zip(again[~np.isnan(old)], old[~np.isnan(old)], strict=True):
            self._repeat(int(place), float(rate))
        new = rates[fresh]
        self._recent.extend(new.tolist())
        if len(new) > 1:
            self._between += float(((new - new.mean()) ** 2).sum())
            self._n_between += len(new) - 1
        self._latents = np.concatenate([self._latents, latents[fresh]])
        prior = new if len(new) >= RECENT else self._recent
        self._prior = np.append(self._prior, np.full(len(new), np.mean(prior) if len(prior) else 0.0))
        self._total, self._first = np.append(self._total, new), np.append(self._first, new)
        self._count = np.append(self._count, np.ones(len(new), np.intp))

        keep = np.argsort(-self._mean(), kind="stable")[: self.pool]
        for name in ("_latents", "_prior", "_total", "_first", "_count"):
            setattr(self, name, getattr(self, name)[keep])

    def best(self, k: int) -> Latents:
        """(k, d) candidates, the best first; with k beyond them, repeated in turn.

        Raises:
            RuntimeError: there is none yet.
        """
        if not len(self):
            raise RuntimeError("incumbents: none was shown yet")
        return self._latents[np.resize(self._best_first(), k)]

    def incumbent(self) -> tuple[float, int]:
        """Estimated rate of the best candidate, and the valid trials behind it."""
        best = self._best_first()[0]
        return float(self._mean()[best]), int(self._count[best])

    def _repeat(self, place: int, rate: float) -> None:
        before = int(self._count[place]) - 1  # the first show is left out of the spread: it was chosen for being high
        if before:
            mean = (self._total[place] - self._first[place]) / before
            self._within += (rate - mean) ** 2 * before / (before + 1)
            self._n_within += 1
        self._total[place] += rate
        self._count[place] += 1

    def _noise(self) -> tuple[float, float]:
        """The variance of repeats of an image, 0 where it is not known, and the trials that the prior counts for."""
        if self._n_within < FEWEST or not self._n_between or not 0 < self._between < np.inf:
            return 0.0, UNRELIABLE
        noise, all_of_it = self._within / self._n_within, self._between / self._n_between
        return noise, noise / max(all_of_it - noise, all_of_it / 20)

    def _mean(self) -> NDArray[np.float64]:
        _, weight = self._noise()
        return (self._total + weight * self._prior) / (self._count + weight)

    def _best_first(self) -> NDArray[np.intp]:
        noise, weight = self._noise()
        return np.argsort(-(self._mean() - np.sqrt(noise / (self._count + weight))), kind="stable")
