"""The generators without a network, against closed forms: pixels, gratings, principal components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neurogym_v import weights
from neurogym_v.generators.components import KIND, Components, main
from neurogym_v.generators.fourier import CORRELATION, Fourier
from neurogym_v.generators.pixel import Pixel
from neurogym_v.references import load_references
from neurogym_v.registry import load_generator
from neurogym_v.types import NeuroGymError
from neurogym_v.weights import WeightsError

SD = 0.22
"""Of pixels under the prior."""


@pytest.fixture(scope="module")
def references() -> torch.Tensor:
    return load_references(size=64).images


@pytest.fixture(scope="module")
def components() -> Components:
    return Components.load()


def prior(generator: Pixel | Components, n: int, seed: int = 0) -> torch.Tensor:
    return generator.sample(n, np.random.default_rng(seed))


# pixels


@pytest.mark.parametrize("cls", [Pixel, Fourier])
@pytest.mark.parametrize("variant", [None, "64", "128"])
def test_variants_are_sides(cls: type[Pixel], variant: str | None) -> None:
    side = int(variant or 64)
    name = cls.__name__.lower()
    generator = load_generator(f"{name}:{variant}" if variant else name, device="cpu")
    assert type(generator) is cls
    assert (generator.image_size, generator.latent_dim) == (side, 3 * side * side)
    assert generator(prior(generator, 2)).shape == (2, 3, side, side)
    assert not any(parameter.requires_grad for parameter in generator.parameters())


@pytest.mark.parametrize("cls", [Pixel, Fourier])
def test_what_cannot_be_loaded_is_said(cls: type[Pixel], tmp_path: Path) -> None:
    with pytest.raises(NeuroGymError, match=r"expected a side in px of 64, 128, got '100'"):
        cls.load(variant="100")
    with pytest.raises(WeightsError, match="has no weights"):
        cls.load(tmp_path / "pixel.safetensors")


def test_the_gain_gives_the_contrast_that_it_names() -> None:
    """By quadrature over the prior, and between the contrasts of photographs."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(60)
    z = torch.from_numpy(np.tile(nodes, (3 * 64 * 64, 1)).T.astype(np.float32))
    images = Pixel().double()(z.double())
    variance = np.sum(mass / mass.sum() * (images[:, 0, 0, 0].detach().numpy() - 0.5) ** 2)
    assert variance**0.5 == pytest.approx(SD, abs=1e-4)


def test_the_contrast_is_between_those_of_photographs(references: torch.Tensor) -> None:
    pixels = references.double() / 255
    within = (pixels - pixels.mean(dim=(2, 3), keepdim=True)).std()
    assert float(within) == pytest.approx(0.17, abs=0.005)
    assert float(pixels.std()) == pytest.approx(0.25, abs=0.005)


