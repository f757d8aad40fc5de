"""Scales with round ticks, and the frame of a chart: an SVG as wide as its place whose text keeps its size on any screen.

Positions are percentages, so that nothing is drawn for one width. Paths, which know no percentages, are drawn in a plane of
1000 x 1000 units that is stretched to the same place, with strokes that are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

PLANE = 1000
"""Units of the plane of paths."""
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """From `low` to `high` is from 0 to 1."""

    low: float
    high: float
    count: int = 5
    """Ticks, about."""

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Where values stand, 0 to 1; NaN stays NaN."""
        return (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)

    @property
    def step(self) -> float:
        """Between ticks: 1, 2, 2.5 or 5 times a power of ten."""
        rough = (self.high - self.low) / self.count
        power = 10.0 ** math.floor(math.log10(rough))
        return next(step * power for step in STEPS if step * power >= rough * (1 - 1e-9))

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round numbers from `low` to `high`."""
        step = self.step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(i * step for i in range(first, last + 1))

    def written(self, tick: float) -> str:
        """With as many decimals as tell neighbours apart."""
        decimals = next((n for n in range(12) if math.isclose(self.step, round(self.step, n), rel_tol=1e-9)), 12)
        return f"{tick + 0.0:,.{decimals}f}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Key:
    """A line of a legend."""

    name: str
    colour: str
    kind: str = "line"
    """`line`, `dash`, `dot` or `band`."""


def scale(*values: ArrayLike, low: float | None = None, high: float | None = None, room: float = 0.05) -> Scale:
    """One that holds all finite values, with some room at the ends that are not given; 0 to 1 without any."""
    flat = np.concatenate([np.empty(0), *(np.ravel(np.asarray(v, dtype=np.float64)) for v in values)])
    flat = flat[np.isfinite(flat)]
    least = low if low is not None else float(flat.min()) if len(flat) else 0.0
    most = high if high is not None else float(flat.max()) if len(flat) else 1.0
    span = most - least
    if not span > 0:
        return Scale(least, least + (abs(least) or 1.0))
    return Scale(least if low is not None else least - room * span, most if high is not None else most + room * span)


def tag(name: str, /, *inside: str, **attributes: object) -> Markup:
    """An element; text and attributes are escaped, `stroke_width` is stroke-width and `class_` class, None is left out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, Markup("").join(inside))


def percent(place: float) -> str:
    return f"{round(100 * place, 2):g}%"


def path(x: ArrayLike, y: ArrayLike, **attributes: object) -> Markup:
    """A line through places, 0 to 1, y upwards; where one is NaN it is broken. To stand in a `plane`."""
    parts, pen_down = [], False
    for px, py in zip(np.ravel(np.asarray(x, float)), np.ravel(np.asarray(y, float)), strict=True):
        if not (np.isfinite(px) and np.isfinite(py)):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{round(PLANE * px, 1):g} {round(PLANE * (1 - py), 1):g}")
        pen_down = True
    return tag("path", d="".join(parts), **attributes)


def plane(*marks: str) -> Markup:
    """Where paths are drawn."""
    size = f"0 0 {PLANE} {PLANE}"
    return tag("svg", *marks, class_="plane", viewBox=size, preserveAspectRatio="none", width="100%", height="100%")


def grid(x: Scale | None, y: Scale | None) -> Markup:
    """Ticks and their lines; None where an axis has none."""
    marks: list[Markup] = []
    for tick in y.ticks if y else ():
        at = percent(1 - float(y.place(tick))) if y else ""
        marks.append(tag("line", x1="0%", x2="100%", y1=at, y2=at, class_="grid"))
        marks.append(tag("text", y.written(tick) if y else "", x="0%", dx="-8", y=at, dy=".33em", class_="tick end"))
    for tick in x.ticks if x else ():
        at = percent(float(x.place(tick))) if x else ""
        marks.append(tag("line", x1=at, x2=at, y1="100%", y2="100%", class_="grid"))
        marks.append(tag("text", x.written(tick) if x else "", x=at, y="100%", dy="1.5em", class_="tick middle"))
    return Markup("").join(marks)


def figure(
    *marks: str, title: str, x_label: str = "", y_label: str = "", height: int = 280, legend: Sequence[Key] = ()
) -> Markup:
    """A chart: its SVG, the names of its axes, and a legend."""
    svg = tag("svg", *marks, class_="chart", role="img", aria_label=title, width="100%", height=height)
    return tag(
        "figure",
        tag("p", y_label, class_="axis-y"),
        tag("div", svg, class_="plot"),
        tag("p", x_label, class_="axis-x"),
        legend_of(legend),
        class_="chart",
    )


def legend_of(keys: Iterable[Key]) -> Markup:
    """Nothing without keys."""
    items = [
        tag("li", tag("i", class_=f"key {key.kind}", style=ink(key.colour), aria_hidden="true"), tag("span", key.name))
        for key in keys
    ]
    return tag("ul", *items, class_="legend") if items else Markup("")


def ink(colour: str) -> str:
    """The style that draws in a colour of the style sheet, `c1` to `c6`, `natural` or `quiet`."""
    return f"--ink:var(--{colour})"
