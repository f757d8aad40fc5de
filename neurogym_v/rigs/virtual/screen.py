"""The screen of the virtual rig: what is put on it, its neuron sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs.virtual.world import World


class VirtualScreen:
    """A `Display` without a window.

    Args:
        refresh_hz: frames a second of the rig's clock.
    """

    def __init__(self, world: World, *, refresh_hz: float = 60.0) -> None:
        self.world, self.refresh_hz, self.pace = world, refresh_hz, world.clock.pace
        self._fixating = True

    def open(self) -> None:
        pass

    def now(self) -> float:
        return self.world.clock.now()

    def load(self, names: Sequence[str], images: NDArray[np.uint8]) -> None:
        self.world.load(names, images)

    def forget(self, names: Sequence[str]) -> None:
        """The world does so by itself."""

    def dot(self, lit: bool) -> None:
        """The simulated animal needs none."""

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:
        def frame(now_s: float) -> float:
            return math.ceil(max(at_s, now_s) * self.refresh_hz - 1e-6) / self.refresh_hz

        if image is not None:
            frame_s, self._fixating = self.world.appear(image, number, frame)
        else:
            frame_s = self.world.light(frame) if patch else self.world.darken(frame)
        self.world.clock.wait(frame_s)
        return frame_s

    def fixating(self) -> bool:
        fixating, self._fixating = self._fixating, True
        return fixating

    def close(self) -> None:
        pass
