"""The table of trials: one row a presentation, a column each for what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurogym_v.export.images import Shown, latent_digest
from neurogym_v.export.run import Run
from neurogym_v.export.times import Times


@dataclass(frozen=True, slots=True)
class Column:
    """One cell a presentation."""

    name: str
    description: str
    data: Any
    """(n,) or (n, sites), or n texts"""


def columns_of(run: Run, times: Times, shown: Shown) -> tuple[Column, ...]:
    """All of them; `image_index`, `stimulus_onset`, `lost` and `valid` are what `neurogym_v.fitting.nwb` looks for."""
    return (*_when(run, times), *_what(run, shown), *_answers(run, shown))


def _when(run: Run, times: Times) -> Iterator[Column]:
    live = run.rig is not None
    nominal = "Nominal: a simulation has no clock. s"
    measured = "Measured onset of the image; where none was measured, where it lies by its neighbours or as it was begun. s"
    yield Column("start_time", measured if live else nominal, times.start)
    yield Column("stop_time", "start_time and how long an image stands by the rig file or the nominal timing. s", times.stop)
    if np.isfinite(times.onset).any():
        yield Column("stimulus_onset", "As measured by photodiode or trigger line; NaN: it was not. s", times.onset)
    if times.shift.any():
        yield Column("shift", "Added to the acquisition's clock, which had begun anew. s", times.shift)


def _what(run: Run, shown: Shown) -> Iterator[Column]:
    every = run.presentations
    digests = [p.digest or (shown.digests[at] if at >= 0 else "") for p, at in zip(every, shown.which, strict=True)]
    latents = ["" if p.asked.latent is None else latent_digest(p.asked.latent) for p in every]
    yield Column("image_index", "Into the images, from 0; -1: not known.", shown.which.astype(np.int32))
    yield Column("image_id", "First 32 digits of the SHA-256 of the pixels shown (colour, row, column).", digests)
    yield Column("image_name", "As the run's journal calls it; empty: made from a latent.", [p.asked.name for p in every])
    yield Column("latent_sha256", "Which of the latents it was made from; empty: from none.", latents)
    yield Column("session", "The agent that searched, or `natural`; empty: not known.", [p.asked.session for p in every])
    yield Column("kind", "What it was shown for; empty: not known.", [p.asked.kind for p in every])
    yield Column("block", "Of the session, from 0: presentations that were asked for in one go; -1: not known.",
                 np.array([p.asked.block for p in every], dtype=np.int32))  # fmt: skip
    yield Column("position", "Among all that was asked for, from 0; the same where it was shown again.",
                 np.array([p.position for p in every], dtype=np.int64))  # fmt: skip
    yield Column("number", "Of the presentation, unique.", np.array([p.number for p in every], dtype=np.int64))
    yield Column("repeated", "Showings before of the same position, which were lost.",
                 np.array([min(p.repeated, 255) for p in every], dtype=np.uint8))  # fmt: skip


def _answers(run: Run, shown: Shown) -> Iterator[Column]:
    every, site = run.presentations, run.record.config.site
    rates = np.stack([p.rates for p in every])
    lost = np.array([bool(p.lost) for p in every])
    which = f"the site of the run, {run.sites[site]}"
    yield Column("rate", f"Of {which}; NaN: lost. spikes/s", rates[:, site])
    yield Column("rates", "Of every site, in their order. spikes/s", rates)
    if any(p.counts is not None for p in every):
        none = np.full(len(run.sites), -1, dtype=np.int64)
        counts = np.stack([none if p.counts is None else p.counts for p in every]).astype(np.int32)
        yield Column("count", f"Spikes in the response window, of {which}; -1: lost.", counts[:, site])
        yield Column("counts", "Spikes in the response window, of every site; -1: lost.", counts)
    yield Column("lost", "Whether there is no response.", lost)
    yield Column("lost_reason", "Why; empty: it is not lost.", [p.lost for p in every])
    yield Column("valid", "Whether response and image are both known.", ~lost & (shown.which >= 0))
    if any(p.late_frames for p in every):
        late = np.array([p.late_frames for p in every], dtype=np.int32)
        yield Column("late_frames", "Frames by which the image came late, or stood too long.", late)
