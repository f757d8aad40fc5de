"""What a simulated neuron is: an expected rate for every image, and observations of it through wrappers of noise.

The two halves are apart on purpose. `expected_rate` is a pure function of the images, so that many sessions can share one
pass of the network; `observe` is what one session's cell makes of it. Agents are only ever given observations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import Images, NeuroGymError, Rates


class Neuron(Protocol):
    """Something that can be shown images and answers with firing rates: a simulation or an electrode."""

    sites: int
    """Recorded channels: columns of the rates."""

    @property
    def alive(self) -> bool:
        """False once the site is lost for good; the session then ends as terminated."""

    def present(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> Rates:
        """Show `images[order[0]]`, `images[order[1]]`, ... once each, in that order.

        Args:
            images: (n, 3, s, s) uint8 sRGB, each transferred once however often it is shown.
            order: (m,) indices into images, one a presentation.
            rng: the randomness of these presentations, so that a session can be replayed.

        Returns:
            (m, sites) spikes/s; NaN marks a lost trial.
        """


class SimulatedNeuron(ABC):
    """A neuron whose expected rate can be computed. Subclasses give `sites`, `name` and `expected_rate`."""

    sites: int
    name: str

    @property
    def alive(self) -> bool:
        return True

    @property
    def source(self) -> SimulatedNeuron:
        """The neuron inside all wrappers, which sessions in lockstep share."""
        return self

    @abstractmethod
    def expected_rate(self, images: Images) -> Rates:
        """(n, sites) noise-free spikes/s for (n, 3, s, s) uint8 images: for scoring, never given to an agent."""

    def observe(self, expected: Rates, rng: np.random.Generator) -> Rates:  # noqa: ARG002 (wrappers use it)
        """(m, sites) rates observed in m presentations whose expected rates are given; here: without noise."""
        return expected.copy()

    def present(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> Rates:
        return self.observe(self.expected_rate(images)[order], rng)


class Wrapper(SimulatedNeuron):
    """A neuron around a neuron: changes what is observed, never what is expected."""

    def __init__(self, inner: SimulatedNeuron) -> None:
        self.inner = inner
        self.sites = inner.sites
        self.name = inner.name

    @property
    def alive(self) -> bool:
        return self.inner.alive

    def expected_rate(self, images: Images) -> Rates:
        return self.inner.expected_rate(images)

    @property
    def source(self) -> SimulatedNeuron:
        return self.inner.source


def check_images(images: Images) -> None:
    """Raise NeuroGymError unless images are (n, 3, s, s) uint8."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or str(images.dtype) != "torch.uint8":
        raise NeuroGymError(f"images: expected (n, 3, s, s) uint8, got {tuple(images.shape)} {images.dtype}")
