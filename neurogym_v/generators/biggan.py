"""BigGAN-deep, class-conditional photographs of ImageNet, searched in noise and class embedding together.

Brock, Donahue & Simonyan 2019, ICLR, arXiv:1809.11096; weights in the layout of
github.com/huggingface/pytorch-pretrained-BigGAN; searched for neurons by Wang & Ponce
(github.com/Animadversio/Neuro-ActMax-GAN-comparison), with first steps of 0.3 for the noise and 0.06 for the class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurogym_v.generators.layouts import Added, fill, shapes
from neurogym_v.weights import WeightsError, check, some

KIND = "generator:biggan"
HALF = 128
"""Numbers of noise, and of class embedding."""
STATISTICS = 51
"""Truncations, from 0 to 1, for which the release gives the statistics of batch normalisation."""
WIDTHS = {"128": (16, 16, 8, 4, 2, 1), "256": (16, 16, 8, 8, 4, 2, 1), "512": (16, 16, 8, 8, 4, 2, 1, 1)}
"""Maps at 4, 8, 16, ... px, in units of the width of the network."""
ATTENTION = 8
"""Blocks before the self-attention: it works at 64 px in all three."""
EPS = 1e-4
Place = tuple[int, int, float]
"""Two rows of the statistics, and the share of the first."""


class Norm(nn.Module):
    """Batch normalisation with the stored statistics of one truncation; gain and offset are linear in the condition."""

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(STATISTICS, channels))
        self.register_buffer("running_vars", torch.ones(STATISTICS, channels))
        self.scale = nn.Linear(2 * HALF, channels, bias=False)
        self.offset = nn.Linear(2 * HALF, channels, bias=False)

    def forward(self, maps: Tensor, condition: Tensor, at: Place) -> Tensor:
        mean, var = _at(self.running_means, at), _at(self.running_vars, at)
        gain = (1 + self.scale(condition)) * torch.rsqrt(var + EPS)
        offset = self.offset(condition) - mean * gain
        return torch.addcmul(offset[:, :, None, None], maps, gain[:, :, None, None])


class LastNorm(nn.Module):
    """The same without a condition, before the colours."""

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(STATISTICS, channels))
        self.register_buffer("running_vars", torch.ones(STATISTICS, channels))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor, at: Place) -> Tensor:
        mean, var = _at(self.running_means, at), _at(self.running_vars, at)
        return F.batch_norm(maps, mean, var, self.weight, self.bias, eps=EPS)


class Block(nn.Module):
    """A bottleneck of four convolutions beside a path that only drops maps and doubles the side."""

    def __init__(self, before: int, after: int, *, doubles: bool) -> None:
        super().__init__()
        middle = before // 4
        self.after, self.doubles = after, doubles
        self.bn_0, self.conv_0 = Norm(before), nn.Conv2d(before, middle, 1)
        self.bn_1, self.conv_1 = Norm(middle), nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_2, self.conv_2 = Norm(middle), nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_3, self.conv_3 = Norm(middle), nn.Conv2d(middle, after, 1)

    def forward(self, maps: Tensor, condition: Tensor, at: Place) -> Tensor:
        inner = self.conv_0(F.relu(self.bn_0(maps, condition, at)))
        inner = F.relu(self.bn_1(inner, condition, at))
        inner = self.conv_1(F.interpolate(inner, scale_factor=2.0) if self.doubles else inner)
        inner = self.conv_2(F.relu(self.bn_2(inner, condition, at)))
        inner = self.conv_3(F.relu(self.bn_3(inner, condition, at)))
        maps = maps[:, : self.after]
        return torch.add(F.interpolate(maps, scale_factor=2.0) if self.doubles else maps, inner)


class Attention(nn.Module):
    """Self-attention: every place of the maps looks at every 2 x 2 px of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snconv1x1_theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.snconv1x1_o_conv = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        query = self.snconv1x1_theta(maps).flatten(2)
        key = F.max_pool2d(self.snconv1x1_phi(maps), 2).flatten(2)
        value = F.max_pool2d(self.snconv1x1_g(maps), 2).flatten(2)
        looked = value @ torch.softmax(query.transpose(1, 2) @ key, dim=-1).transpose(1, 2)
        looked = self.snconv1x1_o_conv(looked.reshape(len(maps), looked.shape[1], *maps.shape[2:]))
        return torch.addcmul(maps, self.gamma, looked)


