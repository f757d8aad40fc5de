"""The parsers of Intan RHX's streams: the recorded bytes, any cutting, every single wrong byte, and bytes that mean nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import RigError
from neurogym_v.rigs.acquisitions.intan_stream import (
    ARTEFACT,
    FRAMES,
    RUBBISH,
    Skip,
    SpikeParser,
    StreamError,
    WaveformParser,
)
from neurogym_v.rigs.acquisitions.threshold import ThresholdCrossings
from neurogym_v.rigs.virtual.intan import SHAPE_UV

RECORDINGS = Path(os.environ.get("NEUROGYM_V_RECORDINGS", Path(__file__).parents[2] / "shared" / "recordings"))
CAPTURE = RECORDINGS / "intan_rhx"
recorded = pytest.mark.skipif(not CAPTURE.is_dir(), reason="recordings absent: set NEUROGYM_V_RECORDINGS")
NAMES = tuple(f"A-{i:03d}" for i in range(8))


def record(name: str, time: int, spike_id: int = 1) -> bytes:
    return struct.pack("<I5sIB", 0x3AE2710F, name.encode(), time, spike_id)


def block(first: int, channels: int = 0, level: int = 0) -> bytes:
    frames = (struct.pack(f"<I{channels + 1}H", first + i, *(range(100, 100 + channels)), level) for i in range(FRAMES))
    return struct.pack("<I", 0x2EF07A08) + b"".join(frames)


def read(parser: SpikeParser | WaveformParser, parts: Sequence[bytes]) -> tuple[list[object], bool]:
    """All that a parser tells of a stream that comes in parts, flat, and whether it gave up; its memory stays bounded."""
    times, values, skips = list[int](), list[object](), list[Skip]()
    try:
        for part in parts:
            found = parser.feed(part)
            times += found.time.tolist()
            values += found.channel.tolist() if isinstance(parser, SpikeParser) else found.digital.tolist()  # type: ignore[union-attr]
            skips += found.skips
            assert len(parser._rest) < parser._size
    except StreamError as error:
        assert "\n" not in str(error)
        return [], True
    return [times, values, skips, parser.pending, parser.last], False


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    places = sorted({p % (len(data) + 1) for p in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@recorded
def test_the_recorded_spikes() -> None:
    parser = SpikeParser(NAMES)
    spikes = parser.feed((CAPTURE / "spikes.bin").read_bytes())
    assert len(spikes.time) == 988 and not spikes.skips and not parser.pending
    assert (spikes.time[0], spikes.time[-1]) == (1011, 407462)
    assert np.bincount(spikes.channel).tolist() == [20, 46, 52, 197, 139, 16, 9, 509]
    same = np.flatnonzero(np.diff(spikes.time) == 0)
    assert len(same) == 2 and (spikes.channel[same] < spikes.channel[same + 1]).all()


@recorded
def test_the_recorded_waveforms() -> None:
    parser = WaveformParser(2)
    frames = parser.feed((CAPTURE / "waveform.bin").read_bytes())
    assert len(frames.time) == 312 * FRAMES and not frames.skips and not parser.pending
    np.testing.assert_array_equal(frames.time, np.arange(1000, 40936))
    uv = 0.195 * (frames.sample.astype(float) - 32768)
    np.testing.assert_allclose(uv.min(0), [-240.6, -397.2], atol=0.05)
    np.testing.assert_allclose(uv.max(0), [194.6, 194.2], atol=0.05)
    assert np.bincount(frames.digital).tolist() == [19934, 20002]
    assert frames.time[1:][np.diff(frames.digital.astype(int)) != 0].tolist() == [10000, 20001, 30001, 40002]


@recorded
@pytest.mark.parametrize("size", [1, 13, 1283, 4096])
def test_the_recorded_streams_in_pieces(size: int) -> None:
    for name, make in (("spikes.bin", lambda: SpikeParser(NAMES)), ("waveform.bin", lambda: WaveformParser(2))):
        data = (CAPTURE / name).read_bytes()[: 40_000 if size == 1 else None]
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        assert read(make(), pieces) == read(make(), [data])


@recorded
def test_the_recorded_spikes_are_found_in_the_recorded_waveforms() -> None:
    """The program thresholds its own Bessel band at -40 uV; all its ten spikes are large ones."""
    told = SpikeParser(NAMES[:2]).feed(
        b"".join(r for r in _records((CAPTURE / "spikes.bin").read_bytes()) if r[4:9] in (b"A-000", b"A-001"))
    )
    frames = WaveformParser(2).feed((CAPTURE / "waveform.bin").read_bytes())
    row, channel = ThresholdCrossings(2, 20_000, threshold_uv=-100).feed(0.195 * (frames.sample.astype(float) - 32768))
    here = told.time <= frames.time[-1]
    assert here.sum() == 10
    for time, unit in zip(told.time[here], told.channel[here], strict=True):
        assert np.abs(frames.time[row[channel == unit]] - time).min() <= 20
    assert 10 <= len(row) <= 14


def _records(data: bytes) -> list[bytes]:
    return [data[i : i + 14] for i in range(0, len(data), 14)]


PIECES = st.one_of(  # of a spike stream, good ones most of the time
    st.builds(record, st.sampled_from(NAMES), st.integers(0, 60)),
    st.builds(record, st.sampled_from(("A-000", "A-001", "B-000")), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 128])),
    st.builds(lambda r, n: r[:n], st.builds(record, st.sampled_from(NAMES), st.integers(0, 60)), st.integers(0, 14)),
    st.binary(max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 10_000), max_size=8))
def test_spikes_do_not_depend_on_how_the_stream_is_cut(pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)
    assert read(SpikeParser(NAMES), cut(data, places)) == read(SpikeParser(NAMES), [data])


BLOCKS = st.one_of(
    st.builds(lambda i: block(i * FRAMES, level=i), st.integers(0, 5)),
    st.builds(lambda i, n: block(i * FRAMES)[:n], st.integers(0, 5), st.integers(0, 772)),
    st.binary(max_size=40),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(BLOCKS, max_size=10), st.lists(st.integers(0, 10_000), max_size=8))
def test_waveforms_do_not_depend_on_how_the_stream_is_cut(pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)
    assert read(WaveformParser(0), cut(data, places)) == read(WaveformParser(0), [data])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(NAMES)), unique=True, max_size=40), st.randoms())
def test_what_is_written_is_read(spikes: list[tuple[int, str]], random: object) -> None:
    spikes.sort()
    names = sorted(NAMES, key=lambda _: random.random())  # type: ignore[attr-defined]
    found = SpikeParser(names).feed(b"".join(record(name, time) for time, name in spikes))
    assert [(t, names[c]) for t, c in zip(found.time, found.channel, strict=True)] == spikes and not found.skips


def test_half_a_record_costs_no_other() -> None:
    parser = SpikeParser(NAMES)
    found = parser.feed(record("A-001", 5) + record("A-002", 7)[:7] + record("A-003", 9) + record("A-003", 12))
    assert found.time.tolist() == [5, 9, 12] and found.channel.tolist() == [1, 3, 3]
    (skip,) = found.skips
    assert (skip.after, skip.before, skip.size) == (5, 9, 7)


@pytest.mark.parametrize("at", range(14))
def test_a_wrong_byte_is_recognised_or_one_of_those_that_cannot_be(at: int) -> None:
    """The times are far apart, as spikes are: a changed high byte leaves the order or the waveform's time."""
    good = [record("A-001", 100_000), record("A-002", 100_700), record("A-003", 101_000)]
    for change in range(1, 256):
        bad = bytearray(good[1])
        bad[at] ^= change
        found = SpikeParser(NAMES).feed(good[0] + bytes(bad) + good[2], latest=101_100)
        told = list(zip(found.time.tolist(), found.channel.tolist(), strict=True))
        truth = [(100_000, 1), (100_700, 2), (101_000, 3)]
        if told == truth and not found.skips:
            assert at == 13 and bad[13] in (2, 4, 8, 64)  # another unit: a spike all the same
            continue
        covered = any((s.after or 0) <= 100_700 <= (s.before or 10**9) for s in found.skips)
        moved = not found.skips and told[0] == truth[0] and told[2] == truth[2]
        assert covered or (moved and ((at == 8 and told[1][1] != 2) or (at in (9, 10) and 100_000 <= told[1][0] <= 101_000)))
        if at < 8 or at in (11, 12):
            assert covered and set(told) < set(truth)


