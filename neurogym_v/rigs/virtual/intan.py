"""Intan RHX as seen from outside: its three sockets, the commands that a reader needs, its spike records and waveform blocks.

Answers and error texts are those that RHX 3.4.0 was recorded to give. It differs from the program in four things: timestamps
are those of the world's clock and do not begin anew with each run, the command port takes a new client when the last has left,
a second client is accepted and closed at once where the program refuses it, and when a client does not read, what has waited
longest for it is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import RigError
from neurogym_v.rigs.acquisitions.intan_stream import FRAMES, SPIKE, SPIKE_MAGIC, WAVEFORM_MAGIC
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.intan_server import Program, Server
from neurogym_v.rigs.virtual.mischief import Mischief

SHAPE_UV = np.array([-230, -270, -215, -130, -40, 30, 75, 100, 110, 110, 105, 95, 80, 65, 50, 35, 20, 10])
"""A spike, from the sample of its timestamp on: its first sample crosses any usual threshold, and its mean is 0, so that a
high-pass soon forgets it."""
NOISE_UV = 5.0


class IntanSource:
    """The recording system of a virtual rig. Blocks and spikes are sent as soon as the stretches that are told fill a block.

    Args:
        channels: native names of all channels of the headstage, five letters each.
        sample_rate: Hz.
        mischief: every spike record and every waveform block passes through it.
        command_port, waveform_port, spike_port: 0 takes a free one.
        seed: of the noise.

    Raises:
        RigError: names that a spike record cannot hold.
    """

    def __init__(
        self,
        channels: Sequence[str],
        sample_rate: int,
        mischief: Mischief,
        *,
        command_port: int = 0,
        waveform_port: int = 0,
        spike_port: int = 0,
        seed: int = 0,
    ) -> None:
        self.channels, self.sample_rate, self.mischief = tuple(channels), sample_rate, mischief
        if any(len(name) != 5 or not name.isascii() for name in channels):
            raise RigError(f"virtual intan: expected channel names of five letters each, got {', '.join(channels)}")
        self._lock = threading.Lock()
        self._program = Program(self.channels, sample_rate)
        self._server = Server(
            self._program, self._lock, {"command": command_port, "waveform": waveform_port, "spike": spike_port}
        )
        self._rng = np.random.default_rng(seed)
        self._order = np.argsort(np.array(self.channels)).astype(np.intp)
        self._level = False
        self._begin()

    @property
    def settings(self) -> dict[str, object]:
        return {f"{name}_port": port for name, port in self._server.ports.items()}

    def open(self) -> None:
        self._server.open()

    def close(self) -> None:
        self._server.close()

    def _begin(self) -> None:
        """Of a run."""
        self._run = self._program.runs
        self._next = -1  # first sample of the next block; -1: the run has not begun
        self._spike, self._channel = np.empty(0, np.int64), np.empty(0, np.intp)
        self._edge, self._high = np.empty(0, np.int64), np.empty(0, bool)

    def write(self, stretch: Stretch) -> None:
        if not self._program.running or self._program.runs != self._run:
            self._begin()
        if not self._program.running:
            self._level = bool(stretch.high[-1]) if len(stretch.high) else self._level
            return
        self._next = stretch.start if self._next < 0 else self._next
        self._program.timestamp = stretch.end - 1
        self._spike, self._channel = np.append(self._spike, stretch.spike), np.append(self._channel, stretch.channel)
        self._edge, self._high = np.append(self._edge, stretch.edge), np.append(self._high, stretch.high)
        frames = FRAMES * self._program.blocks_per_write
        while stretch.end - self._next >= frames and not self.mischief.dead:
            messages = self._messages(self._next, frames // FRAMES)
            self._next += frames
            out = [part for message in messages for part in self.mischief(*message)]  # may take its time
            with self._lock:
                for socket, message in out:
                    self._server.send(socket.decode(), message)
        if self.mischief.dead:
            self._server.close()

    def _messages(self, start: int, blocks: int) -> list[tuple[list[bytes], int, int]]:
        """([socket, bytes], first sample, end) of one write of the program: waveforms, and then spikes."""
        end = start + blocks * FRAMES
        with self._lock:
            wide = [i for i in self._order if self._program.wide[self.channels[i]]]
            spiking = [SHAPE_UV.min() < t and on for on, t in map(self._program.spiking, self.channels)]
            digital = np.flatnonzero(self._program.digital)
        messages = []
        if wide or len(digital) or any(spiking):
            frame = np.dtype([("time", "<u4"), ("sample", "<u2", (len(wide),)), ("digital", "<u2", (min(1, len(digital)),))])
            block = np.zeros(blocks, np.dtype([("magic", "S4"), ("frame", frame, (FRAMES,))]))
            block["magic"] = WAVEFORM_MAGIC
            block["frame"]["time"] = np.arange(start, end).reshape(blocks, FRAMES)
            block["frame"]["sample"] = self._voltages(start, end, wide).reshape(blocks, FRAMES, len(wide))
            block["frame"]["digital"] = self._levels(start, end).reshape(blocks, FRAMES, 1)[:, :, : len(digital)]
            for i, one in enumerate(block):
                messages.append(([b"waveform", one.tobytes()], start + i * FRAMES, start + (i + 1) * FRAMES))
        here = np.flatnonzero((self._spike >= start) & (self._spike < end))
        rank = np.argsort(self._order)
        for i in here[np.lexsort((rank[self._channel[here]], self._spike[here]))]:
            if spiking[self._channel[i]]:
                time = int(self._spike[i])
                record = np.array([(0, self.channels[self._channel[i]].encode(), time, 1)], SPIKE).tobytes()
                messages.append(([b"spike", SPIKE_MAGIC + record[4:]], time, time + 1))
        recent = self._spike >= end - len(SHAPE_UV)  # their shapes may reach into the next block
        self._spike, self._channel = self._spike[recent], self._channel[recent]
        return messages

    def _voltages(self, start: int, end: int, channels: list[np.intp]) -> NDArray[np.uint16]:
        """(frames, channels) as they stand in a frame."""
        volts = NOISE_UV * self._rng.standard_normal((end - start, len(channels)), dtype=np.float32)
        for column, channel in enumerate(channels):
            row = (self._spike[self._channel == channel] - start)[:, None] + np.arange(len(SHAPE_UV))
            inside = (row >= 0) & (row < end - start)
            np.add.at(volts[:, column], row[inside], np.broadcast_to(SHAPE_UV, row.shape)[inside])
        return (volts / 0.195 + 32768).round().clip(0, 65535).astype(np.uint16)

    def _levels(self, start: int, end: int) -> NDArray[np.uint16]:
        """(frames,) the digital-in word: the photodiode is on the first line."""
        count = np.searchsorted(self._edge, np.arange(start, end), side="right")
        levels = np.concatenate([[self._level], self._high])[count]
        passed = int(count[-1])
        self._level = bool(levels[-1])
        self._edge, self._high = self._edge[passed:], self._high[passed:]
        return levels.astype(np.uint16)
