"""Generators: latents to images. One file a generator; their weights, with model cards, in `weights/`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from neurogym_v.types import Images, Latents


class Generator(Protocol):
    """Turns latents into images. The prior of the latents is a standard normal, so a step size means the same for all."""

    latent_dim: int
    image_size: int
    bound: float
    """Latents beyond [-bound, bound] are clipped before they are shown."""

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, latent_dim) -> (n, 3, image_size, image_size) in [0, 1], differentiable."""

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        """(n, latent_dim) from the prior."""


def quantise(images: torch.Tensor) -> Images:
    """(n, 3, s, s) in [0, 1] -> uint8, as a display shows them."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def draw(generator: Generator, latents: Latents) -> Images:
    """(n, d) latents -> (n, 3, s, s) uint8 images, on the generator's device."""
    # a generator is a torch module where it can be; one that is not draws on the CPU
    parameters = getattr(generator, "parameters", None)
    device = next(parameters(), torch.empty(0)).device if parameters else torch.device("cpu")
    with torch.inference_mode():
        return quantise(generator(torch.from_numpy(np.array(latents, dtype=np.float32)).to(device)))