def test_a_spike_that_comes_twice_is_one() -> None:
    a, b, c = record("A-001", 5), record("A-002", 5), record("A-002", 6)
    parts = [a + a, b + a, a, b, c, c]
    for pieces in (parts, [b"".join(parts)]):
        parser = SpikeParser(NAMES)
        found = [parser.feed(piece) for piece in pieces]
        assert np.concatenate([f.time for f in found]).tolist() == [5, 5, 6]
        assert np.concatenate([f.channel for f in found]).tolist() == [1, 2, 2]
        assert not any(f.skips for f in found) and parser.sure == 5


def test_of_timestamps_that_contradict_each_other_neither_is_believed() -> None:
    parser = SpikeParser(NAMES)
    found = parser.feed(b"".join(record("A-001", t) for t in (10, 20, 50, 30, 40, 60, 70)))
    assert found.time.tolist() == [10, 20, 50, 60, 70]
    assert [(s.after, s.before) for s in found.skips] == [(20, 60)]  # the 50 in it may be what is wrong
    assert (parser.sure, parser.last) == (60, 70)


def test_a_timestamp_beyond_the_waveform_is_skipped() -> None:
    found = SpikeParser(NAMES).feed(b"".join(record("A-001", t) for t in (10, 5000, 30)), latest=1000)
    assert found.time.tolist() == [10, 30] and [(s.after, s.before) for s in found.skips] == [(10, 30)]


