"""A window with PsychoPy (https://psychopy.org/api/visual), for laboratories whose screens are set up with it.

It weighs 1.4 GB and is not installed with the other packages for tests. With PsychoPy 2026.2.5 on an X server without a screen,
images, patch, dot and grey were those asked for, pixel by pixel (tests/test_rig_x_server.py): look at the photodiode before you
rely on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neurogym_v.importing import require
from neurogym_v.rigs import RigError
from neurogym_v.rigs.displays.pygame_window import DOT_DEG, Window

SMALL = (800, 600)
"""Pixels of a window that does not fill the screen."""


class PsychoPyWindow(Window):
    """A `Display` that fills a screen, by PsychoPy: see `Window` for its parameters. Its own gamma correction is left alone.

    With `fullscreen` off, `width_cm` is that of the small window.
    """

    name = "psychopy"
    _window: Any = None

    def _create(self) -> tuple[tuple[int, int], int, bool]:
        self._visual = visual = require("psychopy.visual", user="display psychopy", extra="psychopy")
        self._event = require("psychopy.event", user="display psychopy", extra="psychopy")
        try:
            self._window = visual.Window(
                SMALL,
                screen=self.screen,
                fullscr=self.fullscreen,
                units="pix",
                color=self.grey,
                colorSpace="rgb255",
                allowGUI=not self.fullscreen,
                waitBlanking=True,
            )
        except Exception as error:  # of several window libraries
            raise RigError(f"display psychopy: expected a screen {self.screen}, got: {error}") from None
        width, height = (int(side) for side in self._window.size)
        self.size = (width, height)
        self._dots, self._patches = list[Any](), list[Any]()
        return self.size, width, True

    def _from_centre(self, corner: tuple[int, int], side: int) -> tuple[float, float]:
        """Pixels right of and above the centre, of the middle of a square whose upper left corner is there."""
        return corner[0] + side / 2 - self.size[0] / 2, self.size[1] / 2 - corner[1] - side / 2

    def _ready(self, image: NDArray[np.uint8]) -> Any:
        at = self._from_centre(self.image_at, self.image_px)
        size = (self.image_px, self.image_px)
        return self._visual.ImageStim(self._window, image=Image.fromarray(image), units="pix", size=size, pos=at, autoLog=False)

    def _draw(self, image: Any, patch: bool, dot: bool) -> None:
        if not self._patches:  # only now is it known where
            look = {"units": "pix", "colorSpace": "rgb255", "lineColor": None, "autoLog": False}
            at, side = self._from_centre(self.patch_at, self.patch_px), self.patch_px
            square = {"width": side, "height": side, "pos": at} | look
            self._patches = [self._visual.Rect(self._window, fillColor=c, **square) for c in (self.black, self.white)]
            radius = max(2, round(self.pixels(DOT_DEG / 2)))
            self._dots = [
                self._visual.Circle(self._window, radius=r, fillColor=c, **look)
                for r, c in ((radius + 1, self.black), (radius - 1, self.white))
            ]
        for stimulus in [*([] if image is None else [image]), *(self._dots if dot else []), self._patches[patch]]:
            stimulus.draw()

    def _present(self) -> None:
        self._window.flip()  # and clears what is drawn next to the window's grey

    def _wanted(self) -> bool:
        return "escape" not in self._event.getKeys(["escape"])

    def close(self) -> None:
        """May be called twice."""
        self.ready.clear()
        if self._window is not None:
            self._window.close()
        self._window = None
