"""Normaliser images: a few that come back all through a session and tell how the gain of the recording moves.

Bashivan, Kar & DiCarlo (2019) show a fixed set of 25 in every session and normalise rates by the responses to it. Here the
gain is followed while the session runs, by a Kalman filter: its deviation from 1 is an Ornstein-Uhlenbeck process, and what
is observed is the ratio of the responses to a few normaliser images to their usual ones. Those are the mean responses so
far, each divided by the gain at its time, so that nothing need be known beforehand; the gain is 1 where they begin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neurogym_v.neurons.simulated import check_images
from neurogym_v.references import load_references
from neurogym_v.types import Images, NeuroGymError, Rates, References

BLOCK = 40
"""The most presentations between two looks at the normaliser."""
LIMITS = (1 / 3, 3.0)
"""An estimate beyond these is a lost signal, not a gain."""
SCATTER, FREEDOM = 0.05, 2.0
"""Variance of the ratio of one presentation, and the presentations that this guess is worth."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What is known of the usual responses to n images: the sums of rates and of the gains that they were shown at."""

    rates: Rates
    """(n, sites) spikes/s"""
    gains: NDArray[np.float64]
    """(n, sites)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """The images, how often they are shown, and what is expected of the gain."""

    images: Images
    """(n, 3, s, s) uint8"""
    names: tuple[str, ...]
    share: float = 0.125
    """Normaliser images for each presentation; those of a block come before it."""
    sd: float = 0.15
    """Of the slow gain around 1."""
    tau: float = 1600.0
    """Presentations in which it forgets; some ten minutes."""
    own: float = 0.1
    """Part of its variance that is a site's own: 0 is one gain for all sites, 1 one for each."""
    usual: Usual | None = None
    """From an earlier session with the same neuron, whose scale is then kept."""

    def __post_init__(self) -> None:
        check_images(self.images)
        if not len(self.names) or len(self.names) != len(self.images):
            raise NeuroGymError(
                f"normaliser: expected images with a name each, got {len(self.images)} images, {len(self.names)} names"
            )
        if not 0 < self.share <= 1 or not self.sd > 0 or not self.tau > 0 or not 0 <= self.own <= 1:
            raise NeuroGymError(
                "normaliser: expected a share in (0, 1], sd > 0, tau > 0 and own in [0, 1], "
                f"got {self.share:g}, {self.sd:g}, {self.tau:g} and {self.own:g}"
            )

    @classmethod
    def spread(cls, references: References, count: int = 25) -> Normaliser:
        """`count` of the references, evenly spread among them, always the same."""
        available = len(references.names)
        if not 1 <= count <= available:
            raise NeuroGymError(f"normaliser: expected 1 to {available} images, one a reference, got {count}")
        chosen = references.spread(count)
        return cls(images=chosen.images, names=chosen.names)

    def count(self, presentations: int) -> int:
        """Normaliser images shown before a block."""
        return math.ceil(presentations * self.share - 1e-9)

    def cost(self, presentations: int) -> int:
        """What so many presentations cost, their normaliser images included."""
        blocks, rest = divmod(presentations, BLOCK)
        return presentations + blocks * self.count(BLOCK) + self.count(rest)

    def affords(self, budget: int) -> int:
        """The most presentations that cost no more than `budget`."""
        blocks, rest = divmod(budget, self.cost(BLOCK))
        return blocks * BLOCK + max(n for n in range(BLOCK + 1) if self.cost(n) <= rest)


def load_normaliser(asked: int | Normaliser, size: int) -> Normaliser | None:
    """So many of the references in packages, `size` pixels a side like the generator's images; 0 is none."""
    if isinstance(asked, Normaliser):
        if asked.images.shape[-1] != size:
            got = asked.images.shape[-1]
            raise NeuroGymError(f"normaliser: expected images of {size} pixels like the generator's, got {got}")
        return asked
    return Normaliser.spread(load_references(size=size), asked) if asked else None


class SlowGain:
    """The gain of one session, as its normaliser images tell: that of all sites times, if they have some, their own.

    Args:
        normaliser: the set.
        sites: of the neuron.
    """

    def __init__(self, normaliser: Normaliser, sites: int) -> None:
        self.normaliser, shape = normaliser, (len(normaliser.names), sites)
        known = normaliser.usual or Usual(np.zeros(shape), np.zeros(shape))
        if known.rates.shape != shape or known.gains.shape != shape:
            raise NeuroGymError(f"normaliser: expected usual rates (images, sites) {shape}, got {known.rates.shape}")
        self._rates, self._gains = known.rates.copy(), known.gains.copy()
        self._shared = Wandering(1, variance=normaliser.sd**2 * (1 - normaliser.own), tau=normaliser.tau)
        self._own = Wandering(sites, variance=normaliser.sd**2 * normaliser.own, tau=normaliser.tau)

    @property
    def value(self) -> NDArray[np.float64]:
        """(sites,) the gain now."""
        return np.clip(self._shared.value * self._own.value, *LIMITS)

    def update(self, order: NDArray[np.intp], rates: Rates, at: int) -> None:
        """Learn from the (k, sites) rates of the images `order` (k,), the last of which was presentation number `at`."""
        known = np.isfinite(rates) & (self._gains[order] > 0)
        usual = np.where(known, self._rates[order] / np.where(known, self._gains[order], 1), 0)
        observed = np.where(known, rates, 0)
        pooled = observed.sum(axis=1, keepdims=True), (usual * self._own.value).sum(axis=1, keepdims=True)
        self._shared.update(*pooled, known.any(axis=1, keepdims=True).sum(axis=0), at)
        self._own.update(observed, usual * self._shared.value, known.sum(axis=0), at)
        shown = np.isfinite(rates)
        np.add.at(self._rates, order, np.where(shown, rates, 0))
        np.add.at(self._gains, order, np.where(shown, self.value, 0))

    def after(self) -> Normaliser:
        """The set with what this session has learnt of it: the next session then goes on in the same scale."""
        return replace(self.normaliser, usual=Usual(self._rates.copy(), self._gains.copy()))


class Wandering:
    """A Kalman filter for (columns,) numbers that wander around 1, forgetting in `tau` presentations."""

    def __init__(self, columns: int, *, variance: float, tau: float) -> None:
        self._prior, self._tau, self._at = variance, tau, 0
        self.value, self._variance = np.ones(columns), np.full(columns, variance)
        self._scatter, self._freedom = np.full(columns, SCATTER * FREEDOM), np.full(columns, FREEDOM)

    def update(self, observed: Rates, usual: Rates, count: NDArray[np.intp], at: int) -> None:
        """Go on to presentation `at`, where (k, columns) rates were observed instead of the usual ones; `count` (columns,)
        of the k are known, the others 0 in both."""
        kept, self._at = math.exp((self._at - at) / self._tau), at
        self.value = 1 + kept * (self.value - 1)
        self._variance = kept**2 * self._variance + (1 - kept**2) * self._prior
        total = usual.sum(axis=0)
        seen = total > 0
        ratio = observed.sum(axis=0) / np.where(seen, total, 1)
        mean = np.where(seen, total, 1) / np.maximum(count, 1)
        several = seen & (count > 1)
        self._scatter += np.where(several, ((observed - ratio * usual) ** 2).sum(axis=0) / mean**2, 0)
        self._freedom += np.where(several, count - 1, 0)
        error = self._scatter / self._freedom / np.maximum(count, 1)  # of the ratio, from its own scatter
        trust = np.where(seen, self._variance / (self._variance + error), 0)
        self.value = self.value + trust * (ratio - self.value)
        self._variance = (1 - trust) * self._variance
