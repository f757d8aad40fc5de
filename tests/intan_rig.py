"""A virtual Intan RHX and its reader, connected, for tests of either end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from neurogym_v.rigs import NO_NUMBER, Events
from neurogym_v.rigs.acquisitions.intan import Intan
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.intan import IntanSource
from neurogym_v.rigs.virtual.mischief import Mischief

RATE = 20_000
NAMES = ("A-003", "A-000", "B-001")


class Log:
    """What happens at the electrode: 30 spikes/s a channel, an image every 0.2 s, for 4 s, and then a silent second."""

    def __init__(self, seed: int = 0, begin: int = 5_000) -> None:
        self.begin, self.end = begin, begin + 80_000
        rng = np.random.default_rng(seed)
        spikes = []
        for channel in range(len(NAMES)):
            times = self.begin + np.cumsum(rng.integers(40, 1300, 300))
            spikes += [(int(t), channel) for t in times if t < self.end]
        spikes.sort()
        self.spike, self.channel = (np.array(column) for column in zip(*spikes, strict=True))
        self.onset = np.arange(self.begin + 1234, self.end - 2500, 4000)
        self.edge = np.sort(np.concatenate([self.onset, self.onset + 1900]))

    def stretches(self) -> Iterator[Stretch]:
        start = self.begin
        while start < self.end + RATE:
            end = start + 403
            spike, edge = (slice(*np.searchsorted(of, (start, end))) for of in (self.spike, self.edge))
            high = np.isin(self.edge[edge], self.onset)
            number = np.full(len(high), NO_NUMBER)
            yield Stretch(
                start=start, end=end, spike=self.spike[spike], channel=self.channel[spike], edge=self.edge[edge], high=high,
                number=number,
            )  # fmt: skip
            start = end


@contextmanager
def rig(mischief: Mischief | None = None, *, armed: bool = True, **arguments: object) -> Iterator[tuple[IntanSource, Intan]]:
    source = IntanSource((*NAMES, "C-017"), RATE, mischief or Mischief())
    source.open()
    intan = Intan(**{"channels": NAMES, "settle_ms": 10.0, **source.settings, **arguments})  # type: ignore[arg-type]
    try:
        intan.open()
        if armed:
            intan.arm()
            wait(lambda: source._program.running)
        yield source, intan
    finally:
        intan.close()
        source.close()


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def play(source: IntanSource, log: Log) -> threading.Thread:
    """Write it all, faster than life but not at once, in a thread of its own."""

    def write() -> None:
        for i, stretch in enumerate(log.stretches()):
            source.write(stretch)
            if i % 4 == 0:
                time.sleep(0.002)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


class Told:
    """All that an acquisition told, joined, and whether it kept its word on what is complete."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.events: list[Events] = []
        self.complete_s = -np.inf

    def add(self, events: Events) -> None:
        for times in (events.spike_s, events.onset_s):
            assert (times >= self.complete_s - 1e-9).all()
        assert events.complete_s >= self.complete_s
        self.complete_s = events.complete_s
        self.events.append(events)

    def spikes(self) -> set[tuple[int, int]]:
        return {
            (round(t * RATE), int(c))
            for e in self.events
            for t, c in zip(e.spike_s, e.channel, strict=True)
            if t * RATE < self.log.end
        }

    def onsets(self) -> set[int]:
        return {round(t * RATE) for e in self.events for t in e.onset_s}

    def faulty(self, sample: int) -> bool:
        at = sample / RATE
        return any(f.start_s - 1e-9 <= at <= f.end_s + 1e-9 for e in self.events for f in e.faults)


def listen(intan: Intan, thread: threading.Thread, told: Told) -> None:
    end = time.monotonic() + 20
    while told.complete_s < told.log.end / RATE:
        assert time.monotonic() < end
        told.add(intan.events(0.05))
    thread.join()


class Kept:
    """In place of mischief: keeps what passes, and lets nothing pass that tells of some samples."""

    def __init__(self, lost: range) -> None:
        self.stalled = self.dead = False
        self.lost, self.blocks = lost, list[bytes]()

    def __call__(self, message: list[bytes], start: int, _end: int) -> list[list[bytes]]:
        if message[0] == b"waveform":
            self.blocks.append(message[1])
        return [] if start in self.lost else [message]
