"""DeePSiM: the inverted CaffeNet of Dosovitskiy & Brox, whose fc6 codes most published neuron-guided image searches evolve.

Dosovitskiy & Brox 2016, NeurIPS, arXiv:1602.02644; searched for neurons by Ponce et al. 2019, doi:10.1016/j.cell.2019.04.005,
and by Wang & Ponce 2022, arXiv:2204.06765; layers as in the prototxt files of github.com/willwx/XDream.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from neurogym_v.generators.layouts import Added, fill, shapes
from neurogym_v.weights import WeightsError, check

KIND = "generator:deepsim"
MEAN_RGB = (123.0, 117.0, 104.0)
"""Of the training images, on the scale of 0 to 255: the networks give what is left after it was taken away."""
CODES: dict[str, tuple[int, ...]] = {
    "fc6": (4096,),
    "fc7": (4096,),
    "fc8": (1000,),
    "pool5": (256, 6, 6),
    "conv4": (384, 13, 13),
    "conv3": (384, 13, 13),
    "norm2": (256, 13, 13),
    "norm1": (96, 27, 27),
}
"""Shapes of the layers of CaffeNet that the eight networks invert."""
SCALE = {"fc6": 3.0, "fc7": 0.9, "fc8": 2.2, "pool5": 9.5, "conv4": 11.0, "conv3": 17.0, "norm2": 22.0, "norm1": 31.0}
"""Code = scale x latent, so that a standard normal is a sensible start and a step size means the same for all variants.

