"""Spikes from raw voltages: a causal high-pass, and the samples at which a threshold is crossed, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal

from neurogym_v.rigs import RigError


class ThresholdCrossings:
    """Finds negative crossings on all channels at once; what it finds does not depend on how the stream is cut into blocks.

    A Butterworth high-pass, then the samples below the threshold whose predecessor is not; those that follow one that was found
    by less than the refractory period are the same spike.

    Args:
        channels: number of them.
        sample_rate: Hz.
        threshold_uv: microvolts, below 0; one, or (channels,).
        order, cutoff_hz: of the high-pass.
        refractory_s: from one spike to the next on a channel, at least.

    Raises:
        RigError: a threshold that is not negative, or a cutoff that the sample rate does not allow.
    """

    def __init__(
        self,
        channels: int,
        sample_rate: float,
        *,
        threshold_uv: ArrayLike = -60.0,
        order: int = 2,
        cutoff_hz: float = 250.0,
        refractory_s: float = 1e-3,
    ) -> None:
        self._threshold = np.broadcast_to(np.asarray(threshold_uv, dtype=np.float64), channels)
        if not (self._threshold < 0).all():
            raise RigError(f"threshold: expected microvolts below 0, got {threshold_uv!r}")
        if not 0 < cutoff_hz < sample_rate / 2:
            raise RigError(f"high-pass: expected a cutoff between 0 and {sample_rate / 2:g} Hz, got {cutoff_hz:g} Hz")
        self.channels = channels
        self._refractory = round(refractory_s * sample_rate)
        self._sos = signal.butter(order, cutoff_hz, "highpass", fs=sample_rate, output="sos")
        self._at_rest: NDArray[np.float64] = signal.sosfilt_zi(self._sos)[:, :, None]
        self.reset()

    def reset(self) -> None:
        """Forget what came before, as after a gap. The filter begins as if the first sample had stood for ever."""
        self._state: NDArray[np.float64] | None = None
        self._below = np.zeros(self.channels, dtype=bool)
        self._seen = 0
        self._last = np.full(self.channels, -self._refractory, dtype=np.int64)

    def feed(self, microvolts: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of (n, channels) samples at which spikes begin, ascending, and the channel of each."""
        if not len(microvolts) or not self.channels:
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
        if self._state is None:
            self._state = self._at_rest * microvolts[0]
        filtered, self._state = signal.sosfilt(self._sos, microvolts, axis=0, zi=self._state)
        below = filtered < self._threshold
        crossed = below.copy()
        crossed[0] &= ~self._below
        crossed[1:] &= ~below[:-1]
        self._below = below[-1]
        row, channel = np.nonzero(crossed)
        first = self._first(row + self._seen, channel)
        self._seen += len(microvolts)
        return row[first], channel[first]

    def _first(self, sample: NDArray[np.intp], channel: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which crossings are no part of the spike before."""
        keep = np.ones(len(sample), dtype=bool)
        order = np.lexsort((sample, channel))
        same = np.diff(channel[order], prepend=-1) == 0
        since = np.where(same, np.diff(sample[order], prepend=0), sample[order] - self._last[channel[order]])
        for unit in np.unique(channel[order][since < self._refractory]):  # rare: only there one depends on the one before
            last = self._last[unit]
            for i in np.flatnonzero(channel == unit):
                keep[i] = sample[i] - last >= self._refractory
                last = sample[i] if keep[i] else last
        np.maximum.at(self._last, channel[keep], sample[keep])
        return keep
