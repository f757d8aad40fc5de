"""What an acquisition delivers, kept until nobody needs it: a thread reads all the time, whatever the agent does meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.importing import in_a_line
from neurogym_v.rigs import Acquisition, Events, Fault, RigError

POLL_S = 0.05
"""How long one call of `events` may wait."""
KEPT_S = 5.0
"""Of the past, when nothing is pending: onsets and spikes that come late are recognised."""
SAME_S = 1e-6
"""Two onsets nearer than this are one that was told twice; counting windows use the same tolerance."""


@dataclass(frozen=True, slots=True)
class Onsets:
    """(k,) each, in order of time."""

    s: NDArray[np.float64]
    number: NDArray[np.int64]


class Recorder:
    """Reads an acquisition in a thread, from `start` to `stop`.

    What the thread meets is raised where someone next asks. Memory holds what came since the last `forget`, and some seconds.
    """

    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._spikes, self._onsets = deque[_Part](), deque[_Part]()
        self._faults: list[Fault] = []
        self._second_thoughts: list[Fault] = []
        self._error: Exception | None = None
        self._complete_s, self._needed_s = -np.inf, np.inf
        self.spikes_seen = np.zeros(len(acquisition.channels), dtype=np.int64)
        """(channels,) since `start`."""

    def start(self) -> None:
        self._acquisition.arm()
        self._thread = threading.Thread(target=self._read, name="acquisition", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=2)
            self._thread = None

    def wait(self, timeout_s: float) -> None:
        """Until something arrives, or this long.

        Raises:
            RigError: the acquisition failed.
        """
        with self._changed:
            if self._error is None:
                self._changed.wait(timeout_s)
        self.check()

    def check(self) -> None:
        """Raise what the acquisition raised."""
        if self._error is not None:
            if isinstance(self._error, RigError):
                raise self._error
            what = in_a_line(self._error)
            raise RigError(f"acquisition: expected events, its adapter failed with {what}") from self._error

    @property
    def complete_s(self) -> float:
        """Everything before this time has arrived."""
        return self._complete_s

    def onsets(self) -> Onsets:
        """All that are kept."""
        with self._changed:
            s, number = _joined(list(self._onsets), np.int64)
        order = np.argsort(s, kind="stable")
        s, number = s[order], number[order]
        if len(s):  # one that was told twice is one
            once = np.concatenate([[True], (np.diff(s) > SAME_S) | (np.diff(number) != 0)])
            s, number = s[once], number[once]
        return Onsets(s, number)

    def spikes(self, start_s: float, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """(n,) times and (n,) channels of the spikes from start_s to just before end_s, in order of time."""
        with self._changed:
            s, channel = _joined(
                [part for part in self._spikes if part.last >= start_s - SAME_S and part.first < end_s], np.intp
            )
        inside = (s >= start_s - SAME_S) & (s < end_s - SAME_S)
        s, channel = s[inside], channel[inside]
        order = np.argsort(s, kind="stable")
        return s[order], channel[order]

    def fault(self, start_s: float, end_s: float) -> str:
        """What may be missing between these times; "" if nothing is."""
        with self._changed:
            return next((fault.what for fault in self._faults if fault.start_s < end_s and fault.end_s > start_s), "")

    def second_thoughts(self) -> list[Fault]:
        """Faults and spikes of times that had been said to be complete before; each is told once."""
        with self._changed:
            told, self._second_thoughts = self._second_thoughts, []
        return told

    def forget(self, before_s: float) -> None:
        """Nothing before this time is needed any more, and until the next call nothing that is older than some seconds; what
        is younger is kept, to recognise what comes late."""
        with self._changed:
            self._needed_s = before_s
            self._trim()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                self._add(self._acquisition.events(POLL_S))
        except Exception as error:  # whoever asks next hears of it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _add(self, events: Events) -> None:
        channels = len(self._acquisition.channels)
        if len(events.channel) and (events.channel.min() < 0 or events.channel.max() >= channels):
            raise RigError(f"acquisition: expected channels 0 to {channels - 1}, got {events.channel.max()}")
        if not (np.isfinite(events.spike_s).all() and np.isfinite(events.onset_s).all()):
            raise RigError("acquisition: expected finite times, got NaN or infinite ones")
        if np.isnan(events.complete_s):
            raise RigError("acquisition: expected complete_s as a time, -inf where nothing is known, got NaN")
        with self._changed:
            late = events.spike_s[events.spike_s < self._complete_s - SAME_S]
            faults = [*events.faults, *(Fault(s, s + 2 * SAME_S, "a spike arrived late") for s in late.tolist())]
            self._faults += faults
            self._second_thoughts += [fault for fault in faults if fault.start_s < self._complete_s - SAME_S]
            if len(events.spike_s):
                self._spikes.append(_Part.of(events.spike_s, events.channel))
                self.spikes_seen += np.bincount(events.channel, minlength=channels)
            if len(events.onset_s):
                self._onsets.append(_Part.of(events.onset_s, events.number))
            self._complete_s = max(self._complete_s, events.complete_s)
            self._trim()
            self._changed.notify_all()

    def _trim(self) -> None:
        limit = min(self._needed_s, self._complete_s) - KEPT_S
        for kept in (self._spikes, self._onsets):
            while kept and kept[0].last < limit:
                kept.popleft()
        if self._faults:
            self._faults = [fault for fault in self._faults if fault.end_s >= limit]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one call of `events` brought."""

    first: float
    last: float
    s: NDArray[np.float64]
    other: NDArray[Any]
    """Channel or number of each."""

    @classmethod
    def of(cls, s: NDArray[np.float64], other: NDArray[Any]) -> _Part:
        return cls(float(s.min()), float(s.max()), s, other)


def _joined(parts: list[_Part], other: type) -> tuple[Any, Any]:
    if not parts:
        return np.empty(0), np.empty(0, dtype=other)
    return np.concatenate([part.s for part in parts]), np.concatenate([part.other for part in parts])
