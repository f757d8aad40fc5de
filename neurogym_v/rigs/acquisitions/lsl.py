"""Spikes from Lab Streaming Layer (LSL; https://labstreaminglayer.org), with onsets in the same stream or in one of markers.

LSL has no schema for spikes. This is ours, for whoever writes the sender.

*The spike stream*: irregular rate, int32, three values a sample, `(sequence, channel, unit)`, time-stamped by the LSL clock of
the machine that sends. `sequence` grows by one with each sample and wraps from 2^31 - 1 to 0: so loss, duplicates and another
order are seen. `channel` is

    0, 1, ...  a spike of that channel and `unit` (0: not sorted), at the time stamp;
    -1         the watermark: every sample before this time stamp has been sent. One every 10 ms or so, spikes or none;
    -2         an onset at the time stamp: the photodiode or trigger line rose. `unit` is the number of the presentation, or -1
               where the sender does not know it.

Samples between two watermarks have time stamps between theirs, in any order. The names of the channels are labels in the
description of the stream (XML `desc/channels/channel/label`), in the order of their numbers. A site is LABEL (all units of that
channel) or LABEL#2 (its unit 2).

*The marker stream*, with `onsets="markers"`: for a display that sends onsets through LSL itself. Type Markers, one string a
sample, JSON: `{"event": "onset", "number": 17}`, where `number` may be left out. Other events pass unread, and so do onsets in
the spike stream. No watermark tells whether a marker is still on its way: times are complete `settle_ms` later.

All times are those of the spike stream, untouched: LSL's own synchronisation (`proc_clocksync`) moves single spikes by tens of
microseconds, enough for one to leave a window. Only where markers come from another host than spikes are theirs moved, by the
difference of both clocks as LSL measures it every few seconds and a straight line between (`LSL.corrections`), good to 1 ms.

Who is looked for, and where, `lsl_config` says: on this machine alone, unless the lab has settings of its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from neurogym_v.rigs import Events, RigError
from neurogym_v.rigs.acquisitions.lsl_config import library
from neurogym_v.rigs.acquisitions.lsl_parser import NAMED, Parser, read_markers

PATIENCE_S, TWIN_S = 1.5, 0.15
"""For a stream to be found, and for another of the same name to answer as well."""
SILENCE_S = 1.0
"""Without a watermark that goes on the sender is gone: liblsl would wait for it for ever, and say nothing."""
MEASURE_S = 5.0
"""From one comparison of the clocks to the next."""
BUFFER = 10_000
"""Hundreds of samples that liblsl keeps for a reader who is busy: a million in all."""
CHUNK = 1 << 14
"""Samples that are read at once."""
FORMATS = ("undefined", "float32", "double64", "string", "int32", "int16", "int8", "int64")
"""Of values, by LSL's numbers."""


