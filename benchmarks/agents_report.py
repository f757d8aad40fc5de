"""The tables of `neurogym_v.benchmarks.agents`: a row an agent; sites are what is counted, their seeds are averaged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from neurogym_v.benchmarks.agents_runs import Condition, Outcome, without_nan
from neurogym_v.files import write_whole
from neurogym_v.stats import Estimate, median
from neurogym_v.types import Rates

RANDOM, GA, GOAL = "random", "ga:wang2022", "ga:ponce2019"
"""What is to be beaten; what activations are divided by; and whose final rate is what others are timed to."""
WINDOW = 200
"""Presentations that a rate during the search is averaged over."""
FEWEST = 5
"""Sites that an interval is given for."""
NONE = "–"
HEADINGS = ("", "relative activation", "noise-free", "/ GA", "> random", "gap", "to GA", "norm", "s", "sites")
NOTES = (
    "relative activation: (final - spontaneous) / (best natural - spontaneous) from fresh repeats, median of sites, with its "
    f"95 % interval from {FEWEST} sites on; noise-free: the same from expected rates; / GA: over that of {GA} at the same "
    f"site, median; > random: sites on which it is above {RANDOM}.",
    "gap: (highest single response of the search - final) / final, median of runs; to GA: presentations until the mean of "
    f"{WINDOW} reaches that of the last {WINDOW} of {GOAL} in the same condition, median of runs (no number: half never "
    "do), and how many do; norm: of the recommended latent, in units of sqrt(d); s: the agent's own seconds per 1,000 "
    "presentations.",
)
SANITY = "* on so many sites the agent's model is made of the neuron's own kind of network: a sanity check, no result."


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one agent did under one noise; NaN where there is nothing to say."""

    agent: str
    sites: int
    """With all seeds done: those that count."""
    of: int
    failed: tuple[str, ...]
    """Why, for each run that failed."""
    sanity_checks: int
    """Sites."""
    by_site: Mapping[str, float]
    """Relative activation of each site that counts."""
    relative_activation: Estimate
    expected_relative_activation: float
    ratio: float
    above_random: tuple[int, int]
    """Sites, of how many that both have."""
    optimism: float
    to_goal: float
    """Presentations; infinite where half of the runs or more never reach it."""
    reached: tuple[int, int]
    """Runs, of how many."""
    norm: float
    seconds: float


def rows(found: Sequence[Outcome], agents: Sequence[str], grid: Sequence[Condition]) -> list[Row]:
    """A row for each of these agents over the conditions of one noise, best first."""
    asked = set(grid)
    mine: dict[str, dict[Condition, Outcome]] = {agent: {} for agent in (*agents, RANDOM, GA, GOAL)}
    for one in found:
        if one.condition in asked and one.agent in mine:
            mine[one.agent][one.condition] = one
    places = {c.place: [other for other in grid if other.place == c.place] for c in grid}
    made = [_row(agent, mine, places) for agent in agents]
    return sorted(made, key=lambda row: -np.nan_to_num(row.relative_activation.value, nan=-np.inf))


