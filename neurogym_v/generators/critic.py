"""The judge that a generator is trained against: small networks that see an image through a pretrained one.

A projected discriminator (Sauer et al. 2021, arXiv:2111.01007): six layers of EfficientNet-Lite1, which stays as it is,
a fixed random mix of the maps of each, and a small convolutional network on each mix. It learns in minutes what a
discriminator of pixels learns in hours. The same features measure how far a reconstruction is from its photograph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from neurogym_v import networks
from neurogym_v.generators.code import NETWORK

BLOCKS = (0, 3, 6, 10, 14, 19)
STRIDES = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 1))
"""Of the two convolutions that see each block's maps."""
COMPARED = (1, 2, 3, 4)
"""Which of these layers say how far two images are apart."""
LARGEST = 96
"""The network is shown images of their own size, up to this one."""
WIDTH = 64


class Critic(nn.Module):
    """Logits of images, photographs above 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = min(size, LARGEST)
        channels = networks.load(NETWORK, BLOCKS, self.size).channels
        for layer, count in enumerate(channels):
            self.register_buffer(f"mean{layer}", torch.zeros(count, 1, 1))
            self.register_buffer(f"sd{layer}", torch.ones(count, 1, 1))
            self.register_buffer(f"mix{layer}", torch.randn(WIDTH, count, 1, 1) / count**0.5)
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=first)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=second)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(WIDTH, 1, 1)),
            )
            for first, second in STRIDES
        )

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the mean and s.d. of every map of the network over batches of photographs, (n, 3, s, s) in [0, 1]."""
        first, second, count = [0.0 * m for m in self._means()], [0.0 * m for m in self._means()], 0
        for batch in batches:
            for layer, maps in enumerate(self._maps(batch)):
                first[layer] += maps.mean(dim=(0, 2, 3))[:, None, None]
                second[layer] += maps.square().mean(dim=(0, 2, 3))[:, None, None]
            count += 1
        for layer, (one, two) in enumerate(zip(first, second, strict=True)):
            self.register_buffer(f"mean{layer}", one / count)
            self.register_buffer(f"sd{layer}", (two / count - (one / count).square()).clamp_min(1e-6).sqrt())

    def features(self, images: Tensor) -> list[Tensor]:
        """The network's maps of (n, 3, s, s) images in [0, 1], each map of mean 0 and s.d. 1 over photographs."""
        means, sds = self._means(), (self.get_buffer(f"sd{layer}") for layer in range(len(BLOCKS)))
        return [(maps - mean) / sd for maps, mean, sd in zip(self._maps(images), means, sds, strict=True)]

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """(layers, n): what each small network says."""
        mixed = [nn.functional.conv2d(maps, self.get_buffer(f"mix{layer}")) for layer, maps in enumerate(features)]
        return torch.stack([head(maps).flatten(1).mean(dim=1) for head, maps in zip(self.heads, mixed, strict=True)])

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return networks.load(NETWORK, BLOCKS, self.size, str(images.device))(images)

    def _means(self) -> list[Tensor]:
        return [self.get_buffer(f"mean{layer}") for layer in range(len(BLOCKS))]


def distance(features: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the features in units of the target's mean square, summed over the compared layers."""
    pairs = [(features[layer], target[layer]) for layer in COMPARED]
    return torch.stack([(a - b).square().mean() / b.square().mean() for a, b in pairs]).sum()
