"""The words of the project as types: aliases for arrays, frozen records for what passes between the parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Latents: TypeAlias = NDArray[np.float32]
"""(n, d) float32: what an agent proposes, one row an image; the prior is a standard normal."""

Rates: TypeAlias = NDArray[np.float64]
"""(n,) or (n, sites) float64: spikes/s in the response window; NaN marks a lost trial."""

Images: TypeAlias = torch.Tensor
"""(n, 3, s, s) uint8 sRGB, as on a display."""


class NeuroGymError(ValueError):
    """Something the user gave or owns is not usable; the message says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class References:
    """Natural images shown as controls, with the rates that were recorded for them (empty before they are shown)."""

    images: Images
    names: tuple[str, ...]
    rates: Rates | None = None

    def spread(self, count: int) -> References:
        """`count` of them without their rates, evenly spread, always the same; all if there are fewer."""
        chosen = np.unique(np.linspace(0, len(self.names) - 1, min(count, len(self.names))).round().astype(int))
        return References(self.images[chosen], tuple(self.names[i] for i in chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSpec:
    """What an agent may know before it starts. The neuron is not in it, and nothing in it leads there."""

    latent_dim: int
    bound: float
    """Latents are clipped to [-bound, bound] before they are shown."""
    budget: int
    """Presentations of the agent's own images that the session will show; schedules may be planned with it."""
    generator: Any = None
    """The generator, for agents that use its gradient (a `neurogym_v.generators.Generator`)."""
    references: References | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One round as it came back from the neuron: what the agent learns from, and what trackers draw."""

    round: int
    latents: Latents
    """(n, d): those really shown, after clipping; n may be below the batch in the last round."""
    rates: Rates
    """(n,) scores of the objective, by default the site's spikes/s; NaN marks a lost trial."""
    spent: int
    """Presentations used so far in this session, this round included."""
    left: int
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    """The agent's own numbers (step size, norm, model fit) for trackers."""

    @property
    def mean_rate(self) -> float:
        """Score over the valid trials; NaN if all were lost."""
        valid = self.rates[np.isfinite(self.rates)]
        return float(valid.mean()) if len(valid) else float("nan")

    @property
    def best_rate(self) -> float:
        """The highest single score, a noisy one; NaN if all trials were lost."""
        valid = self.rates[np.isfinite(self.rates)]
        return float(valid.max()) if len(valid) else float("nan")