def _row(agent: str, mine: Mapping[str, Mapping[Condition, Outcome]], places: Mapping[str, Sequence[Condition]]) -> Row:
    runs = [one for one in mine[agent].values() if one.failed is None]
    activation = by_site(mine[agent], places, "relative_activation")
    ga, chance = (by_site(mine[name], places, "relative_activation") for name in (GA, RANDOM))
    both = [place for place in activation if place in chance]
    times = [
        presentations_to(one, goal_of(goal)) for one in runs if (goal := mine[GOAL].get(one.condition)) and goal.failed is None
    ]
    values = np.array(list(activation.values()))
    return Row(
        agent=agent,
        sites=len(activation),
        of=len(places),
        failed=tuple(one.failed for one in mine[agent].values() if one.failed is not None),
        sanity_checks=len({one.condition.place for one in runs if one.sanity_check}),
        by_site=activation,
        relative_activation=interval(values),
        expected_relative_activation=_median(by_site(mine[agent], places, "expected_relative_activation").values()),
        ratio=_median(activation[place] / ga[place] for place in activation if ga.get(place, 0) > 0),
        above_random=(sum(activation[place] > chance[place] for place in both), len(both)),
        optimism=_median(optimism(one) for one in runs),
        to_goal=_median(times),
        reached=(int(np.isfinite(times).sum()), len(times)),
        norm=_median(by_site(mine[agent], places, "norm").values()),
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


def interval(values: NDArray[np.float64]) -> Estimate:
    """Median of sites; without an interval where they are few."""
    if len(values) >= FEWEST:
        return median(values, np.random.default_rng(0))
    return Estimate(_median(values), float("nan"), float("nan"))


def goal_of(outcome: Outcome) -> float:
    """Mean spikes/s of the last presentations of a search."""
    return float(moving_mean(outcome.rates)[-1])


def presentations_to(outcome: Outcome, goal_hz: float) -> float:
    """Presentations that were spent when the moving mean first reached so much; infinite where it never did."""
    means = moving_mean(outcome.rates)
    with np.errstate(invalid="ignore"):
        reached = np.flatnonzero(means >= goal_hz - 1e-9)  # the goal is such a mean itself, of sums in this very order
    return float(outcome.spent[reached[0] + len(outcome.spent) - len(means)]) if len(reached) else float("inf")


def moving_mean(rates: Rates) -> Rates:
    """(m - WINDOW + 1,) means of WINDOW presentations in a row, lost trials left out; of all, where there are fewer."""
    window = min(WINDOW, len(rates))
    valid = np.isfinite(rates)
    sums, counts = (np.cumsum(np.concatenate([[0.0], x])) for x in (np.where(valid, rates, 0), valid))
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[window:] - sums[:-window]) / (counts[window:] - counts[:-window]))


def optimism(outcome: Outcome) -> float:
    """By how much of the validated rate the highest single response of the search was above it."""
    valid = outcome.rates[np.isfinite(outcome.rates)]
    if not len(valid) or not outcome.final_hz > 0:
        return float("nan")
    return float((valid.max() - outcome.final_hz) / outcome.final_hz)


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
        return [name, "failed" if row.failed else "not done", *[NONE] * 7, sites]
    activation = row.relative_activation
    return [
        name,
        str(activation) if np.isfinite(activation.low) else f"{activation.value:.2f}",
        _two(row.expected_relative_activation),
        _two(row.ratio),
        "{}/{}".format(*row.above_random) if row.above_random[1] else NONE,
        _two(row.optimism),
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
    outdated = dict.fromkeys(one.agent for one in found if one.outdated)
    if outdated:
        notes.append(f"runs with older code than today's (--again NAME does them anew): {', '.join(outdated)}")
    pages = [markdown(noise, table) for noise, table in tables.items()]
    text = "\n\n".join(["# All agents", about, *pages, *notes])
    runs: list[dict[str, Any]] = [
        {"place": o.condition.place, "noise": o.condition.noise, "seed": o.condition.seed, "agent": o.agent, "failed": o.failed,
         "relative_activation": o.relative_activation, "expected_relative_activation": o.expected_relative_activation,
         "final_hz": o.final_hz, "optimism": optimism(o), "norm": o.norm, "agent_s": o.agent_s,
         "presentations": o.presentations, "sanity_check": o.sanity_check}
        for o in found
    ]  # fmt: skip
    lines = {noise: [asdict(row) for row in table] for noise, table in tables.items()}
    whole = json.dumps(without_nan({"about": about, "notes": notes, "tables": lines, "runs": runs}), indent=1)
    write_whole(out / "agents.md", lambda file: file.write(f"{text}\n".encode()))
    write_whole(out / "table.json", lambda file: file.write(whole.encode()))
    return notes


def _median(values: Any) -> float:
    finite = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    return float(np.median(finite)) if len(finite) else float("nan")


def _two(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NONE
