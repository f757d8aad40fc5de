"""The images of a page: drawn from the latents of entries by the suite's generator, so small that all fit into it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from neurogym_v.benchmarks.leaderboard.board import Board, Place
from neurogym_v.benchmarks.leaderboard.entry import latent
from neurogym_v.benchmarks.reduced import Run
from neurogym_v.benchmarks.standings import Track
from neurogym_v.generators import draw
from neurogym_v.networks import load
from neurogym_v.references import load_references
from neurogym_v.registry import load_generator
from neurogym_v.render import to_pil
from neurogym_v.scoring import alike
from neurogym_v.stats import Estimate
from neurogym_v.types import NeuroGymError

SIDE = 64
"""Pixels; larger images are shrunk."""
GROUP = 64
"""Images that are drawn at a time."""
QUALITIES = (85, 70, 50, 30)
"""Of WebP, highest first: the first with which all images fit."""
ROOM = 4_500_000
"""Bytes of all images in a page, as base64."""
FEW = 12
"""Frames of a site up to which the images of all seeds are shown, and not only those of the first."""
LOOKS = ("lite1", 10, 224)
"""Network, block and size in px that tell how alike images are: no shipped neuron is made of it."""
Key = tuple[Track, str, Place, int]
"""(track, agent, site, seed); the agent "" is the best natural image."""
Pictures = Mapping[Key, str]
"""-> data URI."""
Drawn = Mapping[Key, torch.Tensor]
"""-> (3, s, s) uint8."""


def runs_of(board: Board) -> dict[Key, Run]:
    """All that did not fail, in the order of tracks, sites, agents and seeds."""
    found = {
        (run["noise"], run["objective"], run["neuron"], run["site"], run["seed"], agent): run
        for agent, entry in board.entries.items()
        for run in entry["runs"]
        if run["failed"] is None
    }
    return {
        (track, agent, place, seed): run
        for track in board.tracks
        for place in track.sites
        for agent in board.entries
        for seed in track.seeds
        if (run := found.get((track.noise, track.objective, *place, seed, agent))) is not None
    }


def shown(board: Board) -> tuple[int, ...]:
    """The seeds whose images are shown."""
    seeds = board.suite.seeds
    return seeds if len(seeds) * len(board.entries) <= FEW else seeds[:1]


def draw_all(board: Board) -> dict[Key, torch.Tensor]:
    """What every run recommends.

    Raises:
        NeuroGymError: the generator is not here, or it has latents of another length than an entry.
    """
    generator = load_generator(board.suite.generator, device="cpu")
    latents = {key: latent(run["recommended"]).clip(-generator.bound, generator.bound) for key, run in runs_of(board).items()}
    for (_, agent, _, _), one in latents.items():
        if len(one) != generator.latent_dim:
            raise NeuroGymError(
                f"entry of {agent}: expected latents of {generator.latent_dim} numbers, those of {board.suite.generator}, "
                f"got {len(one)}"
            )
    keys, made = list(latents), dict[Key, torch.Tensor]()
    for start in range(0, len(keys), GROUP):
        group = keys[start : start + GROUP]
        made |= zip(group, draw(generator, np.stack([latents[key] for key in group])), strict=True)
    return made


def pictures(board: Board, drawn: Drawn) -> Pictures:
    """Of each agent on each site, of the seeds that are shown, and the best natural image beside them."""
    runs, seeds = runs_of(board), shown(board)
    made = {key: to_pil(image) for key, image in drawn.items() if key[-1] in seeds}
    references = load_references(size=SIDE)
    for (track, _, place, seed), run in runs.items():
        if run["natural_image"] in references.names and seed == seeds[0]:
            at = references.names.index(run["natural_image"])
            made.setdefault((track, "", place, seed), to_pil(references.images[at]))
    return _encoded(made)


def repeatable(board: Board, drawn: Drawn) -> dict[str, Estimate]:
    """Agent -> how often two images of one site are more alike than two of different sites (see `scoring.alike`).

    Of the first track; nothing where a suite has one seed.
    """
    track = board.tracks[0]
    if len(track.seeds) < 2:
        return {}
    name, block, size = LOOKS
    network = load(name, (block,), size)
    keys = [key for key in drawn if key[0] == track]
    with torch.inference_mode():
        pooled = [network(torch.stack([drawn[key] for key in keys[at : at + GROUP]]))[0].mean(dim=(2, 3))
                  for at in range(0, len(keys), GROUP)]  # fmt: skip
    looks = dict(zip(keys, torch.cat(pooled).double().numpy(), strict=True)) if keys else {}
    nothing = np.full(len(next(iter(looks.values()), ())), np.nan)
    return {
        agent: alike([[looks.get((track, agent, place, seed), nothing) for seed in track.seeds] for place in track.sites],
                     np.random.default_rng(0))
        for agent in board.entries
    }  # fmt: skip


def _encoded(made: Mapping[Key, Image.Image]) -> Pictures:
    found: dict[Key, str] = {}
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
