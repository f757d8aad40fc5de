"""Natural photographs, and what pretrained networks see in them: the measure of `neurogym_v.benchmarks.reach`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from neurogym_v import networks, weights
from neurogym_v.references import load_references
from neurogym_v.types import Images

SIZE = 64
"""Pixels a side of a photograph, whatever the generator draws."""
POOL = 4
"""Maps are averaged to POOL x POOL places for a twin."""
CHUNK = 64
"""Images in memory as features at once."""
MIRRORED = " mirrored"


@dataclass(frozen=True, slots=True)
class Probe:
    """How a network is looked at: the size it gets images in, the layers of its units, and the layers of a twin."""

    size: int
    layers: Mapping[int, str]
    """Layer -> what it is called."""
    pooled: tuple[int, ...]


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "lite0": Probe(112, {4: "block 4", 7: "block 7", 10: "block 10", 14: "block 14"}, (7, 10)),
        "vgg16": Probe(48, {6: "conv3_3", 9: "conv4_3", 12: "conv5_3"}, (6, 9)),
    }
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one network sees in n images."""

    centres: Mapping[int, NDArray[np.float64]]
    """Layer -> (n, channels): the rates of its units."""
    pooled: NDArray[np.float32]
    """(n, features) of the layers of a twin."""


@dataclass(frozen=True)
class Naturals:
    """(n, 3, SIZE, SIZE) uint8 photographs, each followed (n / 2 later) by its mirror image, and their names."""

    images: Images
    names: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Of the pixels: rates are only comparable where it is the same."""
        return weights.digest({"images": self.images})[:12]

    @cached_property
    def photographs(self) -> NDArray[np.intp]:
        """(n,) number of the photograph that an image is a crop of: what folds must not share."""
        sources = [name.removesuffix(MIRRORED).partition("@")[0] for name in self.names]
        return np.asarray(np.unique(sources, return_inverse=True)[1], dtype=np.intp)

    @cached_property
    def _seen(self) -> dict[tuple[str, str], Seen]:
        return {}

    def seen_by(self, network: str, device: str = "cpu") -> Seen:
        """The features of all photographs: one pass of a network, kept."""
        if (network, device) not in self._seen:
            self._seen[network, device] = _look(self.images, network, device)
        return self._seen[network, device]


def load_naturals(folder: Path | None = None) -> Naturals:
    """The crops of packaged photographs, or the images of a folder, with their mirror images."""
    references = load_references(size=SIZE, folder=folder)
    mirrored = tuple(name + MIRRORED for name in references.names)
    return Naturals(torch.cat([references.images, references.images.flip(-1)]), references.names + mirrored)


def chunks(images: Images) -> Iterator[Images]:
    """Images, CHUNK at a time."""
    for at in range(0, len(images), CHUNK):
        yield images[at : at + CHUNK]


def centre(maps: torch.Tensor) -> torch.Tensor:
    """(n, channels, h, w) maps -> (n, channels) rates of the units in the middle; below 0 nothing fires."""
    return maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].clamp_min(0.0)


def pooled(images: Images, network: str, device: str = "cpu") -> NDArray[np.float32]:
    """(n, features) that a twin in this network reads."""
    probe = PROBES[network]
    load = networks.load(network, probe.pooled, probe.size, device)
    with torch.inference_mode():
        parts = [_pool(load(part.to(device))) for part in chunks(images)]
    return np.asarray(torch.cat(parts))


def _look(images: Images, network: str, device: str) -> Seen:
    probe = PROBES[network]
    layers = tuple(sorted({*probe.layers, *probe.pooled}))
    load = networks.load(network, layers, probe.size, device)
    centres: dict[int, list[torch.Tensor]] = {layer: [] for layer in probe.layers}
    flat = []
    with torch.inference_mode():
        for part in chunks(images):
            maps = dict(zip(layers, load(part.to(device)), strict=True))
            for layer, rates in centres.items():
                rates.append(centre(maps[layer]).cpu().double())
            flat.append(_pool(tuple(maps[layer] for layer in probe.pooled)))
    rates_of = {layer: np.asarray(torch.cat(parts)) for layer, parts in centres.items()}
    return Seen(rates_of, np.asarray(torch.cat(flat)))


def _pool(maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat([functional.adaptive_avg_pool2d(layer, POOL).flatten(1).cpu() for layer in maps], dim=1)
