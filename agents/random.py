"""Random search with re-tests: draws from the prior, and a small share of every round to show the best again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neurogym_v.agent import Agent
from neurogym_v.incumbents import Incumbents
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates


class Random(Agent):
    """Random search: draws from the prior; the best candidates are shown again before one is recommended.

    Each round after the first gives up to `n_retest` of its presentations to the candidates of the highest mean, as estimated,
    that were shown fewer than `shows` times (see `neurogym_v.incumbents`).

    Cost: with the defaults at most a tenth of the budget goes to re-tests (4 of 40 presentations a round).

    Args:
        sigma0: standard deviation of the draws; 1 is the prior.
        n_retest: presentations a round for re-tests; None is a tenth of the batch, but one from a batch of 5 on. 0 never
            re-tests, and then the recommendation is the luckiest sample.
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
        sigma0: float = 1.0,
        n_retest: int | None = None,
        shows: int = 8,
        pool: int = 64,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0)
        if n_retest is not None and not 0 <= n_retest < batch_size:
            raise NeuroGymError(f"Random: expected n_retest from 0 to {batch_size - 1} (batch - 1), got {n_retest}")
        self.sigma0 = sigma0
        self.n_retest = max(batch_size // 10, int(batch_size > 4)) if n_retest is None else n_retest
        self.incumbents = Incumbents(spec.latent_dim, shows=shows, pool=pool)

    def _ask(self) -> Latents:
        again = self.incumbents.again(self.n_retest)
        fresh = self.rng.standard_normal((self.batch_size - len(again), self.spec.latent_dim), dtype=np.float32)
        return np.concatenate([again, np.float32(self.sigma0) * fresh])

    def _tell(self, latents: Latents, rates: Rates) -> None:
        self.incumbents.tell(latents, rates)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d) candidates, the best first, by what all their shows say; before any, the prior's mean.

        With k beyond the candidates they are repeated in turn.
        """
        if not len(self.incumbents):
            return np.zeros((k, self.spec.latent_dim), np.float32)
        return self.incumbents.best(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`incumbent_hz`: estimated rate of the best candidate; `incumbent_shows`: the valid trials behind it."""
        if not len(self.incumbents):
            return {}
        hz, shows = self.incumbents.incumbent()
        return {"incumbent_hz": hz, "incumbent_shows": float(shows)}
