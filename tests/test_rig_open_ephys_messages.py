"""The parsers of Open Ephys' messages: what is whole is read exactly, and anything else is one kind of error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import RigError
from neurogym_v.rigs.acquisitions import event_broadcaster as broadcaster
from neurogym_v.rigs.acquisitions import open_ephys
from neurogym_v.rigs.acquisitions.open_ephys_messages import (
    LAST_SAMPLE,
    MOST_JSON,
    STRANGERS,
    Broadcast,
    Data,
    Edge,
    Electrodes,
    MessageError,
    Numbered,
    Spike,
    event_broadcaster,
    named,
    zmq_interface,
)

DATA = {
    "message_num": 7,
    "type": "data",
    "content": {
        "stream": "board",
        "channel_num": 3,
        "channel_name": "CH4",
        "num_samples": 5,
        "sample_num": 1000,
        "sample_rate": 30000.0,
    },
    "data_size": 20,
    "timestamp": 1,
}
EVENT = {
    "message_num": 8,
    "type": "event",
    "content": {"stream": "board", "source_node": 100, "type": 3, "sample_num": 1003},
    "data_size": 10,
}
SPIKE = {
    "message_num": 9,
    "type": "spike",
    "spike": {
        "stream": "board",
        "source_node": 101,
        "electrode": "Tetrode 1",
        "sample_num": 990,
        "num_channels": 4,
        "num_samples": 40,
        "sorted_id": 2,
        "threshold": [-50, -50, -50, -50],
    },
}
TEXT = {**EVENT, "content": {**EVENT["content"], "type": 5}, "data_size": 4}  # type: ignore[dict-item]
TTL_JSON = {
    "event_type": "ttl",
    "stream": "board",
    "source_node": 100,
    "sample_rate": 30000,
    "channel_name": "TTL",
    "sample_number": 1003,
    "line": 2,
    "state": True,
}
SPIKE_JSON = {
    "event_type": "spike",
    "stream": "board",
    "source_node": 101,
    "electrode": "E µ",
    "num_channels": 2,
    "sample_rate": 30000.0,
    "sample_number": 990,
    "sorted_id": 0,
    "amp1": 80.5,
    "amp2": None,
}


def frames(*parts: object) -> list[bytes]:
    return [part if isinstance(part, bytes) else json.dumps(part, indent=2).encode() for part in parts]


WHOLE: list[tuple[Callable[[list[bytes]], object], list[bytes], object]] = [
    (zmq_interface, frames(b"DATA\0", DATA, bytes(20)), Numbered(7, Data("board", 30000.0, 1000, 1005))),
    (
        zmq_interface,
        frames(b"EVENT\0", EVENT, struct.pack("<BBQ", 2, 1, 0b101)),
        Numbered(8, Edge("board", 100, 1003, 3, True, 5)),
    ),
    (zmq_interface, frames(b"EVENT\0", SPIKE, bytes(640)), Numbered(9, Spike("board", 101, "Tetrode 1", 990, 2))),
    (zmq_interface, frames(b"EVENT\0", TEXT, b"hi\0\0"), Numbered(8, None)),
    (zmq_interface, frames(b"EVENT\0", {**TEXT, "data_size": 0}), Numbered(8, None)),
    (event_broadcaster, frames(b"\0\0", TTL_JSON), Broadcast(30000.0, Edge("board", 100, 1003, 3, True))),
    (event_broadcaster, frames(b"\0\0", {**TTL_JSON, "state": 0}), Broadcast(30000.0, Edge("board", 100, 1003, 3, False))),
    (event_broadcaster, frames(b"\1\0", SPIKE_JSON), Broadcast(30000.0, Spike("board", 101, "E µ", 990, 0))),
]


@pytest.mark.parametrize("case", range(len(WHOLE)))
def test_whole_messages_are_read_exactly(case: int) -> None:
    parse, sent, expected = WHOLE[case]
    assert parse(sent) == expected


def changed(message: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a message with another value there; `...` removes it."""
    head, _, rest = path.partition(".")
    new = changed(message[head], rest, value) if rest else value
    return {
        key: new if key == head else old for key, old in {**message, head: None, **message}.items() if (key, new) != (head, ...)
    }


