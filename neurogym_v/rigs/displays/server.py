"""The display server: puts images on a screen when a client asks for them, and says when they appeared.

One thread does everything, because frames must not wait for locks: while it waits for a frame to come it answers its client,
and makes images ready for which there is time. `messages` has the protocol.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from neurogym_v.importing import require
from neurogym_v.rigs import RigError
from neurogym_v.rigs.displays import Display, keys
from neurogym_v.rigs.displays import messages as m

KEPT = m.MAX_NAMES
"""Images that stay ready."""
WAITING = 8
"""Requests of images that may wait, and of flashes and fixations."""
UNREAD = 10_000
"""Messages that wait for a client that does not read; then it counts as gone."""
FLASH_S = 0.03
"""The patch is lit without an image for so long: two frames of most screens, so that no photodiode misses it."""
IDLE_S = 0.05
"""Between looks at whether to stop."""
SLACK_S = 0.0005
"""Wall clock; with a frame and a half it is left to the display to wait for its frame itself."""
SAME = 0.1
"""Frames: a screen of 60.05 Hz shows 100 ms as 6 frames, not as 7."""


class _Stop(Exception):
    """The server is to end."""


class _Broken(Exception):
    """The gaze has left the fixation dot."""


@dataclass(slots=True)
class _Client:
    identity: bytes
    session: str
    seq: int = 0
    outbox: deque[list[bytes]] = field(default_factory=deque)


class DisplayServer:
    """See the module.

    Args:
        display: what it shows things on; opened and closed with the server, used by the thread that calls `serve` alone.
        address: where it listens; port 0 takes a free one.
        secret_key: the server's file of `keys.make_keys`; needed where other machines can reach the address.
        client_keys: the folder with the public keys of clients.
        kept: images that stay ready; the oldest are let go.

    Raises:
        NeuroGymError: an address that other machines can reach, without keys.
    """

    def __init__(
        self,
        display: Display,
        *,
        address: str = "tcp://127.0.0.1:5580",
        secret_key: str = "",
        client_keys: str = "",
        kept: int = KEPT,
    ) -> None:
        keys.check_address("display server", address, keys=bool(secret_key))
        self.display, self.address, self.kept = display, address, kept
        self._secret_key, self._client_keys = secret_key, client_keys
        self._zmq: Any = None
        self._context: Any = None
        self._socket: Any = None
        self._guard: Any = None
        self._client: _Client | None = None
        self._session, self._running, self._shown = "", "", set[int]()
        """Whose numbers are remembered, whose fixation runs, and those numbers."""
        self._names: dict[str, None] = {}
        """Of images that are ready, the oldest first."""
        self._pinned: tuple[str, ...] = ()
        self._batches, self._load_s = deque[tuple[str, m.Images, list[str]]](), 0.0
        self._jobs = deque[tuple[str, m.Show | m.Flash]]()
        self._ended_s, self._looked_s, self._beat_at = -math.inf, -math.inf, 0.0
        self._stop = threading.Event()

    def open(self) -> None:
        """Open the display, and listen; `address` then has the port.

        Raises:
            RigError: no screen, or an address that cannot be had.
            NeuroGymError: keys that are none.
        """
        self._zmq = zmq = require("zmq", user="display server", extra="live")
        try:
            self._context = zmq.Context()
            self._socket = self._context.socket(zmq.ROUTER)
            self._socket.router_mandatory = 1  # says when a client is gone ...
            self._socket.heartbeat_ivl, self._socket.heartbeat_timeout = 1000, 3000  # ... even one whose cable was pulled
            self._socket.maxmsgsize, self._socket.rcvhwm, self._socket.linger = m.MAX_FRAME, 16, 200
            if self._secret_key:
                self._guard = keys.secure_server(self._context, self._socket, self._secret_key, self._client_keys)
            try:
                self._socket.bind(self.address)
            except zmq.ZMQError as error:
                raise RigError(f"display server: expected to listen at {self.address}, got: {error.strerror}") from None
            self.address = self._socket.last_endpoint.decode()
            self.display.open()
        except BaseException:
            self.close()
            raise

    def serve(self, stop: threading.Event | None = None) -> None:
        """Until `stop` is set, or the display fails.

        Raises:
            RigError: the display failed; the client was told.
        """
        self._stop = stop or threading.Event()
        try:
            while not self._stop.is_set():
                if self._batches:
                    self._load_one()
                elif self._jobs:
                    self._do(*self._jobs.popleft())
                self._answer(0.0 if self._batches or self._jobs else IDLE_S)
        except _Stop:
            pass
        except Exception as error:
            self._tell(m.refusal(f"the display failed: {error}"))
            raise

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        self.display.close()
        if self._guard is not None:
            self._guard.stop()
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
        self._guard = self._socket = self._context = self._client = None

    # ---- what clients say, and are told

    def _answer(self, wait_s: float) -> None:
        """Take one message, waiting so long for it; keep the client's patience up."""
        if time.monotonic() >= self._beat_at:
            self._beat()
        if not self._socket.poll(int(1000 * min(wait_s, max(0.0, self._beat_at - time.monotonic())))):
            return
        identity, *frames = self._socket.recv_multipart()
        mine = self._client is not None and self._client.identity == identity
        try:
            message = m.decode(frames)
            if isinstance(message, m.Hello):
                self._hello(identity, message)
            elif mine:
                self._request(message)
            else:
                raise RigError("expected a hello first; this server was started, or taken over by another client, since")
        except RigError as error:
            if mine:
                self._tell(m.refusal(error))
            else:
                with suppress(self._zmq.ZMQError):  # it may not have waited for the answer
                    self._socket.send_multipart([identity, *m.encode_reply(0, m.refusal(error))], self._zmq.NOBLOCK)

    def _request(self, message: m.Images | m.Flash | m.Show | m.Ping) -> None:
        match message:
            case m.Ping():
                self._tell(m.Pong(message.id, self.display.now()))
            case m.Images():
                if len(self._batches) >= WAITING:
                    raise RigError(f"expected at most {WAITING} messages of images before `have` is sent")
                self._batches.append((self._session, message, []))
            case m.Show() | m.Flash():
                waiting = any(isinstance(job, m.Show) for _, job in self._jobs)
                if isinstance(message, m.Show) and (waiting or self._running == self._session):
                    raise RigError(f"expected fixation {message.numbers[0]} after the one before was over")
                if len(self._jobs) >= WAITING:
                    raise RigError(f"expected at most {WAITING} requests that wait")
                self._jobs.append((self._session, message))

    def _hello(self, identity: bytes, message: m.Hello) -> None:
        if self._client and self._client.identity != identity and self._client.session != message.session:
            self._beat()  # fails where it is gone
            if self._client:
                raise RigError(f"expected no other client, but that of session {self._client.session} is connected")
        self._jobs.clear()  # those of one that is gone
        self._batches.clear()
        if message.session != self._session:
            self._session = message.session
            self._shown.clear()
        self._client = _Client(identity, message.session)
        self._tell(m.Welcome(m.VERSION, self.display.refresh_hz, self.display.now()))
        if self._names:
            self._tell(m.Have(tuple(self._names)[-m.MAX_NAMES :], ()))

    def _tell(self, message: m.FromServer, session: str | None = None) -> None:
        """The client; of a session, where it matters whose news it is."""
        client = self._client
        if client is not None and session in (None, client.session):
            client.outbox.append([client.identity, *m.encode_reply(client.seq, message)])
            client.seq += 1
            self._send(client)

    def _send(self, client: _Client) -> None:
        try:
            while client.outbox:
                self._socket.send_multipart(client.outbox[0], self._zmq.NOBLOCK)
                client.outbox.popleft()
        except self._zmq.Again:  # it does not read
            if len(client.outbox) > UNREAD:
                self._client = None
        except self._zmq.ZMQError:  # no route: it is gone
            self._client = None
        if self._client is None:
            self._jobs.clear()

    def _beat(self) -> None:
        self._beat_at = time.monotonic() + m.HEARTBEAT_S
        if self._client and self._client.outbox:  # heartbeats that are not read need not pile up
            self._send(self._client)
        else:
            self._tell(m.Pong(m.HEARTBEAT, self.display.now()))

    # ---- images

    def _load_one(self) -> None:
        """Make the next image ready."""
        began, (session, message, done) = time.monotonic(), self._batches[0]
        name, pixels = message.names[len(done)], message.pixels[len(done)]
        if m.name_of(pixels) != name:
            self._batches.popleft()
            self._tell(m.refusal(f"expected image {name} to be as it was sent, got one with other bytes"), session)
            return
        self.display.load([name], pixels[None])
        self._names.pop(name, None)
        self._names[name] = None
        done.append(name)
        self._load_s = max(time.monotonic() - began, 0.9 * self._load_s)
        if len(done) == message.count:
            self._batches.popleft()
            self._tell(m.Have(message.names, self._trimmed()), session)

    def _trimmed(self) -> tuple[str, ...]:
        """Let go of the oldest images, but of none that is about to be shown."""
        needed = {*self._pinned, *(name for _, job in self._jobs if isinstance(job, m.Show) for name in job.names)}
        spare = [name for name in self._names if name not in needed]
        dropped = tuple(spare[: max(0, len(self._names) - self.kept)])
        for name in dropped:
            del self._names[name]
        if dropped:
            self.display.forget(dropped)
        return dropped

    # ---- frames

    def _do(self, session: str, job: m.Show | m.Flash) -> None:
        if isinstance(job, m.Flash):
            now = self.display.now()
            for i, at_s in enumerate(job.at_s):  # of two lengths, or their ends would be the same pattern
                self._flash(session, now + at_s, FLASH_S if i % 3 else 2 * FLASH_S)
        elif why := self._hindrance(job):
            self._tell(m.refusal(why), session)
        else:
            self._running, self._pinned = session, job.names
            self._fixate(session, job)
            self._running, self._pinned = "", ()
            self._tell(m.Over(job.numbers[0]), session)

    def _hindrance(self, show: m.Show) -> str:
        if again := sorted(self._shown.intersection(show.numbers)):
            return f"expected numbers that were not shown yet, got {again[0]} again"
        if missing := [name for name in show.names if name not in self._names]:
            return f"expected images that are ready, {len(missing)} are not, the first {missing[0]}; send them again"
        if len(show.names) > 1 and self._frames(show.off_s) < 1:
            return f"expected a frame of grey between images, for the photodiode to see onsets, got off_s of {show.off_s:g}"
        return ""

    def _frames(self, seconds: float) -> int:
        """Frames of the display that last so long, at least."""
        return math.ceil(seconds * self.display.refresh_hz - SAME)

    def _wait(self, until_s: float, *, watched: bool = False, exactly: bool = False) -> None:
        """Serve until shortly before a time of the display's clock.

        Raises:
            _Broken: the gaze has left, where it is `watched`.
        """
        display = self.display
        frame_s = 1 / display.refresh_hz / display.pace
        margin_s = 0.0 if exactly else 1.5 * frame_s + SLACK_S
        while True:
            if self._stop.is_set():
                raise _Stop
            left_s = (until_s - display.now()) / display.pace - margin_s
            if left_s > 2 * self._load_s and self._batches:
                self._load_one()
            else:
                self._answer(max(0.0, min(left_s, max(frame_s, 0.001))))
            if watched:
                self._check_gaze()
            if left_s <= 0.001:
                time.sleep(max(0.0, (until_s - display.now()) / display.pace - margin_s))
                return

    def _after(self, seconds: float, frames: int) -> float:
        """A time of which the next frame is so many frames later: half a frame before, so that no jitter shifts it."""
        return seconds + (frames - 0.5) / self.display.refresh_hz

    def _flash(self, session: str, at_s: float, length_s: float = FLASH_S) -> None:
        self._wait(at_s)
        lit_s = self.display.flip(None, patch=True, at_s=at_s)
        self._tell(m.Flashed((lit_s,)), session)
        self._dark(self._after(lit_s, max(1, self._frames(length_s))))

    def _dark(self, at_s: float) -> float:
        self._wait(at_s)
        return self.display.flip(None, patch=False, at_s=at_s)

    def _fixate(self, session: str, show: m.Show) -> None:
        """One fixation, to its end or until the gaze leaves."""
        onsets: dict[int, float] = {}
        flashed = show.flash_after_s == 0
        try:
            self._images(session, show, onsets)
            last_s = onsets[show.numbers[-1]]
            if not flashed and show.flash_after_s < show.response_s:
                self._wait(last_s + show.flash_after_s, watched=True)
                self._flash(session, last_s + show.flash_after_s)
                flashed = True
            self._wait(last_s + show.response_s, watched=True, exactly=True)
        except _Broken:
            now = self.display.now()
            for number in show.numbers:
                if number not in onsets or onsets[number] + show.response_s > self._looked_s:  # when it still rested there
                    self._tell(m.Broken(number), session)
            self.display.dot(False)
            self.display.flip(None, patch=False, at_s=now)  # at once: the animal learns by it
        if not flashed and onsets:
            self._flash(session, max(onsets.values()) + show.flash_after_s)
        self.display.dot(False)
        self._ended_s = self._dark(self.display.now())

    def _images(self, session: str, show: m.Show, onsets: dict[int, float]) -> None:
        """The dot, then the images; the last has gone off at the end.

        The gaze is first asked for when an image is due: before, the animal has `fixation_s` to find the dot.
        """
        on, off, hz = max(1, self._frames(show.on_s)), max(1, self._frames(show.off_s)), self.display.refresh_hz
        self.display.dot(True)
        before_s = self._dark(max(self.display.now(), self._ended_s + show.inter_trial_s))
        frames = max(1, self._frames(show.fixation_s))
        for number, name in zip(show.numbers, show.names, strict=True):
            at_s = self._after(before_s, frames)
            self._wait(at_s, watched=bool(onsets))
            self._check_gaze()
            onset_s = onsets[number] = self.display.flip(name, patch=True, at_s=at_s, number=number)
            if session == self._session:  # another's numbers would be in the way of this one's
                self._shown.add(number)
            late = max(0, round((onset_s - before_s) * hz) - frames)
            self._tell(m.Onset(number, onset_s, late), session)
            self._check_gaze()
            at_s = self._after(onset_s, on)
            self._wait(at_s, watched=True)
            before_s, frames = self.display.flip(None, patch=False, at_s=at_s), off
            if (stood := round((before_s - onset_s) * hz) - on) > 0:
                self._tell(m.Onset(number, onset_s, late + stood), session)
            self._check_gaze()

    def _check_gaze(self) -> None:
        asked_s = self.display.now()
        if not self.display.fixating():
            raise _Broken
        self._looked_s = asked_s
