"""Open Ephys through its plug-in ZMQ Interface: spikes, TTL lines and continuous data, numbered one by one.

In the program: Spike Detector (and Spike Sorter) -> ZMQ Interface with one continuous channel of the stream selected, which is
the clock. In each processing block the plug-in sends first the events and spikes, in any order, then the data of each selected
channel (`ZmqInterface::process`). Spike Detector leaves the last 100 samples of a block to the next one, so that a spike may be
told a block later than its samples (`SpikeDetector::process`). Hence, when data of a block has come, everything has been sent
that lies before its start and `settle_ms` before its end. A spike that comes later, from a detector that thinks longer, is
delivered as it is; whoever counts recognises it by its time.

Messages have numbers: of each that is missing, twice there with different contents, not in its place or cannot be read, the
stretch in which it may have stood becomes a Fault: from the last time that was complete to the end of the next block. A message
that was damaged on its way and still reads well, with a wrong digit or letter, is recognised by its number, a time far away, a
state that contradicts the word of all lines, a size that does not fit or another stream's name. A time that is a little wrong,
another electrode or sorted unit are not recognised: TCP's checksums have to do for them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neurogym_v.importing import require
from neurogym_v.rigs import NO_NUMBER, Events, Fault, RigError
from neurogym_v.rigs.acquisitions.open_ephys_messages import (
    FIRST_NUMBER,
    LAST_NUMBER,
    MOST_SAMPLES,
    Data,
    Edge,
    Electrodes,
    MessageError,
    Spike,
    zmq_interface,
)

OPEN_S = 2.0
"""For the first data and the first heartbeat's answer."""
HEARTBEAT_S = 2.0
"""The program shows an application as gone after 5 s without."""
SETTLE_SAMPLES = 128
"""At least: Spike Detector leaves 100 samples to the next block."""
FAR_S = 60.0
"""Data that leaps ahead further is not believed, until more of it comes."""
RECENT = 1000
"""Messages that are known again if they come twice."""
DRAIN_S = 0.1
"""That one call of `events` reads on, at most, while there is more."""


class Collected:
    """What came since it was last told, in samples."""

    def __init__(self) -> None:
        self.spikes: list[tuple[int, int]] = []
        """(sample, channel)"""
        self.onsets: list[int] = []
        self.faults: list[Fault] = []

    def told(self, rate: float, complete_s: float) -> Events:
        """As events; nothing is left."""
        spikes = np.array(self.spikes, dtype=np.int64).reshape(-1, 2)
        onset_s = np.array(self.onsets, dtype=np.int64) / rate
        events = Events(
            spike_s=spikes[:, 0] / rate,
            channel=spikes[:, 1].astype(np.intp),
            onset_s=onset_s,
            number=np.full(len(onset_s), NO_NUMBER, dtype=np.int64),
            complete_s=complete_s,
            faults=tuple(self.faults),
        )
        for kept in (self.spikes, self.onsets, self.faults):
            kept.clear()
        return events


