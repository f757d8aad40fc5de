"""What agents have in common that make a model of the neuron: map it, synthesise images, show them, re-test the best.

All phases count presentations, as a budget does, and not rounds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurogym_v.agent import Agent
from neurogym_v.fitting.features import Candidate
from neurogym_v.fitting.mapping import Mapping as Fitting
from neurogym_v.incumbents import Incumbents
from neurogym_v.stats import pearson
from neurogym_v.synthesis.ascent import check_gradient, within
from neurogym_v.synthesis.surrogate import FEWEST, Surrogate
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates

NATURAL, MOST_NATURAL = 0.4, 628
"""Share of the budget that goes to natural images, and as many as are shipped."""
SHORTEST = 8
"""Images that a round of re-tests has at least, while there are as many and room for them."""
MOST = 10_000
"""Cycles, and images synthesised in one."""
WIDEST = 1e6
"""sigma0 beyond says nothing: every latent lies at the bound."""


class ModelDriven(Agent):
    """Maps the neuron, then `cycles` times synthesises images with the model, shows them and re-tests the best so far.

    The images of the mapping are the references of the spec (the first `NATURAL` of a budget, shown before the agent starts)
    and draws from the prior. In each cycle synthesised images are shown once, for which half of it is enough, then the best
    of all so far again and again, fewer and fewer of them. Where the scores say nothing (all are equal, or most were lost) the
    agent goes on with draws from the prior until they do.

    Args:
        sigma0: standard deviation of the draws from the prior, and of the starts of the ascent.
        mapping: share of all presentations, references included, that goes to the mapping.
        cycles: how often images are synthesised.
        starts: images that are synthesised in a cycle, where it is long enough to show them and as many again.

    Raises:
        NeuroGymError: a parameter out of its range, a generator without gradients, or a budget below what is needed.
    """

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int,
        seed: int,
        sigma0: float,
        mapping: float,
        cycles: int,
        starts: int,
        eyes: Sequence[Candidate],
        fittings: Sequence[Fitting],
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        name = type(self).__name__
        if not within(sigma0, 0, WIDEST) or sigma0 == 0:
            raise NeuroGymError(f"{name}: expected sigma0 above 0, of {WIDEST:g} at most, got {sigma0!r}")
        if not within(mapping, 0, 1) or mapping in (0, 1):
            raise NeuroGymError(f"{name}: expected mapping between 0 and 1, got {mapping!r}")
        for what, count in (("cycles", cycles), ("starts", starts)):
            if not isinstance(count, int | np.integer) or not 1 <= count <= MOST:
                raise NeuroGymError(f"{name}: expected {what} as a whole number of 1 to {MOST}, got {count!r}")
        check_gradient(name, spec.generator, spec.latent_dim)
        self.sigma0, self.cycles, self.n_starts = sigma0, cycles, starts
        self.surrogates = tuple(dict.fromkeys(eye.network for eye in eyes))
        self.surrogate = Surrogate(spec.generator, eyes, fittings)
        self.incumbents = Incumbents(spec.latent_dim, shows=2**31)  # synthesised images; the schedule says how often
        natural = spec.references
        shown = 0 if natural is None or natural.rates is None else len(natural.rates)
        if spec.budget + shown < 2 * FEWEST:
            raise NeuroGymError(f"{name}: expected a budget of at least {2 * FEWEST} presentations, got {spec.budget + shown}")
        if natural is not None and natural.rates is not None:
            self.surrogate.add_images(natural.images, natural.rates, natural.names)
        # some draws in any case: they are what the search starts from, and show what the generator can do
        draws = max(round(mapping * (spec.budget + shown)) - shown, min(batch_size, FEWEST))
        self.mapped = max(min(draws, spec.budget - FEWEST), 0)
        """Presentations of draws from the prior."""
        self._drawn: Latents = np.empty((0, spec.latent_dim), np.float32)  # from the prior, as shown
        self._presented = 0  # asked for so far
        self._cycle = 0  # of how many images were synthesised
        self._fresh: Latents = np.empty((0, spec.latent_dim), np.float32)  # synthesised, not yet shown with success
        self._tested = 0  # presentations of re-tests in this cycle
        self.synthesised: list[tuple[Latents, Rates]] = []
        """(n, d) synthesised images as they were shown, round by round, without lost trials, and the (n,) scores that the model
        that made them predicts: it has not learned from them yet."""
        self._model_r = float("nan")

    @classmethod
    def references(cls, budget: int, **params: Any) -> int:
        """A share of the budget, no more than are shipped."""
        share: float = min(NATURAL, params.get("mapping", NATURAL))
        return min(int(share * budget), MOST_NATURAL)

    @abstractmethod
    def _synthesise(self, starts: Latents) -> Latents:
        """(n, d) latents of which the fitted surrogate expects much, found from as many starts."""

    def _starts(self, n: int) -> Latents:
        """(n, d): half of them the draws of the mapping of which the surrogate expects most, half new draws."""
        best = self._drawn[np.argsort(-self.surrogate.predict(self._drawn), kind="stable")] if len(self._drawn) else self._drawn
        best = best[: (n + 1) // 2]
        return np.concatenate([best, self._draws(n - len(best))])

    def predict(self, latents: Latents) -> Rates:
        """(n,) scores that the model expects of (n, d) latents; NaN before there is a model."""
        return self.surrogate.predict(latents) if self.surrogate.fitted else np.full(len(latents), np.nan)

    def _draws(self, n: int) -> Latents:
        return np.float32(self.sigma0) * self.rng.standard_normal((n, self.spec.latent_dim), dtype=np.float32)

    def _ask(self) -> Latents:
        if self._presented >= self._due():
            self._begin_cycle()
        latents = self._next()
        self._presented += len(latents)
        return latents

    def _next(self) -> Latents:
        self._again = 0
        if not self._cycle:
            left = self.mapped - self._presented
            return self._draws(min(self.batch_size, left) if left > 0 else self.batch_size)
        if len(self._fresh):
            self.incumbents.again(0)  # a round of re-tests that was lost as a whole was never told of
            return self._fresh[: self.batch_size]
        again = self.incumbents.again(self._contenders())
        self._again = len(again)
        return again

    def _due(self) -> int:
        """Presentations after which the next cycle begins."""
        if self._cycle >= self.cycles:
            return 2**62
        return self.mapped + round(self._cycle * (self.spec.budget - self.mapped) / self.cycles)

    def _left(self) -> int:
        """Presentations until the next cycle begins, or the budget ends."""
        return min(self._due(), self.spec.budget) - self._presented

    def _contenders(self) -> int:
        """How many of the best are shown again in the next round: half as many after each equal part of the re-tests."""
        most = min(self.batch_size, len(self.incumbents))
        fewest = min(SHORTEST, most)
        parts = 1 + int(np.ceil(np.log2(most / fewest)))
        left = self._left()
        room = max(left + self._tested, 1)
        wanted = max(most >> min(self._tested * parts // room, parts - 1), fewest)
        return min(wanted, left) if left > 0 else wanted

    def _begin_cycle(self) -> None:
        """Fit the model to all that was shown and synthesise; where no model can be fitted, do so in a later round."""
        if not self.surrogate.fit():
            return
        if not self._cycle:
            self._model_r = self.surrogate.held_out_r()
        self._tested = 0
        while self._due() <= self._presented:  # one, or those that a late fit missed
            self._cycle += 1
        # what is shown once and never again is a lucky guess: half of the cycle is for re-tests
        self._fresh = self._synthesise(self._starts(max(min(self.n_starts, self._left() // 2), 1)))

    def _tell(self, latents: Latents, rates: Rates) -> None:
        self.surrogate.add(latents, rates)
        if not self._cycle:
            valid = ~np.isnan(rates)
            self._drawn = np.concatenate([self._drawn, latents[valid]])
            return
        if not self._again:
            seen = ~np.isnan(rates)
            self.synthesised.append((latents[seen], self.surrogate.predict(latents[seen])))
            # what was synthesised is dear: it is shown until it is seen
            self._fresh = np.concatenate([self._fresh[len(latents) :], latents[~seen]])
        self._tested += self._again and len(latents)
        self.incumbents.tell(latents, rates)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d) re-tested synthesised images, best first, then those shown once; before there are any, the prior's mean.

        Where none could be re-tested, those of which the model expects most come first. With k beyond them they are repeated
        in turn.
        """
        found = self.incumbents.best(len(self.incumbents)) if len(self.incumbents) else self._fresh
        if not len(found):
            return np.zeros((k, self.spec.latent_dim), np.float32)
        tested = self.surrogate.shows(found) > 1
        order = np.argsort(~tested if tested.any() else -self.predict(found), kind="stable")
        return found[np.resize(order, k)]

    def diagnostics(self) -> Mapping[str, float]:
        """`model_r`: Pearson r of predicted and observed scores over whole photographs and draws that were held out of the
        mapping, both kinds together, one trial each; `r_synthesised`: over synthesised images, predicted by the model that made
        them, with the mean of their trials; `predicted_hz` (by the latest model), `observed_hz` (the plain mean of its trials,
        the first included, for which it was chosen) and `incumbent_shows` of what is recommended. In units of the score."""
        numbers = {"model_r": self._model_r} if self._cycle else {}
        if len(self.incumbents):
            best = self.recommend(1)
            numbers |= {
                "predicted_hz": float(self.predict(best)[0]),
                "observed_hz": float(self.surrogate.observed(best)[0]),
                "incumbent_shows": float(self.surrogate.shows(best)[0]),
            }
        known = [(p, o) for z, told in self.synthesised for p, o in zip(told, self.surrogate.observed(z), strict=True)]
        pairs = np.array([pair for pair in known if np.isfinite(pair[1])])
        if len(pairs) >= FEWEST:
            numbers["r_synthesised"] = float(pearson(pairs[:, :1], pairs[:, 1:])[0])
        return numbers
