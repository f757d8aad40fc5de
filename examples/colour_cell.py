"""A neuron of your own: any function of the images is a cell. This one likes red in its receptive field, on a dark ground.

From this folder:

    neurogym-v run --neuron colour_cell:ColourCell --agent cma_es --generator fourier --noise modulated:0.15+lost:0.1
"""

from __future__ import annotations

import numpy as np
import torch

from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.types import Images, Rates


class ColourCell(SimulatedNeuron):
    """Two cells: red minus green in a Gaussian field left of the centre, and right of it; 2 to 60 spikes/s."""

    sites = 2
    name = "colour cell"

    def expected_rate(self, images: Images) -> Rates:
        """(n, 2) spikes/s of (n, 3, s, s) uint8 images; effects such as Poisson counts are put around it by name."""
        red, green, blue = images.float().cpu().unbind(1)
        opponent = (red - (green + blue) / 2) / 255
        x = torch.linspace(-1, 1, images.shape[-1])
        fields = torch.stack([torch.exp(-((x - centre) ** 2 + x[:, None] ** 2) / 0.1) for centre in (-0.4, 0.4)])
        fields /= fields.sum(dim=(1, 2), keepdim=True)
        drive = torch.einsum("nyx,cyx->nc", opponent, fields).numpy().astype(np.float64)
        return 2.0 + 58.0 * np.clip(drive, 0, 1) ** 2


if __name__ == "__main__":
    screen = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    screen[1, 0] = 255
    print("black and red, spikes/s:", ColourCell().expected_rate(screen).round(1).tolist())