def test_an_artefact_is_no_spike_and_is_told() -> None:
    found = SpikeParser(NAMES).feed(record("A-001", 10) + record("A-004", 20, ARTEFACT) + record("A-001", 30))
    assert found.time.tolist() == [10, 30] and [(s.after, s.before) for s in found.skips] == [(19, 21)]
    assert "A-004" in found.skips[0].what


def test_timestamps_that_begin_anew_are_an_error() -> None:
    parser = SpikeParser(NAMES)
    parser.feed(record("A-001", 10_000))
    with pytest.raises(StreamError, match="spike timestamp .* after 10000.*started anew"):
        parser.feed(b"".join(record("A-001", t) for t in range(20)))
    waveforms = WaveformParser(0)
    waveforms.feed(block(5000))
    with pytest.raises(StreamError, match="started anew"):
        waveforms.feed(b"".join(block(i * FRAMES) for i in range(20)))


def test_what_follows_nothing_can_be_given_up() -> None:
    parser = SpikeParser(NAMES)
    assert parser.give_up() is None
    parser.feed(record("A-001", 5) + record("A-002", 7)[:7])
    assert parser.pending
    skip = parser.give_up()
    assert skip is not None and (skip.after, skip.before, skip.size) == (5, None, 7) and not parser.pending
    found = parser.feed(record("A-003", 9))
    assert found.time.tolist() == [9] and not found.skips


def test_missing_blocks_are_told_with_both_times() -> None:
    found = WaveformParser(1).feed(block(0, 1) + block(3 * FRAMES, 1) + block(4 * FRAMES, 1))
    assert found.time[FRAMES] == 384 and len(found.time) == 3 * FRAMES
    assert [(s.after, s.before, s.size) for s in found.skips] == [(127, 384, 0)]
    assert "128 to 383" in found.skips[0].what


@pytest.mark.parametrize("pieces", [[0, 1, 1, 2], [0, 2, 1, 3]])
def test_blocks_that_go_back_are_skipped(pieces: list[int]) -> None:
    found = WaveformParser(0).feed(b"".join(block(i * FRAMES) for i in pieces))
    assert (np.diff(found.time) > 0).all() and found.time[-1] == FRAMES * (pieces[-1] + 1) - 1
    missing = np.setdiff1d(np.arange(found.time[-1]), found.time)
    covered = [np.arange(s.after or 0, s.before or 0) for s in found.skips]
    assert found.skips and np.isin(missing, np.concatenate(covered)).all()


def test_any_wrong_byte_of_a_timestamp_or_the_magic_number_costs_its_block_only() -> None:
    good = [block(i * FRAMES, 1, level=i) for i in range(4)]
    for at in [*range(4), *(4 + 8 * frame + byte for frame in (0, 1, 64, 127) for byte in range(4))]:
        bad = bytearray(good[1])
        bad[at] ^= 0x41
        found = WaveformParser(1).feed(good[0] + bytes(bad) + good[2] + good[3])
        assert found.time.tolist() == [*range(FRAMES), *range(2 * FRAMES, 4 * FRAMES)]
        assert [(s.after, s.before, s.size) for s in found.skips] == [(127, 256, len(bad))]


def test_half_a_block_costs_no_other() -> None:
    found = WaveformParser(0).feed(block(0) + block(128)[:386] + block(256) + block(384))
    assert found.time.tolist() == [*range(128), *range(256, 512)]
    assert [(s.after, s.before, s.size) for s in found.skips] == [(127, 256, 386)]


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0), (2, 3), (3, 2), (1, 40)])
def test_an_output_that_is_switched_in_mid_stream_is_an_error(before: int, after: int) -> None:
    parser = WaveformParser(before)
    parser.feed(block(0, before) + block(128, before))
    size = f"expected frames of {6 + 2 * before} bytes .*got {6 + 2 * after} bytes from timestamp 256"
    with pytest.raises(StreamError, match=size):
        parser.feed(block(256, after) * 30)


