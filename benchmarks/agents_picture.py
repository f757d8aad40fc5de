"""The picture of `neurogym_v.benchmarks.agents`: relative activation of all agents, a panel a noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurogym_v.benchmarks.agents_report import RANDOM, Row

matplotlib.use("Agg")
FAMILIES = {
    "evolutionary": ("#0072B2", "o", ("ga", "cma_es", "sphere_cma", "csa_es", "nes", "fdgd", "pycma")),
    "nevergrad": ("#E69F00", "s", ("nevergrad",)),
    "reinforcement learning": ("#CC79A7", "^", ("sb3",)),
    "model-driven": ("#009E73", "D", ("bashivan2019", "inception_loop")),
    "random": ("#4B5563", "X", ("random",)),
    "others": ("#56B4E9", "v", ()),
}
"""Colour and shape of each, and the names before the colon; colours of Okabe & Ito 2008, told apart by all eyes."""
INK, FAINT = "#111827", "#9ca3af"
TICKS = (-10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50, 100)


def family(agent: str) -> str:
    base = agent.partition(",")[0].partition(":")[0]
    return next((name for name, (_, _, members) in FAMILIES.items() if base in members), "others")


def order(tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Agents with a score, best first: by the mean over the noises of their place among all."""
    places: dict[str, list[float]] = {}
    for table in tables.values():
        scored = [row for row in table if row.sites]
        for place, row in enumerate(scored):
            places.setdefault(row.agent, []).append(place / len(scored))
    return sorted(places, key=lambda agent: float(np.mean(places[agent])))


def draw_picture(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """Median of sites with its interval; small: the sites; hollow: those of sanity checks are left out."""
    agents = order(tables)
    width, height = 2.2 + max(6.6, 3.4 * len(tables)), 1.9 + 0.23 * len(agents)
    figure = Figure(figsize=(width, height))
    panels = np.atleast_1d(figure.subplots(1, len(tables), sharey=True))
    for axes, (noise, table) in zip(panels, tables.items(), strict=True):
        _panel(axes, noise, {row.agent: row for row in table if row.sites}, agents)
    panels[0].set_yticks(range(len(agents)), agents, fontsize=8)
    panels[0].set_ylim(len(agents) - 0.4, -0.6)
    shown = [name for name in FAMILIES if any(family(agent) == name for agent in agents)]
    marks = [Line2D([], [], color=FAMILIES[name][0], marker=FAMILIES[name][1], lw=1.4, ms=6, label=name) for name in shown]
    figure.legend(handles=marks, loc="upper center", ncols=len(marks), fontsize=8, frameon=False, bbox_to_anchor=(0.5, 1))
    note = "relative activation: 1 is the best natural image; large: median of sites, 95 % interval; small: sites;"
    figure.supxlabel(
        f"{note}\ndashed: random; hollow: sites of sanity checks left out; logarithmic beyond 2",
        fontsize=7.5,
        color=INK,
        y=0.12 / height,
    )
    figure.subplots_adjust(left=1.75 / width, right=0.985, top=1 - 0.62 / height, bottom=0.85 / height, wspace=0.06)
    return figure


def _panel(axes: Axes, noise: str, found: Mapping[str, Row], agents: Sequence[str]) -> None:
    axes.axvline(1, color=FAINT, lw=1)
    if RANDOM in found:
        axes.axvline(found[RANDOM].relative_activation.value, color=FAINT, lw=1, ls="--")
    ends = [0.0, 1.05]
    for y, agent in enumerate(agents):
        if agent not in found:
            continue
        row, (colour, marker, _) = found[agent], FAMILIES[family(agent)]
        activation, sites = row.relative_activation, np.array(list(row.by_site.values()))
        axes.plot(sites, np.full(len(sites), y), ls="", marker=".", ms=3.5, color=colour, alpha=0.4)
        if np.isfinite(activation.low):
            axes.plot([activation.low, activation.high], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
        face = "white" if row.sanity_checks else colour
        axes.plot(activation.value, y, marker=marker, ms=6, color=colour, mfc=face, mew=1.3)
        ends += [activation.value, activation.low, activation.high, *np.quantile(sites, [0.1, 0.9])]
    low, high = np.nanmin(ends), np.nanmax(ends)
    axes.set_xscale("symlog", linthresh=2)  # a cell that photographs hardly drive reaches 20 and must not hide the others
    axes.set_xticks([tick for tick in TICKS if low <= tick <= high], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlim(low - 0.05, high * 1.08)  # single sites may lie outside
    axes.set_title(f"noise: {noise}", fontsize=9, color=INK)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#eef0f3", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
