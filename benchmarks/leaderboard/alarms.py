"""How often `leaderboard verify` is wrong on another machine: honest entries that it doubts, and others that it does not.

Entries are drawn from populations in which it is known that runs done again are draws like those of the entry. Numbers of a run
are correlated, as those of real runs are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from neurogym_v.benchmarks.leaderboard.verify import compare, tolerances
from neurogym_v.benchmarks.reduced import ESTIMATES, Run

SITES, SEEDS, RUNS = 20, 2, 3
SD = 0.15
"""Of a run's relative activation over seeds, at a site."""
TOGETHER = 0.8
"""Correlation of the numbers of a run."""
AT = (1000, 3000)
NUMBERS = len(AT) * (len(ESTIMATES) + 1) + 1
POPULATIONS = {
    "one s.d. for all sites": 0.0,
    "s.d. of sites vary 1.6-fold": 0.5,
    "s.d. of sites vary 2.7-fold": 1.0,
    "one s.d., heavy tails (t, 4)": -4.0,
}
"""Name -> s.d. of the logarithm of a site's s.d.; below 0: degrees of freedom of t."""
CLAIMS = (0.0, 3.0, 6.0, 9.0)
"""By how many s.d. all numbers of an entry are too high."""


def alarms(population: float, claim: float, rng: np.random.Generator, *, entries: int, seeds: int = SEEDS) -> float:
    """Share of entries of which some run is said not to reproduce."""
    doubted = 0
    for _ in range(entries):
        sd = SD * np.exp(max(population, 0.0) * rng.standard_normal(SITES))[:, None, None]
        means = rng.normal(1.0, 0.4, (SITES, 1, NUMBERS))
        drawn = means + sd * _noise(population, rng, (SITES, seeds + 1, NUMBERS))
        runs = [_run(site, seed, drawn[site, seed] + claim * SD) for site in range(SITES) for seed in range(seeds)]
        chosen = rng.choice(SITES, RUNS, replace=False)  # a site once: so that the runs done again are independent
        allowed = tolerances(runs, checks=RUNS * NUMBERS)
        again = [_run(site, 0, drawn[site, seeds]) for site in chosen]
        doubted += not all(
            compare(runs[site * seeds], one, allowed).reproduces for site, one in zip(chosen, again, strict=True)
        )
    return doubted / entries


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1000, help="drawn for each number [%(default)s]")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each site [%(default)s]")
    chosen = parser.parse_args(arguments)
    table = Table(title=f"{RUNS} runs of {SITES} sites, {chosen.seeds} seeds: share of entries doubted", title_justify="left")
    table.add_column("scores too high by")
    for claim in CLAIMS:
        table.add_column(f"{claim:g} s.d." if claim else "0 (honest)", justify="right")
    for name, population in POPULATIONS.items():
        rng = np.random.default_rng(0)
        shares = [alarms(population, claim, rng, entries=chosen.entries, seeds=chosen.seeds) for claim in CLAIMS]
        table.add_row(name, *(f"{share:.1%}" for share in shares))
    Console().print(table)


def _noise(population: float, rng: np.random.Generator, size: tuple[int, int, int]) -> NDArray[np.float64]:
    """(sites, seeds, numbers) of variance 1, correlated within a run."""
    common = rng.standard_normal((*size[:2], 1))
    normal = np.sqrt(TOGETHER) * common + np.sqrt(1 - TOGETHER) * rng.standard_normal(size)
    if population >= 0:
        return np.asarray(normal)
    freedom = -population
    return np.asarray(normal * np.sqrt((freedom - 2) / rng.chisquare(freedom, (*size[:2], 1))))


def _run(site: int, seed: int, values: NDArray[np.float64]) -> Run:
    numbers = iter(values.tolist())
    milestones = [
        {"presentations": at, **{key: next(numbers) for key in ESTIMATES}, "expected_relative_activation": next(numbers)}
        for at in AT
    ]
    about = {"neuron": "v4", "site": site, "noise": "poisson", "objective": "stretch", "seed": seed, "failed": None}
    return {**about, "milestones": milestones, "area": next(numbers)}


if __name__ == "__main__":
    main()
