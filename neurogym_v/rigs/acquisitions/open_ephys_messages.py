"""What two plug-ins of Open Ephys send over ZeroMQ: frames of bytes -> frozen records, and which channel a spike belongs to.

The parsers are pure, and meant for any bytes at all.

Formats, after the plug-ins' source (github.com/open-ephys-plugins/zmq-interface 1.0, event-broadcaster 0.2 and 0.3):

ZMQ Interface, three frames: envelope (`DATA` or `EVENT`, with a NUL), JSON header, payload.
    data   {message_num, type, content {stream, channel_num, num_samples, sample_num, sample_rate}, data_size} + float32
    event  {message_num, type, content {stream, source_node, type, sample_num}, data_size} + u8 line, u8 state, u64 word,
           little endian; two frames where data_size is 0. A type of 3 is a TTL line; others are not for us.
    spike  {message_num, type, spike {stream, source_node, electrode, sample_num, num_channels, num_samples, sorted_id}}
           + float32; its envelope is `EVENT`, and it has no data_size.
Event Broadcaster with its format set to JSON, two frames: u16 (0 TTL, 1 spike), little endian, and JSON.
    ttl    {event_type, stream, source_node, sample_rate, sample_number, line, state}
    spike  {event_type, stream, source_node, sample_rate, sample_number, electrode, num_channels, sorted_id, amp1 ... ampN}
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from neurogym_v.rigs import RigError

MOST_JSON = 1 << 16
"""Bytes of a JSON frame."""
MOST_SAMPLES = 1 << 20
"""Of a block, or of a waveform's channels together."""
LAST_SAMPLE = 1 << 53
"""Beyond, sample numbers are no exact floats any more; at 30 kHz that is in ten thousand years."""
FIRST_NUMBER, LAST_NUMBER = -(1 << 31), (1 << 31) - 1
"""Of messages: a C int, which goes round."""
TTL_EVENT, TTL_SIZE = 3, 10
STRANGERS = 200
"""Spikes of electrodes that are not among the channels, and none that is: the names are wrong."""


class MessageError(RigError):
    """A message is not what the plug-in sends; in one line, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Data:
    """A block of one continuous channel; its samples are of no use here."""

    stream: str
    sample_rate: float
    """Hz."""
    start: int
    """Sample number of its first sample ..."""
    end: int
    """... and of the first after it."""


@dataclass(frozen=True, slots=True)
class Spike:
    """A spike of an electrode."""

    stream: str
    source_node: int
    """Of the processor that found it."""
    electrode: str
    sample: int
    """Of its peak."""
    unit: int
    """Sorted id; 0: not sorted."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A TTL line changed."""

    stream: str
    source_node: int
    sample: int
    line: int
    """From 1, as the program's display counts; in messages from 0."""
    high: bool
    """To what."""
    word: int | None = None
    """All lines after it, the first in the lowest bit; None where it is not told."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A message of ZMQ Interface."""

    number: int
    body: Data | Spike | Edge | None
    """None: something that is not for us, such as a text."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message of Event Broadcaster."""

    sample_rate: float
    """Hz."""
    body: Spike | Edge


class _Fields:
    """A JSON object whose fields are looked at one by one."""

    def __init__(self, plugin: str, values: Any) -> None:
        self.plugin, self.values = plugin, values
        if not isinstance(values, dict):
            self.wrong("a JSON object", values)

    def wrong(self, expected: str, got: object) -> NoReturn:
        shown = repr(got) if isinstance(got, str | int | float | None) else type(got).__name__
        raise MessageError(f"{self.plugin}: expected {expected}, got {shown[:60]}")

    def whole(self, name: str, low: int, high: int) -> int:
        value = self.values.get(name)
        if type(value) is not int or not low <= value <= high:  # True is no number
            self.wrong(f"{name} from {low} to {high}", value)
        return value

    def rate(self) -> float:
        value = self.values.get("sample_rate")
        if type(value) not in (int, float) or not 1 <= value <= 1e7:  # NaN is not, either
            self.wrong("sample_rate from 1 Hz to 10 MHz", value)
        return float(value)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            self.wrong(f"a text as {name}", value)
        return value

    def inner(self, name: str) -> _Fields:
        return _Fields(self.plugin, self.values.get(name))

    def sized(self, payload: bytes, expected: int, of: str) -> None:
        if len(payload) != expected:
            self.wrong(f"{expected} bytes of {of}", f"{len(payload)}")


