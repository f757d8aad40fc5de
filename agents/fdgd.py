"""Finite-difference gradient ascent with antithetic pairs, as in XDream.

Xiao & Kreiman 2020, doi:10.1371/journal.pcbi.1007973; code: willwx/XDream `xdream/Optimizers.py:FDGD`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means
from neurogym_v.types import Latents, LoopSpec, Rates

Vector = NDArray[np.float64]


class FDGD(Agent):
    """FDGD of XDream: pairs c + e and c - e, and a step of c along the mean of half their difference times e over |e|^2.

    |e| is the mean absolute entry of e, so that the quotient is a slope. Scores are divided by their standard deviation over
    the round (XDream takes raw rates, and its step depends on their unit). A pair of which one trial was lost is left out;
    without a whole pair, or with equal scores, nothing moves. A pair that was clipped counts as shown: e is half the
    difference of its latents. An odd batch shows the centre in its last place.

    Args:
        sigma0: standard deviation of e, in units of the prior.
        learning_rate: in units of sigma0^2, so that the search is the same at every scale. The preset `xdream2020` has the
            published number over r^2; it was set for raw rates and batches of 20, so that the steps are not the published ones.

    Raises:
        NeuroGymError: a parameter out of its range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # r 1.25 and lr 1.25 with raw scores and a batch of 20: lr / r^2
        "xdream2020": {"learning_rate": 0.8},
    }
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        learning_rate: float = 0.8,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0, learning_rate=learning_rate)
        self.sigma0 = float(sigma0)
        self.learning_rate = learning_rate * sigma0**2
        self.centre: Vector = np.zeros(spec.latent_dim)
        self._means = Means(self.centre)

    def _ask(self) -> Latents:
        n = self.batch_size
        e = self.rng.standard_normal((n // 2, self.spec.latent_dim), dtype=np.float32)
        e *= np.float32(self.sigma0)
        c = self.centre.astype(np.float32)
        x = np.empty((n, self.spec.latent_dim), np.float32)
        x[-1] = c
        x[0 : n // 2 * 2 : 2] = c + e  # pairs are neighbours: a short last round breaks one of them at most
        x[1 : n // 2 * 2 : 2] = c - e
        return x

    def _tell(self, latents: Latents, rates: Rates) -> None:
        pairs = min(len(latents), self.batch_size) // 2
        scores = rates[: 2 * pairs].reshape(pairs, 2)
        whole = np.flatnonzero(~np.isnan(scores).any(axis=1))
        scores = scores[whole]
        if not len(whole) or scores.max() == scores.min() or not scores.std() > 0:
            return
        e = (latents[2 * whole] - latents[2 * whole + 1]) / 2
        size = np.abs(e).mean(axis=1)
        slope = (scores[:, 0] - scores[:, 1]) / 2 / scores.std() / np.maximum(size, 1e-12) ** 2
        gradient = slope @ e / len(whole)
        self.centre = np.clip(self.centre + self.learning_rate * gradient, -self.spec.bound, self.spec.bound)
        self._means.append(self.centre)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the centre, then those of the rounds before, newest first (15 are kept; the oldest is repeated)."""
        return self._means.latest(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`mean_norm` of the centre."""
        return {"mean_norm": float(np.linalg.norm(self.centre))}
