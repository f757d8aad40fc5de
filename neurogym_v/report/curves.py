"""The charts of the page of a run."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from neurogym_v.report import charts, parts, words
from neurogym_v.report.axes import Key, Scale, scale
from neurogym_v.report.marks import Line, Mark
from neurogym_v.report.record import NAN, RATE, AgentRecord, Record
from neurogym_v.report.words import colour, number, whole
from neurogym_v.stats import Estimate

SPENT = "presentations"
END, APART = 1.02, 0.012
"""Where validated scores stand, and how far apart, in budgets."""


def section(record: Record) -> Markup:
    """The search: what agents heard."""
    heard = [line for place, agent in enumerate(record.agents) if agent.rounds for line in _heard(agent, place, record)]
    if not heard:
        return Markup("")
    levels, finals = _levels(record), _finals(record)
    bands = [line.high for line in heard if line.high is not None]
    y = scale(*(line.y for line in heard), *bands, *(list(mark) for mark in (*levels, *finals)), low=0.0)
    chart = charts.lines(heard, title="rates during the search", x_label=SPENT, y_label=record.unit, levels=levels, dots=finals,
                         x=_spent(record), y=y, height=360, legend=_legend(record))  # fmt: skip
    return parts.section(f"{'Rates' if record.unit == RATE else 'Scores'} during the search", chart, about=words.RATES)


def incumbents_section(record: Record) -> Markup:
    """The truth about what agents would have recommended on the way; nothing where no one knows it."""
    known = [
        Line(name=words.named(agent), colour=colour(place), x=agent.incumbents[:, 0], y=agent.incumbents[:, 1])
        for place, agent in enumerate(record.agents)
        if np.isfinite(agent.incumbents).all(axis=1).any()
    ]
    if not known:
        return Markup("")
    levels, legend = [], [Key(line.name, line.colour) for line in known]
    if record.natural is not None:
        levels = [
            Mark(name="best natural image", colour="natural", value=record.natural.expected_best),
            Mark(name="spontaneous", colour="quiet", value=record.natural.expected_spontaneous),
        ]
    shown = [
        _mark(f"{agent.name}, recommended after {whole(spent)}", colour(place), score, x=spent)
        for place, agent in enumerate(record.agents)
        for spent, score in agent.milestones
    ]
    legend += [Key("in fresh repeats, 95% interval", "ink1", "dot")] if shown else []
    legend += [Key(level.name, level.colour) for level in levels]
    y = scale(*(line.y for line in known), *(list(mark) for mark in (*levels, *shown)), low=0.0)
    chart = charts.lines(known, title="scores of incumbents", x_label=SPENT, y_label=record.unit, levels=levels, dots=shown,
                         x=_spent(record), y=y, height=240, legend=legend)  # fmt: skip
    return parts.section("What they would have recommended", chart, about=words.INCUMBENTS)


def natural_section(record: Record) -> Markup:
    """Validated scores beside each other, and among natural images."""
    natural, unit = record.natural, record.unit
    if natural is None:
        return Markup("")
    finals, best = _finals(record), _mark("best natural image", "natural", natural.best)
    rows = [*finals, best, _mark("spontaneous", "quiet", natural.spontaneous)]
    x = scale(*(list(row) for row in rows), low=0.0)
    scores = charts.intervals(rows, title="validated scores", unit=unit, x=x, decimals=record.decimals)
    among = [
        Mark(name=f"{m.name}: {number(m.value, record.decimals)}", colour=m.colour, value=m.value) for m in (*finals, best)
    ]
    spread = charts.histogram(natural.screened, title="natural images", x_label=unit, y_label="natural images", marks=among,
                              height=200)  # fmt: skip
    about = words.AMONG.format(count=whole(len(natural.screened)))
    return parts.section("Among natural images", parts.columns(scores, spread), about=about)


def trials_section(record: Record) -> Markup:
    """Lost trials over time; nothing where none was lost."""
    if not any(r.lost > 0 for agent in record.agents for r in agent.rounds):
        return Markup("")
    lost = [
        Line(name=agent.name, colour=colour(place), x=[r.spent for r in agent.rounds], y=[100 * r.lost for r in agent.rounds])
        for place, agent in enumerate(record.agents)
        if agent.rounds
    ]
    y = scale(*(line.y for line in lost), low=0.0)
    chart = charts.lines(lost, title="lost trials", x_label=SPENT, y_label="% of the round", x=_spent(record), y=y, height=180)
    return parts.section("Lost trials", chart, about="Presentations without a response. They cost like all others.")


def agents_section(record: Record) -> Markup:
    """Each agent's own numbers: curves where the rounds keep them, else those of the end."""
    made = []
    for place, agent in enumerate(record.agents):
        if agent.curves or agent.diagnostics:
            made.append(parts.heading(agent.name, colour=colour(place)))
        if agent.curves:
            made.append(parts.columns(*(_own(agent, name, place, record) for name in agent.curves), narrow=True))
        elif agent.diagnostics:
            made.append(parts.facts({name: f"{value:.4g}" for name, value in agent.diagnostics.items()}))
    when = "round by round" if any(agent.curves for agent in record.agents) else "at the end of its search"
    about = f"What each agent says of itself, {when}."
    return parts.section("The agents' own numbers", *made, about=about) if made else Markup("")


