"""Gratings with the spectrum of photographs: latents are amplitudes in the Fourier domain, in colours that do not correlate.

The parametrisation of Olah, Mordvintsev & Schubert 2017 (doi:10.23915/distill.00007), with a Hartley transform in the place
of the complex one: it is real and orthonormal, so that d channel values take d numbers, none of them idle or counted twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurogym_v.generators.pixel import Pixel

CORRELATION = ((1.0, 0.832, 0.666), (0.832, 1.0, 0.940), (0.666, 0.940, 1.0))
"""Of red, green and blue over all pixels of `references.load_references(size=64)`."""


class Fourier(Pixel):
    """Sums of coloured gratings, 64 or 128 px: as many latents as channel values, with the 1/f spectrum of photographs."""

    bound: float = 10.0

    def __init__(self, image_size: int = 64) -> None:
        super().__init__(image_size)
        cycles = torch.fft.fftfreq(image_size, dtype=torch.float64)
        frequency = torch.hypot(cycles[:, None], cycles[None, :])
        # 1/f ends at one cycle an image: the mean varies as much as the largest grating does
        amplitude = 1 / frequency.clamp(min=1 / image_size)
        amplitude = amplitude / amplitude.square().mean().sqrt()
        variances, axes = torch.linalg.eigh(torch.tensor(CORRELATION, dtype=torch.float64))
        axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()  # eigenvectors come with any sign
        colours = (axes * variances.sqrt()).flip(1)
        self.amplitude = nn.Parameter(amplitude.float())
        """(s, s) s.d. of the gratings, in the order of `torch.fft.fftfreq`; the mean square is 1."""
        self.colours = nn.Parameter(colours.float())
        """(3 channels, 3 axes): light to dark, red to blue, green to purple; rows have norm 1."""

    def field(self, latents: Tensor) -> Tensor:
        """(n, d) latents -> (n, 3, s, s): each latent is one grating along one axis of colour.

        Latent [axis, u, v] of (3, s, s) has the grating cas(2π (u y + v x) / s) / s, where cas = cos + sin
        = √2 cos(· - π/4). Its partner at (-u, -v) is the same grating a quarter of a cycle on.
        """
        gratings = latents.reshape(-1, 3, self.image_size, self.image_size) * self.amplitude
        waves = torch.fft.fft2(gratings, norm="ortho")
        return torch.einsum("ca,nayx->ncyx", self.colours, waves.real - waves.imag)
