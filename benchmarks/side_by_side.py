"""Runs an hour with and without lockstep: `python -m neurogym_v.benchmarks.side_by_side`.

The same runs of a suite, in one process, in turns: one after the other, and so many side by side through one batch, as
`neurogym-v bench --lockstep N` does them. What natural images do is measured before the clock runs. Ratios are paired within a
turn. Results must be equal; those that are not are counted, with how far their scores are apart: a device that rounds the sums
of a larger batch otherwise may, under continuous noise, send a search another way.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.bench import Watch, check, run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.progress import progress
from neurogym_v.benchmarks.runs import Folder, measured, read_result
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.registry import device_of
from neurogym_v.types import NeuroGymError

TIMES = {"agent_s", "wall_s"}
"""What may differ between two results of one run."""
TRACEBACK = "traceback"
EPILOG = """examples:
  python -m neurogym_v.benchmarks.side_by_side                                      # quick, alone and 6 side by side
  python -m neurogym_v.benchmarks.side_by_side wang2022 --agents cma_es:wang2022 random --lockstep 8 32 --device cuda
  python -m neurogym_v.benchmarks.side_by_side my.toml --testing --turns 1

A whole grid on a GPU is `neurogym-v bench wang2022 --device cuda --lockstep 32`, which shows how long it takes.
"""


def once(asked: Suite, tasks: Sequence[Task], folder: Folder, lockstep: int, watch: Watch) -> float:
    """Seconds for all these runs, done anew."""
    shutil.rmtree(folder.path / "agents", ignore_errors=True)
    began = time.perf_counter()
    run_all(asked, tasks, folder, Serial(), watch, lockstep=lockstep)
    return time.perf_counter() - began


def result(folder: Folder, task: Task) -> dict[str, Any]:
    """All that is said of a run, but for how long it took, and through which lines an error came."""
    return {key: value for key, value in read_result(folder.result(task)).items() if key not in TIMES | {TRACEBACK}}


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """How far two results of one run are apart in their final score; None: they are equal, NaN: one of them has no score."""
    if one == other:
        return None
    if not (one.get("milestones") and other.get("milestones")):
        return float("nan")
    first, second = (float(run["milestones"][-1]["relative_activation"]["value"]) for run in (one, other))
    return abs(first - second)


def measure(asked: Suite, tasks: Sequence[Task], sizes: Sequence[int], turns: int, base: Path, bar: Progress) -> Table:
    """A row a number of runs side by side."""
    folders = {size: Folder(base / str(size)) for size in (1, *sizes)}
    line = bar.add_task("natural images", total=len(tasks))
    for task in tasks:
        for folder in folders.values():
            file, first = folder.natural(task.config), folders[1].natural(task.config)
            if not first.exists():
                measured(task.config, first)
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(first, file)
        bar.advance(line)
    seconds: dict[int, list[float]] = {size: [] for size in folders}
    line, before = bar.add_task("runs", total=turns * len(folders) * len(tasks)), 0
    for turn in range(turns):
        for size in folders if turn % 2 == 0 else reversed(folders):
            bar.update(line, description=f"turn {turn + 1}, {size} side by side")
            watch = partial(_advance, bar, line, before)
            seconds[size].append(once(asked, tasks, folders[size], size, watch))
            before += len(tasks)
    return report(tasks, folders, seconds)


def report(tasks: Sequence[Task], folders: Mapping[int, Folder], seconds: Mapping[int, Sequence[float]]) -> Table:
    """Medians over turns; the ratio's ends are those of single turns."""
    alone = {task: result(folders[1], task) for task in tasks}
    failed = sum(run["failed"] is not None for run in alone.values())
    table = Table(title=f"{len(tasks)} runs on {tasks[0].config.device}, {failed} of them failed", box=None)
    for heading in ("side by side", "seconds", "runs/hour", "times as fast [all turns]", "equal results", "scores apart by"):
        table.add_column(heading, justify="right")
    for size, each in seconds.items():
        ratios = np.divide(seconds[1], each)
        found = [apart(alone[task], result(folders[size], task)) for task in tasks]
        differ = [by for by in found if by is not None]
        spent = float(np.median(each))
        table.add_row(
            str(size),
            f"{spent:.1f}",
            f"{3600 * len(tasks) / spent:.0f}",
            f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]",
            f"{len(tasks) - len(differ)}/{len(tasks)}",
            f"up to {max(differ):.2g}" if differ else "",
        )
    return table


def _advance(bar: Progress, line: TaskID, before: int, done: int, _all: int) -> None:
    bar.update(line, completed=before + done)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m neurogym_v.benchmarks.side_by_side",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", nargs="?", default="quick", help="or a TOML file of your own [%(default)s]")
    parser.add_argument("--agents", nargs="+", default=[], metavar="NAME", help="[those of the suite]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="[those of the suite]")
    parser.add_argument("--lockstep", nargs="+", type=int, default=[6], metavar="N", help="beside 1 [6]")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="[%(default)s]")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... [%(default)s]")
    parser.add_argument("--testing", action="store_true", help="the slice of the suite that only tests the machinery")
    chosen = parser.parse_args()
    if min(chosen.turns, *chosen.lockstep) < 1:
        parser.error("--lockstep, --turns: expected 1 or more")
    console = Console(width=None if Console().is_terminal else 120)
    try:
        whole = suite.load(chosen.suite)
        asked = whole.slice() if chosen.testing else whole
        tasks = asked.tasks(chosen.agents, chosen.seeds, device_of(chosen.device))
        check(tasks)
        with TemporaryDirectory() as base, progress(console) as bar:
            table = measure(asked, tasks, chosen.lockstep, chosen.turns, Path(base), bar)
    except NeuroGymError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    console.print(table)


if __name__ == "__main__":
    main()
