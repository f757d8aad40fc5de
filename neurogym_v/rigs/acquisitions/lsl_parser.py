"""What the samples and markers of `lsl` say; nothing here needs the library."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import NO_NUMBER, Events, Fault, RigError

WATERMARK, ONSET = -1, -2
"""What stands in place of a channel."""
WRAP = 1 << 31
"""Of sequence numbers."""
NAMED = 20
"""Channels that a message names, at most."""


class Parser:
    """What the samples of a spike stream say, in whatever pieces they come.

    Args:
        labels: of the channels, in the order of their numbers.
        sites: LABEL or LABEL#UNIT.
        onsets: whether those in the stream count.

    Raises:
        RigError: a site that is not there, or is part of another.
    """

    def __init__(self, labels: Sequence[str], sites: Sequence[str], *, onsets: bool = True) -> None:
        self._onsets = onsets
        self._whole = np.full(len(labels), -1, dtype=np.intp)
        """(labels,) the site that has all units of a channel, or -1."""
        units: dict[int, int] = {}
        for site, name in enumerate(sites):
            parts = None if name in labels else re.fullmatch(r"(.+)#([0-9]{1,9})", name)
            label = parts[1] if parts else name
            if (count := list(labels).count(label)) != 1:
                known = f"{', '.join(labels[:NAMED])}{', ...' if len(labels) > NAMED else ''}"
                raise RigError(
                    f"acquisition lsl: expected one channel {label!r} in the stream, found {count or 'none'} in: {known}"
                )
            number = list(labels).index(label)
            if not parts:
                self._whole[number] = site
            elif units.setdefault(_key(number, int(parts[2])), site) != site:
                raise RigError(f"acquisition lsl: expected each unit once in channels, got {name!r} again")
        if any(self._whole[key >> 32] >= 0 for key in units):
            raise RigError(f"acquisition lsl: expected a channel or units of it in channels, got both in {list(sites)}")
        self._keys = np.array(sorted(units), dtype=np.int64)
        self._sites = np.array([units[key] for key in sorted(units)], dtype=np.intp)
        self._last: int | None = None
        self._mark, self._complete_s = 0, -np.inf
        """Sequence number of the newest watermark, and its time."""
        self._open: tuple[float, str] | None = (-np.inf, "the stream was not listened to yet")
        """A fault without an end, (start_s, what): the next watermark ends it."""

    def read(self, samples: NDArray[np.int32], stamps: NDArray[np.float64]) -> Events:
        """What (n, 3) samples with (n,) time stamps add to all that were read before; raises nothing.

        What comes twice is left out; what comes too late is not: someone may have counted without it, and must hear of it.
        """
        if not len(samples):
            return Events(complete_s=self._complete_s)
        sequence, channel, unit = samples.astype(np.int64).T
        before = np.append(sequence[0] - 1 if self._last is None else self._last, sequence[:-1])
        finite = np.isfinite(stamps)
        watermark = channel == WATERMARK
        # the newest watermark ahead of each sample, and ahead of the one after the last
        reached = np.maximum.accumulate(np.append(self._complete_s, np.where(watermark & finite, stamps, -np.inf)))
        late = finite & (stamps < reached[:-1])
        spike = (channel >= 0) & (channel < len(self._whole)) & (unit >= 0)
        onset = (channel == ONSET) & (unit >= NO_NUMBER)
        # of what is late, that which was sent before the watermark is here again, or is known to be missing
        newer = np.where(watermark & finite & (stamps > reached[:-1]), 1 + np.arange(len(samples)), 0)
        marks = np.append(self._mark, sequence)[np.maximum.accumulate(np.append(0, newer))]
        again = (sequence == before) | (late & ((sequence - marks[:-1] - 1) % WRAP >= WRAP // 2))

        wrong = np.flatnonzero((sequence != (before + 1) % WRAP) | ~finite | late | ~(spike | onset | watermark))
        ends = np.flatnonzero(watermark & finite & ~late)
        blocks, first = np.unique(np.searchsorted(ends, wrong), return_index=True)
        since = np.where(late, stamps, reached[:-1])[wrong]
        starts = np.minimum.reduceat(since, first) if len(wrong) else since
        found: dict[int, tuple[float, str]] = {}
        """Of each stretch from one watermark to the next in which something is wrong: since when, and what came first."""
        for block, i, start_s in zip(blocks.tolist(), wrong[first].tolist(), starts.tolist(), strict=True):
            what = _what(int(sequence[i]), int(before[i]), samples[i, 1:], float(stamps[i]), late=bool(late[i]))
            found[block] = start_s, what
        if self._open:
            found[0] = (min(self._open[0], found.get(0, self._open)[0]), self._open[1])
        self._open = found.pop(len(ends), None)
        faults = tuple(Fault(found[b][0], float(stamps[ends[b]]), found[b][1]) for b in sorted(found))

        self._last, self._mark, self._complete_s = int(sequence[-1]), int(marks[-1]), float(reached[-1])
        right = finite & ~again
        at = np.flatnonzero(spike & right)
        site = self._site(channel[at], unit[at])
        asked, told = site >= 0, onset & right & self._onsets
        return Events(stamps[at][asked], site[asked], stamps[told], unit[told], self._complete_s, faults)

    def _site(self, channel: NDArray[np.int64], unit: NDArray[np.int64]) -> NDArray[np.intp]:
        """(n,) sites, -1 where nobody asked for it."""
        site = self._whole[channel]
        if len(self._keys):
            key = _key(channel, unit)
            at = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            site = np.where(self._keys[at] == key, self._sites[at], site)
        return site


def _key(channel: Any, unit: Any) -> Any:
    """One whole number for both."""
    return channel << 32 | unit


def _what(sequence: int, before: int, rest: NDArray[np.int32], stamp: float, *, late: bool) -> str:
    """Why a sample is wrong."""
    missing = (sequence - before - 1) % WRAP
    if 0 < missing < WRAP // 2 and sequence >= 0:
        first, last = (before + 1) % WRAP, (sequence - 1) % WRAP
        return f"samples {first} to {last} are missing" if missing > 1 else f"sample {first} is missing"
    if missing:
        return f"sample {sequence} came after sample {before}"
    if not np.isfinite(stamp):
        return f"sample {sequence} has the time stamp {stamp}"
    if late:
        return f"sample {sequence} came after the watermark of a later time"
    return f"sample {sequence} is of channel {rest[0]}, unit {rest[1]}, which there is not"


def read_markers(
    texts: Sequence[bytes], stamps: NDArray[np.float64], complete_s: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[Fault, ...]]:
    """Onsets, their numbers, and what was wrong, of markers with (n,) time stamps; before `complete_s` none may come any more.

    Raises:
        RigError: a time stamp that is none: all that follows would be worthless.
    """
    if not np.isfinite(stamps).all():
        raise RigError("acquisition lsl: expected markers with time stamps of the LSL clock, got one that is not finite")
    at: list[float] = []
    numbers: list[int] = []
    faults = []
    for text, stamp in zip(texts, stamps.tolist(), strict=True):
        try:
            number = onset_of(text)
        except RigError as error:
            faults.append(Fault(stamp, max(stamp, complete_s), str(error)))
            continue
        if number is not None and stamp < complete_s:
            faults.append(
                Fault(stamp, complete_s, f"the marker of onset {number} came too late; a larger settle_ms waits for it")
            )
        elif number is not None:
            at.append(stamp)
            numbers.append(number)
    return np.array(at, dtype=np.float64), np.array(numbers, dtype=np.int64), tuple(faults)


def onset_of(text: bytes) -> int | None:
    """The number of the onset that a marker tells of, or NO_NUMBER; None: it tells of something else.

    Raises:
        RigError: no JSON object with an event, or with a number that is none.
    """
    try:
        marker = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RigError(f"a marker is no JSON: {str(error)[:80]}") from None
    if not isinstance(marker, dict) or not isinstance(marker.get("event"), str):
        raise RigError(f"a marker is no JSON object with a text as event: {text[:80]!r}")
    if marker["event"] != "onset":
        return None
    number = marker.get("number", NO_NUMBER)
    if type(number) is not int or not NO_NUMBER <= number < WRAP:
        raise RigError(f"a marker's number is no whole number from {NO_NUMBER} to {WRAP - 1}: {text[:80]!r}")
    return number
