"""The page of a leaderboard: one file without requests. What a choice of sites shows was computed before (see `board`)."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from neurogym_v.benchmarks.leaderboard import words
from neurogym_v.benchmarks.leaderboard.board import HELD, Board, View
from neurogym_v.benchmarks.leaderboard.columns import AGENT, cells, columns, split
from neurogym_v.benchmarks.leaderboard.pictures import Drawn, draw_all, pictures, repeatable, runs_of, shown
from neurogym_v.report import charts, parts
from neurogym_v.report.axes import Key, Scale, ink, tag
from neurogym_v.report.marks import Line
from neurogym_v.report.parts import Cell, Picture
from neurogym_v.stats import Estimate

OWN_COLOURS = 6
"""Of the style sheet of all pages; further agents get colours around the circle."""
GOLDEN = 137.508
"""Degrees between two of them."""
SHOWN = 300
"""Letters of a parameter."""
SHARES = 1000
"""A share of 1, in the data of the page."""


def page(board: Board) -> str:
    """The page as HTML."""
    view = board.views[0]
    agents = [row.agent for row in view.rows]
    colours = {agent: colour(place) for place, agent in enumerate(agents)}
    drawn = draw_all(board)
    alike = repeatable(board, drawn)
    html = parts.document(
        f"{board.suite.title}: {board.suite.id}",
        parts.numbers(words.headline(board, view)),
        parts.section(
            "Standings", _filters(board), _table(board, view, colours), words.notes(board, view), about=words.STANDINGS
        ),
        parts.section("How soon, and how far", *_curves(board, view, colours), about=words.CURVES),
        parts.section("What they found", *_films(board, agents, drawn), about=words.films(board)),
        parts.section(
            "The entries",
            *(_details(board, agent, at, alike.get(agent)) for at, agent in enumerate(agents)),
            about=words.ENTRIES,
        ),
        parts.section("Submit", parts.command(words.submit(board)), about=words.SUBMIT),
        tag("script", _data(board, agents), type="application/json", id="board"),
        eyebrow="NeuroGym-V leaderboard",
        lead=board.suite.about,
        foot=words.FOOT,
        style=_style(len(agents)),
        script=_asset("board.js"),
    )
    return str(html)


def colour(place: int) -> str:
    """Of the agent in this place on all sites."""
    return f"c{place + 1}" if place < OWN_COLOURS else f"a{place + 1}"


def _style(agents: int) -> str:
    hues = {colour(place): round(place * GOLDEN % 360) for place in range(OWN_COLOURS, agents)}
    inks = "".join(f"--{name}:light-dark(hsl({hue} 60% 38%),hsl({hue} 70% 70%));" for name, hue in hues.items())
    return f":root{{{inks}}}\n{_asset('board.css')}"


def _filters(board: Board) -> Markup:
    """Choices that the script takes up; hidden without it."""
    sites = [tag("option", "all sites", value="all")]
    sites += [tag("option", label, value=f"kind:{label}") for label in dict.fromkeys(site.label for site in board.sites)]
    single = [tag("option", words.site(site), value=f"site:{at}") for at, site in enumerate(board.sites)]
    chosen = {
        "track": [tag("option", words.track(track), value=str(at)) for at, track in enumerate(board.tracks)],
        "sites": [*sites, tag("optgroup", *single, label="one site")],
        "held": [tag("option", text, value=value) for value, text in zip(HELD, words.HELD, strict=True)]
        if split(board)
        else [],
    }
    made = [
        tag("label", tag("span", words.FILTERS[name]), tag("select", *options, id=name))
        for name, options in chosen.items()
        if len(options) > 1
    ]
    return tag("form", *made, tag("p", id="status", role="status"), class_="filters", hidden="")


def _table(board: Board, view: View, colours: dict[str, str]) -> Markup:
    rows = []
    for at, (agent, row) in enumerate(cells(board, view).items()):
        link = tag("a", agent, href=f"#entry-{at}")
        row[AGENT] = Cell(text=link, order=agent, colour=colours[agent], note=row[AGENT].note)
        rows.append(row)
    return tag("div", parts.table(columns(board), rows, caption=f"standings on {board.suite.id}"), class_="board")


def _curves(board: Board, view: View, colours: dict[str, str]) -> list[Markup]:
    """Two charts whose curves stand in the order of the agents, and one legend for both."""
    keys = [
        tag("li", tag("button", tag("i", class_="key line", style=ink(colours[row.agent]), aria_hidden="true"),
                      tag("span", row.agent), type="button", aria_pressed="true"))
        for row in view.rows
    ]  # fmt: skip
    both = tag("button", "all", type="button", id="every"), tag("button", "none", type="button", id="nobody")
    legend = tag("ul", *keys, tag("li", *both, class_="both"), class_="legend toggles")

    def chart(title: str, x_label: str, y_label: str, at: NDArray[np.float64], found: dict[str, NDArray[np.float64]]) -> Markup:
        curves = [Line(name=row.agent, colour=colours[row.agent], x=at, y=found[row.agent], dots=False) for row in view.rows]
        x, y, none = Scale(0.0, float(at[-1])), Scale(0.0, 1.0), list[Key]()
        return charts.lines(curves, title=title, x_label=x_label, y_label=y_label, x=x, y=y, height=320, legend=none)

    drawn = parts.columns(
        chart("targets reached", "presentations", words.REACHED, board.spent, dict(view.reached)),
        chart("performance profile", "relative activation", words.ABOVE, board.taus, dict(view.above)),
    )
    return [tag("div", drawn, class_="curves"), legend]


def _films(board: Board, agents: list[str], drawn: Drawn) -> list[Markup]:
    """What is seen of each site: the best natural image, and what each agent found, highest on all sites first."""
    uris, runs, seeds, made = pictures(board, drawn), runs_of(board), shown(board), list[Markup]()
    for at, track in enumerate(board.tracks):
        for place, site in enumerate(board.sites):
            keys = [(track, agent, site.place, seed) for agent in agents for seed in seeds]
            there = [key for key in keys if key in runs]
            frames = [
                Picture(
                    uri=uris[key],
                    title=key[1],
                    text=words.below(key[1], runs[key], seed=len(seeds) > 1),
                    more=words.found(runs[key], site),
                )
                for key in there
            ]
            if not frames:
                continue
            natural = runs[there[0]]
            uri, text = uris.get((track, "", site.place, seeds[0])), f"natural\n{words.natural(natural, track)}"
            more = f"{words.natural(natural, track, words.unit(track))}\n{natural['natural_image']}"
            frames.insert(0, Picture(uri=uri, title="best natural image", text=text, more=more, colour="natural"))
            head = tag("summary", words.site(site), " ", tag("small", words.track(track) if len(board.tracks) > 1 else ""))
            film = parts.film(words.site(site), frames)
            made.append(tag("details", head, film, class_="site", data_track=at, data_site=place, open=None if made else ""))
    return made


def _details(board: Board, agent: str, at: int, alike: Estimate | None) -> Markup:
    entry = board.entries[agent]
    head = tag("summary", tag("code", agent), " ", tag("small", words.summary(entry)))
    given = {name: json.dumps(value)[:SHOWN] for name, value in entry["parameters"].items()}
    body = [parts.command(entry["command"]), parts.facts(words.facts(entry) | words.alike(board, alike))]
    body += [parts.heading("Parameters"), parts.facts(given)] if given else []
    return tag("details", head, *body, id=f"entry-{at}", class_="entry")


def _data(board: Board, agents: list[str]) -> Markup:
    """What the script shows: of every view the cells of all agents in their order, and their curves."""
    places = {site.place: at for at, site in enumerate(board.sites)}
    views = []
    for view in board.views:
        rows = cells(board, view)
        views.append(
            {
                "sites": [places[place] for place in view.track.sites],
                "rank": [agent for row in view.rows for agent in [agents.index(row.agent)]],
                "rows": [[[cell.text, cell.note, cell.order] for cell in rows[agent]] for agent in agents],
                "curves": [[_shares(found[agent]) for agent in agents] for found in (view.reached, view.above)],
            }
        )
    choices = {"/".join(map(str, key)): at for key, at in board.choices.items()}
    text = json.dumps({"agent": AGENT, "views": views, "choices": choices}, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shares(values: NDArray[np.float64]) -> list[int] | None:
    """In thousandths; None where no one knows."""
    return [round(SHARES * value) for value in values.tolist()] if np.isfinite(values).all() else None


def _asset(name: str) -> str:
    return files("neurogym_v.benchmarks.leaderboard").joinpath(name).read_text(encoding="utf-8")
