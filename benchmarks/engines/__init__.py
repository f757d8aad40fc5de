"""Engines: where the runs of a bench are done. One is a file here and a line in ENGINES."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from neurogym_v.registry import resolve

T = TypeVar("T")
R = TypeVar("R")

ENGINES = {
    "local": "neurogym_v.benchmarks.engines.local:Local",
    "dask": "neurogym_v.benchmarks.engines.dask:Dask",
    "serial": "neurogym_v.benchmarks.engines.serial:Serial",
}


class Engine(Protocol):
    """Does work somewhere. Whatever it is, results are the same."""

    def each(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Results as they come, each with the place of its task. Tasks are begun in their order. One whose worker is killed is
        done again.

        Raises:
            NeuroGymError: what `work` raised, or that workers are killed again and again.
        """


def load_engine(name: str, **options: Any) -> Engine:
    """An engine by its name.

    Raises:
        NeuroGymError: no such engine, or it cannot be had.
    """
    made: Engine = resolve("engine", name, ENGINES)(**options)
    return made
