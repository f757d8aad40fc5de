"""The clock of a virtual rig, which goes no faster than the rig itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class HeldClock:
    """Seconds at a pace, that never get far ahead of who must keep up: on a slow machine time passes slowly.

    Args:
        pace: seconds of this clock in one of the wall's.
        ahead_s: for how long it goes on after `follow`, wall clock; then it stands still until the next.
    """

    def __init__(self, pace: float, ahead_s: float = float("inf"), wall: Callable[[], float] = time.monotonic) -> None:
        self.pace, self.ahead_s = pace, ahead_s
        self._wall, self._lock = wall, threading.Lock()
        self._read_at = self._followed_at = wall()
        self._now_s = 0.0

    def now(self) -> float:
        """Seconds since it was made, less those in which it was held."""
        with self._lock:
            return self._read()

    def follow(self) -> None:
        """All up to now was dealt with."""
        with self._lock:
            self._read()
            self._followed_at = self._read_at

    def free(self) -> None:
        """Nobody has to keep up any more."""
        with self._lock:
            self._read()
            self.ahead_s = float("inf")

    def wait(self, until_s: float) -> None:
        """Sleep until it shows this time."""
        while (left_s := until_s - self.now()) > 0:
            time.sleep(left_s / self.pace)

    def _read(self) -> float:
        wall_s = self._wall()
        gone_s = min(wall_s, self._followed_at + self.ahead_s) - self._read_at
        self._now_s += max(0.0, gone_s) * self.pace
        self._read_at = wall_s
        return self._now_s
