"""The surrogate finds what a neuron is made of; the ascent climbs it as its closed forms say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neurogym_v.fitting.features import PIXELS, Candidate, look
from neurogym_v.fitting.ridge import Ridge
from neurogym_v.fitting.what_where import WhatWhere
from neurogym_v.generators import Generator, draw
from neurogym_v.generators.pixel import Pixel
from neurogym_v.stats import pearson
from neurogym_v.synthesis.ascent import Ascent, check_gradient, climb, filtered, low_pass, total_variation
from neurogym_v.synthesis.surrogate import FEWEST, Surrogate, views
from neurogym_v.types import Latents, NeuroGymError, Rates

EYE = Candidate(PIXELS, 0, 8)
PLAIN = Ascent(iterations=12, step=0.1, last_step=0.1)


def prior(n: int, d: int, seed: int = 0) -> Latents:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def linear_neuron(generator: Generator, eye: Candidate = EYE) -> Callable[[Latents], Rates]:
    """Spikes/s that are linear in an eye's maps: what a readout can learn, exactly."""
    filters = np.random.default_rng(1).standard_normal(3 * eye.size**2)

    def rates(latents: Latents) -> Rates:
        maps = look(draw(generator, latents), [eye])[eye].values.reshape(len(latents), -1)
        return np.asarray(30 + 4 * (maps - 0.5) @ filters)

    return rates


@pytest.fixture
def fitted(cosines) -> tuple[Surrogate, Callable[[Latents], Rates], Latents]:
    """A ridge that was shown 200 images of a neuron that is linear in what it sees."""
    neuron, shown = linear_neuron(cosines), prior(200, 36)
    surrogate = Surrogate(cosines, [EYE], [Ridge()])
    surrogate.add(shown, neuron(shown))
    assert surrogate.fit()
    return surrogate, neuron, shown


def test_a_neuron_that_is_linear_in_the_maps_is_recovered(fitted, cosines) -> None:
    surrogate, neuron, _ = fitted
    new = prior(50, 36, seed=9)
    np.testing.assert_allclose(surrogate.predict(new), neuron(new), atol=0.25 * neuron(new).std())  # ridge shrinks a little
    assert pearson(surrogate.predict(new)[:, None], neuron(new)[:, None])[0] > 0.99
    assert surrogate.held_out_r() > 0.99


def test_the_gradient_sees_what_the_prediction_says(fitted, cosines) -> None:
    """The differentiable model, its prediction of latents, and that of images looked at before, are one and the same."""
    surrogate, _, shown = fitted
    new = prior(6, 36, seed=9)
    with torch.no_grad():
        units = surrogate(draw(cosines, np.concatenate([new, shown[:6]])).float() / 255).mean(dim=1).double().numpy()
    predicted = surrogate.predict(np.concatenate([new, shown[:6]]))
    slope, _ = np.polyfit(units, predicted, 1)
    np.testing.assert_allclose(predicted, predicted.mean() + slope * (units - units.mean()), rtol=1e-5)
    assert surrogate.predict(shown).std() == pytest.approx(slope, rel=1e-4)  # the unit: s.d. over the images shown


def test_the_ascent_beats_the_best_image_of_the_mapping(fitted, cosines) -> None:
    surrogate, neuron, shown = fitted
    rng = np.random.default_rng(0)
    best = shown[np.argsort(neuron(shown))[-5:]]
    reached = neuron(climb(lambda images: surrogate(images)[:, 0], cosines, best, PLAIN, rng))
    assert reached.min() > neuron(shown).max()


def test_each_step_of_the_ascent_goes_up(fitted, cosines) -> None:
    surrogate, _, shown = fitted
    paths = [shown[:4]]
    for _ in range(8):
        one = Ascent(iterations=1, step=0.05, last_step=0.05)
        paths.append(climb(lambda images: surrogate(images)[:, 0], cosines, paths[-1], one, np.random.default_rng(0)))
    assert (np.diff([surrogate.predict(latents) for latents in paths], axis=0) > 0).all()


def brightness(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3))


@given(norm=st.none() | st.floats(0.2, 3.0), step=st.floats(0.01, 100.0), jitter=st.floats(0.0, 0.9), blur=st.floats(0.0, 0.2))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_ascent_stays_within_the_bound_and_at_its_length(norm, step, jitter, blur) -> None:
    generator = Pixel(8)
    how = Ascent(iterations=3, step=step, last_step=step, jitter=jitter, blur=blur, exponent=0.1, variation=500.0, norm=norm)
    latents = climb(brightness, generator, prior(3, generator.latent_dim), how, np.random.default_rng(0))
    assert np.isfinite(latents).all()
    assert np.abs(latents).max() <= generator.bound
    if norm is not None and np.abs(latents).max() < generator.bound:
        np.testing.assert_allclose(np.linalg.norm(latents, axis=1), norm * np.sqrt(generator.latent_dim), rtol=1e-4)


