"""What goes wrong between a rig and its reader, on purpose: every message of a source passes through here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from neurogym_v.naming import nearest
from neurogym_v.types import NeuroGymError

Message = TypeVar("Message")
"""bytes, or the parts of a message as a list of bytes."""

MESSAGES = ("drop", "delay", "reorder", "duplicate", "corrupt", "half", "burst")
"""Faults of single messages; `burst` drops many in a row, as a full queue (high-water mark) does."""
STREAMS = ("stall", "die")
"""Faults of the whole stream: it falls silent for good, or its sockets close."""
WORLDS = ("drift", "channels", "no_edges", "extra_edges")
"""Faults that are none of the messages': clocks run apart, names are wrong, the photodiode is unplugged or flickers."""
ANSWERS = ("half", "ids", "rows", "v5", "late", "never")
"""Faults of answers in a folder: written in place with a pause in the middle; with the names of other images; without the last
row; saved without -v7.3; late; never."""
FAULTS = (*MESSAGES, *STREAMS, *WORLDS)
BURST = 50
DELAY_S = 0.3


@dataclass(frozen=True, slots=True)
class Misdeed:
    """What was done to messages that told of a stretch of time."""

    fault: str
    start: int
    end: int


class Mischief:
    """Lets one message in `every` go wrong, after the first `after`; none by default.

    Args:
        fault: one of MESSAGES or STREAMS; a stream's happens once.
        every: messages from one misdeed to the next.
        after: messages that pass before the first.
        told: called with each misdeed, for the rig's log.

    Raises:
        NeuroGymError: no such fault.
    """

    def __init__(
        self,
        fault: str = "",
        *,
        every: int = 100,
        after: int = 50,
        seed: int = 0,
        told: Callable[[Misdeed], None] = lambda _: None,
    ) -> None:
        if fault and fault not in FAULTS:
            raise nearest("fault of a rig", fault, FAULTS)
        if every < 1 or after < 0:
            raise NeuroGymError(f"fault {fault}: expected every >= 1 and after >= 0, got {every} and {after}")
        self.fault = fault if fault in (*MESSAGES, *STREAMS) else ""
        self.every, self.after, self._told = every, after, told
        self._rng, self._count, self._left = np.random.default_rng(seed), 0, 0
        self._lock, self._held = threading.Lock(), list[object]()
        self.begun = True
        """Whether messages are counted yet; before, all pass. A rig waits until a session shows its first image."""
        self.stalled = self.dead = False
        """Whether the stream has fallen silent, and whether its sockets are to be closed."""

    def __call__(self, message: Message, start: int, end: int) -> Iterable[Message]:
        """What goes out in place of a message, now, that tells of samples start to end; often just that message."""
        if self.stalled or self.dead:
            return []
        if not (self.fault and self.begun):
            return [message]
        self._count += 1
        turn = self._count > self.after and (self._count - self.after) % self.every == 1 % self.every
        if self._left:  # of a burst
            self._left -= 1
            self._told(Misdeed(self.fault, start, end))
            return []
        held, self._held = self._held, []
        if not turn:
            return [message, *held]  # type: ignore[list-item]
        self._told(Misdeed(self.fault, start, end))
        match self.fault:
            case "drop":
                return held  # type: ignore[return-value]
            case "burst":
                self._left = BURST - 1
                return held  # type: ignore[return-value]
            case "delay":  # all that follows waits behind it, as in any stream
                time.sleep(DELAY_S)
                return [message, *held]  # type: ignore[list-item]
            case "reorder":
                self._held = [message]
                return held  # type: ignore[return-value]
            case "duplicate":
                return [message, message, *held]  # type: ignore[list-item]
            case "corrupt":
                return [self._corrupted(message), *held]  # type: ignore[list-item]
            case "half":
                return [_halved(message), *held]  # type: ignore[list-item]
            case "stall":
                self.stalled = True
            case "die":
                self.dead = True
        return []

    def _corrupted(self, message: Message) -> Message:
        """With a random byte of its last non-empty part changed."""
        parts: list[bytes] = [message] if isinstance(message, bytes) else list(message)  # type: ignore[call-overload]
        at = max(i for i, part in enumerate(parts) if part)
        part = bytearray(parts[at])
        part[int(self._rng.integers(len(part)))] ^= int(self._rng.integers(1, 256))
        parts[at] = bytes(part)
        return cast(Message, parts[0] if isinstance(message, bytes) else parts)


def _halved(message: Message) -> Message:
    """Its first half: of the bytes, or of the last part."""
    if isinstance(message, bytes):
        return cast(Message, message[: len(message) // 2])
    parts: list[bytes] = list(message)  # type: ignore[call-overload]
    return cast(Message, [*parts[:-1], parts[-1][: len(parts[-1]) // 2]])