def _own(agent: AgentRecord, name: str, place: int, record: Record) -> Markup:
    points = agent.curves[name]
    line = Line(name=name, colour=colour(place), x=points[:, 0], y=points[:, 1])
    title = f"{agent.name}, {name}"
    return charts.lines([line], title=title, x_label=SPENT, y_label=name, x=_spent(record), height=130, legend=())


def _heard(agent: AgentRecord, place: int, record: Record) -> list[Line]:
    """Mean and highest score of each round, and the middle half of its rates where these are the scores."""
    x, ink, unit, d = [r.spent for r in agent.rounds], colour(place), record.unit, record.decimals
    quartiles = np.array([r.quartiles() if unit == RATE else (NAN, NAN) for r in agent.rounds])
    said = [
        f"{agent.name}, round {r.number}, {whole(r.spent)} presentations: "
        f"mean {number(r.mean, d)}, highest {number(r.best, d)} {unit}"
        for r in agent.rounds
    ]
    mean = Line(name="mean", colour=ink, x=x, y=[r.mean for r in agent.rounds], low=quartiles[:, 0], high=quartiles[:, 1],
                titles=said)  # fmt: skip
    return [Line(name="highest", colour=ink, x=x, y=[r.best for r in agent.rounds], dashed=True, dots=False), mean]


def _legend(record: Record) -> list[Key]:
    """Colours are agents; what is drawn of each is said once."""
    agents = [Key(words.named(agent), colour(place)) for place, agent in enumerate(record.agents)]
    natural = [Key("best natural image, 95% interval", "natural"), Key("spontaneous", "quiet")] if record.natural else []
    shown = [Key("mean of the round", "ink1"), Key("its highest", "ink1", "dash")]
    shown += [Key("its middle half", "ink1", "band")] if record.unit == RATE else []
    final = [Key("recommended image, 95% interval", "ink1", "dot")] if _finals(record) else []
    return [*agents, *shown, *final, *natural]


def _finals(record: Record) -> list[Mark]:
    """Validated scores, those of lost sites left out."""
    budget = record.config.budget
    return [
        _mark(words.named(agent), colour(place), agent.final, x=(END + APART * place) * budget)
        for place, agent in enumerate(record.agents)
        if words.scored(agent)
    ]


def _levels(record: Record) -> list[Mark]:
    natural = record.natural
    if natural is None:
        return []
    spontaneous = Mark(name="spontaneous", colour="quiet", value=natural.spontaneous.value)
    return [_mark("best natural image", "natural", natural.best), spontaneous]


def _mark(name: str, colour: str, found: Estimate, *, x: float = 0.0) -> Mark:
    return Mark(name=name, colour=colour, value=found.value, low=found.low, high=found.high, x=x)


def _spent(record: Record) -> Scale:
    return Scale(0.0, (END + APART * len(record.agents)) * record.config.budget)