def test_a_step_has_the_size_that_is_asked_for_and_shrinks() -> None:
    """Of latents whose every dimension has its own gradient: g / std(g), times the step."""
    weights = torch.from_numpy(prior(1, 192)[0]).reshape(3, 8, 8)
    generator = Pixel(8)
    start = np.zeros((1, 192), np.float32)

    def score(images: Tensor) -> Tensor:
        return (images * weights).sum(dim=(1, 2, 3))

    one = climb(score, generator, start, Ascent(iterations=1, step=0.3, last_step=9), np.random.default_rng(0))
    np.testing.assert_allclose(one[0], 0.3 * weights.flatten() / weights.std(correction=0), rtol=1e-5)
    two = climb(score, generator, start, Ascent(iterations=2, step=0.003, last_step=0.001), np.random.default_rng(0))
    assert two.std() == pytest.approx(0.004, rel=1e-3)


def test_jitter_is_of_the_image_and_taken_back() -> None:
    """What is climbed is the mean over shifts: a score that looks at one pixel lifts all those that jitter may bring there."""

    def one_pixel(images: Tensor) -> Tensor:
        return images[:, :, 4, 4].sum(dim=1)

    def lifted(jitter: float) -> int:
        how = Ascent(iterations=200, step=0.01, last_step=0.01, jitter=jitter)
        return int((climb(one_pixel, Pixel(8), np.zeros((1, 192), np.float32), how, np.random.default_rng(0)) > 0).sum())

    assert lifted(0.0) == 3
    assert lifted(1 / 8) == 3 * 9
    assert lifted(2 / 8) == 3 * 25


def test_where_the_gradient_is_not_finite_nothing_moves() -> None:
    starts = prior(2, 192)

    def score(images: Tensor) -> Tensor:
        broken = torch.tensor([1.0, torch.nan])
        return brightness(images) * broken

    reached = climb(score, Pixel(8), starts, PLAIN, np.random.default_rng(0))
    assert np.array_equal(reached[1], starts[1])
    assert (reached[0] > starts[0]).all()


