"""Pretrained image networks, as features of images: what neurons are made of, and what a generator may be trained with.

A network is named where it is used ("lite0", block 7), so that an image made with one is never scored by the same one
without saying so. Besides those of `NETWORKS` there are everyone's own: see `load`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

from neurogym_v import weights
from neurogym_v.types import Images, NeuroGymError
from neurogym_v.weights import WeightsError

NETWORKS = {
    "lite0": "neurogym_v.networks.efficientnet:EfficientNetLite",
    "lite1": "neurogym_v.networks.efficientnet:EfficientNetLite",
    "lite2": "neurogym_v.networks.efficientnet:EfficientNetLite",
    "vgg16": "neurogym_v.networks.vgg:VGG16",
}
DIGEST = 16
"""Hexadecimal digits by which weights are told apart."""
TRUSTED = "NEUROGYM_V_NETWORKS"
"""Environment variable: the networks MODULE:CALLABLE, with commas between them, that a neuron's file may name."""


class Network(Protocol):
    """A pretrained network, cut after the last layer that is asked for; frozen, in eval mode, differentiable."""

    channels: tuple[int, ...]
    """Feature maps of each layer asked for."""

    @property
    def digest(self) -> str:
        """The first digits of a SHA-256 of its weights; what was fitted on others must not be used with them."""

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

    @functools.cached_property
    def digest(self) -> str:
        """Of names and numbers of its weights; a subclass that checked a file says the file's."""
        state = {name: value for name, value in self.state_dict().items() if isinstance(value, torch.Tensor)}
        return weights.digest(state)[:DIGEST]

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
@torch.inference_mode(False)  # it is shared: what is made in inference mode can never have a gradient
def load(name: str, layers: tuple[int, ...], size: int, device: str = "cpu") -> Network:
    """The features of a network after `layers` (counted from 0) for images resized to `size` px; built once, shared.

    Args:
        name: one of `NETWORKS`; `torchvision:NAME` or `timm:NAME`, whose pretrained weights may be downloaded; or
            MODULE:CALLABLE, a callable without arguments that returns a `torch.nn.Module`. Its input is (n, 3, size, size)
            float32, normalised with ImageNet's mean and standard deviation, or with those that it has as `mean` and `std`.

    Raises:
        NeuroGymError: no such network or layer, a network that fails, or a download that does.
        WeightsError: the package with its weights is missing or damaged.
    """
    if ":" in name:
        return cast(Network, _foreign().Foreign(name, layers, size, device))
    return cast(Network, _trunk(name)(name, layers, size).to(device))


@torch.inference_mode(False)
def layers(name: str, size: int = 224) -> tuple[str, ...]:
    """The names of all layers of a network, in their order: those of `load` are places in this list.

    Args:
        size: of the images, px; what counts as a layer of a network that is not in `NETWORKS` is found on such images.

    Raises:
        NeuroGymError: no such network, or one that fails.
        WeightsError: the package with its weights is missing.
    """
    found: tuple[str, ...] = _foreign().names(name, size) if ":" in name else _trunk(name).names(name)
    return found


def family(name: str) -> str:
    """What a network shares with its kin: a model made with one of them knows more of a neuron made of another than it may.

    Of the names of ours, and of torchvision and timm, the architecture; a MODULE:CALLABLE could be anything, and is its own.
    """
    if runs_code(name):
        return name
    architecture = name.rpartition(":")[2].lower()
    kin = {"lite": "efficientnet", "efficientnet": "efficientnet", "vgg": "vgg"}
    return next((found for part, found in kin.items() if part in architecture), re.split(r"[\d_.-]", architecture)[0])


def runs_code(name: str) -> bool:
    """Whether a network is MODULE:CALLABLE, so that to look through it is to run what whoever named it chose."""
    return ":" in name and name.partition(":")[0] not in _foreign().PACKAGES


def _trunk(name: str) -> Any:
    """The class that reads one of `NETWORKS`."""
    if name not in NETWORKS:
        known = ", ".join((*NETWORKS, "torchvision:NAME", "timm:NAME", "MODULE:CALLABLE"))
        raise NeuroGymError(f"unknown network {name!r} (known: {known})")
    module, _, attribute = NETWORKS[name].partition(":")
    return getattr(import_module(module), attribute)


def _foreign() -> Any:
    """The module that reads all others; like the classes, it needs this one first."""
    return import_module("neurogym_v.networks.foreign")


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
