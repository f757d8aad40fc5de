"""A board: the entries of a suite, and how their agents stand on all of its sites and on every choice of them on a page.

Standings are computed here for each choice, and a page only shows them: so its intervals and tests are those of the command
line, and there is one implementation of the statistics to trust.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.benchmarks.leaderboard.checks import NOBODY
from neurogym_v.benchmarks.leaderboard.entry import Entry
from neurogym_v.benchmarks.reduced import Run
from neurogym_v.benchmarks.standings import Comparison, Standing, Track, compared, ranked, tracks
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.scoring import ecdf, iqm, performance_profile

POINTS = 61
"""Of a curve."""
HELD = ("all", "held", "other")
"""All sites, those that nothing may be tuned on, the others."""
Place = tuple[str, int]
"""(neuron, site)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Of a suite."""

    neuron: str
    site: int
    label: str
    held_out: bool

    @property
    def place(self) -> Place:
        return self.neuron, self.site


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Agents on some sites of a track."""

    track: Track
    rows: tuple[Standing, ...]
    """Highest first."""
    compared: Comparison
    reached: Mapping[str, NDArray[np.float64]]
    """Agent -> (POINTS,) share of pairs of a run and a target that are reached within `Board.spent` presentations."""
    above: Mapping[str, NDArray[np.float64]]
    """Agent -> (POINTS,) share of runs above `Board.taus`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All of a suite."""

    suite: Suite
    entries: Mapping[str, Entry]
    """Agent -> its entry, by name."""
    sites: tuple[Site, ...]
    tracks: tuple[Track, ...]
    views: tuple[View, ...]
    """Each once; the first of them is of all sites of the first track."""
    choices: Mapping[tuple[int, str, str], int | None]
    """(place of the track, sites, one of HELD) -> place of the view; None: no site is both. Sites are `all`, `kind:LABEL` or
    `site:PLACE`, a place in `sites`."""
    taus: NDArray[np.float64]
    """(POINTS,) relative activations."""

    @property
    def spent(self) -> NDArray[np.float64]:
        """(POINTS,) presentations."""
        return np.linspace(0, self.suite.budget, POINTS)

    def view(self, track: int = 0, sites: str = "all", held: str = "all") -> View | None:
        """One of the choices."""
        at = self.choices[track, sites, held]
        return None if at is None else self.views[at]


def board_of(suite: Suite, entries: Iterable[Entry]) -> Board:
    """The board of entries that were checked."""
    named = {entry["agent"]: entry for entry in sorted(entries, key=lambda entry: entry["agent"])}
    runs: dict[str, Sequence[Run]] = {agent: entry["runs"] for agent, entry in named.items()}
    tasks = suite.tasks([NOBODY])
    sites = tuple(
        dict.fromkeys(
            Site(neuron=t.config.neuron, site=t.config.site, label=t.label, held_out=t.held_out) for t in tasks
        )
    )  # fmt: skip
    asked = {
        (at, choice, held): tuple(site.place for site in found if site.place in track.sites)
        for at, track in enumerate(tracks(tasks))
        for (choice, held), found in _choices(sites).items()
    }
    every = tuple(tracks(tasks))
    needed = list(dict.fromkeys((at, places) for (at, _, _), places in asked.items() if places))
    taus = np.linspace(0, _highest(entry for entry in named.values()), POINTS)
    views = tuple(_view(suite, dataclasses.replace(every[at], sites=places), runs, taus) for at, places in needed)
    choices = {key: needed.index((key[0], places)) if places else None for key, places in asked.items()}
    return Board(suite=suite, entries=named, sites=sites, tracks=every, views=views, choices=choices, taus=taus)


def score_on(view: View, agent: str, sites: Iterable[Site]) -> float:
    """The interquartile mean of an agent's runs on those of a view's sites that are among these; NaN of none."""
    wanted = {site.place for site in sites}
    kept = [place in wanted for place in view.track.sites]
    row = next(row for row in view.rows if row.agent == agent)
    return float(iqm(row.scores[kept])) if any(kept) else float("nan")


def _choices(sites: Sequence[Site]) -> dict[tuple[str, str], list[Site]]:
    made: dict[tuple[str, str], list[Site]] = {}
    for held in HELD:
        fitting = [site for site in sites if held == "all" or site.held_out == (held == "held")]
        made["all", held] = fitting
        for label in dict.fromkeys(site.label for site in sites):
            made[f"kind:{label}", held] = [site for site in fitting if site.label == label]
    return made | {(f"site:{at}", "all"): [site] for at, site in enumerate(sites)}


def _view(suite: Suite, track: Track, runs: Mapping[str, Sequence[Run]], taus: NDArray[np.float64]) -> View:
    rows = ranked(suite, track, runs)
    spent, rng = np.linspace(0, suite.budget, POINTS), np.random.default_rng(0)
    return View(
        track=track,
        rows=tuple(rows),
        compared=compared(rows),
        reached={row.agent: ecdf(row.hits, spent, rng, resamples=1).value for row in rows},
        above={row.agent: performance_profile(row.scores, taus, rng, resamples=1).value for row in rows},
    )


def _highest(entries: Iterable[Entry]) -> float:
    """A round number above all scores, of 1.5 to 3."""
    found = [
        run["milestones"][-1]["relative_activation"]["value"] or 0.0
        for entry in entries
        for run in entry["runs"]
        if run["failed"] is None
    ]
    return float(np.clip(np.ceil(max(found, default=0) * 2) / 2, 1.5, 3.0))
