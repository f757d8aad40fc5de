"""The photographic generator: a decoder that draws images from their codes, trained on natural photographs.

It was made to be searched. A latent is a code (`code.py`): 256 numbers, uncorrelated over photographs, of what a network
sees in an image. So every photograph has a latent, a step in a latent is a step in what deep features see, and the
first numbers carry most of it. `train.py` makes the weights.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurogym_v import weights
from neurogym_v.generators.code import DIM, Code
from neurogym_v.weights import WeightsError

KIND = "generator:natural"
SHIPPED = Path(__file__).with_name("weights") / "natural64.safetensors"
CHANNELS = {64: (256, 256, 128, 64, 32), 128: (256, 256, 128, 64, 32, 16)}
"""Feature maps at 4, 8, 16, 32, 64 and 128 px, by the size of the image."""

LONGEST = 4.0
"""Latents longer than those of the prior draw with more contrast (as codes of DeePSiM do), up to this many times as long."""


class Block(nn.Module):
    """Double the side, convolve, let the latent scale and shift every channel; returns the maps and what they add in RGB."""

    def __init__(self, latent_dim: int, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.style = nn.Linear(latent_dim, 2 * after)
        self.rgb = nn.Conv2d(after, 3, 3, padding=1)

    def forward(self, maps: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.style(latents)[:, :, None, None].chunk(2, dim=1)
        # Not a transposed convolution, which prints checkerboards, nor nearest neighbours, which print lines.
        maps = self.conv(F.interpolate(maps, scale_factor=2.0, mode="bilinear"))
        maps = F.leaky_relu(torch.addcmul(shift.to(maps.dtype), maps, 1 + scale.to(maps.dtype)), 0.2)
        return maps, self.rgb(maps).float()


class Natural(nn.Module):
    """Colour photographs: a decoder of 256 deep features, trained adversarially on natural images."""

    latent_dim: int = DIM
    bound: float = 10.0

    def __init__(self, image_size: int = 64) -> None:
        super().__init__()
        self.image_size, self.channels = image_size, CHANNELS[image_size]
        self.start = nn.Linear(self.latent_dim, self.channels[0] * 4 * 4)
        self.blocks = nn.ModuleList(Block(self.latent_dim, before, after) for before, after in pairwise(self.channels))
        self.code = Code()

    def forward(self, latents: Tensor) -> Tensor:
        """(n, 256) float32 latents -> (n, 3, s, s) float32 sRGB in [0, 1]; differentiable, each row on its own."""
        contrast = latents.square().mean(dim=1).clamp(1, LONGEST**2).pow(0.25)[:, None, None, None]
        latents = bend(latents)
        maps = F.leaky_relu(self.start(latents), 0.2).reshape(-1, self.channels[0], 4, 4)
        maps = maps.contiguous(memory_format=torch.channels_last)
        image = torch.zeros((), device=latents.device)
        for block in self.blocks:
            maps, colours = block(maps, latents)
            image = image + colours
            if block is not self.blocks[-1]:
                image = F.interpolate(image, scale_factor=2.0, mode="bilinear")
        return torch.sigmoid(contrast * image).contiguous()

    def encode(self, images: Tensor) -> Tensor:
        """(n, 256) latents of (n, 3, s, s) images in [0, 1], s of any size: their codes; differentiable."""
        return cast(Tensor, self.code(images))

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
        tensors, card = weights.load(path, kind=KIND)
        if (size := card.get("size")) not in CHANNELS:
            raise WeightsError(
                f"weights file {path}: expected a card with size {' or '.join(map(str, CHANNELS))}, found {size}"
            )
        model = cls(size)
        weights.check(path, tensors, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
        model.load_state_dict(tensors)
        return model.to(device).eval().requires_grad_(False)


def bend(latents: Tensor) -> Tensor:
    """(n, d) latents -> shorter ones of the same directions: unchanged at a norm of sqrt(d), never longer than sqrt(2 d).

    The norm of a latent from the prior is near sqrt(d). An optimizer that lets the norm of its latents grow (many do)
    keeps seeing images instead of saturated colours.
    """
    return latents * torch.rsqrt((1 + latents.square().mean(dim=1, keepdim=True)) / 2)
