"""The genetic algorithm of evolved images: Ponce et al. 2019, Wang & Ponce 2022, Xiao & Kreiman 2020.

Ponce et al. 2019, Cell 177:999, doi:10.1016/j.cell.2019.04.005.
Xiao & Kreiman 2020, doi:10.1371/journal.pcbi.1007973; code: willwx/XDream `xdream/Optimizers.py:Genetic`.
Wang & Ponce 2022, arXiv:2204.06765; code: Animadversio/ActMax-Optimizer-Dev `core/Optimizers.py:Genetic`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import best_first
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates


class GA(Agent):
    """Genetic algorithm of Ponce et al. 2019 and XDream: roulette-wheel parents, uniform crossover, sparse mutation.

    A round: images whose trial was lost are carried over unchanged into the last slots and shown again. The
    `n_conserve` best are kept, shown again, and their old scores forgotten. The other slots are filled with children:
    two parents drawn with a chance that grows with their score, each gene from one of them, some genes mutated.

    **The temperature trap.** Selection is exp((s - best) / kT) with kT = `temperature` x std(s). The Ponce lab's
    "kT_multiplier = 2" is `temperature=2`; XDream's "selectivity = 2" divides, and is `temperature=0.5`: four times
    harder selection under the same number. Never call one of them "the" genetic algorithm: the presets have names.

    **Scale.** The published sizes are for codes of DeePSiM fc6, where CMA-ES was started with sigma 3 and the GA with
    1: much of the published gap between them. Here the prior is a standard normal and both start at 1, so that the
    published sizes already match, and `scale_matched` (the default) differs from `ponce2019` by its selection only.

    Differences from the originals: ties are broken at random; the first round is drawn from the prior (the Ponce lab began with
    texture images, XDream with codes of photographs); `recommend` gives the population's mean first, which averages out the
    luck of single trials, where they kept the best sample; `xdream2020` was published with batches of 20.

    Args:
        n_conserve: images kept and shown again; None is a quarter of the batch (the published 10 of 40).
        mutation_rate: chance of a gene to be mutated.
        mutation_size: standard deviation of what is added to it, in units of the prior.
        temperature: kT in standard deviations of the valid scores; lower is harder selection.
        heritability: chance of a gene to come from the first of the two parents.
        clip: cut scores at their 95th percentile before selection, so that one lucky trial does not father everything.
        sigma0: standard deviation of the first round, around 0.

    Raises:
        NeuroGymError: a parameter out of its range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # n_conserve None: 10 at the published batch of 40
        "ponce2019": {
            "n_conserve": None, "mutation_rate": 0.25, "mutation_size": 0.75, "temperature": 2.0,
            "heritability": 0.75, "clip": True, "sigma0": 1.0,
        },
        "wang2022": {
            "n_conserve": None, "mutation_rate": 0.25, "mutation_size": 0.75, "temperature": 2.0,
            "heritability": 0.75, "clip": False, "sigma0": 1.0,
        },
        # published with a batch of 20
        "xdream2020": {
            "n_conserve": 0, "mutation_rate": 0.5, "mutation_size": 0.5, "temperature": 0.5,
            "heritability": 0.5, "clip": True, "sigma0": 1.0,
        },
        "scale_matched": {
            "n_conserve": None, "mutation_rate": 0.25, "mutation_size": 0.75, "temperature": 0.5,
            "heritability": 0.75, "clip": True, "sigma0": 1.0,
        },
    }  # fmt: skip
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        n_conserve: int | None = None,
        mutation_rate: float = 0.25,
        mutation_size: float = 0.75,
        temperature: float = 0.5,
        heritability: float = 0.75,
        clip: bool = True,
        sigma0: float = 1.0,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        if n_conserve is not None and not 0 <= n_conserve < batch_size:
            raise NeuroGymError(f"GA: expected n_conserve from 0 to {batch_size - 1} (batch - 1), got {n_conserve}")
        for name, share in (("mutation_rate", mutation_rate), ("heritability", heritability)):
            if not 0 <= share <= 1:
                raise NeuroGymError(f"GA: expected {name} from 0 to 1, got {share}")
        self.require_above_zero(temperature=temperature, mutation_size=mutation_size, sigma0=sigma0)
        self.n_conserve = batch_size // 4 if n_conserve is None else n_conserve
        self.mutation_rate = mutation_rate
        self.mutation_size = mutation_size
        self.temperature = temperature
        self.heritability = heritability
        self.clip = clip
        self._population: Latents = np.float32(sigma0) * self._normal(batch_size)
        # of every individual of the population: the sum of its rates over its life, and of how many valid trials
        self._total: NDArray[np.float64] = np.zeros(batch_size)
        self._shows: NDArray[np.intp] = np.zeros(batch_size, np.intp)
        # what recommend() speaks of: the last round told
        self._centre: NDArray[np.float64] = np.zeros(spec.latent_dim)
        self._last: tuple[Latents, NDArray[np.float64], NDArray[np.intp]] | None = None
        self._kT = np.nan

    def _ask(self) -> Latents:
        return self._population.copy()  # told rounds make the next one; a round lost as a whole is shown again

    def _tell(self, latents: Latents, rates: Rates) -> None:
        X = self._population
        X[: len(latents)] = latents  # as shown: evolution goes on from what was on the screen
        s = np.full(len(X), np.nan)  # those not shown in a short last round are like lost ones
        s[: len(rates)] = rates
        lost, valid = np.flatnonzero(np.isnan(s)), np.flatnonzero(~np.isnan(s))
        self._total[valid] += s[valid]
        self._shows[valid] += 1

        kT = max(float(s[valid].std()) * self.temperature, 1e-8)  # before clipping
        valid = best_first(s, self.rng)
        scores = s[valid]
        self._kT = kT
        self._remember(valid, scores)
        if self.clip:
            scores = np.minimum(scores, np.percentile(scores, 95))
        fitness = roulette_fitness(scores, kT)

        kept = valid[: min(self.n_conserve, len(valid))]
        n_children = len(X) - len(kept) - len(lost)
        children = self._mutate(self._mate(X[valid], fitness, n_children))
        self._population = np.concatenate([X[kept], children, X[lost]])
        self._total = np.concatenate([self._total[kept], np.zeros(n_children), self._total[lost]])
        self._shows = np.concatenate([self._shows[kept], np.zeros(n_children, np.intp), self._shows[lost]])

    def _mate(self, X: Latents, fitness: NDArray[np.float64], n: int) -> Latents:
        """(n, d) children; both parents by roulette wheel, with replacement: an individual may mate with itself."""
        wheel = np.cumsum(fitness) / fitness.sum()
        parents = np.searchsorted(wheel, self.rng.random((2, n)), side="right").clip(max=len(X) - 1)
        first = self.rng.random((n, X.shape[1]), dtype=np.float32) < self.heritability
        children: Latents = np.where(first, X[parents[0]], X[parents[1]])
        return children

    def _mutate(self, X: Latents) -> Latents:
        """X, changed in place."""
        genes = np.flatnonzero(self.rng.random(X.size, dtype=np.float32) < self.mutation_rate)
        X.reshape(-1)[genes] += np.float32(self.mutation_size) * self.rng.standard_normal(len(genes), dtype=np.float32)
        return X

    def _normal(self, n: int) -> Latents:
        return self.rng.standard_normal((n, self.spec.latent_dim), dtype=np.float32)

    def _remember(self, valid: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        self._centre = self._population[valid].mean(axis=0, dtype=np.float64)
        prior = float(scores.mean())
        mean = (self._total[valid] + prior) / (self._shows[valid] + 1)
        order = np.argsort(-mean, kind="stable")
        self._last = self._population[valid[order]], mean[order], self._shows[valid[order]]

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the mean of the last population; then its individuals, the re-tested first, by their mean over shows.

        Uniform crossover draws the population together, and its mean averages out the mutations and the luck of single
        trials. Before any round: the mean of the prior. With k beyond the individuals they are repeated in turn.
        """
        if self._last is None:
            return np.zeros((k, self.spec.latent_dim), np.float32)
        individuals, _, shows = self._last
        order = np.argsort(shows < 2, kind="stable")
        rest = individuals[np.resize(order, k - 1)] if k > 1 else individuals[:0]
        return np.concatenate([self._centre[None].astype(np.float32), rest])

    def diagnostics(self) -> Mapping[str, float]:
        """`kT` in spikes/s; `mean_norm` of the population's mean; `spread`, mean standard deviation of its genes."""
        spread = float(self._population.std(axis=0).mean())
        return {"kT": self._kT, "mean_norm": float(np.linalg.norm(self._centre)), "spread": spread}


def roulette_fitness(scores: NDArray[np.float64], kT: float) -> NDArray[np.float64]:
    """(n,) unnormalised chances to be a parent; what underflows to 0 gets the smallest positive one."""
    fitness: NDArray[np.float64] = np.exp((scores - scores.max()) / kT)
    return np.asarray(np.maximum(fitness, fitness[fitness > 0].min()))
