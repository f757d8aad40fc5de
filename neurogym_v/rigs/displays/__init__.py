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
        """Whether the gaze rests where it should now; True where nothing watches it.

        Asked about once a frame by one thread, from the moment the first image of a fixation is due until the last response
        window is over; what was before, while the eye was on its way to the dot, does not count. Must not wait.
        """

    def close(self) -> None:
        """May be called twice."""
