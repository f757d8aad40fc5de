"""Who did how well in a suite: a standing an agent, for every noise and objective, over sites and their seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.benchmarks.reduced import Result, Run, hits_of, milestone, number, reduced, repeats_of
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.scoring import (
    Friedman,
    cluster_bootstrap,
    expected_running_time,
    friedman,
    improvement_interval,
    iqm,
    paired,
    stretched,
    wilcoxon_holm,
)
from neurogym_v.stats import Estimate
from neurogym_v.types import Rates

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What is compared: sites with seeds under one noise, for one objective."""

    noise: str
    objective: str
    sites: tuple[tuple[str, int], ...]
    """(neuron, site) each."""
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one agent did on one track. Scores are relative activations, interquartile means of runs with intervals over sites;
    NaN where there is nothing to say. A run that failed counts as one that found nothing (0, what a grey screen does), or
    agents would gain by giving up on the sites that are hard."""

    agent: str
    done: int
    of: int
    """Runs."""
    failed: tuple[str, ...]
    """Why, for each run that failed."""
    sanity_checks: int
    """Runs that count for nothing, as the agent's model is made of the neuron's own kind of network."""
    scores: NDArray[np.float64]
    """(sites, seeds) at the end."""
    at: Mapping[int, Estimate]
    """Presentations -> score; the last is that of the end."""
    best: Estimate
    """Of the best of the recommended images, chosen on one half of its repeats and scored on the other."""
    contrast_matched: Estimate
    """With the brightness and contrast of the best natural image."""
    expected: Estimate
    """Noise-free."""
    area: Estimate
    """Under the noise-free curve of what would have been recommended."""
    hits: NDArray[np.float64]
    """(sites, seeds, targets) presentations until that curve is at a target."""
    running_time: NDArray[np.float64]
    """(targets,) expected presentations to each, of the median site: one that no run ever solved takes inf."""
    stretched: Estimate
    """Share of sites that the first seed drives above their best natural image, corrected for how many there are."""
    gain: Estimate
    """Above the best natural image, spikes/s over spikes/s, median of sites."""
    optimism: float
    """(rate that the agent says its image has - the expected one) / the expected one, where it says so; median of runs."""
    seconds: float
    """The agent's own for 1,000 presentations, median of runs."""

    @property
    def score(self) -> Estimate:
        return self.at[max(self.at)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether agents differ, and each from the first. Seeds are paired; agents without a score are left out."""

    differ: Friedman | None
    """Whether any do; None of fewer than three."""
    p: Mapping[str, float]
    """Agent -> p that it differs from the first (Wilcoxon's signed-rank test over sites, after Holm); NaN: no site.

    Of all pairs: which agent is the first was not known before, so that it may be any.
    """
    better: Mapping[str, Estimate]
    """Agent -> probability that a run of it is better than one of the first on the same site, with its interval over sites."""

    def tied(self, agent: str) -> bool:
        """Whether nothing says that it differs from the first."""
        return agent in self.p and not self.p[agent] <= ALPHA


def compared(rows: Sequence[Standing]) -> Comparison:
    """All with the first; rows are `standings`, highest first."""
    scored = [row for row in rows if np.isfinite(row.scores).any()]
    if len(scored) < 2:
        return Comparison(differ=None, p={}, better={})
    scores, rng = np.stack([row.scores for row in scored]), np.random.default_rng(0)
    return Comparison(
        differ=friedman(scores) if len(scored) > 2 else None,
        p={scored[pair.second].agent: pair.p_holm for pair in wilcoxon_holm(scores) if pair.first == 0},
        better={row.agent: improvement_interval(row.scores, scores[0], rng) for row in scored[1:]},
    )


def tracks(tasks: Iterable[Task]) -> list[Track]:
    """The tracks of these runs, in their order."""
    found: dict[tuple[str, str], tuple[dict[tuple[str, int], None], dict[int, None]]] = {}
    for config in (task.config for task in tasks):
        sites, seeds = found.setdefault((config.noise, config.objective), ({}, {}))
        sites[config.neuron, config.site] = None
        seeds[config.seed] = None
    return [
        Track(noise=noise, objective=objective, sites=tuple(sites), seeds=tuple(seeds))
        for (noise, objective), (sites, seeds) in found.items()
    ]


def standings(suite: Suite, track: Track, results: Sequence[Result]) -> list[Standing]:
    """A standing for every agent with results on the track, highest first."""
    runs: dict[str, list[Run]] = {}
    for result in results:
        runs.setdefault(result["agent"], []).append(reduced(result, suite.budget))
    return ranked(suite, track, runs)


def ranked(suite: Suite, track: Track, runs: Mapping[str, Sequence[Run]]) -> list[Standing]:
    """A standing for every agent with runs on the sites of the track, highest first.

    Args:
        runs: agent -> its runs as `reduced` gives them, in whatever order, those of other tracks too.
    """
    wanted = {(track.noise, track.objective, *site) for site in track.sites}
    mine = {
        agent: [r for r in theirs if (r["noise"], r["objective"], r["neuron"], r["site"]) in wanted]
        for agent, theirs in runs.items()
    }
    made = [_standing(suite, track, agent, theirs) for agent, theirs in mine.items() if theirs]
    return sorted(made, key=lambda s: (np.nan_to_num(s.score.value, nan=-np.inf), s.agent), reverse=True)


def _standing(suite: Suite, track: Track, agent: str, mine: Sequence[Run]) -> Standing:
    fair = {place(r): r for r in mine if not r["sanity_check"]}
    grid = [[fair.get((*site, seed)) for seed in track.seeds] for site in track.sites]
    rng = np.random.default_rng(0)
    allowed = sorted({*suite.report_at, suite.budget})

    def value(key: str, presentations: int = allowed[-1]) -> NDArray[np.float64]:
        return _array(grid, lambda r: number(milestone(r, presentations)[key]))

    def score(values: NDArray[np.float64]) -> Estimate:
        return cluster_bootstrap(values, iqm, rng) if np.isfinite(values).any() else Estimate(np.nan, np.nan, np.nan)

    hits = np.array([[hits_of(run) for run in row] for row in grid])
    spent = np.nan_to_num(_array(grid, lambda r: r["presentations"], failed=suite.budget), nan=float(suite.budget))
    shown = [_shown(row[0]) for row in grid if row[0] is not None]
    final, natural, grey = ([one[which] for one in shown] for which in range(3))
    stretch = stretched(final, natural, grey, rng, test=paired)
    runs = [run for row in grid for run in row if run is not None and run["failed"] is None]
    return Standing(
        agent=agent,
        done=len(runs),
        of=len(track.sites) * len(track.seeds),
        failed=tuple(r["failed"] for r in mine if r["failed"] is not None),
        sanity_checks=sum(r["failed"] is None and r["sanity_check"] for r in mine),
        scores=value("relative_activation"),
        at={presentations: score(value("relative_activation", presentations)) for presentations in allowed},
        best=score(value("best_relative_activation")),
        contrast_matched=score(value("contrast_matched")),
        expected=score(value("expected_relative_activation")),
        area=score(_array(grid, lambda r: number(r["area"]))),
        hits=hits,
        running_time=_median_site(expected_running_time(hits.transpose(0, 2, 1), spent[:, None, :])),
        stretched=stretch.fraction,
        gain=stretch.gain,
        optimism=_median(number(run["optimism"]) for run in runs),
        seconds=_median(1000 * run["agent_s"] / run["presentations"] for run in runs),
    )


def place(run: Run) -> tuple[str, int, int]:
    """(neuron, site, seed)"""
    return run["neuron"], run["site"], run["seed"]


def _array(grid: Sequence[Sequence[Run | None]], number_of: Any, *, failed: float = 0.0) -> NDArray[np.float64]:
    """(sites, seeds) of a number of each run; NaN where there is none, and what a run counts for that failed."""
    return np.array(
        [[np.nan if run is None else number_of(run) if run["failed"] is None else failed for run in row] for row in grid],
        dtype=np.float64,
    )


def _shown(run: Run) -> tuple[Rates, Rates, Rates]:
    """Repeats of the recommended image, of the best natural one and of a grey screen, with the moments of those of a run."""
    if run["failed"] is not None:
        return np.zeros(2), np.ones(2), np.zeros(2)
    difference, natural = repeats_of(run["test"]["difference"]), number(run["test"]["natural"]["mean"])
    return natural + difference, np.full(len(difference), natural), repeats_of(run["test"]["spontaneous"])


def _median_site(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(sites, targets) -> (targets,) over the sites that have runs."""
    there = times[~np.isnan(times).any(axis=1)]
    return np.median(there, axis=0) if len(there) else np.full(times.shape[1], np.nan)


def _median(values: Iterable[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else float("nan")
