"""Inversion: the latents whose images look most like given images to a network.

A latent that a generator's encoder gives (or, without one, the nearest of some samples of the prior) is improved by
gradient descent on the difference of features, as networks are inverted (Mahendran & Vedaldi 2015, arXiv:1412.0035).
Xiao & Kreiman 2020 started searches from the latents of the best natural images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from neurogym_v import networks
from neurogym_v.generators import Generator
from neurogym_v.types import Images, Latents, NeuroGymError

NETWORK = "lite1"
LAYERS = (3, 6, 10, 14)
"""Blocks whose maps are compared."""
SIDE = 64
CHUNK = 25
"""Images inverted at once."""
SAMPLES = 400
"""Of the prior, among which the start is looked for where there is no encoder."""
PIXELS = 0.3
"""Weight of the squared difference of pixels, in units of the target's variance."""
PRIOR = 0.01
"""Weight of the mean squared latent: of two latents that draw the same, the likelier one."""


@runtime_checkable
class Encoder(Protocol):
    """A generator that knows the latents of images."""

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, s, s) in [0, 1] -> (n, latent_dim)."""


def invert(
    generator: Generator,
    images: Images,
    *,
    steps: int = 60,
    rate: float = 0.05,
    network: str = NETWORK,
    layers: tuple[int, ...] = LAYERS,
    watch: Callable[[int], None] = lambda _: None,
) -> Latents:
    """(n, latent_dim) latents whose images are near (n, 3, s, s) images, uint8 or in [0, 1], s of any size.

    Args:
        generator: a torch module, for its gradients; never changed.
        steps: of Adam; 0 gives the start.
        rate: of Adam, in units of the prior.
        network, layers: whose features are compared. An image found with a network is no fair test of a neuron on it.
        watch: told how many images are done.

    Raises:
        NeuroGymError: images of another shape, or without finite values.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or not len(images):
        raise NeuroGymError(f"invert: expected images of shape (n, 3, s, s), got {tuple(images.shape)}")
    floating = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if not (floating.isfinite().all() and floating.min() >= 0 and floating.max() <= 1):
        raise NeuroGymError("invert: expected uint8 images, or finite values in [0, 1], got others")
    size = (generator.image_size, generator.image_size)
    found = []
    for at in range(0, len(images), CHUNK):
        target = torch.nn.functional.interpolate(floating[at : at + CHUNK], size, mode="bilinear", antialias=True).clamp(0, 1)
        found.append(_descend(generator, target, steps=steps, rate=rate, network=network, layers=layers))
        watch(min(at + CHUNK, len(images)))
    return np.concatenate(found)


def _descend(
    generator: Generator, target: Tensor, *, steps: int, rate: float, network: str, layers: tuple[int, ...]
) -> Latents:
    """`invert` of one chunk at the generator's size."""
    device = generator.sample(1, np.random.default_rng(0)).device
    features = networks.load(network, layers, SIDE, str(device))
    target = target.to(device)
    with torch.no_grad():
        wanted = features(target)
        scale = [maps.square().mean(dim=(1, 2, 3)).clamp_min(1e-6) for maps in wanted]
        contrast = target.var(dim=(1, 2, 3)).clamp_min(1e-3)
        latents = _start(generator, target).clamp(-generator.bound, generator.bound)

    def distances(images: Tensor) -> Tensor:
        """(n,) how far each image is from its target."""
        seen = features(images)
        of_layers = [(a - b).square().mean(dim=(1, 2, 3)) / s for a, b, s in zip(seen, wanted, scale, strict=True)]
        return torch.stack(of_layers).sum(dim=0) + PIXELS * (images - target).square().mean(dim=(1, 2, 3)) / contrast

    best, least = latents.clone(), torch.full((len(latents),), torch.inf, device=device)
    latents.requires_grad_(True)
    adam = torch.optim.Adam([latents], lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    for step in range(steps + 1):
        distance = distances(generator(latents))
        with torch.no_grad():  # an image keeps the best latent that it met: more steps are never worse
            better = distance < least
            best[better], least[better] = latents[better], distance[better]
        if step == steps:
            break
        loss = distance.sum() + PRIOR * latents.square().mean(dim=1).sum()
        (latents.grad,) = torch.autograd.grad(loss, latents)
        adam.step()
        schedule.step()
        with torch.no_grad():
            latents.clamp_(-generator.bound, generator.bound)
    return cast(Latents, best.detach().cpu().numpy())


def _start(generator: Generator, target: Tensor) -> Tensor:
    """Latents to start from."""
    if isinstance(generator, Encoder):
        return generator.encode(target).detach().clone()
    samples = generator.sample(SAMPLES, np.random.default_rng(0))
    images = torch.cat([generator(some) for some in torch.split(samples, CHUNK)])
    small, wanted = (torch.nn.functional.adaptive_avg_pool2d(i, 16).flatten(1) for i in (images, target))
    return samples[torch.cdist(wanted, small).argmin(dim=1)].clone()
