"""Windows around an onset, and the spikes in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs.recorder import SAME_S
from neurogym_v.types import NeuroGymError


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What of a response counts; seconds after the measured onset.

    Raises:
        NeuroGymError: windows that are none.
    """

    response_s: tuple[float, float] = (0.07, 0.17)
    baseline_s: tuple[float, float] | None = None
    """Its rate is subtracted."""

    def __post_init__(self) -> None:
        for name, window in (("response", self.response_s), ("baseline", self.baseline_s)):
            if window is not None and not (len(window) == 2 and -1 <= window[0] < window[1] <= 5):
                raise NeuroGymError(
                    f"{name} window: expected a start before an end, within -1 and 5 s of the onset, got {window}"
                )
        if self.response_s[0] < 0:
            raise NeuroGymError(f"response window: expected one that starts after the onset, got {self.response_s[0]} s")

    @property
    def start_s(self) -> float:
        """Of all windows."""
        return min(self.response_s[0], *(self.baseline_s or ()), 0.0)

    @property
    def end_s(self) -> float:
        return max(self.response_s[1], *(self.baseline_s or (0.0,)))

    def rates(
        self, spike_s: NDArray[np.float64], channel: NDArray[np.intp], channels: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(channels,) spikes in the response window and (channels,) spikes/s, of spikes at these times from the onset."""
        counts = _count(spike_s, channel, self.response_s, channels)
        rates = counts / (self.response_s[1] - self.response_s[0])
        if self.baseline_s:
            rates = rates - _count(spike_s, channel, self.baseline_s, channels) / (self.baseline_s[1] - self.baseline_s[0])
        return counts, rates


def _count(
    spike_s: NDArray[np.float64], channel: NDArray[np.intp], window_s: tuple[float, float], channels: int
) -> NDArray[np.int64]:
    inside = (spike_s >= window_s[0] - SAME_S) & (spike_s < window_s[1] - SAME_S)
    return np.bincount(channel[inside], minlength=channels).astype(np.int64)
