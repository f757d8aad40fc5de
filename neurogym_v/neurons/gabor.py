"""Simple cells whose best image is known in closed form: the truth that tests can lean on.

A linear receptive field w over luminance, rectified: rate = spontaneous + (peak - spontaneous) [<w, x>]_+ / max <w, x>.
A display shows pixels between black and white, so the best image is white where w > 0 and black where w < 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from neurogym_v.neurons.simulated import SimulatedNeuron, check_images
from neurogym_v.types import Images, Rates

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B


class V1(SimulatedNeuron):
    """Twelve cells over luminance (4 orientations x 3 spatial frequencies). Subclasses give `tune` and `drive`.

    Args:
        size: pixels; images of another size are resized to it (area).
        peak_hz: rate at the best image, spikes/s. spontaneous_hz: rate at a grey screen.
        sigma: s.d. of the envelope as a fraction of the image.
    """

    white: torch.Tensor
    """(sites, size, size) bool: where the best image is white; it is black elsewhere."""

    def __init__(
        self,
        *,
        size: int = 64,
        peak_hz: float = 120.0,
        spontaneous_hz: float = 5.0,
        sigma: float = 0.12,
        device: str = "cpu",
    ) -> None:
        self.size, self.peak_hz, self.spontaneous_hz, self.device = size, peak_hz, spontaneous_hz, device
        self.tune(sigma)
        self.sites = len(self.white)

    @property
    def networks(self) -> tuple[str, ...]:
        return ("pixels",)

    @classmethod
    def load(cls, path: Path | None = None, *, device: str = "cpu") -> Self:  # noqa: ARG003 (computed, not stored)
        return cls(device=device)

    def tune(self, sigma: float) -> None:
        """Set the receptive fields, so that the best image drives exactly 1, and `white`."""
        raise NotImplementedError

    def drive(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, sites), none negative, of (n, size, size) luminance."""
        raise NotImplementedError

    def expected_rate(self, images: Images) -> Rates:
        drive = self.drive(luminance(images, self.size, self.device)).cpu().numpy()
        rates: Rates = self.spontaneous_hz + (self.peak_hz - self.spontaneous_hz) * drive
        return rates

    def best_image(self, site: int) -> Images:
        """(3, size, size) uint8: no image gives this site a higher rate; it gives `peak_hz`."""
        return self.white[site].to(torch.uint8).mul(255).expand(3, -1, -1)


class Gabor(V1):
    """Twelve V1-like simple cells (4 orientations x 3 spatial frequencies) whose best image is known in closed form."""

    name = "gabor"

    def tune(self, sigma: float) -> None:
        fields = receptive_fields(self.size, sigma)
        self.fields = (fields / (fields.abs().sum(dim=(1, 2), keepdim=True) / 2)).to(self.device)  # x is +-1/2 around grey
        self.white = fields > 0

    def drive(self, seen: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nhw,shw->ns", seen, self.fields).clamp(min=0)


def receptive_fields(size: int, sigma: float, phase: float = 0.0) -> torch.Tensor:
    """(12, size, size) float64 Gabors: 4 orientations at each of 4, 8 and 16 cycles a picture, that see nothing in grey."""
    x = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    y, x = torch.meshgrid(x, x, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    fields = []
    for cycles in (4.0, 8.0, 16.0):
        for orientation in np.arange(4) * np.pi / 4:
            place = 2 * np.pi * cycles * (x * np.cos(orientation) + y * np.sin(orientation))
            field = envelope * torch.cos(place + phase)
            fields.append(field - envelope * field.sum() / envelope.sum())
    return torch.stack(fields)


def luminance(images: Images, size: int, device: str) -> torch.Tensor:
    """(n, size, size) float64 of (n, 3, s, s) uint8 images, from -1/2 (black) to 1/2 (white)."""
    check_images(images)
    x = images.to(device, torch.float64) / 255
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="area")
    return torch.einsum("nchw,c->nhw", x, x.new_tensor(LUMINANCE)) - 0.5
