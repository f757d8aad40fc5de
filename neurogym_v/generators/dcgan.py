"""DCGAN: any generator that is a chain of transposed convolutions, its widths read from the weights.

Radford, Metz & Chintala 2016, arXiv:1511.06434: 4 x 4 kernels, batch normalisation, rectifiers, tanh. State dicts name
and number their layers as they like, so the layers are found by their shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from neurogym_v.generators.layouts import Added, fill
from neurogym_v.weights import WeightsError, check

KIND = "generator:dcgan"
EPS = 1e-5  # of torch.nn.BatchNorm2d
STATISTICS = ("weight", "bias", "running_mean", "running_var")


class DCGAN(Added):
    """DCGAN (Radford et al. 2016): a lab's own chain of transposed convolutions; add its weights first."""

    name: ClassVar[str] = "dcgan"
    kind: ClassVar[str] = KIND
    any_variant: ClassVar[bool] = True
    source: ClassVar[str] = (
        "your own training (dcgan:MYNAME tells several apart) or, for faces, from weights.tar inside the Python package "
        "gan-face-generate"
    )

    def __init__(self, widths: Sequence[int]) -> None:
        """`widths`: latents, maps after every layer, and colours (1 or 3) last."""
        super().__init__()
        self.latent_dim = widths[0]
        self.image_size = 4 * 2 ** (len(widths) - 2)
        first, *rest = range(len(widths) - 1)
        layers = [nn.ConvTranspose2d(widths[first], widths[first + 1], 4)]
        layers += [nn.ConvTranspose2d(widths[i], widths[i + 1], 4, stride=2, padding=1) for i in rest]
        self.layers = nn.ModuleList(layers)

    def forward(self, latents: Tensor) -> Tensor:
        """(n, latent_dim) float32 latents -> (n, 3, s, s) float32 in [0, 1]; differentiable, each row on its own."""
        maps = latents[:, :, None, None]
        for layer in self.layers[:-1]:
            maps = torch.relu(layer(maps))
        images = (torch.tanh(self.layers[-1](maps)) + 1) / 2
        return images.expand(-1, 3, -1, -1)  # grey ones too

    @classmethod
    def convert(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:  # noqa: ARG003
        """The layers in their order, batch normalisation folded into the convolution before it.

        Raises:
            WeightsError: not such a chain, or numbers that are not finite.
        """
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
        check(path, tensors, {name: tuple(tensor.shape) for name, tensor in tensors.items()})  # finite numbers?
        groups: dict[str, dict[str, Tensor]] = {}
        for name in sorted(tensors, key=_natural):
            owner, _, part = name.rpartition(".")
            groups.setdefault(owner, {})[part] = tensors[name]
        convolutions = {name: group for name, group in groups.items() if _is_convolution(group)}
        norms = {name: group for name, group in groups.items() if _is_norm(group)}
        others = sorted(groups.keys() - convolutions.keys() - norms.keys())
        if others:
            raise _not_a_chain(path, f"others: {', '.join(others[:5])}")
        kernels = {tuple(g["weight"].shape[2:]) for g in convolutions.values()}
        if kernels != {(4, 4)}:
            raise _not_a_chain(path, f"kernels of {', '.join(f'{h} x {w}' for h, w in sorted(kernels)) or 'no layer'}")
        chain = _chain({name: (g["weight"].shape[0], g["weight"].shape[1]) for name, g in convolutions.items()})
        if not chain or len(chain) < 2:
            sizes = ", ".join(f"{name} {g['weight'].shape[0]}->{g['weight'].shape[1]}" for name, g in convolutions.items())
            raise _not_a_chain(path, sizes)
        converted: dict[str, Tensor] = {}
        waiting = list(norms.values())  # in the order of their numbers
        for i, name in enumerate(chain):
            weight, bias = _folded(path, name, convolutions[name], waiting, last=i == len(chain) - 1)
            converted |= {f"{i}.weight": weight, f"{i}.bias": bias}
        if waiting:
            raise _not_a_chain(path, f"{len(waiting)} batch normalisations more than layers before the last")
        return converted

    @classmethod
    def build(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> Self:  # noqa: ARG003
        count = len(tensors) // 2
        kernels = [tensors.get(f"{i}.weight", torch.empty(0)) for i in range(count)]
        if count < 2 or any(kernel.ndim != 4 for kernel in kernels):
            raise _not_a_chain(path, ", ".join(sorted(tensors)[:5]))
        with torch.device("meta"):
            model = cls([kernel.shape[0] for kernel in kernels] + [kernels[-1].shape[1]])
        fill(model.layers, path, tensors)
        return model.eval()


def _not_a_chain(path: Path, found: str) -> WeightsError:
    expected = "a chain of 4 x 4 transposed convolutions to 1 or 3 colours, batch normalisation behind all but the last"
    return WeightsError(f"checkpoint {path}: expected {expected}, found {found}")


def _is_convolution(group: Mapping[str, Tensor]) -> bool:
    if not {"weight"} <= group.keys() <= {"weight", "bias"} or group["weight"].ndim != 4:
        return False
    return "bias" not in group or group["bias"].shape == group["weight"].shape[1:2]


def _is_norm(group: Mapping[str, Tensor]) -> bool:
    return (
        group.keys() == set(STATISTICS)
        and {tensor.ndim for tensor in group.values()} == {1}
        and len({len(tensor) for tensor in group.values()}) == 1
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts main.9 before main.12; safetensors files come sorted as text."""
    return [(int(part or 0), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _chain(sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    """All names in an order in which each layer takes what the one before gives; [] if there is none.

    Where widths repeat there are several: the one nearest to the order of the names is taken.
    """

    def extend(path: list[str]) -> list[str]:
        if len(path) == len(sizes):
            return path if sizes[path[-1]][1] in (1, 3) else []
        following = (name for name in sizes if name not in path and (not path or sizes[name][0] == sizes[path[-1]][1]))
        return next((found for name in following if (found := extend([*path, name]))), [])

    return extend([]) if len(sizes) <= 12 else []  # 12 layers would be images of 8192 px


def _folded(
    path: Path, name: str, layer: Mapping[str, Tensor], waiting: list[dict[str, Tensor]], *, last: bool
) -> tuple[Tensor, Tensor]:
    """Weight and bias with the next batch normalisation of as many maps, taken from `waiting`, multiplied in."""
    weight = layer["weight"].double()
    bias = layer.get("bias", torch.zeros(weight.shape[1])).double()
    if not last:
        width = weight.shape[1]
        norm = next((norm for norm in waiting if len(norm["weight"]) == width), None)
        if norm is None:
            raise _not_a_chain(path, f"none of {width} maps for layer {name}")
        waiting[:] = [other for other in waiting if other is not norm]
        gain = norm["weight"].double() * torch.rsqrt(norm["running_var"].double() + EPS)
        weight = weight * gain[:, None, None]
        bias = (bias - norm["running_mean"].double()) * gain + norm["bias"].double()
    return weight.float(), bias.float()
