"""Cholesky-CMA-ES of Wang & Ponce 2022, in exact low-rank form: no d x d matrix is ever built.

Wang & Ponce 2022, GECCO, arXiv:2204.06765; code: Animadversio/ActMax-Optimizer-Dev `core/Optimizers.py:CholeskyCMAES`.
The update of the factor: Suttorp, Hansen & Igel 2009, doi:10.1007/s10994-009-5102-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means, best_first, rank_weights
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates

Vector = NDArray[np.float64]


class CMAES(Agent):
    """Cholesky-CMA-ES of Wang & Ponce 2022: a Gaussian that moves to the better half of each round and adapts its step.

    Samples are x = m + sigma z A, with rows as vectors, z standard normal and C = A'A. Each covariance update
    multiplies A by a scalar and adds one rank-1 term, so after r updates A = a I + U P with U (d, r) and P (r, d), and
    likewise its inverse: the iterates are those of the dense algorithm, in O(n d r) a round instead of O(n d^2).

    Differences from the original: round one shows a whole batch around the mean (the original shows one image, the
    mean); lost trials are left out and the weights are those of the valid ones; ties are broken at random; a latent
    that was clipped before it was shown gets the z of what was shown; `update_every` counts rounds exactly (the
    original's strict comparison makes its 10 an 11); sigma stays between 1e-8 and the bound. Fewer than two valid
    trials cannot be ranked: such a round is passed over.

    Args:
        sigma0: first step size, in units of the prior.
        update_every: rounds between two updates of the covariance.
        mean0: (d,) first mean; the mean of the prior, 0, by default.

    Raises:
        NeuroGymError: a parameter out of its range, or a mean of another shape.
    """

    # the published sigma0 is 3, for codes of DeePSiM fc6; here all agents start with the s.d. of the prior
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"wang2022": {"sigma0": 1.0, "update_every": 10}}
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        update_every: int = 10,
        mean0: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        d = spec.latent_dim
        self.require_above_zero(sigma0=sigma0)
        if update_every < 1:
            raise NeuroGymError(f"CMAES: expected update_every of at least 1, got {update_every}")
        m = np.zeros(d) if mean0 is None else np.array(mean0, dtype=np.float64)
        if m.shape != (d,) or not np.isfinite(m).all():
            raise NeuroGymError(f"CMAES: expected mean0 of {d} finite numbers, got shape {m.shape}")
        self.update_every = update_every
        self.sigma = sigma0
        self.mean: Vector = m

        mu_eff = float(1 / np.sum(rank_weights(batch_size) ** 2))
        self.c_c = 4 / (d + 4)
        self.c_s = np.sqrt(mu_eff) / (np.sqrt(mu_eff) + np.sqrt(d))
        self.c_1 = 2 / (d + np.sqrt(2)) ** 2
        self.damps = 1 + self.c_s + 2 * max(0.0, np.sqrt((mu_eff - 1) / (d + 1)) - 1)
        self.chi_d = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # E|N(0, I)|

        self.p_s: Vector = np.zeros(d)
        self.p_c: Vector = np.zeros(d)
        self.A = LowRank(d)
        self.A_inv = LowRank(d)
        self._learned = 0  # rounds
        self._means = Means(m)
        self._z: Latents = np.empty((0, d), np.float32)
        self._x: Latents = np.empty((0, d), np.float32)

    def _ask(self) -> Latents:
        self._z = self.rng.standard_normal((self.batch_size, self.spec.latent_dim), dtype=np.float32)
        self._x = self.A.left(self._z, times=self.sigma)
        self._x += self.mean.astype(np.float32)
        return self._x.copy()

    def _tell(self, latents: Latents, rates: Rates) -> None:
        if np.count_nonzero(~np.isnan(rates)) < 2:
            return
        z = self._z
        changed = np.flatnonzero((latents != self._x[: len(latents)]).any(axis=1))  # by clipping
        if len(changed):
            z[changed] = self.A_inv.left((latents[changed] - self.mean) / self.sigma)

        best = best_first(rates, self.rng)
        w = rank_weights(len(best))
        mu_eff, best = float(1 / np.sum(w**2)), best[: len(w)]

        z_w = w @ z[best]
        step = self.A.left(z_w)
        self.mean = self.mean + self.sigma * step  # = sum of w x
        self.p_s = (1 - self.c_s) * self.p_s + np.sqrt(self.c_s * (2 - self.c_s) * mu_eff) * z_w
        self.p_c = (1 - self.c_c) * self.p_c + np.sqrt(self.c_c * (2 - self.c_c) * mu_eff) * step
        sigma = self.sigma * float(np.exp(self.c_s / self.damps * (np.linalg.norm(self.p_s) / self.chi_d - 1)))
        # latents are float32 within the bound: smaller steps show the same image, larger ones leave the box
        self.sigma = min(max(sigma, 1e-8), self.spec.bound)
        self._means.append(self.mean)
        self._learned += 1
        if self._learned % self.update_every == 0:
            self._update_covariance()

    def _update_covariance(self) -> None:
        """A <- (k I + b v'v) A and its inverse, where p_c = v A; the first factor is the rank-1 update's root."""
        v = self.A_inv.left(self.p_c)
        n = float(v @ v)
        if n == 0:
            return
        k = np.sqrt(1 - self.c_1)
        root = np.sqrt(1 + n * self.c_1 / (1 - self.c_1))
        self.A.update(k, v, k / n * (root - 1) * self.p_c)  # A <- k A + k/n (root - 1) v' p_c
        # A_inv <- A_inv / k - 1/(k n) (1 - 1/root) (A_inv v') v
        self.A_inv.update(1 / k, self.A_inv.right(v), -1 / (k * n) * (1 - 1 / root) * v)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the mean, then the means of the rounds before, newest first (15 are kept; the oldest is repeated).

        No sample is ever recommended: the best of them is the luckiest.
        """
        return self._means.latest(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`sigma`; `mean_norm`; `path_ratio`: the step-size path over that of a random walk; above 1 sigma grows."""
        return {
            "sigma": self.sigma,
            "mean_norm": float(np.linalg.norm(self.mean)),
            "path_ratio": float(np.linalg.norm(self.p_s) / self.chi_d),
        }


class LowRank:
    """The (d, d) matrix a I + U P, kept as the scalar a, U' (r, d) and P (r, d)."""

    def __init__(self, d: int) -> None:
        self.a = 1.0
        self.Ut: Vector = np.empty((0, d))
        self.P: Vector = np.empty((0, d))

    def left(self, z: NDArray[Any], times: float = 1.0) -> NDArray[Any]:
        """z M for (n, d) rows or one (d,), in the precision of z; times a number, for which no pass of its own is made."""
        M_z: NDArray[Any] = z * z.dtype.type(times * self.a)
        if len(self.P):
            M_z += (z @ (times * self.Ut).T.astype(z.dtype, copy=False)) @ self.P.astype(z.dtype, copy=False)
        return M_z

    def right(self, v: Vector) -> Vector:
        """M v' for one (d,)."""
        return np.asarray(self.a * v + (self.P @ v) @ self.Ut)

    def update(self, k: float, u: Vector, p: Vector) -> None:
        """M <- k M + u' p."""
        self.a *= k
        self.Ut = np.vstack([self.Ut, u])
        self.P = np.vstack([k * self.P, p])
