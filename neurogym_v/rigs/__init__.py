"""The live neuron: what a rig is made of, and the records that pass between its parts.

    images -> Rig.show -> Outcome, one a presentation -> LiveNeuron -> rates

A rig of most labs is two halves, joined by `event_rig.EventRig`: a *presenter*, which puts images on a screen and says when,
and an *acquisition*, which delivers spikes and the edges of a photodiode or trigger line. Both have clocks of their own. A rig
that counts spikes itself (the folder hand-off) implements `Rig` directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs.gate import Gate
from neurogym_v.types import Images, NeuroGymError

NO_NUMBER = -1
"""Of an onset in a stream that does not say whose it is."""


class RigError(NeuroGymError):
    """A part of the rig is not there, is silent, or delivers what it must not; the message names the part and what to do."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A stretch of the stream in which something may be missing or wrong: no trial that touches it has a count."""

    start_s: float
    """Acquisition clock; -inf: since whenever."""
    end_s: float
    what: str
    """Such as `messages 17 to 19 are missing`."""


@dataclass(frozen=True, slots=True)
class Events:
    """What an acquisition delivered since it was last asked; times in seconds of its own clock."""

    spike_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(n,) in any order."""
    channel: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """(n,) index into `Acquisition.channels`."""
    onset_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(k,) when images appeared: rising edges of the photodiode or trigger line, or markers."""
    number: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """(k,) which presentation each onset is, where the stream says so; NO_NUMBER where it does not."""
    complete_s: float = float("-inf")
    """Nothing before this time is still to come, as far as the stream can tell; never goes back."""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if len(self.spike_s) != len(self.channel) or len(self.onset_s) != len(self.number):
            raise RigError(
                f"events: expected a channel for each spike and a number for each onset, got {len(self.spike_s)} spikes with "
                f"{len(self.channel)} channels and {len(self.onset_s)} onsets with {len(self.number)} numbers"
            )
        if not all(isinstance(array, np.ndarray) for array in (self.spike_s, self.channel, self.onset_s, self.number)):
            raise RigError("events: expected numpy arrays of spikes, channels, onsets and numbers, got something else")


@runtime_checkable
class Acquisition(Protocol):
    """A source of spikes. Its class takes `channels` and whatever else `[acquisition]` of a rig file may set, as keywords.

    All times are seconds of one clock, the recording's own: a computer's time of arrival is none, and spikes and onsets must
    share it. `open`, `arm` and `close` are called by the main thread. `events` is called by another, from `arm` to `close`, all
    the time, so that nothing piles up while an agent thinks; `close` may come while it still runs. What arrives malformed is
    skipped and becomes a `Fault` over the time in which it may have stood; what makes all that follows worthless (a peer that
    is gone, a wrong channel name, a stream that was silent for `patience_s` where it should not be) is a RigError.

    `complete_s` decides when a response is counted. It is to be finite within 5 s of `arm`, and to pass the end of the last
    window of a fixation within `patience_s`, both unless `quiet_s` is above 0. A spike that comes with a time before it makes
    its presentation lost, and stops the session if an agent was told of it already.
    """

    channels: tuple[str, ...]
    """The sites, in order; the names are the recording system's."""
    patience_s: float
    """How long its stream may be silent where it should not; [policy] of the rig file sets it, 1 by default."""
    quiet_s: float
    """How long after an event another one must follow before all up to it are known to have arrived; 0 for a stream that never
    falls silent. Elsewhere the photodiode patch is lit once more after each fixation."""

    def open(self) -> None:
        """Connect, and check that all `channels` are there.

        Raises:
            RigError: nobody answers within two seconds, or without one of the channels.
        """

    def arm(self) -> None:
        """Presentations are about to begin; what arrived before is of no use. Called once, after `open`."""

    def events(self, timeout_s: float) -> Events:
        """What arrived; waits for something, but not longer than this. May be nothing but a later `complete_s`, or nothing.

        Raises:
            RigError: the stream has ended or cannot be read on.
        """

    def close(self) -> None:
        """Let go of everything; may be called twice, and after an error."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a presenter says of one image; times in seconds of its own clock."""

    number: int
    onset_s: float
    """Of the frame in which it appeared; NaN: it never did."""
    late_frames: int = 0
    """Frames by which it came late, or stood too long."""
    broken: bool = False
    """Fixation was broken before its response window was over."""