class Reading:
    """The messages of ZMQ Interface, one after another, as events; knows nothing of sockets."""

    def __init__(self, label: str, channels: Sequence[str], *, stream: str, line: int, settle_ms: float) -> None:
        self._label, self._electrodes, self._collected = label, Electrodes(label, channels), Collected()
        self.stream, self._line, self._settle_s = stream, line, settle_ms / 1000
        self._number: int | None = None
        self._recent: dict[int, int] = {}
        self.rate = 1.0
        """Hz, of the first data."""
        self.block: tuple[int, int] | None = None
        """First sample of the newest block, and the first after it."""
        self.blocks = 0
        """How many messages with data of the stream came, and fitted."""
        self._complete_s = float("-inf")
        self.doubted = ""
        """Why the next block ends a fault; "": nothing is wrong."""
        self._astray = 0
        self._node: int | None = None
        self._levels: dict[int, bool] = {}  # of our line, as each processor's words tell; before the first, dark
        self._changed_unsaid: int | None = None

    def take(self, frames: list[bytes]) -> None:
        """Take in a message; any bytes at all.

        Raises:
            RigError: it shows that the rest is worthless: the program was restarted, channels are wrong.
        """
        try:
            message = zmq_interface(frames)
        except MessageError as error:
            return self._doubt(f"a message cannot be read ({error})")
        contents = hash(tuple(frames))
        if self._recent.get(message.number) == contents:
            return None  # a duplicate is no loss
        self._recent[message.number] = contents
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        if self._number is not None:
            expected = self._number + 1 if self._number < LAST_NUMBER else FIRST_NUMBER
            if message.number != expected:
                self._doubt(f"message {expected} was expected, {message.number} came")
        self._number = message.number
        body = message.body
        if body is None:
            return None
        if not self.stream and isinstance(body, Data):
            self.stream = body.stream
        if body.stream != self.stream:
            return self._doubt(f"a message of stream {body.stream[:80]!r} came") if self.stream else None
        if isinstance(body, Data):
            return self._data(body)
        return self._spike(body) if isinstance(body, Spike) else self._edge(body)

    def told(self) -> Events:
        """What came since it was last asked."""
        return self._collected.told(self.rate, self._complete_s)

    def _doubt(self, what: str) -> None:
        """Something may be missing from the last complete time to the end of the next block."""
        self.doubted = self.doubted or what

    def _data(self, data: Data) -> None:
        if self.block is None:
            self.rate, self.block = data.sample_rate, (data.start, data.end)
        start, end = self.block
        if data.sample_rate != self.rate:
            return self._doubt(f"data of {data.sample_rate:g} instead of {self.rate:g} Hz came")
        if not start <= data.start <= end + FAR_S * self.rate:
            self._astray += 1
            if self._astray > 1:
                raise RigError(
                    f"{self._label}: expected data from sample {end} on, got {data.start}; was acquisition restarted? Then "
                    "start the run again, it continues where it was"
                )
            return self._doubt(f"data of sample {data.start} came, {end} was expected")
        self._astray, self.blocks = 0, self.blocks + 1
        if data.start != end and (data.start, data.end) != self.block:
            self._doubt(f"samples from {end} on were expected, those from {data.start} on came")
        if self._changed_unsaid is not None:
            self._doubt(f"line {self._line} changed about sample {self._changed_unsaid}, but no event says so")
            self._changed_unsaid = None
        self.block = data.start, data.end
        if self.doubted:
            self._collected.faults.append(Fault(self._complete_s, data.end / self.rate, self.doubted))
            self.doubted = ""
        settled = min(data.start / self.rate, data.end / self.rate - max(self._settle_s, SETTLE_SAMPLES / self.rate))
        self._complete_s = max(self._complete_s, settled)
        return None

    def _spike(self, spike: Spike) -> None:
        self._collected.spikes += [(spike.sample, i) for i in self._electrodes.of(spike) if self._believed(spike.sample)]

    def _edge(self, edge: Edge) -> None:
        if edge.line == self._line:
            if self._node not in (None, edge.source_node):
                raise RigError(
                    f"{self._label}: expected line {self._line} of one processor, {self._node} and {edge.source_node} both "
                    "send one; take another line"
                )
            self._node = edge.source_node
            self._levels[edge.source_node] = edge.high
            if self._changed_unsaid == edge.sample:
                self._changed_unsaid = None
            if edge.high and self._believed(edge.sample):
                self._collected.onsets.append(edge.sample)
        elif edge.word is not None and self._line <= 64:
            high = bool(edge.word >> self._line - 1 & 1)
            if high != self._levels.get(edge.source_node, False):
                self._changed_unsaid = edge.sample  # lines that change together are told one by one, each with the last word
            self._levels[edge.source_node] = high

    def _believed(self, sample: int) -> bool:
        """Whether a time is near the stream's."""
        if self.block is None:
            return False
        if abs(sample - self.block[1]) <= FAR_S * self.rate:
            return True
        self._doubt(f"an event of sample {sample} came, the stream is at {self.block[1]}")
        return False


