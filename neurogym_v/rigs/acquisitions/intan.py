"""Intan RHX over its TCP interface: spikes it detected itself, or raw voltages, and the photodiode on a digital input.

Commands go to one socket as text (`intan_control`); two others carry waveforms and spikes (`intan_stream`).

In the program, choose Network > Remote TCP Control > Commands and press Connect; the rest is done from here.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import NO_NUMBER, Events, Fault, RigError
from neurogym_v.rigs.acquisitions.intan_control import Control, connect, drain
from neurogym_v.rigs.acquisitions.intan_stream import Skip, SpikeParser, WaveformParser
from neurogym_v.rigs.acquisitions.threshold import ThresholdCrossings

START_S = 5.0
"""From the run command to the first block; a board takes its time."""
SILENT_S = 1.0
"""Without a block, or with half a spike record and no more."""
LINGER_S = 1.0
"""At the end, for the program to stop."""
FILTER_S = 0.005
"""After a gap, until the high-pass has forgotten it."""
MICROVOLTS, ZERO = 0.195, 32768


class Intan:
    """A recording with Intan RHX.

    With `detect="spikes"`, spikes are those of the program, which thresholds its own high band; the waveform socket then
    carries the digital-in word alone, and tells the time. As nothing is sent where there is no spike, spikes are complete up
    to what the waveform socket had reached `settle_ms` ago, or up to the last spike but one. A spike that comes later than that
    is a fault, and so is a moment that the program marks as an artefact. With `detect="threshold"`, spikes are found here in
    the wide band: a causal Butterworth high-pass of order 2 at 250 Hz, negative crossings, 1 ms without another (`threshold`).

    While the program stands still, all its TCP outputs are cleared and those needed are switched on. When it runs already, it
    must have just these settings, as others would change the frames of whoever reads them. A change of the line that lasts for
    one sample only is no edge but a fault. What no reader can recognise is said in `intan_stream`.

    Args:
        channels: native names, such as A-003.
        host, command_port, waveform_port, spike_port: where the program listens; it must be set to the same ports.
        detect: "spikes" or "threshold".
        threshold_uv: microvolts, for all channels; below 0 with `detect="threshold"`.
        line: of the digital inputs, 1 to 16, that onsets come on: 1 is DIGITAL-IN-01. Rising edges are onsets.
        settle_ms: how much later than the waveform of the same time a spike may come.

    Raises:
        RigError: a value that cannot be.
    """

    def __init__(
        self,
        *,
        channels: Sequence[str],
        host: str = "127.0.0.1",
        command_port: int = 5000,
        waveform_port: int = 5001,
        spike_port: int = 5002,
        detect: str = "spikes",
        threshold_uv: float = -60.0,
        line: int = 1,
        settle_ms: float = 50.0,
    ) -> None:
        self.channels = tuple(channels)
        wrong = [name for name in self.channels if not re.fullmatch(r"[A-Z]-\d{3}", name)]
        if wrong or not self.channels or len(set(self.channels)) < len(self.channels):
            raise RigError(f"acquisition intan: expected channels such as A-003, each once, got {wrong or list(self.channels)}")
        if detect not in ("spikes", "threshold"):
            raise RigError(f'acquisition intan: expected detect = "spikes" or "threshold", got {detect!r}')
        if not 1 <= line <= 16:
            raise RigError(f"acquisition intan: expected a line from 1 to 16, got {line}")
        if not 0 < settle_ms <= 1000:
            raise RigError(f"acquisition intan: expected a settle_ms within 0 and 1000, got {settle_ms:g}")
        if not -5000 <= threshold_uv <= (5000 if detect == "spikes" else -1):
            raise RigError(f"acquisition intan: expected a threshold_uv of -5000 to -1 microvolts, got {threshold_uv:g}")
        self.patience_s, self.quiet_s = SILENT_S, 0.0
        self.host, self.command_port, self.waveform_port, self.spike_port = host, command_port, waveform_port, spike_port
        self.detect, self.threshold_uv, self.line, self.settle_s = detect, threshold_uv, line, settle_ms / 1000
        self._control: Control | None = None
        self._outputs: list[socket.socket] = []  # waveforms, and spikes where the program detects them
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._runs = self._started = False
        self.sample_rate = 0
        """Hz; known after `open`."""

    def open(self) -> None:
        """Connect to the program and set it up; it does not begin to run yet.

        Raises:
            RigError: nobody answers, a channel is not there, or the program runs with other settings.
        """
        self.close()
        try:
            self._control = Control(self.host, self.command_port)
            self._set_up(self._control)
            ports = {"waveform": self.waveform_port, "spike": self.spike_port}
            for which in ("waveform", "spike")[: 2 if self.detect == "spikes" else 1]:
                self._outputs.append(connect(self._control, self.host, which, ports[which]))
        except OSError as error:
            self.close()
            raise RigError(f"acquisition intan: expected RHX to answer on {self.host}, got: {error}") from None
        except BaseException:
            self.close()
            raise
        self._selector = selectors.DefaultSelector()
        for each in (self._control.socket, *self._outputs):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._spikes = SpikeParser(self.channels)
        amplifiers = len(self.channels) if self.detect == "threshold" else 0
        self._waveforms = WaveformParser(amplifiers)
        self._crossings = ThresholdCrossings(amplifiers, self.sample_rate, threshold_uv=min(self.threshold_uv, -1.0))
        self._order = np.argsort(np.array(self.channels)).astype(np.intp)  # frames hold them as the program counts
        self._edges = _Edges(1 << (self.line - 1))
        self._reached: deque[tuple[float, int]] = deque()  # (when, timestamp) of the waveform
        self._complete: int | None = None
        self._progress = self._stuck = time.monotonic()
        self._limit_s = START_S
        self._seen: int | None = None

    def _set_up(self, control: Control) -> None:
        answer = control.ask(["get version;"])
        if not answer.startswith("Return: Version"):
            raise RigError(
                f"acquisition intan: expected RHX on {self.host}:{self.command_port}, got the answer {answer[:60]!r}"
            )
        rate = control.value("sampleratehertz")
        if not re.fullmatch(r"[1-9]\d{2,5}", rate):
            raise RigError(f"acquisition intan: expected a sample rate in Hz, got the answer {rate[:60]!r}")
        self.sample_rate = int(rate)
        answer = control.ask([f"get {name.lower()}.nativechannelname;" for name in self.channels])
        found = set(re.findall(r"NativeChannelName ([A-Z]-\d{3})", answer))
        if missing := [name for name in self.channels if name not in found]:
            raise RigError(f"acquisition intan: expected channels {', '.join(missing)}, but RHX has none of that name")
        number = f"{self.threshold_uv:g}"
        wanted = {f"digital-in-{self.line:02d}.tcpdataoutputenabled": "True"}
        for name in self.channels:
            wanted[f"{name.lower()}.tcpdataoutputenabled"] = str(self.detect == "threshold")
            wanted[f"{name.lower()}.tcpdataoutputenabledspike"] = str(self.detect == "spikes")
            if self.detect == "spikes":
                wanted[f"{name.lower()}.spikethresholdmicrovolts"] = number
        self._runs = control.mode != "Stop"
        if not self._runs:
            commands = ["execute clearalldataoutputs;", "set tcpnumberdatablocksperwrite 1;"]
            commands += [f"set {key} {value.lower()};" for key, value in wanted.items() if value != "False"]
            if answer := control.ask(commands):
                raise RigError(f"acquisition intan: expected RHX to take its settings, got the answer {answer[:200]!r}")
            return
        other = [f"{key} {got}" for key, value in wanted.items() if (got := control.value(key)) != value]
        if other:
            raise RigError(
                f"acquisition intan: expected RHX to stand still or to run with the settings of the rig, but it runs with"
                f" {', '.join(other[:4])}{' ...' if len(other) > 4 else ''}; stop it there"
            )

    def arm(self) -> None:
        """Start the run, unless the program runs already.

        Raises:
            RigError: it is not open.
        """
        if self._control is None:
            raise RigError("acquisition intan: expected it to be open before it is armed")
        self._progress = time.monotonic()
        if not self._runs:
            self._started = self._runs = True
            self._limit_s = START_S
            self._control.say("set runmode run;")

    def events(self, timeout_s: float) -> Events:
        """What arrived; waits for something, but not longer than this.

        Raises:
            RigError: RHX closed a connection, refused to run, sent nothing for a second, or what cannot be read.
        """
        if self._control is None or not self._outputs:
            raise RigError("acquisition intan: expected it to be open, but it is closed")
        try:
            ready = [key.fileobj for key, _ in self._selector.select(max(0.0, timeout_s))]
            now = time.monotonic()
            if self._control.socket in ready and (text := self._control.unasked()):
                raise RigError(f"acquisition intan: expected RHX to run, but it says {text[:200]!r}")
            # spikes first: the program sends waveforms before the spikes in them, so those are there by now
            raw, drained = drain(self._outputs[1], "spike") if len(self._outputs) > 1 else (b"", True)
            waveform, up_to_date = drain(self._outputs[0], "waveform")
        except OSError as error:
            raise RigError(f"acquisition intan: expected data of RHX, got: {error}") from None
        found = _Found()
        self._read_waveforms(waveform, found)
        newest = self._waveforms.last
        if self.detect == "threshold":
            self._complete = newest
        else:
            latest = None if newest is None or not up_to_date else newest + round(self.settle_s * self.sample_rate)
            self._read_spikes(raw, latest, now, found)
            self._advance(now, drained)
        if waveform and newest is not None and newest != self._seen:
            self._seen, self._progress, self._limit_s = newest, now, self.patience_s
        elif self._runs and up_to_date and now - self._progress > self._limit_s:
            raise RigError(
                f"acquisition intan: expected waveforms of RHX all the time, got none for {now - self._progress:.1f} s;"
                " does it still run?"
            )
        return found.events(self.sample_rate, self._complete)

    def _read_waveforms(self, data: bytes, found: _Found) -> None:
        before = self._waveforms.last
        frames = self._waveforms.feed(data)
        after = round(FILTER_S * self.sample_rate) if self.detect == "threshold" else 0
        found.skipped(frames.skips, newest=self._waveforms.last, more=after)
        if not len(frames.time):
            return
        cuts = np.flatnonzero(np.diff(frames.time) != 1) + 1
        for part in np.split(np.arange(len(frames.time)), cuts):
            begin = int(frames.time[part[0]])
            if before is not None and begin != before + 1:
                self._edges.reset()
                self._crossings.reset()
            before = int(frames.time[part[-1]])
            onsets, flickers = self._edges.feed(begin, frames.digital[part])
            found.onset.append(onsets)
            for run in np.split(flickers, np.flatnonzero(np.diff(flickers) > 1) + 1)[: len(flickers)]:
                found.faults.append((int(run[0]) - 1, int(run[-1]) + 1, f"line {self.line} changed for one sample only"))
            row, column = self._crossings.feed(MICROVOLTS * (frames.sample[part].astype(np.float64) - ZERO))
            found.spike.append(begin + row)
            found.channel.append(self._order[column])

    def _read_spikes(self, data: bytes, latest: int | None, now: float, found: _Found) -> None:
        spikes = self._spikes.feed(data, latest)
        found.skipped(spikes.skips, newest=self._waveforms.last)
        # those that come after the watermark has passed them are told as they are: whoever has counted must hear of them
        found.spike.append(spikes.time)
        found.channel.append(spikes.channel)
        if data or not self._spikes.pending:
            self._stuck = now
        elif now - self._stuck > self.patience_s and (skip := self._spikes.give_up()):
            found.skipped([skip], newest=self._waveforms.last)

    def _advance(self, now: float, drained: bool) -> None:
        """Up to where spikes are complete; `now` is from before they were read."""
        newest = self._waveforms.last
        if newest is None:
            return
        if not self._reached or newest > self._reached[-1][1]:
            self._reached.append((time.monotonic(), newest))
        while len(self._reached) > 1 and self._reached[1][0] <= now - self.settle_s:
            self._reached.popleft()
        complete = -1 if self._complete is None else self._complete
        if drained and not self._spikes.pending and self._reached[0][0] <= now - self.settle_s:
            # a program that stands still may have the spikes of its last blocks still to send: they must have grown old, too
            complete = max(complete, min(self._reached[0][1], newest - round(self.settle_s * self.sample_rate)))
        complete = max(complete, min(-1 if self._spikes.sure is None else self._spikes.sure, newest))
        self._complete = None if complete < 0 else complete

    def close(self) -> None:
        """Stop the run if it was started here, and let go of the sockets; may be called twice, and after an error."""
        control, self._control = self._control, None
        if control is not None:
            try:
                if self._started:
                    if self._seen is None:  # a stop that comes along with the run command would not be read
                        time.sleep(LINGER_S / 5)
                    control.say("set runmode stop;")
                    end = time.monotonic() + LINGER_S
                    while time.monotonic() < end and not (control.ask([]) == "" and control.mode == "Stop"):
                        time.sleep(0.01)
            except (OSError, RigError):
                pass  # it is gone, and stops for itself
            control.socket.close()
        for output in self._outputs:
            output.close()
        self._selector.close()
        self._outputs, self._started, self._runs = [], False, False


class _Edges:
    """Rising edges of one bit; one that is next to another change is a flicker. A sample is judged when the next is there."""

    def __init__(self, mask: int) -> None:
        self._mask = mask
        self.reset()

    def reset(self) -> None:
        self._before = np.empty(0, dtype=bool)  # the last three levels: change, change before, and what to judge it by

    def feed(self, begin: int, word: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Timestamps of rising edges and of flickers, up to the last sample but one."""
        level = (word & self._mask) != 0
        if not len(self._before):
            self._before = np.repeat(level[:1], 3)
        level = np.concatenate([self._before, level])
        self._before = level[-3:]
        change = level[1:] != level[:-1]
        alone = ~change[:-2] & ~change[2:]
        judged = change[1:-1]
        time = begin - 1 + np.arange(len(judged), dtype=np.int64)  # the first that is judged is the last of the block before
        return time[judged & alone & level[2:-1]], time[judged & ~alone]


class _Found:
    """What one call of `events` gathers, in samples."""

    def __init__(self) -> None:
        self.spike: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        self.channel: list[NDArray[np.intp]] = [np.empty(0, dtype=np.intp)]
        self.onset: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        self.faults: list[tuple[int | None, int | None, str]] = []

    def skipped(self, skips: Sequence[Skip], *, newest: int | None, more: int = 0) -> None:
        for skip in skips:
            what = f"{skip.what} ({skip.size} bytes)" if skip.size else skip.what
            self.faults.append((skip.after, (newest if skip.before is None else skip.before + more), what))

    def events(self, rate: int, complete: int | None) -> Events:
        onset = np.concatenate(self.onset)
        faults = [
            Fault(-np.inf if start is None else start / rate, np.inf if end is None else end / rate, f"intan: {what}")
            for start, end, what in self.faults
        ]
        return Events(
            np.concatenate(self.spike) / rate,
            np.concatenate(self.channel),
            onset / rate,
            np.full(len(onset), NO_NUMBER, dtype=np.int64),
            -np.inf if complete is None else complete / rate,
            tuple(faults),
        )
