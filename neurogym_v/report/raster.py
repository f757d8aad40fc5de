"""Spike rasters of what was validated on a live neuron: for each image a row a showing, and above them the rate over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from neurogym_v.report import parts, words
from neurogym_v.report.axes import Key, Scale, grid, ink, legend_of, path, percent, plane, scale, tag
from neurogym_v.report.images import Film
from neurogym_v.report.marks import Array, Line, area
from neurogym_v.report.record import RATE, Record, RigRecord, Showing
from neurogym_v.report.words import number, whole

ROWS = 60
"""Of a raster, at most; of more showings, some."""
TICKS = 4000
"""Of a raster, at most: of a channel that fires as noise does, fewer rows are drawn."""
BEFORE_S = 0.05
"""Drawn before the onset, where spikes were kept."""
SMOOTHING_S = 0.008
"""S.d. of the Gaussian that makes a rate of spikes."""
POINTS = 100
"""Of a curve."""
ROW, LEAST, MOST = 6, 40, 180
"""Pixels of a row, and of a raster with few or many of them."""
Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """An image with how the site answered it."""

    title: str
    uri: str | None
    """Of the image."""
    colour: str
    showings: tuple[Showing, ...]

    @property
    def answered(self) -> list[Showing]:
        return [one for one in self.showings if not one.lost]


def section(record: Record, films: Sequence[Film], natural: str | None) -> Markup:
    """Rasters of each agent's recommended image and of what was shown in turn with it; nothing where no spikes were kept.

    Args:
        films: one an agent.
        natural: the best natural image, a data URI.
    """
    rig = record.rig
    if rig is None or not rig.spikes:
        return Markup("")
    panels = {
        agent.name: _panels(record, rig, place, film.final, natural)
        for place, (agent, film) in enumerate(zip(record.agents, films, strict=True))
        if rig.answers[agent.name]
    }
    if not panels:
        return Markup("")
    kept = _kept(rig)
    x = Scale(1000 * max(kept[0], -BEFORE_S), 1000 * kept[1])
    curves = {name: [rates(panel.answered, kept, x) for panel in its] for name, its in panels.items()}
    y = scale(*(edge for its in curves.values() for low, mean, high in its for edge in (mean, high)), low=0.0)
    places = {agent.name: place for place, agent in enumerate(record.agents)}
    drawn = [
        tag(
            "div",
            parts.heading(name, colour=words.colour(places[name])),
            *(_draw(panel, curve, x, y, rig, name) for panel, curve in zip(its, curves[name], strict=True)),
            tag("p", "ms from the onset", class_="axis-x"),
            class_="rasters",
        )
        for name, its in panels.items()
    ]
    lost = any(one.lost for its in panels.values() for panel in its for one in panel.showings)
    legend = [Key("presentation that was lost", "warn-edge", "band")] if lost else []
    return parts.section("Spikes", parts.columns(*drawn), legend_of(legend), about=words.spikes(rig, 1000 * SMOOTHING_S))


def rates(answered: Sequence[Showing], kept: Span, x: Scale) -> tuple[Array, Array, Array]:
    """Mean rate over time less its standard error, mean, and more: (POINTS + 1,) each, spikes/s at even steps of `x`, ms.

    Near the ends of what was kept a spike counts for more, as the Gaussian finds fewer there. NaN without showings.
    """
    at = np.linspace(x.low, x.high, POINTS + 1) / 1000
    inside = _normal((kept[1] - at) / SMOOTHING_S) - _normal((kept[0] - at) / SMOOTHING_S)
    density = SMOOTHING_S * math.sqrt(2 * math.pi) * inside
    each = [
        np.exp(-0.5 * ((at[:, None] - one.spike_s) / SMOOTHING_S) ** 2).sum(axis=1) / density for one in answered
    ]  # (showings, POINTS + 1)
    if not each:
        nothing = np.full(POINTS + 1, np.nan)
        return nothing, nothing, nothing
    mean = np.mean(each, axis=0)
    error = np.std(each, axis=0, ddof=1) / math.sqrt(len(each)) if len(each) > 1 else np.zeros(len(at))
    return np.maximum(mean - error, 0.0), mean, mean + error


def _normal(z: Array) -> Array:
    """The cumulative normal distribution."""
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z])


def _kept(rig: RigRecord) -> Span:
    """From when to when spikes were kept; where the log does not say, from the first to the last that was."""
    if rig.window is not None:
        return rig.window.start_s, rig.window.end_s
    times = [one.spike_s for its in rig.answers.values() for answers in its for one in answers.showings]
    flat = np.concatenate([np.zeros(1), *times])
    return float(flat.min()), max(float(flat.max()), 0.001)


def _panels(record: Record, rig: RigRecord, place: int, final: str | None, natural: str | None) -> list[Panel]:
    agent = record.agents[place]
    name = f"best natural image, {record.natural.best_image}" if record.natural else "best natural image"
    looks = {
        "recommended": ("recommended image", final, words.colour(place)),
        "natural": (name, natural, "natural"),
        "grey": ("grey screen", None, "quiet"),
    }
    found = []
    for answers in rig.answers[agent.name]:
        title, uri, colour = looks[answers.what]
        found.append(Panel(title=title, uri=uri, colour=colour, showings=answers.showings))
    return found


def _draw(panel: Panel, curve: tuple[Array, Array, Array], x: Scale, y: Scale, rig: RigRecord, agent: str) -> Markup:
    """Rate over raster, on one axis of time."""
    name, said = f"{agent}, {panel.title}", words.showings(panel.showings)
    low, mean, high = curve
    times = np.linspace(x.low, x.high, POINTS + 1)
    line = Line(name=name, colour=panel.colour, x=times, y=mean, low=low, high=high)
    strokes = plane(area(line, x, y), path(x.place(times), y.place(mean), class_="line", style=ink(panel.colour)))
    peak = ""
    if np.isfinite(mean).all():
        top = int(np.argmax(mean))
        peak = f"; highest {number(mean[top], 0)} {RATE} {number(times[top], 0)} ms after the onset"
    above = _svg(_shade(rig, x), grid(None, y), _uprights(x), strokes,
                 title=f"{name}: rate over time", desc=said + peak, height=84)  # fmt: skip
    rows = drawn_rows(panel.showings, x)
    raster = _svg(_shade(rig, x), _uprights(x), grid(x, None), *_marked(rows), plane(_ticks(rows, x, panel.colour)),
                  title=f"{name}: spikes", desc=f"{said}; {whole(len(rows))} rows, the first on top",
                  height=min(max(LEAST, ROW * len(rows)), MOST))  # fmt: skip
    some = "" if len(rows) == len(panel.showings) else f"; {whole(len(rows))} of them as rows"
    picture = tag("i", class_="thumb") if panel.uri is None else Markup('<img class="thumb" src="{}" alt="">').format(panel.uri)
    head = tag("figcaption", picture, tag("span", tag("strong", panel.title), Markup("<br>"), said + some))
    unit = tag("p", RATE, class_="axis-y")
    return tag("figure", head, unit, tag("div", above, raster, class_="plot"), class_="chart raster")


def drawn_rows(showings: Sequence[Showing], x: Scale) -> list[Showing]:
    """Those that become rows: evenly spread, at most ROWS of them and TICKS spikes in all."""
    count = min(ROWS, len(showings))
    while True:
        rows = [showings[i] for i in np.linspace(0, len(showings) - 1, count).round().astype(int)]
        if count <= 1 or sum(len(_places(one, x)) for one in rows) <= TICKS:
            return rows
        count //= 2


def _places(one: Showing, x: Scale) -> NDArray[np.float64]:
    """Of its spikes, to a thousandth of the width: two in one place are one tick."""
    places = np.unique(x.place(1000 * one.spike_s).round(3))
    return places[(places >= 0) & (places <= 1)]


def _ticks(rows: Sequence[Showing], x: Scale, colour: str) -> Markup:
    """All in one path: a page holds thousands of them."""
    strokes = [
        f"M{round(1000 * place)} {round(1000 * (row + 0.1) / len(rows), 1):g}V{round(1000 * (row + 0.9) / len(rows), 1):g}"
        for row, one in enumerate(rows)
        for place in _places(one, x).tolist()
    ]
    return tag("path", d="".join(strokes), class_="spike", style=ink(colour))


def _marked(rows: Sequence[Showing]) -> list[Markup]:
    """A bar over the row of each showing that was lost, which says why."""
    return [
        tag("rect", tag("title", one.lost), x="0%", width="100%", y=percent(row / len(rows)), height=percent(1 / len(rows)),
            class_="lost")
        for row, one in enumerate(rows)
        if one.lost
    ]  # fmt: skip


def _shade(rig: RigRecord, x: Scale) -> Markup:
    if rig.window is None:
        return Markup("")
    start, end = x.place(np.multiply(1000, rig.window.response_s))
    return tag("rect", x=percent(float(start)), y="0%", width=percent(float(end - start)), height="100%", class_="window")


def _uprights(x: Scale) -> Markup:
    """The lines of time, whose numbers stand below the raster."""
    places = [percent(float(x.place(tick))) for tick in x.ticks]
    return Markup("").join(tag("line", x1=at, x2=at, y1="0%", y2="100%", class_="grid") for at in places)


def _svg(*marks: str, title: str, desc: str, height: int) -> Markup:
    return tag("svg", tag("title", title), tag("desc", desc), *marks, class_="chart", role="img", width="100%", height=height)