def test_rubbish_without_end_is_an_error() -> None:
    rng = np.random.default_rng(0)
    for parser in (SpikeParser(NAMES), WaveformParser(0)):
        with pytest.raises(StreamError, match="cannot be read"):
            parser.feed(rng.bytes((RUBBISH + 2) * parser._size))
    assert issubclass(StreamError, RigError)


def test_nothing_but_the_own_error_comes_of_any_bytes() -> None:
    """A longer run of this is in the benchmarks; mutations of good streams reach deeper than random bytes."""
    rng = np.random.default_rng(1)
    spikes = b"".join(record(NAMES[i % 8], 7 * i) for i in range(12))
    blocks = b"".join(block(i * FRAMES, 1) for i in range(3))
    gave_up = 0
    for example in range(2000):
        make, data = (lambda: SpikeParser(NAMES), spikes) if example % 4 else (lambda: WaveformParser(1), blocks)
        if example % 3 == 0:
            data = rng.bytes(int(rng.integers(300)))
        else:
            changed = np.frombuffer(data, np.uint8).copy()
            changed[rng.integers(len(data), size=rng.integers(1, 6))] = rng.integers(256)
            at, to = rng.integers(len(data), size=2)
            data = np.delete(changed, np.arange(min(at, to), min(at, to) + rng.integers(30)) % len(data)).tobytes()
        _, error = read(make(), cut(data, rng.integers(1 << 16, size=3).tolist()))
        gave_up += error
    assert 0 < gave_up < 1000


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3000), max_size=10), st.integers(1, 3))
def test_crossings_do_not_depend_on_how_the_stream_is_cut(seed: int, places: list[int], channels: int) -> None:
    uv = np.random.default_rng(seed).normal(0, 40, (3000, channels))
    row, channel = ThresholdCrossings(channels, 20_000).feed(uv)
    assert len(row) > 20
    parts, at, found = ThresholdCrossings(channels, 20_000), 0, []
    for end in [*sorted(places), 3000]:
        rows, units = parts.feed(uv[at:end])
        found += [(at + r, u) for r, u in zip(rows.tolist(), units.tolist(), strict=True)]
        at = end
    assert found == list(zip(row.tolist(), channel.tolist(), strict=True))


def test_what_stays_below_the_threshold_is_one_spike_however_the_stream_is_cut() -> None:
    uv = (
        500 * np.sin(2 * np.pi * 300 / 20_000 * np.arange(2000))[:, None]
    )  # below for 1.5 ms, longer than the refractory period
    row, _ = ThresholdCrossings(1, 20_000).feed(uv)
    parts = ThresholdCrossings(1, 20_000)
    found = [at + r for at in range(0, 2000, 7) for r in parts.feed(uv[at : at + 7])[0].tolist()]
    assert found == row.tolist() and len(row) == 30


def test_crossings_are_those_of_the_definition() -> None:
    """Written out sample by sample, from the filter on."""
    from scipy import signal

    uv = np.random.default_rng(3).normal(0, 40, (20_000, 2))
    row, channel = ThresholdCrossings(2, 20_000, threshold_uv=(-60.0, -90.0)).feed(uv)
    sos = signal.butter(2, 250, "highpass", fs=20_000, output="sos")
    for unit, threshold in enumerate((-60.0, -90.0)):
        filtered = signal.sosfilt(sos, uv[:, unit] - uv[0, unit])
        expected, last, before = [], -100, 0.0
        for i, value in enumerate(filtered):
            if value < threshold <= before and i - last >= 20:
                expected.append(i)
                last = i
            before = value
        assert row[channel == unit].tolist() == expected and len(expected) > 50
    assert (np.diff(row) >= 0).all()


@pytest.mark.parametrize("rate", [20_000, 25_000, 30_000])
def test_the_virtual_spike_crosses_at_its_first_sample(rate: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.cumsum(rng.integers(int(0.0015 * rate), 400, 500))
    uv = rng.normal(0, 5, (truth[-1] + 100, 1))
    for at in truth:
        uv[at : at + len(SHAPE_UV), 0] += SHAPE_UV
    row, _ = ThresholdCrossings(1, rate).feed(uv)
    np.testing.assert_array_equal(row, truth)
    assert SHAPE_UV.min() < -200 and SHAPE_UV.sum() == 0


def test_a_gap_is_forgotten() -> None:
    parser = ThresholdCrossings(1, 20_000)
    parser.feed(np.zeros((100, 1)))
    parser.reset()
    assert not len(parser.feed(np.full((100, 1), -900.0))[0])  # an offset is no spike


@pytest.mark.parametrize("wrong", [{"threshold_uv": 5.0}, {"cutoff_hz": 15_000.0}, {"threshold_uv": float("nan")}])
def test_thresholds_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(RigError, match="expected"):
        ThresholdCrossings(1, 20_000, **wrong)
