"""Where a picture stands on the screen, and how large it is there: size and position tuning of any simulated neuron."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from neurogym_v.neurons.simulated import GREY, SimulatedNeuron, check_images
from neurogym_v.types import Images, NeuroGymError, Rates


class Viewed(SimulatedNeuron):
    """A neuron that sees every image as a picture of `size_deg` degrees, centred (x, y) degrees from its field's centre.

    The neuron's field, `field_deg` wide, is what fills its network's input: a picture of that size in its middle is seen as it
    is. A smaller one leaves grey around it; what lies outside the field is not seen. What falls on the eye is the whole field,
    so that a gaze that moves takes all of it along. Expected, and natural, rates are those of pictures as they stand there.

    Args:
        size_deg: degrees of visual angle. x_deg, y_deg: to the right and upwards.

    Raises:
        NeuroGymError: a neuron behind effects of a session, a size that is not above 0, numbers that are not finite, or a
            picture that lies outside the field altogether.
    """

    def __init__(self, inner: SimulatedNeuron, *, size_deg: float, x_deg: float = 0.0, y_deg: float = 0.0) -> None:
        if inner.source is not inner:
            raise NeuroGymError("view: expected a neuron that no effect of a session and no view stands around yet")
        if not 0 < size_deg < np.inf:
            raise NeuroGymError(f"size_deg: expected finite degrees above 0, got {size_deg}")
        if not np.isfinite([x_deg, y_deg]).all():
            raise NeuroGymError(f"position: expected finite degrees, got ({x_deg:g}, {y_deg:g})")
        reach = (size_deg + inner.field_deg) / 2
        if max(abs(x_deg), abs(y_deg)) >= reach:
            raise NeuroGymError(
                f"position: expected a picture of {size_deg:g} degrees that overlaps the field of {inner.field_deg:g}, "
                f"so within {reach:g} degrees of its centre, got ({x_deg:g}, {y_deg:g})"
            )
        self.inner, self.size_deg, self.x_deg, self.y_deg = inner, size_deg, x_deg, y_deg
        self.sites, self.name, self.timing, self.field_deg = inner.sites, inner.name, inner.timing, inner.field_deg

    @property
    def networks(self) -> tuple[str, ...]:
        return self.inner.networks

    @property
    def source(self) -> SimulatedNeuron:
        return self.inner.source

    def expected_rate(self, images: Images) -> Rates:
        return self.inner.expected_rate(self.screen(images))

    def see(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> tuple[Images, NDArray[np.intp]]:
        images, order = self.inner.see(images, order, rng)
        used, order = np.unique(order, return_inverse=True)  # of a set that is shown piece by piece, those in this piece
        return self.screen(images[used]), order

    def screen(self, images: Images) -> Images:
        """(n, 3, s, s) uint8 as the whole field, with the pictures in their place."""
        check_images(images)
        scale = self.inner.field_deg / self.size_deg
        if scale == 1 and self.x_deg == self.y_deg == 0:
            return images
        side = images.shape[-1]
        pictures = images.float() - GREY
        if scale > 1:  # shrunk by sampling: what is finer than the screen must go first
            pictures = functional.interpolate(pictures, (max(1, round(side / scale)),) * 2, mode="area")
        # In units of half the field: the screen's own places, seen from the picture.
        shift_x, shift_y = 2 * self.x_deg / self.inner.field_deg, -2 * self.y_deg / self.inner.field_deg
        towards = torch.tensor(
            [[scale, 0.0, -scale * shift_x], [0.0, scale, -scale * shift_y]], dtype=torch.float32, device=images.device
        )
        grid = functional.affine_grid(towards.expand(len(images), 2, 3), [len(images), 3, side, side], align_corners=False)
        placed = functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return (placed + GREY).round().clamp(0, 255).to(torch.uint8)


def tuning(neuron: SimulatedNeuron, images: Images, sizes_deg: list[float]) -> Rates:
    """(sizes, n, sites) expected spikes/s of the same images at several sizes."""
    return np.stack([Viewed(neuron, size_deg=size).expected_rate(images) for size in sizes_deg])
