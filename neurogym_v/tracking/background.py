"""A tracker behind a queue: its calls are made in a thread of its own, so that nothing it does stops or slows a run."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

WAITING = 2000
"""Calls that may wait; what comes on top is dropped and counted."""
PATIENCE_S = 15.0
"""At the end: for a tracker that completes nothing. A new database takes MLflow 10 s on a slow machine."""
LONGEST_S = 60.0
"""At the end: for one that is at work."""


class Background:
    """Calls, made one after another in a daemon thread; after the first that raises, none is made any more.

    Args:
        label: the tracker's name, for what is said of it.
        say: is told, once and from that thread, that the tracker failed.
        waiting, patience_s, longest_s: the limits.
    """

    def __init__(
        self,
        label: str,
        say: Callable[[str], None],
        *,
        waiting: int = WAITING,
        patience_s: float = PATIENCE_S,
        longest_s: float = LONGEST_S,
    ) -> None:
        self.label, self.say = label, say
        self.waiting, self.patience_s, self.longest_s = waiting, patience_s, longest_s
        self.dropped = 0
        self.failure: str | None = None
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._progress = time.monotonic()
        self.abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {label}", daemon=True)

    def call(self, function: Callable[[], object], *, needed: bool = False) -> None:
        """Make this call when its turn comes; returns at once. Beyond the limit only `needed` ones are taken."""
        if self.failure:
            return
        if self._queue.qsize() >= self.waiting and not needed:
            self.dropped += 1
            return
        self._queue.put(function)
        if not self._thread.ident:
            self._progress = time.monotonic()
            self._thread.start()

    @property
    def listens(self) -> bool:
        """Whether it still takes calls: it has not failed, and not been busy with one of them for too long."""
        return not self.failure and (self._queue.empty() or time.monotonic() - self._progress < self.patience_s)

    def end(self) -> None:
        """No more calls will come; does not wait."""
        self._queue.put(None)

    def wait(self) -> str | None:
        """Wait for the calls that are left, a limited time; what was not delivered, or None.

        It has `longest_s` as long as it completes calls, and `patience_s` from its last sign of life, half a second at least.
        """
        began = time.monotonic()
        while self._thread.is_alive() and not self.failure:
            now = time.monotonic()
            if now - began > self.longest_s or now - max(self._progress, began - self.patience_s + 0.5) > self.patience_s:
                self.abandoned = True
                left = self._queue.qsize()  # the call that is being made, instead of the None at the end
                return f"no end in sight after {now - began:.0f} s; {left} calls were not delivered{self._and_dropped()}"
            self._thread.join(0.02)
        if self.failure:
            return None  # it was said
        return f"too slow; {self.dropped} calls were dropped" if self.dropped else None

    def _and_dropped(self) -> str:
        return f", {self.dropped} were dropped" if self.dropped else ""

    def _work(self) -> None:
        while (function := self._queue.get()) is not None and not self.abandoned:
            self._progress = time.monotonic()
            try:
                function()
            except BaseException as error:  # other people's code: SystemExit, too, ends its thread only
                failure = f"{type(error).__name__}: {first_line(error)}"
                if not self.abandoned:
                    self.say(f"tracker {self.label} failed and gets no more: {failure}")
                self.failure = failure  # last: nobody waits any more from here on
                self._queue = queue.SimpleQueue()  # what waits is let go
                return
            self._progress = time.monotonic()


def first_line(error: BaseException) -> str:
    """Of what an error says, 300 letters at most."""
    return str(error).strip().partition("\n")[0][:300]
