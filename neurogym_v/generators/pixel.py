"""Every pixel is a latent: no network, and no prior over images but their contrast.

Preferred stimuli have been synthesised pixel by pixel in Bashivan, Kar & DiCarlo 2019 (doi:10.1126/science.aav9436) and
in the inception loops of Walker et al. 2019 (doi:10.1038/s41593-019-0517-x).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from neurogym_v.types import NeuroGymError
from neurogym_v.weights import WeightsError

GAIN = 1.0807
"""Where sigmoid(GAIN z) of z ~ N(0, 1) has a s.d. of 0.22: between the 0.17 of pixels within a photograph of
`references` and the 0.25 of pixels of all of them."""


class Pixel(nn.Module):
    """Every pixel on its own, 64 or 128 px: as many latents as channel values, no prior but their contrast."""

    variants: tuple[str, ...] = ("64", "128")
    """The sides in px to load; the first is the default."""
    bound: float = 6.0
    """A display shows 0 or 255 from 5.8 on."""

    def __init__(self, image_size: int = 64) -> None:
        super().__init__()
        self.image_size = image_size
        self.latent_dim = 3 * image_size * image_size
        # a parameter, not a constant, so that the generator is on some device
        self.gain = nn.Parameter(torch.tensor(GAIN))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, d) float32 latents -> (n, 3, s, s) float32 sRGB in [0, 1]: grey + 0.27 field, saturating smoothly."""
        # A sigmoid and not a clip: its gradient is never 0 within the bound, so a saturated pixel finds its way back.
        return torch.sigmoid(self.gain * self.field(latents))

    def field(self, latents: Tensor) -> Tensor:
        """(n, d) latents -> (n, 3, s, s), linear, of s.d. 1 in every pixel and channel for latents from the prior."""
        return latents.reshape(-1, 3, self.image_size, self.image_size)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """(n, d) float32 latents from the prior, N(0, I), on the device of the generator."""
        return torch.from_numpy(rng.standard_normal((n, self.latent_dim), dtype=np.float32)).to(self.gain.device)

    @classmethod
    def load(cls, path: Path | None = None, *, variant: str | None = None, device: str = "cpu") -> Self:
        """The generator of images of `variant` px a side.

        Raises:
            WeightsError: a path is given; there are no weights to read.
            NeuroGymError: there is no such variant.
        """
        if path is not None:
            raise WeightsError(f"weights file {path}: expected none, {cls.__name__} has no weights")
        variant = cls.variants[0] if variant is None else variant
        if variant not in cls.variants:
            raise NeuroGymError(f"{cls.__name__}: expected a side in px of {', '.join(cls.variants)}, got {variant!r}")
        return cls(int(variant)).to(device).eval().requires_grad_(False)
