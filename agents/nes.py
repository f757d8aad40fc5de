"""Natural evolution strategy with antithetic pairs, as in XDream: a gradient of the smoothed rate from scores alone.

Ilyas et al. 2018, arXiv:1804.08598; Xiao & Kreiman 2020, doi:10.1371/journal.pcbi.1007973; code: willwx/XDream
`xdream/Optimizers.py:NES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates

Vector = NDArray[np.float64]


class NES(Agent):
    """NES of Ilyas et al. 2018 and XDream: samples c + r e and c - r e, and a step of c along the mean of score times e.

    Scores are standardised, mean 0 and standard deviation 1 over the valid trials of the round. XDream takes raw rates: its
    step then depends on the unit of the rate and shrinks or bursts with the neuron.

    A lost trial leaves the other one of its pair alone. As all scores have the mean of the round taken off, one side is an
    estimate too, only a noisier one: the gradient is the mean over the valid samples. The extra one of an odd batch is such a
    one-sided sample. A sample that was clipped counts as shown. Equal scores, or fewer than two, move nothing.

    Args:
        sigma0: first radius r, in units of the prior.
        learning_rate: of the centre, in units of sigma0^2, so that the search is the same at every scale: 1 moves by
            sigma0 times the mean of score times e. The preset `xdream2020` has the published numbers over r^2; they were set
            for raw rates and batches of 20, so that the numbers are the published ones and the steps are not.
        radius_learning_rate: of the radius, in the same units; 0 keeps it.
        smallest_radius: in units of sigma0; the radius does not shrink below.

    Raises:
        NeuroGymError: a parameter out of its range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # r 1.25, lr 1.75, radius lr 0.05, floor 0.01 with raw scores and a batch of 20, over r^2 (the floor: r)
        "xdream2020": {"learning_rate": 1.12, "radius_learning_rate": 0.032, "smallest_radius": 0.008},
    }
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        learning_rate: float = 1.0,
        radius_learning_rate: float = 0.0,
        smallest_radius: float = 0.01,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0, learning_rate=learning_rate, smallest_radius=smallest_radius)
        if not 0 <= radius_learning_rate < np.inf:
            raise NeuroGymError(f"NES: expected radius_learning_rate of at least 0, got {radius_learning_rate}")
        self.radius = float(sigma0)
        self.smallest_radius = smallest_radius * sigma0
        self.learning_rate = learning_rate * sigma0**2
        self.radius_learning_rate = radius_learning_rate * sigma0**2
        self.centre: Vector = np.zeros(spec.latent_dim)
        self._means = Means(self.centre)

    def _ask(self) -> Latents:
        n = self.batch_size
        e = self.rng.standard_normal(((n + 1) // 2, self.spec.latent_dim), dtype=np.float32)
        e *= np.float32(self.radius)
        c = self.centre.astype(np.float32)
        x = np.empty((n, self.spec.latent_dim), np.float32)
        x[::2] = c + e  # pairs are neighbours: a short last round breaks one of them at most
        x[1::2] = c - e[: n // 2]
        return x

    def _tell(self, latents: Latents, rates: Rates) -> None:
        valid = ~np.isnan(rates)
        rates = rates[valid]
        spread = float(rates.std())
        if rates.max() == rates.min() or not spread > 0:
            return
        r = self.radius
        s = (rates - rates.mean()) / spread
        weights = np.zeros(len(latents), np.float32)
        weights[valid] = s / len(s)
        # e = (x - c) / r as shown; sum of s = 0, so that c falls out of the mean of s e
        step = (weights @ latents).astype(np.float64) / r
        if self.radius_learning_rate:
            e = (latents[valid] - self.centre) / r
            grown = r + self.radius_learning_rate / r * float(s @ (e**2 - 1).mean(axis=1)) / len(s)
            self.radius = min(max(grown, self.smallest_radius), self.spec.bound)
        self.centre = np.clip(self.centre + self.learning_rate / r * step, -self.spec.bound, self.spec.bound)
        self._means.append(self.centre)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the centre, then those of the rounds before, newest first (15 are kept; the oldest is repeated)."""
        return self._means.latest(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`radius` r of the samples; `mean_norm` of the centre."""
        return {"radius": self.radius, "mean_norm": float(np.linalg.norm(self.centre))}
