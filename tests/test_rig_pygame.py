"""Windows: what is on their surface, pixel by pixel. When it is there cannot be told without a screen."""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurogym_v.rigs import RigError
from neurogym_v.rigs.displays import messages as m
from neurogym_v.rigs.displays.psychopy_window import PsychoPyWindow
from neurogym_v.rigs.displays.pygame_window import PygameWindow, gamma_table
from neurogym_v.rigs.displays.server import DisplayServer
from neurogym_v.types import NeuroGymError
from tests.test_rig_display_server import Peer, show

pygame = pytest.importorskip("pygame", reason="pygame is not installed")

SETUP = {"distance_cm": 57.3, "width_cm": 40.0, "image_deg": 4.0, "refresh_hz": 100.0}
WIDTH, HEIGHT = 1024, 768
"""Of SDL's dummy screen."""


@pytest.fixture(autouse=True)
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def window() -> Iterator[PygameWindow]:
    window = opened()
    yield window
    window.close()


def opened(**changed: Any) -> PygameWindow:
    window = PygameWindow(**(SETUP | changed))
    window.open()
    return window


def surface() -> np.ndarray[Any, Any]:
    """(height, width, 3) what is on the screen."""
    return pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)


def noise(side: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8)


def test_an_image_is_where_and_as_large_as_it_was_asked_for() -> None:
    window = opened(position_deg=(3.0, 2.0), patch_px=50)
    side = round(2 * 57.3 * math.tan(math.radians(2)) * WIDTH / 40)
    assert window.image_px == side == 102
    image = noise(side)
    window.load(["a"], image[None])
    window.flip("a", patch=True, at_s=0.0, number=0)
    x = (WIDTH - side) // 2 + round(57.3 * math.tan(math.radians(3)) * WIDTH / 40)
    y = (HEIGHT - side) // 2 - round(57.3 * math.tan(math.radians(2)) * WIDTH / 40)
    expected = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    expected[y : y + side, x : x + side] = image.transpose(1, 2, 0)
    expected[-50:, -50:] = 255
    np.testing.assert_array_equal(surface(), expected)
    window.flip(None, patch=False, at_s=0.0)
    expected[y : y + side, x : x + side] = 128
    expected[-50:, -50:] = 0
    np.testing.assert_array_equal(surface(), expected)
    window.close()


