"""A display without a screen: its frames come by a clock. For tests, and to try a rig's wiring before there is an animal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import NeuroGymError


class Headless:
    """See the module.

    Args:
        refresh_hz: frames a second, of its own clock.
        pace: seconds of that clock in a second.

    Raises:
        NeuroGymError: one of them is not above 0.
    """

    def __init__(self, *, refresh_hz: float = 60.0, pace: float = 1.0) -> None:
        if not (1 <= refresh_hz <= 1000 and 0 < pace <= 1000):
            raise NeuroGymError(
                f"display headless: expected refresh_hz 1 to 1000 and pace up to 1000, got {refresh_hz} and {pace}"
            )
        self.refresh_hz, self.pace = refresh_hz, pace
        self.images: dict[str, NDArray[np.uint8]] = {}
        """What is ready, by name; (3, s, s) each."""
        self._origin, self._frame = time.monotonic(), -1

    def open(self) -> None:
        self._origin = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._origin) * self.pace

    def load(self, names: Sequence[str], images: NDArray[np.uint8]) -> None:
        self.images.update(zip(names, images, strict=True))

    def dot(self, lit: bool) -> None:
        """Nobody would see it."""

    def forget(self, names: Sequence[str]) -> None:
        for name in names:
            self.images.pop(name, None)

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:  # noqa: ARG002
        if image is not None:
            self.images[image]  # one that was never loaded is an error here, as on a screen
        frame = math.ceil(max(at_s, self.now()) * self.refresh_hz - 1e-6)
        self._frame = max(frame, self._frame + 1)
        at_s = self._frame / self.refresh_hz
        time.sleep(max(0.0, (at_s - self.now()) / self.pace))
        return at_s

    def fixating(self) -> bool:
        return True

    def close(self) -> None:
        self.images.clear()
