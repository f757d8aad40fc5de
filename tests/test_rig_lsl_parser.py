"""What samples and markers of Lab Streaming Layer say, in whatever pieces and however damaged they come."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import NO_NUMBER, Events, Fault, RigError
from neurogym_v.rigs.acquisitions.lsl_parser import ONSET, WATERMARK, WRAP, Parser, onset_of, read_markers

LABELS = ("A", "B", "C")
Row = tuple[int, int, int, float]
"""sequence, channel, unit, time stamp."""


def read(parser: Parser, rows: list[Row]) -> Events:
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return parser.read(table[:, :3].astype(np.int32), table[:, 3])


def started(sites: tuple[str, ...] = ("A", "C"), labels: tuple[str, ...] = LABELS) -> Parser:
    """One that has read samples 0 and 1, the second a watermark at 1 s."""
    parser = Parser(labels, sites)
    events = read(parser, [(0, 0, 0, 0.5), (1, WATERMARK, 0, 1.0)])
    assert [(fault.start_s, fault.end_s) for fault in events.faults] == [(-np.inf, 1.0)]  # who knows what was before
    return parser


def test_spikes_onsets_and_watermarks() -> None:
    rows = [(2, 2, 0, 1.5), (3, 1, 0, 1.1), (4, ONSET, 17, 1.2), (5, 0, 3, 1.0), (6, ONSET, -1, 1.7), (7, WATERMARK, 0, 2.0)]
    events = read(started(), [*rows, (8, 2, 0, 2.5)])
    np.testing.assert_array_equal(events.spike_s, [1.5, 1.0, 2.5])
    np.testing.assert_array_equal(events.channel, [1, 0, 1])  # of B nobody asked
    np.testing.assert_array_equal(events.onset_s, [1.2, 1.7])
    np.testing.assert_array_equal(events.number, [17, NO_NUMBER])
    assert (events.complete_s, events.faults) == (2.0, ())
    events = read(Parser(LABELS, ("A",), onsets=False), rows)  # they come from elsewhere
    assert len(events.spike_s) == 1 and not len(events.onset_s)


def test_sites_are_channels_or_units_of_them() -> None:
    rows = [(2, 0, 1, 1.1), (3, 0, 2, 1.2), (4, 1, 2, 1.3), (5, 2, 0, 1.4), (6, 2, 9, 1.5)]
    events = read(started(("A#2", "C", "B#2", "A#7"), LABELS), rows)
    np.testing.assert_array_equal(events.channel, [0, 2, 1, 1])
    np.testing.assert_array_equal(events.spike_s, [1.2, 1.3, 1.4, 1.5])
    events = read(started(("A#2",), ("A", "A#2")), [(2, 0, 2, 1.1), (3, 1, 0, 1.2)])  # a label comes first
    np.testing.assert_array_equal(events.spike_s, [1.2])


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (("A", "X"), "expected one channel 'X' in the stream, found none in: A, B, C$"),
        (("X#1",), "expected one channel 'X' in"),
        (("A#",), "expected one channel 'A#'"),
        (("A#99999999999",), "expected one channel 'A#9"),
        (("A", "A#1"), "expected a channel or units of it in channels, got both"),
        (("A#1", "A#01"), "each unit once in channels, got 'A#01' again"),
    ],
)
def test_sites_that_there_are_not(sites: tuple[str, ...], message: str) -> None:
    with pytest.raises(RigError, match=message):
        Parser(LABELS, sites)


def test_a_label_of_two_channels_is_no_site() -> None:
    with pytest.raises(RigError, match="expected one channel 'A' in the stream, found 2 in: A, B, A"):
        Parser(("A", "B", "A"), ("A",))


WRONG: dict[str, tuple[list[Row], str, float, list[float]]] = {
    "lost": ([(2, 0, 0, 1.1), (6, 0, 0, 1.5)], "samples 3 to 5 are missing", 1.0, [1.1, 1.5]),
    "lost between": ([(4, 0, 0, 1.5)], "samples 2 to 3 are missing", 1.0, [1.5]),
    "twice": ([(2, 0, 0, 1.1), (2, 0, 0, 1.1)], "sample 2 came after sample 2", 1.0, [1.1]),
    "reordered": ([(3, 0, 0, 1.2), (2, 0, 0, 1.1)], "sample 2 is missing", 1.0, [1.2, 1.1]),
    "negative": ([(-5, 0, 0, 1.2)], "sample -5 came after sample 1", 1.0, [1.2]),
    "late": ([(2, 0, 0, 0.7), (3, 0, 0, 1.1)], "sample 2 came after the watermark of a later time", 0.7, [0.7, 1.1]),
    "twice and late": ([(0, 0, 0, 0.5), (1, 0, 0, 0.6)], "sample 0 came after sample 1", 0.5, []),
    "watermark back": ([(2, WATERMARK, 0, 0.8)], "sample 2 came after the watermark of a later time", 0.8, []),
    "no time": ([(2, 0, 0, float("nan")), (3, 0, 0, 1.1)], "sample 2 has the time stamp nan", 1.0, [1.1]),
    "endless": ([(2, WATERMARK, 0, float("inf"))], "sample 2 has the time stamp inf", 1.0, []),
    "channel": ([(2, 3, 0, 1.1)], "sample 2 is of channel 3, unit 0, which there is not", 1.0, []),
    "no channel": ([(2, -3, 0, 1.1)], "sample 2 is of channel -3", 1.0, []),
    "unit": ([(2, 0, -1, 1.1)], "sample 2 is of channel 0, unit -1", 1.0, []),
    "number": ([(2, ONSET, -2, 1.1)], "sample 2 is of channel -2, unit -2", 1.0, []),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_wrong_is_a_fault_from_watermark_to_watermark(case: str, apart: bool) -> None:
    rows, what, since, spikes = WRONG[case]
    after = rows[-1][0] + 1 if rows[-1][0] > 0 else 7
    rows = [*rows, (after, 0, 0, 1.9), (after + 1, WATERMARK, 0, 2.0), (after + 2, WATERMARK, 0, 3.0)]
    parser = started()
    given = [read(parser, [row]) for row in rows] if apart else [read(parser, rows)]
    (fault,) = [fault for events in given for fault in events.faults]
    assert (fault.start_s, fault.end_s) == (since, 2.0) and fault.what.startswith(what)
    assert [s for events in given for s in events.spike_s] == [*spikes, 1.9]
    assert given[-1].complete_s == 3.0


def test_what_comes_again_after_an_old_watermark_comes_again() -> None:
    rows = [(2, 0, 0, 1.5), (3, WATERMARK, 0, 2.0)]
    np.testing.assert_array_equal(read(started(), [*rows, (1, WATERMARK, 0, 1.0), *rows]).spike_s, [1.5])


def test_what_is_late_is_told_of_after_the_sequence_began_anew_too() -> None:
    parser = started()
    events = read(parser, [(0, 0, 0, 1.5), (1, WATERMARK, 0, 2.0), (2, 0, 0, 1.7), (3, WATERMARK, 0, 3.0)])
    np.testing.assert_array_equal(events.spike_s, [1.5, 1.7])
    assert [(fault.start_s, fault.end_s) for fault in events.faults] == [(1.0, 2.0), (1.7, 3.0)]


def test_sequence_numbers_wrap() -> None:
    parser = Parser(LABELS, ("A",))
    read(parser, [(WRAP - 2, WATERMARK, 0, 1.0)])
    assert read(parser, [(WRAP - 1, 0, 0, 1.1), (0, 0, 0, 1.2), (1, WATERMARK, 0, 2.0)]).faults == ()
    (fault,) = read(parser, [(WRAP - 3, WATERMARK, 0, 3.0)]).faults
    assert fault.what == f"sample {WRAP - 3} came after sample 1"


def stream(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A stream in which samples were dropped, repeated, swapped and changed."""
    channel = rng.choice([WATERMARK, WATERMARK, ONSET, 0, 1, 2, 5], n)
    samples = np.column_stack([np.arange(n), channel, rng.integers(0, 3, n)]).astype(np.int32)
    stamps = np.sort(rng.uniform(0, 10, n))
    order = np.sort(rng.choice(n, n, replace=True)) if rng.random() < 0.3 else np.arange(n)
    i, j = rng.integers(0, n, 2)
    order[[i, j]] = order[[j, i]]
    samples[rng.integers(0, n), rng.integers(0, 3)] = rng.integers(-5, 100)
    stamps[rng.integers(0, n)] = rng.choice([np.nan, 3.0, -np.inf])
    return samples[order], stamps[order]


