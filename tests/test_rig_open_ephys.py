"""Open Ephys through ZMQ Interface, both ends over real sockets: exact, or faulty and known to be."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from neurogym_v.rigs import Acquisition, Events, Fault, RigError
from neurogym_v.rigs.acquisitions.open_ephys import OpenEphys, Reading
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.mischief import MESSAGES, Mischief, Misdeed
from neurogym_v.rigs.virtual.open_ephys import OpenEphysSource

pytest.importorskip("zmq", reason="ZeroMQ's Python package is not installed")
RATE = 20000.0
CHANNELS = ("Electrode 1#2", "Electrode 3", "probe #a")
WINDOW = 2000
"""Samples in which spikes are counted."""


class Script:
    """Random spikes and edges after `begin`, as stretches of any length, and what of it has been read."""

    def __init__(self, begin: int, seconds: float = 3.0, seed: int = 0, rate_hz: float = 60.0) -> None:
        rng = np.random.default_rng(seed)
        self.begin, self.end = begin, begin + int(seconds * RATE)
        n = int(len(CHANNELS) * rate_hz * seconds)
        self.spike = np.sort(rng.choice(np.arange(begin, self.end), n, replace=False))
        self.channel = rng.integers(len(CHANNELS), size=n)
        self.edge = np.sort(rng.choice(np.arange(begin, self.end), 2 * int(8 * seconds), replace=False))
        self.high = np.arange(len(self.edge)) % 2 == 0
        cuts = np.sort(rng.choice(np.arange(begin + 1, self.end), int(seconds * 20), replace=False))
        self.cuts = [begin, *cuts.tolist(), self.end]
        self.truth = {(int(s), int(c)) for s, c in zip(self.spike, self.channel, strict=True)}
        self.onsets = {int(s) for s in self.edge[self.high]}
        self.read: list[tuple[int, int]] = []
        self.seen: list[int] = []
        self.faults: list[Fault] = []
        self.complete_s = -np.inf
        self.judged = self.right = 0

    def stretches(self) -> Iterator[Stretch]:
        for start, end in itertools.pairwise(self.cuts):
            s, e = [(times >= start) & (times < end) for times in (self.spike, self.edge)]
            yield stretch(start, end, self.spike[s], self.channel[s], self.edge[e], self.high[e])

    def hear(self, events: Events) -> None:
        """Take in events, and judge each window as soon as it is said to be complete, as one who counts does."""
        assert events.complete_s >= self.complete_s
        self.read += zip(np.rint(events.spike_s * RATE).astype(int).tolist(), events.channel.tolist(), strict=True)
        self.seen += np.rint(events.onset_s * RATE).astype(int).tolist()
        self.faults += events.faults
        self.complete_s = events.complete_s
        while (last := self.begin + (self.judged + 1) * WINDOW) <= min(self.complete_s * RATE + 0.5, self.end):
            first = last - WINDOW
            self.judged += 1
            if any(fault.start_s < last / RATE and fault.end_s > first / RATE for fault in self.faults):
                continue
            assert sorted(x for x in self.read if first <= x[0] < last) == sorted(x for x in self.truth if first <= x[0] < last)
            assert sorted(x for x in self.seen if first <= x < last) == sorted(x for x in self.onsets if first <= x < last)
            self.right += 1

    @property
    def windows(self) -> int:
        return (self.end - self.begin) // WINDOW


def stretch(start: int, end: int, spike: Any = (), channel: Any = (), edge: Any = (), high: Any = ()) -> Stretch:
    return Stretch(
        start=start,
        end=end,
        spike=np.array(spike, dtype=np.int64),
        channel=np.array(channel, dtype=np.intp),
        edge=np.array(edge, dtype=np.int64),
        high=np.array(high, dtype=bool),
        number=np.full(len(edge), -1, dtype=np.int64),
    )


class Idle:
    """Lets a source write silent stretches in a thread, as a rig at which nothing happens does."""

    def __init__(self, source: Any, at: int = 60000) -> None:
        self.source, self.at = source, at
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Idle:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._stop.wait(0.005):
            self.source.write(stretch(self.at, self.at + 300))
            self.at += 300


@contextmanager
def connected(mischief: Mischief | None = None, **options: Any) -> Iterator[tuple[OpenEphysSource, OpenEphys, int]]:
    """Both ends after a silent beginning, and the sample at which it ended; mischief begins then."""
    source = OpenEphysSource(CHANNELS, RATE, Mischief())
    source.open()
    reader = OpenEphys(CHANNELS, **source.settings, **options)
    try:
        with Idle(source) as idle:
            reader.open()
        reader.arm()
        source.mischief = mischief or Mischief()
        yield source, reader, idle.at
    finally:
        reader.close()
        source.close()
    for part in (reader, source):
        part.close()


def follow(source: Any, reader: Any, script: Script) -> str:
    """Write a script, read it meanwhile until its end, and judge; the RigError, if there was one."""
    at = script.end
    try:
        for part in script.stretches():
            source.write(part)
            script.hear(reader.events(0))
        for _ in range(100):  # then nothing happens any more
            if script.complete_s >= script.end / RATE:
                break
            at += 1000
            source.write(stretch(at - 1000, at))
            script.hear(reader.events(0.05))
    except RigError as error:
        return str(error)
    return ""


def test_spikes_and_onsets_are_exact() -> None:
    with connected() as (source, reader, begin):
        assert isinstance(reader, Acquisition)
        script = Script(begin)
        assert follow(source, reader, script) == ""
        assert script.right == script.windows == 30
        assert not script.faults
        assert set(script.read) >= {x for x in script.truth if x[0] < script.complete_s * RATE}


def test_the_watermark_is_as_late_as_it_says() -> None:
    with connected() as (source, reader, begin):
        source.write(stretch(begin, begin + 512, [begin + 500], [1]))  # in the last 100 samples: told with the next block
        complete = begin - 300
        while complete < begin:
            events = reader.events(0.05)
            complete = round(events.complete_s * RATE)
            assert not len(events.spike_s)
        assert complete == begin
        source.write(stretch(begin + 512, begin + 1024))
        spikes = np.empty(0)
        while not len(spikes):
            spikes = reader.events(0.05).spike_s
        assert spikes.tolist() == [(begin + 500) / RATE]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("fault", MESSAGES)
def test_what_goes_wrong_is_known(fault: str, seed: int) -> None:
    misdeeds: list[Misdeed] = []
    every = 300 if fault in ("delay", "burst") else 77 + seed
    mischief = Mischief(fault, every=every, after=20, seed=seed, told=misdeeds.append)
    with connected(mischief) as (source, reader, begin):
        script = Script(begin, seed=seed)
        assert follow(source, reader, script) == ""
        assert misdeeds and script.judged == script.windows
        assert script.right >= 3
        if fault in ("delay", "duplicate"):
            assert script.right == script.windows and not script.faults
        elif fault != "corrupt":  # often in a waveform, which nobody counts
            assert script.right < script.windows


def test_a_gap_ends_with_the_block_that_shows_it() -> None:
    with connected(Mischief("drop", every=1000, after=0)) as (source, reader, begin):
        source.write(stretch(begin, begin + 512, [begin + 100], [1]))  # the spike is lost
        faults: tuple[Fault, ...] = ()
        while not faults:
            faults = reader.events(0.05).faults
        assert [fault.end_s for fault in faults] == [(begin + 512) / RATE]
        assert begin - 300 - 500 <= faults[0].start_s * RATE <= begin - 128
        assert "was expected" in faults[0].what


@pytest.mark.parametrize("fault", ["stall", "die"])
def test_silence_is_an_error(fault: str) -> None:
    with connected(Mischief(fault, after=100)) as (source, reader, begin):
        script = Script(begin)
        assert "was acquisition stopped, or Open Ephys closed?" in follow(source, reader, script)
        assert fault == "die" or script.right >= 2


def test_heartbeats_are_sent_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogym_v.rigs.acquisitions.open_ephys.HEARTBEAT_S", 0.1)
    with connected() as (source, reader, begin), Idle(source, begin):
        beats: set[float] = set()
        until = time.monotonic() + 5
        while len(beats) < 4 and time.monotonic() < until:
            reader.events(0.05)
            beats.update(source.applications.values())
        assert len(beats) == 4 and len(source.applications) == 1


def test_nobody_listening() -> None:
    source = OpenEphysSource(CHANNELS, RATE, Mischief())
    source.open()
    assert not source.wait_for_reader(0)
    for part in Script(1000).stretches():
        source.write(part)
    source.close()
    source.close()
    source.write(stretch(0, 1000))


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    source = OpenEphysSource(CHANNELS, RATE, Mischief())
    source.open()
    settings = source.settings
    reader = OpenEphys(CHANNELS, **settings)
    began = time.monotonic()
    with pytest.raises(RigError, match="expected continuous data from .*is acquisition running"):
        reader.open()
    assert time.monotonic() - began < 4
    reader.close()
    source.close()
    monkeypatch.setattr("neurogym_v.rigs.acquisitions.open_ephys.OPEN_S", 0.2)
    with pytest.raises(RigError, match="expected an answer from .*is Open Ephys running"):
        reader.open()
    with pytest.raises(RigError, match=r"expected open\(\) before events"):
        reader.events(0)
    with pytest.raises(RigError, match="expected to connect to nowhere"):
        OpenEphys(CHANNELS, address="nowhere").open()


def test_a_port_that_is_taken() -> None:
    first = OpenEphysSource(CHANNELS, RATE, Mischief())
    first.open()
    port = int(first.heartbeat.rpartition(":")[2])
    for ports in ({"port": port}, {"heartbeat_port": port}):
        second = OpenEphysSource(CHANNELS, RATE, Mischief(), **ports)
        with pytest.raises(RigError, match=f"expected port {port} to be free"):
            second.open()
        second.close()
    first.close()


def test_one_after_another() -> None:
    """The same reader, opened again at another run of the program."""
    with connected() as (source, reader, begin):
        first = Script(begin, seconds=0.5)
        assert follow(source, reader, first) == ""
        again = OpenEphysSource(CHANNELS, RATE, Mischief())
        again.open()
        reader.address, reader.heartbeat = again.address, again.heartbeat
        with Idle(again, 5) as idle:
            reader.open()
        second = Script(idle.at, seconds=0.5)
        assert follow(again, reader, second) == ""
        assert second.right == second.windows and not second.faults
        again.close()


def messages(source: OpenEphysSource, *parts: Stretch) -> list[list[bytes]]:
    """What a source would send."""
    sent: list[list[bytes]] = []
    source.send = lambda message, *_: sent.append(message)  # type: ignore[method-assign]
    for part in parts:
        source.write(part)
    return sent


def reading(**options: Any) -> Reading:
    return Reading("rig", CHANNELS, **{"stream": "", "line": 1, "settle_ms": 10.0, **options})


def virtual() -> OpenEphysSource:
    return OpenEphysSource(CHANNELS, RATE, Mischief(), continuous=1)


def test_a_restart_is_an_error() -> None:
    reader, source = reading(), virtual()
    for message in messages(source, stretch(90000, 92000)):
        reader.take(message)
    back = messages(virtual(), stretch(500, 2000))
    reader.take(back[0])  # one may be a late one
    with pytest.raises(RigError, match="expected data from sample 92000 on, got 1012; was acquisition restarted"):
        reader.take(back[1])


def test_a_leap_is_not_believed_at_once() -> None:
    reader, source = reading(), virtual()
    for message in messages(source, stretch(1000, 1512), stretch(10_000_000, 10_000_512), stretch(1512, 2536)):
        reader.take(message)
    events = reader.told()
    assert [(fault.start_s, fault.end_s) for fault in events.faults] == [(1000 / RATE, 2024 / RATE)]
    assert events.complete_s == 2024 / RATE


@pytest.mark.parametrize(
    ("start", "extra", "what"),
    [(2000, [], "samples from 1512 on were expected"), (1512, [[b"EVENT\0", b"{"]], "a message cannot be read")],
)
def test_what_is_wrong_though_no_number_is_missing(start: int, extra: list[list[bytes]], what: str) -> None:
    reader, (first, second) = reading(), messages(virtual(), stretch(1000, 1512), stretch(start, start + 512))
    for message in (first, *extra, second):
        reader.take(message)
    (fault,) = reader.told().faults
    assert (fault.start_s, fault.end_s) == (1000 / RATE, (start + 512) / RATE) and what in fault.what


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            stretch(1512, 3000, [1600, 1700], [1, 1]),
            "one electrode 'Electrode 3', processors 101 and 105 both have one",
        ),
        (stretch(1512, 3000, [], [], [1600, 1700], [True, False]), "line 1 of one processor, 100 and 105 both send one"),
    ],
)
def test_two_processors_that_cannot_be_told_apart(part: Stretch, message: str) -> None:
    reader, sent = reading(), messages(virtual(), stretch(1000, 1512), part)
    sent[2][1] = re.sub(rb'"source_node": \d+', b'"source_node": 105', sent[2][1])
    with pytest.raises(RigError, match=message):
        for one in sent:
            reader.take(one)


def test_numbers_of_messages_go_round() -> None:
    reader, sent = reading(), messages(virtual(), *[stretch(at, at + 512) for at in range(0, 2048, 512)])
    for number, message in zip([2**31 - 2, 2**31 - 1, -(2**31), 1 - 2**31], sent, strict=True):
        message[1] = re.sub(rb'"message_num": \d+', b'"message_num": %d' % number, message[1])
        reader.take(message)
    assert not reader.told().faults and reader.blocks == 4


def test_another_stream() -> None:
    reader, source = reading(stream="other"), virtual()
    for message in messages(source, stretch(1000, 1512)):
        reader.take(message)
    assert reader.block is None and reader.doubted == "a message of stream 'example_data' came"


@pytest.mark.parametrize("lost", [0, 2])
def test_an_edge_of_which_only_another_line_tells(lost: int) -> None:
    """The word of all lines shows that ours has changed, but the message that said so reads as another line's."""
    part = stretch(1512, 2024, [], [], [1600, 1700, 1800], [True, False, True])
    reader, sent = reading(), messages(virtual(), stretch(1000, 1512), part)
    edges = [message for message in sent if len(message[2]) == 10]
    edges[lost][2] = b"\3\1\x09" + bytes(7)
    for message in sent:
        reader.take(message)
    events = reader.told()
    assert np.rint(events.onset_s * RATE).tolist() == [1800 if lost == 0 else 1600]
    assert [fault.end_s for fault in events.faults] == [2024 / RATE] and "line 1 changed" in events.faults[0].what


def test_lines_that_change_together_are_no_fault() -> None:
    part = stretch(1512, 2024, [], [], [1600, 1700, 1700, 1900], [True, False, False, True])
    reader, sent = reading(), messages(virtual(), stretch(1000, 1512), part)
    edges = [message for message in sent if len(message[2]) == 10]
    edges[1][2] = b"\3\1\x08" + bytes(7)  # line 4 first, with the word after both
    edges[2][2] = b"\0\0\x08" + bytes(7)
    edges[3][2] = b"\0\1\x09" + bytes(7)
    for message in sent:
        reader.take(message)
    events = reader.told()
    assert np.rint(events.onset_s * RATE).tolist() == [1600, 1900] and not events.faults


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, "expected one or more different channels, got none"),
        ({"channels": ("a", "a")}, "expected one or more different channels, got a, a"),
        ({"channels": ("a",), "line": 0}, "expected a line from 1 to 256, as Open Ephys shows it, got 0"),
        ({"channels": ("a",), "settle_ms": float("nan")}, "expected a delay from 0 to 10000 ms, got nan"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RigError, match=message):
        OpenEphys(**options)
