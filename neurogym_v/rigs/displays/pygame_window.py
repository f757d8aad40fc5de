"""A window with SDL (pygame) that fills a screen, and what is the same for every window: sizes, gamma and frames.

A time that a flip gives is that of the blanking after which the frame is drawn, as far as the driver tells; the screen lights
up some milliseconds later. What counts is the photodiode on the patch.
"""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neurogym_v.importing import require
from neurogym_v.naming import nearest
from neurogym_v.rigs import RigError
from neurogym_v.types import NeuroGymError

CORNERS = ("lower right", "lower left", "upper right", "upper left")
MEASURED = 60
"""Flips that the refresh rate is measured over."""
TOLERANCE = 0.02
"""By which it may differ from the given one."""
SLOWEST_HZ, FASTEST_HZ = 20.0, 500.0
"""Beyond, flips do not wait for the screen."""
SYNC_S = 2.0
"""After so long without a flip, one does not know any more when frames are due."""
EVENTS_S = 0.1
"""Between looks at what the window system wants, which takes a window that never looks for dead."""
DOT_DEG = 0.2
"""Diameter of the fixation dot."""


def gamma_table(gamma: float | str | None) -> NDArray[np.uint8]:
    """(256, 3) what is sent to the screen for every value of an image, red, green and blue.

    Args:
        gamma: the screen's exponent; or the path of a table of 256 rows, one column or three, of values 0 to 255 (the inverse
            of what a photometer measured); None: images go to the screen as they are.

    Raises:
        NeuroGymError: no such table, or an exponent out of range.
    """
    ramp = np.arange(256) / 255
    if gamma is None:
        table = 255 * ramp
    elif isinstance(gamma, str):
        try:
            table = np.loadtxt(Path(gamma), delimiter=",", ndmin=2)
        except (OSError, ValueError) as error:
            raise NeuroGymError(
                f"gamma: expected a table of 256 rows, got {gamma!r}: {str(error).partition(chr(10))[0]}"
            ) from None
        if table.shape not in ((256, 1), (256, 3)) or not (
            np.isfinite(table).all() and table.min() >= 0 and table.max() <= 255
        ):
            raise NeuroGymError(f"gamma: expected 256 rows of 1 or 3 values from 0 to 255, got {table.shape} in {gamma!r}")
    elif 0.2 <= gamma <= 5:
        table = 255 * ramp ** (1 / gamma)
    else:
        raise NeuroGymError(f"gamma: expected an exponent from 0.2 to 5, such as 2.2, got {gamma}")
    return np.ascontiguousarray(np.broadcast_to(table.reshape(256, -1), (256, 3)).round().astype(np.uint8))


