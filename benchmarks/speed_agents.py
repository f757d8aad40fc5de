"""How long agents think, and what memory they take: the second half of `neurogym_v.benchmarks.speed`."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from neurogym_v.importing import require
from neurogym_v.registry import AGENTS, make_agent
from neurogym_v.types import Feedback, LoopSpec, NeuroGymError

BATCH = 40
SLOWER = ("pycma", "nevergrad", "sb3", "bashivan2019", "inception_loop")
"""Agents that are not numpy alone: of the first two some are measured, the others train networks."""
OF_LIBRARIES = ("pycma:diagonal", "pycma:vd", "pycma:vkd", "pycma:full", "nevergrad:DiagonalCMA", "nevergrad:TwoPointsDE")
MEASURE = "pycma, diagonal"
"""The library's own loop, without an agent around it, that ratios are to."""
ROUNDS, LONGEST_S = 25, 30
"""Rounds that the peak memory is of, as pycma takes its eigenvectors every 20; fewer where they take longer."""
LOADED = ("cma", "cmaes", "nevergrad", "scipy.stats", __name__)
"""What is no agent's own memory."""
NONE = "–"

Round = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Rival:
    """Something that proposes and learns in rounds: `round` is one ask and tell, told to maximise a fixed function."""

    name: str
    make: Callable[[int], Round]
    """d -> one round."""
    largest: int = 4096
    """Not run beyond this d: a round would take minutes."""


def agent_speed(console: Console, *, sizes: list[int], seconds: float) -> None:
    """Milliseconds of ask + tell a round and peak memory of our agents beside the libraries, one BLAS thread."""
    table = Table(title=f"ask + tell of {BATCH}: ms a round, median (worst), one thread; memory: the peak of {ROUNDS} rounds "
                        f"above what is loaded; ratios to {MEASURE}, at d = {max(sizes)}", box=None)  # fmt: skip
    table.add_column("")
    for heading in (*(f"d = {d}" for d in sizes), "ratio", "MB", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    measured: list[tuple[str, list[str], float, float]] = []
    with threadpool_limits(1):
        for rival in rivals():
            try:
                times = [_milliseconds(rival.make(d), seconds) if d <= rival.largest else None for d in sizes]
                megabytes = peak_memory(rival.name, max(sizes)) if max(sizes) <= rival.largest else float("nan")
            except NeuroGymError as error:
                console.print(f"{rival.name}: {error}", style="yellow", markup=False)
                continue
            cells = ["not run" if ms is None else f"{np.median(ms):.1f} ({max(ms):.1f})" for ms in times]
            last = times[int(np.argmax(sizes))]
            measured.append((rival.name, cells, float("nan") if last is None else float(np.median(last)), megabytes))
            console.print(f"[dim]{rival.name}: {', '.join(cells)}; {_number(megabytes, '.0f')} MB[/dim]")
    base_ms, base_mb = next((row[2:] for row in measured if row[0] == MEASURE), (float("nan"), float("nan")))
    for name, cells, ms, megabytes in measured:
        table.add_row(name, *cells, _ratio(ms, base_ms), _number(megabytes, ".0f"), _ratio(megabytes, base_mb))
    console.print(table)


def rivals() -> list[Rival]:
    """Agents as the registry makes them, then the libraries as they are."""
    ours = [*(name for name in AGENTS if name not in SLOWER), *OF_LIBRARIES]
    return [
        *(Rival(name, _ours(name)) for name in ours),
        Rival(MEASURE, _pycma(CMA_diagonal=True)),
        Rival("pycma, full", _pycma()),
        Rival("cmaes SepCMA", _cmaes("SepCMA")),
        Rival("cmaes CMA", _cmaes("CMA"), largest=1024),
        *(Rival(f"nevergrad, {name}", _nevergrad(name)) for name in ("DiagonalCMA", "TwoPointsDE")),
    ]


def peak_memory(name: str, d: int) -> float:
    """Megabytes that the rival of this name adds to a new process at d latent dimensions.

    The process is forked from one that has every library loaded, so that its peak begins at what it holds.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, name, d).result()


def _peak(name: str, d: int) -> float:
    """In the process itself."""
    (rival,) = (rival for rival in rivals() if rival.name == name)
    with threadpool_limits(1):
        rival.make(min(d, 8))()  # what is imported or set up once
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        round_, began = rival.make(d), time.process_time()
        for _ in range(ROUNDS):
            round_()
            if time.process_time() - began > LONGEST_S:
                break
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20


def _milliseconds(round_: Round, seconds: float) -> list[float]:
    """Of each of the rounds that fit in `seconds`, at least three, after one to warm up."""
    round_()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < seconds and len(times) < 200):
        start = time.perf_counter()
        round_()
        times.append(1000 * (time.perf_counter() - start))
    return times


def _rates(latents: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(-((latents - 1) ** 2).sum(axis=1), dtype=np.float64)


def _ours(name: str) -> Callable[[int], Round]:
    def make(d: int) -> Round:
        agent = make_agent(name, LoopSpec(latent_dim=d, bound=10.0, budget=10**6), batch_size=BATCH)

        def round_() -> None:
            latents = agent.ask()
            agent.tell(Feedback(round=0, latents=latents, rates=_rates(latents), spent=0, left=10**6))

        return round_

    return make


def _pycma(**options: Any) -> Callable[[int], Round]:
    def make(d: int) -> Round:
        cma = _library("cma")
        es = cma.CMAEvolutionStrategy(np.zeros(d), 1.0, {"popsize": BATCH, "verbose": -9, "seed": 1} | options)

        def round_() -> None:
            asked = es.ask()
            es.tell(asked, list(-_rates(np.array(asked))))

        return round_

    return make


def _cmaes(name: str) -> Callable[[int], Round]:
    def make(d: int) -> Round:
        es = getattr(_library("cmaes"), name)(mean=np.zeros(d), sigma=1.0, population_size=BATCH, seed=1)

        def round_() -> None:
            asked = [es.ask() for _ in range(BATCH)]
            es.tell(list(zip(asked, -_rates(np.array(asked)), strict=True)))

        return round_

    return make


def _nevergrad(name: str) -> Callable[[int], Round]:
    def make(d: int) -> Round:
        ng = _library("nevergrad")
        space = ng.p.Array(shape=(d,))
        space.random_state = np.random.RandomState(1)
        optimizer = ng.optimizers.registry[name](space, budget=10**6, num_workers=BATCH)

        def round_() -> None:
            asked = [optimizer.ask() for _ in range(BATCH)]
            for candidate, rate in zip(asked, _rates(np.array([one.value for one in asked])), strict=True):
                optimizer.tell(candidate, -rate)

        return round_

    return make


def _library(name: str) -> Any:
    return require(name, user="benchmark speed", extra="bench")


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else NONE


def _ratio(value: float, base: float) -> str:
    return _number(value / base, ".2f") if base > 0 else NONE
