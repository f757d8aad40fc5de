"""A rig of two halves without sockets or time: a presenter that says at once what it showed, and an acquisition that
delivers what a test puts into it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from neurogym_v.rigs import Events, Fixation, Reports, Shown

OFFSET_S = 1000.25
"""Acquisition's clock less the display's."""
STEP_S = 0.2
"""Onset to onset."""


class ScriptedAcquisition:
    """Gives the events that were put into it, one `Events` a call."""

    def __init__(self, channels: Sequence[str] = ("a", "b"), quiet_s: float = 0.0) -> None:
        self.channels, self.quiet_s, self.patience_s = tuple(channels), quiet_s, 1.0
        self.queue = deque[Events | Exception]()
        self.opened = self.closed = 0

    def put(self, *, spikes: Sequence[tuple[float, int]] = (), onsets: Sequence[tuple[float, int]] = (), **rest) -> None:
        self.queue.append(
            Events(
                spike_s=np.array([s for s, _ in spikes], dtype=float),
                channel=np.array([c for _, c in spikes], dtype=np.intp),
                onset_s=np.array([s for s, _ in onsets], dtype=float),
                number=np.array([n for _, n in onsets], dtype=np.int64),
                **rest,
            )
        )

    def open(self) -> None:
        self.opened += 1

    def arm(self) -> None:
        self.put(complete_s=OFFSET_S)

    def events(self, timeout_s: float) -> Events:
        if not self.queue:
            time.sleep(min(timeout_s, 0.001))
            return Events()
        event = self.queue.popleft()
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        self.closed += 1


@dataclass
class Trial:
    """What a test may do with a presentation: change when its onset is measured, its spikes, what the presenter says."""

    number: int
    image: int
    display_s: float
    onsets: list[tuple[float, int]]
    """(acquisition's clock, number)"""
    spikes: list[tuple[float, int]]
    """(after the onset, channel)"""
    broken: bool = False
    shown: bool = True


@dataclass
class ScriptedPresenter:
    """Shows at once; an image's response is `respond(its first pixel % 10)`: spikes as (seconds after onset, channel)."""

    acquisition: ScriptedAcquisition
    respond: Callable[[int], list[tuple[float, int]]]
    change: Callable[[Trial], None] = lambda _: None
    """Called with every presentation."""
    complete: bool = True
    """Whether the acquisition says that all has arrived."""
    refresh_hz: float = 60.0
    now_s: float = 5.0
    trials: list[Trial] = field(default_factory=list)
    reports_: deque[Reports] = field(default_factory=deque)
    opened: int = 0
    closed: int = 0

    def open(self) -> None:
        self.opened += 1

    def prepare(self, images) -> None:
        self.images = images

    def flash(self, at_s: Sequence[float]) -> None:
        times = self.now_s + np.array(at_s)
        self.reports_.append(Reports(flashes_s=times))
        self.acquisition.put(onsets=[(t + OFFSET_S, -1) for t in times], complete_s=times[-1] + OFFSET_S)
        self.now_s = float(times[-1]) + 0.5

    def show(self, fixation: Fixation) -> None:
        shown, spikes, onsets = [], [], []
        self.now_s += 1.0
        for image, number in zip(fixation.images, fixation.numbers, strict=True):
            onset_s = self.now_s + OFFSET_S
            value = int(self.images[image].flatten()[0]) % 10
            trial = Trial(number, value, self.now_s, [(onset_s, -1)], self.respond(value))
            self.change(trial)
            self.trials.append(trial)
            if not trial.shown:
                continue
            measured_s = trial.onsets[0][0] if trial.onsets else onset_s
            spikes += [(measured_s + s, channel) for s, channel in trial.spikes]
            onsets += trial.onsets
            shown += [Shown(number, self.now_s)] + ([Shown(number, float("nan"), broken=True)] if trial.broken else [])
            self.now_s += STEP_S
        complete = {"complete_s": self.now_s + OFFSET_S + 0.5} if self.complete else {}
        self.acquisition.put(spikes=spikes, onsets=onsets, **complete)
        self.reports_.append(Reports(shown=tuple(shown), over=(fixation.numbers[0],)))

    def reports(self, timeout_s: float) -> Reports:  # noqa: ARG002
        return self.reports_.popleft() if self.reports_ else Reports()

    def close(self) -> None:
        self.closed += 1