class Window(ABC):
    """A `Display` in a window; the libraries differ in how they draw.

    Args:
        distance_cm: from the eye to the screen.
        width_cm: of the screen's picture.
        image_deg: side of an image, degrees of visual angle.
        position_deg: of its centre from that of the screen, where the fixation dot is: (right, up).
        screen: which, from 0.
        gamma: see `gamma_table`.
        patch_px: side of the photodiode's patch.
        patch_corner: where it is; one of CORNERS.
        background: grey, 0 to 255.
        fullscreen: off, to try things out in a small window.
        refresh_hz: what the screen must have; None: whatever is measured.

    Raises:
        NeuroGymError: a value that cannot be.
    """

    pace = 1.0
    name = "window"

    def __init__(
        self,
        *,
        distance_cm: float,
        width_cm: float,
        image_deg: float,
        position_deg: tuple[float, float] = (0.0, 0.0),
        screen: int = 0,
        gamma: float | str | None = None,
        patch_px: int = 80,
        patch_corner: str = "lower right",
        background: int = 128,
        fullscreen: bool = True,
        refresh_hz: float | None = None,
    ) -> None:
        if not (distance_cm > 0 and width_cm > 0 and 0 < image_deg < 120 and max(map(abs, position_deg)) < 80):
            raise NeuroGymError(
                f"display {self.name}: expected distance_cm and width_cm above 0, image_deg below 120 and position_deg below "
                f"80, got {distance_cm}, {width_cm}, {image_deg} and {position_deg}"
            )
        if patch_corner not in CORNERS:
            raise nearest("patch_corner", patch_corner, CORNERS)
        if not (0 <= background <= 255 and patch_px >= 1 and (refresh_hz is None or SLOWEST_HZ <= refresh_hz <= FASTEST_HZ)):
            raise NeuroGymError(
                f"display {self.name}: expected a background of 0 to 255, patch_px above 0 and refresh_hz from "
                f"{SLOWEST_HZ:g} to {FASTEST_HZ:g}, got {background}, {patch_px} and {refresh_hz}"
            )
        self.distance_cm, self.width_cm, self.image_deg, self.position_deg = distance_cm, width_cm, image_deg, position_deg
        self.screen, self.fullscreen, self.patch_px, self.patch_corner = screen, fullscreen, patch_px, patch_corner
        self._gamma, self._given_hz = gamma_table(gamma), refresh_hz
        self.grey, self.black, self.white = (tuple(self._gamma[v].tolist()) for v in (background, 0, 255))
        self.refresh_hz, self.dropped = math.nan, 0
        """`dropped` counts the frames by which flips came later than they were due."""
        self.ready: dict[str, Any] = {}
        """Images as the library draws them, by name."""
        self._on: tuple[Any, bool, bool] = None, False, False
        self._dot, self._last_s, self._looked_s = False, 0.0, 0.0

    @abstractmethod
    def _create(self) -> tuple[tuple[int, int], int, bool]:
        """Make the window: its size, how many pixels the screen is wide, and whether it has frames of its own (or none)."""

    @abstractmethod
    def _ready(self, image: NDArray[np.uint8]) -> Any:
        """An (h, w, 3) image as the library draws it."""

    @abstractmethod
    def _draw(self, image: Any, patch: bool, dot: bool) -> None:
        """An image or None, the patch and the dot, on grey; not shown yet."""

    @abstractmethod
    def _present(self) -> None:
        """Show what was drawn at the next frame; on most systems it returns after that."""

    @abstractmethod
    def _wanted(self) -> bool:
        """Whether the window is to stay; answers the window system."""

    def open(self) -> None:
        """See `Display`.

        Raises:
            RigError: no such screen, an image that is not wholly on it, or another refresh rate than was given.
        """
        self.size, pixels, real = self._create()
        self.pixels_per_cm = pixels / self.width_cm
        self.image_px = round(self.pixels(self.image_deg / 2) * 2)
        x, y = (round(self.pixels(deg)) for deg in self.position_deg)
        self.image_at = (self.size[0] - self.image_px) // 2 + x, (self.size[1] - self.image_px) // 2 - y
        vertical, horizontal = self.patch_corner.split()
        self.patch_at = (
            self.size[0] - self.patch_px if horizontal == "right" else 0,
            self.size[1] - self.patch_px if vertical == "lower" else 0,
        )
        inside = all(0 <= at <= side - self.image_px for at, side in zip(self.image_at, self.size, strict=True))
        apart = any(
            image + self.image_px <= patch or patch + self.patch_px <= image
            for image, patch in zip(self.image_at, self.patch_at, strict=True)
        )
        if self.image_px < 1 or not inside or not apart:
            raise RigError(
                f"display {self.name}: expected an image on the screen of {self.size[0]} x {self.size[1]} pixels and beside "
                f"the patch, got one of {self.image_px} pixels at {self.image_at}; check distance_cm, width_cm, image_deg and "
                "position_deg"
            )
        self._draw(*self._on)
        if real or self._given_hz is None:
            self.refresh_hz = self._agreed(self._measured())
        else:
            self.refresh_hz = self._given_hz
        self._draw(*self._on)
        self._present()
        self._last_s = self.now()

    def pixels(self, degrees: float) -> float:
        """From the centre of the screen to what is seen so far from it."""
        return math.tan(math.radians(degrees)) * self.distance_cm * self.pixels_per_cm

    def _measured(self) -> float:
        """Frames a second, over flips one after the other."""
        times = []
        for _ in range(MEASURED + 10):  # the first may find a queue to fill
            self._present()
            times.append(time.monotonic())
        intervals = np.diff(times[10:])
        usual = np.abs(intervals - np.median(intervals)) <= 0.1 * np.median(intervals)  # without those of dropped frames
        return float(1 / max(intervals[usual].mean(), 1e-9))

    def _agreed(self, measured: float) -> float:
        if not SLOWEST_HZ <= measured <= FASTEST_HZ:
            raise RigError(
                f"display {self.name}: expected flips that wait for the screen, measured {measured:.4g} a second; switch "
                "vertical synchronisation on, and compositing off, in the graphics driver"
            )
        if self._given_hz is not None and abs(measured / self._given_hz - 1) > TOLERANCE:
            raise RigError(f"display {self.name}: expected a screen of {self._given_hz:g} Hz, measured {measured:.2f} Hz")
        return measured

    def now(self) -> float:
        """See `Display`.

        Raises:
            RigError: somebody closed the window.
        """
        now = time.monotonic()
        if now - self._looked_s > EVENTS_S:
            self._looked_s = now
            if not self._wanted():
                raise RigError(f"display {self.name}: the window was closed, or Escape pressed")
        return now

    def load(self, names: Sequence[str], images: NDArray[np.uint8]) -> None:
        """See `Display`: resampled to their size on the screen, once, and looked up in the gamma table."""
        for name, image in zip(names, images, strict=True):
            pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
            side = (self.image_px, self.image_px)
            if pixels.shape[:2] != side:
                pixels = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.LANCZOS))
            self.ready[name] = self._ready(np.ascontiguousarray(self._gamma[pixels, np.arange(3)]))

    def forget(self, names: Sequence[str]) -> None:
        """Let go of images."""
        for name in names:
            self.ready.pop(name, None)

    def dot(self, lit: bool) -> None:
        """Whether the next frames have the fixation dot."""
        self._dot = lit

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:  # noqa: ARG002
        """See `Display`."""
        frame_s = 1 / self.refresh_hz
        if self.now() - self._last_s > SYNC_S:
            for _ in range(3):  # of what is on: queued frames return at once, at the latest the third waits
                self._draw(*self._on)
                self._present()
            self._last_s = time.monotonic()
        self._on = (None if image is None else self.ready[image], patch, self._dot)
        self._draw(*self._on)
        frames = max(1, math.ceil((max(at_s, time.monotonic()) - self._last_s) / frame_s - 1e-3))
        due_s = self._last_s + frames * frame_s
        time.sleep(max(0.0, due_s - 0.75 * frame_s - time.monotonic()))  # not for the frame before
        self._present()
        shown_s = time.monotonic()
        if shown_s < due_s - frame_s / 4:  # it was queued
            time.sleep(due_s - shown_s)
            shown_s = time.monotonic()
        self.dropped += max(0, round((shown_s - due_s) / frame_s))
        self._last_s = shown_s
        return shown_s

    def fixating(self) -> bool:
        """See `Display`; for an eye tracker, override it."""
        return True

    @abstractmethod
    def close(self) -> None:
        """May be called twice."""


