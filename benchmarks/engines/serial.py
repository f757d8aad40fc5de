"""One after the other in this process: what a debugger or a profiler can look into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from neurogym_v.types import NeuroGymError

T = TypeVar("T")
R = TypeVar("R")


class Serial:
    """No processes of its own.

    Raises:
        NeuroGymError: more than one job.
    """

    def __init__(self, jobs: int | None = None) -> None:
        if jobs not in (None, 1):
            raise NeuroGymError(f"engine serial: expected 1 job, got {jobs}; engine local does several at a time")

    def each(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Engine`."""
        return ((place, work(task)) for place, task in enumerate(tasks))
