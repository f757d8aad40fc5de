"""Pretrained image networks, as features of images: what neurons are made of, and what a generator may be trained with.

A network is named where it is used ("lite0", block 7), so that an image made with one is never scored by the same one
without saying so.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn
from torch.nn import functional

from neurogym_v.types import Images, NeuroGymError
from neurogym_v.weights import WeightsError

NETWORKS = {
    "lite0": "neurogym_v.networks.efficientnet:EfficientNetLite",
    "lite1": "neurogym_v.networks.efficientnet:EfficientNetLite",
    "lite2": "neurogym_v.networks.efficientnet:EfficientNetLite",
    "vgg16": "neurogym_v.networks.vgg:VGG16",
}


class Network(Protocol):
    """A pretrained network, cut after the last layer that is asked for; frozen, in eval mode, differentiable."""

    channels: tuple[int, ...]
    """Feature maps of each layer asked for."""

    def __call__(self, images: Images) -> tuple[torch.Tensor, ...]:
        """(n, 3, s, s) images, uint8 or floating in [0, 1] -> (n, channels, h, w) float32 features of every layer."""


class Trunk(nn.Module):
    """What the networks share: groups of images small enough for a CPU's cache, and their size.

    A subclass says how images are normalised (`normalise`) and gives the maps of every layer asked for (`features`).
    """

    layers: tuple[int, ...]
    size: int
    group: int
    """Images at once on a CPU."""

    def forward(self, images: Images) -> tuple[torch.Tensor, ...]:
        """(n, 3, s, s) images, uint8 or in [0, 1], s of any size -> (n, channels, h, w) float32 of every layer."""
        group = self.group if images.device.type == "cpu" else max(1, len(images))
        parts = [self.features(self.preprocess(part)) for part in torch.split(images, group)]
        return tuple(torch.cat(of_layer) for of_layer in zip(*parts, strict=True))

    def preprocess(self, images: Images) -> torch.Tensor:
        """(n, 3, size, size) float32, as the network was trained."""
        x = images * 255.0 if images.is_floating_point() else images.float()
        if x.shape[-1] != self.size:
            x = functional.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return self.normalise(x).contiguous(memory_format=torch.channels_last)

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """Of values in 0 to 255."""
        raise NotImplementedError

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The maps after each of `layers`."""
        raise NotImplementedError


@functools.cache
def load(name: str, layers: tuple[int, ...], size: int, device: str = "cpu") -> Network:
    """The features of a network after `layers` (counted from 0) for images resized to `size` px; built once, shared.

    Raises:
        NeuroGymError: no such network or layer.
        WeightsError: the package with its weights is missing or damaged.
    """
    if name not in NETWORKS:
        raise NeuroGymError(f"unknown network {name!r} (known: {', '.join(NETWORKS)})")
    module, _, attribute = NETWORKS[name].partition(":")
    return cast(Network, getattr(import_module(module), attribute)(name, layers, size).to(device))


def check_layers(name: str, layers: Sequence[int], count: int) -> None:
    """Raise NeuroGymError unless `layers` rise within 0 to count - 1."""
    if not layers or list(layers) != sorted(set(layers)) or not (layers[0] >= 0 and layers[-1] < count):
        raise NeuroGymError(f"{name}: expected rising layers of 0 to {count - 1}, got {tuple(layers)}")


def checked_bytes(path: Path, sha256: str) -> bytes:
    """The file's bytes if they have this SHA-256: features are numbers of one set of weights and no other.

    Raises:
        WeightsError: no such file, or other bytes.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path}: expected a file of pretrained weights, found none")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(f"weights file {path}: expected SHA-256 {sha256[:8]}..., found {found[:8]}... (damaged)")
    return data