@pytest.mark.parametrize("seed", range(40))
def test_samples_mean_the_same_in_whatever_pieces_they_come(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, stamps = stream(rng, 60)
    cuts = np.unique(rng.integers(1, 60, 12))
    whole, pieces = Parser(LABELS, ("A", "B#1")), Parser(LABELS, ("A", "B#1"))
    expected = whole.read(samples, stamps)
    given = [pieces.read(s, t) for s, t in zip(np.split(samples, cuts), np.split(stamps, cuts), strict=True)]
    for name in ("spike_s", "channel", "onset_s", "number"):
        np.testing.assert_array_equal(np.concatenate([getattr(e, name) for e in given]), getattr(expected, name))
    assert tuple(fault for e in given for fault in e.faults) == expected.faults
    assert given[-1].complete_s == expected.complete_s


Chunks = list[tuple[np.ndarray, np.ndarray]]


def any_chunks(seed: int) -> Chunks:
    """Samples and time stamps of every kind, of which about half could be right."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 40))
    samples = rng.integers(-3, 9, (n, 3)).astype(np.int64)
    samples[:, 0] = (rng.choice([0, 5, WRAP - 9]) + np.arange(n)) % WRAP
    stamps = np.cumsum(rng.uniform(-0.1, 1, n))
    odd = rng.random((n, 3)) < rng.choice([0, 0.02, 0.3])
    samples[odd] = rng.choice([*range(-4, 12), WRAP - 1, -WRAP], odd.sum())
    strange = rng.random(n) < rng.choice([0, 0.02, 0.3])
    stamps[strange] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e308, -1e308, 3.0], strange.sum())
    cuts = np.sort(rng.integers(0, n + 1, rng.integers(0, 5)))
    return list(zip(np.split(samples.astype(np.int32), cuts), np.split(stamps, cuts), strict=True))


def check_any_chunks(chunks: Chunks) -> None:
    """No chunk whatever breaks the parser, or a promise of it."""
    parser, complete_s = Parser(LABELS, ("A", "B#1", "B#2")), -np.inf
    faults, late = list[Fault](), list[float]()
    for samples, stamps in [*chunks, (np.array([[0, WATERMARK, 0]], dtype=np.int32), np.array([1.7e308]))]:
        events = parser.read(samples, stamps)
        assert np.isfinite(events.spike_s).all() and np.isfinite(events.onset_s).all()
        late += [s for s in (*events.spike_s, *events.onset_s) if s < complete_s]
        faults += events.faults
        assert complete_s <= events.complete_s < np.inf
        assert ((events.channel >= 0) & (events.channel < 3)).all() and (events.number >= NO_NUMBER).all()
        assert all(fault.start_s <= fault.end_s <= events.complete_s for fault in events.faults)
        complete_s = events.complete_s
    assert all(any(fault.start_s <= s <= fault.end_s for fault in faults) for s in late)


def test_any_samples_are_read() -> None:
    for seed in range(1500):
        check_any_chunks(any_chunks(seed))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b'{"event": "onset", "number": 17}', 17),
        (b'{"number": 0, "event": "onset", "image": "x.png"}', 0),
        (b'{"event": "onset"}', NO_NUMBER),
        (b'{"event": "reward", "number": "none"}', None),
    ],
)
def test_markers(text: bytes, number: int | None) -> None:
    assert onset_of(text) == number


BAD = (
    b"", b"onset", b"17", b"[17]", b"{}", b'{"event": 3}', b"\xff\xfe\x00", b"[" * 100_000,
    b'{"event": "onset", "number": 1.0}',
    b'{"event": "onset", "number": true}', b'{"event": "onset", "number": -2}', b'{"event": "onset", "number": 99999999999}',
    b'{"event": "onset", "number": NaN}', b'{"event": "onset", "number": null}', b'{"event": "onset", "number": ' + b"9" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_markers_that_are_none_are_faults_at_their_time(text: bytes) -> None:
    good = b'{"event": "onset", "number": 4}'
    at, number, (fault,) = read_markers([good, text, good], np.array([1.0, 2.0, 3.0]), 0.5)
    assert (at.tolist(), number.tolist()) == ([1.0, 3.0], [4, 4])
    assert (fault.start_s, fault.end_s) == (2.0, 2.0) and fault.what.startswith("a marker")


def test_a_marker_that_comes_too_late_is_a_fault() -> None:
    at, number, (fault,) = read_markers([b'{"event": "onset", "number": 4}'], np.array([1.0]), 1.5)
    assert not len(at) and not len(number)
    assert (fault.start_s, fault.end_s) == (1.0, 1.5) and "onset 4 came too late; a larger settle_ms" in fault.what
    with pytest.raises(RigError, match="got one that is not finite"):
        read_markers([b"{}"], np.array([np.nan]), 0.0)


def check_any_marker(text: bytes) -> None:
    """No bytes whatever break the parser."""
    try:
        number = onset_of(text)
    except RigError:
        return
    assert number is None or NO_NUMBER <= number < WRAP


some_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["onset", "event", "number"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["event", "number", "x"]), inner, max_size=3),
    max_leaves=5,
)
some_markers = st.binary(max_size=40) | some_json.map(lambda value: json.dumps(value).encode())


@given(text=some_markers)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_marker_is_read(text: bytes) -> None:
    check_any_marker(text)
