"""A bench: what is missing of a suite's runs is given to an engine, and every result is on disk when it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.engines import Engine
from neurogym_v.benchmarks.lockstep import grouped, search_together
from neurogym_v.benchmarks.runs import Asked, Folder, forget
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.files import write_json

Watch = Callable[[int, int], None]
"""Told how many runs are done, and how many there are."""


def nobody(_done: int, _all: int) -> None:
    """Watches nothing."""


def run_all(
    suite: Suite,
    tasks: Sequence[Task],
    folder: Folder,
    engine: Engine,
    watch: Watch = nobody,
    *,
    lockstep: int = 1,
    track: Sequence[str] = (),
) -> None:
    """Do what is missing of these runs, `lockstep` of them side by side in each worker, and tell trackers of each.

    Raises:
        NeuroGymError: a folder of another suite, or of other settings.
    """
    bench = folder.open(suite)
    missing = [task for task in tasks if not folder.result(task).exists()]
    shared: dict[str, Any] = {"folder": folder.path.resolve(), "suite": suite.id, "bench": bench, "track": tuple(track)}
    asked = [Asked(task=task, code=code_of(task.config.agents[0]), **shared) for task in missing]
    done = len(tasks) - len(missing)
    watch(done, len(tasks))
    groups = grouped(asked, lockstep)
    for place, found in engine.each(search_together, groups):
        for one, result in zip(groups[place], found, strict=True):
            write_json(folder.result(one.task), result, indent=None)
            forget(folder.journal(one.task))
        done += len(found)
        watch(done, len(tasks))
