"""Two clocks as one: when, on the acquisition's clock, did what the display's clock says happen?

The display knows which image it showed and roughly when; the acquisition saw the photodiode light up, and knows exactly when
but not for what. An offset and a drift between the clocks join the two. The offset is found from flashes at irregular times,
which fit in one way only; drift and slow changes from the onsets that were matched since.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import RigError

LARGEST_DRIFT = 1e-3
"""Seconds a second; quartz clocks differ by 1e-4 at most, a wrong sample rate by much more."""
KEPT = 256
"""Matched onsets that offset and drift are estimated from."""
FEWEST, SETTLED_S = 24, 5.0
"""Onsets, and seconds between the two of each pair, before a drift is estimated: with less, jitter would pass for it."""


class Clocks:
    """The time of the display on the clock of the acquisition.

    Args:
        tolerance_s: how far a measured onset may lie from where the display's clock says it should be.
    """

    def __init__(self, tolerance_s: float) -> None:
        self.tolerance_s = tolerance_s
        self._pairs = deque[tuple[float, float]](maxlen=KEPT)
        self._at = self._offset = math.nan
        self.drift = 0.0
        """Seconds that the acquisition's clock gains in a second of the display's."""

    @property
    def aligned(self) -> bool:
        return math.isfinite(self._offset)

    @property
    def offset_s(self) -> float:
        """The acquisition's clock less the display's, at the last onset."""
        return self._offset

    @property
    def jitter_s(self) -> float:
        """S.d. of measured onsets around where the display's clock says, of those last matched."""
        display, onset = np.array(self._pairs).T
        return float((onset - display - self.drift * (display - display.mean())).std())

    def align(self, flashes_s: NDArray[np.float64], onsets_s: NDArray[np.float64]) -> None:
        """Find the offset from flashes (display's clock) among the onsets that were seen (acquisition's clock).

        Raises:
            RigError: they do not fit in just one way.
        """
        flashes, onsets = np.sort(flashes_s), np.sort(onsets_s)
        fits = []
        for onset in onsets:
            expected = flashes - flashes[0] + onset
            near = np.abs(onsets[:, None] - expected).min(axis=0)
            if (near <= self.tolerance_s).all():
                fits.append(onsets[np.abs(onsets[:, None] - expected).argmin(axis=0)])
        if len(fits) != 1:
            raise RigError(
                f"clocks: expected the {len(flashes)} flashes of the photodiode patch among the {len(onsets)} onsets of the "
                f"acquisition, in one way, and found {len(fits)} ways; is the photodiode on the patch and its line the one of "
                "[acquisition]?"
            )
        self._pairs.clear()
        self.drift = 0.0
        self._offset, self._at = float(np.median(fits[0] - flashes)), float(flashes[-1])
        for pair in zip(flashes, fits[0], strict=True):
            self.matched(*map(float, pair))

    def predict(self, display_s: float) -> float:
        """Acquisition's clock at a time of the display's."""
        return display_s + self._offset + self.drift * (display_s - self._at)

    def match(self, display_s: float, onsets_s: NDArray[np.float64]) -> NDArray[np.intp]:
        """Which onsets may be the one that the display showed then: indices, of none, one or several."""
        return np.flatnonzero(np.abs(onsets_s - self.predict(display_s)) <= self.tolerance_s)

    def matched(self, display_s: float, onset_s: float) -> None:
        """Learn from an onset whose time is known on both clocks.

        Raises:
            RigError: the clocks drift apart faster than clocks do.
        """
        self._pairs.append((display_s, onset_s))
        display, onset = np.array(self._pairs).T
        differences, half = onset - display, len(display) // 2
        apart_s = display[half:] - display[: len(display) - half]
        if len(display) >= FEWEST and apart_s.min() >= SETTLED_S:  # medians: single onsets may be off
            self.drift = float(np.median((differences[half:] - differences[: len(display) - half]) / apart_s))
        self._at = float(display.mean())
        self._offset = float(np.median(differences - self.drift * (display - self._at)))
        if abs(self.drift) > LARGEST_DRIFT:
            raise RigError(
                f"clocks: expected display and acquisition to drift by less than {LARGEST_DRIFT * 1e6:.0f} ppm, got "
                f"{self.drift * 1e6:.0f} ppm; is the sample rate right, and has neither been restarted?"
            )
