"""How often `leaderboard verify` is wrong on another machine: honest entries that it doubts, and others that it does not.

Entries are drawn from populations in which it is known that runs done again are draws like those of the entry. Runs have all
the numbers that are compared: activations correlated within a run, counts that are binomial, times that end with the budget.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from neurogym_v.benchmarks.leaderboard.verify import AGAIN, judged
from neurogym_v.benchmarks.reduced import ESTIMATES, TARGETS, Run
from neurogym_v.validation import REPEATS

SITES, SEEDS = 3, 2
"""That are done again, and that an entry has of each."""
SD = 0.15
"""Of a run's relative activation over seeds, at a site."""
TOGETHER = 0.8
"""Correlation of the numbers of a run."""
AT = (1000, 3000)
LOST = 0.1
WINDOW_S = 0.2
NUMBERS = len(AT) * (len(ESTIMATES) + 1) + 3
POPULATIONS = {
    "one s.d. for all sites": 0.0,
    "s.d. of sites vary 1.6-fold": 0.5,
    "s.d. of sites vary 2.7-fold": 1.0,
    "one s.d., heavy tails (t, 4)": -4.0,
}
"""Name -> s.d. of the logarithm of a site's s.d.; below 0: degrees of freedom of t."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an entry says too much, in s.d. of a run."""

    high: float = 0.0
    """By this all its scores are too high ..."""
    apart: float = 0.0
    """... and so far are those of its first two seeds pulled apart, as if seeds differed that much."""


CLAIMS = {
    "0 (honest)": Claim(),
    "3 s.d.": Claim(high=3),
    "6 s.d.": Claim(high=6),
    "9 s.d.": Claim(high=9),
    "9 s.d., seeds 8 apart": Claim(high=9, apart=8),
}


def alarms(population: float, claim: Claim, rng: np.random.Generator, *, entries: int, seeds: int = SEEDS) -> float:
    """Share of entries of which some site is said not to reproduce."""
    doubted = 0
    for _ in range(entries):
        sd = SD * np.exp(max(population, 0.0) * rng.standard_normal(SITES))[:, None, None]
        drawn = rng.normal(1.0, 0.4, (SITES, 1, 1)) + sd * _noise(population, rng, (SITES, seeds + AGAIN, NUMBERS))
        extra = SD * (claim.high + claim.apart / 2 * np.array([1 - 2 * (seed % 2) for seed in range(seeds)]))
        drawn[:, :seeds] += extra[:, None]
        rates = 20 * np.exp(0.5 * rng.standard_normal(SITES))
        runs = [[_run(site, seed, drawn[site, seed], rates[site], rng) for seed in range(seeds + AGAIN)]
                for site in range(SITES)]  # fmt: skip
        doubted += not all(one.reproduces for one in judged([(site[:seeds], site[seeds:]) for site in runs]))
    return doubted / entries


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1000, help="drawn for each number [%(default)s]")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each site [%(default)s]")
    chosen = parser.parse_args(arguments)
    title = f"{SITES} sites, {chosen.seeds} seeds of the entry and {AGAIN} here: share of entries doubted"
    table = Table(title=title, title_justify="left")
    table.add_column("scores too high by")
    for name in CLAIMS:
        table.add_column(name, justify="right")
    for name, population in POPULATIONS.items():
        rng = np.random.default_rng(0)
        shares = [alarms(population, claim, rng, entries=chosen.entries, seeds=chosen.seeds) for claim in CLAIMS.values()]
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


def _run(site: int, seed: int, values: NDArray[np.float64], rate: float, rng: np.random.Generator) -> Run:
    """A run with these activations at a site whose best natural image evokes so many spikes/s."""
    numbers = iter(values.tolist())
    milestones = []
    for at in AT:
        estimates = {key: {"value": next(numbers)} for key in ESTIMATES}
        milestones.append({"presentations": at, **estimates, "expected_relative_activation": next(numbers)})
    area, optimism, quick = (next(numbers) for _ in range(3))
    hits = [AT[-1] * np.exp(2 * (target - quick)) for target in TARGETS]
    natural, grey = rate * (1 + 0.05 * rng.standard_normal()), 0.1 * rate
    final = grey + float(milestones[-1]["relative_activation"]["value"]) * (natural - grey)
    means = {"final": final, "natural": natural, "spontaneous": grey, "difference": final - natural}
    spreads = {name: np.sqrt(max(mean, grey) / WINDOW_S) for name, mean in means.items()}
    spreads["difference"] = np.hypot(spreads["final"], spreads["natural"])
    test = {
        name: {
            "mean": mean,
            "sd": spreads[name] * np.sqrt(rng.chisquare(REPEATS - 1) / (REPEATS - 1)),
            "n": int(rng.binomial(REPEATS, (1 - LOST) ** (2 if name == "difference" else 1))),
        }
        for name, mean in means.items()
    }
    return {
        "neuron": "v4",
        "site": site,
        "noise": "poisson",
        "objective": "stretch",
        "seed": seed,
        "failed": None,
        "sanity_check": False,
        "milestones": milestones,
        "area": area,
        "hits": {f"{target:g}": hit if hit <= AT[-1] else None for target, hit in zip(TARGETS, hits, strict=True)},
        "presentations": AT[-1],
        "lost": int(rng.binomial(AT[-1], LOST)),
        "optimism": optimism,
        "test": test,
    }


if __name__ == "__main__":
    main()
