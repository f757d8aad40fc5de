"""The code of an image: what a pretrained network and a glance see in it, in 256 uncorrelated numbers of variance 1.

DeePSiM (Dosovitskiy & Brox 2016) showed that the features of a network are a good space to search when a decoder has
learned to draw them. Here three views are put together with equal weight: maps of EfficientNet-Lite1 of small patterns
(after block 6) and of larger ones (after block 14), both on a 4 x 4 grid, and the colours on an 8 x 8 grid. Their first
256 principal components over photographs, each scaled to variance 1, are the code: a step in an early number changes
much of what photographs differ in, a step in a late one little, as a search with few presentations wants it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurogym_v import networks

NETWORK = "lite1"
"""No neuron built on this network is a fair test of images drawn from codes."""
BLOCKS = (6, 14)
SIDE = 64
"""The network is shown images of this size."""
GRID, COLOUR_GRID = 4, 8
NUMBERS = (40 * GRID**2, 112 * GRID**2, 3 * COLOUR_GRID**2)
"""Of the three views."""
DIM = 256
SMALLEST = 1e-5
"""No component is taken to have less than this share of the variance, so that few photographs do not give infinity."""


class Code(nn.Module):
    """(n, 3, s, s) images in [0, 1] -> (n, 256) codes; differentiable. `mean` and `matrix` are fitted to photographs."""

    mean: Tensor
    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(sum(NUMBERS)))
        self.register_buffer("matrix", torch.zeros(sum(NUMBERS), DIM))

    def forward(self, images: Tensor) -> Tensor:
        return (views(images) - self.mean) @ self.matrix

    @classmethod
    def fit(cls, batches: Iterable[Tensor]) -> Code:
        """Fit to batches of photographs, (n, 3, s, s) in [0, 1]."""
        seen = torch.cat([views(batch).cpu() for batch in batches])
        code = cls()
        code.mean = seen.mean(dim=0)
        edges = (0, *torch.tensor(NUMBERS).cumsum(0).tolist())
        total = [(seen - code.mean)[:, a:b].square().sum(dim=1).mean() for a, b in pairwise(edges)]
        scale = torch.cat([spread.sqrt().expand(n) for spread, n in zip(total, NUMBERS, strict=True)])
        values, vectors = _principal((seen - code.mean) / scale)
        values = values.clamp_min(SMALLEST * len(NUMBERS))
        vectors = vectors * vectors.sum(dim=0).sign()  # an eigenvector and its negative are one
        code.matrix[:, : len(values)] = (vectors / values.sqrt()).float() / scale[:, None]
        return code


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """The largest variances (k,) of (n, p) rows, and their directions (p, k), k at most 256; float64."""
    if len(centred) < centred.shape[1]:
        _, sizes, rows = torch.linalg.svd(centred.double(), full_matrices=False)
        return sizes[:DIM].square() / len(centred), rows[:DIM].T
    values, vectors = torch.linalg.eigh((centred.T @ centred / len(centred)).double())
    return values.flip(0)[:DIM], vectors.flip(1)[:, :DIM]


def views(images: Tensor) -> Tensor:
    """(n, 3, s, s) images in [0, 1] -> (n, 2624): small patterns, larger patterns, colours."""
    network = networks.load(NETWORK, BLOCKS, SIDE, str(images.device))
    small = images if images.shape[-1] == SIDE else F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
    grids = [F.adaptive_avg_pool2d(maps, GRID).flatten(1) for maps in network(small)]
    return torch.cat([*grids, F.adaptive_avg_pool2d(small, COLOUR_GRID).flatten(1)], dim=1)
