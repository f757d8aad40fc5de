"""Charts and parts of pages: what stands where, and that text from outside stays text."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from neurogym_v.cli import run as cli
from neurogym_v.experiment import RunConfig
from neurogym_v.report import charts, parts
from neurogym_v.report.axes import Key, Scale, path, scale, tag
from neurogym_v.report.marks import DOTS, Line, Mark, area
from neurogym_v.report.parts import Cell, Column, Picture
from neurogym_v.report.site import site_facts
from neurogym_v.report.words import command, number

finite = st.floats(-1e9, 1e9, allow_nan=False)


def attributes(html: str, element: str, kind: str) -> list[dict[str, str]]:
    """Of all elements of a class."""
    found = re.findall(rf"<{element}((?: [\w-]+=\"[^\"]*\")*)", html)
    read = [dict(re.findall(r" ([\w-]+)=\"([^\"]*)\"", text)) for text in found]
    return [one for one in read if one.get("class", "").split()[:1] == [kind]]


@given(finite, st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_are_round_numbers_within_the_scale(low: float, span: float, count: int) -> None:
    if low + span == low or span < 1e-9 * abs(low):
        return
    axis = Scale(low, low + span, count)
    mantissa = axis.step / 10 ** math.floor(math.log10(axis.step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-6
    ticks = np.array(axis.ticks)
    assert len(ticks) <= count + 1
    assert ((ticks >= low - 1e-6 * span) & (ticks <= low + span * (1 + 1e-6))).all()
    written = [axis.written(tick) for tick in axis.ticks]
    assert len(set(written)) == len(written)


def test_ticks_by_hand() -> None:
    assert Scale(0, 100).ticks == (0, 20, 40, 60, 80, 100)
    assert Scale(0, 3120).ticks == (0, 1000, 2000, 3000)
    assert [Scale(-0.5, 0.5, 4).written(t) for t in Scale(-0.5, 0.5, 4).ticks] == ["−0.50", "−0.25", "0.00", "0.25", "0.50"]
    assert Scale(0, 4000).written(3000) == "3,000"


@given(st.lists(st.one_of(finite, st.just(math.nan), st.just(math.inf)), max_size=8))
def test_a_scale_holds_all_finite_values(values: list[float]) -> None:
    axis = scale(values)
    known = [v for v in values if math.isfinite(v)]
    assert axis.high > axis.low
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in axis.place(known))


def test_a_curve_stands_where_its_numbers_say() -> None:
    line = Line(name="a", colour="c1", x=[0, 50, 100], y=[0, 30, np.nan], low=[0, 20, 0], high=[10, 40, 9])
    level, dot = Mark(name="best", colour="natural", value=20, low=10, high=30), Mark(name="final", colour="c1", value=10, x=75)
    html = charts.lines(
        [line], title="t", x_label="x", y_label="y", levels=[level], dots=[dot], x=Scale(0, 100), y=Scale(0, 40)
    )
    (drawn,) = attributes(html, "path", "line")
    assert drawn["d"] == "M0 1000L500 250"
    assert [(p["cx"], p["cy"]) for p in attributes(html, "circle", "point")] == [("0%", "100%"), ("50%", "25%")]
    (rule,) = attributes(html, "line", "rule")
    assert (rule["x1"], rule["x2"], rule["y1"], rule["y2"]) == ("0%", "100%", "50%", "50%")
    band = next(a for a in attributes(html, "rect", "area"))
    assert (band["y"], band["height"]) == ("25%", "50%")
    (final,) = attributes(html, "circle", "dot")
    assert (final["cx"], final["cy"]) == ("75%", "75%")
    assert "a: 30" in html and "best: 20" in html


def test_a_line_is_broken_where_nothing_is_known() -> None:
    assert 'd="M0 1000M1000 0"' in path([0, 0.5, 1], [0, np.nan, 1])
    line = Line(name="a", colour="c1", x=range(5), y=range(5), low=[0, 1, np.nan, 3, 4], high=[1, 2, np.nan, 4, 5])
    assert area(line, Scale(0, 4), Scale(0, 5)).count("<path") == 2
    assert charts.lines([Line(name="a", colour="c1", x=[], y=[])], title="t", x_label="x", y_label="y").count("<circle") == 0


def test_of_many_points_some_have_a_tooltip() -> None:
    line = Line(name="a", colour="c1", x=np.arange(5000), y=np.arange(5000))
    assert charts.lines([line], title="t", x_label="x", y_label="y").count("<circle") == DOTS


def test_an_empirical_distribution_is_a_staircase() -> None:
    x, share = charts.ecdf([3, 1, np.nan, 3])
    assert x.tolist() == [1, 3] and share.tolist() == [0.25, 0.75]
    html = charts.steps([Line(name="a", colour="c1", x=x, y=share)], title="t", x_label="x", y_label="y", x=Scale(0, 4))
    (drawn,) = attributes(html, "path", "line")
    assert drawn["d"] == "M250 1000L250 750L750 750L750 250"


def test_intervals_are_rows_and_what_is_unknown_is_said() -> None:
    rows = [
        Mark(name="a", colour="c1", value=1, low=0.5, high=1.5),
        Mark(name="b", colour="c2", value=1.5, low=1, high=math.inf),
        Mark(name="c", colour="c3", value=math.nan, low=math.nan, high=math.nan),
    ]
    html = charts.intervals(rows, title="t", unit="u", x=Scale(0, 2))
    whiskers = attributes(html, "line", "whisker")
    assert [(w["x1"], w["x2"]) for w in whiskers] == [("25%", "75%"), ("50%", "100%")]
    assert "1.00 [0.50, 1.50]" in html and "not known" in html and "nan" not in html


@given(st.lists(st.one_of(st.floats(0, 1000), st.just(math.nan)), max_size=40))
def test_a_histogram_counts_every_finite_value_once(values: list[float]) -> None:
    html = charts.histogram(values, title="t", x_label="x", y_label="y", marks=[Mark(name="m", colour="c1", value=5)])
    counts = [int(c) for c in re.findall(r"<title>(\d+) from", html)]
    assert sum(counts) == sum(map(math.isfinite, values))
    assert len(attributes(html, "line", "rule")) == 1
    ends = [(float(bar["x"][:-1]), float(bar["width"][:-1])) for bar in attributes(html, "rect", "bar")]
    assert all(start >= 0 and start + width <= 100.1 for start, width in ends)


class Elements(HTMLParser):
    """The names of all elements, and of all their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.feed(str(html))  # of Markup, each piece would be escaped again

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}


