"""The tables of `neurogym_v.benchmarks.agents`: a row an agent; sites are what is counted, their seeds are averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from neurogym_v.benchmarks.agents_runs import Condition, Outcome
from neurogym_v.files import write_json, write_whole
from neurogym_v.stats import Estimate, median
from neurogym_v.types import Rates

RANDOM, GA, GOAL = "random", "ga:wang2022", "ga:ponce2019"
"""What is to be beaten; what activations are divided by; and whose final rate is what others are timed to."""
WINDOW = 200
"""Presentations that a rate during the search is averaged over."""
FEWEST = 5
"""Sites that an interval is given for."""
NONE = "–"
HEADINGS = ("", "relative activation", "noise-free", "/ GA", "> random", "luck", "gap", "to GA", "norm", "s", "sites")
NOTES = (
    "relative activation: (final - spontaneous) / (best natural - spontaneous) from fresh repeats, median of sites, with its "
    f"95 % interval from {FEWEST} sites on; noise-free: the same from expected rates, highest first; / GA: the first over that "
    f"of {GA} at the same site, median of the sites where that is above 0 (of so many that both have); > random: sites where "
    f"it is above {RANDOM}, of those that both have; sites: those with all seeds done, which all numbers of a row rest on: "
    "rows with different sites are compared by these two alone.",
    "luck: (highest single response of the search - final) / final, what the search itself would have one believe; gap: (rate "
    "that the agent says its recommended image has - the expected one) / the expected one, where it says so; medians of runs.",
    f"to GA: presentations until the mean of {WINDOW} reaches that of the last {WINDOW} of {GOAL} in the same condition and so "
    f"does the mean of the next {WINDOW} (near the end: of those left, at least {WINDOW // 2}), median of runs (no number: "
    f"half never do), and how many do; an image shown again counts like any other; {GOAL} itself: its end, by definition.",
    "norm: of the recommended latent, in units of sqrt(d); s: the agent's own seconds per 1,000 presentations.",
)
SANITY = (
    "* on so many sites, left out, the agent's model is made of the neuron's own kind of network: a sanity check, no result."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one agent did under one noise; NaN where there is nothing to say."""

    agent: str
    sites: int
    """With all seeds done and no sanity check: those that count, in all columns."""
    of: int
    failed: tuple[str, ...]
    """Why, for each run that failed."""
    sanity_checks: int
    """Sites that are left out."""
    by_site: Mapping[str, float]
    """Relative activation of each site that counts."""
    relative_activation: Estimate
    expected_relative_activation: Estimate
    ratio: float
    ratio_sites: tuple[int, int]
    """Those of the ratio, of how many that both have."""
    above_random: tuple[int, int]
    """Sites, of how many that both have."""
    luck: float
    gap: float
    to_goal: float
    """Presentations; infinite where half of the runs or more never reach it."""
    reached: tuple[int, int]
    """Runs, of how many."""
    norm: float
    seconds: float


def rows(found: Sequence[Outcome], agents: Sequence[str], grid: Sequence[Condition]) -> list[Row]:
    """A row for each of these agents over the conditions of one noise, best first, noise-free where that is known."""
    asked = set(grid)
    mine: dict[str, dict[Condition, Outcome]] = {agent: {} for agent in (*agents, RANDOM, GA, GOAL)}
    for one in found:
        if one.condition in asked and one.agent in mine:
            mine[one.agent][one.condition] = one
    places = {c.place: [other for other in grid if other.place == c.place] for c in grid}
    made = [_row(agent, mine, places) for agent in agents]
    return sorted(made, key=_merit, reverse=True)


def _merit(row: Row) -> float:
    values = (row.expected_relative_activation.value, row.relative_activation.value)
    return next((value for value in values if np.isfinite(value)), -np.inf)


