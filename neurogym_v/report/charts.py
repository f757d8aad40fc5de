"""Charts as inline SVG from arrays: curves, steps, dots with intervals, histograms, spike rasters. No script is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from neurogym_v.report.axes import Key, Scale, figure, grid, ink, legend_of, path, percent, plane, scale, tag
from neurogym_v.report.marks import Array, Line, Mark, area, beam, dot, points, rule, whisker

BINS = 40
"""Bars of a histogram, at most."""


def lines(
    curves: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    levels: Sequence[Mark] = (),
    dots: Sequence[Mark] = (),
    x: Scale | None = None,
    y: Scale | None = None,
    height: int = 300,
    legend: Sequence[Key] | None = None,
) -> Markup:
    """Curves with their bands, levels behind them and dots in front; the legend names them all, or is given."""
    bands = [edge for c in curves for edge in (c.low, c.high) if edge is not None]
    limits = [v for mark in (*levels, *dots) for v in mark]
    x = x or scale(*(c.x for c in curves), [d.x for d in dots])
    y = y or scale(*(c.y for c in curves), *bands, limits)
    behind = [rule(level, y) for level in levels]
    areas = [area(c, x, y) for c in curves]
    strokes = [
        path(x.place(c.x), y.place(c.y), class_="line dashed" if c.dashed else "line", style=ink(c.colour)) for c in curves
    ]
    dotted = [mark for c in curves if c.dots for mark in points(c, x, y)]
    front = [dot(d, x, y) for d in dots]
    if legend is None:
        legend = [Key(c.name, c.colour, "dash" if c.dashed else "line") for c in curves]
        legend += [Key(d.name, d.colour, "dot") for d in dots] + [Key(level.name, level.colour) for level in levels]
    marks = (grid(x, y), *behind, plane(*areas, *strokes), *dotted, *front)
    return figure(*marks, title=title, x_label=x_label, y_label=y_label, height=height, legend=legend)


def steps(
    curves: Sequence[Line], *, title: str, x_label: str, y_label: str, x: Scale | None = None, height: int = 280
) -> Markup:
    """Curves that keep a value until the next x, such as an empirical distribution (see `ecdf`); from 0 to 1."""
    stairs = [_stairs(c) for c in curves]
    return lines(stairs, title=title, x_label=x_label, y_label=y_label, x=x, y=Scale(0, 1), height=height)


def ecdf(values: ArrayLike, *, of: int | None = None) -> tuple[Array, Array]:
    """The empirical distribution: x, and the share of `of` (all values, by default) that are no larger; NaN never comes."""
    flat = np.ravel(np.asarray(values, dtype=np.float64))
    x, counts = np.unique(flat[np.isfinite(flat)], return_counts=True)
    return x, np.cumsum(counts) / max(1, of if of is not None else len(flat))


def intervals(
    rows: Sequence[Mark], *, title: str, unit: str, levels: Sequence[Mark] = (), x: Scale | None = None, decimals: int = 2
) -> Markup:
    """A row for each estimate: its name and value, above a dot on its interval; what is NaN is said to be unknown."""
    x = x or scale(*(list(mark) for mark in (*rows, *levels)))
    drawn = []
    for row in rows:
        known = np.isfinite(row.value)
        text = f"{row.value:.{decimals}f} [{row.low:.{decimals}f}, {row.high:.{decimals}f}]" if known else "not known"
        head = tag("p", tag("span", row.name, class_="name"), " ", tag("span", text, class_="value"), class_="row-head")
        behind = [beam(level, x) for level in levels]
        front = [whisker(row, x)] if known else []
        svg = tag("svg", *behind, *front, class_="chart row", role="img", aria_label=f"{row.name}: {text}", width="100%",
                  height=18)  # fmt: skip
        drawn.append(tag("div", head, svg, class_="row"))
    axis = tag("svg", grid(x, None), class_="chart foot", aria_hidden="true", width="100%", height=1)
    legend = [Key(level.name, level.colour) for level in levels]
    body = tag("div", *drawn, axis, class_="rows", role="group", aria_label=title)
    return tag("figure", body, tag("p", unit, class_="axis-x"), legend_of(legend), class_="chart dots")


def histogram(
    values: ArrayLike,
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    bins: int | None = None,
    height: int = 240,
) -> Markup:
    """How often values come, in equal bins, with marks that stand among them."""
    flat = np.ravel(np.asarray(values, dtype=np.float64))
    flat = flat[np.isfinite(flat)]
    edges = np.histogram_bin_edges(flat, bins or "auto") if len(flat) else np.array([0.0, 1.0])
    if len(edges) - 1 > BINS:
        edges = np.histogram_bin_edges(flat, BINS)
    counts, _ = np.histogram(flat, edges)
    x, y = scale(edges, [m.value for m in marks]), scale(counts, low=0.0)
    bars = [
        tag(
            "rect",
            tag("title", f"{count} from {low:.4g} to {high:.4g}"),
            x=percent(float(x.place(low))),
            width=percent(float(x.place(high) - x.place(low))),
            y=percent(1 - float(y.place(count))),
            height=percent(float(y.place(count))),
            class_="bar",
        )
        for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False)
        if count
    ]
    upright = [beam(m, x) for m in marks]
    legend = [Key(m.name, m.colour) for m in marks]
    return figure(grid(x, y), *bars, *upright, title=title, x_label=x_label, y_label=y_label, height=height, legend=legend)


def _stairs(curve: Line) -> Line:
    x, y = (np.ravel(np.asarray(v, dtype=np.float64)) for v in (curve.x, curve.y))
    before = np.concatenate([[0.0], y[:-1]]) if len(y) else y
    return Line(
        name=curve.name, colour=curve.colour, dashed=curve.dashed, dots=False,
        x=np.repeat(x, 2), y=np.column_stack([before, y]).ravel(),
    )  # fmt: skip