def test_total_variation_is_the_published_one() -> None:
    """TensorFlow's l2_loss of the differences (half the sum of squares) over the pixels, both ways, of values in [-1, 1]."""
    images = torch.rand(2, 3, 299, 299, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for image, found in zip(images.numpy(), total_variation(images), strict=True):
        x = 2 * image - 1
        down, right = ((x[:, 1:] - x[:, :-1]) ** 2).sum() / 2, ((x[..., 1:] - x[..., :-1]) ** 2).sum() / 2
        assert float(found) == pytest.approx((down + right) / x.size)


def test_total_variation_hardly_depends_on_the_size_of_a_smooth_image() -> None:
    x = torch.linspace(0, 1, 598)
    large = (0.5 + 0.5 * torch.sin(2 * torch.pi * x) * torch.cos(2 * torch.pi * x[:, None])).expand(1, 3, -1, -1)
    small = torch.nn.functional.interpolate(large, (64, 64), mode="bilinear", antialias=True)
    assert float(total_variation(small)) == pytest.approx(float(total_variation(large)), rel=0.05)


def test_the_gradient_of_total_variation_is_a_laplacian() -> None:
    """Inside, it is 4 x a pixel less its neighbours, of values in [-1, 1], whose own slope is 2."""
    images = torch.rand(1, 3, 9, 9, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(total_variation(images).sum(), images)
    x = (2 * images - 1).detach()
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    expected = (4 * x[..., 1:-1, 1:-1] - around) * 2 / x.numel() * (9 / 299) ** 2
    torch.testing.assert_close(gradient[..., 1:-1, 1:-1], expected)


def test_low_pass_is_the_published_filter() -> None:
    gains = low_pass(16, 0.1, 0.0)
    for fy, fx in ((0, 0), (0, 1), (3, 4), (8, 8), (-2, 5)):
        assert float(gains[fy, fx] / gains[0, 0]) == pytest.approx(1 / max(1, fx**2 + fy**2) ** 0.1, rel=1e-5)
    assert float(gains.mean()) == pytest.approx(1, rel=1e-5)


def test_blur_is_a_gaussian() -> None:
    """An impulse becomes a Gaussian of that s.d."""
    impulse = torch.zeros(1, 3, 32, 32)
    impulse[..., 16, 16] = 1
    seen = filtered(impulse, low_pass(32, 0.0, 2.0))[0, 0]
    at = torch.arange(32) - 16.0
    expected = torch.exp(-(at**2 + at[:, None] ** 2) / (2 * 2.0**2))
    torch.testing.assert_close(seen / seen[16, 16], expected, atol=1e-4, rtol=0)


def test_low_frequencies_are_climbed_first() -> None:
    """Blurred gradients of a score that likes noise draw a smoother image, of the same length."""
    target = torch.from_numpy(prior(1, 192)[0]).reshape(3, 8, 8)

    def reached(blur: float) -> Tensor:
        how = Ascent(iterations=10, step=0.1, last_step=0.1, blur=blur, norm=1.0)
        latents = climb(
            lambda i: (i * target).sum((1, 2, 3)), Pixel(8), prior(1, 192, seed=3) * 1e-3, how, np.random.default_rng(0)
        )
        return total_variation(Pixel(8)(torch.from_numpy(latents)).detach())

    assert float(reached(0.2)) < 0.8 * float(reached(0.0))


def test_images_shown_again_count_once_with_their_mean(cosines) -> None:
    once, again = (Surrogate(cosines, [EYE], [Ridge()]) for _ in range(2))
    latents, scores = prior(30, 36), np.random.default_rng(0).poisson(20, (30, 2)).astype(float)
    once.add(latents, scores.mean(axis=1))
    for show in scores.T:
        again.add(latents, show)
    again.add(latents[:3], np.full(3, np.nan))
    assert len(again) == 30
    np.testing.assert_array_equal(again.observed(latents), scores.mean(axis=1))
    assert np.isnan(again.observed(prior(1, 36, seed=5))).all()
    assert again.shows(np.concatenate([latents, prior(1, 36, seed=5)])).tolist() == [2] * 30 + [0]
    assert once.fit() and again.fit()
    np.testing.assert_array_equal(once.predict(latents), again.predict(latents))


def test_images_and_latents_are_learned_from_alike(cosines) -> None:
    by_latents, by_images = (Surrogate(cosines, [EYE], [Ridge(), WhatWhere(penalties=((1, 1),), steps=50)]) for _ in range(2))
    latents, scores = prior(30, 36), np.random.default_rng(0).poisson(20, 30).astype(float)
    scores[7] = np.nan
    by_latents.add(latents, scores)
    by_images.add_images(draw(cosines, latents), scores)
    assert by_latents.fit() and by_images.fit()
    np.testing.assert_allclose(by_latents.predict(latents), by_images.predict(latents), rtol=1e-5)


def test_whole_photographs_judge_the_model() -> None:
    """Crops that look alike, and scores that only tell photographs apart: told of one crop, a model knows the next."""
    rng = np.random.default_rng(0)
    latents = np.repeat(prior(60, 192), 4, axis=0) + np.float32(0.1) * prior(240, 192, seed=5)
    scores = np.repeat(rng.standard_normal(60), 4) + 0.1 * rng.standard_normal(240)
    scores[::9] = np.nan

    def held_out_r(names: list[str] | None) -> float:
        surrogate = Surrogate(Pixel(8), [EYE], [Ridge()])
        surrogate.add_images(draw(Pixel(8), latents), scores, names)
        return surrogate.held_out_r()

    assert held_out_r(None) > 0.9
    assert held_out_r([f"{i}.png" for i in range(240)]) > 0.9  # a user's folder: each file is its own
    assert held_out_r([f"{i // 4}.png@{i},0,64" for i in range(240)]) < 0.5
    assert np.isnan(held_out_r([f"one.png@{i},0,64" for i in range(240)]))


def test_draws_are_held_out_one_by_one_beside_photographs(cosines) -> None:
    """Members are fitted to neither the first photograph of five nor every fifth draw."""
    latents, kept = prior(60, 36), []
    surrogate = Surrogate(cosines, [EYE], [Ridge()])
    surrogate.add_images(
        draw(cosines, latents[:30]), latents[:30, 1].astype(float), [f"{'abcde'[i % 5]}@{i}" for i in range(30)]
    )
    surrogate.add(latents[30:], latents[30:, 1].astype(float))
    readouts = surrogate._readouts
    surrogate._readouts = lambda rows, scores: kept.extend(rows) or readouts(rows, scores)  # type: ignore[method-assign, func-returns-value]
    assert surrogate.held_out_r() > 0.5
    held = sorted(set(range(60)) - set(kept))
    assert held == [*range(0, 30, 5), *range(30, 60, 5)]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e12])
