"""What the conformance kit plays to an acquisition, in real time: spikes and onsets at the places where mistakes show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import NO_NUMBER
from neurogym_v.rigs.virtual import Stretch

Play = Callable[[Stretch], None]
"""play(stretch): let this happen; stretches follow each other without gaps, and the first begins at sample 0."""
STRETCH_S = 0.01
ONSET_EVERY, LIT = 10, 5
"""Stretches from one onset to the next, and for which the photodiode line stays high."""
BURST = 600
"""Spikes in one stretch, in the middle of those that count; fewer where sites and samples are few."""


@dataclass(slots=True)
class Score:
    """What is played: idle stretches until the acquisition hears, those that count, and idle ones again."""

    sites: int
    rate: float
    """Samples a second."""
    stretches: int
    """That count."""
    seed: int = 0
    apart_s: float = 0.0
    """From one spike of a site to the next, at least."""
    first: int | None = None
    """Of the stretches that count; a multiple of ONSET_EVERY. None: not yet known."""
    played: list[Stretch] = field(default_factory=list)
    _fired: dict[int, int] = field(default_factory=dict)
    """Site: sample of its latest spike."""

    def next(self) -> Stretch:
        """The one after those that were played."""
        k = len(self.played)
        start, end = round(k * STRETCH_S * self.rate), round((k + 1) * STRETCH_S * self.rate)
        place = -1 if self.first is None else k - self.first
        rng, counts = np.random.default_rng((self.seed, k)), 0 <= place < self.stretches
        idle = np.array([(end - start) // 2 * self.sites + k % self.sites])
        spikes = self._apart(start, self._counting(rng, place, end - start) if counts else idle)
        phase = k % ONSET_EVERY
        # idle stretches have spikes and flashes too, as some streams tell of time only when something happens
        edge = start + (0 if counts and place % 20 == 0 else int(rng.integers(end - start)) if counts else (end - start) // 2)
        changes = np.array([phase == 0])[: phase in (0, LIT)]
        return Stretch(
            start=start,
            end=end,
            spike=(start + spikes // self.sites).astype(np.int64),
            channel=(spikes % self.sites).astype(np.intp),
            edge=np.full(len(changes), edge, dtype=np.int64),
            high=changes,
            number=np.full(len(changes), 17 + place // ONSET_EVERY if counts and phase == 0 else NO_NUMBER, dtype=np.int64),
        )

    def counted_s(self) -> tuple[float, float]:
        """Where the stretches that count begin and end."""
        first = self.first or 0
        return self.played[first].start / self.rate, self.played[first + self.stretches - 1].end / self.rate

    def spikes(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """All times, ascending, and the channels."""
        played = self.played[:]
        return np.concatenate([s.spike for s in played]) / self.rate, np.concatenate([s.channel for s in played])

    def onsets(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """All times, ascending, and the numbers."""
        played = self.played[:]
        return np.concatenate([s.edge[s.high] for s in played]) / self.rate, np.concatenate([s.number[s.high] for s in played])

    def _counting(self, rng: np.random.Generator, place: int, samples: int) -> NDArray[np.int64]:
        """Spikes as sample * sites + site: few, none, a burst, all sites together, at the first and at the last sample."""
        cells = samples * self.sites
        n = BURST if place == self.stretches // 2 else 0 if place % 7 == 0 else int(rng.poisson(0.7 * self.sites))
        ends = [*range(self.sites), cells - 1] if place % 5 == 0 else []
        return np.unique(np.append(rng.choice(cells, min(n, 3 * cells // 4), replace=False), ends)).astype(np.int64)

    def _apart(self, start: int, spikes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `spikes` that come long enough after the one before."""
        kept = []
        for spike in spikes.tolist():
            at, site = start + spike // self.sites, spike % self.sites
            if site not in self._fired or at - self._fired[site] >= self.apart_s * self.rate:
                self._fired[site] = at
                kept.append(spike)
        return np.array(kept, dtype=np.int64)


class Player:
    """A thread that plays, stretch after stretch, in real time."""

    def __init__(self, play: Play, score: Score) -> None:
        self.score, self._play = score, play
        self._ended = threading.Event()
        self._begin = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin(self) -> None:
        """From the next onset on, what is played counts."""
        self._begin = True

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(2.0)

    def done(self) -> bool:
        """Whether all that counts was played; raises what `play` raised."""
        if self._failure:
            raise self._failure
        first = self.score.first
        return first is not None and len(self.score.played) >= first + self.score.stretches

    def _run(self) -> None:
        score, began = self.score, time.monotonic()
        while not self._ended.wait(max(0.0, began + len(score.played) * STRETCH_S - time.monotonic())):
            if self._begin and score.first is None and len(score.played) % ONSET_EVERY == 0:
                score.first = len(score.played)
            stretch = score.next()
            try:
                self._play(stretch)
            except Exception as error:
                self._failure = error
                return
            score.played.append(stretch)