def _row(agent: str, mine: Mapping[str, Mapping[Condition, Outcome]], places: Mapping[str, Sequence[Condition]]) -> Row:
    sanity = {one.condition.place for one in mine[agent].values() if one.sanity_check}
    fair = {place: wanted for place, wanted in places.items() if place not in sanity}
    activation = by_site(mine[agent], fair, "relative_activation")
    kept = {place: places[place] for place in activation}
    runs = [mine[agent][condition] for wanted in kept.values() for condition in wanted]
    ga, chance = (by_site(mine[name], kept, "relative_activation") for name in (GA, RANDOM))
    ratios = [activation[place] / ga[place] for place in ga if ga[place] > 0]
    goals = {c: goal_of(one) for c, one in mine[GOAL].items() if one.failed is None}
    timed = [one for one in runs if one.condition in goals]
    times = [float(one.spent[-1]) if agent == GOAL else presentations_to(one, goals[one.condition]) for one in timed]
    return Row(
        agent=agent,
        sites=len(activation),
        of=len(places),
        failed=tuple(one.failed for one in mine[agent].values() if one.failed is not None),
        sanity_checks=len(sanity),
        by_site=activation,
        relative_activation=interval(activation.values()),
        expected_relative_activation=interval(by_site(mine[agent], kept, "expected_relative_activation").values()),
        ratio=_median(ratios),
        ratio_sites=(len(ratios), len(ga)),
        above_random=(sum(activation[place] > chance[place] for place in chance), len(chance)),
        luck=_median(luck(one) for one in runs),
        gap=_median(gap(one) for one in runs),
        to_goal=_median(times),
        reached=(int(np.isfinite(times).sum()), len(times)),
        norm=_median(one.norm for one in runs),
        seconds=_median(1000 * one.agent_s / one.presentations for one in runs),
    )


def by_site(outcomes: Mapping[Condition, Outcome], places: Mapping[str, Sequence[Condition]], what: str) -> dict[str, float]:
    """Place -> mean over its seeds, of the places where all seeds are done and there is a number."""
    found = {}
    for place, wanted in places.items():
        done = [outcomes[c] for c in wanted if c in outcomes and outcomes[c].failed is None]
        mean = float(np.mean([getattr(one, what) for one in done])) if len(done) == len(wanted) else float("nan")
        if np.isfinite(mean):
            found[place] = mean
    return found


def interval(sites: Iterable[float]) -> Estimate:
    """Median of sites; without an interval where they are few."""
    values = np.array(list(sites), dtype=np.float64)
    if len(values) >= FEWEST:
        return median(values, np.random.default_rng(0))
    return Estimate(_median(values), float("nan"), float("nan"))


def goal_of(outcome: Outcome) -> float:
    """Mean spikes/s of the last presentations of a search."""
    shown = np.array([len(outcome.rates)])
    return float(means_of(outcome.rates, np.maximum(shown - WINDOW, 0), shown)[0])


def presentations_to(outcome: Outcome, goal_hz: float) -> float:
    """Presentations that were spent when the mean of a window first reached so much, if that of the next one does too.

    The mean alone, seen at each presentation, is there early by luck. Where the search ends before the next window does, what
    is left is taken for it, half a window or more. Infinite where this never happens.
    """
    shown = len(outcome.rates)
    ends = np.arange(WINDOW, shown - WINDOW // 2 + 1)
    before = means_of(outcome.rates, ends - WINDOW, ends)
    after = means_of(outcome.rates, ends, np.minimum(ends + WINDOW, shown))
    reached = np.flatnonzero(np.minimum(before, after) >= goal_hz - 1e-9)  # rates that stay equal have means that do not quite
    return float(outcome.spent[ends[reached[0]] - 1]) if len(reached) else float("inf")


def means_of(rates: Rates, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Rates:
    """(n,) means of the rates from each start up to its end, lost trials left out; NaN where all were lost."""
    valid = np.isfinite(rates)
    sums, counts = (np.cumsum(np.concatenate([[0.0], x])) for x in (np.where(valid, rates, 0), valid))
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[ends] - sums[starts]) / (counts[ends] - counts[starts]))


def luck(outcome: Outcome) -> float:
    """By how much of the validated rate the highest single response of the search was above it."""
    valid = outcome.rates[np.isfinite(outcome.rates)]
    return _above(float(valid.max()), outcome.final_hz) if len(valid) else float("nan")