@dataclass(frozen=True, slots=True)
class Fixation:
    """One fixation: images that are shown one after the other."""

    images: tuple[int, ...]
    """Index of each into the images that were prepared."""
    numbers: tuple[int, ...]
    """Of each presentation, unique in a run."""
    flash_after_s: float = 0.0
    """After the last onset the photodiode patch is lit once more, for streams that fall silent between trials; 0: it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What a presenter told since it was last asked."""

    shown: tuple[Shown, ...] = ()
    over: tuple[int, ...] = ()
    """First numbers of the fixations that are over: of their images nothing more will be told."""
    flashes_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """When the photodiode patch was lit without an image."""


class Presenter(Protocol):
    """Something with a screen. Its class takes whatever `[presenter]` of a rig file may set, as keywords."""

    refresh_hz: float
    """Known after `open`."""

    def open(self) -> None:
        """Connect, and ask what the screen can do.

        Raises:
            RigError: nobody answers within two seconds.
        """

    def prepare(self, images: Images) -> None:
        """Hand over (n, 3, s, s) uint8 images; those that the presenter has already are not sent again."""

    def flash(self, at_s: Sequence[float]) -> None:
        """Light the photodiode patch at these times from now, on a grey screen, so that the two clocks can be compared."""

    def show(self, fixation: Fixation) -> None:
        """Begin a fixation; returns at once. The one before must be over."""

    def reports(self, timeout_s: float) -> Reports:
        """What happened; waits for something, but not longer than this.

        Raises:
            RigError: the display is gone, or says something that it must not.
        """

    def close(self) -> None:
        """Let go of everything; may be called twice, and after an error."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A presentation that a rig is asked for."""

    number: int
    """Unique in a run: an image that is shown again has a new one."""
    image: int
    """Index into the images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a presentation."""

    number: int
    rates: NDArray[np.float64] | None = None
    """(sites,) spikes/s in the response window, less those in the baseline window where there is one; None: lost."""
    counts: NDArray[np.int64] | None = None
    """(sites,) spikes in the response window; None where the rig tells rates alone, or the trial is lost."""
    lost: str = ""
    """Why there are no rates, in words."""
    onset_s: float = float("nan")
    """Measured, acquisition clock."""
    spike_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(n,) around the onset, from it."""
    channel: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """(n,) of each spike."""
    late_frames: int = 0
    shown: bool = True
    """False: it was begun and never reached the screen, so that it costs nothing. It is shown later, with an outcome then."""

    def __post_init__(self) -> None:
        if (self.rates is None) != bool(self.lost):
            raise RigError(f"outcome of presentation {self.number}: expected rates or a reason why there are none")


class Rig(Protocol):
    """Something that shows images to a neuron and says how it answered."""

    channels: tuple[str, ...]
    """The sites, in order."""
    note: Callable[[str], None]
    """Told what is worth keeping: how clocks compare, what was noticed. Set by whoever keeps it."""
    gate: Gate
    """Asked before each fixation, or block where the rig knows no fixations. Set by whoever sits at it."""

    def open(self) -> None:
        """Connect to every part and check it.

        Raises:
            RigError: a part is not there, or is not what the rig file says.
        """

    def show(
        self, images: Images, asked: Sequence[Asked], begun: Callable[[Sequence[int]], None]
    ) -> Iterator[Sequence[Outcome]]:
        """Show `images[a.image]` for each, once, in order; gives an outcome for each, as soon as it is known, with those that
        become known together. A later word on a number replaces an earlier one.

        Args:
            images: (n, 3, s, s) uint8.
            begun: told the numbers that are about to reach the screen, before they do, so that a crash leaves a trace of them.

        Raises:
            RigError: a part failed. What was begun and has no outcome yet is lost.
        """

    def close(self) -> None:
        """Let go of everything; may be called twice, and after an error."""