HOSTILE = "</svg><script>alert(1)</script>\" onload='x'"


def test_text_from_outside_stays_text() -> None:
    assert tag("p", HOSTILE, title=HOSTILE).count("<") == 2
    line, mark = (
        Line(name=HOSTILE, colour="c1", x=[1, 2], y=[1, 2], titles=[HOSTILE] * 2),
        Mark(name=HOSTILE, colour="c1", value=1),
    )
    made = [
        charts.lines([line], title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, levels=[mark], dots=[mark]),
        charts.lines([line], title="t", x_label="x", y_label="y", legend=[Key(HOSTILE, "c1")]),
        charts.intervals([mark], title=HOSTILE, unit=HOSTILE, levels=[mark]),
        charts.histogram([1, 2], title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, marks=[mark]),
        parts.film(HOSTILE, [Picture(uri="data:,", title=HOSTILE, text=HOSTILE, more=HOSTILE)], note=HOSTILE),
        parts.cards([Picture(uri=None, title=HOSTILE, text=HOSTILE)]),
        parts.table(
            [Column(name=HOSTILE, about=HOSTILE)], [[Cell(text=HOSTILE, order=HOSTILE, note=HOSTILE)]], caption=HOSTILE
        ),
        parts.facts({HOSTILE: HOSTILE}) + parts.heading(HOSTILE) + parts.command(HOSTILE) + parts.notices([HOSTILE]),
        parts.section(HOSTILE, parts.numbers([(HOSTILE, HOSTILE, HOSTILE)]), about=HOSTILE),
        parts.columns(HOSTILE),
    ]
    for html in made:
        assert isinstance(html, Markup)
        assert "&lt;script&gt;" in html
        read = Elements(html)
        assert "script" not in read.names and not any(name.startswith("on") for name in read.attributes)
    assert Elements(parts.document(HOSTILE, *made, eyebrow=HOSTILE, lead=HOSTILE, foot=HOSTILE)).names.count("script") == 1


def test_numbers_in_words() -> None:
    assert [number(v) for v in (1234.56, -0.04, -1.26, math.nan, math.inf)] == ["1,234.6", "0.0", "−1.3", "–", "∞"]


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(agents=("ga:ponce2019,temperature=1",), neuron="my fits/it's.safetensors", site=3, seed=7, start="natural"),
        RunConfig(
            image_deg=4.5, position_deg=(-1.0, 2.5), noise="poisson+lost:0.1", references="a b", normaliser=9, device="cpu"
        ),
    ],
)
def test_the_command_repeats_the_run(config: RunConfig) -> None:

    parser = argparse.ArgumentParser()
    cli.add(parser.add_subparsers())
    program, *words = shlex.split(command(config))
    assert program == "neurogym-v"
    chosen = vars(parser.parse_args(words))
    given = {key: chosen[key] for key in RunConfig.__dataclass_fields__ if key in chosen}
    assert RunConfig(**given | {key: tuple(given[key]) for key in ("agents", "position_deg")}) == config


def test_the_site_is_told_from_its_card() -> None:
    recorded = site_facts(RunConfig(neuron="v4", site=30))
    assert "session" in recorded["recorded from"] and recorded["the same cell in"] == "v4:vgg16, v4:lite2"
    assert "read from another network" in site_facts(RunConfig(neuron="v4:vgg16", site=30))["site"]
    assert site_facts(RunConfig(neuron="gabor", site=2))["kind"] == "computed; its best image is known"
    assert "block 4" in site_facts(RunConfig(neuron="units:lite0-block4", site=0))["unit"]
    weights = Path(charts.__file__).parents[1] / "neurons" / "weights" / "v4.safetensors"
    own = site_facts(RunConfig(neuron=str(weights), site=30))
    assert own["file"] == "v4.safetensors" and own["recorded from"] == recorded["recorded from"]
    assert "there is no card" in site_facts(RunConfig(neuron="module:neuron"))["site"]
    assert "cannot be read" in site_facts(RunConfig(neuron=__file__))["site"]
