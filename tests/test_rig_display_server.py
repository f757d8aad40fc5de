"""The display server: what is on the screen frame by frame, what is said of it, and who may ask for it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
import pytest
import zmq

from neurogym_v.rigs import RigError
from neurogym_v.rigs.displays import Display
from neurogym_v.rigs.displays import messages as m
from neurogym_v.rigs.displays.headless import Headless
from neurogym_v.rigs.displays.server import DisplayServer

HZ = 100.0
T = TypeVar("T")


class Frames:
    """A display whose clock stands still between flips, so that every frame is known; keeps what was on the screen."""

    def __init__(self, late: dict[int, int] | None = None, leaves: Callable[[Frames], bool] = lambda _: False) -> None:
        self.refresh_hz, self.pace = HZ, 1e6
        self.at, self.log = 1000, list[tuple[str | None, bool, int]]()
        """Frame of the last flip, and (image, patch, frame) of each."""
        self.late, self.leaves, self.lit = late or {}, leaves, False
        self.ready, self.closed = dict[str, Any](), 0

    def open(self) -> None:
        pass

    def now(self) -> float:
        return self.at / HZ

    def load(self, names: Sequence[str], images: Any) -> None:
        self.ready.update(zip(names, images, strict=True))

    def forget(self, names: Sequence[str]) -> None:
        for name in names:
            del self.ready[name]

    def dot(self, lit: bool) -> None:
        self.lit = lit

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:
        assert image is None or image in self.ready
        assert (image is None) == (number < 0)
        self.at = max(self.at + 1, math.ceil(at_s * HZ - 1e-6)) + self.late.get(len(self.log), 0)
        self.log.append((image, patch, self.at))
        return self.now()

    def fixating(self) -> bool:
        return not self.leaves(self)

    def close(self) -> None:
        self.closed += 1

    @property
    def frames(self) -> list[tuple[str | None, bool, int]]:
        """What was on, from the first frame that was flipped."""
        return [(image, patch, frame - self.log[0][2]) for image, patch, frame in self.log]


class Peer:
    """A client that says just what it is told to."""

    def __init__(self, address: str, session: str = "a", hello: bool = True) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)
        self.heard: list[tuple[int, Any]] = []
        if hello:
            self.send(m.Hello(1, session))
            self.welcome = self.hear(m.Welcome)

    def send(self, message: Any) -> None:
        self.socket.send_multipart(m.encode(message))

    def take(self, timeout_s: float = 5.0) -> Any:
        if not self.socket.poll(int(1000 * timeout_s)):
            raise TimeoutError(f"nothing after {self.heard[-5:]}")
        self.heard.append(m.decode_reply(self.socket.recv_multipart()))
        return self.heard[-1][1]

    def hear(self, kind: type[T]) -> T:
        """The next of a kind; refusals that are not waited for are errors."""
        while not isinstance(message := self.take(), kind):
            if isinstance(message, m.Refused):
                raise RigError(message.why)
        return message

    def until_over(self) -> list[Any]:
        """All news up to the end of a fixation."""
        news: list[Any] = []
        while not news or not isinstance(news[-1], m.Over):
            news.append(self.take())
            if isinstance(news[-1], m.Refused):
                raise RigError(news[-1].why)
        return [message for message in news if not isinstance(message, m.Pong)]

    def prepare(self, count: int = 3, size: int = 4, seed: int = 0) -> tuple[str, ...]:
        message = images(count, size, seed)
        self.send(message)
        self.hear(m.Have)
        return message.names

    def close(self) -> None:
        self.socket.close()
        self.context.term()


def images(count: int = 3, size: int = 4, seed: int = 0) -> m.Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return m.Images(tuple(m.name_of(image) for image in pixels), size, count, pixels)


def show(names: Sequence[str], first: int = 0, **timing: float) -> m.Show:
    """10 frames on, 5 off, 30 of fixation; a response window of 17 frames."""
    given = {"on_s": 0.1, "off_s": 0.05, "fixation_s": 0.3, "inter_trial_s": 0.5, "response_s": 0.17, "flash_after_s": 0.0}
    return m.Show(numbers=tuple(range(first, first + len(names))), names=tuple(names), **(given | timing))  # type: ignore[arg-type]


@contextmanager
def serving(display: Display, **options: Any) -> Iterator[DisplayServer]:
    server, stop = DisplayServer(display, address="tcp://127.0.0.1:0", **options), threading.Event()
    server.open()
    thread = threading.Thread(target=lambda: suppressed(server, stop), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(5)
        server.close()
        assert not thread.is_alive()


def suppressed(server: DisplayServer, stop: threading.Event) -> None:
    with suppress(Exception):
        server.serve(stop)


def wait_for(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


@contextmanager
def talking(display: Display, **options: Any) -> Iterator[Peer]:
    with serving(display, **options) as server:
        peer = Peer(server.address)
        try:
            yield peer
        finally:
            peer.close()


def test_a_fixation_frame_by_frame() -> None:
    display = Frames()
    with talking(display) as peer:
        a, b, _ = peer.prepare()
        peer.send(show([a, b], first=7))
        news = peer.until_over()
    grey = (None, False)
    assert display.frames[:-1] == [(*grey, 0), (a, True, 30), (*grey, 40), (b, True, 45), (*grey, 55)]
    assert display.frames[-1][:2] == grey  # without the dot
    start = display.log[0][2]
    assert news == [m.Onset(7, (start + 30) / HZ, 0), m.Onset(8, (start + 45) / HZ, 0), m.Over(7)]


@pytest.mark.parametrize(("hz", "frames"), [(59.94, 6), (60.0, 6), (60.05, 6), (72.0, 8), (75.0, 8)])
def test_times_are_whole_frames_and_no_shorter(hz: float, frames: int) -> None:
    server = DisplayServer(Headless(refresh_hz=hz))
    assert server._frames(0.1) == frames


def test_fixations_keep_their_distance_and_the_dot_goes_off_between() -> None:
    display = Frames()
    with talking(display) as peer:
        names = peer.prepare()
        peer.send(show(names[:1], first=0))
        peer.until_over()
        wait_for(lambda: not display.lit)
        ended = display.at
        peer.send(show(names[:1], first=1, inter_trial_s=0.5))
        peer.until_over()
    assert display.log[4][2] - ended == 50


def test_frames_that_came_late_are_counted() -> None:
    display = Frames(late={1: 2, 4: 3})  # the first image, and the grey after the second
    with talking(display) as peer:
        a, b, _ = peer.prepare()
        peer.send(show([a, b]))
        news = peer.until_over()
    start = display.log[0][2]
    onsets = [(start + 32) / HZ, (start + 47) / HZ]
    assert news[:-1] == [m.Onset(0, onsets[0], 2), m.Onset(1, onsets[1], 0), m.Onset(1, onsets[1], 3)]


@pytest.mark.parametrize("after", [12, 40])
def test_the_patch_is_lit_once_more_at_the_end(after: int) -> None:
    display = Frames()
    with talking(display) as peer:
        a, b, _ = peer.prepare()
        peer.send(show([a, b], flash_after_s=after / HZ))
        news = peer.until_over()
    lit = 45 + after
    assert [entry for entry in display.frames if entry[0] is None and entry[1]] == [(None, True, lit)]
    assert display.frames[display.frames.index((None, True, lit)) + 1] == (None, False, lit + 3)
    assert [message.times_s for message in news if isinstance(message, m.Flashed)] == [((display.log[0][2] + lit) / HZ,)]
    assert isinstance(news[-1], m.Over)


def test_flashes_are_on_grey_and_when_they_were_asked_for() -> None:
    display = Frames()
    with talking(display) as peer:
        peer.send(m.Flash((0.05, 0.15, 0.22)))
        times = [peer.hear(m.Flashed).times_s[0] for _ in range(3)]
    assert [round((s - 10) * HZ) for s in times] == [5, 15, 22]
    assert [(image, patch) for image, patch, _ in display.log[:4]] == [(None, True), (None, False)] * 2


def test_a_fixation_that_breaks_is_ended_at_once() -> None:
    """The gaze leaves with the third image; the window of the first is over, that of the second is not."""
    display = Frames(leaves=lambda frames: sum(patch for _, patch, _ in frames.log) == 3)
    with talking(display) as peer:
        a, b, c = peer.prepare()
        peer.send(show([a, b, c, a], flash_after_s=0.2))
        news = peer.until_over()
    assert [message.number for message in news if isinstance(message, m.Onset)] == [0, 1, 2]
    assert [message.number for message in news if isinstance(message, m.Broken)] == [1, 2, 3]
    *_, third, grey, flash, _, _ = display.frames
    assert third == (c, True, 60) and grey == (None, False, 61)
    assert flash == (None, True, 80)  # streams that fall silent are told of, the more so
    assert isinstance(news[-1], m.Over)


def test_what_was_never_on_may_be_asked_for_again_under_its_number() -> None:
    display = Frames(leaves=lambda frames: sum(patch for _, patch, _ in frames.log) == 1)
    with talking(display) as peer:
        names = peer.prepare()
        peer.send(show(names))
        peer.until_over()
        display.leaves = lambda _: False
        peer.send(show(names[1:], first=1))
        assert [message.number for message in peer.until_over()[:-1]] == [1, 2]


def test_a_gaze_that_never_comes_sees_nothing() -> None:
    display = Frames(leaves=lambda _: True)
    with talking(display) as peer:
        names = peer.prepare()
        peer.send(show(names, flash_after_s=0.2))
        assert peer.until_over() == [m.Broken(0), m.Broken(1), m.Broken(2), m.Over(0)]
    assert not any(patch for _, patch, _ in display.log)


class Watched(Headless):
    """Its gaze leaves after a time, and comes back; keeps what it showed."""

    def __init__(self, leaves_s: float = math.inf, **options: float) -> None:
        super().__init__(**options)
        self.leaves_s, self.onset_s = leaves_s, math.inf
        self.log: list[tuple[str | None, bool, float]] = []

    def flip(self, image: str | None, *, patch: bool, at_s: float, number: int = -1) -> float:
        shown_s = super().flip(image, patch=patch, at_s=at_s, number=number)
        if image is not None:
            self.onset_s = min(self.onset_s, shown_s)
        self.log.append((image, patch, shown_s))
        return shown_s

    def fixating(self) -> bool:
        return not self.leaves_s <= self.now() - self.onset_s < self.leaves_s + 0.2


@pytest.mark.parametrize("leaves_s", [0.2, 1.6])
def test_the_gaze_is_watched_between_frames_to_the_end_of_the_last_window(leaves_s: float) -> None:
    display = Watched(leaves_s, pace=5.0)
    with talking(display) as peer:
        (name, *_) = peer.prepare()
        peer.send(show([name], on_s=1.0, response_s=2.0))
        assert peer.until_over()[1:] == [m.Broken(0), m.Over(0)]


def test_a_fixation_is_not_over_before_its_last_response_window() -> None:
    display = Watched(pace=10.0)
    with talking(display) as peer:
        names = peer.prepare()
        peer.send(show(names[:2], response_s=2.0))
        *_, last, over = peer.until_over()
        assert isinstance(over, m.Over)
        assert last.onset_s + 2.0 <= display.log[-1][2] < last.onset_s + 4.0


def test_images_are_made_ready_and_pings_answered_while_a_fixation_runs() -> None:
    display = Watched(pace=4.0)
    with talking(display) as peer:
        (name, *_) = peer.prepare()
        peer.send(show([name], on_s=2.0, response_s=2.5))
        peer.hear(m.Onset)
        later = images(5, seed=1)
        peer.send(later)
        peer.send(m.Ping(5))
        news = peer.until_over()
        assert m.Have(later.names, ()) in news and isinstance(news[-1], m.Over)
        assert any(isinstance(message, m.Pong) and message.id == 5 for _, message in peer.heard)
        assert set(later.names) <= display.images.keys()
        np.testing.assert_array_equal(display.images[later.names[3]], later.pixels[3])


def test_heartbeats_go_on_while_a_fixation_runs() -> None:
    with talking(Headless(pace=2.0)) as peer:
        (name, *_) = peer.prepare()
        peer.send(show([name], on_s=1.0, response_s=1.2, inter_trial_s=0.0))
        peer.hear(m.Onset)
        began = time.monotonic()
        peer.hear(m.Pong)
        peer.hear(m.Pong)
        assert time.monotonic() - began < 0.6
        peer.hear(m.Over)
    assert [seq for seq, _ in peer.heard] == list(range(len(peer.heard)))


def test_the_oldest_images_are_let_go_of_and_it_is_said() -> None:
    display = Frames()
    with talking(display, kept=4) as peer:
        old = peer.prepare(3)
        new = images(3, seed=1)
        peer.send(new)
        assert peer.hear(m.Have) == m.Have(new.names, old[:2])
        assert set(display.ready) == {old[2], *new.names}
        peer.send(show(old[:1]))
        with pytest.raises(RigError, match=f"1 are not, the first {old[0]}; send them again"):
            peer.until_over()


def test_images_of_the_fixation_that_runs_stay() -> None:
    display = Watched(pace=4.0)
    with talking(display, kept=3) as peer:
        old = peer.prepare(3)
        peer.send(show(old[:2], on_s=1.0, response_s=1.0))
        peer.hear(m.Onset)
        new = images(2, seed=1)
        peer.send(new)
        assert peer.hear(m.Have).dropped == (old[2], new.names[0])
        assert peer.hear(m.Onset).number == 1
        peer.hear(m.Over)


@pytest.mark.parametrize(
    ("timing", "why"),
    [
        ({"first": 1}, "expected numbers that were not shown yet, got 1 again"),
        ({"first": 5, "off_s": 0.0}, "expected a frame of grey between images"),
    ],
)
def test_what_cannot_be_shown_is_refused(timing: dict[str, Any], why: str) -> None:
    display = Frames()
    with talking(display) as peer:
        names = peer.prepare()
        peer.send(show(names[:2]))
        peer.until_over()
        flips = len(display.log)
        peer.send(show(names[:2], **timing))
        with pytest.raises(RigError, match=why):
            peer.until_over()
        assert len(display.log) == flips


def test_one_fixation_at_a_time() -> None:
    with talking(Headless(pace=4.0)) as peer:
        names = peer.prepare()
        peer.send(show(names[:1], on_s=1.0))
        peer.send(show(names[:1], first=9))
        with pytest.raises(RigError, match="expected fixation 9 after the one before was over"):
            peer.until_over()
        assert peer.until_over()[-1] == m.Over(0)
