"""What a run has shown, one record a presentation: from the journal, and of a live neuron from the rig's log.

The journal says what was asked for, the log every single showing of it. `position` joins the two: it counts what was asked
for over all blocks of all sessions. What the log has beyond the journal is of a block that was not finished.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurogym_v.export.rig import Rig, rig_of
from neurogym_v.journal import Block, Journal, JournalError
from neurogym_v.registry import LIVE
from neurogym_v.report import reading
from neurogym_v.report.record import Record
from neurogym_v.rigs.log import FILE, LiveLog, Logged
from neurogym_v.types import Latents, NeuroGymError

SIMULATED_LOSS = "lost, as a share of the trials of this simulation is"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the journal has what was asked for."""

    session: str
    block: int
    """Of the session, from 0."""
    place: int
    """In the block, from 0."""
    kind: str
    name: str
    """Of the image; "" where it was made from a latent."""
    latent: Latents | None
    """(d,)"""


NOWHERE = Place("", -1, -1, "", "", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """One showing of one image."""

    number: int
    position: int
    asked: Place
    """NOWHERE: the journal does not have it yet."""
    rates: NDArray[np.float64]
    """(sites,) spikes/s; NaN where it was lost."""
    lost: str = ""
    """Why."""
    counts: NDArray[np.int64] | None = None
    """(sites,)"""
    repeated: int = 0
    """Showings before of the same position, all of which were lost."""
    begun_at: datetime | None = None
    """Of the fixation, or block, that it belonged to; None in a simulation."""
    onset_s: float = float("nan")
    """As measured, on the acquisition's clock."""
    spike_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(n,) from the onset."""
    channel: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """(n,)"""
    late_frames: int = 0
    digest: str = ""
    """Of the pixels that were shown, where that was logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All of a run that is exported."""

    record: Record
    blocks: Mapping[str, Sequence[Block]]
    """Session -> its blocks."""
    presentations: tuple[Presentation, ...]
    """In the order in which they were shown."""
    sites: tuple[str, ...]
    started: datetime
    digest: str
    """SHA-256 of what the journal holds."""
    rig: Rig | None = None
    """None: a simulated run."""
    notes: tuple[tuple[str, str], ...] = ()
    """(when, what) of the rig's log."""


def read(folder: Path, journal: Path, log: Path | None, *, rig: Path | None = None) -> Run:
    """What stands in the journal and, for a live neuron, in the log. Both files are opened for writing: give copies.

    Args:
        folder: of the run, for its summary.
        rig: a rig file whose sections on the experiment count instead of those that the run was begun with.

    Raises:
        NeuroGymError: nothing was shown, a file is damaged, or the log is that of another run.
    """
    with Journal(journal) as opened:
        record = reading.read(folder, opened)
        blocks = {name: opened.blocks(name) for name in ("natural", *record.config.agents)}
    digest, started = _contents(journal)
    places = _places(blocks, live=log is not None)
    if log is None:
        if record.config.neuron.startswith(LIVE):
            raise NeuroGymError(f"{folder}: expected {FILE} beside the journal of a live neuron, found none")
        if rig is not None:
            raise NeuroGymError(f"--rig {rig}: expected a run with a live neuron, this one is simulated")
        if started is None:
            raise NeuroGymError(f"journal {journal}: expected presentations, found none yet")
        sites = tuple(str(site) for site in range(len(next(iter(places.values()))[1])))
        return Run(record=record, blocks=blocks, presentations=_simulated(places), sites=sites, started=started, digest=digest)
    with closing(LiveLog(log)) as kept:
        logged, meta, notes = kept.presentations(), kept.meta, tuple(kept.notes())
    presentations = tuple(_live(logged, places, sites=len(meta["channels"].split("\n")), where=log))
    if not presentations:
        raise NeuroGymError(f"{log}: expected presentations, found none yet")
    return Run(
        record=record,
        blocks=blocks,
        presentations=presentations,
        sites=tuple(meta["channels"].split("\n")),
        started=_time(logged[0].begun_at),
        digest=digest,
        rig=rig_of(meta.get("rig", ""), log, instead=rig),
        notes=notes,
    )


def _contents(journal: Path) -> tuple[str, datetime | None]:
    """SHA-256 of all that was shown and answered, and when the first block was written."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(journal)) as db:
        rows = db.execute(
            "SELECT session, number, kind, place, image, latent, rates FROM block JOIN presentation ON block = block.id"
            " ORDER BY session, number, place"
        )
        for *plain, latent, rates in rows:
            found.update(json.dumps(plain).encode() + b"\n" + (latent or b"") + rates)
        (first,) = db.execute("SELECT min(shown_at) FROM block").fetchone()
    return found.hexdigest(), _time(first) if first else None


def _places(blocks: Mapping[str, Sequence[Block]], *, live: bool) -> dict[int, tuple[Place, NDArray[np.float64]]]:
    """Position -> where it stands, and the rates there."""
    found, at = {}, 0
    for session, its in blocks.items():
        for number, block in enumerate(its):
            if live:  # it counts for itself, over all sessions
                at = int(block.state["presented"]) - len(block.rates)
            for place, rates in enumerate(block.rates):
                name = block.images[place] if block.images else ""
                latent = None if block.latents is None else block.latents[place]
                found[at + place] = Place(session, number, place, block.kind, name, latent), rates
            at += len(block.rates)
    return found


def _simulated(places: Mapping[int, tuple[Place, NDArray[np.float64]]]) -> tuple[Presentation, ...]:
    return tuple(
        Presentation(
            number=position,
            position=position,
            asked=asked,
            rates=rates,
            lost=SIMULATED_LOSS if np.isnan(rates).all() else "",
        )
        for position, (asked, rates) in sorted(places.items(), key=lambda item: item[0])
    )


def _live(
    logged: Sequence[Logged], places: Mapping[int, tuple[Place, NDArray[np.float64]]], *, sites: int, where: Path
) -> Iterator[Presentation]:
    shown: dict[int, int] = {}
    missing = sorted(places.keys() - {each.begun.position for each in logged})
    if missing:
        raise JournalError(
            f"{where}: expected every presentation of the journal, found none of position {missing[0]}; is it the log of "
            "another run?"
        )
    for each in logged:
        begun, outcome = each.begun, each.outcome
        rates = np.full(sites, np.nan) if outcome.rates is None else np.asarray(outcome.rates)
        yield Presentation(
            number=begun.number,
            position=begun.position,
            asked=places[begun.position][0] if begun.position in places else NOWHERE,
            rates=rates,
            lost=outcome.lost,
            counts=outcome.counts,
            repeated=shown.get(begun.position, 0),
            begun_at=_time(each.begun_at),
            onset_s=outcome.onset_s,
            spike_s=outcome.spike_s,
            channel=outcome.channel,
            late_frames=outcome.late_frames,
            digest=begun.image,
        )
        shown[begun.position] = shown.get(begun.position, 0) + 1


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
