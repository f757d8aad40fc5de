"""SphereCMA of Wang & Ponce 2022: evolution on a sphere of latents, with a planned step and no covariance.

Wang & Ponce 2022, GECCO, arXiv:2204.06765; code: Animadversio/ActMax-Optimizer-Dev
`core/Optimizers.py:ZOHA_Sphere_lr_euclid`.
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
SCHEDULES = ("exp", "inv", "lin")


class SphereCMA(Agent):
    """SphereCMA of Wang & Ponce 2022: samples around a centre on a sphere, with steps that shrink as the budget is spent.

    The norm of a latent is, to many generators, the contrast of its image, and other strategies make it grow; here it is
    fixed. Round one shows a batch of random points of the sphere. **Every later round shows batch_size + 1 images: the centre
    first.** It costs a presentation, as published, and is not ranked. The centre then moves along the great circle through the
    weighted mean of the better half, `learning_rate` times as far as that mean.

    The steps are planned: all of the budget is needed in advance (`spec.budget`), and after it the step stays.

    Differences from the original: the radius is that of a draw from the prior, sigma0 sqrt(d), as the published 300 belongs
    to the codes of DeePSiM fc6 (beside CMA-ES with sigma 3 it is 1.56 times as long as here beside sigma 1, and where a cell
    likes contrast this one pays for it: `sphere_cma,sigma0=1.56` is the published proportion); lost trials are left out and
    the weights are those of the valid ones; ties are broken at random; latents that were clipped before they were shown are
    put back on the sphere first. A round that gives no direction (fewer than two valid trials, a mean of 0 or opposite of the
    centre) is passed over.

    Args:
        sigma0: radius over sqrt(d), so that a point has the norm of a latent with this standard deviation.
        schedule: of the steps in degrees; over R rounds, `exp`: from 50 to 7.33, by an equal factor a round; `lin`: by an
            equal difference; `inv`: 15 + 1 / (0.0017 k + 0.0146) in the k-th of them.
        learning_rate: of the centre; above 1 it goes beyond the weighted mean.

    Raises:
        NeuroGymError: a parameter out of its range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"schedule": name} for name in SCHEDULES}
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        schedule: str = "exp",
        learning_rate: float = 1.5,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0, learning_rate=learning_rate)
        if schedule not in SCHEDULES:
            raise NeuroGymError(f"SphereCMA: expected schedule to be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        d = spec.latent_dim
        self.radius = float(sigma0 * np.sqrt(d))
        self.learning_rate = learning_rate
        rounds = 1 + max(1, -(-(spec.budget - batch_size) // (batch_size + 1)))
        self.steps = steps_deg(schedule, rounds) / 180 * np.pi / np.sqrt(d)
        """Radians of tangent for each unit of a standard normal: the k-th for round k + 1."""
        self._centre: Vector | None = None
        self._means: Means | None = None
        self._rounds = 0

    @property
    def step(self) -> float:
        """Of the round that was asked last; of the first with a centre before that."""
        return float(self.steps[min(max(self._rounds - 2, 0), len(self.steps) - 1)])

    def _ask(self) -> Latents:
        n, d, c, R = self.batch_size, self.spec.latent_dim, self._centre, self.radius
        self._rounds += 1
        if c is None:
            U = self.rng.standard_normal((n, d), dtype=np.float32)
            U *= (R / lengths(U)).astype(np.float32)[:, None]
            return U
        step = self.step
        x = np.empty((n + 1, d), np.float32)
        x[0] = c
        U = self.rng.standard_normal(out=x[1:], dtype=np.float32)
        # T = U - (U c') c / R^2 in the tangent plane; ExpMap: x = cos|t| c + sin|t| R T / |T| with t = step T
        along = (U @ x[0]) / R**2
        length = np.sqrt(np.maximum(lengths(U) ** 2 - (along * R) ** 2, 1e-30))
        of_U = np.sin(step * length) * R / length
        U *= of_U.astype(np.float32)[:, None]
        U += np.outer((np.cos(step * length) - of_U * along).astype(np.float32), x[0])
        return x

    def _tell(self, latents: Latents, rates: Rates) -> None:
        again = 0 if self._centre is None else 1  # the centre, which is not ranked
        shown = latents[again:]
        best = best_first(rates[again:], self.rng)
        if len(best) < 2:
            return
        w = rank_weights(len(best))
        weights = np.zeros(len(shown), np.float32)
        weights[best[: len(w)]] = w
        weights /= np.maximum(lengths(shown), 1e-12).astype(np.float32)  # back on the sphere, where they were clipped
        target = self._on_sphere((weights @ shown).astype(np.float64))
        if target is not None and again:
            target = self._slerp(self._on_sphere(latents[0].astype(np.float64)), target)
        if target is None:
            return
        self._centre = target
        if self._means is None:
            self._means = Means(target)
        else:
            self._means.append(target)

    def _on_sphere(self, x: Vector) -> Vector | None:
        length = float(np.linalg.norm(x))
        return x * (self.radius / length) if length > 1e-12 else None

    def _slerp(self, a: Vector | None, b: Vector) -> Vector | None:
        """From a on the great circle to b, `learning_rate` times as far; None: there are many, or no, such circles."""
        if a is None:
            return None
        cosine = float(a @ b) / self.radius**2
        across = b - cosine * a  # of length R sin(angle)
        sine = float(np.linalg.norm(across)) / self.radius
        if sine < 1e-6:
            return None
        turn = self.learning_rate * float(np.arctan2(sine, cosine))
        return self._on_sphere(np.cos(turn) * a + np.sin(turn) / sine * across)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the centre, then the earlier ones, newest first (16 are kept; the oldest is repeated).

        Before there is one: the mean of the prior.
        """
        return np.zeros((k, self.spec.latent_dim), np.float32) if self._means is None else self._means.latest(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`step_deg`: the planned angle of samples from the centre, in degrees."""
        return {"step_deg": float(np.degrees(self.step * np.sqrt(self.spec.latent_dim)))}


def steps_deg(schedule: str, rounds: int) -> Vector:
    """(rounds,) angles in degrees as published."""
    k = np.arange(1, rounds + 1)
    if schedule == "inv":
        return np.asarray(15 + 1 / (0.0017 * k + 0.0146))
    return np.geomspace(50, 7.33, rounds) if schedule == "exp" else np.linspace(50, 7.33, rounds)


def lengths(x: Latents) -> Vector:
    """(n,) Euclidean norms of (n, d)."""
    squares: Vector = np.einsum("ij,ij->i", x, x).astype(np.float64)
    return np.sqrt(squares)
