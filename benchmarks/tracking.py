"""What tracking costs a run: `python -m neurogym_v.benchmarks.tracking`.

The same search without a tracker and with each, in turns; also with one that fails at once and one that never answers. The
ratio of the seconds is paired within a turn. What it is made of varies less on a busy machine: the processor time that the
run's own thread spends on its trackers, and that of all other threads, the most that they can take from it. Before the search
a package is imported, after it the rest is delivered; the first turn, in which databases are made, is shown apart.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from neurogym_v.experiment import Experiment, RunConfig, Watcher
from neurogym_v.stats import median
from neurogym_v.tracked import Tracked
from neurogym_v.tracking import TRACKERS, trackers
from neurogym_v.tracking.csv import CSV
from neurogym_v.validation import Natural

WITHOUT = "none"
HEADINGS = ("", "before", "search", "after", "ratio to none [95% interval]", "own thread", "others", "first: before", "others")
PHOTOGRAPHS = 20
"""Natural images that the score is relative to; they are measured once, before the clock runs."""


class Failing(CSV):
    """Fails at the first number."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        raise OSError(f"nothing is kept of {len(numbers)} numbers at {step}")


class Hanging(CSV):
    """Never comes back from the first number."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:  # noqa: ARG002
        threading.Event().wait()


def one(experiment: Experiment, natural: Natural, name: str, folder: Path) -> tuple[float, ...]:
    """Seconds before, of, and after one search with this tracker; processor time for it in the run's thread, and in others."""
    folder.mkdir(parents=True)
    (agent,) = experiment.config.agents
    began, own = time.perf_counter(), 0.0

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def called(*arguments: object) -> None:
            nonlocal own
            started = time.thread_time()
            call(*arguments)
            own += time.thread_time() - started

        return called

    tracked = Tracked([] if name == WITHOUT else [name], experiment.config, folder)
    tracked.say = lambda _: None
    with tracked:
        heard = tracked.watcher(experiment.references, Watcher())
        watcher = Watcher(round=timed(heard.round), agent_done=timed(heard.agent_done), search=timed(heard.search))
        searching, all_threads, run_thread = time.perf_counter(), time.process_time(), time.thread_time()
        result = experiment.search(agent, natural, None, watcher)
        searched, run_thread = time.perf_counter(), time.thread_time() - run_thread
        others = time.process_time() - all_threads - run_thread
        tracked.finish([result], [])
    return searching - began, searched - searching, time.perf_counter() - searched, own / run_thread, others / run_thread


def measure(config: RunConfig, names: list[str], repeats: int) -> dict[str, np.ndarray]:
    """Name -> (repeats + 1, 5), see `one`; the first turn is the first of its kind."""
    experiment = Experiment(config)
    experiment.references = experiment.references.spread(PHOTOGRAPHS)
    natural = experiment.measure()
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    with TemporaryDirectory() as base:
        for turn in range(repeats + 1):
            for name in names if turn % 2 else reversed(names):
                seconds[name].append(one(experiment, natural, name, Path(base) / "runs" / f"{name}-{turn}"))
    return {name: np.array(rows) for name, rows in seconds.items()}


def report(seconds: dict[str, np.ndarray]) -> Table:
    table = Table(title="seconds and shares of processor time, medians of the turns after the first", box=None)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left")
    rng = np.random.default_rng(0)
    for name, times in seconds.items():
        ratio = median(times[1:, 1] / seconds[WITHOUT][1:, 1], rng)
        before, search, after, own, others = np.median(times[1:], axis=0)
        spent = (f"{before:.2f}", f"{search:.2f}", f"{after:.2f}", f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
        table.add_row(name, *spent, f"{own:.2%}", f"{others:.2%}", f"{times[0, 0]:.2f}", f"{times[0, 4]:.2%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.benchmarks.tracking", description=__doc__)
    parser.add_argument("--neuron", default="v4")
    parser.add_argument("--generator", default="natural64")
    parser.add_argument("--agent", default="cma_es")
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5, help="turns after the first [5]")
    parser.add_argument("--track", nargs="*", default=[*TRACKERS, "failing", "hanging"], metavar="NAME", help="[all]")
    chosen = parser.parse_args()
    TRACKERS.update({name: f"{__name__}:{name.capitalize()}" for name in ("failing", "hanging")})
    trackers.cache_clear()
    config = RunConfig(agents=(chosen.agent,), neuron=chosen.neuron, generator=chosen.generator, budget=chosen.budget)
    Console(width=130).print(report(measure(config, [WITHOUT, *chosen.track], chosen.repeats)))


if __name__ == "__main__":
    main()
