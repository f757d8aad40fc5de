"""The queue in front of a tracker: bounded, counted, waited for a limited time."""

from __future__ import annotations

import threading
import time
from functools import partial

from neurogym_v.tracking.background import Background


def test_beyond_its_limit_a_queue_drops_and_counts() -> None:
    began, release, made = threading.Event(), threading.Event(), []
    calls = Background("slow", made.append, waiting=5)
    calls.call(lambda: (began.set(), release.wait(10)))
    assert began.wait(10)
    took = time.perf_counter()
    for number in range(20):
        calls.call(partial(made.append, number))
    calls.call(partial(made.append, "needed"), needed=True)
    assert time.perf_counter() - took < 5
    release.set()
    calls.end()
    assert calls.wait() == "too slow; 15 calls were dropped"
    assert made == [0, 1, 2, 3, 4, "needed"]


def test_a_tracker_at_work_is_waited_for_beyond_the_patience_for_one_that_sleeps() -> None:
    made: list[int] = []
    calls = Background("steady", print, patience_s=1.0, longest_s=20)
    for number in range(15):
        calls.call(lambda number=number: (time.sleep(0.1), made.append(number)))
    calls.end()
    assert calls.wait() is None
    assert made == list(range(15))


def test_even_one_at_work_has_its_limit() -> None:
    calls = Background("endless", print, patience_s=0.3, longest_s=0.6)
    for _ in range(1000):
        calls.call(lambda: time.sleep(0.05))
    calls.end()
    assert "calls were not delivered" in str(calls.wait())