class LSL:
    """Lab Streaming Layer: spikes and onsets in one stream of integers, or onsets in a stream of markers.

    Args:
        channels: sites, LABEL or LABEL#UNIT.
        spikes: name of the spike stream.
        onsets: where they are: `spikes`, in that stream, or `markers`.
        markers: name of the marker stream.
        settle_ms: how long a marker may be on its way.

    Raises:
        RigError: a site that is named twice, another word for where onsets are, or a number out of its range.
    """

    def __init__(
        self,
        *,
        channels: Sequence[str],
        spikes: str = "spikes",
        onsets: str = "spikes",
        markers: str = "markers",
        settle_ms: float = 100.0,
    ) -> None:
        if onsets not in ("spikes", "markers"):
            raise RigError(f"acquisition lsl: expected onsets = spikes or markers, got {onsets!r}")
        if not channels or isinstance(channels, str) or len(set(channels)) < len(channels):
            raise RigError(f"acquisition lsl: expected channels as a list of names, each once, got {channels!r}")
        if not 0 <= settle_ms < 1000 * SILENCE_S:
            raise RigError(f"acquisition lsl: expected settle_ms from 0 to {1000 * SILENCE_S:g}, got {settle_ms}")
        for name in (spikes, markers):
            if not name or "'" in name:  # it stands in quotes in what liblsl asks others
                raise RigError(f"acquisition lsl: expected the name of a stream, without quotes, got {name!r}")
        self.channels = tuple(channels)
        self.spikes, self.onsets, self.markers, self.settle_s = spikes, onsets, markers, settle_ms / 1000
        self.patience_s, self.quiet_s = SILENCE_S, 0.0
        self.corrections: list[tuple[float, float]] = []
        """(marker clock, seconds that markers are moved by) of each comparison; empty where both have one clock."""
        self._inlet: Any = None
        self._marker_inlet: Any = None
        self._heard = self._measured = 0.0
        self._settling = deque[tuple[float, float]]()
        """(when it came, itself) of watermarks whose markers may still be on their way."""
        self._complete_s = self._settled_s = -np.inf

    def open(self) -> None:
        """Find the streams, and the sites among the labels; takes 0.3 s, or 2 s with markers from another host.

        Raises:
            RigError: no such stream, more than one, or one that is not as described above.
        """
        self.close()
        pylsl = self._pylsl = library("acquisition lsl")
        self.corrections, self._settling = [], deque()
        self._complete_s = self._settled_s = -np.inf
        name = self.spikes
        try:
            self._inlet, info = _connected(pylsl, name, pylsl.cf_int32, 3)
            self._parser = Parser(_labels(info), self.channels, onsets=self.onsets == "spikes")
            if self.onsets == "markers":
                name = self.markers
                self._marker_inlet, marker_info = _connected(pylsl, name, pylsl.cf_string, 1)
                if marker_info.hostname() != info.hostname():
                    self._measure()
        except RuntimeError as error:  # pylsl's
            self.close()
            raise RigError(f"acquisition lsl: expected stream {name!r} to answer, but {error} Is its sender running?") from None
        except RigError:
            self.close()
            raise
        self._heard = time.monotonic()

    def arm(self) -> None:
        """After a pause, in which nobody may have asked for events, the sender has a second again to be heard."""
        self._heard = time.monotonic()

    def events(self, timeout_s: float) -> Events:
        """What arrived; waits for something, but not longer than this.

        Raises:
            RigError: the sender has ended a stream, or was silent for a second; or this is not open.
        """
        inlet, markers = self._inlet, self._marker_inlet
        if inlet is None:
            raise RigError("acquisition lsl: expected it to be open; call open() before events()")
        wait_s, name = max(0.0, min(timeout_s, self._heard + self.patience_s - time.monotonic())), self.spikes
        try:
            samples, stamps = inlet.pull_chunk(wait_s, CHUNK, min_samples=1, as_numpy=True)
            now = time.monotonic()
            events = self._parser.read(samples, stamps)
            if events.complete_s > self._complete_s:
                self._complete_s, self._heard = events.complete_s, now
                self._settling.append((now, events.complete_s))
            elif now - self._heard >= self.patience_s:
                raise RigError(
                    f"acquisition lsl: expected a watermark sample every 10 ms or so, but stream {self.spikes!r} was silent for"
                    f" {self.patience_s:g} s; is its sender still running?"
                )
            if markers is not None:
                name = self.markers
                events = self._with_markers(events, markers, now)
            return events
        except RuntimeError as error:  # pylsl's
            raise RigError(
                f"acquisition lsl: expected stream {name!r} to go on, but {error} Is its sender still running?"
            ) from None

    def close(self) -> None:
        """Disconnect; may be called twice, and after an error."""
        self._inlet = self._marker_inlet = None  # liblsl disconnects when they are collected

    def _with_markers(self, events: Events, inlet: Any, now: float) -> Events:
        """The spikes of `events`, and what the marker stream has."""
        promised_s = self._settled_s
        while self._settling and self._settling[0][0] <= now - self.settle_s:
            self._settled_s = self._settling.popleft()[1]
        texts, stamps = inlet.pull_chunk(0.0, CHUNK, as_numpy=True)
        if self.corrections and len(stamps):
            if now - self._measured > MEASURE_S:
                self._measure()
            clock, seconds = np.array(self.corrections[-2:]).T
            stamps = stamps + np.interp(stamps, clock, seconds)
        onset_s, number, faults = read_markers([row[0] for row in texts], stamps, promised_s)
        return Events(events.spike_s, events.channel, onset_s, number, self._settled_s, (*events.faults, *faults))

    def _measure(self) -> None:
        """Compare the clocks of both senders; the first time takes 0.7 s for each, later liblsl knows."""
        spikes, markers = (inlet.time_correction(PATIENCE_S) for inlet in (self._inlet, self._marker_inlet))
        self.corrections.append((self._pylsl.local_clock() - markers, markers - spikes))
        self._measured = time.monotonic()


def _connected(pylsl: Any, name: str, channel_format: int, width: int) -> tuple[Any, Any]:
    """An inlet to which all is delivered from now on, and the description of its stream.

    Raises:
        RigError: no stream of that name, more than one, or one of other values.
        RuntimeError: it is gone again.
    """
    found = pylsl.resolve_byprop("name", name, 1, PATIENCE_S)
    if len(found) == 1:
        found = pylsl.resolve_byprop("name", name, 2, TWIN_S) or found
    if len(found) != 1:
        others = sorted({info.name() for info in pylsl.resolve_streams(TWIN_S)})
        raise RigError(
            f"acquisition lsl: expected one stream named {name!r}, found {len(found) or 'none'} (streams: "
            f"{', '.join(others[:NAMED]) or 'none'}); is its sender running, with the same settings of LSL as this (LSLAPICFG)?"
        )
    info = found[0]
    if (info.channel_format(), info.channel_count()) != (channel_format, width):
        raise RigError(
            f"acquisition lsl: expected stream {name!r} to have {width} {FORMATS[channel_format]} values a sample, got "
            f"{info.channel_count()} {FORMATS[info.channel_format()]}; neurogym_v.rigs.acquisitions.lsl says what to send"
        )
    inlet = pylsl.StreamInlet(info, BUFFER, 0, recover=False)
    full = inlet.info(PATIENCE_S)
    inlet.open_stream(PATIENCE_S)
    return inlet, full


def _labels(info: Any) -> list[str]:
    """Of the channels in the description of a stream."""
    labels = []
    channel = info.desc().child("channels").child("channel")
    while not channel.empty():
        labels.append(str(channel.child_value("label")))
        channel = channel.next_sibling("channel")
    return labels
