"""The conformance kit for acquisitions finds those that break their contract, and ours keep it over real sockets."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from neurogym_v import registry
from neurogym_v.rigs import NO_NUMBER, Events, Fault, RigError
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.mischief import Mischief
from neurogym_v.testing import ConformanceError
from neurogym_v.testing_rigs import check_acquisition, check_refusal

RATE = 30_000
CHANNELS = ("A-000", "A-001", "A-002")
PACKAGES = {"open_ephys": "zmq", "event_broadcaster": "zmq", "lsl": "pylsl"}


class Tape:
    """An acquisition that keeps its contract: what is played comes out, on a clock that began 100 s earlier.

    Args:
        twist: what to do to the events of each stretch, told its place.
        each: what to do to all that is given out.
    """

    def __init__(
        self,
        tape: queue.SimpleQueue[Stretch],
        *,
        twist: Callable[[Events, int], Events] = lambda events, _: events,
        each: Callable[[Events], object] = lambda events: events,
    ) -> None:
        self.channels: tuple[str, ...] = CHANNELS
        self.patience_s, self.quiet_s = 1.0, 0.0
        self._tape, self._twist, self._each = tape, twist, each
        self._place, self._open, self._complete_s = 0, False, -np.inf

    def open(self) -> None:
        self._open = True

    def arm(self) -> None:
        pass

    def events(self, timeout_s: float) -> Events:
        if not self._open:
            raise RigError("tape: expected it to be open")
        try:
            stretch = self._tape.get(timeout=timeout_s or 1e-6)
        except queue.Empty:
            return self._each(Events(complete_s=self._complete_s))  # type: ignore[return-value]
        events = Events(
            spike_s=100 + stretch.spike / RATE,
            channel=stretch.channel,
            onset_s=100 + stretch.edge[stretch.high] / RATE,
            number=stretch.number[stretch.high],
            complete_s=100 + stretch.end / RATE,
        )
        self._place += 1
        twisted = self._twist(events, self._place)
        self._complete_s = twisted.complete_s
        return self._each(twisted)  # type: ignore[return-value]

    def close(self) -> None:
        self._open = False


def check(cls: type[Tape] = Tape, *, patience_s: float = 0.1, **changes: object) -> None:
    tape: queue.SimpleQueue[Stretch] = queue.SimpleQueue()
    check_acquisition(lambda: cls(tape, **changes), tape.put, sample_rate=RATE, onsets=2, patience_s=patience_s)  # type: ignore[arg-type]


def test_one_that_keeps_its_contract_passes() -> None:
    check()


def test_one_that_does_not_know_numbers_passes() -> None:
    check(twist=lambda events, _: replace(events, number=np.full_like(events.number, NO_NUMBER)))


def test_one_that_delivers_late_and_in_another_order_but_says_so_passes() -> None:
    held: list[Events] = []

    def late(events: Events, _: int) -> Events:
        held.append(events)
        if len(held) < 5:
            return Events()
        old = held.pop(0)
        return replace(old, spike_s=old.spike_s[::-1].copy(), channel=old.channel[::-1].copy())

    check(twist=late, patience_s=1.0)  # a machine with other work may take from it what 0.1 s leaves


def only(condition: Callable[[int], bool], twist: Callable[[Events], Events]) -> Callable[[Events, int], Events]:
    """`twist` the events of some stretches."""
    return lambda events, place: twist(events) if condition(place) else events


def without_one(events: Events) -> Events:
    return replace(events, spike_s=events.spike_s[1:], channel=events.channel[1:])


def with_one_twice(events: Events) -> Events:
    return replace(
        events, spike_s=np.append(events.spike_s, events.spike_s[:1]), channel=np.append(events.channel, events.channel[:1])
    )


def at_the_next_channel(events: Events) -> Events:
    return replace(events, channel=np.where(np.arange(len(events.channel)) == 0, (events.channel + 1) % 3, events.channel))


def jittered(events: Events) -> Events:
    return replace(events, spike_s=events.spike_s + 2e-6 * (np.arange(len(events.spike_s)) == 0))


def cut_bursts(events: Events) -> Events:
    return replace(events, spike_s=events.spike_s[:500], channel=events.channel[:500])


def many(events: Events) -> bool:
    return len(events.spike_s) > 1


TWISTS = {
    "each spike comes exactly once: .* were played, .* came": lambda e, _: without_one(e) if many(e) else e,
    "each spike comes exactly once: ": lambda e, _: with_one_twice(e) if many(e) else e,
    "each spike comes exactly once: .* played": lambda e, _: cut_bursts(e),
    "spikes come at their channel: of channel": lambda e, _: at_the_next_channel(e) if many(e) else e,
    "spikes of channel .* off by 2e-06 s, more than 1e-06": lambda e, _: jittered(e) if many(e) else e,
    "spikes come at the times at which they were played, but for one offset": lambda e, _: replace(
        e, spike_s=1.001 * e.spike_s, complete_s=e.complete_s
    ),
    "each onset comes exactly once: 2 were played, 0 came": lambda e, _: replace(e, onset_s=e.onset_s[:0], number=e.number[:0]),
    "onsets come at the times .* off by 0.001 s": lambda e, _: replace(e, onset_s=e.onset_s + 0.001),
    r"the number of an onset .* expected \[17, 18\], got \[18, 19\]": lambda e, _: replace(
        e, number=np.where(e.number == NO_NUMBER, NO_NUMBER, e.number + 1)
    ),
    "complete_s never goes back": lambda e, place: replace(e, complete_s=e.complete_s - 0.05 * (place % 8 == 0)),
    "nothing comes any more from before complete_s: after .* came the spike": lambda e, _: replace(
        e, complete_s=e.complete_s + 0.02
    ),
    "complete_s reaches what was played within 0.1 s; it is .* s short of it": lambda e, _: replace(
        e, complete_s=min(e.complete_s, 100.2)
    ),
    "complete_s is a time, within 0.3 s of playing": lambda e, _: replace(e, complete_s=-np.inf),
    "there are no faults where nothing went wrong, got Fault.*lost": lambda e, _: replace(
        e, faults=(Fault(e.complete_s - 0.01, e.complete_s, "lost"),)
    ),
    "channel is an index from 0 to 2": lambda e, _: replace(e, channel=e.channel + 1),
    "spike_s is a one-dimensional array": lambda e, _: replace(e, spike_s=e.spike_s.astype(np.float32)),
    "number is a one-dimensional array": lambda e, _: replace(e, number=e.number.astype(np.float64)),
    "times of events are finite": lambda e, _: replace(e, onset_s=np.full_like(e.onset_s, np.nan)),
    "complete_s is a float and no NaN": lambda e, _: replace(e, complete_s=float("nan")),
    "faults is a tuple of Fault": lambda e, _: replace(e, faults=[]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", TWISTS)
def test_what_is_delivered_wrong_is_named(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogym_v.testing_rigs.HEARD_S", 0.3)
    with pytest.raises(ConformanceError, match=message):
        check(twist=TWISTS[message])


class FailsToOpen(Tape):
    def open(self) -> None:
        raise KeyError("port")


class FailsToClose(Tape):
    def close(self) -> None:
        if not self._open:
            raise KeyError("socket")
        super().close()


class ClosesOnce(Tape):
    def open(self) -> None:
        super().open()
        self.opened = True

    def close(self) -> None:
        if getattr(self, "opened", False) and not self._open:
            raise RigError("it is closed already")
        super().close()


class GoesOn(Tape):
    def close(self) -> None:
        pass


class FailsAfterwards(Tape):
    def events(self, timeout_s: float) -> Events:
        if not self._open:
            raise AttributeError("socket")
        return super().events(timeout_s)


class Dawdles(Tape):
    def events(self, timeout_s: float) -> Events:
        time.sleep(0.6)
        return super().events(timeout_s)


class Breaks(Tape):
    def events(self, timeout_s: float) -> Events:
        raise ValueError(f"odd record, waiting for {timeout_s}")


class Unnamed(Tape):
    def __init__(self, tape: queue.SimpleQueue[Stretch]) -> None:
        super().__init__(tape)
        self.channels = list(CHANNELS)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (FailsToOpen, r"open\(\) of an acquisition whose peer plays raised KeyError"),
        (FailsToClose, r"close\(\) before open\(\) raised KeyError"),
        (ClosesOnce, r"a second close\(\) raised RigError"),
        (GoesOn, r"events\(\) after close\(\) raises RigError, but it gave events"),
        (FailsAfterwards, r"events\(\) after close\(\) raises RigError, got AttributeError"),
        (Dawdles, r"events\(.*\) comes back within .* s, took .* s once more"),
        (Breaks, r"events\(.*\) while its peer plays raised ValueError"),
        (Unnamed, "channels is a tuple of one or more names"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_that_behaves_wrong_is_named(cls: type[Tape], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogym_v.testing_rigs.DAWDLES", 2)
    with pytest.raises(ConformanceError, match=message):
        check(cls)


def test_what_gives_no_events_or_is_no_acquisition_is_named() -> None:
    with pytest.raises(ConformanceError, match="gives Events, got tuple"):
        check(each=lambda events: (events.spike_s, events.channel))
    with pytest.raises(ConformanceError, match="an acquisition has channels, .* but object lacks one"):
        check_acquisition(object, lambda _: None, sample_rate=RATE)  # type: ignore[arg-type]


def test_what_playing_raises_is_raised() -> None:
    def play(_: Stretch) -> None:
        raise OSError("the generator is off")

    with pytest.raises(OSError, match="the generator is off"):
        check_acquisition(lambda: Tape(queue.SimpleQueue()), play, sample_rate=RATE)


def test_spikes_can_be_kept_apart_for_a_system_that_detects_them() -> None:
    tape: queue.SimpleQueue[Stretch] = queue.SimpleQueue()
    played: list[Stretch] = []

    def play(stretch: Stretch) -> None:
        played.append(stretch)
        tape.put(stretch)

    check_acquisition(lambda: Tape(tape), play, sample_rate=RATE, onsets=2, apart_s=0.0015)
    spike, channel = np.concatenate([s.spike for s in played]), np.concatenate([s.channel for s in played])
    gaps = np.concatenate([np.diff(spike[channel == site]) for site in range(3)])
    assert 45 <= gaps.min() < 60 and len(gaps) > 50


class Refuses(Tape):
    said: Exception = RigError("tape: expected a tape")

    def open(self) -> None:
        raise self.said


def test_a_refusal_is_told_and_those_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_refusal(Refuses(queue.SimpleQueue())) == "tape: expected a tape"
    with pytest.raises(ConformanceError, match="but it opened"):
        check_refusal(Tape(queue.SimpleQueue()))
    with pytest.raises(ConformanceError, match="raises RigError, got KeyError"):
        check_refusal(FailsToOpen(queue.SimpleQueue()))
    monkeypatch.setattr(Refuses, "said", RigError("two\nlines"))
    with pytest.raises(ConformanceError, match="one line"):
        check_refusal(Refuses(queue.SimpleQueue()))
    with pytest.raises(ConformanceError, match="says so within -1 s, took 0.0 s"):
        check_refusal(Refuses(queue.SimpleQueue()), within_s=-1)


@pytest.mark.parametrize("name", registry.ACQUISITIONS)
def test_our_acquisitions_keep_their_contract(name: str) -> None:
    pytest.importorskip(PACKAGES.get(name, "numpy"))
    acquisition = registry.resolve("acquisition", name, registry.ACQUISITIONS)
    source = registry.resolve("source", name, registry.SOURCES)(channels=CHANNELS, sample_rate=RATE, mischief=Mischief())
    source.open()
    settings = source.settings
    try:
        check_acquisition(lambda: acquisition(channels=CHANNELS, **settings), source.write, sample_rate=RATE)
    finally:
        source.close()
    said = check_refusal(acquisition(channels=CHANNELS, **settings))
    assert said.startswith(f"acquisition {name}: expected ") and ";" in said  # and what to do


def test_every_acquisition_has_a_source() -> None:
    assert set(registry.ACQUISITIONS) == set(registry.SOURCES)
