"""`neurogym-v bench`: run agents on a suite and say who did how well."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neurogym_v.benchmarks import runs, suite
from neurogym_v.benchmarks.bench import check, outdated, run_all
from neurogym_v.benchmarks.engines import ENGINES, Engine, load_engine
from neurogym_v.benchmarks.leaderboard.build import PAGE_OF_BENCH, write_page
from neurogym_v.benchmarks.progress import progress
from neurogym_v.benchmarks.standings import Standing, compared, standings, tracks
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.files import write_json
from neurogym_v.registry import device_of
from neurogym_v.stats import Estimate
from neurogym_v.tracked import Tracked
from neurogym_v.types import NeuroGymError

WIDTH = 120
"""Of tables where there is no terminal to fit them to."""
NONE = "–"
FEW = 10
"""Sites."""


def add(commands: Any) -> None:
    shipped = suite.names()
    parser = commands.add_parser(
        "bench",
        help="run agents on a suite: a table of who did how well",
        description="Run agents on all sites, seeds and noises of a suite, and score what they recommend on fresh "
        "presentations. Runs that are done are kept and those that were cut off go on: stop it whenever you like, the same "
        "command goes on.",
        epilog="examples:\n"
        "  neurogym-v bench quick                                 a first try: minutes\n"
        "  neurogym-v bench quick --agents cma_es mymodule:Mine   an agent of yours beside one of ours\n"
        "  neurogym-v bench core --agents cma_es --seeds 0        a part of a suite\n"
        "  neurogym-v bench core --testing                        all of its machinery, in seconds\n"
        "  neurogym-v bench list                                  what each suite is",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", metavar="SUITE", help=f"{', '.join(shipped)}; a TOML file of your own; or list")
    parser.add_argument("--agents", nargs="+", default=[], metavar="NAME", help="as in `neurogym-v run` [those of the suite]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="[those of the suite]")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="local", help="where runs are done [%(default)s]")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time, a thread each [one a core]")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster that is running, such as "
                        "tcp://127.0.0.1:8786 [with --engine dask: workers of this machine]")  # fmt: skip
    parser.add_argument("--lockstep", type=int, default=1, metavar="N", help="runs side by side in a job, through one batch; "
                        "changes the time on a GPU and not the result [%(default)s]")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, ... [%(default)s]")
    parser.add_argument("--track", action="append", default=[], metavar="NAME[:WHERE]", help="tell a tracker of each run: csv, "
                        "tensorboard, mlflow, wandb (see `neurogym-v run --help`); repeat for several")  # fmt: skip
    parser.add_argument("--testing", action="store_true", help="the slice of the suite that only tests the machinery")
    parser.add_argument("--refresh", action="store_true", help="do again what was done with other code of its agent")
    parser.add_argument("--retry-failed", action="store_true", help="do again what failed")
    parser.add_argument("--report-only", action="store_true", help="run nothing; the table of what is done")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="[runs/bench/SUITE-vN]")
    parser.set_defaults(command=_bench)


def _bench(chosen: argparse.Namespace) -> int:
    console = Console() if Console().is_terminal else Console(width=WIDTH)
    if chosen.suite == "list":
        return _list(console)
    whole = suite.load(chosen.suite)
    asked = whole.slice() if chosen.testing else whole
    for axis, names in (("agents", chosen.agents), ("seeds", chosen.seeds)):
        if twice := [str(name) for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise NeuroGymError(f"--{axis}: expected each once, got {', '.join(twice)} twice")
    if chosen.lockstep < 1:
        raise NeuroGymError(f"--lockstep: expected 1 or more, got {chosen.lockstep}")
    tasks = asked.tasks(chosen.agents, chosen.seeds, device_of(chosen.device))
    folder = runs.Folder(chosen.out or Path("runs") / "bench" / asked.id)
    if chosen.report_only:
        folder.suite()  # there is one
        folder.open(asked)
    else:
        check(tasks)
        Tracked(chosen.track, tasks[0].config, folder.path)  # refuses what cannot be had
        console.print(f"{asked.title}: {len(tasks)} runs, in {folder.path}", highlight=False, soft_wrap=True, markup=False)
        try:
            _run(asked, tasks, folder, console, chosen)
        except KeyboardInterrupt:
            console.print("stopped; nothing is lost: the same command goes on")
            return 130
    results = [runs.read_result(file) for task in tasks if (file := folder.result(task)).exists()]
    if not results:
        raise NeuroGymError(f"{folder.path}: expected a run that is done, found none yet")
    made = [(track, standings(asked, track, results)) for track in tracks(tasks)]
    for track, rows in made:
        console.print(
            table(asked, f"{track.noise}, {track.objective}: {len(track.sites)} sites, seeds {len(track.seeds)}", rows)
        )
        if said := told_apart(rows):
            console.print(said, highlight=False, markup=False, soft_wrap=True)
    for agent, why in dict.fromkeys((row.agent, why) for _, rows in made for row in rows for why in row.failed):
        console.print(f"failed: {agent}: {why}", highlight=False, markup=False, soft_wrap=True)
    for agent, count in outdated(results).items():
        said = f"of earlier code: {count} runs of {agent}; --refresh does them again"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    write_json(folder.path / "standings.json", [{"track": track, "standings": rows} for track, rows in made])
    console.print(f"numbers: {folder.path / 'standings.json'}", highlight=False, soft_wrap=True, markup=False)
    try:
        part = replace(asked, seeds=tuple(chosen.seeds) or asked.seeds, agents=tuple(chosen.agents) or asked.agents)
        write_page(part, folder, folder.path / PAGE_OF_BENCH, source=chosen.suite)
        console.print(f"page: {folder.path / PAGE_OF_BENCH}", highlight=False, soft_wrap=True, markup=False)
    except NeuroGymError as error:  # runs of different code, or no agent that is done
        console.print(f"no page: {error}", highlight=False, soft_wrap=True, markup=False)
    return 0


def engine(chosen: argparse.Namespace) -> Engine:
    """Where the runs are done.

    Raises:
        NeuroGymError: an address for an engine that has none, or one that nobody answers at.
    """
    if chosen.scheduler and chosen.engine != "dask":
        raise NeuroGymError(f"--scheduler: expected --engine dask, got --engine {chosen.engine}")
    return load_engine(chosen.engine, jobs=chosen.jobs, **({"address": chosen.scheduler} if chosen.scheduler else {}))


def _run(asked: Suite, tasks: Sequence[Task], folder: runs.Folder, console: Console, chosen: argparse.Namespace) -> None:
    where = engine(chosen)
    with progress(console) as bar:
        line = bar.add_task(asked.id, total=len(tasks))

        def watch(done: int, of: int) -> None:
            bar.update(line, completed=done, total=of)

        again = {"refresh": chosen.refresh, "retry": chosen.retry_failed}
        run_all(asked, tasks, folder, where, watch, lockstep=chosen.lockstep, track=chosen.track, **again)


def table(asked: Suite, title: str, rows: Sequence[Standing]) -> Table:
    """One track for the terminal."""
    made = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.caption = (
        "relative activation: (final - spontaneous) / (best natural - spontaneous) on fresh presentations; interquartile mean "
        "of runs [95% interval over sites]; ERT: expected presentations to a noise-free 1"
    )
    made.caption_justify = "left"
    earlier = asked.report_at[:1]
    headings = ("agent", f"at {asked.budget}", *(f"at {at}" for at in earlier), f"best of {asked.recommend}", "noise-\nfree",
                "contrast\nmatched", "area", "ERT to 1", "stretched", "s per\n1,000", "runs")  # fmt: skip
    for heading in headings:
        made.add_column(heading, justify="left" if heading == "agent" else "right", no_wrap=True)
    for row in rows:
        made.add_row(
            escape(row.agent) + (" *" if row.sanity_checks else ""),
            _interval(row.score),
            *(_two(row.at[at].value) for at in earlier),
            _two(row.best.value),
            _two(row.expected.value),
            _two(row.contrast_matched.value),
            _two(row.area.value),
            _whole(float(row.running_time[2])),
            NONE if np.isnan(row.stretched.value) else f"{row.stretched.value:.0%}",
            _two(row.seconds),
            f"{row.done}/{row.of}",
        )
    return made


def told_apart(rows: Sequence[Standing]) -> str:
    """Who may be as good as the first; "" where there is nobody to compare it with."""
    found = compared(rows)
    tied = [row.agent for row in rows if found.tied(row.agent)]
    if not found.p:
        return ""
    sites = len(rows[0].scores)
    few = f" ({sites} sites tell few agents apart)" if sites < FEW else ""
    return f"not told apart from {rows[0].agent}{few}: {', '.join(tied) or 'nobody'} (Wilcoxon over sites, after Holm)"


def _list(console: Console) -> int:
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in suite.names():
        one = suite.load(name)
        made.add_row(f"[bold]{name}[/bold] v{one.version}", f"{one.title}. {one.about} [dim]{escape(one.citation)}[/dim]")
    console.print(made)
    return 0


def _interval(estimate: Estimate) -> str:
    return str(estimate) if np.isfinite(estimate.low) else _two(estimate.value)


def _two(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NONE


def _whole(value: float) -> str:
    return "never" if np.isposinf(value) else NONE if np.isnan(value) else f"{value:.0f}"
