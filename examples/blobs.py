"""A generator of your own: latents are the places, sizes and colours of twelve soft blobs.

From this folder:

    neurogym-v run --generator blobs:Blobs --agent cma_es --site 12

and ask whether it keeps the contract:

    python blobs.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from neurogym_v.testing_generators import check_generator

BLOBS, NUMBERS = 12, 6
"""Each has x, y, size, red, green and blue."""


class Blobs(nn.Module):
    """Twelve Gaussian blobs on grey, 64 px; every latent is standard normal."""

    latent_dim, image_size, bound = BLOBS * NUMBERS, 64, 5.0

    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.linspace(-1, 1, self.image_size), requires_grad=False)

    def forward(self, latents: Tensor) -> Tensor:
        """(n, 72) -> (n, 3, 64, 64) in [0, 1], differentiable."""
        x, y, size, *rgb = latents.reshape(-1, BLOBS, NUMBERS).unbind(-1)
        width = 0.25 * torch.exp(size / 4)

        def profile(centre: Tensor) -> Tensor:
            return torch.exp(-(((self.grid - 0.5 * centre[..., None]) / width[..., None]) ** 2))

        colour = torch.stack(rgb, dim=-1)
        return torch.sigmoid(torch.einsum("nby,nbx,nbc->ncyx", profile(y), profile(x), colour))

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """(n, 72) from the prior, where the module is."""
        return torch.from_numpy(rng.standard_normal((n, self.latent_dim), dtype=np.float32)).to(self.grid.device)


if __name__ == "__main__":
    check_generator(lambda: Blobs())
    print("Blobs keeps the contract")
