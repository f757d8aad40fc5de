"""What stands between a cell's expected rate and what is recorded: one wrapper for each nuisance.

Each presentation takes the same number of random draws whatever its rate, so that two agents with the same seed meet the
same luck, presentation by presentation (common random numbers).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from neurogym_v.neurons.simulated import SimulatedNeuron, Wrapper
from neurogym_v.types import NeuroGymError, Rates


class Poisson(Wrapper):
    """Poisson spike counts in a response window; rates come in steps of 1 / window_s spikes/s."""

    def __init__(self, inner: SimulatedNeuron, *, window_s: float = 0.1) -> None:
        super().__init__(inner)
        if not window_s > 0:
            raise NeuroGymError(f"window_s: expected a positive time in seconds, got {window_s}")
        self.window_s = window_s

    def observe(self, expected: Rates, rng: np.random.Generator) -> Rates:
        rates = self.inner.observe(expected, rng)
        counts: Rates = stats.poisson.ppf(rng.random(rates.shape), rates * self.window_s)
        return counts / self.window_s


class LostTrials(Wrapper):
    """Trials lost at random (the animal looks away): NaN at every site, and the presentation is spent."""

    def __init__(self, inner: SimulatedNeuron, *, probability: float) -> None:
        super().__init__(inner)
        if not 0 <= probability < 1:
            raise NeuroGymError(f"lost trials: expected a probability in [0, 1), got {probability}")
        self.probability = probability

    def observe(self, expected: Rates, rng: np.random.Generator) -> Rates:
        rates = self.inner.observe(expected, rng)
        rates[rng.random(len(rates)) < self.probability] = np.nan
        return rates
