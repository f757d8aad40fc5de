"""Windows on a real X server, without a screen: what it shows, pixel by pixel. Its frames mean nothing and are not measured.

Each window is opened by this file in a process of its own: window libraries stay with the first display that they find.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageGrab

from neurogym_v.rigs.displays.psychopy_window import PsychoPyWindow
from neurogym_v.rigs.displays.pygame_window import PygameWindow, Window

WINDOWS: dict[str, type[Window]] = {"pygame": PygameWindow, "psychopy": PsychoPyWindow}
SETUP = {"distance_cm": 57.3, "width_cm": 40.0, "image_deg": 4.0, "position_deg": (3.0, 2.0), "patch_px": 50}
SHAPE = (768, 1024, 3)
XVFB = shutil.which("Xvfb")


@pytest.mark.skipif(not XVFB, reason="Xvfb is not installed")
@pytest.mark.parametrize("name", WINDOWS)
def test_an_x_server_shows_what_was_asked_for(name: str, tmp_path: Path) -> None:
    if not find_spec(name):
        pytest.skip(f"{name} is not installed")
    command = [XVFB or "", "-displayfd", "1", "-screen", "0", f"{SHAPE[1]}x{SHAPE[0]}x24"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        named = {
            "DISPLAY": f":{server.stdout.readline().strip()}",
            "SDL_VIDEODRIVER": "x11",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "HOME": str(tmp_path),  # PsychoPy writes its preferences there
        }
        command = [sys.executable, "-m", "tests.test_rig_x_server", name]
        try:
            looked = subprocess.run(
                command, env=os.environ | named, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120
            )
        finally:
            server.terminate()
    assert looked.returncode == 0 and looked.stdout.endswith("all as asked for\n"), looked.stdout + looked.stderr


def look(name: str) -> None:
    """Open a window, and compare what the X server shows with what was to be shown."""
    window = WINDOWS[name](**SETUP)
    window._measured = lambda: 100.0  # type: ignore[method-assign]
    window.open()
    side, (x, y) = window.image_px, window.image_at
    assert side == 102 and x - (SHAPE[1] - side) // 2 == 77 and (SHAPE[0] - side) // 2 - y == 51, (side, x, y)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    window.load(["a", "b"], images)
    for image_name, image in zip(("a", "b"), images, strict=True):
        expected = np.full(SHAPE, 128, dtype=np.uint8)
        expected[y : y + side, x : x + side] = image.transpose(1, 2, 0)
        expected[-50:, -50:] = 255
        window.flip(image_name, patch=True, at_s=0.0, number=0)
        until_shown(expected)
        window.flip(None, patch=False, at_s=window.now() + 0.1)
        expected[y : y + side, x : x + side] = 128
        expected[-50:, -50:] = 0
        until_shown(expected)
    window.dot(True)
    window.flip(None, patch=False, at_s=window.now() + 0.1)
    expected[SHAPE[0] // 2, SHAPE[1] // 2] = 255
    until_shown(expected, at=(SHAPE[0] // 2, SHAPE[1] // 2))
    window.close()
    window.close()
    print("all as asked for", flush=True)


def until_shown(what: np.ndarray[Any, Any], at: Any = ...) -> None:
    """Wait for these (h, w, 3) pixels, or the one there; a flip is drawn by another process."""
    end = time.monotonic() + 5
    while True:
        found = np.asarray(ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).convert("RGB"))
        if np.array_equal(found[at], what[at]):
            return
        assert time.monotonic() < end, f"{(found != what).any(axis=-1).mean():.2%} of the pixels differ"
        time.sleep(0.05)


if __name__ == "__main__":
    look(sys.argv[1])
