"""Random search with re-tests: draws from the prior, and a small share of every round to show the best again.

The best of n noisy samples is mostly the luckiest one. So a candidate must earn its place by repeats, which cost
presentations like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates


class Random(Agent):
    """Random search: draws from the prior; the best candidates are shown again before one is recommended.

    Every image shown has a running mean over its shows, shrunk towards the mean of all images as if it had one more
    show with that rate: a single lucky spike train does not win. Each round after the first gives up to `n_retest` of
    its presentations to the candidates of highest shrunk mean that were shown fewer than `shows` times.

    Cost: with the defaults at most a tenth of the budget goes to re-tests (4 of 40 presentations a round).

    Args:
        scale: standard deviation of the draws; 1 is the prior.
        n_retest: presentations a round for re-tests; None is a tenth of the batch. 0 never re-tests, and then the
            recommendation is the luckiest sample.
        shows: a candidate shown this often is known well enough, and its place goes to the next.
        pool: candidates kept in memory.

    Raises:
        NeuroGymError: a parameter out of its range.
    """

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        scale: float = 1.0,
        n_retest: int | None = None,
        shows: int = 8,
        pool: int = 64,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        if not scale > 0:
            raise NeuroGymError(f"Random: expected a scale above 0, got {scale}")
        if n_retest is not None and not 0 <= n_retest < batch_size:
            raise NeuroGymError(f"Random: expected n_retest from 0 to {batch_size - 1} (batch - 1), got {n_retest}")
        if shows < 1 or pool < 1:
            raise NeuroGymError(f"Random: expected shows and pool of at least 1, got {shows} and {pool}")
        self.scale = scale
        self.n_retest = batch_size // 10 if n_retest is None else n_retest
        self.shows = shows
        self.pool = pool
        # the candidates: latents as shown, the sum of their rates, and how many valid trials went into it
        self._latents: Latents = np.empty((0, spec.latent_dim), np.float32)
        self._total: NDArray[np.float64] = np.empty(0)
        self._count: NDArray[np.intp] = np.empty(0, np.intp)
        self._again: NDArray[np.intp] = np.empty(0, np.intp)  # candidates at the head of the batch that was asked
        self._all_total, self._all_count = 0.0, 0

    def _ask(self) -> Latents:
        order = self._ranking()
        self._again = order[self._count[order] < self.shows][: self.n_retest]
        fresh = self.rng.standard_normal((self.batch_size - len(self._again), self.spec.latent_dim), dtype=np.float32)
        return np.concatenate([self._latents[self._again], np.float32(self.scale) * fresh])

    def _tell(self, latents: Latents, rates: Rates) -> None:
        again = self._again[: len(latents)]
        old, new = rates[: len(again)], rates[len(again) :]
        self._total[again] += np.nan_to_num(old, nan=0.0)
        self._count[again] += ~np.isnan(old)

        seen = ~np.isnan(new)  # a fresh image whose trial was lost is forgotten: another draw is as good
        self._all_total += float(new[seen].sum())  # re-tests are left out: they are chosen, not drawn
        self._all_count += int(seen.sum())
        self._latents = np.concatenate([self._latents, latents[len(again) :][seen]])
        self._total = np.concatenate([self._total, new[seen]])
        self._count = np.concatenate([self._count, np.ones(int(seen.sum()), np.intp)])

        keep = self._ranking()[: self.pool]
        self._latents, self._total, self._count = self._latents[keep], self._total[keep], self._count[keep]

    def recommend(self, k: int = 1) -> Latents:
        """(k, d) re-tested candidates by their shrunk mean, then those shown once; before any, the prior's mean.

        With k beyond the candidates they are repeated in turn.
        """
        if not len(self._latents):
            return np.zeros((k, self.spec.latent_dim), np.float32)
        order = self._ranking()
        retested = self._count[order] > 1
        order = np.concatenate([order[retested], order[~retested]])
        return self._latents[np.resize(order, k)]

    def diagnostics(self) -> Mapping[str, float]:
        """`incumbent_hz`: shrunk mean of the best candidate; `incumbent_shows`: the valid trials behind it."""
        if not len(self._latents):
            return {}
        retested = self._count > 1
        best = max(range(len(self._count)), key=lambda i: (retested[i], self._mean()[i]))
        return {"incumbent_hz": float(self._mean()[best]), "incumbent_shows": float(self._count[best])}

    def _mean(self) -> NDArray[np.float64]:
        prior = self._all_total / max(self._all_count, 1)
        return (self._total + prior) / (self._count + 1)

    def _ranking(self) -> NDArray[np.intp]:
        """Candidates by their shrunk mean, best first. Ties keep their order, which is that of the draws: random."""
        return np.argsort(-self._mean(), kind="stable")
