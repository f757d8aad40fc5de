"""Every generator keeps the contract; the kit finds those that do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neurogym_v.generators import Generator
from neurogym_v.registry import GENERATORS, resolve
from neurogym_v.testing import ConformanceError
from neurogym_v.testing_generators import check_generator
from neurogym_v.weights import WeightsError


def variants() -> list[tuple[str, str | None]]:
    return [
        (name, variant)
        for name in GENERATORS
        for variant in getattr(resolve("generator", name, GENERATORS), "variants", (None,))
    ]


@cache
def load(name: str, variant: str | None) -> Generator:
    cls = resolve("generator", name, GENERATORS)
    try:
        return cls.load(variant=variant) if variant else cls.load()
    except WeightsError as error:
        if "weights add" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "variant"), variants(), ids=lambda part: part or "")
def test_conformance(name: str, variant: str | None) -> None:
    check_generator(lambda: load(name, variant))


class Plain(torch.nn.Module):
    """Keeps the contract; the broken ones below each break one clause of it."""

    latent_dim: Any = 12
    image_size: Any = 8
    bound: Any = 4.0

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        basis = np.random.default_rng(seed).standard_normal((12, 3 * 8 * 8), dtype=np.float32)
        self.basis = torch.nn.Parameter(torch.from_numpy(basis), requires_grad=False)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents @ self.basis / 3).reshape(-1, 3, 8, 8)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.standard_normal((n, 12), dtype=np.float32)).to(self.basis.device)


class NoSize(Plain):
    image_size = None


class NoBound(Plain):
    bound = float("inf")


class Doubles(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents).double()


class ChannelsLast(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents).permute(0, 2, 3, 1)


class Unlimited(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return (0.5 + 0.025 * latents @ self.basis).reshape(-1, 3, 8, 8)  # out of range only at the bound


class Explodes(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents) + 0 * torch.exp(latents.square().sum() * 4)[None, None, None, None]


class BatchNorm(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents - 0.1 * latents.mean(dim=0))


class Noisy(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        images = super().forward(latents)
        return (images + 0.01 * torch.rand(images.shape[-1])).clamp(0, 1)


class NormalisesInPlace(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        with torch.no_grad():
            latents /= latents.norm(dim=1, keepdim=True) + 1
        return super().forward(latents)


class Detached(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents.detach())


class Rounded(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents).mul(255).round().div(255)


class IgnoresALatent(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents * (torch.arange(12) != 5))


class OneImage(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(1e-6 * latents)


class OneByOne(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents[0]).expand(len(latents), -1, -1, -1)


class GlobalRandom(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        return torch.randn(n, 12)


class OwnSeed(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        return super().sample(n, np.random.default_rng(0))


class Uniform(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.uniform(-(3**0.5), 3**0.5, (n, 12)).astype(np.float32))


class Wide(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return 1.1 * super().sample(n, rng)


class Shifted(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return super().sample(n, rng) + 0.1


class Uneven(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return super().sample(n, rng) * torch.tensor([0.5, 1.75**0.5] + 10 * [1.0])  # the mean square is right


class Copies(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        return super().sample(n, rng)[:, :1].expand(-1, 12).contiguous()


class NumpySamples(Plain):
    def sample(self, n: int, rng: np.random.Generator) -> Any:
        return super().sample(n, rng).numpy()


class Fails(Plain):
    def forward(self, latents: Tensor) -> Tensor:  # noqa: ARG002
        raise RuntimeError("out of memory")


class NotInInference(Plain):
    def forward(self, latents: Tensor) -> Tensor:
        with torch.enable_grad():
            if torch.is_inference_mode_enabled():
                raise RuntimeError("no graph")
        return super().forward(latents)


counter = iter(range(1000))


class RandomWeights(Plain):
    def __init__(self) -> None:
        super().__init__(seed=next(counter))


def test_the_kit_passes_what_keeps_the_contract() -> None:
    check_generator(Plain)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (NoSize, "image_size is a whole number above 0, got None"),
        (NoBound, "bound is a finite number"),
        (Doubles, "float32 images, got .*float64"),
        (ChannelsLast, "\\(6, 3, 8, 8\\) float32 images, got \\(6, 8, 8, 3\\)"),
        (Unlimited, "lie in \\[0, 1\\].*bound"),
        (Explodes, "finite"),
        (BatchNorm, "does not depend on its batch"),
        (Noisy, "does not depend on its batch|same images each time"),
        (NormalisesInPlace, "does not change the latents"),
        (Detached, "differentiable"),
        (Rounded, "the gradient reaches every latent; 12"),
        (IgnoresALatent, "such as latent 5"),
        (OneImage, "look different"),
        (OneByOne, "look different"),
        (GlobalRandom, "equal random generators"),
        (OwnSeed, "twice with the same random generator"),
        (Uniform, "samples are normal"),
        (Wide, "s.d. 1"),
        (Shifted, "mean 0"),
        (Uneven, "every latent has mean 0 and s.d. 1.*latent 0"),
        (Copies, "independent"),
        (NumpySamples, "float32 tensor"),
        (Fails, "raised RuntimeError\\('out of memory'\\)"),
        (NotInInference, "draw raised"),
        (RandomWeights, "generators of one factory"),
    ],
)
def test_the_kit_finds_what_is_broken(broken: Callable[[], Generator], sentence: str) -> None:
    with pytest.raises(ConformanceError, match=sentence):
        check_generator(broken)


def test_the_kit_needs_no_test_framework() -> None:
    code = "import sys, neurogym_v.testing_generators; sys.exit('pytest' in sys.modules or 'hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
