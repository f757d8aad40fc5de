"""Screens: what `server.DisplayServer` puts images on when a remote presenter asks it to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Display(Protocol):
    """A screen with a photodiode patch. Its class takes whatever `[display]` of a rig file may set, as keywords."""

    refresh_hz: float
    """Known after `open`."""
    pace: float
    """Seconds of its clock in a second: 1, but for a virtual one that runs faster."""

    def open(self) -> None:
        """Show grey.

        Raises:
            RigError: there is no screen, or it is not as it was said to be.
        """

    def now(self) -> float:
        """Seconds of its own clock, which never goes back."""

    def load(self, names: Sequence[str], images: NDArray[np.uint8]) -> None:
        """Keep (n, 3, s, s) images ready under these names."""

    def forget(self, names: Sequence[str]) -> None:
        """Let go of images."""

    def dot(self, lit: bool) -> None:
        """Whether the next frames have the fixation dot."""

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:
        """Put an image (None: grey) and the patch, lit or dark, on the screen, at the first frame that is not before `at_s`;
        returns, after that frame was shown, when it was.

        Args:
            number: of the presentation that begins with it.
        """

    def fixating(self) -> bool:
        """Whether the gaze has rested where it should since this was last asked; True where nothing watches it."""

    def close(self) -> None:
        """May be called twice."""
