"""What a virtual rig holds: a simulated neuron, two clocks, and the spikes and edges that images on its screen bring about."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.rigs import NO_NUMBER
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.clock import HeldClock
from neurogym_v.rigs.virtual.mischief import Misdeed
from neurogym_v.rigs.virtual.truth import Truth
from neurogym_v.rigs.window import Window
from neurogym_v.types import Images, Rates

PHOTODIODE_S = 0.0012
"""From the frame to the edge."""
JITTER_S = 0.0004
"""Of that, uniform."""
FLICKER_S = 0.002
"""How long an edge too many lasts."""
REFRACTORY_S = 0.0015
"""Two spikes of a channel are never nearer."""
SPONTANEOUS_HZ = 4.0
"""Outside all response windows."""
KEPT = 4096
"""Images that are kept ready."""
Frame: TypeAlias = Callable[[float], float]
"""Time of the first frame that is not before a time; display's clock."""


class World:
    """A simulated neuron in time.

    The count of a presentation is drawn by the neuron and its effects; the spikes of that count are spread over the response
    window after the photodiode's edge, and a few more stand around it. A rate that is NaN is a broken fixation.

    Args:
        neuron: with its effects.
        channels: names of the sites that are recorded.
        sites: of the neuron, one a channel; None: all.
        window: in which the neuron's rates are meant.
        sample_rate: of the acquisition, Hz.
        pace: seconds of the rig's time in a second.
        ahead_s: from one stretch to the next, at most, wall clock: then time stands still until somebody asks for one.
        drift: seconds that the acquisition's clock gains in a second of the display's.
        unplugged_after: images after which the photodiode's cable falls off; None: never.
        extra_edges: spurious edges a second.
        log: a file for one line of JSON a presentation: what a reader ought to find.
    """

    def __init__(
        self,
        neuron: SimulatedNeuron,
        channels: Sequence[str],
        *,
        sites: Sequence[int] | None = None,
        window: Window,
        sample_rate: float = 20000.0,
        pace: float = 1.0,
        ahead_s: float = math.inf,
        drift: float = 0.0,
        unplugged_after: int | None = None,
        extra_edges: float = 0.0,
        seed: int = 0,
        log: Path | None = None,
    ) -> None:
        self.channels, self.window, self.sample_rate = tuple(channels), window, sample_rate
        self.clock = HeldClock(pace, ahead_s)
        """The display's."""
        self._drift, self._unplugged_after, self._extra = drift, unplugged_after, extra_edges
        self._sites = list(range(len(self.channels)) if sites is None else sites)
        self._rng, self._lock = np.random.default_rng([seed, 7]), threading.Lock()
        self._neuron = neuron.begin(np.random.default_rng([seed, 8]))
        self._known: dict[str, tuple[Images, Rates]] = {}
        self._start_s = float(self._rng.uniform(2, 5))  # the acquisition was running before the display was switched on
        self._spikes: list[tuple[NDArray[np.int64], NDArray[np.intp]]] = []
        self._edge: list[tuple[int, bool, int]] = []
        self._busy: list[tuple[int, int]] = []
        self._written = 0
        self._last_spike = np.full(len(self.channels), -(10**9), dtype=np.int64)
        self._level = self._line = False  # of the patch, and of the photodiode at the end of the last stretch
        self.shown = 0
        """Images so far."""
        self.began: Callable[[], None] = lambda: None
        """Called before the first of them."""
        self._truth = Truth(log)

    def sample(self, display_s: float) -> int:
        """The acquisition's clock at a time of the display's."""
        return round((self._start_s + display_s * (1 + self._drift)) * self.sample_rate)

    def load(self, names: Sequence[str], images: NDArray[np.uint8]) -> None:
        """Work out how the neuron will answer to (n, 3, s, s) images."""
        pictures = torch.from_numpy(images.copy())
        rates = self._neuron.source.expected_rate(pictures)
        with self._lock:
            for i, name in enumerate(names):
                self._known[name] = pictures[i : i + 1], rates[i : i + 1]
            for name in list(self._known)[:-KEPT]:
                del self._known[name]

    def appear(self, name: str, number: int, frame: Frame) -> tuple[float, bool]:
        """An image is put on the screen at the next frame: when that is, and whether the animal keeps looking."""
        image, expected = self._known[name]
        if not self.shown:
            self.began()
        self.shown += 1
        rates = self._neuron.respond(expected, image, np.zeros(1, dtype=np.intp), self._rng)[0, self._sites]
        broken = bool(np.isnan(rates).any())
        start_s, end_s = self.window.response_s
        with self._lock:
            shown_s = frame(self.clock.now())
            edge = self._light(shown_s, number)
            first, last = edge + self._samples(start_s), edge + self._samples(end_s)
            counts = np.rint(np.nan_to_num(rates) * (end_s - start_s)).astype(int)
            counts = np.array([self._fire(channel, int(n), first, last) for channel, n in enumerate(counts)])
            self._busy.append((first, last))
        self._truth.write(number=number, image=name, onset=edge, counts=counts.tolist(), broken=broken)
        return shown_s, not broken

    def light(self, frame: Frame) -> float:
        """The photodiode patch is lit without an image, at the next frame: when that is."""
        with self._lock:
            shown_s = frame(self.clock.now())
            self._light(shown_s, NO_NUMBER)
        return shown_s

    def darken(self, frame: Frame) -> float:
        """The patch goes dark at the next frame: when that is."""
        with self._lock:
            shown_s = frame(self.clock.now())
            if self._plugged and self._level:
                self._edge.append((self._later(shown_s), False, NO_NUMBER))
            self._level = False
        return shown_s

    def stretch(self) -> Stretch:
        """What happened since the last stretch; frames that are still to come are later than its end."""
        self.clock.follow()
        with self._lock:
            start, self._written = self._written, max(self.sample(self.clock.now()), self._written)
            end = self._written
            if not start:
                start = max(0, end - self._samples(0.05))
            self._background(start, end)
            spikes = np.concatenate([s for s, _ in self._spikes]) if self._spikes else np.empty(0, dtype=np.int64)
            channel = np.concatenate([c for _, c in self._spikes]) if self._spikes else np.empty(0, dtype=np.intp)
            now = spikes < end
            self._spikes = [(spikes[~now], channel[~now])]
            order = np.argsort(spikes[now], kind="stable")
            edges = sorted(e for e in self._edge if e[0] < end)
            self._line = edges[-1][1] if edges else self._line
            self._edge = [e for e in self._edge if e[0] >= end]
            self._busy = [b for b in self._busy if b[1] >= end]
        return Stretch(
            start=start,
            end=end,
            spike=spikes[now][order],
            channel=channel[now][order],
            edge=np.array([e[0] for e in edges], dtype=np.int64),
            high=np.array([e[1] for e in edges], dtype=bool),
            number=np.array([e[2] for e in edges], dtype=np.int64),
        )

    def misdeed(self, misdeed: Misdeed) -> None:
        """Write down what went wrong on the way."""
        self._truth.write(fault=misdeed.fault, start=misdeed.start, end=misdeed.end, at=time.time())

    def close(self) -> None:
        self._truth.close()

    @property
    def _plugged(self) -> bool:
        return self._unplugged_after is None or self.shown <= self._unplugged_after

    def _samples(self, seconds: float) -> int:
        return round(seconds * self.sample_rate)

    def _later(self, display_s: float) -> int:
        return self.sample(display_s + PHOTODIODE_S + self._rng.uniform(0, JITTER_S))

    def _light(self, display_s: float, number: int) -> int:
        edge = self._later(display_s)
        if self._plugged:
            self._edge.append((edge, True, number))
        self._level = True
        return edge

    def _fire(self, channel: int, count: int, first: int, last: int) -> int:
        """Put spikes at random samples from first to last - 1, as many as fit with a refractory time between them."""
        gap = self._samples(REFRACTORY_S)
        first = max(first, int(self._last_spike[channel]) + gap)
        count = max(0, min(count, (last - first) // gap))
        if count:
            free = np.sort(self._rng.integers(0, last - first - (count - 1) * gap, count))
            spikes = first + free + gap * np.arange(count)
            self._spikes.append((spikes, np.full(count, channel, dtype=np.intp)))
            self._last_spike[channel] = spikes[-1]
        return count

    def _background(self, start: int, end: int) -> None:
        """Spontaneous spikes, but where a response is: its count is the neuron's own."""
        for channel in range(len(self.channels)):
            for _ in range(self._rng.poisson(SPONTANEOUS_HZ * (end - start) / self.sample_rate)):
                at, gap = int(self._rng.integers(start, end)), self._samples(REFRACTORY_S)
                taken = any(a - gap <= at < b + gap for a, b in self._busy)
                if not taken and at - self._last_spike[channel] >= gap:
                    self._spikes.append((np.array([at]), np.array([channel])))
                    self._last_spike[channel] = at
        for _ in range(self._rng.poisson(self._extra * (end - start) / self.sample_rate)):
            self._flicker(int(self._rng.integers(start, end)))

    def _flicker(self, at: int) -> None:
        """The photodiode's line changes for a moment, unless it is about to change by itself."""
        length = self._samples(FLICKER_S)
        if any(abs(edge - at) <= 2 * length for edge, *_ in self._edge):
            return
        before = max((e for e in self._edge if e[0] < at), default=(0, self._line, NO_NUMBER))
        self._edge += [(at, not before[1], NO_NUMBER), (at + length, before[1], NO_NUMBER)]
