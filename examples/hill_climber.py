"""An agent of your own, in thirty lines: a Gaussian around the mean of the best quarter, which shrinks as it learns.

Run it beside ours, with the same luck, from this folder:

    neurogym-v run --agent hill_climber:HillClimber --agent cma_es --site 12

and ask whether it keeps the contract:

    python hill_climber.py
"""

from __future__ import annotations

import numpy as np

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means, best_first
from neurogym_v.testing import check_agent
from neurogym_v.types import Latents, LoopSpec, Rates


class HillClimber(Agent):
    """Samples around the mean of the best quarter of the last round."""

    def __init__(
        self, spec: LoopSpec, *, batch_size: int = 40, seed: int = 0, sigma0: float = 1.0, decay: float = 0.99
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.sigma, self.decay = sigma0, decay
        self.centre = np.zeros(spec.latent_dim)
        self.means = Means(self.centre)

    def _ask(self) -> np.ndarray:
        return self.centre + self.sigma * self.rng.standard_normal((self.batch_size, self.spec.latent_dim))

    def _tell(self, latents: Latents, rates: Rates) -> None:
        best = best_first(rates, self.rng)  # lost trials are left out, ties are broken at random
        self.centre = latents[best[: max(1, len(best) // 4)]].mean(axis=0)
        self.sigma *= self.decay
        self.means.append(self.centre)

    def recommend(self, k: int = 1) -> Latents:
        return self.means.latest(k)  # a mean: the best sample is mostly the luckiest

    def diagnostics(self) -> dict[str, float]:
        return {"sigma": self.sigma}


if __name__ == "__main__":
    check_agent(lambda spec, batch_size, seed: HillClimber(spec, batch_size=batch_size, seed=seed))
    print("HillClimber keeps the contract")
