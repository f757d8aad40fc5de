"""A dask.distributed cluster: a running one by the address of its scheduler, or one of this machine's own.

On SLURM and its like dask-jobqueue starts workers and gives the address (docs/benchmark.md). Workers best see the folder of
the bench under the same path: then runs that were cut off go on, and natural images are measured once for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import Any, TypeVar

import torch

from neurogym_v.importing import require
from neurogym_v.types import NeuroGymError

T = TypeVar("T")
R = TypeVar("R")

PATIENCE_S = 60.0
"""How long a scheduler may be away, from when that is found, before it is an error."""
TIMEOUT_S = 10.0
"""How long one attempt to reach it may take."""
ALONE = threading.Lock()
"""Some agents stand in for a library's global generators while they think: in a process, one run at a time."""


class Dask:
    """Workers of a scheduler at `address`; without one, `jobs` processes of this machine (one a core by default).

    Raises:
        NeuroGymError: dask.distributed is not installed, fewer than one job, or no scheduler answers.
    """

    def __init__(self, jobs: int | None = None, *, address: str | None = None) -> None:
        if jobs is not None and jobs < 1:  # dask would wait for a worker that never comes
            raise NeuroGymError(f"jobs: expected 1 or more, got {jobs}")
        self._distributed = require("distributed", user="engine dask", extra="dask")
        self._address, self._jobs = address, jobs
        if address:
            try:
                self._client(address).close()
            except (OSError, ValueError) as error:
                raise unreachable(address) from error

    def each(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Engine`. A scheduler that is lost loses its list of tasks: those that are not done are given to the next one."""
        waiting = dict(enumerate(tasks))
        with ExitStack() as stack:
            address = self._address or stack.enter_context(self._own()).scheduler_address
            away: float | None = None  # since when
            while waiting:
                try:
                    with self._client(address) as client:
                        away = None  # it was reached
                        for place, (result, error) in self._submitted(client, work, waiting):
                            if error:
                                raise _OfWork(error)
                            del waiting[place]
                            yield place, result
                except _OfWork as raised:
                    raise raised.error from None
                except (CancelledError, OSError) as error:  # of dask
                    away = time.monotonic() if away is None else away
                    if time.monotonic() - away > PATIENCE_S:
                        raise unreachable(address) from error
                    time.sleep(0.2)

    def _submitted(self, client: Any, work: Callable[[T], R], waiting: dict[int, T]) -> Iterator[tuple[int, Any]]:
        try:
            futures = {client.submit(_alone, work, task, pure=False, priority=-place): place for place, task in waiting.items()}
        except Exception as error:
            if client.status != "closed":
                raise
            raise ConnectionError("closed as its scheduler went away") from error  # dask's own is no OSError
        try:
            for future in self._distributed.as_completed(list(futures), loop=client.loop):
                place, result = futures.pop(future), future.result()
                future.release()  # or it would be computed again when the worker that did it is lost
                yield place, result
        except self._distributed.KilledWorker as error:
            raise NeuroGymError(
                "workers were killed again and again under one run, perhaps for their memory; start again to go on"
            ) from error

    def _client(self, address: str) -> Any:
        return self._distributed.Client(address, timeout=TIMEOUT_S, set_as_default=False)

    def _own(self) -> Any:
        return self._distributed.LocalCluster(
            n_workers=self._jobs, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        )


class _OfWork(Exception):
    """What the work raised, and not dask."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def unreachable(address: str) -> NeuroGymError:
    """No scheduler answers."""
    return NeuroGymError(
        f"engine dask: expected a scheduler at {address}, none answers; start one with `dask scheduler` and workers with "
        "`dask worker`, then the same command goes on"
    )


def _alone(work: Callable[[T], R], task: T) -> tuple[R | None, Exception | None]:
    """In a worker, whose process may have many threads: the result, or what was raised instead."""
    with ALONE:
        torch.set_num_threads(1)
        try:
            return work(task), None
        except Exception as error:
            return None, error