def test_images_are_resampled_without_aliasing(window: PygameWindow) -> None:
    """Stripes too fine for the screen become grey, not coarse stripes."""
    stripes = np.zeros((3, 512, 512), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    window.load(["a"], stripes[None])
    window.flip("a", patch=False, at_s=0.0, number=0)
    x, y = window.image_at
    shown = surface()[y : y + 102, x : x + 102][5:-5, 5:-5]
    assert np.abs(shown.astype(int) - 128).max() <= 6


@pytest.mark.parametrize("corner", ["lower right", "lower left", "upper right", "upper left"])
def test_the_patch_is_in_its_corner(corner: str) -> None:
    window = opened(patch_corner=corner, background=100)
    window.flip(None, patch=True, at_s=0.0)
    rows, columns = np.nonzero((surface() == 255).all(axis=2))
    assert (rows.min() == 0, columns.min() == 0) == (corner.startswith("upper"), corner.endswith("left"))
    assert len(rows) == 80 * 80 and np.ptp(rows) == np.ptp(columns) == 79
    assert (surface() == 100).all(axis=2).sum() == WIDTH * HEIGHT - 80 * 80
    window.close()


def test_the_dot_is_in_the_centre_before_images_of_any_brightness(window: PygameWindow) -> None:
    window.load(["white"], np.full((1, 3, 102, 102), 255, dtype=np.uint8))
    window.dot(True)
    for image, colour in ((None, 128), ("white", 255)):
        window.flip(image, patch=False, at_s=0.0, number=-1 if image is None else 0)
        around = surface()[HEIGHT // 2 - 10 : HEIGHT // 2 + 10, WIDTH // 2 - 10 : WIDTH // 2 + 10]
        assert (around[10, 10] == 255).all() and (around == 0).all(axis=2).any() and (around[0, 0] == colour).all()
    window.dot(False)
    window.flip(None, patch=False, at_s=0.0)
    assert (surface()[HEIGHT // 2, WIDTH // 2] == 128).all()


def test_gamma_is_corrected_everywhere(tmp_path: Path) -> None:
    table = np.stack([np.arange(256) // 2, np.arange(256)[::-1], np.full(256, 7)], axis=1)
    np.savetxt(tmp_path / "gamma.csv", table, delimiter=",", fmt="%d")
    window = opened(gamma=str(tmp_path / "gamma.csv"))
    image = noise(102)
    window.load(["a"], image[None])
    window.flip("a", patch=True, at_s=0.0, number=0)
    x, y = window.image_at
    expected = np.stack([table[image[channel], channel] for channel in range(3)], axis=-1)
    np.testing.assert_array_equal(surface()[y : y + 102, x : x + 102], expected)
    assert surface()[0, 0].tolist() == table[128].tolist() and surface()[-1, -1].tolist() == table[255].tolist()
    window.close()


def test_gamma_tables(tmp_path: Path) -> None:
    np.testing.assert_array_equal(gamma_table(None), np.repeat(np.arange(256)[:, None], 3, axis=1))
    table = gamma_table(2.2)[:, 1]
    # the light of half the values, and half the light
    assert table[0] == 0 and table[255] == 255 and round(255 * (table[128] / 255) ** 2.2) in (127, 128, 129)
    np.savetxt(tmp_path / "one.csv", np.arange(255, -1, -1.0))
    np.testing.assert_array_equal(gamma_table(str(tmp_path / "one.csv"))[:, 2], np.arange(256)[::-1])
    (tmp_path / "short.csv").write_text("1\n2\n")
    (tmp_path / "text.csv").write_text("red\n")
    for wrong, words in (
        (9.0, "from 0.2 to 5"),
        ("short.csv", "256 rows of 1 or 3"),
        ("text.csv", "256 rows"),
        ("no.csv", "256 rows"),
    ):
        with pytest.raises(NeuroGymError, match=words) as error:
            gamma_table(str(tmp_path / wrong) if isinstance(wrong, str) else wrong)
        assert "\n" not in str(error.value)


def test_flips_come_on_whole_frames_and_not_before_their_time(window: PygameWindow) -> None:
    times = [window.flip(None, patch=False, at_s=0.0)]
    for frames in (1, 3, 5):
        times.append(window.flip(None, patch=True, at_s=times[-1] + (frames - 0.5) / 100))
        late = times[-1] - times[-2] - frames / 100
        assert late > -1e-3  # how late depends on what else runs here


class Slow(PygameWindow):
    """One of its flips takes three frames too long."""

    clock, presented = 100.0, 0

    def _present(self) -> None:
        self.presented += 1
        Slow.clock += 0.0375 if self.presented == 5 else 0.0
        super()._present()


def test_dropped_frames_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[PygameWindow.__module__]
    monkeypatch.setattr(module, "time", Clock)
    window = Slow(**SETUP)
    window.open()
    for _ in range(5):
        window.flip(None, patch=False, at_s=0.0)
    assert window.dropped == 3
    window.close()


class Clock:
    """A time that passes only while one sleeps, and in `Slow`."""

    @staticmethod
    def monotonic() -> float:
        return Slow.clock

    @staticmethod
    def sleep(seconds: float) -> None:
        Slow.clock += seconds


def test_a_screen_without_frames_is_refused() -> None:
    with pytest.raises(RigError, match=r"expected flips that wait for the screen, measured .* a second"):
        opened(refresh_hz=None)


def test_the_refresh_rate_is_measured_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a real screen, where a flip waits for the next frame; two of them are dropped."""
    frames = itertools.count()

    class Real(PygameWindow):
        def _create(self) -> tuple[tuple[int, int], int, bool]:
            return (*super()._create()[:2], True)

        def _present(self) -> None:
            number = next(frames)
            Slow.clock += (1 + (number % 40 == 30)) / 59.94

    monkeypatch.setattr(sys.modules[PygameWindow.__module__], "time", Clock)
    for given in (None, 60.0):
        window = Real(**(SETUP | {"refresh_hz": given}))
        window.open()
        assert window.refresh_hz == pytest.approx(59.94)
    with pytest.raises(RigError, match=r"expected a screen of 75 Hz, measured 59\.94 Hz"):
        Real(**(SETUP | {"refresh_hz": 75.0})).open()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image_deg": 60.0}, "expected an image on the screen of 1024 x 768 pixels"),
        ({"position_deg": (18.0, 0.0)}, "expected an image on the screen"),
        ({"position_deg": (15.0, -10.0), "patch_px": 200}, "and beside the patch, got one of 102 pixels"),
        ({"screen": 3}, "expected a screen from 0 to 0, got 3"),
    ],
)
def test_a_screen_that_does_not_fit(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(RigError, match=words):
        opened(**changed)


@pytest.mark.parametrize("changed", [{"distance_cm": 0.0}, {"patch_corner": "left"}, {"background": 256}, {"refresh_hz": 5.0}])
def test_values_that_cannot_be(changed: dict[str, Any]) -> None:
    with pytest.raises(NeuroGymError, match="expected|did you mean"):
        PygameWindow(**(SETUP | changed))


@pytest.mark.parametrize("event", [{"type": pygame.QUIT}, {"type": pygame.KEYDOWN, "key": pygame.K_ESCAPE}])
def test_a_window_that_is_closed_ends_it(event: dict[str, int], window: PygameWindow) -> None:
    window.now()
    pygame.event.post(pygame.event.Event(event.pop("type"), event))
    window._looked_s = 0.0
    with pytest.raises(RigError, match="the window was closed, or Escape pressed"):
        window.now()
    window.close()
    window.close()


class Seen(PygameWindow):
    """Keeps what was on the screen with every flip."""

    def open(self) -> None:
        super().open()
        self.seen: list[np.ndarray[Any, Any]] = []

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:
        shown_s = super().flip(image, patch=patch, at_s=at_s, number=number)
        self.seen.append(surface())
        return shown_s


def test_a_server_shows_images_in_a_window() -> None:
    """The server has the thread that the window was made by, as window systems want it."""
    display, image, stop = Seen(**SETUP), noise(102), threading.Event()
    server = DisplayServer(display, address="tcp://127.0.0.1:0")
    server.open()

    def client() -> None:
        try:
            peer = Peer(server.address)
            assert peer.welcome.refresh_hz == 100
            peer.send(m.Images((m.name_of(image),), 102, 1, image[None]))
            peer.send(show([m.name_of(image)], on_s=0.02, off_s=0.02, fixation_s=0.02, response_s=0.05))
            told.extend(peer.until_over())
            peer.close()
        finally:
            stop.set()

    told: list[Any] = []
    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    server.serve(stop)
    thread.join(5)
    assert [type(message) for message in told if not isinstance(message, m.Onset)] == [m.Have, m.Over]
    (x, y), centre = display.image_at, (HEIGHT // 2, WIDTH // 2)
    first, second, *_, last = display.seen
    assert (first[centre] == 255).all() and (first[-1, -1] == 0).all()  # the dot
    np.testing.assert_array_equal(second[y : y + 40, x : x + 40], image.transpose(1, 2, 0)[:40, :40])
    assert (second[-1, -1] == 255).all() and (last[centre] == 128).all() and (last[-1, -1] == 0).all()
    server.close()


def test_without_psychopy_it_is_said_how_to_get_it() -> None:
    if find_spec("psychopy"):
        pytest.skip("PsychoPy is installed")
    with pytest.raises(NeuroGymError, match=r"display psychopy: expected the package psychopy, got: .*pip install"):
        PsychoPyWindow(**SETUP).open()