def gap(outcome: Outcome) -> float:
    """By how much of the expected rate of the recommended image the agent's own estimate is above it; NaN without one."""
    return _above(outcome.own_hz, outcome.expected_final_hz)


def _above(claimed: float, true: float) -> float:
    return (claimed - true) / true if true > 0 else float("nan")


def rich_table(noise: str, table: Sequence[Row]) -> Table:
    """The rows of one noise for the terminal."""
    made = Table(title=f"noise: {noise}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        made.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in table:
        made.add_row(*map(escape, _cells(row)))
    return made


def markdown(noise: str, table: Sequence[Row]) -> str:
    """The same as markdown."""
    lines = [HEADINGS, ["---:" if heading else "---" for heading in HEADINGS], *map(_cells, table)]
    return f"**noise: {noise}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> list[str]:
    name = row.agent + (f" *{row.sanity_checks}" if row.sanity_checks else "")
    sites = f"{row.sites}/{row.of}" + (f", {len(row.failed)} failed" if row.failed else "")
    if not row.sites:
        why = "failed" if row.failed else "sanity check" if row.sanity_checks else "not done"
        return [name, why, *[NONE] * 8, sites]
    return [
        name,
        _estimate(row.relative_activation),
        _estimate(row.expected_relative_activation),
        _two(row.ratio) + " ({}/{})".format(*row.ratio_sites) if row.ratio_sites[1] else NONE,
        "{}/{}".format(*row.above_random) if row.above_random[1] else NONE,
        _two(row.luck),
        _two(row.gap),
        (f"{row.to_goal:.0f} " if np.isfinite(row.to_goal) else "") + "({}/{})".format(*row.reached)
        if row.reached[1]
        else NONE,
        _two(row.norm),
        _two(row.seconds),
        sites,
    ]


def write(out: Path, about: str, tables: Mapping[str, Sequence[Row]], found: Sequence[Outcome]) -> list[str]:
    """`agents.md`, and `table.json` with the rows of each noise and a line a run; gives what is said under the tables."""
    every = [row for table in tables.values() for row in table]
    notes = list(NOTES) + ([SANITY] if any(row.sanity_checks for row in every) else [])
    reasons = dict.fromkeys((row.agent, reason) for row in every for reason in row.failed)
    notes += [f"failed: {agent}: {reason}" for agent, reason in reasons]
    if outdated := Counter(one.agent for one in found if one.outdated):
        runs_of = ", ".join(f"{agent} ({n})" for agent, n in outdated.items())
        notes.append(f"runs with older code than today's (--refresh does those of --agents anew): {runs_of}")
    pages = [markdown(noise, table) for noise, table in tables.items()]
    text = "\n\n".join(["# All agents", about, *pages, *notes])
    runs: list[dict[str, Any]] = [
        {"place": o.condition.place, "noise": o.condition.noise, "seed": o.condition.seed, "agent": o.agent, "failed": o.failed,
         "relative_activation": o.relative_activation, "expected_relative_activation": o.expected_relative_activation,
         "final_hz": o.final_hz, "expected_final_hz": o.expected_final_hz, "own_hz": o.own_hz, "luck": luck(o), "gap": gap(o),
         "outdated": o.outdated, "norm": o.norm, "agent_s": o.agent_s,
         "presentations": o.presentations, "sanity_check": o.sanity_check}
        for o in found
    ]  # fmt: skip
    lines = {noise: [asdict(row) for row in table] for noise, table in tables.items()}
    write_whole(out / "agents.md", lambda file: file.write(f"{text}\n".encode()))
    write_json(out / "table.json", {"about": about, "notes": notes, "tables": lines, "runs": runs})
    return notes


def _median(values: Any) -> float:
    finite = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    return float(np.median(finite)) if len(finite) else float("nan")


def _estimate(estimate: Estimate) -> str:
    return str(estimate) if np.isfinite(estimate.low) else _two(estimate.value)


def _two(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NONE
