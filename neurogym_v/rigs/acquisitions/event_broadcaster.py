"""Open Ephys through its plug-in Event Broadcaster: spikes and TTL lines as they happen, and nothing else.

In the program: Spike Detector (and Spike Sorter) -> Event Broadcaster, its format set to JSON. Where ZMQ Interface can be had,
take that (`open_ephys`): here messages have no numbers, so that **one that is lost in a full queue is not noticed**, and the
neuron seems to have fired less. Nor is it noticed that the stream has fallen silent; only that its connection has ended.

There is no continuous data either, hence no clock while nothing happens. Events of one processing buffer come in any order, so
that everything is complete up to the newest event less `buffer_ms`; the display has to light the photodiode once more after
each fixation, or the end of a response would never be known to have come (`Fixation.flash_after_s`).

A message that cannot be read becomes a Fault around its place. One that was damaged on its way and still reads well is
recognised by fields that contradict each other, another sample rate or a time far away; a time that is a little wrong, another
line, electrode or sorted unit are not: TCP's checksums have to do for them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from neurogym_v.importing import require
from neurogym_v.rigs import Events, Fault, RigError
from neurogym_v.rigs.acquisitions.open_ephys import (
    OPEN_S,
    RECENT,
    Collected,
    checked,
    drained,
    subscribed,
)
from neurogym_v.rigs.acquisitions.open_ephys_messages import Edge, Electrodes, MessageError, Spike, event_broadcaster

FAR_S = 10.0
"""An event further from the newest one is not believed, until another agrees with it."""
UNREAD = 50
"""Messages in a row that cannot be read: it is something else that sends."""


class Reading:
    """The messages of Event Broadcaster, one after another, as events; knows nothing of sockets."""

    def __init__(self, label: str, channels: Sequence[str], *, stream: str, line: int, buffer_ms: float) -> None:
        self._label, self._electrodes, self._collected = label, Electrodes(label, channels), Collected()
        self._stream, self._line, self._buffer_s = stream, line, buffer_ms / 1000
        self._given = bool(stream)
        self._rate: float | None = None
        self._recent: dict[Spike | Edge, None] = {}
        self._newest: int | None = None
        self._held: Spike | Edge | None = None
        self._doubted, self._doubted_from = "", float("inf")
        self._unread, self._strange = 0, 0

    def take(self, frames: list[bytes]) -> None:
        """Take in a message; any bytes at all.

        Raises:
            RigError: it shows that the rest is worthless: the program was restarted, channels are wrong.
        """
        try:
            message = event_broadcaster(frames)
        except MessageError as error:
            self._unread += 1
            if self._unread >= UNREAD:
                raise RigError(
                    f"{self._label}: expected events, the last {UNREAD} messages cannot be read ({error}); is the format of "
                    "Event Broadcaster set to JSON, and its version 0.2 or later?"
                ) from None
            return self._doubt(f"a message cannot be read ({error})")
        self._unread = 0
        body = message.body
        if not self._stream:
            self._stream = body.stream
        if body.stream != self._stream:
            return None if self._given else self._another(body.stream)
        if self._rate is None:
            self._rate = message.sample_rate
        if message.sample_rate != self._rate:
            return self._doubt(f"an event of {message.sample_rate:g} instead of {self._rate:g} Hz came")
        if body in self._recent:
            return None
        self._recent[body] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        return self._place(body)

    def told(self) -> Events:
        """What came since it was last asked."""
        return self._collected.told(self._rate or 1.0, self._complete_s)

    @property
    def _complete_s(self) -> float:
        return float("-inf") if self._newest is None or not self._rate else self._newest / self._rate - self._buffer_s

    def _doubt(self, what: str) -> None:
        """Something may be missing from a buffer before the newest event to one after the next."""
        self._doubted = self._doubted or what
        self._doubted_from = min(self._doubted_from, self._complete_s)

    def _another(self, stream: str) -> None:
        self._doubt(f"an event of stream {stream[:80]!r} came")
        self._strange += 1
        if self._strange > 1:
            raise RigError(
                f"{self._label}: expected events of one stream, got some of {self._stream!r} and of {stream[:80]!r}; say which "
                "is meant with stream"
            )

    def _place(self, body: Spike | Edge) -> None:
        """Believe an event whose time is near the newest one's, or one that it agrees with."""
        far, held = FAR_S * (self._rate or 1.0), self._held
        if self._newest is None or abs(body.sample - self._newest) <= far:
            self._held = None
            if held is not None:
                self._disown(held)
            return self._believe(body)
        if held is None or abs(body.sample - held.sample) > far:
            if held is not None:
                self._disown(held)
            self._held = body
            return None
        if body.sample < self._newest:
            raise RigError(
                f"{self._label}: expected events about sample {self._newest}, got {body.sample}; was acquisition restarted? "
                "Then start the run again, it continues where it was"
            )
        self._held = None
        self._believe(held)
        return self._believe(body)

    def _disown(self, held: Spike | Edge) -> None:
        self._doubt(f"an event of sample {held.sample} came, the stream is at {self._newest}")

    def _believe(self, body: Spike | Edge) -> None:
        if isinstance(body, Spike):
            self._collected.spikes += [(body.sample, i) for i in self._electrodes.of(body)]
        elif body.line == self._line and body.high:
            self._collected.onsets.append(body.sample)
        self._newest = body.sample if self._newest is None else max(self._newest, body.sample)
        if self._doubted:
            end_s = self._newest / (self._rate or 1.0) + self._buffer_s
            self._collected.faults.append(Fault(self._doubted_from, end_s, self._doubted))
            self._doubted, self._doubted_from = "", float("inf")


