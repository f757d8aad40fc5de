"""Inversion: latents are found again, starts come from encoders, and bad images are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neurogym_v.benchmarks.inversion import nearness
from neurogym_v.experiment import Experiment, RunConfig
from neurogym_v.generators import draw
from neurogym_v.generators.around import Around
from neurogym_v.generators.components import Components
from neurogym_v.generators.invert import invert
from neurogym_v.generators.natural import Natural
from neurogym_v.references import load_references
from neurogym_v.types import NeuroGymError


class Tiles:
    """48 numbers: the colours of 4 x 4 tiles. No encoder."""

    latent_dim, image_size, bound = 48, 32, 4.0

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        tiles = torch.sigmoid(latents).reshape(-1, 3, 4, 4)
        return torch.nn.functional.interpolate(tiles, scale_factor=8.0)

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((n, self.latent_dim), dtype=np.float32))


def test_images_that_a_generator_drew_are_found_again_without_an_encoder() -> None:
    tiles = Tiles()
    images = draw(tiles, tiles.sample(3, np.random.default_rng(1)).numpy())
    start, found = (draw(tiles, invert(tiles, images, steps=steps, rate=0.2)) for steps in (0, 60))
    far, near = nearness(start, images), nearness(found, images)
    assert near.psnr_db > far.psnr_db + 3
    assert min(near.correlation.values()) > 0.7
    assert all(near.correlation[layer] > near.chance[layer] + 0.5 for layer in near.correlation)


def test_an_encoder_gives_the_start_and_more_steps_are_never_worse() -> None:
    natural, images = Natural.load(), load_references(count=4, size=64).images
    start = invert(natural, images, steps=0)
    np.testing.assert_allclose(start, natural.encode(images.float() / 255).numpy(), atol=1e-4)
    better = nearness(draw(natural, invert(natural, images, steps=20)), images)
    worse = nearness(draw(natural, start), images)
    assert np.mean(list(better.correlation.values())) > np.mean(list(worse.correlation.values()))


def test_each_image_is_inverted_on_its_own() -> None:
    natural, images = Natural.load(), load_references(count=3, size=64).images
    together = invert(natural, images, steps=4)
    alone = np.concatenate([invert(natural, image[None], steps=4) for image in images])
    np.testing.assert_allclose(together, alone, atol=2e-2)


def test_photographs_in_the_span_of_components_come_back_whole() -> None:
    components = Components.load()
    images = components(0.5 * components.sample(3, np.random.default_rng(2)))
    latents = invert(components, images, steps=0)
    error = (components(torch.from_numpy(latents)) - images).abs().max()
    assert float(error) < 0.02


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64, 64), "shape"),
        (torch.zeros(1, 1, 64, 64), "shape"),
        (torch.zeros(0, 3, 64, 64), "shape"),
        (torch.full((1, 3, 64, 64), 2.0), "in \\[0, 1\\]"),
        (torch.full((1, 3, 64, 64), float("nan")), "in \\[0, 1\\]"),
    ],
)
def test_images_of_another_shape_or_range_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(NeuroGymError, match=message):
        invert(Tiles(), images)


def test_the_benchmark_prints_a_table_and_draws_pairs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neurogym_v.benchmarks.inversion", "--count", "3", "--steps", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "PSNR" in done.stdout and "lite0 7" in done.stdout
    assert (tmp_path / "pairs.png").stat().st_size > 1000 and (tmp_path / "table.json").is_file()
    refused = subprocess.run([*command[:-2], "--images", str(tmp_path / "none")], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


def test_a_search_may_start_at_the_latent_of_the_best_photograph(tmp_path: Path) -> None:
    config = RunConfig(agents=("random",), neuron="gabor", budget=80, start="natural", device="cpu")
    experiment = Experiment(config)
    result = experiment.run()
    best = list(result.references.names).index(result.natural.best_image)
    origin = draw(experiment.generator, np.zeros((1, experiment.generator.latent_dim)))
    start = nearness(torch.cat([origin, origin]), result.references.images[[best, best]])
    other = nearness(torch.cat([origin, origin]), result.references.images[[best - 1, best - 1]])
    assert start.psnr_db > other.psnr_db
    again = Experiment(config).run()
    np.testing.assert_array_equal(again.agents[0].recommended, result.agents[0].recommended)


@pytest.mark.parametrize("origin", [np.zeros(3), np.full(48, np.nan), np.full(48, 5.0)])
def test_an_origin_outside_the_generators_latents_is_refused(origin: np.ndarray) -> None:
    with pytest.raises(NeuroGymError, match="origin: expected 48 numbers"):
        Around(Tiles(), origin.astype(np.float32))


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(NeuroGymError, match="start: expected one of prior, natural"):
        RunConfig(start="nowhere")
