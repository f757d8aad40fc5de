"""The images of a page: drawn again from latents by the run's generator, or the pictures that the run left in its folder."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from neurogym_v.generators import Generator, draw
from neurogym_v.generators.around import Around
from neurogym_v.generators.invert import invert
from neurogym_v.pictures import final_name
from neurogym_v.registry import load_generator
from neurogym_v.render import to_pil
from neurogym_v.report.record import AgentRecord, Record, Round
from neurogym_v.types import NeuroGymError

FRAMES = 12
"""Rounds in a film strip."""
LARGEST = 256
"""Pixels a side in a page; larger images are shrunk."""
EXACT = 64
"""Up to so many pixels a side nothing of an image is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What one agent showed: data URIs, as a page holds images."""

    rounds: tuple[Round, ...]
    """Those that frames are of; one in which every trial was lost has no best image."""
    frames: tuple[str, ...]
    """The image of highest response of each."""
    final: str | None
    """The recommended image."""


def films(record: Record, generator: Generator | None) -> tuple[Film, ...]:
    """One an agent; without a generator there are no frames, and final images are those of the run's own pictures."""
    chosen = [chosen_rounds(agent) for agent in record.agents]
    wanted = [r.latents[int(np.nanargmax(r.rates))] for rounds in chosen for r in rounds]
    wanted += [agent.recommended[0] for agent in record.agents if agent.recommended is not None]
    drawn: list[str] = []
    if generator is not None and wanted:
        drawn = [data_uri(to_pil(image)) for image in draw(generator, np.stack(wanted))]
    frames = iter(drawn)
    strips = [tuple(next(frames) for _ in rounds) if drawn else () for rounds in chosen]
    finals = [
        next(frames) if drawn and agent.recommended is not None else _picture_of(agent, record) for agent in record.agents
    ]
    return tuple(
        Film(rounds=rounds, frames=strip, final=final) for rounds, strip, final in zip(chosen, strips, finals, strict=True)
    )


def _picture_of(agent: AgentRecord, record: Record) -> str | None:
    """The final picture that the run left."""
    return from_file(record.folder / f"final-{final_name(agent.name)}.png")


def chosen_rounds(agent: AgentRecord) -> tuple[Round, ...]:
    """FRAMES of the rounds that have a valid trial, evenly spread; the first and the last are among them."""
    valid = [r for r in agent.rounds if np.isfinite(r.rates).any()]
    return tuple(valid[i] for i in np.unique(np.linspace(0, len(valid) - 1, FRAMES).astype(int))) if valid else ()


def best_natural(record: Record) -> str | None:
    """The picture in the folder, or, in that of a run that was stopped, the reference itself; None where it is gone."""
    if record.natural is None:
        return None
    if (picture := from_file(record.folder / "best-natural.png")) is not None:
        return picture
    try:
        references = record.config.natural_images(LARGEST // 2)
        return data_uri(to_pil(references.images[references.names.index(record.natural.best_image)]))
    except (NeuroGymError, ValueError, OSError):
        return None


def generator_of(record: Record) -> Generator:
    """The run's generator, with its origin where searches began.

    Raises:
        NeuroGymError: it is not there, or another by now, or the natural image that searches began at is not there.
    """
    config = record.config
    generator = load_generator(config.generator, device=config.device)
    shown = {r.latents.shape[1] for agent in record.agents for r in agent.rounds} or {generator.latent_dim}
    if shown != {generator.latent_dim}:
        found = f"that of the run's latents, {', '.join(map(str, sorted(shown)))}"
        raise NeuroGymError(f"generator {config.generator}: expected {generator.latent_dim} numbers a latent, found {found}")
    if config.start == "prior" or record.natural is None:
        return generator
    references = config.natural_images(generator.image_size)
    if record.natural.best_image not in references.names:
        raise NeuroGymError(f"natural image {record.natural.best_image}: expected it among the references, found others")
    at = references.names.index(record.natural.best_image)
    return Around(generator, invert(generator, references.images[at : at + 1])[0])


def from_file(path: Path) -> str | None:
    """A picture's data URI; None where there is none that can be read."""
    try:
        with Image.open(path) as picture:
            return data_uri(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def data_uri(picture: Image.Image) -> str:
    """WebP, exact where the picture is small."""
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=max(picture.size) <= EXACT, quality=90, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
