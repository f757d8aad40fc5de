"""What a neuron is, and what a simulated one is: an expected rate for every image, observed through effects of a session.

The halves of a simulation are apart on purpose. `expected_rate` is a pure function of the images, so that many sessions can
share one pass of the network and a score never depends on luck; `observe` is what one session's cell makes of it.
"""

from __future__ import annotations

import base64
import copy
import math
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from neurogym_v.neurons.clock import Presentations, Timing
from neurogym_v.references import load_references
from neurogym_v.types import Images, NeuroGymError, Rates

GREY = 128
"""Of 255: the screen between and around images."""
NATURAL = 100
"""References that a site's mean and s.d. over natural images are taken from."""


class Neuron(ABC):
    """Something that can be shown images and answers with firing rates: a simulation or an electrode."""

    sites: int
    """Recorded channels: columns of the rates."""
    repeated: int = 0
    """Presentations of this session beyond those asked for: lost ones that were shown again. They are paid for."""

    @property
    def alive(self) -> NDArray[np.bool_]:
        """(sites,) False once a site is known to be lost for good; its session then ends as terminated."""
        return np.ones(self.sites, dtype=np.bool_)

    @abstractmethod
    def present(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> Rates:
        """Show `images[order[0]]`, `images[order[1]]`, ... once each, in that order.

        Args:
            images: (n, 3, s, s) uint8 sRGB, each transferred once however often it is shown.
            order: (m,) indices into images, one a presentation.
            rng: the randomness of these presentations, so that a session can be replayed.

        Returns:
            (m, sites) spikes/s; NaN marks a lost trial.
        """

    def begin(self, rng: np.random.Generator) -> Self:  # noqa: ARG002 (those with a state draw it)
        """The neuron at the start of a session. Sessions of a simulation share nothing that changes; a live one is itself."""
        return self

    def keep(self, folder: Path) -> None:  # noqa: B027 (a simulation writes nothing)
        """A run in this folder begins or goes on: what the neuron keeps of its own belongs there."""

    def close(self) -> None:  # noqa: B027 (a simulation holds nothing)
        """The run is over, or has stopped: let go of whatever is connected."""

    def state(self) -> dict[str, Any]:
        """What the next answers depend on besides the images, as JSON; it goes to the journal with every block."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (those without a state have nothing to do)
        """Go on from a `state`."""


class SimulatedNeuron(Neuron):
    """A neuron whose expected rate can be computed. Subclasses give `sites`, `name` and `expected_rate`."""

    name: str
    field_deg: float = 8.0
    """What an image spans on the neuron's screen, degrees of visual angle."""
    timing: Timing = Timing()
    _known: tuple[tuple[weakref.ref[Images], int, Rates], ...] = ()
    presented: int = 0
    """Presentations of this session so far: the clock."""
    _natural: tuple[Rates, Rates] | None = None
    _made_of: SimulatedNeuron | None = None

    @property
    def networks(self) -> tuple[str, ...]:
        """What it is made of, of `neurogym_v.networks`, or `pixels` themselves; a model made of their kin is no fair one."""
        return ()

    @property
    def source(self) -> SimulatedNeuron:
        """What computes the expected rates, inside all effects: sessions in lockstep share it."""
        return self

    def natural(self) -> tuple[Rates, Rates]:
        """(sites,) mean and (sites,) s.d. of the expected rates over natural images, spikes/s; computed once."""
        if self._natural is None:
            rates = self.expected_rate(load_references(count=NATURAL, size=64).images)
            self._natural = rates.mean(axis=0), rates.std(axis=0, ddof=1)
        return self._natural

    @abstractmethod
    def expected_rate(self, images: Images) -> Rates:
        """(n, sites) noise-free spikes/s for (n, 3, s, s) uint8 images: for scoring, never given to an agent."""

    def begin(self, rng: np.random.Generator) -> Self:  # noqa: ARG002
        fresh = copy.copy(self)
        fresh.presented, fresh._made_of = 0, self.made_of
        return fresh

    @property
    def made_of(self) -> SimulatedNeuron:
        """The neuron that it was before any session: those of one share all that makes an expected rate."""
        return self._made_of or self

    def state(self) -> dict[str, Any]:
        return {"presented": self.presented}

    def restore(self, state: Mapping[str, Any]) -> None:
        if not isinstance(presented := state.get("presented"), int):
            raise NeuroGymError(f"state of a neuron: expected how many were presented, found {sorted(state)}")
        self.presented = presented

    def see(
        self,
        images: Images,
        order: NDArray[np.intp],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> tuple[Images, NDArray[np.intp]]:
        """What falls on the eye in these presentations, images and order; here: what was shown."""
        return images, order

    def observe(self, expected: Rates, shown: Presentations, rng: np.random.Generator) -> Rates:  # noqa: ARG002
        """(m, sites) rates observed in m presentations whose expected rates are given; here: without noise."""
        return expected.copy()

    def present(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> Rates:
        seen, index = self.see(images, order, rng)
        return self.respond(self.source.known_rate(seen)[index], images, order, rng)

    def known_rate(self, images: Images) -> Rates:
        """`expected_rate`, computed once for a set of images that is shown piece by piece, and a second one in between."""
        version = 0 if images.is_inference() else images._version  # grows when the tensor is changed in place
        for seen, was, rates in self._known:
            if seen() is images and was == version:
                return rates
        rates = self.expected_rate(images)
        self._known = ((weakref.ref(images), version, rates), *self._known[:1])
        return rates

    def respond(self, expected: Rates, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> Rates:
        """`present` after the network: the (m, sites) expected rates of what the eye saw are given."""
        rates = self.observe(expected, Presentations(images, order, self.presented, self.timing), rng)
        self.presented += len(order)
        return rates


class Effect(SimulatedNeuron):
    """A neuron around a neuron: changes what is observed, never what is expected.

    A subclass has a name in `registry.EFFECTS`, keyword parameters of which the first is the one that `NAME:VALUE` sets, and
    `observe`, which first asks `self.inner.observe`. What it must remember from presentation to presentation is in `memory`,
    arrays of numbers that `start` sets: they are saved and restored for it. Each presentation takes the same number of random
    draws whatever its rate, so that two agents with the same seed and batch size meet the same luck.
    """

    effect: str
    """Its name in the registry."""

    def __init__(self, inner: SimulatedNeuron) -> None:
        around: SimulatedNeuron | None = inner
        while isinstance(around, Effect):
            if around.effect == self.effect:
                raise NeuroGymError(f"effect {self.effect}: expected each effect once around a neuron, got it twice")
            around = around.inner
        self.inner: SimulatedNeuron = inner
        self.sites, self.name, self.field_deg, self.timing = inner.sites, inner.name, inner.field_deg, inner.timing
        self.memory: dict[str, NDArray[np.float64]] = {}
        self.start(np.random.default_rng(0))

    @property
    def networks(self) -> tuple[str, ...]:
        return self.inner.networks

    def start(self, rng: np.random.Generator) -> None:
        """Set `memory` to that at the start of a session."""

    def begin(self, rng: np.random.Generator) -> Self:
        fresh = super().begin(rng)
        fresh.inner = self.inner.begin(rng)
        fresh.memory = {}
        fresh.start(rng)
        return fresh

    def state(self) -> dict[str, Any]:
        own = {self.effect: {name: _packed(array) for name, array in self.memory.items()}} if self.memory else {}
        return self.inner.state() | own | {"presented": self.presented}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.inner.restore(state)
        if self.memory:
            saved = state.get(self.effect, {})
            if saved.keys() != self.memory.keys():
                raise NeuroGymError(f"state of {self.effect}: expected {sorted(self.memory)}, found {sorted(saved)}")
            self.memory = {name: _unpacked(saved[name], array.shape) for name, array in self.memory.items()}

    @property
    def alive(self) -> NDArray[np.bool_]:
        return self.inner.alive

    @property
    def source(self) -> SimulatedNeuron:
        return self.inner.source

    def natural(self) -> tuple[Rates, Rates]:
        return self.inner.natural()

    def expected_rate(self, images: Images) -> Rates:
        return self.inner.expected_rate(images)

    def see(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> tuple[Images, NDArray[np.intp]]:
        return self.inner.see(images, order, rng)

    def observe(self, expected: Rates, shown: Presentations, rng: np.random.Generator) -> Rates:
        return self.inner.observe(expected, shown, rng)


def _packed(array: NDArray[np.float64]) -> str:
    """Exact, and a third of what the digits would take."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype="<f8").tobytes(), 1)).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f8").astype(np.float64)
    if found.size != math.prod(shape):
        raise NeuroGymError(f"state of a neuron: expected {math.prod(shape)} numbers, found {found.size}")
    return found.reshape(shape)


def check_images(images: Images) -> None:
    """Raise NeuroGymError unless images are (n, 3, s, s) uint8."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or str(images.dtype) != "torch.uint8":
        raise NeuroGymError(f"images: expected (n, 3, s, s) uint8, got {tuple(images.shape)} {images.dtype}")
