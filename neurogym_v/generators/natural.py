"""The photographic generator: a decoder trained against a discriminator on natural photographs (VAE/GAN).

It was made to be searched. The latent is a standard normal of 256 numbers, every one of which the training asked an
encoder to use, so that photographs have a latent and small steps make small changes. `train.py` makes the weights.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurogym_v import weights

KIND = "generator:natural"
SHIPPED = Path(__file__).with_name("weights") / "natural64.safetensors"
CHANNELS = (256, 256, 128, 64, 32)
"""Feature maps at 4, 8, 16, 32 and 64 px."""


class Block(nn.Module):
    """Double the side, convolve, let the latent scale and shift every channel; returns the maps and what they add in RGB."""

    def __init__(self, latent_dim: int, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.style = nn.Linear(latent_dim, 2 * after)
        self.rgb = nn.Conv2d(after, 3, 3, padding=1)

    def forward(self, maps: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.style(latents)[:, :, None, None].chunk(2, dim=1)
        # Nearest neighbours before a convolution, not a transposed convolution: those print checkerboards.
        maps = self.conv(F.interpolate(maps, scale_factor=2.0, mode="nearest"))
        maps = F.leaky_relu(torch.addcmul(shift.to(maps.dtype), maps, 1 + scale.to(maps.dtype)), 0.2)
        return maps, self.rgb(maps).float()


class Natural(nn.Module):
    """Colour photographs, 64 px: a GAN decoder of 256 numbers, trained on natural images (VAE/GAN)."""

    latent_dim: int = 256
    image_size: int = 64
    bound: float = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(self.latent_dim, CHANNELS[0] * 4 * 4)
        self.blocks = nn.ModuleList(Block(self.latent_dim, before, after) for before, after in pairwise(CHANNELS))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, 256) float32 latents -> (n, 3, 64, 64) float32 sRGB in [0, 1]; differentiable, each row on its own."""
        # The norm of a latent from the prior is near sqrt(d), where this scale is 1. It flattens out at sqrt(2 d), so an
        # optimizer that lets the norm of its latents grow (many do) keeps seeing images instead of saturated colours.
        latents = latents * torch.rsqrt((1 + latents.square().mean(dim=1, keepdim=True)) / 2)
        maps = F.leaky_relu(self.start(latents), 0.2).reshape(-1, CHANNELS[0], 4, 4)
        maps = maps.contiguous(memory_format=torch.channels_last)
        image = torch.zeros((), device=latents.device)
        for block in self.blocks:
            maps, colours = block(maps, latents)
            image = image + colours
            if block is not self.blocks[-1]:
                image = F.interpolate(image, scale_factor=2.0, mode="bilinear")
        return torch.sigmoid(image).contiguous()

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """(n, 256) float32 latents from the prior, N(0, I), on the device of the weights."""
        latents = rng.standard_normal((n, self.latent_dim), dtype=np.float32)
        return torch.from_numpy(latents).to(self.start.weight.device)

    @classmethod
    def load(cls, path: Path | None = None, *, device: str = "cpu") -> Natural:
        """The decoder from `path` (None: the weights that come with the package), frozen, in eval mode.

        Raises:
            WeightsError: the file is missing, damaged, of another kind, or has not the tensors of this network.
        """
        path = SHIPPED if path is None else path
        tensors, _ = weights.load(path, kind=KIND)
        model = cls()
        weights.check(path, tensors, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
        model.load_state_dict(tensors)
        return model.to(device).eval().requires_grad_(False)
