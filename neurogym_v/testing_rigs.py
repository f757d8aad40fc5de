"""The conformance kit for acquisitions: what each must keep, checked with one call in your own tests.

    from neurogym_v.testing_rigs import check_acquisition
    check_acquisition(lambda: MyAcquisition(channels=("A", "B")), play, sample_rate=30_000)

`play` is yours: it is given all that happens at the electrode in 10 ms, a `neurogym_v.rigs.virtual.Stretch`, again and again in
real time, and makes your recording system, or a stand-in for it, record just that. The kit compares what comes out with what
went in. It needs no test framework and takes about a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import NO_NUMBER, Acquisition, Events, Fault, RigError
from neurogym_v.rigs.virtual.score import ONSET_EVERY, Play, Player, Score
from neurogym_v.testing import ConformanceError

AcquisitionFactory = Callable[[], Acquisition]
"""factory(): an acquisition that is not open."""
HEARD_S = 2.0
"""For the first spikes to arrive."""
PATIENCE_S = 1.0
"""For what was played to be complete."""
SLACK_S = 1.0
"""By which a busy machine may be late."""
DAWDLE_S, DAWDLES = 0.5, 3
"""By how much too late `events` may come back now and then, on a busy machine, and how often it may not."""
GUARD_S = 0.001
"""Around the stretches that count, in which nothing else is played."""


def check_acquisition(
    factory: AcquisitionFactory,
    play: Play,
    *,
    sample_rate: float,
    onsets: int = 6,
    seed: int = 0,
    tolerance_s: float = 1e-6,
    apart_s: float = 0.0,
    patience_s: float = PATIENCE_S,
) -> None:
    """Check an acquisition against the contract of `neurogym_v.rigs.Acquisition`.

    Types and shapes of all that it delivers; each spike once, at its channel, at its time but for an offset that is the same
    for all, a burst too; each onset likewise, of the same clock, with its number or without; `complete_s` never goes back,
    nothing comes that lies before it, and it reaches what was played within a second; no faults where nothing went wrong;
    `events` comes back in time; `close` before `open`, twice, and what `events` says then.

    Args:
        factory: called twice; the first is never opened.
        play: called in a thread, from before `open` until after the last `events`; must return within 10 ms or so.
        sample_rate: of the stretches, in Hz.
        onsets: to check with, 100 ms apart.
        tolerance_s: by which times may differ, less than a millisecond: raise it for a clock coarser than the stretches'.
        apart_s: between two spikes of a site, at least: raise it for a system that detects spikes itself.
        patience_s: for all that was played to be complete: raise it for hardware that delivers late.

    Raises:
        ConformanceError: with the first property that does not hold.
    """
    unopened = factory()
    _expect(
        isinstance(unopened, Acquisition),
        f"an acquisition has channels, open(), arm(), events() and close(), but {type(unopened).__name__} lacks one",
    )
    names = unopened.channels
    _expect(
        isinstance(names, tuple) and len(names) > 0 and all(isinstance(name, str) for name in names),
        f"channels is a tuple of one or more names, got {names!r}",
    )
    _quiet(unopened.close, "close() before open()")
    score = Score(len(names), sample_rate, onsets * ONSET_EVERY, seed, apart_s)
    acquisition, player = factory(), Player(play, score)
    player.start()
    try:
        _quiet(acquisition.open, "open() of an acquisition whose peer plays")
        _quiet(acquisition.arm, "arm() after open()")
        _check_played(_Ear(acquisition), player, tolerance_s, patience_s)
        _check_closing(acquisition)
    finally:
        player.stop()
        with suppress(Exception):  # what comes first is what is told
            acquisition.close()


def check_refusal(acquisition: Acquisition, *, within_s: float = 2.0) -> str:
    """Check that `open` refuses, where nobody is there or channels are named that do not exist.

    Returns:
        What it said, for you to judge whether a user would understand it.

    Raises:
        ConformanceError: it opened, took longer, raised something else than a RigError of one line, or could not be closed.
    """
    began = time.monotonic()
    try:
        acquisition.open()
    except RigError as error:
        said = str(error)
    except Exception as error:
        raise ConformanceError(f"open() that cannot succeed raises RigError, got {error!r}") from error
    else:
        acquisition.close()
        raise ConformanceError("open() that cannot succeed raises RigError, but it opened")
    took = time.monotonic() - began
    _expect(took <= within_s + SLACK_S, f"open() that cannot succeed says so within {within_s:g} s, took {took:.1f} s")
    _expect(bool(said.strip()) and "\n" not in said, f"a RigError is one line that says what to do, got {said!r}")
    _quiet(acquisition.close, "close() after an open() that failed")
    return said


def _expect(holds: bool, property_: str) -> None:
    if not holds:
        raise ConformanceError(property_)


def _quiet(call: Callable[[], None], what: str) -> None:
    began = time.monotonic()
    try:
        call()
    except Exception as error:
        raise ConformanceError(f"{what} raised {error!r}") from error
    took = time.monotonic() - began
    _expect(took <= 2.0 + SLACK_S, f"{what} comes back within 2 s, took {took:.1f} s")


class _Ear:
    """What an acquisition delivered, each piece checked as it came."""

    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition
        self.complete_s = -np.inf
        self.heard: list[Events] = []
        self._turn, self._late = 0, 0

    def listen(self) -> None:
        """Ask once, now for what is there and now for what may come."""
        self._turn += 1
        timeout_s = (0.0, 0.02, 0.1)[self._turn % 3]
        began = time.monotonic()
        try:
            events = self._acquisition.events(timeout_s)
        except Exception as error:
            raise ConformanceError(f"events({timeout_s}) while its peer plays raised {error!r}") from error
        took = time.monotonic() - began
        self._late += took > timeout_s + DAWDLE_S
        _expect(self._late < DAWDLES, f"events({timeout_s}) comes back within {timeout_s} s, took {took:.2f} s once more")
        _expect(isinstance(events, Events), f"events() gives Events, got {type(events).__name__}")
        self._check_types(events)
        complete_s = float(events.complete_s)
        _expect(complete_s >= self.complete_s, f"complete_s never goes back, but went from {self.complete_s} to {complete_s}")
        for what, times in (("spike", events.spike_s), ("onset", events.onset_s)):
            early = times[times < self.complete_s]
            _expect(
                not len(early),
                f"nothing comes any more from before complete_s: after {self.complete_s} came the {what} of {early[:1]}",
            )
        self.complete_s = complete_s
        self.heard.append(events)

    def _check_types(self, events: Events) -> None:
        for name, kind in (("spike_s", np.floating), ("onset_s", np.floating), ("channel", np.integer), ("number", np.integer)):
            value = getattr(events, name)
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            right = isinstance(value, np.ndarray) and value.ndim == 1 and np.issubdtype(value.dtype, kind)
            wide = right and value.dtype.itemsize == 8
            _expect(wide, f"{name} is a one-dimensional array of 64-bit {kind.__name__} numbers, got {found}")
        _expect(
            bool(np.isfinite(events.spike_s).all() and np.isfinite(events.onset_s).all()), "times of events are finite numbers"
        )
        sites = len(self._acquisition.channels)
        inside = (events.channel >= 0) & (events.channel < sites)
        _expect(bool(inside.all()), f"channel is an index from 0 to {sites - 1}, got {events.channel[~inside][:1]}")
        _expect(
            isinstance(events.complete_s, float) and not np.isnan(events.complete_s),
            f"complete_s is a float and no NaN, got {events.complete_s!r}",
        )
        _expect(
            isinstance(events.faults, tuple) and all(isinstance(fault, Fault) for fault in events.faults),
            f"faults is a tuple of Fault, got {events.faults!r}",
        )


def _check_played(ear: _Ear, player: Player, tolerance_s: float, patience_s: float) -> None:
    deadline = time.monotonic() + HEARD_S + SLACK_S
    while not (np.isfinite(ear.complete_s) and any(len(events.spike_s) for events in ear.heard)):
        _expect(
            time.monotonic() < deadline and not player.done(),
            f"spikes arrive, and complete_s is a time, within {HEARD_S:g} s of playing: "
            f"{sum(len(events.spike_s) for events in ear.heard)} came, and complete_s is {ear.complete_s}",
        )
        ear.listen()
    player.begin()
    while not player.done():
        ear.listen()
    deadline, offset_s = time.monotonic() + patience_s + SLACK_S, None
    start_s, end_s = player.score.counted_s()
    while offset_s is None or ear.complete_s < offset_s + end_s:
        short = "" if offset_s is None else f"; it is {offset_s + end_s - ear.complete_s:.3f} s short of it"
        _expect(time.monotonic() < deadline, f"complete_s reaches what was played within {patience_s:g} s{short}")
        ear.listen()
        offset_s = _offset(ear, player.score, tolerance_s)
        _expect(offset_s is not None, "spikes come at the times at which they were played, but for one offset for all of them")
    _check_all_came(ear, player.score, offset_s, tolerance_s)
    for fault in (fault for events in ear.heard for fault in events.faults):
        touches = fault.end_s > offset_s + start_s and fault.start_s < offset_s + end_s
        _expect(not touches, f"there are no faults where nothing went wrong, got {fault}")


def _offset(ear: _Ear, score: Score, tolerance_s: float) -> float | None:
    """What is to be added to the times that were played, if there is such a number for most spikes."""
    came = np.sort(np.concatenate([events.spike_s for events in ear.heard]))
    played = score.spikes()[0]
    best, most = None, len(came) / 2
    for offset in (came[:3, None] - played[None, :400]).ravel().tolist():  # the first that came were played early on
        nearest = _nearest(played + offset, came)
        near = np.abs(nearest - came) <= 2 * tolerance_s  # the first may be off itself
        if near.sum() > most:
            best, most = offset + float(np.median((came - nearest)[near])), float(near.sum())
    return best


def _nearest(times: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    """The one of the sorted `times` that is nearest to each."""
    after = np.clip(np.searchsorted(times, to), 1, len(times) - 1)
    return np.where(to - times[after - 1] < times[after] - to, times[after - 1], times[after])


def _check_all_came(ear: _Ear, score: Score, offset_s: float, tolerance_s: float) -> None:
    """Each spike and each onset of the stretches that count, once; idle ones keep milliseconds away from their ends."""
    start_s, end_s = score.counted_s()

    def counted(times: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (times > start_s - GUARD_S) & (times < end_s + GUARD_S)

    spike_s = np.concatenate([events.spike_s for events in ear.heard]) - offset_s
    channel = np.concatenate([events.channel for events in ear.heard])
    played_s, played_channel = score.spikes()
    came, there = counted(spike_s).sum(), counted(played_s).sum()
    _expect(came == there, f"each spike comes exactly once: {there} were played, {came} came")
    for site in range(score.sites):
        mine, theirs = (
            np.sort(times[counted(times) & (sites == site)])
            for times, sites in ((spike_s, channel), (played_s, played_channel))
        )
        _expect(
            len(mine) == len(theirs),
            f"spikes come at their channel: of channel {site} {len(theirs)} were played, {len(mine)} came",
        )
        _check_times(mine, theirs, tolerance_s, f"spikes of channel {site}")
    onset_s = np.concatenate([events.onset_s for events in ear.heard]) - offset_s
    number = np.concatenate([events.number for events in ear.heard])
    played_s, played_number = score.onsets()
    came, there = counted(onset_s).sum(), counted(played_s).sum()
    _expect(came == there, f"each onset comes exactly once: {there} were played, {came} came (rising edges alone are onsets)")
    order = np.argsort(onset_s[counted(onset_s)])
    _check_times(onset_s[counted(onset_s)][order], played_s[counted(played_s)], tolerance_s, "onsets")
    told, right = number[counted(onset_s)][order], played_number[counted(played_s)]
    _expect(
        bool(((told == right) | (told == NO_NUMBER)).all()),
        f"the number of an onset is that of its presentation, or NO_NUMBER: expected {right.tolist()}, got {told.tolist()}",
    )


def _check_times(came: NDArray[np.float64], played: NDArray[np.float64], tolerance_s: float, what: str) -> None:
    off = float(np.abs(came - played).max(initial=0.0))
    _expect(
        off <= tolerance_s,
        f"{what} come at the times at which they were played, but for one offset for all events: off by {off:.2g} s, more than "
        f"{tolerance_s:g} s",
    )


def _check_closing(acquisition: Acquisition) -> None:
    for time_ in ("close()", "a second close()"):
        _quiet(acquisition.close, time_)
        try:
            acquisition.events(0.0)
        except RigError:
            continue
        except Exception as error:
            raise ConformanceError(f"events() after {time_} raises RigError, got {error!r}") from error
        raise ConformanceError(f"events() after {time_} raises RigError, but it gave events")
