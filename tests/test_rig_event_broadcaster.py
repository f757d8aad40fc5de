"""Open Ephys through Event Broadcaster, both ends over real sockets, and the program's own Python client as a reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from neurogym_v.rigs import Acquisition, Events, RigError
from neurogym_v.rigs.acquisitions.event_broadcaster import UNREAD, EventBroadcaster, Reading
from neurogym_v.rigs.virtual.mischief import MESSAGES, Mischief, Misdeed
from neurogym_v.rigs.virtual.open_ephys import EventBroadcasterSource, OpenEphysSource
from tests.test_rig_open_ephys import CHANNELS, RATE, Script, stretch

pytest.importorskip("zmq", reason="ZeroMQ's Python package is not installed")
BEGIN = 60000


@contextmanager
def connected(mischief: Mischief | None = None, **options: Any) -> Iterator[tuple[EventBroadcasterSource, EventBroadcaster]]:
    """Both ends, once the source knows of its reader."""
    source = EventBroadcasterSource(CHANNELS, RATE, mischief or Mischief())
    source.open()
    reader = EventBroadcaster(CHANNELS, **source.settings, **options)
    try:
        reader.open()
        assert source.wait_for_reader(5)
        reader.arm()
        yield source, reader
    finally:
        reader.close()
        source.close()
    reader.close()
    source.close()


def follow(source: EventBroadcasterSource, reader: EventBroadcaster, script: Script) -> str:
    """Write a script and flashes after it, read it meanwhile, and judge; the RigError, if there was one."""
    at = script.end
    try:
        for part in script.stretches():
            source.write(part)
            script.hear(reader.events(0))
        for _ in range(100):
            if script.complete_s >= script.end / RATE:
                break
            at += 1000
            script.onsets.add(at - 900)
            source.write(stretch(at - 1000, at, [], [], [at - 900, at - 500], [True, False]))
            script.hear(reader.events(0.05))
    except RigError as error:
        return str(error)
    return ""


def test_spikes_and_onsets_are_exact() -> None:
    with connected() as (source, reader):
        assert isinstance(reader, Acquisition)
        script = Script(BEGIN)
        assert follow(source, reader, script) == ""
        assert script.right == script.windows == 30
        assert not script.faults


def test_nothing_is_complete_without_an_event() -> None:
    with connected(buffer_ms=10.0) as (source, reader):
        assert reader.quiet_s == 0.010
        source.write(stretch(BEGIN, BEGIN + 8000, [BEGIN + 700], [0], [BEGIN + 5000], [True]))
        heard: list[Events] = []
        while not sum(len(events.onset_s) for events in heard):
            heard.append(reader.events(0.05))
        assert heard[-1].complete_s == pytest.approx((BEGIN + 5000) / RATE - 0.010, abs=1e-9)
        source.write(stretch(BEGIN + 8000, BEGIN + 90000))
        assert reader.events(0.1).complete_s == heard[-1].complete_s


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("fault", [fault for fault in MESSAGES if fault not in ("drop", "burst", "corrupt", "reorder")])
def test_what_goes_wrong_is_known(fault: str, seed: int) -> None:
    misdeeds: list[Misdeed] = []
    with connected(Mischief(fault, every=300 if fault == "delay" else 57, after=20, seed=seed, told=misdeeds.append)) as ends:
        script = Script(BEGIN, seed=seed)
        assert follow(*ends, script) == ""
        assert misdeeds and script.judged == script.windows and script.right >= 10
        assert (script.right == script.windows) == (fault != "half")


@pytest.mark.parametrize("fault", ["drop", "burst", "corrupt", "reorder"])
def test_what_cannot_be_known_harms_no_more_than_it_must(fault: str) -> None:
    """Without numbers losses are silent. All others are whole: each spike is read once, at its time; what comes late, late."""
    misdeeds: list[Misdeed] = []
    with connected(Mischief(fault, every=200, after=20, told=misdeeds.append)) as (source, reader):
        script = Script(BEGIN)
        late = 0
        for part in script.stretches():
            source.write(part)
        until = time.monotonic() + 5
        while len(script.read) < len(script.truth) - len(misdeeds) - 20 and time.monotonic() < until:
            events = reader.events(0.05)
            late += int((events.spike_s < script.complete_s).sum())
            script.read += zip(np.rint(events.spike_s * RATE).astype(int).tolist(), events.channel.tolist(), strict=True)
            script.complete_s, script.faults = events.complete_s, [*script.faults, *events.faults]
        assert len(set(script.read)) == len(script.read)
        assert len(set(script.read) - script.truth) <= (len(misdeeds) if fault == "corrupt" else 0)
        assert len(script.truth - set(script.read)) <= len(misdeeds) + 20  # the last are not found before the next block
        assert late <= len(misdeeds)


def test_silence_is_none_but_a_lost_connection_is_an_error() -> None:
    with connected(Mischief("die", after=50)) as (source, reader):
        assert "the connection ended; was Open Ephys closed?" in follow(source, reader, Script(BEGIN))
    with connected(Mischief("stall", after=50)) as (source, reader):
        source.write(next(Script(BEGIN).stretches()))
        for _ in range(3):
            reader.events(0.02)


def test_nobody_listening() -> None:
    source = EventBroadcasterSource(CHANNELS, RATE, Mischief())
    source.open()
    assert not source.wait_for_reader(0)
    for part in Script(BEGIN).stretches():
        source.write(part)
    source.close()
    source.close()
    source.write(stretch(0, 1000, [5], [0]))


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogym_v.rigs.acquisitions.event_broadcaster.OPEN_S", 0.2)
    other = OpenEphysSource(CHANNELS, RATE, Mischief())
    other.open()  # its heartbeats are no publisher
    reader = EventBroadcaster(CHANNELS, address=other.heartbeat)
    with pytest.raises(RigError, match="nobody publishes there within 0.2 s; is Open Ephys running with an Event Broadcaster"):
        reader.open()
    other.close()
    with pytest.raises(RigError, match="nobody publishes there"):
        reader.open()
    reader.close()
    with pytest.raises(RigError, match=r"expected open\(\) before events"):
        reader.events(0)
    with pytest.raises(RigError, match="expected to connect to nowhere"):
        EventBroadcaster(CHANNELS, address="nowhere").open()


def test_one_after_another() -> None:
    with connected() as (source, reader):
        first = Script(BEGIN, seconds=0.5)
        assert follow(source, reader, first) == ""
        again = EventBroadcasterSource(CHANNELS, RATE, Mischief())
        again.open()
        reader.address = again.address
        reader.open()
        assert again.wait_for_reader(5)
        second = Script(500, seconds=0.5)
        assert follow(again, reader, second) == ""
        assert second.right == second.windows and not second.faults
        again.close()


def test_the_programs_own_client_reads_it() -> None:
    streaming = pytest.importorskip("open_ephys.streaming", reason="open-ephys-python-tools is not installed")
    source = EventBroadcasterSource(CHANNELS, RATE, Mischief())
    source.open()
    listener = streaming.EventListener(port=int(source.address.rpartition(":")[2]))
    spikes, edges, done = list[dict[str, Any]](), list[dict[str, Any]](), threading.Event()

    def edge(info: dict[str, Any]) -> None:
        edges.append(info)
        if len(edges) == len(script.edge):
            done.set()
            listener.stop()

    thread = threading.Thread(
        target=listener.start, kwargs={"ttl_callback": edge, "spike_callback": spikes.append}, daemon=True
    )
    thread.start()
    script = Script(BEGIN, seconds=1.0)
    try:
        assert source.wait_for_reader(5)
        for part in script.stretches():
            source.write(part)
        assert done.wait(5)
    finally:
        thread.join(5)
        listener.socket.close(linger=0)
        listener.context.term()
        source.close()
    assert [(info["sample_number"], bool(info["state"]), info["line"]) for info in edges] == [
        (int(s), bool(high), 0) for s, high in zip(script.edge, script.high, strict=True)
    ]
    names = {("Electrode 1", 2): 0, ("Electrode 3", 0): 1, ("probe #a", 0): 2}
    read = {(info["sample_number"], names[info["electrode"], info["sorted_id"]]) for info in spikes}
    assert len(read) == len(spikes)
    assert read >= {x for x in script.truth if x[0] < script.edge[-1] - 600} and read <= script.truth
    assert {info["sample_rate"] for info in spikes} == {RATE}


def messages(*parts: Any, channels: tuple[str, ...] = CHANNELS) -> list[list[bytes]]:
    """What a source would send."""
    source = EventBroadcasterSource(channels, RATE, Mischief())
    sent: list[list[bytes]] = []
    source.send = lambda message, *_: sent.append(message)  # type: ignore[method-assign]
    for part in parts:
        source.write(part)
    return sent


def flashes(*samples: int) -> list[list[bytes]]:
    """Falling edges: events of a time and nothing else."""
    return [message for s in samples for message in messages(stretch(s - 5, s + 200, [], [], [s], [False]))]


def read(sent: list[list[bytes]], **options: Any) -> Events:
    reader = Reading("rig", CHANNELS, **{"stream": "", "line": 1, "buffer_ms": 25.0, **options})
    for message in sent:
        reader.take(message)
    return reader.told()


def test_what_cannot_be_read_is_a_fault_around_its_place() -> None:
    before, lost, after = flashes(BEGIN, BEGIN + 3000, BEGIN + 4000)
    events = read([before, [lost[0], lost[1][:-9]], after])
    assert [(fault.start_s, fault.end_s) for fault in events.faults] == [
        (BEGIN / RATE - 0.025, (BEGIN + 4000) / RATE + 0.025),
    ]
    assert events.complete_s == (BEGIN + 4000) / RATE - 0.025


def test_an_event_far_away_waits_for_another() -> None:
    near, far, again, farther = flashes(BEGIN, 9_000_000, BEGIN + 900, 9_000_300)
    events = read([near, far, again])
    assert events.complete_s == (BEGIN + 900) / RATE - 0.025
    assert ["an event of sample 9000000 came" in fault.what for fault in events.faults] == [True]
    events = read([near, far, farther])
    assert events.complete_s == 9_000_300 / RATE - 0.025 and not events.faults


def test_a_restart_is_an_error() -> None:
    with pytest.raises(RigError, match="expected events about sample 9000000, got 300; was acquisition restarted"):
        read(flashes(9_000_000, 100, 300))


def test_something_else_that_sends() -> None:
    with pytest.raises(RigError, match="is the format of Event Broadcaster set to JSON"):
        read([[b"\0\0", b"\1\2\3"]] * UNREAD)


def test_streams() -> None:
    mine, other = flashes(BEGIN, BEGIN + 800)
    other[1] = other[1].replace(b"example_data", b"NI-DAQmx")
    assert read([other, mine, other], stream="example_data").complete_s == BEGIN / RATE - 0.025
    with pytest.raises(RigError, match="got some of 'example_data' and of 'NI-DAQmx'; say which"):
        read([mine, other, other])


def test_a_wrong_rate_and_a_wrong_line() -> None:
    rising = messages(stretch(BEGIN, BEGIN + 5000, [], [], [BEGIN + 10, BEGIN + 900, BEGIN + 1700], [True, True, True]))
    rising[1][1] = rising[1][1].replace(b"20000.0", b"30000.0")
    rising[2][1] = rising[2][1].replace(b'"line": 0', b'"line": 1')
    events = read(rising)
    assert events.onset_s.tolist() == [(BEGIN + 10) / RATE]
    assert "an event of 30000 instead of 20000 Hz came" in events.faults[0].what
    assert read(rising, line=2).onset_s.tolist() == [(BEGIN + 1700) / RATE]
