"""Evolution strategy with cumulative step-size adaptation and no covariance: what high dimensions leave of CMA-ES.

Ostermeier, Gawelczyk & Hansen 1994, doi:10.1007/3-540-58484-6_263; Hansen 2016, arXiv:1604.00772, section 3.1, with the
constants of Wang & Ponce 2022, arXiv:2204.06765.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means, best_first, rank_weights
from neurogym_v.types import Latents, LoopSpec, Rates

Vector = NDArray[np.float64]


class CSAES(Agent):
    """(mu/mu_w, lambda)-CSA-ES: a round Gaussian that moves to the better half of each round and adapts its step.

    Samples are x = m + sigma z with z standard normal. It is `cma_es` with C = I: with thousands of dimensions and a few
    thousand presentations the covariance learns nothing (its condition number stays at 1.0002 in Wang & Ponce's runs), and
    with equal seeds the two are equal until the first update of it. A round costs O(n d).

    Lost trials are left out and the weights are those of the valid ones; ties are broken at random; a latent that was clipped
    before it was shown gets the z of what was shown; sigma stays between 1e-8 and the bound. Fewer than two valid trials
    cannot be ranked: such a round is passed over.

    Args:
        sigma0: first step size, in units of the prior.

    Raises:
        NeuroGymError: a parameter out of its range.
    """

    smallest_batch: ClassVar[int] = 2

    def __init__(self, spec: LoopSpec, *, batch_size: int = 40, seed: int = 0, sigma0: float = 1.0) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0)
        d = spec.latent_dim
        self.sigma = float(sigma0)
        self.mean: Vector = np.zeros(d)
        mu_eff = float(1 / np.sum(rank_weights(batch_size) ** 2))
        self.c_s = np.sqrt(mu_eff) / (np.sqrt(mu_eff) + np.sqrt(d))
        self.damps = 1 + self.c_s + 2 * max(0.0, np.sqrt((mu_eff - 1) / (d + 1)) - 1)
        self.chi_d = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # E|N(0, I)|
        self.p_s: Vector = np.zeros(d)
        self._means = Means(self.mean)
        self._z: Latents = np.empty((0, d), np.float32)
        self._x: Latents = np.empty((0, d), np.float32)

    def _ask(self) -> Latents:
        self._z = self.rng.standard_normal((self.batch_size, self.spec.latent_dim), dtype=np.float32)
        self._x = self._z * np.float32(self.sigma)
        self._x += self.mean.astype(np.float32)
        return self._x.copy()

    def _tell(self, latents: Latents, rates: Rates) -> None:
        if np.count_nonzero(~np.isnan(rates)) < 2:
            return
        z = self._z
        changed = np.flatnonzero((latents != self._x[: len(latents)]).any(axis=1))  # by clipping
        if len(changed):
            z[changed] = (latents[changed] - self.mean) / self.sigma

        best = best_first(rates, self.rng)
        w = rank_weights(len(best))
        mu_eff = float(1 / np.sum(w**2))
        z_w = w @ z[best[: len(w)]]
        self.mean = self.mean + self.sigma * z_w  # = sum of w x
        self.p_s = (1 - self.c_s) * self.p_s + np.sqrt(self.c_s * (2 - self.c_s) * mu_eff) * z_w
        sigma = self.sigma * float(np.exp(self.c_s / self.damps * (np.linalg.norm(self.p_s) / self.chi_d - 1)))
        # latents are float32 within the bound: smaller steps show the same image, larger ones leave the box
        self.sigma = min(max(sigma, 1e-8), self.spec.bound)
        self._means.append(self.mean)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the mean, then the means of the rounds before, newest first (15 are kept; the oldest is repeated)."""
        return self._means.latest(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`sigma`; `mean_norm`; `path_ratio`: the step-size path over that of a random walk; above 1 sigma grows."""
        return {
            "sigma": self.sigma,
            "mean_norm": float(np.linalg.norm(self.mean)),
            "path_ratio": float(np.linalg.norm(self.p_s) / self.chi_d),
        }
