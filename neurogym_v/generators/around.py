"""A generator whose prior is centred on a latent: a search that starts at a given image, for any agent."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from neurogym_v.generators import Generator
from neurogym_v.types import Latents, NeuroGymError


class Around(nn.Module):
    """Latents are taken from `origin`: 0 draws what `generator` draws there, a step means what it meant.

    Args:
        origin: (d,) a latent of `generator`, such as `invert` finds.

    Raises:
        NeuroGymError: an origin of another shape, beyond the generator's bound, or not finite.
    """

    origin: Tensor

    def __init__(self, generator: Generator, origin: Latents) -> None:
        super().__init__()
        shape, bound = np.shape(origin), generator.bound
        if shape != (generator.latent_dim,) or not np.isfinite(origin).all() or np.abs(origin).max() > bound:
            raise NeuroGymError(f"origin: expected {generator.latent_dim} numbers within ±{bound}, got others ({shape})")
        self.generator = generator
        self.latent_dim, self.image_size, self.bound = generator.latent_dim, generator.image_size, bound
        device = generator.sample(1, np.random.default_rng(0)).device
        self.register_buffer("origin", torch.as_tensor(np.array(origin, dtype=np.float32), device=device))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, d) from the origin -> (n, 3, s, s) in [0, 1]."""
        return self.generator((latents + self.origin).clamp(-self.bound, self.bound))

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """(n, d) from the prior, which now lies around the origin."""
        return self.generator.sample(n, rng)
