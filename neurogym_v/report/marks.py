"""What stands in a chart: curves' bands and points, levels, dots with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from neurogym_v.report.axes import Scale, ink, path, percent, tag

DOTS = 120
"""Points of a curve that are drawn with a tooltip, at most."""
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve: (n,) x and y, NaN where it is broken."""

    name: str
    colour: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    """With `high`, (n,) the edges of a band."""
    high: ArrayLike | None = None
    dashed: bool = False
    dots: bool = True
    titles: Sequence[str] | None = None
    """Tooltips of the dots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value with its interval, where it has one: a level through a chart, or a dot in it."""

    name: str
    colour: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    x: float = 0.0
    """Where it stands among curves."""

    def __iter__(self) -> Iterator[float]:
        """What a scale must hold."""
        yield from (self.value, self.low, self.high)


def area(curve: Line, x: Scale, y: Scale) -> Markup:
    """The band of a curve, piece by piece where it is broken."""
    if curve.low is None or curve.high is None:
        return Markup("")
    px, low, high = x.place(curve.x), y.place(curve.low), y.place(curve.high)
    known = np.flatnonzero(np.isfinite(px + low + high))
    pieces = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
    edges = [(np.concatenate([px[p], px[p][::-1]]), np.concatenate([high[p], low[p][::-1]])) for p in pieces if len(p) > 1]
    return Markup("").join(path(*edge, class_="area", style=ink(curve.colour)) for edge in edges)


def points(curve: Line, x: Scale, y: Scale) -> list[Markup]:
    """Small dots on a curve that say their value; of many, some."""
    px, py, values = (np.ravel(v) for v in (x.place(curve.x), y.place(curve.y), np.asarray(curve.y, dtype=np.float64)))
    known = np.flatnonzero(np.isfinite(px + py))
    shown = known[np.unique(np.linspace(0, len(known) - 1, DOTS).astype(int))] if len(known) else known
    return [
        tag(
            "circle",
            tag("title", curve.titles[i] if curve.titles else f"{curve.name}: {values[i]:.4g}"),
            cx=percent(float(px[i])),
            cy=percent(1 - float(py[i])),
            r=2.5,
            class_="point",
            style=ink(curve.colour),
        )
        for i in shown.tolist()
    ]


def rule(level: Mark, y: Scale) -> Markup:
    """A level from left to right."""
    return _through(level, y, along="x", across="y", span=("width", "height"), upwards=True)


def beam(level: Mark, x: Scale) -> Markup:
    """A level from bottom to top."""
    return _through(level, x, along="y", across="x", span=("height", "width"), upwards=False)


def _through(level: Mark, scale: Scale, *, along: str, across: str, span: tuple[str, str], upwards: bool) -> Markup:
    if not np.isfinite(level.value):
        return Markup("")
    low, value, high = sorted(1 - p if upwards else p for p in _within(scale, level.low, level.value, level.high))
    style, name = ink(level.colour), tag("title", f"{level.name}: {level.value:.4g}")
    band = {along: "0%", span[0]: "100%", across: percent(low), span[1]: percent(high - low)}
    line = {f"{along}1": "0%", f"{along}2": "100%", f"{across}1": percent(value), f"{across}2": percent(value)}
    return tag("rect", class_="area", style=style, **band) + tag("line", name, class_="rule", style=style, **line)


def dot(one: Mark, x: Scale, y: Scale) -> Markup:
    """An estimate among curves: upright."""
    if not np.isfinite(one.value):
        return Markup("")
    at = percent(float(x.place(one.x)))
    low, value, high = (percent(1 - p) for p in _within(y, one.low, one.value, one.high))
    return _estimate(one, line={"x1": at, "x2": at, "y1": low, "y2": high}, place={"cx": at, "cy": value})


def whisker(one: Mark, x: Scale) -> Markup:
    """An estimate in a row of its own: lying."""
    low, value, high = (percent(p) for p in _within(x, one.low, one.value, one.high))
    return _estimate(one, line={"x1": low, "x2": high, "y1": "50%", "y2": "50%"}, place={"cx": value, "cy": "50%"})


def _estimate(one: Mark, *, line: dict[str, str], place: dict[str, str]) -> Markup:
    said = tag("title", f"{one.name}: {one.value:.4g} [{one.low:.4g}, {one.high:.4g}]")
    return tag(
        "g", said, tag("line", class_="whisker", **line), tag("circle", r=5, class_="dot", **place), style=ink(one.colour)
    )


def _within(scale: Scale, low: float, value: float, high: float) -> tuple[float, float, float]:
    """Places of an interval; an end that no one knows is at the value, one beyond the scale at its edge."""
    ends = [value if np.isnan(end) else end for end in (low, value, high)]
    places = scale.place(np.clip(ends, scale.low, scale.high))
    return float(places[0]), float(places[1]), float(places[2])
