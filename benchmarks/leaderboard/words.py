"""What the page of a leaderboard says in words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from neurogym_v.benchmarks.leaderboard.board import Board, Site, View
from neurogym_v.benchmarks.leaderboard.columns import TIE
from neurogym_v.benchmarks.leaderboard.pictures import LOOKS, shown
from neurogym_v.benchmarks.reduced import Run
from neurogym_v.benchmarks.reduced import number as value
from neurogym_v.benchmarks.standings import Track
from neurogym_v.report.axes import tag
from neurogym_v.report.words import number
from neurogym_v.stats import Estimate

HELD = ("held out or not", "held out", "not held out")
MINE = "mymodule:MyAgent"
FILTERS = {"track": "noise and objective", "sites": "sites", "held": "held out"}
REACHED = "share of targets reached"
ABOVE = "share of runs above"
STANDINGS = (
    "Relative activation of 1 is the best natural image, 0 the grey screen. Scores are interquartile means of runs on fresh "
    "presentations, with 95% intervals over sites. A click on a heading sorts; intervals and ranks are computed anew for the "
    "sites that are chosen."
)
CURVES = (
    "First, the share of pairs of a run and a target (relative activations of 0.5, 0.8, 1, 1.2 and 1.5, noise-free) that is "
    "reached within so many presentations. Then the share of runs whose validated score is above a level. Sites weigh the "
    "same. The names below turn curves on and off."
)
ENTRIES = "What each agent was made with, where, and with which command."
SUBMIT = "An agent of your own is MODULE:CLASS. What it did is one file, which others check by running a part of it again."
NOTE = ": not told apart from the first agent (Wilcoxon's signed-rank test over sites, seeds paired, after Holm at 5%)"
FEW = 10
FOOT = "Made by neurogym-v leaderboard build from the entries alone. The page needs no network and no other file."


def notes(board: Board, view: View) -> Markup:
    """Below the table."""
    few = "; few sites tell few agents apart" if len(board.sites) < FEW else ""
    said = f". Their order among each other says little. {differ(view)}"
    return tag("p", tag("b", TIE), NOTE, few, said, class_="below")


def differ(view: View) -> str:
    """Whether the agents of a view differ at all."""
    found = view.compared.differ
    if found is None or not np.isfinite(found.p):
        return ""
    p = "< 0.001" if found.p < 0.001 else f"= {found.p:.3f}"
    where = f"{len(found.mean_ranks)} agents on {found.sites} sites"
    return f"Whether any differ: Friedman's test of {where}, chi squared {found.statistic:.1f}, p {p}."


def headline(board: Board, view: View) -> list[tuple[str, str, str]]:
    """(number, unit, what it is)"""
    first = view.rows[0]
    tied = sum(view.compared.tied(row.agent) for row in view.rows)
    interval = f"[{number(first.score.low, 2)}, {number(first.score.high, 2)}]"
    return [
        (
            str(len(view.rows)),
            "agents",
            f"on {len(board.sites)} sites, {len(board.suite.seeds)} seed{'s' * (len(board.suite.seeds) > 1)}",
        ),
        (number(first.score.value, 2), interval, f"relative activation of the first, {first.agent}"),
        (str(tied), "agents", "are not told apart from the first"),
        (f"{board.suite.budget:,}", "presentations", "of each search, lost ones included"),
    ]


def site(one: Site) -> str:
    """As a reader says it."""
    return f"{one.label}: {one.neuron}, site {one.site}" + (", held out" if one.held_out else "")


def track(one: Track) -> str:
    """As a reader says it."""
    return f"{one.noise}, {one.objective}"


def breakable(agent: str) -> str:
    """A name that may be broken behind what is no letter."""
    return re.sub(r"([:,=_])", "\\1\u200b", agent)


def unit(one: Track) -> str:
    """Of scores."""
    return "spikes/s" if one.objective == "stretch" else f"({one.objective})"


def activation(run: Run) -> float:
    """The score at the end."""
    return value(run["milestones"][-1]["relative_activation"])


def natural(run: Run, one: Track, unit: str = "") -> str:
    """The score of the best natural image."""
    return f"{number(value(run['test']['natural']['mean']), 1 if one.objective == 'stretch' else 2)} {unit}".strip()


def films(board: Board) -> str:
    """Above the images."""
    which = "of one seed" if len(shown(board)) == 1 else "of every seed"
    return (
        "The image that each agent recommends at the end, with its relative activation on fresh presentations, and the natural "
        f"image that drives the site most, with its rate; {which}, in the order of the standings. A click enlarges an image."
    )


def below(agent: str, run: Run, *, seed: bool = False) -> str:
    """What is said below its image."""
    which = f", seed {run['seed']}" if seed else ""
    return f"{breakable(agent)}{which}\n{number(activation(run), 2)}"


def found(run: Run, one: Site) -> str:
    """What is said of an image that is enlarged."""
    estimate = run["milestones"][-1]["relative_activation"]
    interval = f"[{number(value(estimate['low']), 2)}, {number(value(estimate['high']), 2)}]"
    fair = "\ncounts for nothing: its model is made of the neuron's own kind of network" if run["sanity_check"] else ""
    return f"{site(one)}\nrelative activation {number(activation(run), 2)} {interval}{fair}"


def summary(entry: Mapping[str, Any]) -> str:
    """Beside the agent's name."""
    version = f"neurogym-v {entry['versions']['neurogym-v']}"
    return ", ".join(filter(None, (entry["by"] and f"by {entry['by']}", entry["date"], version)))


