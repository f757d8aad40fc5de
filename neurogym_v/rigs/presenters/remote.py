"""A presenter whose screen belongs to another process, often on another machine: the client of a display server."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from neurogym_v.importing import require
from neurogym_v.rigs import Fixation, Reports, RigError, Shown
from neurogym_v.rigs.displays import keys
from neurogym_v.rigs.displays import messages as m
from neurogym_v.types import Images, NeuroGymError

OPEN_S = 2.0
"""How long a server may take to answer the first message."""
BUSY_S = 0.5
"""How long to ask again where another client is served: one that has just ended may not have been missed yet."""
READY_S = 60.0
"""How long a server may take to make one message of images ready; it works between frames."""
LOOK_S = 0.05
"""Between looks at the time while listening. Longer between two calls counts as no more than twice this: nobody listened."""
MESSAGE_BYTES = 1 << 22
"""Of images in a message, about."""


class Remote:
    """A `Presenter` for the display server at an address. A display that falls silent while it is listened to is an error.

    Args:
        address: of the server.
        on_ms, off_ms: how long an image is on, and grey before the next.
        fixation_ms: from the fixation dot to the first image.
        inter_trial_ms: from the end of a fixation to the next, at least.
        response_ms: when the response window ends, after the onset; until then the gaze must rest on the dot.
        server_key, client_key: files of `displays.keys.make_keys`: the server's public and the client's secret one. Needed
            unless the address is on this machine.
        patience_s: how long the server may be silent.

    Raises:
        NeuroGymError: no address, or one on another machine without keys.
    """

    def __init__(
        self,
        *,
        address: str = "tcp://127.0.0.1:5580",
        on_ms: float = 100.0,
        off_ms: float = 100.0,
        fixation_ms: float = 300.0,
        inter_trial_ms: float = 800.0,
        response_ms: float = 170.0,
        server_key: str = "",
        client_key: str = "",
        patience_s: float = 1.0,
    ) -> None:
        if bool(server_key) != bool(client_key):
            raise NeuroGymError(
                f"presenter remote: expected server_key and client_key, or none, got {server_key or client_key} alone"
            )
        keys.check_address("presenter remote", address, keys=bool(server_key))
        self.address, self.patience_s = address, patience_s
        self.refresh_hz = math.nan
        self._timing = {
            "on_s": on_ms / 1000,
            "off_s": off_ms / 1000,
            "fixation_s": fixation_ms / 1000,
            "inter_trial_s": inter_trial_ms / 1000,
            "response_s": response_ms / 1000,
        }
        self._server_key, self._client_key = server_key, client_key
        self._session = uuid.uuid4().hex  # the same when it is opened again: numbers go on, too
        self._zmq: Any = None
        self._context: Any = None
        self._socket: Any = None
        self._forget()

    def _forget(self) -> None:
        self._seq: int | None = None
        self._have: set[str] = set()
        self._prepared: tuple[str, ...] = ()
        self._ready: set[str] = set()
        self._asked: dict[int, Shown] = {}
        self._fixations: dict[int, tuple[int, ...]] = {}
        self._shown: list[Shown] = []
        self._over: list[int] = []
        self._flashes_s: list[float] = []
        self._silent_s, self._looked_at = 0.0, time.monotonic()

    def open(self) -> None:
        """See `Presenter`.

        Raises:
            RigError: no answer within two seconds, or the server has another client.
            NeuroGymError: keys that are none.
        """
        self.close()
        self._zmq = zmq = require("zmq", user="presenter remote", extra="live")
        self._forget()
        try:
            self._context = zmq.Context()
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_HEADER)
            self._socket.setsockopt(zmq.RCVHWM, 10_000)
            self._socket.setsockopt(zmq.SNDTIMEO, math.ceil(1000 * self.patience_s))
            if self._server_key:
                keys.secure_client("presenter remote", self._socket, server_key=self._server_key, client_key=self._client_key)
            self._socket.connect(self.address)
            self._meet()
        except BaseException:
            self.close()
            raise

    def prepare(self, images: Images) -> None:
        """See `Presenter`; returns when the server has them all.

        Raises:
            RigError: images that are none, or the server does not get them ready.
        """
        pixels = np.ascontiguousarray(images.cpu().numpy())
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
            raise RigError(f"presenter remote: expected images of (n, 3, s, s) uint8, got {pixels.shape} {pixels.dtype}")
        self._take(0)  # what was dropped meanwhile
        self._prepared = tuple(m.name_of(image) for image in pixels)
        places = {name: i for i, name in enumerate(self._prepared)}
        size = pixels.shape[2]
        most = max(1, min(MESSAGE_BYTES // (3 * size * size), m.MAX_NAMES))
        left = 2 * len(places)  # one that makes room for another may itself have to be sent again, but once
        while missing := [name for name in places if name not in self._have][:most]:
            left -= len(missing)
            if left < 0:
                raise self._error(f"expected it to keep {len(places)} images ready, it lets go of some; show fewer in one go")
            self._ready.clear()
            self._send(m.Images(tuple(missing), size, len(missing), pixels[[places[name] for name in missing]]))
            until = time.monotonic() + READY_S
            while not self._ready.issuperset(missing):
                self._take(LOOK_S)
                if time.monotonic() > until:
                    raise self._error(f"expected {len(missing)} images to be ready within {READY_S:g} s, they are not")

    def flash(self, at_s: Sequence[float]) -> None:
        """See `Presenter`."""
        self._send(m.Flash(tuple(float(s) for s in at_s)))

    def show(self, fixation: Fixation) -> None:
        """See `Presenter`.

        Raises:
            RigError: images that were not prepared, or the server cannot be sent to.
        """
        if not all(0 <= i < len(self._prepared) for i in fixation.images):
            raise RigError(f"presenter remote: expected images among the {len(self._prepared)} prepared, got {fixation.images}")
        numbers = tuple(int(number) for number in fixation.numbers)
        names = tuple(self._prepared[i] for i in fixation.images)
        self._send(m.Show(numbers=numbers, names=names, **self._timing, flash_after_s=float(fixation.flash_after_s)))
        self._fixations[numbers[0]] = numbers
        self._asked.update((number, Shown(number, math.nan)) for number in numbers)

    def reports(self, timeout_s: float) -> Reports:
        """See `Presenter`. A presentation is told of again when it broke, or stood too long.

        Raises:
            RigError: the server is silent, refuses what it was asked for, or says something that it must not.
        """
        until = time.monotonic() + timeout_s
        self._take(0)
        while not (self._shown or self._over or self._flashes_s) and (left_s := until - time.monotonic()) > 0:
            self._take(left_s)
        reports = Reports(shown=tuple(self._shown), over=tuple(self._over), flashes_s=np.array(self._flashes_s))
        self._shown, self._over, self._flashes_s = [], [], []
        return reports

    def close(self) -> None:
        """May be called twice, and after an error."""
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._context = None

    def _error(self, what: object) -> RigError:
        return RigError(f"display at {self.address}: {what}")

    def _meet(self) -> None:
        """Say hello until there is an answer.

        Raises:
            RigError: there is none, or a refusal.
        """
        began = time.monotonic()
        self._send(m.Hello(m.VERSION, self._session))
        while self._seq is None:
            if time.monotonic() - began > OPEN_S:
                keyed = " with these keys" if self._server_key else ""
                raise self._error(
                    f"expected an answer within {OPEN_S:g} s, got none; is the display server running there{keyed}?"
                )
            if not self._socket.poll(math.ceil(1000 * LOOK_S)):
                continue
            seq, message = self._decoded(self._socket.recv_multipart())
            match message:
                case m.Welcome():
                    self.refresh_hz, self._seq = message.refresh_hz, seq + 1
                case m.Refused() if time.monotonic() - began > BUSY_S:
                    raise self._error(message.why)
                case m.Refused():
                    time.sleep(LOOK_S)
                    self._send(m.Hello(m.VERSION, self._session))
                case _:
                    raise self._error(f"expected a hello first, got {type(message).__name__.lower()}")

    def _send(self, message: m.FromClient) -> None:
        if self._socket is None:
            raise self._error("expected a presenter that is open, this one is closed")
        try:
            self._socket.send_multipart(m.encode(message))
        except self._zmq.Again:
            raise self._error(
                f"silent for {self.patience_s:.1f} s, it takes no messages; is its server still running?"
            ) from None

    def _take(self, wait_s: float) -> None:
        """Take all that has come, or wait for something, at most so long and LOOK_S.

        Raises:
            RigError: silence for longer than the patience, or a message that must not be.
        """
        if self._socket is None:
            raise self._error("expected a presenter that is open, this one is closed")
        heard = self._socket.poll(math.ceil(1000 * min(wait_s, LOOK_S)))
        now = time.monotonic()
        self._silent_s += min(now - self._looked_at, 2 * LOOK_S)
        self._looked_at = now
        if heard:
            self._silent_s = 0.0
        elif self._silent_s > self.patience_s:
            raise self._error(f"silent for {self._silent_s:.1f} s; is its server still running, and the cable in?")
        while heard:
            try:
                frames = self._socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            self._hear(*self._decoded(frames))

    def _decoded(self, frames: Sequence[bytes]) -> tuple[int, m.FromServer]:
        try:
            return m.decode_reply(frames)
        except m.MessageError as error:
            raise self._error(error) from None

    def _hear(self, seq: int, message: m.FromServer) -> None:
        if isinstance(message, m.Refused):  # whatever its place: after another client took over, places begin anew
            raise self._error(message.why)
        assert self._seq is not None
        if seq < self._seq:
            return  # heard before
        if seq > self._seq:
            raise self._error(f"expected its message {self._seq}, got {seq}: {seq - self._seq} in between are missing")
        self._seq += 1
        match message:
            case m.Have():
                self._have = (self._have | set(message.names)) - set(message.dropped)
                self._ready.update(message.names)
            case m.Flashed():
                self._flashes_s += message.times_s
            case m.Onset():
                self._report(Shown(message.number, message.onset_s, message.late_frames))
            case m.Broken():
                before = self._asked.get(message.number, Shown(message.number, math.nan))
                self._report(Shown(message.number, before.onset_s, before.late_frames, broken=True))
            case m.Over():
                if message.first not in self._fixations:
                    raise self._error(f"expected fixations that were asked for, got the end of {message.first}")
                for number in self._fixations.pop(message.first):
                    del self._asked[number]
                self._over.append(message.first)

    def _report(self, shown: Shown) -> None:
        if shown.number not in self._asked:
            raise self._error(f"expected presentations that were asked for, got {shown.number}")
        self._asked[shown.number] = shown
        self._shown.append(shown)
