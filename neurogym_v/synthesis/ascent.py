"""Gradient ascent on the score of images, through a generator's latents: what is climbed, how it is smoothed, how far.

Bashivan, Kar & DiCarlo 2019, doi:10.1126/science.aav9436: jitter, total variation, gradients of one size.
Walker et al. 2019, doi:10.1038/s41593-019-0517-x: gradients with less of the high frequencies, and a blur that fades (there of
the image, here of its gradient).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from neurogym_v.generators import Generator
from neurogym_v.naming import LARGEST
from neurogym_v.types import Latents, NeuroGymError

CHUNK = 10
"""Images that climb at once on a CPU."""
LONGEST = 100_000
"""Iterations."""


def within(value: object, low: float, high: float) -> bool:
    """Whether it is a number, none that is not finite."""
    return isinstance(value, int | float | np.integer | np.floating) and bool(low <= value <= high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """How to climb. Lengths on the image are shares of its side, so that they mean the same at any size."""

    iterations: int
    step: float
    """Of the first iteration: s.d. of the change over the dimensions of a latent, in units of the prior."""
    last_step: float
    """Of the last one; linear between."""
    jitter: float = 0.0
    """The image is rolled by up to this share of its side, in both directions, at each iteration."""
    variation: float = 0.0
    """Weight of `total_variation` that is taken from the score."""
    exponent: float = 0.0
    """Gradients on the image are filtered by 1 / max(1, (squared frequency)^exponent), in cycles per image."""
    blur: float = 0.0
    """... and blurred, with a Gaussian of this s.d. (a share of the side) at the first iteration; linearly to none."""
    norm: float | None = None
    """Length of the latents, in units of that of the prior, to which each step returns them: with it the contrast of the
    images is given, and only what they show is climbed. None: they grow as they like, within the bound."""

    def __post_init__(self) -> None:
        if not isinstance(self.iterations, int | np.integer) or not 1 <= self.iterations <= LONGEST:
            raise NeuroGymError(f"ascent: expected iterations as a whole number of 1 to {LONGEST}, got {self.iterations!r}")
        for name, value in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if not (name == "norm" and value is None) and not within(value, -LARGEST, LARGEST):
                raise NeuroGymError(f"ascent: expected {name} as a finite number within {LARGEST:g}, got {value!r}")
        for name in ("jitter", "variation", "exponent", "blur"):
            if not getattr(self, name) >= 0:
                raise NeuroGymError(f"ascent: expected {name} of at least 0, got {getattr(self, name)}")
        for name in ("step", "last_step", "norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise NeuroGymError(f"ascent: expected {name} above 0, got {getattr(self, name)}")


def climb(
    score: Callable[[Tensor], Tensor], generator: Generator, starts: Latents, how: Ascent, rng: np.random.Generator
) -> Latents:
    """(n, d) latents reached from (n, d) starts.

    Args:
        score: (n, 3, s, s) images in [0, 1] -> (n,), differentiable.
        rng: of the jitter.

    A latent whose gradient is not finite stays where it is.
    """
    if not len(starts):
        return starts.copy()
    # whoever calls may be in inference mode, or in no_grad
    with torch.inference_mode(False), torch.enable_grad():
        parts = np.split(starts, range(CHUNK, len(starts), CHUNK))
        return np.concatenate([_climb(score, generator, part, how, rng) for part in parts])


def _climb(
    score: Callable[[Tensor], Tensor], generator: Generator, starts: Latents, how: Ascent, rng: np.random.Generator
) -> Latents:
    device = generator.sample(1, np.random.default_rng(0)).device
    latents = _held(torch.from_numpy(starts.astype(np.float32)).to(device), how.norm, generator.bound)
    side = generator.image_size
    furthest = round(how.jitter * side)
    for iteration in range(how.iterations):
        done = iteration / max(how.iterations - 1, 1)
        latents = latents.detach().requires_grad_()
        images = generator(latents)
        shown = images.detach().requires_grad_()
        down, right = (int(shift) for shift in rng.integers(-furthest, furthest + 1, size=2))
        values = score(torch.roll(shown, (down, right), dims=(2, 3)))
        if how.variation:
            values = values - how.variation * total_variation(shown)
        (gradient,) = torch.autograd.grad(values.sum(), shown)
        if how.exponent or how.blur:
            gradient = filtered(gradient, low_pass(side, how.exponent, how.blur * side * (1 - done)).to(device))
        (gradient,) = torch.autograd.grad(images, latents, gradient)
        size = gradient.std(dim=1, keepdim=True, correction=0) + 1e-8
        change = (how.step + done * (how.last_step - how.step)) * gradient / size
        change = torch.where(change.isfinite().all(dim=1, keepdim=True), change, 0)
        latents = _held(latents.detach() + change, how.norm, generator.bound)
    return cast(Latents, latents.detach().cpu().numpy())


def _held(latents: Tensor, norm: float | None, bound: float) -> Tensor:
    """Brought back to their length, and into the box."""
    if norm is not None:
        length = latents.norm(dim=1, keepdim=True).clamp_min(1e-8)
        latents = latents * (norm * latents.shape[1] ** 0.5 / length)
    return torch.clamp(latents, -bound, bound)


def total_variation(images: Tensor) -> Tensor:
    """(n,) of (n, 3, s, s) images in [0, 1]: how much neighbours differ, independent of the number of pixels.

    Half the mean squared difference of values in [-1, 1] downwards, and the same to the right, times (s / 299)²: a picture
    has the value it would have at the published 299 px, where neighbours differ as much less as they are nearer.
    """
    x, side = images.mul(2).sub(1), images.shape[-1]
    squares = (x[:, :, 1:] - x[:, :, :-1]).square().sum(dim=(1, 2, 3)) + (x[..., 1:] - x[..., :-1]).square().sum(dim=(1, 2, 3))
    return torch.mul(squares, (side / 299) ** 2 / (2 * x[0].numel()))


def low_pass(side: int, exponent: float, sigma: float) -> Tensor:
    """(side, side) gains, of mean 1, in the order of `torch.fft.fftfreq`: 1 / max(1, (fx² + fy²)^exponent), f in cycles per
    image, times those of a Gaussian blur of `sigma` px."""
    cycles = torch.fft.fftfreq(side) * side
    squared = cycles[:, None] ** 2 + cycles**2
    gains = squared.pow(exponent).clamp_min(1).reciprocal() * torch.exp(-2 * (torch.pi * sigma / side) ** 2 * squared)
    return torch.div(gains, gains.mean())


def filtered(gradient: Tensor, gains: Tensor) -> Tensor:
    """(n, 3, s, s) with its frequencies multiplied by (s, s) gains."""
    return torch.real(torch.fft.ifft2(torch.fft.fft2(gradient) * gains))


def check_gradient(user: str, generator: Any, latent_dim: int) -> None:
    """Raise NeuroGymError unless there is a generator, and its images have a gradient."""
    if generator is None:
        raise NeuroGymError(f"{user}: expected a generator with gradients in the spec, got none")
    device = generator.sample(1, np.random.default_rng(0)).device
    with torch.inference_mode(False), torch.enable_grad():
        images = generator(torch.zeros(1, latent_dim, device=device, requires_grad=True))
    if not images.requires_grad:
        raise NeuroGymError(f"{user}: expected a generator with gradients, got {type(generator).__name__}, which has none")
