"""Processes of this machine, with one thread each."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, connection, get_context, parent_process
from typing import TypeVar

import torch

from neurogym_v.memory import keep_freed
from neurogym_v.types import NeuroGymError

T = TypeVar("T")
R = TypeVar("R")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
STRIKES = 3
"""Times that a task may be under way when a worker is killed."""


class Local:
    """As many processes as there are cores, or `jobs`.

    Raises:
        NeuroGymError: fewer than one job.
    """

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = (os.cpu_count() or 1) if jobs is None else jobs
        if self.jobs < 1:
            raise NeuroGymError(f"jobs: expected 1 or more, got {jobs}")

    def each(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Engine`. An error, Ctrl-C or a consumer that stops ends the workers at once: they wait for nothing."""
        waiting, strikes = list(range(len(tasks))), Counter[int]()
        os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the workers' libraries when they are loaded
        while waiting:
            running: dict[Future[R], int] = {}
            spawn = get_context("spawn")  # a forked process inherits the threads of torch in an unknown state
            pool = ProcessPoolExecutor(min(self.jobs, len(waiting)), mp_context=spawn, initializer=begin_worker)
            try:
                while waiting or running:
                    while waiting and len(running) < self.jobs:
                        with ctrl_c_later():
                            running[pool.submit(work, tasks[waiting[0]])] = waiting[0]
                        waiting.pop(0)
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                strikes.update(running.values())
                if max(strikes.values(), default=0) >= STRIKES:
                    raise NeuroGymError(
                        f"processes were killed {STRIKES} times, perhaps for their memory; start again to go on (fewer --jobs?)"
                    ) from None
                waiting = sorted([*running.values(), *waiting])
            finally:
                if running:
                    for worker in active_children():
                        worker.terminate()
                pool.shutdown(cancel_futures=True)


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Processes that are started meanwhile never hear of it: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """In a new worker: one thread, memory that is kept, and an end with its parent."""
    torch.set_num_threads(1)
    keep_freed()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker that outlived a killed parent would hold its journal against the next one."""
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)
