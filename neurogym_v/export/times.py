"""One clock for a whole file, and the spikes and windows on it.

Of a live run it is the acquisition's own clock, as long as that goes on. One that begins anew, because the recording program
was started again, is moved behind what was before, by the time that passed on the wall: no two things share a time.
A simulated run has no clock; its presentations stand where the timing of a session puts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from neurogym_v.export.rig import Rig
from neurogym_v.export.run import Presentation, Run
from neurogym_v.neurons.clock import Timing
from neurogym_v.rigs.recorder import SAME_S

Array = NDArray[np.float64]
GAP_S = 1.0
"""At least so long after the last onset begins what a restarted clock measured."""
TOGETHER_S = 0.05
"""What was written to the log as begun within so much was begun in one go."""
RATES_HZ = (10_000, 12_500, 15_000, 20_000, 24_414.0625, 25_000, 30_000, 32_000, 40_000, 48_828.125, 50_000)
"""At which acquisition systems sample."""
FEWEST = 50
"""Spikes from which a sampling rate can be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Of n presentations, seconds after `reference`."""

    reference: datetime
    """When the clock showed 0; of a live run within a few seconds, for what is known is when a fixation was begun."""
    onset: Array
    """(n,) as measured; NaN where it was not."""
    start: Array
    """(n,) never going back: the onset, or where it lies by its neighbours or by the nominal timing."""
    stop: Array
    shift: Array
    """(n,) added to what the acquisition's clock showed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spikes:
    """What was recorded around the onsets that were kept, of all sites."""

    times: tuple[Array, ...]
    """Of each site, in order."""
    intervals: Array
    """(k, 2) in which spikes were kept; none touch."""
    resolution: float
    """s: one sample, where all times lie on the samples of a usual rate; otherwise what times are compared with."""
    sampled: bool
    """Whether it is one sample."""


def times_of(run: Run) -> Times:
    return _simulated(run) if run.rig is None else _live(run.presentations, run.rig, run.started)


def _simulated(run: Run) -> Times:
    timing, start, begins = Timing(), [], 0.0
    for blocks in run.blocks.values():
        shown = sum(len(block.rates) for block in blocks)
        start.append(begins + timing.onset_s(np.arange(shown)))
        begins += -(-shown // timing.per_fixation) * timing.trial_s
    onset = np.concatenate(start)
    nothing = np.full(len(onset), np.nan)
    return Times(reference=run.started, onset=nothing, start=onset, stop=onset + timing.on_s, shift=np.zeros(len(onset)))


def _live(presentations: Sequence[Presentation], rig: Rig, started: datetime) -> Times:
    begun = np.array([(p.begun_at - started).total_seconds() if p.begun_at else np.nan for p in presentations])
    measured = np.array([p.onset_s for p in presentations])
    shift = _shift(measured, begun)
    onset = measured + shift
    seen = np.flatnonzero(np.isfinite(onset))
    if not len(seen):
        start = _spread(begun, rig.step_s)
        return Times(reference=started, onset=onset, start=start, stop=start + rig.on_s, shift=shift)
    at = np.arange(len(onset))
    start = np.interp(at, seen, onset[seen])
    before, after = at < seen[0], at > seen[-1]
    start[before] = np.maximum(onset[seen[0]] - rig.step_s * (seen[0] - at[before]), 0.0)
    start[after] = onset[seen[-1]] + rig.step_s * (at[after] - seen[-1])
    reference = started + timedelta(seconds=float(begun[seen[0]] - onset[seen[0]]))
    return Times(reference=reference, onset=onset, start=start, stop=start + rig.on_s, shift=shift)


def _shift(measured: Array, begun: Array) -> Array:
    """(n,) s: the same for all that one run of the acquisition's clock measured."""
    shift, added, last = np.zeros(len(measured)), 0.0, -1
    for at, onset in enumerate(measured):
        if not np.isnan(onset):
            if last >= 0 and onset <= measured[last]:
                passed = max(float(begun[at] - begun[last]), GAP_S)
                added = shift[last] + measured[last] + passed - onset
            last = at
        shift[at] = added
    return shift


def _spread(begun: Array, step_s: float) -> Array:
    """(n,) times of presentations of which only is known when they were begun, many at once: one step after the other, or as
    close as the next that were begun allow."""
    start = begun.copy()
    firsts = np.flatnonzero(np.diff(begun, prepend=-np.inf) > TOGETHER_S)
    for first, end in zip(firsts, [*firsts[1:], len(begun)], strict=True):
        room = begun[end] - begun[first] if end < len(begun) else np.inf
        start[first:end] = begun[first] + min(step_s, room / (end - first)) * np.arange(end - first)
    return start


def spikes_of(run: Run, times: Times) -> Spikes | None:
    """Every spike in the windows of the presentations that were kept, once; None where none of them could have had any."""
    rig = run.rig
    kept = [at for at, p in enumerate(run.presentations) if not p.lost and np.isfinite(times.onset[at])]
    if rig is None or not kept:
        return None
    shown = run.presentations
    onsets = times.onset[kept]
    owner = np.repeat(np.arange(len(kept)), [len(shown[at].spike_s) for at in kept])
    channel = np.concatenate([shown[at].channel for at in kept])
    s = np.concatenate([shown[at].spike_s for at in kept]) + onsets[owner]
    once = _once(s, channel, owner)
    found = tuple(np.sort(s[once & (channel == site)]) for site in range(len(run.sites)))
    clock = s - times.shift[kept][owner]
    rate = _rate(clock) if len(s) >= FEWEST else None
    return Spikes(
        times=found,
        # kept to within SAME_S of the window's edges: so much wider, that sums of rounded times still lie inside
        intervals=_merged(onsets + rig.window.start_s - SAME_S, onsets + rig.window.end_s + SAME_S),
        resolution=1 / rate if rate else SAME_S,
        sampled=rate is not None,
    )


def _once(s: Array, channel: NDArray[np.intp], owner: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(n,) False where the window of an earlier presentation has the spike already; times of one spike differ by rounding."""
    if not len(s):
        return np.zeros(0, dtype=np.bool_)
    order = np.lexsort((s, channel))
    new = (np.diff(channel[order], prepend=-1) != 0) | (np.diff(s[order], prepend=-np.inf) > SAME_S)
    first = np.minimum.reduceat(owner[order], np.flatnonzero(new))
    once = np.empty(len(s), dtype=np.bool_)
    once[order] = owner[order] == first[np.cumsum(new) - 1]
    return once


def _merged(start: Array, end: Array) -> Array:
    """(k, 2) of intervals in order of their starts; those that touch are one."""
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    apart = np.concatenate([[True], start[1:] > reach[:-1]])
    last = np.concatenate([np.flatnonzero(apart)[1:] - 1, [len(start) - 1]])
    return np.column_stack([start[apart], reach[last]])


def _rate(s: Array) -> float | None:
    """The lowest usual sampling rate on whose samples all times lie, to a hundredth of one."""
    return next((rate for rate in RATES_HZ if np.abs(s * rate - np.rint(s * rate)).max() < 0.01), None)
