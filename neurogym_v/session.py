"""A session: one neuron, shown images until the budget is spent. It clips, draws, shows, counts and keeps the journal.

Everything that is ever shown goes through `show_latents` or `show_images`: search, references, validation. The randomness
of a block depends only on the seed, what it is for, and the number of its first presentation, so a session can be replayed
from any point, and agents that ask for equal batches meet equal luck.
What is shown in one go may be several *blocks*: with a normaliser, pieces of it and normaliser images in turn.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurogym_v import generators
from neurogym_v.journal import Block, Journal, JournalError
from neurogym_v.neurons.simulated import Neuron
from neurogym_v.normaliser import BLOCK, Normaliser, SlowGain
from neurogym_v.types import Images, Latents, NeuroGymError, Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """Presentations that are asked for: `pictures[order]`."""

    kind: str
    """What for: `search`, `reference`, `normaliser`, ..."""
    order: NDArray[np.intp]
    """(m,)"""
    pictures: Images | Latents
    """(n, 3, s, s) uint8 images, or (n, d) latents that are still to be drawn."""
    names: Sequence[str] | None = None
    """One an image."""

    def pieces(self, longest: int) -> Iterator[Showing]:
        """The same in pieces of at most so many presentations.

        Images stay one tensor, so that what a neuron knows of them it knows for all pieces; of latents, each piece has those
        that it needs, as they are still to be drawn.
        """
        for at in range(0, len(self.order), longest):
            order, pictures = self.order[at : at + longest], self.pictures
            if isinstance(pictures, np.ndarray):
                used, order = np.unique(order, return_inverse=True)
                pictures = pictures[used]
            yield Showing(kind=self.kind, order=order, pictures=pictures, names=self.names)

    def block(self, rates: Rates, state: Mapping[str, Any]) -> Block:
        """The same as the journal keeps it, with the rates and the state of the neuron afterwards."""
        names = tuple(self.names[i] for i in self.order) if self.names else None
        latents = self.pictures[self.order] if isinstance(self.pictures, np.ndarray) else None
        return Block(self.kind, names, latents, rates, state)


def of_latents(latents: Latents, kind: str, order: NDArray[np.intp] | None = None) -> Showing:
    """The images of latents[order], of each once by default."""
    return Showing(kind=kind, order=np.arange(len(latents)) if order is None else order, pictures=latents)


class Session:
    """What a neuron was shown and how it answered.

    Args:
        generator, neuron: the two halves of the environment.
        seed: of everything random between them.
        journal: where every presentation goes; `name` is this session's name in it. Blocks that are already there are
            replayed: nothing is shown, the recorded rates are given.
        normaliser: images that come before every block, by which the slow gain is taken out of the rates that are given;
            the journal keeps them as they were recorded.
        show: how a block is shown: (session, block) -> (m, sites) rates as recorded; by default here and now.
    """

    def __init__(
        self,
        generator: generators.Generator,
        neuron: Neuron,
        *,
        seed: int,
        journal: Journal | None = None,
        name: str = "session",
        normaliser: Normaliser | None = None,
        show: Show | None = None,
    ) -> None:
        self._show_block = show or shown_alone
        self.generator, self.seed, self.journal, self.name = generator, seed, journal, name
        self.shown: Counter[str] = Counter()
        """Presentations so far, by what they were for."""
        self.slow_gain = SlowGain(normaliser, neuron.sites) if normaliser else None
        self.replaying = journal.blocks(name) if journal else []
        self._number = 0
        self.neuron = neuron.begin(self.rng("begin"))

    def clip(self, latents: Latents) -> Latents:
        """(n, d) latents as they will be shown.

        Raises:
            NeuroGymError: another shape, a type that is no float, or numbers that are not finite.
        """
        d = self.generator.latent_dim
        given = np.asarray(latents)
        if given.ndim != 2 or given.shape[1] != d or not len(given):
            raise NeuroGymError(f"latents: expected (n, {d}) with n of at least 1, got shape {given.shape}")
        if given.dtype.kind != "f":
            raise NeuroGymError(f"latents: expected floats (float32), got {given.dtype}")
        if not np.isfinite(given).all():
            raise NeuroGymError(f"latents: expected finite numbers, got {int((~np.isfinite(given)).sum())} NaN or infinite")
        bound = self.generator.bound
        return np.clip(given, -bound, bound).astype(np.float32)

    def draw(self, latents: Latents) -> Images:
        """(n, d) latents -> (n, 3, s, s) uint8 images, on the generator's device."""
        return generators.draw(self.generator, latents)

    def show_latents(self, latents: Latents, *, kind: str, order: NDArray[np.intp] | None = None) -> tuple[Latents, Rates]:
        """Show the images of latents[order] (of each once, by default): (n, d) as shown and (len(order), sites) spikes/s."""
        latents = self.clip(latents)
        return latents, self._show(of_latents(latents, kind, order))

    def show_images(self, images: Images, names: Sequence[str], order: NDArray[np.intp], *, kind: str) -> Rates:
        """Show images[order] in that order: (len(order), sites) spikes/s. `names` go to the journal, one an image."""
        return self._show(Showing(kind=kind, order=order, pictures=images, names=names))

    def blocks(self, asked: Showing) -> Generator[Showing, Rates, Rates]:
        """Show in steps, so that several sessions can be shown at once: yields every block that is not in the journal, is
        sent its (m, sites) rates as recorded, and returns the rates of all that was asked for, without the slow gain."""
        if self.slow_gain is None:
            return (yield from self._block(asked))
        rates = []
        for piece in asked.pieces(BLOCK):
            order, looks = self._looks(self.slow_gain.normaliser, len(piece.order))
            self.slow_gain.update(order, (yield from self._block(looks)), self.shown.total())
            rates.append((yield from self._block(piece)) / self.slow_gain.value)
        return np.concatenate(rates)

    def rng(self, kind: str) -> np.random.Generator:
        """The randomness of the next presentations of this kind."""
        word = int.from_bytes(hashlib.sha256(kind.encode()).digest()[:4], "little")
        return np.random.default_rng([self.seed, word, self.shown[kind]])

    def _show(self, asked: Showing) -> Rates:
        if not len(asked.order):
            raise NeuroGymError(f"{asked.kind}: expected one presentation or more, got none")
        blocks, rates = self.blocks(asked), None
        while True:
            try:
                block = next(blocks) if rates is None else blocks.send(rates)
            except StopIteration as shown:
                return np.asarray(shown.value)
            rates = self._show_block(self, block)

    def _looks(self, normaliser: Normaliser, presentations: int) -> tuple[NDArray[np.intp], Showing]:
        """The normaliser images before so many presentations, in rotation: which, and the block that shows them."""
        order = (self.shown["normaliser"] + np.arange(normaliser.count(presentations))) % len(normaliser.names)
        return order, Showing(kind="normaliser", order=order, pictures=normaliser.images, names=normaliser.names)

    def _block(self, asked: Showing) -> Generator[Showing, Rates, Rates]:
        """The rates of one block as recorded: from the journal, or from whoever shows it, and then written."""
        if self._number < len(self.replaying):
            rates = self._replay(asked)
        else:
            rates = yield asked
            if self.journal:
                self.journal.append(self.name, self._number, asked.block(rates, self.neuron.state()))
        self._number += 1
        self.shown[asked.kind] += len(rates)
        if self.neuron.repeated:
            self.shown["repeated"] = self.neuron.repeated
        return np.where(self.neuron.alive, rates, np.nan)  # of a site that is known to be lost, nothing is a response

    def _replay(self, asked: Showing) -> Rates:
        """The recorded rates of the next block; the neuron goes on from after it.

        Raises:
            JournalError: the journal has another block in this place.
        """
        recorded = self.replaying[self._number]
        if recorded.asks_for() != asked.block(recorded.rates, {}).asks_for():
            raise JournalError(
                f"replay diverged in session {self.name!r}: block {self._number} of the journal is {len(recorded.rates)} "
                f"presentations for {recorded.kind}, the run asks for another {asked.kind} block "
                "(another version, machine or setting than the journal was made with?)"
            )
        self.neuron.restore(recorded.state)
        return recorded.rates


Show: TypeAlias = Callable[[Session, Showing], Rates]


def shown_alone(session: Session, block: Showing) -> Rates:
    """The (m, sites) rates that the neuron answers a block with."""
    images = session.draw(block.pictures) if isinstance(block.pictures, np.ndarray) else block.pictures
    return session.neuron.present(images, block.order, session.rng(block.kind))
