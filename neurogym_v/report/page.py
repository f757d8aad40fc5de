"""The page of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from markupsafe import Markup

from neurogym_v.files import write_whole
from neurogym_v.generators import Generator
from neurogym_v.journal import Journal
from neurogym_v.report import curves, images, parts, raster, rig, words
from neurogym_v.report.images import Film
from neurogym_v.report.parts import Cell, Column, Picture
from neurogym_v.report.reading import read
from neurogym_v.report.record import RATE, AgentRecord, Record
from neurogym_v.report.site import site_facts
from neurogym_v.report.words import colour, estimate, number, whole
from neurogym_v.types import NeuroGymError

PAGE = "report.html"


def write_report(
    folder: Path, journal: Journal, *, out: Path | None = None, generator: Callable[[Record], Generator] = images.generator_of
) -> Path:
    """Write the page of a run, whole or not at all, and return its file.

    Args:
        folder: of the run; its summary.json and pictures are used where they are there.
        journal: of the run, open.
        out: where the page goes; FOLDER/report.html by default.
        generator: gives what draws the images of latents; by default what the run's config names.

    Raises:
        NeuroGymError: a journal or summary that is not a run's.
    """
    html = page(read(folder, journal), generator)
    target = out or folder / PAGE
    write_whole(target, lambda file: file.write(html.encode()))
    return target


def page(record: Record, generator: Callable[[Record], Generator] = images.generator_of) -> Markup:
    """The page as HTML. Without the generator it has no film strips, and says why."""
    missing = [*record.missing, *words.unfinished(record)]
    drawn: Generator | None = None
    try:
        drawn = generator(record)
    except NeuroGymError as error:
        missing.append(f"No film strips: images are drawn again by the generator, which cannot be used here ({error}).")
    films, natural = images.films(record, drawn), images.best_natural(record)
    command = words.command(record.config, record.rig.channel) if record.rig else words.command(record.config)
    repeat = words.STARTED if words.live(record.config) else words.REPEAT
    return parts.document(
        words.title(record),
        parts.notices(missing),
        parts.numbers(words.headline(record)),
        _finals(record, films, natural),
        _films(record, films),
        _table(record),
        curves.section(record),
        curves.incumbents_section(record),
        curves.natural_section(record),
        curves.trials_section(record),
        curves.agents_section(record),
        raster.section(record, films, natural),
        rig.section(record) + parts.section("The site", parts.facts(site_facts(record.config)), about=words.SITE),
        parts.section("How the scores are made", about=words.scores(record)),
        parts.section("The run", parts.command(command), parts.facts(words.setup(record)), about=repeat),
        eyebrow=f"NeuroGym-V run · {record.folder.resolve().name}",
        lead=words.lead(record),
        foot=words.FOOT,
    )


def _finals(record: Record, films: tuple[Film, ...], best_natural: str | None) -> Markup:
    natural, pictures = record.natural, []
    if natural is not None:
        title = f"best of {whole(len(natural.screened))} natural images"
        text = f"{estimate(natural.best, record.decimals)} {record.unit}\n{natural.best_image}"
        pictures.append(Picture(uri=best_natural, title=title, text=text, colour="natural"))
    found = [(p, a, f) for p, (a, f) in enumerate(zip(record.agents, films, strict=True)) if f.final or words.scored(a)]
    for place, agent, film in found:
        activation = number(agent.relative_activation.value, 2)
        text = f"{estimate(agent.final, record.decimals)} {record.unit}\nrelative activation {activation}"
        if np.isfinite(agent.contrast_matched.value):
            text += f"\n{number(agent.contrast_matched.value, 2)} with the contrast of the natural image"
        text = text if words.scored(agent) else "the site was lost: nothing can be said of it"
        pictures.append(Picture(uri=film.final, title=words.named(agent), text=text, colour=colour(place)))
    about = words.FINALS if found else words.NO_FINALS
    return parts.section("What was found", parts.cards(pictures), about=about) if pictures else Markup("")


def _films(record: Record, films: tuple[Film, ...]) -> Markup:
    strips = []
    for place, (agent, film) in enumerate(zip(record.agents, films, strict=True)):
        if film.frames:
            frames, note = _frames(agent, film, place, record), words.state(agent, record.config)
            strips.append(parts.film(words.named(agent), frames, colour=colour(place), note=note))
    return parts.section("How the images evolved", *strips, about=words.FILMS) if strips else Markup("")


def _frames(agent: AgentRecord, film: Film, place: int, record: Record) -> list[Picture]:
    frames, unit = [], record.unit
    for one, uri in zip(film.rounds, film.frames, strict=True):
        best, mean = number(float(np.nanmax(one.rates)), 0), number(one.mean, record.decimals)
        more = f"{best} spikes/s in one presentation, after {whole(one.spent)} presentations\nround mean {mean} {unit}"
        title = f"{agent.name}, round {one.number}"
        frames.append(Picture(uri=uri, title=title, text=f"r{one.number}\n{best}", more=more))
    if film.final is not None and agent.recommended is not None:
        fresh = estimate(agent.final, record.decimals)
        said = number(agent.final.value, 0 if unit == RATE else 2) if words.scored(agent) else "site lost"
        more = f"{fresh} {unit} in fresh repeats, after a search of {whole(agent.searched)} presentations"
        title = f"{agent.name}, recommended"
        frames.append(Picture(uri=film.final, title=title, text=f"final\n{said}", more=more, colour=colour(place)))
    return frames


def _table(record: Record) -> Markup:
    columns = [
        Column(name="agent", words=True),
        Column(name="relative activation", about="(final - spontaneous) / (best natural - spontaneous), with its 95% interval"),
        Column(name="noise-free", about="the same from expected rates, which no agent sees"),
        Column(name="final", about="mean of fresh repeats of the recommended image, with its 95% interval"),
        Column(name="first round", about="mean of fresh presentations of the images of the first round"),
        Column(name="presentations", about="of the search"),
        Column(name="lost trials", about="of the search"),
        Column(name="agent, s", about="the agent's own time, without the neuron and the generator"),
    ]
    places = {agent.name: place for place, agent in enumerate(record.agents)}
    ranked = sorted(record.agents, key=lambda a: a.final.value if np.isfinite(a.final.value) else -np.inf, reverse=True)
    rows = [
        [
            Cell(text=agent.name, colour=colour(places[agent.name]), note=words.remark(agent, record.config)),
            _estimated(agent, "relative_activation", 2),
            _plain(agent.expected_relative_activation, 2),
            _estimated(agent, "final", record.decimals),
            _estimated(agent, "first_round", record.decimals),
            Cell(text=whole(agent.searched), order=agent.searched),
            Cell(text=whole(agent.lost), order=agent.lost),
            _plain(agent.agent_s, 2 if agent.agent_s < 10 else 0),
        ]
        for agent in ranked
    ]
    about = words.TABLE.format(unit=RATE if record.unit == RATE else "as a share of 1")
    return parts.section("The agents", parts.table(columns, rows, caption="scores of the agents"), about=about)


def _estimated(agent: AgentRecord, name: str, decimals: int) -> Cell:
    found = getattr(agent, name)
    if not np.isfinite(found.value):
        return Cell(text=words.NONE)
    note = f"[{number(found.low, decimals)}, {number(found.high, decimals)}]"
    return Cell(text=number(found.value, decimals), order=found.value, note=note)


def _plain(value: float, decimals: int) -> Cell:
    return Cell(text=number(value, decimals), order=value if np.isfinite(value) else None)
