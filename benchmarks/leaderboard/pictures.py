"""The images of a page: drawn from the latents of entries by the suite's generator, so small that all fit into it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from neurogym_v.benchmarks.leaderboard.board import Board, Place
from neurogym_v.benchmarks.leaderboard.entry import latent
from neurogym_v.benchmarks.reduced import Run
from neurogym_v.benchmarks.standings import Track
from neurogym_v.generators import draw
from neurogym_v.references import load_references
from neurogym_v.registry import load_generator
from neurogym_v.render import to_pil
from neurogym_v.types import NeuroGymError

SIDE = 64
"""Pixels; larger images are shrunk."""
GROUP = 64
"""Images that are drawn at a time."""
QUALITIES = (85, 70, 50, 30)
"""Of WebP, highest first: the first with which all images fit."""
ROOM = 4_500_000
"""Bytes of all images in a page, as base64."""
Pictures = Mapping[tuple[Track, str, Place], str]
"""(track, agent, site) -> data URI; the agent "" is the best natural image."""


def shown(board: Board, track: Track, agent: str, place: Place) -> Run | None:
    """The run whose image is shown: the one of the first seed; None where that failed."""
    wanted = {"neuron": place[0], "site": place[1], "noise": track.noise, "objective": track.objective,
              "seed": board.suite.seeds[0]}  # fmt: skip
    run = next(run for run in board.entries[agent]["runs"] if all(run[key] == value for key, value in wanted.items()))
    return run if run["failed"] is None else None


def pictures(board: Board) -> Pictures:
    """Of each agent on each site, and the best natural one beside them.

    Raises:
        NeuroGymError: the generator is not here, or it has latents of another length than an entry.
    """
    generator = load_generator(board.suite.generator, device="cpu")
    runs = {
        (track, agent, place): run
        for track in board.tracks
        for place in track.sites
        for agent in board.entries
        if (run := shown(board, track, agent, place)) is not None
    }
    latents = {key: latent(run["recommended"]).clip(-generator.bound, generator.bound) for key, run in runs.items()}
    for (_, agent, _), one in latents.items():
        if len(one) != generator.latent_dim:
            raise NeuroGymError(
                f"entry of {agent}: expected latents of {generator.latent_dim} numbers, those of {board.suite.generator}, "
                f"got {len(one)}"
            )
    keys = list(latents)
    made: dict[tuple[Track, str, Place], Image.Image] = {}
    for start in range(0, len(keys), GROUP):
        group = keys[start : start + GROUP]
        made |= zip(group, map(to_pil, draw(generator, np.stack([latents[key] for key in group]))), strict=True)
    references = load_references(size=SIDE)
    for (track, _, place), run in runs.items():
        if run["natural_image"] in references.names:
            at = references.names.index(run["natural_image"])
            made.setdefault((track, "", place), to_pil(references.images[at]))
    return _encoded(made)


def _encoded(made: Mapping[tuple[Track, str, Place], Image.Image]) -> Pictures:
    found: dict[tuple[Track, str, Place], str] = {}
    for quality in QUALITIES:
        found = {key: _uri(picture, quality) for key, picture in made.items()}
        if sum(map(len, found.values())) <= ROOM:
            break
    return found


def _uri(picture: Image.Image, quality: int) -> str:
    if max(picture.size) > SIDE:
        picture = picture.copy()
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
