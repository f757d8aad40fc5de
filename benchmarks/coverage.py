"""Whether intervals and tests hold what they promise: `python -m neurogym_v.benchmarks.coverage`.

Draws sites and seeds from populations whose true value is known, again and again, and counts how often the 95% interval of
`neurogym_v.scoring.cluster_bootstrap` (sites are drawn, quantiles are expanded) holds it, and for means that of
`studentized_bootstrap`, beside the plain percentile interval over sites, and the one that draws seeds within these sites as
well. A second table counts how often a site whose best image is no better than the best natural one (3 spikes a presentation
either) is taken for stretched.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import TypeAlias
from zlib import crc32

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from neurogym_v.benchmarks.progress import progress
from neurogym_v.scoring import (
    Scores,
    SiteTest,
    Statistic,
    bootstrap_test,
    cluster_bootstrap,
    iqm,
    mean,
    median,
    paired,
    studentized_bootstrap,
    welch,
)
from neurogym_v.stats import Estimate

Population: TypeAlias = Callable[[np.random.Generator, int, int], Scores]
"""(rng, sites, seeds) -> (sites, seeds) scores."""
Interval: TypeAlias = Callable[[Scores, Statistic, np.random.Generator], Estimate]

STATISTICS: dict[str, Statistic] = {"iqm": iqm, "mean": mean, "median": median}
TRUTH = 400_000
"""Sites that a population's true value is computed from."""
WINDOW_S = 0.1
LEVELS = (0.05, 0.005)
REPEATS = (80, 40, 10)
"""Of the image that a site is tested with; 80 are what a run shows."""
EPILOG = """examples:
  python -m neurogym_v.benchmarks.coverage                                    # all; some minutes
  python -m neurogym_v.benchmarks.coverage --sites 24 --populations skewed --runs 2000
  python -m neurogym_v.benchmarks.coverage --statistics iqm --seeds 10 --sites 5 60   # a plan of one's own

An interval that holds the truth in fewer than 95% of experiments promises too much, in more it is wider than need be.
"""


def normal(rng: np.random.Generator, sites: int, seeds: int) -> Scores:
    """Sites vary more than seeds do."""
    return rng.normal(1.0, 0.3, (sites, 1)) + rng.normal(0.0, 0.2, (sites, seeds))


def noisy(rng: np.random.Generator, sites: int, seeds: int) -> Scores:
    """Seeds vary far more than sites do."""
    return rng.normal(1.0, 0.1, (sites, 1)) + rng.normal(0.0, 0.4, (sites, seeds))


def skewed(rng: np.random.Generator, sites: int, seeds: int) -> Scores:
    """A skewness of 1 over sites: a few are driven far above the others."""
    return rng.gamma(4.0, 0.25, (sites, 1)) + rng.normal(0.0, 0.2, (sites, seeds))


def heavy(rng: np.random.Generator, sites: int, seeds: int) -> Scores:
    """A skewness of 2 over sites: exponential."""
    return 0.4 + rng.exponential(0.6, (sites, 1)) + rng.normal(0.0, 0.2, (sites, seeds))


POPULATIONS: dict[str, Population] = {"normal": normal, "noisy": noisy, "skewed": skewed, "heavy": heavy}


def percentile(scores: Scores, statistic: Statistic, rng: np.random.Generator, *, resamples: int, seeds: bool) -> Estimate:
    """The plain interval over drawn sites, and over seeds drawn within these or not."""
    drawn = scores[rng.integers(len(scores), size=(resamples, len(scores)))]
    if seeds:
        drawn = np.take_along_axis(drawn, rng.integers(scores.shape[1], size=drawn.shape), axis=-1)
    low, high = np.quantile(statistic(drawn), [0.025, 0.975], method="inverted_cdf")
    return Estimate(float(statistic(scores)), float(low), float(high))


@cache
def truth(population: Population, statistic: Statistic, seeds: int) -> float:
    """What a statistic comes to on very many sites."""
    return float(statistic(population(np.random.default_rng(0), TRUTH, seeds)))


def experiments(
    population: Population, statistic: Statistic, interval: Interval, *, sites: int, seeds: int, runs: int, seed: int = 0
) -> Iterator[bool]:
    """Of so many experiments, whether the interval holds the truth; the same experiments for any interval and statistic."""
    true, name = truth(population, statistic, seeds), crc32(population.__name__.encode())
    for stream in np.random.SeedSequence([seed, sites, seeds, name]).spawn(runs):
        rng = np.random.default_rng(stream)
        found = interval(population(rng, sites, seeds), statistic, rng)
        yield found.low <= true <= found.high


