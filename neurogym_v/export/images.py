"""The images of a run, pixel for pixel: drawn again from latents block by block, as they were when they were shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.export.run import NOWHERE, Presentation, Run
from neurogym_v.generators import Generator, draw
from neurogym_v.journal import Block
from neurogym_v.report.images import generator_of
from neurogym_v.types import Images, Latents, NeuroGymError, References
from neurogym_v.validation import FIRST, grey_screen, match_contrast, named

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""
DIGITS = 32
"""Of an image's digest, as the rig's log has them."""
GREY_NAME = "grey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Every distinct image once, in the order in which it first came."""

    pixels: tuple[NDArray[np.uint8], ...]
    """(s, s, 3), rows first"""
    digests: tuple[str, ...]
    labels: tuple[str, ...]
    """What each is, in words."""
    which: NDArray[np.intp]
    """(presentations,) -1 where it is not known: of an image of a block that was not finished the latent is not on disk."""
    others: int
    """Presentations whose image, drawn now, differs in some pixel from what was shown then."""


def shown_by(run: Run, progress: Progress) -> Shown:
    """The images of all presentations.

    Raises:
        NeuroGymError: the generator or the natural images of the run are not there, or are others by now.
    """
    gallery = _Gallery(run)
    blocks = [(session, number, block) for session, its in run.blocks.items() for number, block in enumerate(its)]
    of_place: dict[tuple[str, int, int], int] = {}
    total, done = sum(len(block.rates) for *_, block in blocks), 0
    for session, number, block in blocks:
        progress("images", done, total)
        for place, at in enumerate(gallery.of_block(session, block)):
            of_place[session, number, place] = at
        done += len(block.rates)
    progress("images", total, total)
    which = np.array([_which(gallery, of_place, p) for p in run.presentations], dtype=np.intp)
    digests = tuple(gallery.places)
    known = [(p, digests[at]) for p, at in zip(run.presentations, which, strict=True) if at >= 0]
    return Shown(
        pixels=tuple(gallery.pixels),
        digests=digests,
        labels=tuple(gallery.labels),
        which=which,
        others=sum(bool(p.digest) and p.digest != digest for p, digest in known),
    )


def digest_of(image: Images) -> str:
    """Of a (3, s, s) uint8 image."""
    return hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()[:DIGITS]


def latent_digest(latent: Latents) -> str:
    """SHA-256 of (d,) float32 numbers, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(latent, dtype="<f4").tobytes()).hexdigest()


def _which(gallery: _Gallery, of_place: Mapping[tuple[str, int, int], int], p: Presentation) -> int:
    if p.asked is not NOWHERE:
        return of_place[p.asked.session, p.asked.block, p.asked.place]
    return gallery.by_digest(p.digest)


class _Gallery:
    """Collects images, each once."""

    def __init__(self, run: Run) -> None:
        self.record, self.config = run.record, run.record.config
        searched = any(block.latents is not None for blocks in run.blocks.values() for block in blocks)
        if searched and self.config.start == "natural" and self.record.natural is None:
            raise NeuroGymError(
                f"{self.record.folder}: expected to know the natural image that searches started at, this run was stopped "
                "before it could be told; resume it first"
            )
        self.generator: Generator = generator_of(self.record)
        self.references: References = self.config.natural_images(self.generator.image_size)
        self.named = {name: image for name, image in zip(self.references.names, self.references.images, strict=True)}
        self.named[GREY_NAME] = grey_screen(self.references)[0]
        self.recommended = {name: self._recommended(blocks) for name, blocks in run.blocks.items()}
        self.pixels: list[NDArray[np.uint8]] = []
        self.labels: list[str] = []
        self.places: dict[str, int] = {}
        """Digest -> index."""
        self._by_name: dict[tuple[str, str, str], int] = {}

    def of_block(self, session: str, block: Block) -> Iterator[int]:
        """Index of the image of each presentation."""
        if block.latents is not None:
            for latent, image in zip(block.latents, draw(self.generator, block.latents), strict=True):
                yield self._add(image, f"generated from the latent of SHA-256 {latent_digest(latent)}")
            return
        for name in block.images or ():
            key = (session, block.kind, name)
            if key not in self._by_name:
                self._by_name[key] = self._of_name(session, block.kind, name)
            yield self._by_name[key]

    def by_digest(self, digest: str) -> int:
        """An image that came before, or a natural one; -1: none of these."""
        if digest in self.places:
            return self.places[digest]
        found = next((name for name, image in self.named.items() if digest_of(image) == digest), None)
        return -1 if found is None else self._add(self.named[found], self._label(found))

    def _of_name(self, session: str, kind: str, name: str) -> int:
        recommended = self.recommended[session]
        own = next((known for known in recommended if name == known or name.startswith(f"{known}: ")), None)
        if own is None or name != own:
            plain = name if own is None else name.removeprefix(f"{own}: ")
            if plain not in self.named:
                source = self.config.references or "those of installed packages"
                raise NeuroGymError(f"natural image {plain}: expected it among the references ({source}), found others")
            return self._add(self.named[plain], self._label(plain))
        if kind != "contrast":
            return self._add(recommended[own], f"{own} of {session}")
        if self.record.natural is None:  # no one knows what its contrast was matched to
            return -1
        matched = match_contrast(recommended[own][None], self.named[self.record.natural.best_image])[0]
        return self._add(matched, f"{own} of {session} with the brightness and contrast of {self.record.natural.best_image}")

    def _recommended(self, blocks: Sequence[Block]) -> dict[str, Images]:
        """Name -> (3, s, s) of what was recommended, by the latents behind those of the first round."""
        again = [block.latents for block in blocks if block.kind == FIRST and block.latents is not None]
        if not any(block.kind in ("validation", "contrast") for block in blocks) or not again:
            return {}
        latents, k = np.concatenate(again), self.config.recommend
        allowed = sorted({*self.config.report_at, self.config.budget})
        found = {}
        for place, milestone in enumerate(allowed):
            first = len(latents) - k * (len(allowed) - place)
            for at, image in enumerate(draw(self.generator, latents[first : first + k])):
                found[named(milestone, at)] = image.cpu()
        return found

    def _label(self, name: str) -> str:
        return "grey screen" if name == GREY_NAME else f"natural image {name}"

    def _add(self, image: Images, label: str) -> int:
        digest = digest_of(image)
        if digest not in self.places:
            self.places[digest] = len(self.pixels)
            self.pixels.append(image.permute(1, 2, 0).cpu().contiguous().numpy())
            self.labels.append(label)
        return self.places[digest]