class EventBroadcaster:
    """Spikes and onsets of Open Ephys through its plug-in Event Broadcaster; see the module for what it cannot notice.

    Args:
        channels: names of electrodes as Spike Detector has them, "NAME" for all spikes or "NAME#2" for the sorted unit 2.
        address: the plug-in's port. Where ZMQ Interface is in the chain too, one of the two has to leave 5557.
        stream: whose events; the only one by default.
        line: TTL line of the photodiode as the program shows it, from 1 (messages count it from 0).
        buffer_ms: the length of one processing buffer; the program's default of 1024 samples at 44.1 kHz is 23 ms.

    Raises:
        RigError: no channels, one twice, a line or a buffer that cannot be.
    """

    label = "acquisition event_broadcaster"

    def __init__(
        self,
        channels: Sequence[str],
        *,
        address: str = "tcp://127.0.0.1:5557",
        stream: str = "",
        line: int = 1,
        buffer_ms: float = 25.0,
    ) -> None:
        checked(self.label, line, buffer_ms)
        self.channels, self.address = tuple(channels), address
        self.patience_s, self.quiet_s = 1.0, buffer_ms / 1000
        """How much later than the end of a response something has to happen, or the response would never be complete."""
        self._settings: dict[str, Any] = {"stream": stream, "line": line, "buffer_ms": buffer_ms}
        self._reading = Reading(self.label, self.channels, **self._settings)
        self._context: Any = None
        self._socket: Any = None
        self._monitor: Any = None
        self._gone = False

    def open(self) -> None:
        """Connect; what channels there are is only known when they fire.

        Raises:
            RigError: nobody publishes there within two seconds.
        """
        self.close()
        self._zmq = require("zmq", user=self.label, extra="live")
        self._told = require("zmq.utils.monitor", user=self.label, extra="live").recv_monitor_message
        self._reading, self._gone = Reading(self.label, self.channels, **self._settings), False
        try:
            self._context = self._zmq.Context()
            self._socket = subscribed(self._zmq, self._context, self.address, self._watch)
            until = time.monotonic() + OPEN_S
            while not self._happened(self._zmq.EVENT_HANDSHAKE_SUCCEEDED, 0.05):
                if time.monotonic() > until:
                    raise RigError(
                        f"{self.label}: expected events from {self.address}, nobody publishes there within {OPEN_S:g} s; is "
                        "Open Ephys running with an Event Broadcaster in its signal chain, and is this its port?"
                    )
        except self._zmq.ZMQError as error:
            self.close()
            raise RigError(f"{self.label}: expected to connect to {self.address}, got: {error}") from None
        except BaseException:
            self.close()
            raise

    def arm(self) -> None:
        """Nothing: what arrived before has an early time, that is enough."""

    def events(self, timeout_s: float) -> Events:
        if self._socket is None:
            raise RigError(f"{self.label}: expected open() before events(), or no close() in between")
        try:
            self._gone = self._gone or self._happened(self._zmq.EVENT_DISCONNECTED, 0)
            came = drained(self._zmq, self._socket, self._reading.take, timeout_s)
        except self._zmq.ZMQError as error:
            raise RigError(f"{self.label}: expected messages from {self.address}, got: {error}") from None
        if self._gone and not came:
            raise RigError(f"{self.label}: expected events from {self.address}, the connection ended; was Open Ephys closed?")
        return self._reading.told()

    def close(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)  # with its sockets
        self._context = self._socket = self._monitor = None

    def _watch(self, socket: Any) -> None:
        self._socket = socket
        self._monitor = socket.get_monitor_socket(self._zmq.EVENT_HANDSHAKE_SUCCEEDED | self._zmq.EVENT_DISCONNECTED)

    def _happened(self, event: int, timeout_s: float) -> bool:
        """Whether the connection says this, at once or within a time."""
        happened = False
        while self._monitor.poll(int(1000 * timeout_s)):
            happened |= self._told(self._monitor)["event"] == event
            if happened:
                break
        return happened