@given(index=st.integers(0, 3 * 64 * 64 - 1), value=st.floats(-6, 6), more=st.floats(0.125, 3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_pixel_is_its_latent_alone_and_grows_with_it(index: int, value: float, more: float) -> None:
    latents = prior(Pixel(), 1).repeat(2, 1)
    latents[0, index], latents[1, index] = value, value + more
    low, high = Pixel()(latents).flatten(1)
    changed = (low != high).nonzero().flatten().tolist()
    assert changed == [index]
    assert low[index] < high[index]
    mirrored = Pixel()(-latents[:1]).flatten()
    torch.testing.assert_close(mirrored[index], 1 - low[index])


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_saturated_pixel_still_has_a_gradient_at_the_bound(sign: float) -> None:
    pixel = Pixel.load()
    latents = torch.full((1, pixel.latent_dim), sign * pixel.bound, requires_grad=True)
    images = pixel(latents)
    assert set((images * 255).round().flatten().tolist()) == {255.0 if sign > 0 else 0.0}
    (gradient,) = torch.autograd.grad(images.sum(), latents)
    assert float(gradient.min()) > 1e-3


# gratings


@pytest.mark.parametrize("side", [7, 8])
def test_the_map_from_latents_to_pixels_has_full_rank(side: int) -> None:
    """Its singular values are the amplitudes of the gratings times those of the colours, none 0: no latent is idle."""
    fourier = Fourier(side).double().requires_grad_(False)
    matrix = fourier.field(torch.eye(fourier.latent_dim, dtype=torch.float64)).flatten(1)
    found = torch.linalg.svdvals(matrix)
    colours = torch.linalg.svdvals(fourier.colours)
    expected = torch.outer(colours, fourier.amplitude.flatten()).flatten().sort(descending=True).values
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert float(found[-1]) > 0.01
    assert torch.linalg.matrix_rank(matrix) == fourier.latent_dim


@pytest.mark.parametrize("side", [64, 128])
def test_latents_are_found_again_in_the_image(side: int) -> None:
    """The inverse: colours by the inverse matrix, gratings by the same transform, which undoes itself."""
    fourier = Fourier(side).requires_grad_(False)
    latents = prior(fourier, 2)
    image = fourier(latents).double()
    axes = torch.einsum("ac,ncyx->nayx", torch.linalg.inv(fourier.colours.double()), torch.logit(image) / fourier.gain)
    waves = torch.fft.fft2(axes, norm="ortho")
    found = ((waves.real - waves.imag) / fourier.amplitude).flatten(1)
    torch.testing.assert_close(found.float(), latents, atol=2e-3, rtol=0)


@given(axis=st.integers(0, 2), u=st.integers(-7, 8), v=st.integers(-7, 8))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_latent_is_one_grating_in_one_colour(axis: int, u: int, v: int) -> None:
    side = 16
    fourier = Fourier(side).requires_grad_(False)
    latents = torch.zeros(3, side, side)
    latents[axis, u, v] = 2.0
    y, x = np.mgrid[:side, :side]
    phase = 2 * np.pi * (u * y + v * x) / side
    grating = torch.from_numpy(np.sqrt(2) * np.cos(phase - np.pi / 4) / side)
    amplitude = 2.0 * float(fourier.amplitude[0, 1]) / max(1.0, np.hypot(u, v))  # 1/f, relative to one cycle an image
    expected = amplitude * fourier.colours[:, axis, None, None] * grating
    torch.testing.assert_close(fourier.field(latents.flatten()[None])[0], expected.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [9, 16])
def test_every_pixel_has_the_same_variance_and_the_colours_of_photographs(side: int) -> None:
    """The covariance of the field, in closed form: J J^T of the linear map."""
    fourier = Fourier(side).double().requires_grad_(False)
    jacobian = fourier.field(torch.eye(fourier.latent_dim, dtype=torch.float64))
    covariance = torch.einsum("jcyx,jdyx->yxcd", jacobian, jacobian)
    expected = torch.tensor(CORRELATION, dtype=torch.float64).expand(side, side, 3, 3)
    torch.testing.assert_close(covariance, expected, atol=1e-6, rtol=0)


def test_the_colours_are_those_of_the_references(references: torch.Tensor) -> None:
    measured = np.corrcoef(references.double().permute(1, 0, 2, 3).flatten(1).numpy())
    np.testing.assert_allclose(measured, CORRELATION, atol=0.002)


def test_axes_of_colour_are_repeatable_and_named_right() -> None:
    light, red, green = Fourier(8).colours.T.tolist()
    assert min(light) > 0.8
    assert red[0] > 0 > red[2]
    assert green[1] > 0 > max(green[0], green[2])


@pytest.mark.parametrize("side", [64, 128])
def test_power_falls_as_one_over_f_squared(side: int) -> None:
    fourier = Fourier(side).requires_grad_(False)
    field = fourier.field(prior(fourier, 40))
    power = torch.fft.fft2(field, norm="ortho").abs().square().mean(dim=(0, 1)).flatten()
    cycles = torch.fft.fftfreq(side) * side
    frequency = torch.hypot(cycles[:, None], cycles[None, :]).flatten()
    kept = (frequency >= 1) & (frequency < side / 2)
    slope, _ = np.polyfit(frequency[kept].log().numpy(), power[kept].log().numpy(), 1)
    assert slope == pytest.approx(-2, abs=0.05)


@pytest.mark.parametrize("cls", [Pixel, Fourier])
def test_the_prior_has_the_contrast_of_photographs(cls: type[Pixel]) -> None:
    generator = cls.load()
    images = torch.cat([generator(prior(generator, 100, seed)) for seed in range(3)])
    assert float(images.mean()) == pytest.approx(0.5, abs=0.01)
    for channel in images.unbind(1):
        assert float(channel.std()) == pytest.approx(SD, abs=0.005)


# components


def test_latents_of_the_photographs_are_white(components: Components, references: torch.Tensor) -> None:
    """Over the photographs and their mirror images, which it was fitted to."""
    latents = components.encode(torch.cat((references, references.flip(-1))) / 255).double()
    assert float(latents.mean(dim=0).abs().max()) < 1e-3
    covariance = latents.T @ latents / len(latents)
    torch.testing.assert_close(covariance, torch.eye(256, dtype=torch.float64), atol=2e-3, rtol=0)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    """Of the centred pixels, which the fit never decomposes."""
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (150, 3, 16, 16), dtype=np.uint8)
    images = torch.from_numpy(np.kron(small, np.ones((1, 1, 4, 4), dtype=np.uint8)))
    fitted = Components.fit(images)
    pixels = torch.cat((images, images.flip(-1))).flatten(1).double() / 255
    torch.testing.assert_close(fitted.mean.flatten().double(), pixels.mean(dim=0), atol=1e-6, rtol=0)
    _, sizes, axes = torch.linalg.svd(pixels - pixels.mean(dim=0), full_matrices=False)
    lengths = fitted.basis.double().norm(dim=1)
    torch.testing.assert_close(lengths, sizes[:256] / len(pixels) ** 0.5, atol=0, rtol=1e-5)
    # the space they span: single axes are defined only as far as variances differ
    projected = fitted.basis.double() / lengths[:, None] @ axes[:256].T
    torch.testing.assert_close(projected @ projected.T, torch.eye(256, dtype=torch.float64), atol=1e-3, rtol=0)


def test_components_are_even_or_odd_orthogonal_and_of_one_sign(components: Components) -> None:
    maps = components.basis.unflatten(1, (3, 64, 64))
    scale = maps.square().sum(dim=(1, 2, 3))
    symmetry = (maps * maps.flip(-1)).sum(dim=(1, 2, 3)) / scale
    torch.testing.assert_close(symmetry.abs(), torch.ones(256), atol=1e-2, rtol=0)
    assert {-1, 1} == set(symmetry.sign().int().tolist())
    assert (scale.diff() <= 0).all()
    left = maps[..., :32].flatten(1)
    assert (left.gather(1, left.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_the_order_of_the_photographs_does_not_matter(components: Components, references: torch.Tensor) -> None:
    """Nor does it which of them are mirrored; rounding is all that differs."""
    order = torch.from_numpy(np.random.default_rng(2).permutation(len(references)))
    shuffled = references[order]
    shuffled[::2] = shuffled[::2].flip(-1)
    again = Components.fit(shuffled)
    torch.testing.assert_close(again.mean, components.mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.basis, components.basis, atol=1e-4, rtol=0)


@given(st.lists(st.floats(-1, 1), min_size=256, max_size=256), st.integers(0, 99))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_images_are_linear_where_nothing_is_clipped(components: Components, weights_: list[float], seed: int) -> None:
    one, other = 0.2 * prior(components, 2, seed)
    mixed = torch.tensor(weights_) * other
    first, second, both = components(torch.stack([one, mixed, one + mixed])).flatten(1)
    inside = torch.stack([first, second, both]).sub(0.5).abs().amax(dim=0) < 0.5
    assert float(inside.float().mean()) > 0.5
    torch.testing.assert_close((both - second)[inside], (first - components.mean.flatten())[inside], atol=1e-5, rtol=0)


def test_clipping_is_all_that_happens_outside(components: Components) -> None:
    latents = prior(components, 50)
    plain = components.mean.flatten() + latents @ components.basis
    images = components(latents).flatten(1)
    torch.testing.assert_close(images, plain.clamp(0, 1), atol=1e-5, rtol=0)
    assert 0.02 < float(((plain < 0) | (plain > 1)).float().mean()) < 0.1


def test_the_prior_has_the_covariance_of_the_photographs(components: Components, references: torch.Tensor) -> None:
    """Within the 256 dimensions, which hold 94% of the variance."""
    pixels = torch.cat((references, references.flip(-1))).flatten(1).double() / 255
    pixels -= pixels.mean(dim=0)
    basis = components.basis.double()
    assert float(basis.square().sum() / pixels.square().sum() * len(pixels)) == pytest.approx(0.945, abs=0.01)
    units = basis / basis.norm(dim=1, keepdim=True)
    of_photographs = (pixels @ units.T).T @ (pixels @ units.T) / len(pixels)
    of_prior = (units @ basis.T) @ (units @ basis.T).T
    torch.testing.assert_close(of_prior, of_photographs, atol=1e-3, rtol=1e-3)


def test_photographs_are_drawn_from_their_latents(components: Components, references: torch.Tensor) -> None:
    some = references[:40] / 255
    error = (components(components.encode(some)) - some).square().mean().sqrt()
    assert float(error) < 0.35 * float(some.std())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, references: torch.Tensor) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for k, image in enumerate(references[:140]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{k:03d}.png")
    return folder


def test_components_of_a_folder_are_loaded_by_their_path(folder: Path, references: torch.Tensor, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    assert main(["--images", str(folder), "--out", str(out)]) == 0
    loaded = load_generator(str(out), device="cpu")
    assert isinstance(loaded, Components)
    expected = Components.fit(references[:140])
    assert torch.equal(loaded.basis, expected.basis)
    _, card = weights.load(out, kind=KIND)
    assert card["read"] == 140
    assert 0.9 < float(str(card["share_of_variance"])) <= 1


def test_too_few_photographs_are_refused(references: torch.Tensor) -> None:
    with pytest.raises(NeuroGymError, match=r"expected photographs in 256 dimensions or more, got 19$"):
        Components.fit(references[:10])
    with pytest.raises(NeuroGymError, match=r"in 256 dimensions or more, got 19$"):
        Components.fit(references[:10].repeat(30, 1, 1, 1))
    with pytest.raises(NeuroGymError, match=r"expected \(n, 3, 64, 64\) photographs, got \(300, 3, 32, 32\)"):
        Components.fit(references[:300, :, ::2, ::2])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "mine.npz"], "ends in .safetensors, found '.npz'"),
        (["--images", "nowhere", "--out", "x.safetensors"], "expected a folder or a .zip file"),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--images", str(folder), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_files_of_others_are_refused(tmp_path: Path, components: Components) -> None:
    path = tmp_path / "other.safetensors"
    weights.save(path, components.state_dict(), kind="generator:natural", card={})
    with pytest.raises(WeightsError, match="expected kind 'generator:components'"):
        Components.load(path)
    weights.save(path, {"mean": components.mean}, kind=KIND, card={})
    with pytest.raises(WeightsError, match="found them without .*basis"):
        Components.load(path)