WRONG: list[tuple[Callable[[list[bytes]], object], list[bytes], str]] = [
    (zmq_interface, [], "got 0 frames"),
    (zmq_interface, [b"DATA\0"] * 4, "got 4 frames"),
    (zmq_interface, frames(b"DATA\0", b"{", b""), "expected JSON, got: Expecting"),
    (zmq_interface, frames(b"DATA\0", b"[]", b""), "expected a JSON object, got list"),
    (zmq_interface, frames(b"DATA\0", b"\xff\xfe", b""), "expected JSON, got: 'utf-8' codec"),
    (zmq_interface, frames(b"DATA\0", b"[" * 60000, b""), "expected JSON"),
    (zmq_interface, frames(b"DATA\0", b'{"message_num": NaN}', b""), "NaN, which is no number"),
    (zmq_interface, frames(b"DATA\0", b'{"message_num": ' + b"9" * 60000 + b"}", b""), "expected JSON"),
    (zmq_interface, frames(b"DATA\0", b" " * (MOST_JSON + 1), b""), "expected at most 65536 bytes of JSON, got 65537"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "message_num", 2**31), bytes(20)), "message_num from .* got 2147483648"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "message_num", True), bytes(20)), "message_num from .* got True"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "message_num", ...), bytes(20)), "message_num from .* got None"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "type", "param"), bytes(20)), "expected data, event or spike as type"),
    (zmq_interface, frames(b"EVENT\0", DATA, bytes(20)), "expected the envelope DATA of type data"),
    (zmq_interface, frames(b"DATA\0", DATA, bytes(16)), "expected 20 bytes of 5 samples, got '16'"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "data_size", 16), bytes(20)), "expected data_size from 20 to 20, got 16"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "content.num_samples", 2**40), b""), "expected num_samples from 1"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "content.sample_num", -1), bytes(20)), "expected sample_num from 0"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "content.sample_num", 1000.0), bytes(20)), "expected sample_num from 0"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "content.sample_rate", 0), bytes(20)), "expected sample_rate from 1 Hz"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "content.sample_rate", "30000"), bytes(20)), "expected sample_rate from"),
    (zmq_interface, frames(b"DATA\0", changed(DATA, "content", []), bytes(20)), "expected a JSON object, got list"),
    (zmq_interface, frames(b"EVENT\0", EVENT), "expected 10 bytes of payload, got '0'"),
    (zmq_interface, frames(b"EVENT\0", EVENT, struct.pack("<BBQ", 2, 1, 0b011)), "line 3 to be 0, as in the word of all lines"),
    (zmq_interface, frames(b"EVENT\0", EVENT, struct.pack("<BBQ", 2, 2, 0b101)), "line 3 to be 1, as in the word"),
    (zmq_interface, frames(b"EVENT\0", SPIKE, bytes(639)), "expected 640 bytes of waveform, got '639'"),
    (zmq_interface, frames(b"EVENT\0", changed(SPIKE, "spike.electrode", 5), bytes(640)), "a text as electrode, got 5"),
    (zmq_interface, frames(b"EVENT\0", changed(SPIKE, "spike.sorted_id", -2), bytes(640)), "expected sorted_id from 0"),
    (
        zmq_interface,
        frames(b"EVENT\0", {**SPIKE, "content": SPIKE["spike"], "spike": None}, bytes(640)),
        "a JSON object, got None",
    ),
    (event_broadcaster, frames(TTL_JSON), "expected a type and a text of JSON, got 1 frames"),
    (event_broadcaster, frames(b"\1\0", TTL_JSON), "expected 0 and ttl, or 1 and spike"),
    (event_broadcaster, frames(b"\0\1", TTL_JSON), "expected 0 and ttl, or 1 and spike"),
    (event_broadcaster, frames(b"\0\0", changed(TTL_JSON, "state", 2)), "expected a state of 0 or 1, got 2"),
    (event_broadcaster, frames(b"\0\0", changed(TTL_JSON, "line", 256)), "expected line from 0 to 255, got 256"),
    (event_broadcaster, frames(b"\0\0", changed(TTL_JSON, "sample_number", 2**60)), "expected sample_number from 0"),
    (event_broadcaster, frames(b"\1\0", changed(SPIKE_JSON, "amp2", ...)), "expected the amplitudes of 2 channels, got 1"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_what_is_wrong_is_said_in_one_line(case: int) -> None:
    parse, sent, message = WRONG[case]
    with pytest.raises(MessageError, match=message) as caught:
        parse(sent)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-5, 5).map(lambda k: 2**31 + k) | st.floats() | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3), max_leaves=5
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes(sent: list[bytes]) -> None:
    for parse in (zmq_interface, event_broadcaster):
        with pytest.raises(MessageError):
            parse(sent)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(range(len(WHOLE))), st.data())
def test_any_value_in_any_field(case: int, data: st.DataObject) -> None:
    parse, sent, _ = WHOLE[case]
    message = json.loads(sent[1])
    paths = [*message, *(f"{outer}.{inner}" for outer in ("content", "spike") for inner in message.get(outer, ()))]
    value = data.draw(VALUES | st.just(...))
    text = json.dumps(changed(message, data.draw(st.sampled_from(paths)), value), default=str).encode()
    tried(parse, [sent[0], text, *sent[2:]])


def tried(parse: Callable[[list[bytes]], Any], sent: list[bytes]) -> bool:
    """Whether a message is read; then all of it is sane. Otherwise it is a MessageError, or this fails."""
    try:
        body = parse(sent).body
    except MessageError:
        return False
    if isinstance(body, Data):
        assert 0 <= body.start < body.end <= LAST_SAMPLE + 2**20 and 1 <= body.sample_rate <= 1e7
    elif body is not None:
        assert 0 <= body.sample <= LAST_SAMPLE and isinstance(body.stream, str)
    return True


