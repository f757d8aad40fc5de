"""CMA-ES of the library `cma` (pycma): full, diagonal, VD and VkD covariance.

Hansen, Akimoto & Baudis, doi:10.5281/zenodo.2559634; VD-CMA: Akimoto, Auger & Hansen 2014, doi:10.1145/2576768.2598258;
VkD-CMA: Akimoto & Hansen 2016, doi:10.1145/2908812.2908863.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means, best_first
from neurogym_v.importing import require
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates

COVARIANCES = ("full", "diagonal", "vd", "vkd")


class PyCMA(Agent):
    """CMA-ES of the library pycma, by name of its covariance: full, diagonal, vd or vkd.

    `full` costs O(d^2) a round and, now and then, an eigendecomposition: at d = 4096 a gigabyte and over ten seconds.
    `diagonal`, `vd` (a diagonal and one direction) and `vkd` (and k directions) are linear in d.

    What is done so that a neuron can be on the other side:

    - Step size: pycma's own choice from 300 dimensions on, TPA, needs two probes of each round back, untouched. CSA needs
      nothing and is used instead. `vkd` has a scheme of its own, the first two samples of a round being such probes: in a
      round in which one of them was lost, the step size stays.
    - Lost trials: the round is told as one of fewer samples, with the weights and learning rates of that many, so that a lost
      trial neither is a bad one nor has any other weight. With one parent VD divides 0 by 0, so a round needs two: four valid
      trials; with fewer it is passed over.
    - Rates are told as ranks, ties at random, so that no unit or size of them matters.
    - A latent that was clipped before it was shown is told as shown; pycma takes it for a foreign one and limits its length.
    - pycma's stopping rules are not asked. The overall step size stays between 1e-8 and the bound.
    - All random numbers come from this agent; pycma neither seeds numpy, prints, warns nor writes files.

    Args:
        sigma0: first step size, in units of the prior.
        covariance: full, diagonal, vd or vkd.

    Raises:
        NeuroGymError: a parameter out of its range; `cma` is not installed; fewer than two dimensions; `cma` failed.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"covariance": name} for name in COVARIANCES}
    smallest_batch: ClassVar[int] = 4

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        covariance: str = "diagonal",
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0)
        if covariance not in COVARIANCES:
            raise NeuroGymError(f"PyCMA: expected covariance to be one of {', '.join(COVARIANCES)}, got {covariance!r}")
        if spec.latent_dim < 2:
            raise NeuroGymError(f"PyCMA: expected latents of at least 2 dimensions, got {spec.latent_dim}")
        self.covariance = covariance
        with _quietly():
            self.es = self._strategy(sigma0)
        self._full_round = self.es.sp  # the parameters of a round of which nothing was lost
        self._means = Means(self.es.mean)
        self._x: NDArray[np.float64] = np.empty((0, spec.latent_dim))

    def _strategy(self, sigma0: float) -> Any:
        cma = require("cma", user="agent pycma", extra="agents")
        options: dict[str, Any] = {
            "popsize": self.batch_size,
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "CMA_mirrors": 0,
            "conditioncov_alleviate": [1e8, 0],  # never move to other coordinates than those of the latents
            "randn": self._normal,
            "seed": np.nan,  # none is set
            "verbose": -9,
            "verb_disp": 0,
            "verb_log": 0,
        }
        if self.covariance == "diagonal":
            options["CMA_diagonal"] = True
        elif self.covariance != "full":
            samplers = require("cma.restricted_gaussian_sampler", user="agent pycma", extra="agents")
            sampler = samplers.GaussVDSampler if self.covariance == "vd" else samplers.GaussVkDSampler
            options = sampler.extend_cma_options(options) | {"CMA_sampler_options": {"randn": self._normal}}
        return cma.CMAEvolutionStrategy(np.zeros(self.spec.latent_dim), float(sigma0), options)

    def _normal(self, *shape: int) -> NDArray[np.float64]:
        return self.rng.standard_normal(shape)

    def _ask(self) -> NDArray[np.float64]:
        with _quietly():
            self._x = np.asarray(self.es.ask(self.batch_size))
        return self._x

    def _tell(self, latents: Latents, rates: Rates) -> None:
        best = best_first(rates, self.rng)
        if len(best) < self.smallest_batch:
            return
        x = self._x
        changed = (latents != x[: len(latents)].astype(np.float32)).any(axis=1)  # by clipping
        x[: len(latents)][changed] = latents[changed]
        es = self.es
        with _quietly():
            if self.covariance == "vkd" and not {0, 1} <= set(best.tolist()):
                es.sm.flg_injection = False  # the sampler's own word for: there are no probes in this round
            es.sp = self._parameters(len(best))
            es.tell(list(x[best]), list(range(len(best))))
            sigma = self._sigma()
            es.sigma *= min(max(sigma, 1e-8), self.spec.bound) / sigma
        if not (np.isfinite(es.mean).all() and np.isfinite(es.sigma)):
            raise NeuroGymError(f"PyCMA: expected a finite mean and step size of cma, got others in round {es.countiter}")
        self._means.append(es.mean)

    def _parameters(self, n: int) -> Any:
        """pycma's parameters for a round of n, made the way in which it makes those of a whole round."""
        if n == self.batch_size:
            return self._full_round
        sp = copy.copy(self._full_round)
        sp.set(self.es.opts, popsize=n, ccovfac=self.es.opts["CMA_on"], verbose=False)
        if self.covariance == "diagonal":
            sp.weights.finalize_negative_weights(self.spec.latent_dim, sp.c1_sep, sp.cmu_sep, pos_def=False)
        return sp

    def _sigma(self) -> float:
        return float(np.sqrt(np.mean(self.es.stds**2)))

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the mean, then the means of the rounds before, newest first (15 are kept; the oldest is repeated)."""
        return self._means.latest(k)

    def diagnostics(self) -> Mapping[str, float]:
        """`sigma`: of samples, all dimensions together; `axis_ratio`: largest over smallest of them; `mean_norm`."""
        stds = self.es.stds
        return {
            "sigma": self._sigma(),
            "axis_ratio": float(stds.max() / stds.min()),
            "mean_norm": float(np.linalg.norm(self.es.mean)),
        }


@contextmanager
def _quietly() -> Iterator[None]:
    """What pycma has to say is not for this console; what fails inside it is one line."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        except NeuroGymError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise NeuroGymError(f"PyCMA: expected the library cma to work, got {type(error).__name__}: {reason}") from error
