"""Principal components of photographs: python -m neurogym_v.generators.components --images DIR --out components.safetensors

The linear model of images: what a generator adds to it is what a network is for. Without a file it is fitted to the
photographs inside installed packages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from neurogym_v import weights
from neurogym_v.generators import photographs
from neurogym_v.references import load_references
from neurogym_v.types import Images, NeuroGymError

KIND = "generator:components"


class Components(nn.Module):
    """Mean and 256 principal components of photographs, 64 px: the linear model of their colours and contrasts."""

    latent_dim: int = 256
    image_size: int = 64
    bound: float = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3, self.image_size, self.image_size))
        self.basis = nn.Parameter(torch.zeros(self.latent_dim, self.mean.numel()))
        """(256, 3 s s): orthogonal rows, each as long as the s.d. of the photographs along it, the longest first."""

    def forward(self, latents: Tensor) -> Tensor:
        """(n, 256) float32 latents -> (n, 3, 64, 64) float32 sRGB in [0, 1]; linear where it is not at 0 or 1."""
        # Clipped hard: a soft limit bends all values, and then the covariance of the images and their latents (`encode`)
        # are no longer known in closed form, nor is this the linear baseline. A clipped pixel has no gradient: 6% of
        # those of the prior, more than half of them in one image of 80. Every component spans the whole image, so what
        # is left still moves all latents.
        return torch.addmm(self.mean.flatten(), latents, self.basis).clamp(0, 1).reshape(-1, *self.mean.shape)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, 64, 64) in [0, 1] -> (n, 256) latents of the nearest images (least squares, before the limits)."""
        return (images - self.mean).flatten(1) @ self.basis.T / self.basis.square().sum(dim=1)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """(n, 256) float32 latents from the prior, N(0, I), on the device of the components."""
        return torch.from_numpy(rng.standard_normal((n, self.latent_dim), dtype=np.float32)).to(self.basis.device)

    @classmethod
    def fit(cls, images: Images) -> Components:
        """The components of uint8 photographs and their mirror images; the same photographs give the same components.

        Raises:
            NeuroGymError: the photographs span fewer than 256 dimensions.
        """
        if images.shape[1:] != (3, cls.image_size, cls.image_size):
            raise NeuroGymError(f"components: expected (n, 3, 64, 64) photographs, got {tuple(images.shape)}")
        pixels = torch.cat((images, images.flip(-1))).flatten(1).double() / 255
        n, mean = len(pixels), pixels.mean(dim=0)
        pixels -= mean
        # the (n, n) Gram matrix has the spectrum of the much larger covariance
        variances, axes = torch.linalg.eigh(pixels @ pixels.T / n)
        dimensions = int((variances > 1e-9 * variances[-1]).sum())
        if dimensions < cls.latent_dim:
            raise NeuroGymError(f"components: expected photographs in {cls.latent_dim} dimensions or more, got {dimensions}")
        basis = axes.flip(1)[:, : cls.latent_dim].T @ pixels / n**0.5
        # Eigenvectors come with any sign: the largest value of the left half is positive. Half of the components are odd
        # about the middle, so over the whole image their largest value is both.
        left = basis.reshape(-1, *images.shape[1:])[..., : cls.image_size // 2].flatten(1)
        basis *= left.gather(1, left.abs().argmax(dim=1, keepdim=True)).sign()
        model = cls()
        model.load_state_dict({"mean": mean.reshape(images.shape[1:]).float(), "basis": basis.float()})
        return model.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | None = None, *, device: str = "cpu") -> Components:
        """The components in the file at `path` (None: those of the photographs inside installed packages, in seconds).

        Raises:
            WeightsError: the file is missing, damaged, of another kind, or has not these tensors.
        """
        if path is None:
            return cls.fit(load_references(size=cls.image_size).images).to(device)
        tensors, _ = weights.load(path, kind=KIND)
        model = cls()
        weights.check(path, tensors, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
        model.load_state_dict(tensors)
        return model.to(device).eval().requires_grad_(False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m neurogym_v.generators.components",
        description="Fit the generator `components` to photographs; --generator OUT then searches with it.",
    )
    add = parser.add_argument
    add("--images", type=Path, nargs="+", required=True, metavar="DIR", help="folders or .zip files of photographs")
    add("--out", type=Path, required=True, metavar="FILE", help="weights to write, a .safetensors file")
    return parser


def _fit(options: argparse.Namespace, console: Console) -> None:
    if options.out.suffix != ".safetensors":
        raise NeuroGymError(f"--out {options.out}: expected a name that ends in .safetensors, found {options.out.suffix!r}")
    images, counts = photographs.read(options.images, Components.image_size)
    console.print("photographs: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    model = Components.fit(images)
    everything = (torch.cat((images, images.flip(-1))).double() / 255).var(dim=0, correction=0).sum()
    share = float(model.basis.double().square().sum() / everything)
    sha = weights.save(options.out, model.state_dict(), kind=KIND, card=counts | {"share_of_variance": round(share, 4)})
    console.print(f"{options.out}: {model.latent_dim} components, {share:.1%} of the variance, sha256 {sha}")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        _fit(options, console)
    except NeuroGymError as error:
        console.print(str(error), style="red", highlight=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
