"""Lab Streaming Layer as a lab's sender would speak it: the streams that `rigs.acquisitions.lsl` describes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs.acquisitions.lsl_config import library
from neurogym_v.rigs.acquisitions.lsl_parser import ONSET, WATERMARK, WRAP
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.mischief import Mischief

BUFFER = 10_000
"""Hundreds of samples that liblsl keeps for a reader who is busy."""


class LSLSource:
    """Spikes, onsets and a watermark at the end of each stretch, in one stream, or with the onsets in a stream of markers.

    Time stamps are LSL's clock at `open` and the seconds of the samples since then. What passes through mischief is all that a
    stretch puts into the spike stream, as the bytes of three columns: time stamps, (channel, unit), sequence numbers. Hence
    `corrupt` changes a sequence number: what the other values should be, no reader of this stream could tell; and `half` sends
    the first half of the samples. The markers of a stretch go out untouched before it, unless the stream is silent or dead.

    Args:
        channels: names of the sites; of LABEL#2, spikes are those of unit 2 of channel LABEL, else of unit 0.
        sample_rate: of stretches, in Hz.
        mischief: what goes wrong; nothing by default.
        spikes, markers: names of the streams; none: one that is free.
        onsets: where they go: `spikes` or `markers`.
    """

    def __init__(
        self,
        channels: Sequence[str],
        sample_rate: float,
        mischief: Mischief | None = None,
        *,
        spikes: str = "",
        markers: str = "",
        onsets: str = "spikes",
    ) -> None:
        self._rate, self._mischief = sample_rate, mischief or Mischief()
        free = uuid.uuid4().hex[:12]
        self._spikes, self._markers, self._onsets = spikes or f"spikes-{free}", markers or f"markers-{free}", onsets
        parts = [name.rpartition("#") if "#" in name else (name, "", "0") for name in channels]
        self._labels = list(dict.fromkeys(label for label, _, _ in parts))
        self._address = np.array([(self._labels.index(label), int(unit)) for label, _, unit in parts], dtype=np.int32)
        """(channels, 2) channel and unit of each site."""
        self._sequence = 0
        self._outlet: Any = None
        self._marker_outlet: Any = None

    @property
    def settings(self) -> dict[str, object]:
        both = {"onsets": "markers", "markers": self._markers} if self._onsets == "markers" else {}
        return {"spikes": self._spikes, **both}

    def open(self) -> None:
        """Offer the streams.

        Raises:
            NeuroGymError: pylsl is not installed.
        """
        pylsl = library("virtual rig lsl")
        info = pylsl.StreamInfo(self._spikes, "Spikes", 3, pylsl.IRREGULAR_RATE, pylsl.cf_int32, "")  # "": gone is gone
        channels = info.desc().append_child("channels")
        for label in self._labels:
            channels.append_child("channel").append_child_value("label", label)
        self._outlet = pylsl.StreamOutlet(info, 0, BUFFER)
        if self._onsets == "markers":
            info = pylsl.StreamInfo(self._markers, "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, "")
            self._marker_outlet = pylsl.StreamOutlet(info, 0, BUFFER)
        self._base_s = pylsl.local_clock()

    def write(self, stretch: Stretch) -> None:
        """Push what happened; nobody waits for a reader, and what is pushed before one has come is lost."""
        if self._outlet is None:
            return
        at, number = stretch.edge[stretch.high], stretch.number[stretch.high]
        if self._marker_outlet is not None:
            self._mark(at, number)
            at, number = at[:0], number[:0]
        time = np.concatenate([stretch.spike, at, [stretch.end]])
        rows = np.concatenate(
            [
                self._address[stretch.channel],
                np.column_stack([np.full(len(at), ONSET), number]),
                [[WATERMARK, 0]],
            ]
        ).astype("<i4")
        order = np.argsort(time, kind="stable")
        sequence = (self._sequence + np.arange(len(time))) % WRAP
        self._sequence = (self._sequence + len(time)) % WRAP
        stamps = self._base_s + time[order] / self._rate
        message = [stamps.astype("<f8").tobytes(), rows[order].tobytes(), sequence.astype("<i4").tobytes()]
        for sent in self._mischief(message, stretch.start, stretch.end):
            self._push(sent)
        if self._mischief.dead:
            self.close()

    def close(self) -> None:
        self._outlet = self._marker_outlet = None  # liblsl ends a stream when its outlet is collected

    def _push(self, message: list[bytes]) -> None:
        stamps, rows = np.frombuffer(message[0], "<f8"), np.frombuffer(message[1], "<i4").reshape(-1, 2)
        n = len(message[2]) // 4  # of half a message fewer than it was made of
        sequence = np.frombuffer(message[2], "<i4", n)
        if n and self._outlet is not None:
            self._outlet.push_chunk(np.column_stack([sequence, rows[:n]]), stamps[:n].tolist())

    def _mark(self, at: NDArray[np.int64], number: NDArray[np.int64]) -> None:
        if self._mischief.stalled or self._mischief.dead:
            return
        for sample, presentation in zip(at.tolist(), number.tolist(), strict=True):
            text = json.dumps({"event": "onset", "number": presentation})
            self._marker_outlet.push_sample([text], self._base_s + sample / self._rate)
