"""What tests share: a generator small enough to reason about, and a session in front of the Gabor cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurogym_v.cli import main
from neurogym_v.env import NeuronEnv
from neurogym_v.neurons.clock import Timing
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.noise import with_noise
from tests.browsing import chromium

# tests run side by side: one thread each is faster than many that wait for each other, in subprocesses too
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


class Cosines(torch.nn.Module):
    """Latents are amplitudes of low spatial frequencies of a grey image: a third party's generator in ten lines."""

    bound = 10.0

    def __init__(self, latent_dim: int = 36, image_size: int = 32) -> None:
        super().__init__()
        self.latent_dim, self.image_size = latent_dim, image_size
        side = int(np.sqrt(latent_dim))
        x = (torch.arange(image_size) + 0.5) / image_size
        waves = torch.stack([torch.cos(np.pi * k * x) for k in range(side)])
        self.basis = torch.nn.Parameter(torch.einsum("ax,by->abxy", waves, waves).flatten(0, 1), requires_grad=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        grey = torch.sigmoid(torch.einsum("nd,dxy->nxy", latents, self.basis) / 3)
        return grey[:, None].expand(-1, 3, -1, -1)

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((n, self.latent_dim), dtype=np.float32))


class Table(SimulatedNeuron):
    """Image i of any batch is expected to give row i of a table."""

    name = "table"

    def __init__(self, rates, timing: Timing = Timing()) -> None:  # noqa: B008 (frozen)
        self.rates, self.timing = np.atleast_2d(np.asarray(rates, dtype=float)), timing
        self.sites = self.rates.shape[1]

    def expected_rate(self, images):
        return self.rates[: len(images)]


@pytest.fixture
def cosines() -> Cosines:
    return Cosines()


@pytest.fixture
def make_env(cosines: Cosines):
    """NeuronEnv on a Gabor cell behind Poisson noise; small unless told otherwise."""

    def make(*, noise: str = "poisson", **kwargs):
        neuron = with_noise(Gabor(size=32), noise)
        return NeuronEnv(**({"neuron": neuron, "generator": cosines, "budget": 100, "batch_size": 10} | kwargs))

    return make


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three small pictures."""
    from PIL import Image

    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.bmp"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with code 2; gives its one line on stderr."""

    def run(*arguments: str | Path) -> str:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        assert code == 2, printed
        lines = printed.err.strip().splitlines()
        assert len(lines) == 1, printed.err
        return lines[0]

    return run
