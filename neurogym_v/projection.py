"""Latents held to a norm, around any agent.

The norm of a latent is, to many generators, the contrast of its image; and without a limit some strategies let it run far
beyond what the generator was trained on. A sphere takes it out of the search, a ball bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neurogym_v.agent import Agent
from neurogym_v.types import Feedback, Latents, NeuroGymError, Rates


class Projected(Agent):
    """An agent whose latents are projected before they are shown: it is told what was shown, and recommends on the same.

    Args:
        agent: any agent, fresh.
        norm: of every latent (a sphere), in units of sqrt(d), the norm of a draw from the prior; None: no sphere.
        max_norm: the largest norm (a ball), in the same units; None: no ball.

    Raises:
        NeuroGymError: neither of them or both, or one that is not above 0.
    """

    def __init__(self, agent: Agent, *, norm: float | None = None, max_norm: float | None = None) -> None:
        radius = norm if max_norm is None else max_norm
        if (norm is None) == (max_norm is None) or radius is None or not 0 < radius < math.inf:
            raise NeuroGymError(f"projection: expected a norm or a max_norm above 0, got norm {norm} and max_norm {max_norm}")
        self.agent, self.sphere = agent, norm is not None
        self.radius = radius * math.sqrt(agent.spec.latent_dim)
        self.surrogates, self.smallest_batch = agent.surrogates, agent.smallest_batch  # type: ignore[misc]
        super().__init__(agent.spec, batch_size=agent.batch_size)

    def project(self, latents: Latents) -> Latents:
        """(n, d) latents on the sphere, or in the ball; the origin has no direction and stays."""
        norms = np.linalg.norm(latents.astype(np.float64), axis=1, keepdims=True)
        scale = self.radius / np.maximum(norms, 1e-12)
        return np.asarray(latents * (scale if self.sphere else np.minimum(scale, 1.0)), dtype=np.float32)

    def _ask(self) -> Latents:
        return self.project(self.agent.ask())

    def tell(self, feedback: Feedback) -> None:
        super().tell(feedback)
        # as it is, so that a round lost as a whole ends for the agent inside too
        self.agent.tell(replace(feedback, latents=feedback.latents.copy(), rates=np.array(feedback.rates, dtype=np.float64)))

    def _tell(self, latents: Latents, rates: Rates) -> None:
        """The agent inside is told by `tell`."""

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): those of the agent, projected."""
        return self.project(self.agent.recommend(k))

    def diagnostics(self) -> Mapping[str, float]:
        """Those of the agent."""
        return self.agent.diagnostics()

    @property
    def thinking_s(self) -> float:
        """Of the agent inside."""
        return self.agent.thinking_s

    @thinking_s.setter
    def thinking_s(self, _: float) -> None:
        """It is counted there."""
