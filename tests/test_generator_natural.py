"""The photographic generator: what it makes of latents, and which files it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neurogym_v import weights
from neurogym_v.generators.natural import KIND, SHIPPED, Natural
from neurogym_v.weights import WeightsError


@pytest.fixture(scope="module")
def natural() -> Natural:
    return Natural.load()


def test_images_are_colour_squares_in_range(natural: Natural) -> None:
    images = natural(natural.sample(5, np.random.default_rng(0)))
    assert images.shape == (5, 3, natural.image_size, natural.image_size)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_no_latents_are_no_images(natural: Natural) -> None:
    assert natural(torch.zeros(0, natural.latent_dim)).shape == (0, 3, 64, 64)


def test_an_image_does_not_depend_on_its_batch(natural: Natural) -> None:
    latents = natural.sample(6, np.random.default_rng(1))
    together = natural(latents)
    alone = torch.cat([natural(row[None]) for row in latents])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_gradient_reaches_every_latent_and_no_weight(natural: Natural) -> None:
    latents = natural.sample(3, np.random.default_rng(2)).requires_grad_()
    natural(latents).square().mean().backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()
    assert (latents.grad != 0).all()
    assert not natural.training
    assert all(parameter.grad is None for parameter in natural.parameters())


def test_latents_come_from_the_generator_of_the_caller(natural: Natural) -> None:
    first, again, other = (natural.sample(50, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (50, natural.latent_dim)
    assert first.dtype == torch.float32
    assert abs(float(first.mean())) < 0.05
    assert abs(float(first.std()) - 1) < 0.05


def test_samples_of_the_prior_differ(natural: Natural) -> None:
    """No two of 200 images of the prior are near duplicates, and as a set they are of many colours and contrasts."""
    images = natural(natural.sample(200, np.random.default_rng(5)))
    small = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
    distance = torch.cdist(small, small) / small.shape[1] ** 0.5
    distance.fill_diagonal_(torch.inf)
    assert float(distance.min()) > 0.05
    assert float(images.mean(dim=(2, 3)).std(dim=0).mean()) > 0.08


def test_small_steps_make_small_changes(natural: Natural) -> None:
    rng = np.random.default_rng(6)
    latents, direction = natural.sample(20, rng), natural.sample(20, rng)
    near = (natural(latents + 0.05 * direction) - natural(latents)).square().mean().sqrt()
    far = (natural(direction) - natural(latents)).square().mean().sqrt()
    assert float(near) < 0.15 * float(far)


@pytest.mark.parametrize("stretch", [0.0, 2.0, 3.0, 100.0])
def test_latents_off_the_prior_still_make_images(natural: Natural, stretch: float) -> None:
    images = natural(stretch * natural.sample(20, np.random.default_rng(7)))
    assert torch.isfinite(images).all()
    saturated = ((images < 0.004) | (images > 0.996)).float().mean()
    assert float(saturated) < 0.3


def test_an_image_of_a_latent_has_that_latent_as_its_code(natural: Natural) -> None:
    """Not exactly: but it is nearer to the latent that drew it than to any other of 50."""
    latents = natural.sample(50, np.random.default_rng(8))
    codes = natural.encode(natural(latents))
    nearest = torch.nn.functional.normalize(codes) @ torch.nn.functional.normalize(latents).T
    assert float((nearest.argmax(dim=1) == torch.arange(50)).float().mean()) > 0.9


def test_encoding_is_differentiable_and_takes_any_size(natural: Natural) -> None:
    images = torch.rand((2, 3, 100, 100), generator=torch.Generator().manual_seed(0)).requires_grad_()
    codes = natural.encode(images)
    assert codes.shape == (2, natural.latent_dim)
    codes.square().sum().backward()
    assert images.grad is not None and (images.grad != 0).any()


@pytest.mark.parametrize("card", [{}, {"size": 65}, {"size": "64"}])
def test_a_file_without_a_known_size_is_refused(tmp_path: Path, natural: Natural, card: dict[str, object]) -> None:
    path = tmp_path / "size.safetensors"
    weights.save(path, natural.state_dict(), kind=KIND, card=card)
    with pytest.raises(WeightsError, match="a card with size 64 or 128, found"):
        Natural.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found no"):
        Natural.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(SHIPPED.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="damaged"):
        Natural.load(path)


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    content = bytearray(SHIPPED.read_bytes())
    content[-1000] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        Natural.load(path)


def test_weights_of_another_kind_are_refused(tmp_path: Path, natural: Natural) -> None:
    path = tmp_path / "other.safetensors"
    weights.save(path, natural.state_dict(), kind="neuron:other", card={})
    with pytest.raises(WeightsError, match=r"expected kind 'generator:natural', found 'neuron:other'"):
        Natural.load(path)


@pytest.mark.parametrize("change", ["renamed", "missing", "more", "shape", "number", "nan"])
def test_other_tensors_are_refused_in_one_line(tmp_path: Path, natural: Natural, change: str) -> None:
    tensors = dict(natural.state_dict())
    first = next(iter(tensors))
    if change == "renamed":
        tensors["begin"] = tensors.pop(first)
    elif change == "missing":
        del tensors[first]
    elif change == "more":
        tensors["more"] = torch.zeros(1)
    elif change == "shape":
        tensors[first] = tensors[first][:-1]
    elif change == "nan":
        tensors[first] = tensors[first] * float("nan")
    else:
        tensors[first] = tensors[first].to(torch.int64)
    path = tmp_path / "tensors.safetensors"
    weights.save(path, tensors, kind=KIND, card={"size": 64})
    with pytest.raises(WeightsError, match=r"expected .*found") as error:
        Natural.load(path)
    assert "\n" not in str(error.value)


def test_the_card_of_the_weights_names_their_digest() -> None:
    tensors, _ = weights.load(SHIPPED, kind=KIND)
    assert weights.digest(tensors) in SHIPPED.with_suffix(".md").read_text()