def zmq_interface(frames: list[bytes]) -> Numbered:
    """One message of ZMQ Interface.

    Raises:
        MessageError: it is none.
    """
    plugin = "ZMQ Interface"
    if not 2 <= len(frames) <= 3:
        raise MessageError(f"{plugin}: expected an envelope, a header and a payload, got {len(frames)} frames")
    header, payload = _json(plugin, frames[1]), frames[2] if len(frames) == 3 else b""
    number, kind = header.whole("message_num", FIRST_NUMBER, LAST_NUMBER), header.text("type")
    envelope, expected = bytes(frames[0][:16]).rstrip(b"\0"), {"data": b"DATA", "event": b"EVENT", "spike": b"EVENT"}.get(kind)
    if expected is None:
        header.wrong("data, event or spike as type", kind)
    if envelope != expected:
        header.wrong(f"the envelope {expected.decode()} of type {kind}", repr(envelope))
    body = header.inner("spike" if kind == "spike" else "content")
    stream = body.text("stream")
    sample = body.whole("sample_num", 0, LAST_SAMPLE)
    if kind == "data":
        samples = body.whole("num_samples", 1, MOST_SAMPLES)
        body.whole("channel_num", 0, MOST_SAMPLES)
        header.whole("data_size", 4 * samples, 4 * samples)
        header.sized(payload, 4 * samples, f"{samples} samples")
        return Numbered(number, Data(stream, body.rate(), sample, sample + samples))
    node = body.whole("source_node", 0, 1 << 16)
    if kind == "spike":
        size = 4 * body.whole("num_channels", 1, MOST_SAMPLES) * body.whole("num_samples", 1, MOST_SAMPLES)
        header.sized(payload, size, "waveform")
        return Numbered(number, Spike(stream, node, body.text("electrode"), sample, body.whole("sorted_id", 0, 1 << 16)))
    header.sized(payload, header.whole("data_size", 0, MOST_SAMPLES), "payload")
    if body.whole("type", 0, 255) != TTL_EVENT:
        return Numbered(number, None)
    header.sized(payload, TTL_SIZE, "a TTL event")
    line, state, word = struct.unpack("<BBQ", payload)
    if state > 1 or (line < 64 and word >> line & 1 != state):
        header.wrong(f"line {line + 1} to be {word >> line & 1}, as in the word of all lines,", state)
    return Numbered(number, Edge(stream, node, sample, line + 1, state == 1, word))


def event_broadcaster(frames: list[bytes]) -> Broadcast:
    """One message of Event Broadcaster.

    Raises:
        MessageError: it is none.
    """
    plugin = "Event Broadcaster"
    if len(frames) != 2:
        raise MessageError(f"{plugin}: expected a type and a text of JSON, got {len(frames)} frames")
    values = _json(plugin, frames[1])
    kind = values.text("event_type")
    if bytes(frames[0][:16]) != {"ttl": b"\0\0", "spike": b"\1\0"}.get(kind):
        values.wrong("0 and ttl, or 1 and spike", f"{bytes(frames[0][:16])!r} and {kind}")
    stream, node, rate = values.text("stream"), values.whole("source_node", 0, 1 << 16), values.rate()
    sample = values.whole("sample_number", 0, LAST_SAMPLE)
    if kind == "spike":
        channels = values.whole("num_channels", 1, MOST_SAMPLES)
        told = sum(name.startswith("amp") for name in values.values)
        if told != channels:
            values.wrong(f"the amplitudes of {channels} channels", told)
        return Broadcast(rate, Spike(stream, node, values.text("electrode"), sample, values.whole("sorted_id", 0, 1 << 16)))
    line, state = values.whole("line", 0, 255), values.values.get("state")
    if type(state) not in (bool, int) or state not in (0, 1):
        values.wrong("a state of 0 or 1", state)
    return Broadcast(rate, Edge(stream, node, sample, line + 1, bool(state)))


def _json(plugin: str, frame: bytes) -> _Fields:
    if len(frame) > MOST_JSON:
        raise MessageError(f"{plugin}: expected at most {MOST_JSON} bytes of JSON, got {len(frame)}")
    try:
        return _Fields(plugin, json.loads(bytes(frame).rstrip(b"\0").decode(), parse_constant=_constant))
    except MessageError:
        raise
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{plugin}: expected JSON, got: {str(error).partition(chr(10))[0][:100]}") from None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no number")


class Electrodes:
    """Which channel a spike belongs to. "NAME" takes all spikes of an electrode, "NAME#2" those of its sorted unit 2.

    Raises:
        RigError: no channels, or one twice.
    """

    def __init__(self, label: str, channels: Sequence[str]) -> None:
        if not channels or len(set(channels)) < len(channels):
            raise RigError(f"{label}: expected one or more different channels, got {', '.join(channels) or 'none'}")
        self._label, self._channels = label, tuple(channels)
        self._index = {named(channel): i for i, channel in enumerate(channels)}
        self._nodes: dict[str, int] = {}
        self._seen: set[str] = set()
        self._strangers, self._found = 0, False

    def of(self, spike: Spike) -> list[int]:
        """Indices of the channels that want a spike.

        Raises:
            RigError: many came, and none that is wanted; or two processors give spikes to electrodes of one name.
        """
        keys = (spike.electrode, None), (spike.electrode, spike.unit)
        wanted = [i for key in keys if (i := self._index.get(key)) is not None]
        if wanted:
            self._found = True
            if (node := self._nodes.setdefault(spike.electrode, spike.source_node)) != spike.source_node:
                raise RigError(
                    f"{self._label}: expected one electrode {spike.electrode!r}, processors {node} and {spike.source_node} "
                    "both have one; rename one in Open Ephys"
                )
        elif not self._found:
            self._strangers += 1
            if len(self._seen) < 20:
                self._seen.add(f"{spike.electrode}#{spike.unit}"[:80])
            if self._strangers >= STRANGERS:
                raise RigError(
                    f"{self._label}: expected spikes of {', '.join(self._channels)}, got {self._strangers} of others: "
                    f"{', '.join(sorted(self._seen))}; set channels to these names (without # for all units)"
                )
        return wanted


def named(channel: str) -> tuple[str, int | None]:
    """Electrode and sorted unit, None for all, of a channel's name."""
    name, hash_, unit = channel.rpartition("#")
    return (name, int(unit)) if hash_ and unit.isascii() and unit.isdigit() and len(unit) <= 5 else (channel, None)