def facts(entry: Mapping[str, Any]) -> dict[str, str]:
    """Name -> value."""
    hardware = entry["hardware"]
    lost = sum(run["lost"] for run in entry["runs"] if run["failed"] is None)
    shown = sum(run["presentations"] for run in entry["runs"] if run["failed"] is None)
    own = sum(run["agent_s"] for run in entry["runs"] if run["failed"] is None)
    failed = sorted({run["failed"] for run in entry["runs"] if run["failed"] is not None})
    return {
        **({"submitted by": entry["by"]} if entry["by"] else {}),
        **({"note": entry["note"]} if entry["note"] else {}),
        "date": entry["date"],
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores",
        "device": hardware["device"],
        "all searches": f"{_time(entry['wall_s'])}, {_time(own)} of them the agent's own",
        "presentations": f"{shown:,}, {lost:,} of them lost",
        "versions": ", ".join(f"{name} {version}" for name, version in entry["versions"].items()),
        "digest of its code": entry["code"] or "not known",
        "digest of the entry": entry["sha256"][:12],
        **({"failed": "; ".join(failed)} if failed else {}),
    }


def alike(board: Board, found: Estimate | None) -> dict[str, str]:
    """Whether repeated searches of a site come to like images; nothing where no site was searched twice."""
    if found is None or not np.isfinite(found.low):
        return {}
    share = f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]"
    looks = f"features of {LOOKS[0]} after block {LOOKS[1]}; {track(board.tracks[0])}"
    said = f"{share} of pairs of images of one site are more alike than those of two sites"
    return {"repeated searches": f"{said} (chance: 50%; {looks})"}


def submit(board: Board) -> str:
    """The commands."""
    name = board.suite.name
    bench = shlex.join(["neurogym-v", "bench", name, "--agents", MINE])
    add = ["neurogym-v", "leaderboard", "add", f"runs/bench/{board.suite.id}", "--agents", MINE, "--by", "Our lab"]
    return f"{bench}\n{shlex.join(add)}"


def _time(seconds: float) -> str:
    units = {"s": 1, "min": 60, "h": 3600}
    unit = next((name for name in reversed(units) if seconds >= 2 * units[name]), "s")
    return f"{number(seconds / units[unit], 0 if unit == 'min' else 1)} {unit}"