def false_sites(test: SiteTest, *, repeats: int, mean_count: float, runs: int, seed: int = 0) -> Iterator[float]:
    """p of so many sites with the same Poisson counts, modulated by gains of variance 0.1, for either image."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        first, second = rng.poisson(mean_count * rng.gamma(10.0, 0.1, (2, repeats))) / WINDOW_S
        yield test(first, second)


def of_means(scores: Scores, statistic: Statistic, rng: np.random.Generator, *, resamples: int) -> Estimate:
    """`studentized_bootstrap`, which knows no other statistic."""
    assert statistic is mean
    return studentized_bootstrap(scores, rng, resamples=resamples)


def intervals(resamples: int, statistic: Statistic) -> dict[str, Interval]:
    """Ours of a statistic, and what they are compared with."""
    ours: dict[str, Interval] = {"studentized": partial(of_means, resamples=resamples)} if statistic is mean else {}
    return {
        "sites, expanded": partial(cluster_bootstrap, resamples=resamples),
        "sites": partial(percentile, resamples=resamples, seeds=False),
        "sites and seeds": partial(percentile, resamples=resamples, seeds=True),
        **ours,
    }


def coverage_table(chosen: argparse.Namespace, bar: Progress) -> Table:
    """A row a statistic, population and number of sites, a column an interval."""
    made = {name: intervals(chosen.resamples, STATISTICS[name]) for name in chosen.statistics}
    headings = max(made.values(), key=len)
    error = 200 * np.sqrt(0.95 * 0.05 / chosen.runs)
    title = f"% of {chosen.runs} intervals that hold the truth; 95 ± {error:.1f} is right"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("statistic", "population", "sites", *headings):
        table.add_column(heading, justify="left" if heading in ("statistic", "population") else "right")
    grid = list(product(chosen.statistics, chosen.populations, chosen.sites))
    total = chosen.runs * sum(len(made[statistic]) for statistic, _, _ in grid)
    task = bar.add_task("intervals", total=total)
    for statistic, name, sites in grid:
        sizes = {"sites": sites, "seeds": chosen.seeds, "runs": chosen.runs, "seed": chosen.seed}
        each = [experiments(POPULATIONS[name], STATISTICS[statistic], kind, **sizes) for kind in made[statistic].values()]
        table.add_row(statistic, name, str(sites), *(f"{100 * _share(held, bar, task):.1f}" for held in each))
    return table


def false_table(chosen: argparse.Namespace, bar: Progress) -> Table:
    """A row a number of repeats, a column a test and level."""
    tests: dict[str, SiteTest] = {
        "Welch": welch,
        "paired": paired,
        "bootstrap": bootstrap_test(np.random.default_rng(chosen.seed), resamples=chosen.resamples),
    }
    runs = 8 * chosen.runs
    table = Table(title=f"% of {runs} sites falsely taken for stretched", title_justify="left", box=None)
    for heading in ("repeats", *(f"{name} at {100 * level:g}%" for name in tests for level in LEVELS)):
        table.add_column(heading, justify="right")
    task = bar.add_task("sites", total=len(REPEATS) * len(tests) * runs)
    for repeats in REPEATS:
        cells = []
        for test in tests.values():
            p = np.empty(runs)
            for run, one in enumerate(false_sites(test, repeats=repeats, mean_count=3.0, runs=runs, seed=chosen.seed)):
                p[run] = one
                bar.advance(task)
            cells += [f"{100 * (p <= level).mean():.2f}" for level in LEVELS]
        table.add_row(str(repeats), *cells)
    return table


def _share(held: Iterator[bool], bar: Progress, task: TaskID) -> float:
    found = []
    for one in held:
        found.append(one)
        bar.advance(task)
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m neurogym_v.benchmarks.coverage",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    populations = [f"{name}: {population.__doc__}" for name, population in POPULATIONS.items()]
    parser.add_argument("--statistics", nargs="+", choices=list(STATISTICS), default=list(STATISTICS), help="[all]")
    parser.add_argument("--populations", nargs="+", choices=list(POPULATIONS), default=list(POPULATIONS),
                        help=f"{' '.join(populations)} [all]")  # fmt: skip
    parser.add_argument("--sites", nargs="+", type=_two_or_more, metavar="N", default=[12, 24, 40], help="[12 24 40]")
    parser.add_argument("--seeds", type=_two_or_more, metavar="N", default=3, help="of each site [%(default)s]")
    parser.add_argument("--runs", type=_two_or_more, metavar="N", default=600, help="experiments a number [%(default)s]")
    parser.add_argument("--resamples", type=_two_or_more, metavar="N", default=1000, help="an interval [%(default)s]")
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of all that is drawn [%(default)s]")
    chosen = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 120)
    with progress(console) as bar:
        tables = [coverage_table(chosen, bar), false_table(chosen, bar)]
    for table in tables:
        console.print(table)


def _two_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a whole number from 2 on, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