class PygameWindow(Window):
    """A `Display` that fills a screen, by SDL: see `Window` for its parameters. Escape ends it."""

    name = "pygame"

    def _create(self) -> tuple[tuple[int, int], int, bool]:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        self._pygame = pygame = require("pygame", user="display pygame", extra="live")
        try:
            pygame.display.init()
            desktops = pygame.display.get_desktop_sizes()
            if not 0 <= self.screen < len(desktops):
                raise RigError(f"display pygame: expected a screen from 0 to {len(desktops) - 1}, got {self.screen}")
            real = pygame.display.get_driver() != "dummy"
            size = desktops[self.screen] if self.fullscreen else tuple(side * 3 // 4 for side in desktops[self.screen])
            flags = pygame.FULLSCREEN if self.fullscreen else 0
            if real:  # SDL synchronises scaled windows alone; there is nothing to scale
                flags |= pygame.SCALED
            self._surface = pygame.display.set_mode(size, flags, display=self.screen, vsync=int(real))
        except pygame.error as error:
            raise RigError(f"display pygame: expected a screen, got: {error}") from None
        pygame.mouse.set_visible(not self.fullscreen)
        return self._surface.get_size(), desktops[self.screen][0], real

    def _ready(self, image: NDArray[np.uint8]) -> Any:
        return self._pygame.image.frombuffer(image.tobytes(), image.shape[1::-1], "RGB").convert(self._surface)

    def _draw(self, image: Any, patch: bool, dot: bool) -> None:
        self._surface.fill(self.grey)
        if image is not None:
            self._surface.blit(image, self.image_at)
        if dot:
            centre, radius = (self.size[0] // 2, self.size[1] // 2), max(2, round(self.pixels(DOT_DEG / 2)))
            self._pygame.draw.circle(self._surface, self.black, centre, radius + 1)  # seen on images of any brightness
            self._pygame.draw.circle(self._surface, self.white, centre, radius - 1)
        self._surface.fill(self.white if patch else self.black, (*self.patch_at, self.patch_px, self.patch_px))

    def _present(self) -> None:
        self._pygame.display.flip()

    def _wanted(self) -> bool:
        pygame = self._pygame
        events = pygame.event.get()
        return not any(e.type == pygame.QUIT or (e.type == pygame.KEYDOWN and e.key == pygame.K_ESCAPE) for e in events)

    def close(self) -> None:
        """May be called twice."""
        self.ready.clear()
        if pygame := getattr(self, "_pygame", None):
            pygame.display.quit()
