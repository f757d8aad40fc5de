"""The two binary streams of Intan RHX's TCP output as arrays: spike records and waveform blocks, from bytes cut anywhere.

Little endian, no header, no checksum (RHX 3.4.0: recorded bytes, and Engine/Threads/tcpdataoutputthread.cpp of its source):

    spike record     u32 0x3AE2710F | 5-byte channel name, such as A-003 | u32 timestamp in samples | u8 spike id
    waveform block   u32 0x2EF07A08 | 128 frames of: u32 timestamp | u16 a channel | u16 digital-in word

What is recognised as wrong is skipped and told as a `Skip`: a magic number that is not where it must be, a channel that was
not asked for, a spike id that does not exist, timestamps that go back, are missing or are ahead of what can be, and a frame
size that changes. What cannot be recognised, for want of a checksum: a spike record that is missing as a whole; a changed
timestamp that still lies between its neighbours' (a spike that moved), a channel name that became another of those asked for,
a spike id that became another valid one, and a changed sample or digital-in word. Timestamps are 32 bits: a run ends at 2**32
samples, which is 59 h at 20 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import RigError

FRAMES = 128
"""Of a waveform block."""
SPIKE_MAGIC = (0x3AE2710F).to_bytes(4, "little")
WAVEFORM_MAGIC = (0x2EF07A08).to_bytes(4, "little")
SPIKE = np.dtype([("magic", "<u4"), ("name", "S5"), ("time", "<u4"), ("id", "u1")])
ARTEFACT = 0x80
"""The spike id of what the program takes for an artefact: its voltage was too large."""
IDS = np.array([1, 2, 4, 8, 0x40, ARTEFACT], dtype=np.uint8)
"""Threshold crossing or unit 1, units 2 to 4, crossing without a unit, artefact."""
RUBBISH = 8
"""Records or blocks that may be unreadable in a row."""


class StreamError(RigError):
    """A stream that cannot be read on."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A stretch of a stream that could not be read, or is not there."""

    after: int | None
    """Timestamp, in samples, of the last that is good; None: there was none yet."""
    before: int | None
    """Of the first that is good again; None: not known, the stream has not gone on."""
    size: int
    """Bytes that were skipped."""
    what: str


@dataclass(frozen=True, slots=True)
class Spikes:
    """Timestamps never decrease, also from one to the next."""

    time: NDArray[np.int64]
    """(n,) samples."""
    channel: NDArray[np.intp]
    """(n,) index into the parser's channels."""
    skips: tuple[Skip, ...]


@dataclass(frozen=True, slots=True)
class Waveform:
    """Timestamps increase, by one from frame to frame where no skip says otherwise."""

    time: NDArray[np.int64]
    """(n,) samples."""
    sample: NDArray[np.uint16]
    """(n, channels); microvolts = 0.195 * (sample - 32768)."""
    digital: NDArray[np.uint16]
    """(n,) the word of all digital inputs."""
    skips: tuple[Skip, ...]


