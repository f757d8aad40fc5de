"""Candidates that have to earn their place by repeats: the best of n noisy samples is mostly the luckiest one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import Latents, NeuroGymError, Rates


class Incumbents:
    """Images shown so far that may be the best, each with a running mean over its shows.

    The mean is shrunk towards that of all fresh images as if it had one more show with that rate, so that a single lucky
    spike train does not win. A round is asked as `again(n)` followed by fresh latents, and told in the same order.

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
        self._total: NDArray[np.float64] = np.empty(0)  # of the rates of its valid trials
        self._count: NDArray[np.intp] = np.empty(0, np.intp)
        self._again: NDArray[np.intp] = np.empty(0, np.intp)  # those at the head of the batch that was asked
        self._fresh_total, self._fresh_count = 0.0, 0

    def __len__(self) -> int:
        return len(self._latents)

    def again(self, n: int) -> Latents:
        """(up to n, d) candidates that are worth another show; the next `tell` expects their rates first."""
        order = self._ranking()
        self._again = order[self._count[order] < self.shows][:n]
        return self._latents[self._again]

    def tell(self, latents: Latents, rates: Rates) -> None:
        """(n, d) latents as shown and their (n,) rates: those of the last `again`, then fresh ones; NaN is a lost trial."""
        again, self._again = self._again[: len(latents)], self._again[:0]
        old, new = rates[: len(again)], rates[len(again) :]
        self._total[again] += np.nan_to_num(old, nan=0.0)
        self._count[again] += ~np.isnan(old)

        seen = ~np.isnan(new)  # a fresh image whose trial was lost is forgotten: another one is as good
        self._fresh_total += float(new[seen].sum())  # re-tests are left out: they are chosen
        self._fresh_count += int(seen.sum())
        self._latents = np.concatenate([self._latents, latents[len(again) :][seen]])
        self._total = np.concatenate([self._total, new[seen]])
        self._count = np.concatenate([self._count, np.ones(int(seen.sum()), np.intp)])

        keep = self._ranking()[: self.pool]
        self._latents, self._total, self._count = self._latents[keep], self._total[keep], self._count[keep]

    def best(self, k: int) -> Latents:
        """(k, d) re-tested candidates by their shrunk mean, then those shown once; with k beyond them, repeated in turn.

        Raises:
            RuntimeError: there is none yet.
        """
        if not len(self):
            raise RuntimeError("incumbents: none was shown yet")
        return self._latents[np.resize(self._trusted(), k)]

    def incumbent(self) -> tuple[float, int]:
        """Shrunk mean of the best candidate, and the valid trials behind it."""
        best = self._trusted()[0]
        return float(self._mean()[best]), int(self._count[best])

    def _trusted(self) -> NDArray[np.intp]:
        order = self._ranking()
        retested = self._count[order] > 1
        return np.concatenate([order[retested], order[~retested]])

    def _mean(self) -> NDArray[np.float64]:
        prior = self._fresh_total / max(self._fresh_count, 1)
        return (self._total + prior) / (self._count + 1)

    def _ranking(self) -> NDArray[np.intp]:
        """Candidates by their shrunk mean, best first. Ties keep the order in which they were shown."""
        return np.argsort(-self._mean(), kind="stable")