class Network(nn.Module):
    """(n, 256) conditions -> (n, 3, s, s) in [-1, 1]."""

    def __init__(self, width: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.gen_z = nn.Linear(2 * HALF, 16 * 16 * width)
        sizes = [size for before, after in pairwise(widths) for size in ((before, before, False), (before, after, True))]
        layers: list[nn.Module] = [Block(before * width, after * width, doubles=doubles) for before, after, doubles in sizes]
        layers.insert(ATTENTION, Attention(sizes[ATTENTION][0] * width))
        self.layers = nn.ModuleList(layers)
        self.bn = LastNorm(width)
        self.conv_to_rgb = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, condition: Tensor, at: Place) -> Tensor:
        maps = (
            self.gen_z(condition).reshape(len(condition), 4, 4, self.gen_z.out_features // 16).permute(0, 3, 1, 2).contiguous()
        )
        for layer in self.layers:
            maps = layer(maps) if isinstance(layer, Attention) else layer(maps, condition, at)
        # every gain is linear in the condition: far from the prior they overflow together, which is to be grey, not NaN
        return torch.tanh(torch.nan_to_num(self.conv_to_rgb(F.relu(self.bn(maps, at)))))


class BigGAN(Added):
    """BigGAN-deep (Brock et al. 2019), 128, 256 or 512 px: 128 of noise, 128 of class embedding; add its weights first.

    A latent is (noise, class), both standard normal. Noise is taken times the truncation, as published searches start
    (0.7; their first step of 0.3 is 0.43 here). The class half is taken times the spread of the trained embeddings
    around their mean, so that the prior covers the classes and what lies between them.
    """

    name: ClassVar[str] = "biggan"
    kind: ClassVar[str] = KIND
    variants: ClassVar[tuple[str, ...]] = tuple(WIDTHS)
    source: ClassVar[str] = (
        "the release that github.com/huggingface/pytorch-pretrained-BigGAN names (biggan-deep-SIZE-pytorch_model.bin)"
    )
    latent_dim: int = 2 * HALF
    bound: float = 5.0

    centre: Tensor
    spread: Tensor

    def __init__(self, variant: str = "256", *, width: int = 128, classes: int = 1000) -> None:
        super().__init__()
        self.image_size = int(variant)
        self.embeddings = nn.Linear(classes, HALF, bias=False)
        self.generator = Network(width, WIDTHS[variant])
        self.truncation = 0.7

    def forward(self, latents: Tensor) -> Tensor:
        """(n, 256) float32 latents -> (n, 3, s, s) float32 sRGB in [0, 1]; differentiable, each row on its own."""
        noise, classes = latents[:, :HALF], latents[:, HALF:]
        condition = torch.cat([self.truncation * noise, self.centre + self.spread * classes], dim=1)
        images: Tensor = self.generator(condition, _rows(self.truncation))
        return (images + 1) / 2

    @classmethod
    def convert(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
        """The published state dict with its spectral normalisation done: every weight divided by its largest gain.

        Raises:
            WeightsError: other tensors than this size has, other shapes, or numbers that are not finite.
        """
        with torch.device("meta"):
            model = cls(variant, **_sizes(path, tensors))
        published, normalised = shapes(model), _normalised(model)
        colours = "generator.conv_to_rgb"  # as many maps as the width come out in the release, and 3 of them are used
        width = published[f"{colours}.weight"][1]
        published |= {f"{colours}.weight": (width, width, 3, 3), f"{colours}.bias": (width,)}
        tensors = {n: t for n, t in tensors.items() if not (n.endswith(".weight") and n + "_v" in tensors)}  # left by old torch
        for name in normalised & {name.removesuffix("_orig") for name in tensors if name.endswith("_orig")}:
            shape = published.pop(name)
            published |= {f"{name}_orig": shape, f"{name}_u": shape[:1]}
            # torch up to 1.0 kept the normalised weight instead of the right singular vector
            published |= {f"{name}_v": (math.prod(shape[1:]),)} if name not in tensors else {name: shape}
        check(path, tensors, published)
        ours = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith(("_orig", "_u", "_v"))}
        for name in normalised - ours.keys():
            weight, u, v = (tensors[f"{name}_{part}"].double() for part in ("orig", "u", "v"))
            ours[name] = (weight / (u @ (weight.flatten(1) @ v))).float()
        return ours | {name: ours[name][:3].clone() for name in (f"{colours}.weight", f"{colours}.bias")}

    @classmethod
    def build(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> Self:
        with torch.device("meta"):
            model = cls(variant, **_sizes(path, tensors))
        fill(model, path, tensors)
        table = model.embeddings.weight
        model.register_buffer("centre", table.mean(dim=1), persistent=False)
        model.register_buffer("spread", table.sub(model.centre[:, None]).square().mean().sqrt(), persistent=False)
        return model.eval()

    @classmethod
    def load(
        cls, path: Path | None = None, *, variant: str | None = None, device: str = "cpu", truncation: float = 0.7
    ) -> Self:
        """As `Added.load`; `truncation`: the scale of the noise, and which statistics are used; 0 to 1.

        Raises:
            WeightsError: as there, or a truncation out of its range.
        """
        if not 0 < truncation <= 1:
            raise WeightsError(f"generator biggan: expected a truncation above 0, up to 1, got {truncation}")
        model = super().load(path, variant=variant, device=device)
        model.truncation = truncation
        return model


def _sizes(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Width and number of classes, from the shapes."""
    bias, table = tensors.get("generator.gen_z.bias"), tensors.get("embeddings.weight")
    if bias is None or table is None or table.ndim != 2 or bias.ndim != 1 or len(bias) % 2048:
        # widths below 8 would leave the attention without maps
        raise WeightsError(
            f"checkpoint {path}: expected BigGAN-deep (embeddings.weight of {HALF} x classes, generator.gen_z.bias), "
            f"found {some(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items())}"
        )
    return {"width": len(bias) // 256, "classes": table.shape[1]}


def _normalised(model: BigGAN) -> set[str]:
    """The weights that the release stores with spectral normalisation: every layer's but those of the embeddings."""
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    return {f"{name}.weight" for name in layers - {"embeddings"}}


def _rows(truncation: float) -> Place:
    """Where the statistics of a truncation are.

    Between two rows the widely used port gives the nearer row the smaller share. It is kept: pictures made with these
    weights are known from it. The truncation of 0.7 is a row of its own.
    """
    share, row = math.modf(truncation / (1 / (STATISTICS - 1)))
    return int(row), min(int(row) + 1, STATISTICS - 1), share or 1.0


def _at(rows: Tensor, at: Place) -> Tensor:
    first, second, share = at
    return rows[first] * share + rows[second] * (1 - share)
