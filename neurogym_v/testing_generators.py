"""The conformance kit for generators: what each must keep, checked with one call in your own tests.

    from neurogym_v.testing_generators import check_generator
    check_generator(lambda: MyGenerator.load())

It needs no test framework and no neuron, and takes as long as drawing some 60 images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from neurogym_v.generators import Generator, draw
from neurogym_v.testing import ConformanceError

GeneratorFactory = Callable[[], Generator]
"""factory(): a generator; it may be the same one each time."""
DRAWS = 64
"""Latents an estimate of the prior rests on; with few dimensions more, for 20,000 numbers in all."""


def check_generator(factory: GeneratorFactory, *, batch_size: int = 6, tolerance: float = 1e-5) -> None:
    """Check a generator against the contract of `neurogym_v.generators.Generator`.

    Attributes; shapes, dtype, device and range of the images for latents of the prior, for 0 and at ±bound; a batch
    gives the images of its rows alone; the same latents give the same images, from a second load too, other latents
    others; the latents given are not changed; the gradient reaches every latent; samples are standard normal, by the
    seed of the caller alone; images come back from `draw`, and from the other devices there are (torch modules).

    Args:
        factory: called twice.
        batch_size: of the batches to check with; at least 2.
        tolerance: on images that should be equal but may be added up in another order.

    Raises:
        ConformanceError: with the first property that does not hold.
    """
    generator = factory()
    _check_attributes(generator)
    latents = _check_samples(generator, batch_size)
    _check_prior(generator)
    images = _check_images(generator, latents)
    _check_rows(generator, latents, images, tolerance)
    _check_repeatable(generator, factory(), latents, images, tolerance)
    _check_gradient(generator, latents)
    _check_draw(generator, latents, images, tolerance)
    _check_devices(generator, latents, images)


def _expect(holds: bool, property_: str) -> None:
    if not holds:
        raise ConformanceError(property_)


def _images(generator: Generator, latents: Tensor, what: str) -> Tensor:
    """What the generator makes of the latents, without gradient; they are not to be changed."""
    before = latents.clone()
    try:
        with torch.no_grad():
            images = generator(latents)
    except Exception as error:
        raise ConformanceError(f"with {what}, the generator raised {error!r}") from error
    _expect(torch.equal(latents, before), f"the generator does not change the latents it is given ({what})")
    return images


def _check_attributes(generator: Generator) -> None:
    for name in ("latent_dim", "image_size"):
        value = getattr(generator, name, None)
        _expect(isinstance(value, int) and value > 0, f"{name} is a whole number above 0, got {value!r}")
    bound = getattr(generator, "bound", None)
    _expect(
        isinstance(bound, float | int) and 1 <= bound < math.inf,
        f"bound is a finite number of 1 or more (a standard deviation of the prior), got {bound!r}",
    )


def _check_samples(generator: Generator, n: int) -> Tensor:
    """Shapes of samples and where their randomness comes from; returns one batch."""
    d = generator.latent_dim
    rng = np.random.default_rng(3)
    try:
        first, next_ = generator.sample(n, rng), generator.sample(n, rng)
        torch.rand(7)  # the global generator moves on
        again, other = (generator.sample(n, np.random.default_rng(seed)) for seed in (3, 4))
    except Exception as error:
        raise ConformanceError(f"sample({n}, rng) raised {error!r}") from error
    for sample in (first, next_, again, other):
        is_tensor = isinstance(sample, Tensor)
        found = f"{tuple(sample.shape)} {sample.dtype}" if is_tensor else repr(type(sample))
        _expect(
            is_tensor and sample.shape == (n, d) and sample.dtype == torch.float32 and bool(sample.isfinite().all()),
            f"sample({n}, rng) gives a ({n}, {d}) float32 tensor, all finite, got {found}",
        )
    _expect(torch.equal(first, again), "sample() with equal random generators gives equal latents")
    _expect(not torch.equal(first, next_), "sample() twice with the same random generator gives other latents")
    _expect(not torch.equal(first, other), "sample() with another seed gives other latents")
    _expect(not first.requires_grad, "sample() gives latents without a gradient")
    return first


def _check_prior(generator: Generator) -> None:
    """Loose tests, at six standard errors or more: none fails by chance, any real difference fails."""
    d = generator.latent_dim
    n = max(DRAWS, math.ceil(20_000 / d))
    sample = generator.sample(n, np.random.default_rng(5)).double().cpu()
    total = n * d
    mean, sd = float(sample.mean()), float(sample.std())
    _expect(abs(mean) < 6 / total**0.5, f"samples have the mean 0 of the standard normal prior, got {mean:.3f}")
    _expect(abs(sd - 1) < 6 / (2 * total) ** 0.5, f"samples have the s.d. 1 of the standard normal prior, got {sd:.3f}")
    outside, expected = float((sample.abs() > 2).double().mean()), math.erfc(2**0.5)
    _expect(
        abs(outside - expected) < 6 * (expected / total) ** 0.5,
        f"samples are normal: a share of {expected:.3f} is expected outside ±2, got {outside:.3f}",
    )
    each = sample.std(dim=0)
    worst = int((each - 1).abs().argmax())
    _expect(
        bool((sample.mean(dim=0).abs() < 8 / n**0.5).all()) and abs(float(each[worst]) - 1) < 8 / (2 * n) ** 0.5,
        f"every latent has mean 0 and s.d. 1 over samples, got s.d. {float(each[worst]):.2f} in latent {worst}",
    )
    together = float(sample.mean(dim=1).std()) * d**0.5
    _expect(
        abs(together - 1) < 8 / (2 * n) ** 0.5,
        f"latents of a sample are independent: the s.d. of their mean times sqrt({d}) should be 1, got {together:.2f}",
    )


def _check_images(generator: Generator, latents: Tensor) -> Tensor:
    """Shape, type and range; returns the images of `latents`."""
    d, size = generator.latent_dim, generator.image_size
    corners = generator.bound * torch.sign(latents)
    ends = generator.bound * torch.stack([torch.ones(d), -torch.ones(d)]).to(latents)
    batches = {
        "latents of the prior": latents,
        "latents of 0": torch.zeros_like(latents[:1]),
        "latents at ±bound": corners,
        "all latents at the same bound": ends,
    }
    made = {}
    for what, batch in batches.items():
        images = made[what] = _images(generator, batch, what)
        _expect(isinstance(images, Tensor), f"the generator gives a tensor, got {type(images)!r} ({what})")
        _expect(
            images.shape == (len(batch), 3, size, size) and images.dtype == torch.float32,
            f"{len(batch)} latents give ({len(batch)}, 3, {size}, {size}) float32 images, "
            f"got {tuple(images.shape)} {images.dtype} ({what})",
        )
        _expect(images.device == batch.device, f"images are on the device of the latents, got {images.device} ({what})")
        _expect(bool(images.isfinite().all()), f"images are finite ({what})")
        low, high = float(images.min()), float(images.max())
        _expect(low >= 0 and high <= 1, f"images lie in [0, 1], got [{low:.3g}, {high:.3g}] ({what})")
    images = made["latents of the prior"]
    apart = torch.pdist(images.flatten(1), p=torch.inf).min()  # in the value that differs most
    _expect(float(apart) > 1 / 255, "different latents of the prior give images that look different")
    return images


def _check_rows(generator: Generator, latents: Tensor, images: Tensor, tolerance: float) -> None:
    alone = torch.cat([_images(generator, row[None], "one latent alone") for row in latents])
    difference = float((alone - images).abs().max())
    _expect(
        difference <= tolerance,
        f"an image does not depend on its batch: alone it differs by {difference:.2g}, more than {tolerance:.2g}",
    )


def _check_repeatable(generator: Generator, second: Generator, latents: Tensor, images: Tensor, tolerance: float) -> None:
    again = _images(generator, latents, "the same latents again")
    _expect(float((again - images).abs().max()) <= tolerance, "the same latents give the same images each time")
    loaded = _images(second, latents, "a second generator of the factory")
    _expect(
        float((loaded - images).abs().max()) <= tolerance,
        "generators of one factory give the same images: sessions are resumed with another than they began with",
    )


def _check_gradient(generator: Generator, latents: Tensor) -> None:
    asked = latents.clone().requires_grad_()
    images = generator(asked)
    _expect(images.requires_grad, "images are differentiable: they carry a gradient where the latents ask for one")
    # of a generic number of the image: its mean, say, ignores all gratings
    generic = np.random.default_rng(6).standard_normal(tuple(images.shape), dtype=np.float32)
    (gradient,) = torch.autograd.grad((images * torch.from_numpy(generic).to(images)).sum(), asked, allow_unused=True)
    _expect(gradient is not None, "images are differentiable: the gradient reaches the latents")
    _expect(bool(gradient.isfinite().all()), "the gradient is finite")
    reached = (gradient != 0).any(dim=0)
    missing = int((~reached).sum())
    example = int(reached.int().argmin())
    _expect(missing == 0, f"the gradient reaches every latent; {missing} change no image, such as latent {example}")


def _check_draw(generator: Generator, latents: Tensor, images: Tensor, tolerance: float) -> None:
    """As a session does it: numpy latents in inference mode."""
    try:
        drawn = draw(generator, latents.cpu().numpy())
    except Exception as error:
        raise ConformanceError(f"neurogym_v.generators.draw raised {error!r}") from error
    off = (drawn.to(images) - 255 * images).abs().max()
    _expect(float(off) <= 0.5 + 255 * tolerance + 1e-3, "the images that draw() shows are those of the same latents")


def _check_devices(generator: Generator, latents: Tensor, images: Tensor) -> None:
    """A torch module follows `to`, whole, and draws what it drew; on a GPU, convolutions round more coarsely."""
    if not isinstance(generator, nn.Module):
        return
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        moved = copy.deepcopy(generator).to(device)
        what = f"the generator moved to {device}"
        there = _images(moved, latents.to(device), what)
        _expect(there.device.type == device, f"{what} gives images there, got {there.device}")
        _expect(float((there.cpu() - images.cpu()).abs().max()) < 0.02, f"{what} gives the same images")
        sampled = moved.sample(1, np.random.default_rng(3)).device.type
        _expect(sampled == device, f"{what} samples latents there, got {sampled}")
        draw(moved, latents.cpu().numpy())