class _Records:
    """Cuts a stream into records of one size that begin with a magic number, and finds the next where that is not so."""

    def __init__(self, what: str, magic: bytes, dtype: np.dtype[np.void]) -> None:
        self.what, self._magic, self._dtype, self._size = what, magic, dtype, dtype.itemsize
        self.last: int | None = None
        """Timestamp of the last that is good."""
        self._rest = b""
        self._skipped, self._why, self._after = 0, "", None  # type: tuple[int, str, int | None]
        self._skips: list[Skip] = []

    @property
    def pending(self) -> bool:
        """Whether something came that is not told yet: a part of a record, or what could not be read."""
        return bool(self._rest or self._why)

    def give_up(self) -> Skip | None:
        """Drop the part of a record that is left, as nothing follows; what was skipped, or None."""
        if not self.pending:
            return None
        skip = Skip(
            self._after if self._why else self.last, None, self._skipped + len(self._rest), self._why or f"half a {self.what}"
        )
        self._rest, self._why, self._skipped = b"", "", 0
        return skip

    def _feed(self, data: bytes) -> None:
        buffer = self._rest + data
        at, size = 0, self._size
        while (count := (len(buffer) - at) // size) > 0:
            records = np.frombuffer(buffer, self._dtype, count, at)
            good = self._good(records)
            whole = count if good.all() else int(good.argmin())
            if whole:
                self._take(records[:whole])
                at += whole * size
            if whole < count:
                self._examine(buffer[at : at + size])
                begin, at = at, buffer.find(self._magic, at + 1)
                if at < 0:  # it may have begun at the very end
                    at = len(buffer) - next(n for n in (3, 2, 1, 0) if buffer.endswith(self._magic[:n]))
                self._skip(at - begin, f"bytes that are no {self.what}", self.last)
        self._rest = buffer[at:]

    def _skip(self, size: int, why: str, after: int | None) -> None:
        """`after`: the last good timestamp before; the stretch is told when there is a good one again."""
        if not self._why:
            self._why, self._after = why, after
        elif self._after is not None:
            self._after = None if after is None else min(self._after, after)
        self._skipped += size
        if self._skipped > RUBBISH * self._size:
            raise StreamError(
                f"intan: expected {self.what}s of {self._size} bytes, got {self._skipped} bytes in a row that cannot be read"
                f" ({self._why}) after timestamp {self._after}; was the run started anew, or an output of RHX changed?"
            )

    def _resume(self, time: int) -> None:
        """The record with this timestamp is good."""
        if self._why:
            self._skips.append(Skip(self._after, time, self._skipped, self._why))
            self._skipped, self._why = 0, ""

    def _told(self) -> tuple[Skip, ...]:
        skips, self._skips = tuple(self._skips), []
        return skips

    def _good(self, records: NDArray[np.void]) -> NDArray[np.bool_]:
        raise NotImplementedError

    def _examine(self, record: bytes) -> None:
        """Raise StreamError where a bad record shows that no other will be good."""

    def _take(self, records: NDArray[np.void]) -> None:
        raise NotImplementedError


class SpikeParser(_Records):
    """The spike stream.

    Args:
        channels: native names, five letters each; a record of any other is skipped.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        super().__init__("spike record", SPIKE_MAGIC, SPIKE)
        self.channels = tuple(channels)
        self.sure: int | None = None
        """Timestamp of the last but one that is good: nothing before it will follow. The last may be wrong itself."""
        names = np.array([name.encode("ascii", "replace") for name in self.channels])
        self._order = np.argsort(names).astype(np.intp)
        self._names = names[self._order]
        self._here: frozenset[int] = frozenset()  # channels that had a spike at `last`
        self._latest: int | None = None
        self._out: list[tuple[NDArray[np.int64], NDArray[np.intp]]] = []

    def feed(self, data: bytes, latest: int | None = None) -> Spikes:
        """Spikes of the records that are whole by now; a spike that comes twice is one.

        Args:
            latest: the largest timestamp that can be, from the waveform's; records beyond are skipped.

        Raises:
            StreamError: too many records in a row cannot be read, or timestamps go back for good.
        """
        self._latest, self._out = latest, []
        self._feed(data)
        time, channel = zip(*self._out, strict=True) if self._out else ((), ())
        return Spikes(
            np.concatenate([np.empty(0, np.int64), *time]), np.concatenate([np.empty(0, np.intp), *channel]), self._told()
        )

    def _place(self, records: NDArray[np.void]) -> NDArray[np.intp]:
        return np.searchsorted(self._names, records["name"]).clip(max=len(self._names) - 1)

    def _good(self, records: NDArray[np.void]) -> NDArray[np.bool_]:
        known = self._names[self._place(records)] == records["name"]
        good: NDArray[np.bool_] = (records["magic"] == int.from_bytes(SPIKE_MAGIC, "little")) & known
        return good & np.isin(records["id"], IDS)

    def _take(self, records: NDArray[np.void]) -> None:
        time = records["time"].astype(np.int64)
        far = np.zeros(len(time), bool) if self._latest is None else time > self._latest
        start = -1 if self.last is None else self.last
        top = np.maximum.accumulate(np.concatenate([[start], np.where(far, -1, time)]))
        good = ~far & (time >= top[:-1])
        if good.all():
            self._accept(time, records)
            return
        for part in np.split(np.arange(len(time)), np.flatnonzero(np.diff(good)) + 1):
            if good[part[0]]:
                self._accept(time[part], records[part])
                continue
            for i in part:  # which of two that contradict each other is wrong cannot be known
                back = f"spike timestamp {time[i]} after {top[i]}"
                ahead = f"spike timestamp {time[i]}, when the waveform was at most at {self._latest}"
                self._skip(self._size, ahead if far[i] else back, self.last if far[i] else self.sure)

    def _accept(self, time: NDArray[np.int64], records: NDArray[np.void]) -> None:
        self._resume(int(time[0]))
        channel = self._order[self._place(records)]
        artefact = records["id"] == ARTEFACT
        if time[0] == self.last or not np.diff(time).all():
            key = time * len(self.channels) + channel
            before = [(self.last or 0) * len(self.channels) + c for c in self._here]
            _, first = np.unique(np.concatenate([np.array(before, np.int64), key]), return_index=True)
            once = np.sort(first[first >= len(before)]) - len(before)
            time, channel, artefact = time[once], channel[once], artefact[once]
            if not len(time):
                return
        here = frozenset(channel[time == time[-1]].tolist())
        self._here = here | self._here if time[-1] == self.last else here
        self.sure = int(time[-2]) if len(time) > 1 else self.last
        self.last = int(time[-1])
        for i in np.flatnonzero(artefact):
            what = f"an artefact on {self.channels[channel[i]]}"
            self._skips.append(Skip(int(time[i]) - 1, int(time[i]) + 1, self._size, what))
        self._out.append((time[~artefact], channel[~artefact]))


class WaveformParser(_Records):
    """The waveform stream of some amplifier channels, one band each, and the digital-in word. The stream does not say how many.

    Args:
        channels: number of amplifier channels, in each frame before the digital-in word.
    """

    def __init__(self, channels: int) -> None:
        frame = np.dtype([("time", "<u4"), ("sample", "<u2", (channels,)), ("digital", "<u2")])
        super().__init__("waveform block", WAVEFORM_MAGIC, np.dtype([("magic", "<u4"), ("frame", frame, (FRAMES,))]))
        self.channels = channels
        self._out: list[NDArray[np.void]] = []

    def feed(self, data: bytes) -> Waveform:
        """Frames of the blocks that are whole by now.

        Raises:
            StreamError: too many blocks in a row cannot be read, or their frames have another size.
        """
        self._out = []
        self._feed(data)
        frames = np.concatenate([np.empty((0, FRAMES), self._dtype["frame"].base), *self._out]).ravel()
        return Waveform(frames["time"].astype(np.int64), frames["sample"], frames["digital"], self._told())

    def _good(self, blocks: NDArray[np.void]) -> NDArray[np.bool_]:
        time = blocks["frame"]["time"]
        steady = (time - time[:, :1] == np.arange(FRAMES, dtype=np.uint32)).all(axis=1)
        good: NDArray[np.bool_] = (blocks["magic"] == int.from_bytes(WAVEFORM_MAGIC, "little")) & steady
        return good & (time[:, 0] <= 2**32 - FRAMES)

    def _examine(self, record: bytes) -> None:
        if not record.startswith(WAVEFORM_MAGIC):
            return
        ours = (self._size - 4) // FRAMES
        for frame in range(6, (len(record) - 8) // 2, 2):  # timestamps that follow each other at another distance
            starts = range(4, min(len(record) - 4, 4 + 4 * frame), frame)
            time = [int.from_bytes(record[i : i + 4], "little") for i in starts]
            if frame != ours and len(time) > 2 and all(later == time[0] + i for i, later in enumerate(time)):
                raise StreamError(
                    f"intan: expected frames of {ours} bytes ({self.channels} channels and the digital word), got {frame} bytes"
                    f" from timestamp {time[0]} on; an output of RHX was switched on or off"
                )

    def _take(self, blocks: NDArray[np.void]) -> None:
        first = blocks["frame"]["time"][:, 0].astype(np.int64)
        start = first[0] - 1 if self.last is None else self.last
        top = np.maximum.accumulate(np.concatenate([[start], first + FRAMES - 1]))[:-1]
        if not (first == top + 1).all() or self._why:
            for i in range(len(first)):
                if first[i] <= top[i]:
                    self._skip(self._size, f"waveform timestamp {first[i]} after {top[i]}", self.last)
                    continue
                if first[i] > top[i] + 1 and not self._why:
                    self._why, self._after = f"waveform timestamps {top[i] + 1} to {first[i] - 1} are missing", self.last
                self._resume(int(first[i]))
                self.last = int(first[i]) + FRAMES - 1
            blocks = blocks[first > top]
        if len(blocks):
            self.last = int(blocks["frame"]["time"][-1, -1])
            self._out.append(blocks["frame"])
