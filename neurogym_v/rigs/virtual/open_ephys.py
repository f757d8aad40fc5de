"""Open Ephys as seen from outside: its plug-ins ZMQ Interface and Event Broadcaster, with a virtual world behind them.

Messages, their order and their quirks are the plug-ins' (see `acquisitions.open_ephys_messages`): in each processing block
events and spikes first, then data; spikes of a block's last 100 samples with the block after it; the first line is line 0.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.importing import require
from neurogym_v.rigs import RigError
from neurogym_v.rigs.acquisitions.open_ephys_messages import TTL_EVENT, named
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.mischief import Mischief

STREAM = "example_data"
BOARD, DETECTOR = 100, 101
"""Processors: the source of data and TTL events, and the one that finds spikes."""
UNDECIDED = 100
"""Samples at the end of a block whose spikes are found in the next one."""
PRE_PEAK, POST_PEAK = 8, 32
"""Samples of a waveform."""
POLL_MS = 20
LINGER_MS = 100


@dataclass(frozen=True, slots=True)
class Block:
    """What is processed in one go."""

    start: int
    end: int
    spikes: list[tuple[int, int]]
    """(channel, sample), electrode by electrode, of this block and the end of the one before."""
    edges: list[tuple[int, bool]]
    """(sample, high)"""


class Publisher:
    """A socket that publishes, and stretches cut into blocks. Without readers, and for slow ones, it never waits."""

    def __init__(self, channels: Sequence[str], sample_rate: float, mischief: Mischief, *, block: int) -> None:
        if block < 1:
            raise RigError(f"virtual open_ephys: expected blocks of one sample or more, got {block}")
        self.channels, self.sample_rate, self.mischief, self.block = tuple(channels), sample_rate, mischief, block
        self._units = [(name, unit or 0) for name, unit in map(named, self.channels)]
        self._undecided: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._context: Any = None
        self._socket: Any = None
        self.address = ""
        """Known after `open`."""
        self._readers = 0

    def publish(self, port: int) -> None:
        """Bind to loopback."""
        self._zmq = require("zmq", user="virtual open_ephys", extra="live")
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.XPUB)  # on the wire the same as PUB, but it knows who listens
        self._socket.setsockopt(self._zmq.SNDHWM, 0)
        self.address = bound(self._zmq, self._socket, port)

    def wait_for_reader(self, timeout_s: float) -> bool:
        """Whether somebody listens, at once or within a time: what is published before is lost to them."""
        until = time.monotonic() + timeout_s
        while not self.readers and time.monotonic() < until:
            time.sleep(0.002)
        return self.readers > 0

    @property
    def readers(self) -> int:
        """How many have come (1), or gone (0); ZeroMQ tells of the first and the last."""
        with self._lock:
            while self._socket is not None and self._socket.poll(0):
                self._readers = self._socket.recv()[0]
            return self._readers

    def send(self, parts: list[bytes], start: int, end: int) -> None:
        """Publish a message, or what mischief makes of it."""
        out = list(self.mischief(parts, start, end))
        with self._lock:
            if self._socket is None:
                return
            for message in out:
                self._socket.send_multipart(message)
        if self.mischief.dead:
            self.close()

    def blocks(self, stretch: Stretch) -> Iterator[Block]:
        """As the program cuts time into blocks; each ends with its stretch, at the latest."""
        for start in range(stretch.start, stretch.end, self.block):
            end = min(start + self.block, stretch.end)
            here = (stretch.spike >= start) & (stretch.spike < end)
            spikes = self._undecided + list(zip(stretch.channel[here].tolist(), stretch.spike[here].tolist(), strict=True))
            self._undecided = [spike for spike in spikes if spike[1] >= end - UNDECIDED]
            edges = (stretch.edge >= start) & (stretch.edge < end)
            yield Block(
                start,
                end,
                sorted(spike for spike in spikes if spike[1] < end - UNDECIDED),
                list(zip(stretch.edge[edges].tolist(), stretch.high[edges].tolist(), strict=True)),
            )

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close(linger=0 if self.mischief.dead else LINGER_MS)
                self._socket = None
        self._terminate()

    def _terminate(self) -> None:
        """Let go of the context, once all of its sockets are closed."""
        if self._context is not None:
            self._context.term()
            self._context = None


class OpenEphysSource(Publisher):
    """The plug-in ZMQ Interface: `virtual.Source`.

    Args:
        channels: "NAME" or "NAME#2", as the reader has them.
        port, heartbeat_port: of data and of heartbeats; 0: free ones.
        continuous: how many continuous channels are selected.
        block: samples that are processed in one go.
    """

    def __init__(
        self,
        channels: Sequence[str],
        sample_rate: float,
        mischief: Mischief,
        *,
        port: int = 0,
        heartbeat_port: int = 0,
        continuous: int = 2,
        block: int = 512,
    ) -> None:
        super().__init__(channels, sample_rate, mischief, block=block)
        self._port, self._heartbeat_port, self._continuous = port, heartbeat_port, continuous
        self._number, self._word = 0, 0
        self.heartbeat = ""
        """Known after `open`."""
        self.applications: dict[str, float] = {}
        """uuid -> when it was last heard of (`time.monotonic`)."""
        noise = np.random.default_rng(0).normal(0, 10, (continuous, 8 * block))
        self._noise: NDArray[np.float32] = noise.astype("<f4")
        self._stop, self._thread = threading.Event(), None  # type: tuple[threading.Event, threading.Thread | None]

    @property
    def settings(self) -> dict[str, object]:
        return {"address": self.address, "heartbeat": self.heartbeat}

    def open(self) -> None:
        self.publish(self._port)
        beats = self._context.socket(self._zmq.REP)
        try:
            self.heartbeat = bound(self._zmq, beats, self._heartbeat_port)
        except RigError:
            beats.close(linger=0)
            raise
        self._stop.clear()
        self._thread = threading.Thread(target=self._answer, args=(beats,), name="heartbeats", daemon=True)
        self._thread.start()

    def write(self, stretch: Stretch) -> None:
        for block in self.blocks(stretch):
            for channel, sample in block.spikes:
                self._spike(channel, sample)
            for sample, high in block.edges:
                self._word = int(high)
                payload = struct.pack("<BBQ", 0, int(high), self._word)
                content = {"stream": STREAM, "source_node": BOARD, "type": TTL_EVENT, "sample_num": sample}
                self._send(b"EVENT", "event", {"content": content, "data_size": len(payload)}, payload, sample, sample + 1)
            for channel in range(self._continuous):
                self._data(channel, block.start, block.end)

    def close(self) -> None:
        self._stop.set()
        super().close()

    def _terminate(self) -> None:
        if self._thread is not None:
            self._thread.join(timeout=2)
            self._thread = None
        super()._terminate()

    def _spike(self, channel: int, sample: int) -> None:
        electrode, unit = self._units[channel]
        spike = {
            "stream": STREAM,
            "source_node": DETECTOR,
            "electrode": electrode,
            "sample_num": sample,
            "num_channels": 1,
            "num_samples": PRE_PEAK + POST_PEAK,
            "sorted_id": unit,
            "threshold": [-50.0],
        }
        self._send(b"EVENT", "spike", {"spike": spike}, WAVEFORM.tobytes(), sample, sample + 1)

    def _data(self, channel: int, start: int, end: int) -> None:
        at = start % (self._noise.shape[1] - self.block)
        payload = self._noise[channel, at : at + end - start].tobytes()
        content = {
            "stream": STREAM,
            "channel_num": channel,
            "channel_name": f"CH{channel + 1}",
            "num_samples": end - start,
            "sample_num": start,
            "sample_rate": float(self.sample_rate),
        }
        self._send(b"DATA", "data", {"content": content, "data_size": len(payload)}, payload, start, end)

    def _send(self, envelope: bytes, kind: str, body: dict[str, object], payload: bytes, start: int, end: int) -> None:
        self._number += 1
        header = {"message_num": self._number, "type": kind, **body, "timestamp": int(1000 * time.time())}
        self.send([envelope + b"\0", json.dumps(header).encode(), payload], start, end)

    def _answer(self, beats: Any) -> None:
        """Answer heartbeats until the end."""
        while not (self._stop.is_set() or self.mischief.dead):
            if not beats.poll(POLL_MS) or self.mischief.stalled:
                continue
            try:
                beat = json.loads(beats.recv())
                self.applications[str(beat["uuid"])] = time.monotonic()
                beats.send(b"message correctly parsed" if beat["type"] == "event" else b"heartbeat received")
            except (ValueError, KeyError, TypeError):
                beats.send(b"JSON message could not be read")
        beats.close(linger=0)


class EventBroadcasterSource(Publisher):
    """The plug-in Event Broadcaster, its format set to JSON: `virtual.Source`.

    Args:
        channels: "NAME" or "NAME#2", as the reader has them.
        port: 0: a free one.
        buffer_ms: what is processed in one go.
    """

    def __init__(
        self, channels: Sequence[str], sample_rate: float, mischief: Mischief, *, port: int = 0, buffer_ms: float = 23.0
    ) -> None:
        super().__init__(channels, sample_rate, mischief, block=int(buffer_ms / 1000 * sample_rate))
        self._port = port

    @property
    def settings(self) -> dict[str, object]:
        return {"address": self.address}

    def open(self) -> None:
        self.publish(self._port)

    def write(self, stretch: Stretch) -> None:
        for block in self.blocks(stretch):
            for channel, sample in block.spikes:
                electrode, unit = self._units[channel]
                spike = {"electrode": electrode, "num_channels": 1, "sorted_id": unit, "amp1": float(-WAVEFORM.min())}
                self._send(1, "spike", DETECTOR, sample, spike)
            for sample, high in block.edges:
                self._send(0, "ttl", BOARD, sample, {"channel_name": "TTL", "line": 0, "state": high})

    def _send(self, base: int, kind: str, node: int, sample: int, body: dict[str, object]) -> None:
        message = {"event_type": kind, "stream": STREAM, "source_node": node, "sample_rate": float(self.sample_rate)}
        text = json.dumps({**message, "sample_number": sample, **body})
        self.send([struct.pack("<H", base), text.encode()], sample, sample + 1)


def bound(zmq: Any, socket: Any, port: int) -> str:
    """Bind a socket to loopback, and say where."""
    try:
        socket.bind(f"tcp://127.0.0.1:{port or '*'}")
    except zmq.ZMQError as error:
        raise RigError(f"virtual open_ephys: expected port {port} to be free, got: {error}") from None
    return str(socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())


def _waveform() -> NDArray[np.float32]:
    """(40,) microvolts, with its peak where a detector puts it."""
    t = np.arange(PRE_PEAK + POST_PEAK) - PRE_PEAK
    wave: NDArray[np.float32] = (-80 * np.exp(-((t / 3.0) ** 2)) + 25 * np.exp(-(((t - 10) / 6.0) ** 2))).astype("<f4")
    return wave


WAVEFORM = _waveform()
