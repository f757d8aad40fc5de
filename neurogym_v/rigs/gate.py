"""Whether the next fixation may begin: an experimenter pauses, goes on, or ends the session, always between two fixations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Gate:
    """Open by default; its methods may be called from any thread, and from a signal's handler.

    Args:
        until: when the session is to end, `time.monotonic()`; None: when its budget does.
    """

    def __init__(self, until: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.until, self._clock = until, clock
        self._paused, self._stop = threading.Event(), threading.Event()

    @property
    def paused(self) -> bool:
        return self._paused.is_set()

    @property
    def ending(self) -> bool:
        """Whether no further fixation will begin."""
        return self._stop.is_set() or (self.until is not None and self._clock() >= self.until)

    @property
    def open(self) -> bool:
        """Whether a fixation may begin now."""
        return not (self.paused or self.ending)

    def pause(self) -> None:
        self._paused.set()

    def resume(self) -> None:
        self._paused.clear()

    def end(self) -> None:
        """No further fixation; that of now is finished and counted."""
        self._stop.set()

    def wait(self, timeout_s: float = 0.02) -> None:
        """Until it opens, or this long.

        Raises:
            KeyboardInterrupt: the session is to end.
        """
        if self.ending:
            raise KeyboardInterrupt
        if self.paused:
            self._stop.wait(timeout_s)
