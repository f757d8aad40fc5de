"""A bench: what is missing of a suite's runs is given to an engine, and every result is on disk when it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.engines import Engine
from neurogym_v.benchmarks.lockstep import grouped, search_together
from neurogym_v.benchmarks.runs import Asked, Folder, begun_with, forget, read_result
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.experiment import Experiment
from neurogym_v.files import write_json
from neurogym_v.journal import Journal

Watch = Callable[[int, int], None]
"""Told how many runs are done, and how many there are."""


def nobody(_done: int, _all: int) -> None:
    """Watches nothing."""


def check(tasks: Sequence[Task]) -> None:
    """Refuse what cannot be run before anything is begun: of every agent its first run, of every neuron one.

    Raises:
        NeuroGymError: as `Experiment`.
    """
    seen = set[tuple[str, str]]()
    for task in tasks:
        for key in (("agent", task.agent), ("neuron", f"{task.config.neuron} {task.config.site} {task.config.noise}")):
            if key not in seen:
                seen.add(key)
                Experiment(task.config)


def run_all(
    suite: Suite,
    tasks: Sequence[Task],
    folder: Folder,
    engine: Engine,
    watch: Watch = nobody,
    *,
    lockstep: int = 1,
    track: Sequence[str] = (),
    refresh: bool = False,
    retry: bool = False,
) -> None:
    """Do what is missing of these runs, `lockstep` of them side by side in each worker, and tell trackers of each.

    Args:
        refresh: what was done, or begun, with other code of its agent is done anew.
        retry: what failed is done again.

    Raises:
        NeuroGymError: a folder of another suite, or of other settings, or a run that was begun with other code.
    """
    bench = folder.open(suite)
    for task in tasks:
        _clear(task, folder, refresh=refresh, retry=retry)
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


def outdated(results: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Agent -> how many of these results were made with other code than it has now."""
    return Counter(r["agent"] for r in results if _differs(r["code"], r["config"]["agents"][0]))


def _clear(task: Task, folder: Folder, *, refresh: bool, retry: bool) -> None:
    """Remove what is to be done again, before anything is begun."""
    file, journal = folder.result(task), folder.journal(task)
    if file.is_file():
        result = read_result(file)
        if (refresh and _differs(result["code"], task.config.agents[0])) or (retry and result["failed"] is not None):
            file.unlink()
    elif refresh and journal.is_file():
        with Journal(journal) as begun:
            _, code = begun_with(begun)
        if _differs(code, task.config.agents[0]):
            forget(journal)


def _differs(code: str, agent: str) -> bool:
    """Whether it is known to be other code than the agent's."""
    now = code_of(agent)
    return bool(code and now and code != now)