def test_no_unit_of_the_scores_matters(cosines, unit: float) -> None:
    latents, scores = prior(60, 36), np.random.default_rng(0).poisson(20, 60).astype(float)
    predicted = []
    for scale in (1.0, unit):
        surrogate = Surrogate(cosines, [EYE], [Ridge()])
        surrogate.add(latents, scale * scores)
        assert surrogate.fit()
        predicted.append(surrogate.predict(latents) / scale)
    np.testing.assert_allclose(*predicted, rtol=1e-4)


def test_shares_are_fitted_by_their_log_odds(cosines) -> None:
    """Shares whose log odds are linear in the maps are predicted exactly, within [0, 1]; the same as rates they are not."""
    neuron, latents, new = linear_neuron(cosines), prior(300, 36), prior(60, 36, seed=9)

    def share(latents: Latents) -> Rates:
        return np.asarray(1 / (1 + np.exp(-(neuron(latents) - 40) / 5)))

    surrogate = Surrogate(cosines, [EYE], [Ridge()])
    surrogate.add(latents, share(latents))
    assert surrogate.fit()
    predicted = surrogate.predict(new)
    assert ((predicted > 0) & (predicted < 1)).all()
    np.testing.assert_allclose(predicted, share(new), atol=0.15)
    assert pearson(predicted[:, None], share(new)[:, None])[0] > 0.98
    as_rates = Surrogate(cosines, [EYE], [Ridge()])
    as_rates.add(latents, 1000 * share(latents))
    assert as_rates.fit()
    assert pearson(as_rates.predict(new)[:, None], share(new)[:, None])[0] < 0.95


@pytest.mark.parametrize("scores", [np.full(40, 7.0), np.full(40, np.nan), np.r_[np.arange(FEWEST - 1.0), np.full(40, np.nan)]])
def test_scores_that_say_nothing_are_fitted_by_nothing(cosines, scores: Rates) -> None:
    surrogate = Surrogate(cosines, [EYE], [Ridge()])
    surrogate.add(prior(len(scores), 36), scores)
    assert not surrogate.fit()
    assert not surrogate.fitted


def test_members_are_layers_times_fits(cosines) -> None:
    surrogate = Surrogate(cosines, views("lite2", None, 32, 2), [Ridge(), WhatWhere(penalties=((1, 1),), steps=20)])
    latents = prior(40, 36)
    surrogate.add(latents, latents[:, 1].astype(float))
    assert surrogate.fit()
    members = surrogate(torch.rand(2, 3, 32, 32))
    assert members.shape == (2, 4)
    assert len({round(float(value), 5) for value in members[0]}) == 4
    assert pearson(surrogate.predict(latents)[:, None], latents[:, 1:2].astype(float))[0] > 0.5


@pytest.mark.parametrize(
    ("network", "layers", "size", "sentence"),
    [
        ("lite2", (99,), None, "expected different layers of 0 to 20, got \\(99,\\)"),
        ("lite2", (3, 3), None, "expected different layers"),
        ("lite2", (), None, "expected different layers"),
        ("lite2", None, 0, "expected images of 1 to 1024 px, got size 0"),
        ("lite2", None, 1025, "expected images of 1 to 1024 px, got size 1025"),
        ("lite2", None, 64.5, "expected images of 1 to 1024 px, got size 64.5"),
        ("lite9", None, None, "unknown network 'lite9'"),
    ],
)
def test_views_that_do_not_exist_are_named(network, layers, size, sentence) -> None:
    with pytest.raises(NeuroGymError, match=sentence):
        views(network, layers, size, 2)


@pytest.mark.parametrize("field", ["step", "last_step", "jitter", "variation", "exponent", "blur", "norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e13, 10**400, "1"])
def test_an_ascent_is_of_finite_numbers(field: str, value: object) -> None:
    with pytest.raises(NeuroGymError, match=f"^ascent: expected {field} as a finite number within 1e\\+12, got "):
        replace(PLAIN, **{field: value})


@pytest.mark.parametrize("iterations", [0, 100_001, 2.0, float("nan")])
def test_an_ascent_ends(iterations: object) -> None:
    with pytest.raises(NeuroGymError, match="^ascent: expected iterations as a whole number of 1 to 100000, got "):
        replace(PLAIN, iterations=iterations)


def test_a_generator_without_gradients_is_named(cosines) -> None:
    check_gradient("someone", cosines, 36)
    with torch.inference_mode():
        check_gradient("someone", cosines, 36)
    with pytest.raises(NeuroGymError, match="^someone: expected a generator with gradients in the spec, got none$"):
        check_gradient("someone", None, 36)

    class Numb(type(cosines)):
        def forward(self, latents: Tensor) -> Tensor:
            return super().forward(latents.detach())

    with pytest.raises(NeuroGymError, match="^someone: expected a generator with gradients, got Numb, which has none$"):
        check_gradient("someone", Numb(), 36)