def damaged(rng: np.random.Generator, sent: list[bytes]) -> list[bytes]:
    """A message with some bytes changed, cut out, doubled or put in, or with frames missing, empty, doubled or swapped."""
    sent = list(sent)
    for _ in range(rng.integers(1, 4)):
        i, kind = int(rng.integers(len(sent))) if sent else 0, rng.integers(10)
        part = bytearray(sent[i]) if sent else bytearray()
        a, b = sorted(rng.integers(len(part) + 1, size=2).tolist())
        match int(kind):
            case 0 | 1 | 2 | 3 if part:
                part[int(rng.integers(len(part)))] ^= 1 << int(rng.integers(8))
            case 4 if part:  # a digit for a digit: what a parser cannot see
                digits = [k for k, byte in enumerate(part) if 48 <= byte < 58] or [0]
                part[int(rng.choice(digits))] = 48 + int(rng.integers(10))
            case 5:
                del part[a:b]
            case 6:
                part[a:a] = part[a:b]
            case 7:
                part[a:a] = rng.bytes(int(rng.integers(8)))
            case 8 if sent:
                sent[i:i] = [sent[int(rng.integers(len(sent)))]]
            case 9 if sent:
                del sent[i]
                continue
        sent[i : i + 1] = [bytes(part)]
    return sent


def fuzz(count: int, seed: int = 0) -> tuple[int, int]:
    """Damaged messages through the parsers and the readers behind them: (how many were tried, how many could be read).

    Nothing but MessageError comes of a parser, nothing but RigError of a reader; what is read stays finite, and complete times
    never go back.
    """
    rng, readable = np.random.default_rng(seed), 0
    readers: dict[Any, Any] = {}
    complete: dict[Any, float] = {}
    for n in range(count):
        parse, sent, _ = WHOLE[n % len(WHOLE)]
        sent = damaged(rng, sent) if rng.random() < 0.9 else sent
        readable += tried(parse, sent)
        if parse not in readers:
            if parse is zmq_interface:
                readers[parse] = open_ephys.Reading("rig", ("Tetrode 1", "b"), stream="", line=3, settle_ms=10.0)
            else:
                readers[parse] = broadcaster.Reading("rig", ("E µ", "b"), stream="", line=3, buffer_ms=25.0)
            complete[parse] = -np.inf
        try:
            readers[parse].take(sent)
        except RigError:
            readers.pop(parse)  # as a session that ends, and another that begins
            continue
        if n % 50 < len(WHOLE):
            events = readers[parse].told()
            assert events.complete_s >= complete[parse] and not np.isposinf(events.complete_s)
            assert np.isfinite(events.spike_s).all() and np.isfinite(events.onset_s).all()
            assert all(not np.isnan(fault.start_s) and np.isfinite(fault.end_s) for fault in events.faults)
            complete[parse] = events.complete_s
    return count, readable


def test_damaged_messages() -> None:
    tried_, readable = fuzz(6000, seed=1)
    assert 0.1 * tried_ < readable < 0.7 * tried_  # both happen


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("Electrode 1", ("Electrode 1", None)),
        ("Electrode 1#2", ("Electrode 1", 2)),
        ("a#b", ("a#b", None)),
        ("a#1#0", ("a#1", 0)),
        ("#", ("#", None)),
        ("a#²", ("a#²", None)),
        ("a#999999", ("a#999999", None)),
    ],
)
def test_names_of_channels(channel: str, expected: tuple[str, int | None]) -> None:
    assert named(channel) == expected


def spike(electrode: str, unit: int, node: int = 101) -> Spike:
    return Spike("board", node, electrode, 1000, unit)


def test_which_channels_want_a_spike() -> None:
    electrodes = Electrodes("rig", ("a", "a#2", "c#7#2", "b#1"))
    asked = [("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c#7", 2), ("c", 7)]
    assert [electrodes.of(spike(*one)) for one in asked] == [[0], [0, 1], [], [3], [2], []]


def test_wrong_names_are_said() -> None:
    electrodes = Electrodes("rig", ("Electrode 1", "Electrode 2#1"))
    for n in range(STRANGERS - 1):
        assert electrodes.of(spike(f"tetrode {n % 2}", n % 3)) == []
    with pytest.raises(RigError, match="of Electrode 1, Electrode 2#1, got 200 of others: tetrode 0#0, tetrode 0#1"):
        electrodes.of(spike("tetrode 1", 0))


def test_electrodes_that_nobody_wants_are_fine_once_a_wanted_one_has_fired() -> None:
    electrodes = Electrodes("rig", ("Electrode 1",))
    electrodes.of(spike("Electrode 1", 0))
    assert not any(electrodes.of(spike("tetrode", 0)) for _ in range(2 * STRANGERS))
    with pytest.raises(RigError, match="expected one electrode 'Electrode 1', processors 101 and 105 both have one"):
        electrodes.of(spike("Electrode 1", 0, node=105))