fc6: the published first step of CMA-ES is 3 (Wang & Ponce 2022), so `cma_es` with its sigma of 1 starts as published, and
the published sphere of codes of norm 300 is a latent of norm 100 = 1.56 sqrt(4096). The root mean square of CaffeNet's
rectified fc6 on photographs is 4.2 (from the statistics that come with XDream), a norm of 267: the prior lies at 0.72 of
what the network was trained on. The other scales put theirs at the same 0.72 of the same statistics of their layer.
"""
LAYOUTS = (  # names in the ports to PyTorch -> names in the Caffe release, which are ours
    (r"^G\.", ""),  # Wang's module around his Sequential
    (r"\.1\.", "."),  # his first files
    (r"^fc([567])\.", r"defc\1."),
    (r"^conv([678])\.", r"Rconv\1."),
    (r"^(?:tconv|deconv)(\d)_0\.", r"deconv\1."),
    (r"^tconv(\d)\.", r"deconv\1."),
    (r"^(?:tconv|deconv)(\d)_1\.", r"conv\1_1."),
)
Layers = OrderedDict[str, nn.Module]


class DeePSiM(Added):
    """DeePSiM (Dosovitskiy & Brox 2016), 240 or 256 px: codes of a layer of CaffeNet; add its weights first."""

    name: ClassVar[str] = "deepsim"
    kind: ClassVar[str] = KIND
    variants: ClassVar[tuple[str, ...]] = tuple(CODES)
    source: ClassVar[str] = (
        "Hugging Face, binxu/DeePSim_DosovitskiyBrox2016 (converted by Wang), or from the folder linked in the README of "
        "github.com/willwx/XDream (a .pt file for each layer)"
    )

    def __init__(self, variant: str = "fc6") -> None:
        super().__init__()
        code = CODES[variant]
        self.latent_dim = torch.Size(code).numel()
        self.image_size = 240 if variant.startswith("norm") else 256
        self.scale = SCALE[variant]
        self.saturates = variant.startswith(("norm", "conv"))
        """Whether the network ends in 255 tanh; the others end in a convolution."""
        layers = _maps(variant) if len(code) == 3 else _full(code[0])
        self.net = nn.Sequential(Layers(reshape=nn.Unflatten(1, code)) | layers if len(code) == 3 else layers)

    def forward(self, latents: Tensor) -> Tensor:
        """(n, latent_dim) float32 latents -> (n, 3, s, s) float32 sRGB in [0, 1], differentiable where nothing is clipped."""
        image = self.net(latents * self.scale)
        image = 255 * torch.tanh(image) if self.saturates else image
        mean = torch.tensor(MEAN_RGB, device=image.device)[:, None, None]
        return ((image.flip(1) + mean) / 255).clamp(0, 1)  # the networks speak BGR

    @classmethod
    def convert(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
        """A state dict in the layout of XDream or of Wang, under the names of the Caffe release; absent biases are 0.

        Raises:
            WeightsError: other tensors than this variant has, other shapes, or numbers that are not finite.
        """
        # fc6 and fc7, and conv3 and conv4, have the same shapes: only what people call their files tells them apart
        named = next((found for part in (path.stem, path.parent.name) if (found := [v for v in CODES if v in part])), [])
        if named and variant not in named:
            raise WeightsError(
                f"checkpoint {path}: expected {variant}, found a file named {named[0]}; rename it if it is {variant}"
            )
        with torch.device("meta"):
            expected = shapes(cls(variant).net)
        ours: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            for theirs, canonical in LAYOUTS:
                name = re.sub(theirs, canonical, name)
            if name in ours:
                raise WeightsError(f"checkpoint {path}: expected each tensor once, found two for {name}")
            ours[name] = tensor
        # XDream's port has no biases in the decoder: all or none of them must be there
        optional = {name for name in expected if name.endswith(".bias") and not name.startswith(("defc", "Rconv"))}
        if not optional & ours.keys():
            ours |= {name: torch.zeros(expected[name]) for name in optional}
        check(path, ours, expected)
        return {name: tensor.float() for name, tensor in ours.items()}

    @classmethod
    def build(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> Self:
        with torch.device("meta"):
            model = cls(variant)
        fill(model.net, path, tensors)
        return model.eval()


def _rectified(**layers: nn.Module) -> Layers:
    """Each layer with a leaky rectifier behind it."""
    both = [((name, layer), (f"relu_{name}", nn.LeakyReLU(0.3, inplace=True))) for name, layer in layers.items()]
    return Layers(pair for pairs in both for pair in pairs)


def _up(before: int, after: int) -> nn.Module:
    """Doubles the side."""
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)


def _keep(before: int, after: int) -> nn.Module:
    """Keeps the side, with the weights of a transposed convolution."""
    return nn.ConvTranspose2d(before, after, 3, padding=1)


def _full(inputs: int) -> Layers:
    """Codes of fully connected layers."""
    start = _rectified(defc7=nn.Linear(inputs, 4096), defc6=nn.Linear(4096, 4096), defc5=nn.Linear(4096, 4096))
    return start | Layers(reshape=nn.Unflatten(1, (256, 4, 4))) | _decoder(256)


def _decoder(before: int) -> Layers:
    """Maps of 4 x 4 px to an image of 256 px, mean taken away, in BGR; for fc6 to fc8 and pool5."""
    layers = _rectified(
        deconv5=_up(before, 256),
        conv5_1=_keep(256, 512),
        deconv4=_up(512, 256),
        conv4_1=_keep(256, 256),
        deconv3=_up(256, 128),
        conv3_1=_keep(128, 128),
        deconv2=_up(128, 64),
        deconv1=_up(64, 32),
    )
    return layers | Layers(deconv0=_up(32, 3))


def _maps(variant: str) -> Layers:
    """Codes that are maps."""
    if variant == "pool5":
        start = _rectified(
            Rconv6=nn.Conv2d(256, 512, 3, padding=1), Rconv7=nn.Conv2d(512, 512, 3, padding=1), Rconv8=nn.Conv2d(512, 512, 3)
        )
        return start | _decoder(512)
    if variant.startswith("conv"):
        layers = _rectified(
            Rconv6=nn.Conv2d(384, 384, 3),
            Rconv7=nn.Conv2d(384, 512, 3),
            Rconv8=nn.Conv2d(512, 512, 2),
            deconv5=_up(512, 256),
            conv5_1=_keep(256, 256),
            deconv4=_up(256, 128),
            conv4_1=_keep(128, 128),
            deconv3=_up(128, 128),
            conv3_1=_keep(128, 128),
            deconv2=_up(128, 64),
            conv2_1=nn.Conv2d(64, 32, 3, padding=1),
            deconv1=_up(32, 16),
        )
        return layers | Layers(conv1_1=nn.Conv2d(16, 3, 3, padding=1))
    inputs, width, stride = (96, 128, 2) if variant == "norm1" else (256, 256, 1)
    layers = _rectified(
        Rconv6=nn.Conv2d(inputs, width, 3, stride=stride, padding=2),
        Rconv7=nn.Conv2d(width, 128, 3, padding=1),
        Rconv8=nn.Conv2d(128, 128, 3, padding=1),
        deconv4=_up(128, 128),
        conv4_1=nn.Conv2d(128, 128, 3, padding=1),
        deconv3=_up(128, 64),
        conv3_1=nn.Conv2d(64, 64, 3, padding=1),
        deconv2=_up(64, 32),
        conv2_1=nn.Conv2d(32, 32, 3, padding=1),
    )
    # as released: no rectifier between the last two
    return layers | Layers(deconv1=_up(32, 16), conv1_1=nn.Conv2d(16, 3, 3, padding=1))