class OpenEphys:
    """Spikes and onsets of Open Ephys through its plug-in ZMQ Interface; see the module.

    Args:
        channels: names of electrodes as Spike Detector has them, "NAME" for all spikes or "NAME#2" for the sorted unit 2.
        address: the plug-in's data port.
        heartbeat: its data port + 1. Where Event Broadcaster is in the chain too, one of the two has to leave 5557.
        stream: which; the only one by default.
        line: TTL line of the photodiode as the program shows it, from 1 (messages count it from 0).
        settle_ms: so much of the end of a block is told with the next one only; 128 samples at least.

    Raises:
        RigError: no channels, one twice, or a line that cannot be.
    """

    label = "acquisition open_ephys"

    def __init__(
        self,
        channels: Sequence[str],
        *,
        address: str = "tcp://127.0.0.1:5556",
        heartbeat: str = "tcp://127.0.0.1:5557",
        stream: str = "",
        line: int = 1,
        settle_ms: float = 10.0,
    ) -> None:
        checked(self.label, line, settle_ms)
        self.channels = tuple(channels)
        self.patience_s, self.quiet_s = 1.0, 0.0
        self.address, self.heartbeat = address, heartbeat
        self._settings: dict[str, Any] = {"stream": stream, "line": line, "settle_ms": settle_ms}
        self._reading = Reading(self.label, self.channels, **self._settings)
        self._context: Any = None
        self._data: Any = None
        self._beats: Any = None
        self._uuid, self._beat_at, self._answered = str(uuid.uuid4()), float("-inf"), False
        self._blocks, self._silence_s, self._looked_at = 0, 0.0, 0.0

    def open(self) -> None:
        """Connect, wait for the answer to a heartbeat and for data, two seconds at most.

        Raises:
            RigError: one of them does not come.
        """
        self.close()
        self._zmq = require("zmq", user=self.label, extra="live")
        self._reading = Reading(self.label, self.channels, **self._settings)
        self._answered, self._beat_at, self._silence_s, until = False, float("-inf"), 0.0, time.monotonic() + OPEN_S
        try:
            self._context = self._zmq.Context()
            self._data = subscribed(self._zmq, self._context, self.address)
            self._beats = self._context.socket(self._zmq.REQ)
            for option in (self._zmq.REQ_RELAXED, self._zmq.REQ_CORRELATE):  # one without an answer does not stop the next
                self._beats.setsockopt(option, 1)
            self._beats.connect(self.heartbeat)
            while not (self._answered and self._reading.block):
                self._beat()
                drained(self._zmq, self._data, self._reading.take, 0.02)
                if time.monotonic() > until:
                    raise self._absent()
        except self._zmq.ZMQError as error:
            self.close()
            raise RigError(f"{self.label}: expected to connect to {self.address} and {self.heartbeat}, got: {error}") from None
        except BaseException:
            self.close()
            raise
        self._reading.told()  # from before anybody asked
        self._blocks, self._looked_at = self._reading.blocks, time.monotonic()

    def arm(self) -> None:
        """Nothing: what arrived before has an early time, that is enough."""

    def events(self, timeout_s: float) -> Events:
        if self._data is None:
            raise RigError(f"{self.label}: expected open() before events(), or no close() in between")
        try:
            self._beat()
            drained(self._zmq, self._data, self._reading.take, min(timeout_s, HEARTBEAT_S / 4))
        except self._zmq.ZMQError as error:
            raise RigError(f"{self.label}: expected messages from {self.address}, got: {error}") from None
        now = time.monotonic()
        # of the time between two calls only so much counts: nobody listened, and perhaps this process was asleep
        self._silence_s += min(now - self._looked_at, max(timeout_s, 0.1))
        self._looked_at = now
        if self._reading.blocks != self._blocks:
            self._blocks, self._silence_s = self._reading.blocks, 0.0
        if self._silence_s > self.patience_s:
            instead = f", but {self._reading.doubted}" if self._reading.doubted else ""
            raise RigError(
                f"{self.label}: expected data of stream {self._reading.stream!r} from {self.address}, none came for "
                f"{self.patience_s:g} s{instead}; was acquisition stopped, or Open Ephys closed?"
            )
        return self._reading.told()

    def close(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)  # with its sockets
        self._context = self._data = self._beats = None

    def _beat(self) -> None:
        """Hear the answer to the last heartbeat, and send one if it is time."""
        if self._beats.poll(0):
            self._beats.recv()
            self._answered = True
        if (now := time.monotonic()) - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            beat = {"application": "neurogym-v", "uuid": self._uuid, "type": "heartbeat"}
            if self._beats.poll(0, self._zmq.POLLOUT):
                self._beats.send(json.dumps(beat).encode())

    def _absent(self) -> RigError:
        if not self._answered:
            return RigError(
                f"{self.label}: expected an answer from {self.heartbeat} within {OPEN_S:g} s, got none; is Open Ephys running "
                "with a ZMQ Interface in its signal chain, and is this its data port + 1?"
            )
        got = f"got {self._reading.doubted}" if self._reading.doubted else "got none"
        return RigError(
            f"{self.label}: expected continuous data from {self.address} within {OPEN_S:g} s, {got}; is acquisition "
            "running, is this the data port of ZMQ Interface, and is a channel of the stream selected in it?"
        )


def checked(label: str, line: int, settle_ms: float) -> None:
    """Raise RigError unless a line and a delay are such."""
    if not 1 <= line <= 256:
        raise RigError(f"{label}: expected a line from 1 to 256, as Open Ephys shows it, got {line}")
    if not 0 <= settle_ms <= 10000:
        raise RigError(f"{label}: expected a delay from 0 to 10000 ms, got {settle_ms}")


def subscribed(zmq: Any, context: Any, address: str, before: Callable[[Any], object] = lambda _: None) -> Any:
    """A socket that receives everything that is published there; `before` gets it before it connects."""
    socket = context.socket(zmq.SUB)
    before(socket)
    socket.setsockopt(zmq.RCVHWM, 0)  # the default drops silently what is more than 1000 messages behind
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, 4 * MOST_SAMPLES)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(address)
    return socket


def drained(zmq: Any, socket: Any, take: Callable[[list[bytes]], object], timeout_s: float) -> int:
    """Wait for messages, hand over all that are there, and say how many."""
    count, until = 0, time.monotonic() + max(timeout_s, 0) + DRAIN_S
    if not socket.poll(int(1000 * max(timeout_s, 0))):
        return 0
    while time.monotonic() < until:
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        count += 1
        take(frames)
    return count
