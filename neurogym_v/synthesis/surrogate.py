"""A model of the neuron, differentiable in the image: linear readouts of a network's maps, fitted to what was shown.

A network sees an image at `size` px, and its maps are averaged to a small grid, as they are where `neurogym_v.fitting` fits
recordings. Several readouts are an ensemble: members differ in the layer they read and in how they were fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neurogym_v import networks
from neurogym_v.fitting.features import GRID, PIXELS, Candidate, candidates, look
from neurogym_v.fitting.mapping import Mapping
from neurogym_v.generators import Generator, draw
from neurogym_v.references import photograph
from neurogym_v.stats import pearson
from neurogym_v.types import Images, Latents, NeuroGymError, Rates

SIZE = 64
"""Pixels that networks see: those of the shipped generator; what larger ones cost goes with their square."""
LARGEST_SIZE = 1024
PIXELS_SIZE = 16
"""Of an image that is read without a network."""
PREFERRED = {"vgg16": (4, 2), "lite0": (5, 3), "lite1": (6, 10), "lite2": (6, 10), PIXELS: (0,)}
"""Layers, the preferred one first: chosen on the sites `TUNED_ON` (vgg16, lite2), or as being like those (the others)."""
TUNED_ON = (3, 12, 20, 33, 41, 55)
"""Sites of v4 on which layers and defaults of agents were chosen: no fair test of either, and the same cells of its twins."""
FEWEST = 10
"""Images with a score from which a readout is fitted."""
DRAWN = 50
"""Latents that are drawn at once."""
CLIP = 1e-3
"""Shares are kept so far from 0 and 1 where their log odds are taken."""
HELD_OUT = 5
"""One in so many photographs, and draws, judges the fit to the others."""


class Member(NamedTuple):
    """One readout of the ensemble."""

    eye: int
    weight: NDArray[np.float64]
    """(channels * g * g,)"""
    bias: float


def views(network: str, layers: Sequence[int] | None, size: int | None, count: int) -> tuple[Candidate, ...]:
    """Where to read from: these layers of a network; None: `count` good ones (of a network unknown here, the middle one).

    Args:
        size: in px, of the image that the network sees; None is `SIZE`, and `PIXELS_SIZE` for `pixels` themselves.

    Raises:
        NeuroGymError: no such network or layer, or none at all.
    """
    if size is None:
        size = PIXELS_SIZE if network == PIXELS else SIZE
    if not isinstance(size, int | np.integer) or not 1 <= size <= LARGEST_SIZE:
        raise NeuroGymError(f"surrogate: expected images of 1 to {LARGEST_SIZE} px, got size {size!r}")
    every = [candidate.layer for candidate in candidates(network, size)]
    known = range(1) if network == PIXELS else range(len(networks.layers(network, size)))
    chosen = PREFERRED.get(network, (every[len(every) // 2],))[:count] if layers is None else tuple(layers)
    if not chosen or any(layer not in known for layer in chosen) or len(set(chosen)) < len(chosen):
        raise NeuroGymError(f"surrogate {network}: expected different layers of 0 to {len(known) - 1}, got {chosen}")
    return tuple(Candidate(network, layer, size) for layer in chosen)


def key(latent: Latents) -> bytes:
    """Of one latent: they may have as many numbers as an image."""
    return hashlib.blake2b(latent.tobytes(), digest_size=16).digest()


class Surrogate:
    """Remembers images with their scores, and predicts the scores of others.

    An image shown several times counts once, with its mean: a synthesised image that was re-tested is one place in the space
    of images. Scores are standardised before they are fitted, so no unit or size of them matters. Where all lie within [0, 1]
    they are taken for shares (of a softmax over sites, say), and it is the log odds of each trial that are fitted: those are
    nearly linear in rates.

    Args:
        generator: draws latents.
        eyes: where the readouts read from; the networks are loaded at once.
        mappings: how they are fitted; every one of `eyes` with every one of these is a member of the ensemble.

    Raises:
        NeuroGymError: no such network or layer.
        WeightsError: the package with a network's weights is missing or damaged.
    """

    def __init__(self, generator: Generator, eyes: Sequence[Candidate], mappings: Sequence[Mapping]) -> None:
        self.generator, self.eyes, self.mappings = generator, tuple(eyes), tuple(mappings)
        self.device = str(generator.sample(1, np.random.default_rng(0)).device)
        keys = dict.fromkeys((eye.network, eye.size) for eye in self.eyes)
        self.passes = {key: tuple(sorted(eye.layer for eye in self.eyes if (eye.network, eye.size) == key)) for key in keys}
        """(network, size) -> the layers that one pass gives."""
        for (network, size), layers in self.passes.items():
            if network != PIXELS:
                networks.load(network, layers, size, self.device)
        self.fitted = False
        self._members: list[Member] = []
        self._weights: list[Tensor] = []  # of the members, on the device
        self._mean, self._unit, self._as_odds = 0.0, 1.0, False
        self._maps: list[NDArray[np.float32]] = []  # (n, channels, g, g) of each eye, of those looked at so far
        self._new: list[Images | Latents] = []  # not looked at yet
        self._place: dict[bytes, int] = {}  # of latents among all images
        self._sources: list[str | int] = []  # of each image: its photograph's name, or its own place
        self._total: NDArray[np.float64] = np.empty(0)  # of the scores of each image
        self._odds: NDArray[np.float64] = np.empty(0)  # and of their log odds, in case they are shares
        self._shares = True
        self._count: NDArray[np.float64] = np.empty(0)

    def add_images(self, images: Images, scores: Rates, names: Sequence[str] | None = None) -> None:
        """Remember (n, 3, s, s) uint8 images and their (n,) scores; those of lost trials, NaN, are left out.

        Args:
            names: of the images; those of one `source` are held out together. None: each image is a source of its own.
        """
        valid = np.flatnonzero(np.isfinite(scores))
        if len(valid):
            self._new.append(images[torch.from_numpy(valid)])
            own = range(len(self), len(self) + len(valid))
            self._sources += own if names is None else [photograph(names[int(i)]) for i in valid]
            self._append(scores[valid])

    def add(self, latents: Latents, scores: Rates) -> None:
        """Remember (n, d) latents as shown and their (n,) scores; those of lost trials, NaN, are left out."""
        for latent, score in zip(latents, scores, strict=True):
            if not np.isfinite(score):
                continue
            place = self._place.setdefault(key(latent), len(self._total))
            if place == len(self._total):
                self._new.append(latent[None].copy())
                self._sources.append(place)
                self._append(np.array([score]))
            else:
                self._total[place] += score
                self._odds[place] += self._log_odds(score)
                self._count[place] += 1

    def _append(self, scores: Rates) -> None:
        self._total, self._count = np.append(self._total, scores), np.append(self._count, np.ones(len(scores)))
        self._odds = np.append(self._odds, self._log_odds(scores))

    def _log_odds(self, scores: Rates | float) -> Rates:
        self._shares = self._shares and bool(np.all(np.greater_equal(scores, 0) & np.less_equal(scores, 1)))
        clipped = np.clip(scores, CLIP, 1 - CLIP)
        return np.asarray(np.log(clipped / (1 - clipped)))

    def _targets(self) -> tuple[Rates, bool]:
        """(images,) what is fitted: mean scores, or of shares, unless all are beyond CLIP, their mean log odds; and which."""
        shows = np.maximum(self._count, 1)
        odds = self._odds / shows
        as_odds = self._shares and len(odds) > 0 and float(np.ptp(odds)) > 0
        return (odds if as_odds else self._total / shows), as_odds

    def __len__(self) -> int:
        """Different images with a score."""
        return len(self._total)

    def observed(self, latents: Latents) -> Rates:
        """(n,) mean scores of (n, d) latents; NaN for those never shown."""
        places = [self._place.get(key(latent)) for latent in latents]
        return np.array([np.nan if at is None else self._total[at] / self._count[at] for at in places])

    def shows(self, latents: Latents) -> NDArray[np.intp]:
        """(n,) valid trials of (n, d) latents."""
        places = [self._place.get(key(latent)) for latent in latents]
        return np.array([0 if at is None else self._count[at] for at in places], dtype=np.intp)

    @torch.inference_mode(False)  # whoever calls may be in it, and what is made there can have no gradient
    @torch.enable_grad()
    def fit(self) -> bool:
        """Fit all members to all that is remembered; False, and no other change, where that says nothing.

        That is with fewer than FEWEST images, with equal scores, or where no member tells one image from another.
        """
        scores, as_odds = self._targets()
        if len(scores) < FEWEST or not 0 < scores.std() < np.inf:
            return False
        mean, sd = float(scores.mean()), float(scores.std())
        self._look()
        found = self._readouts(np.arange(len(scores)), (scores - mean) / sd)
        predicted = np.mean([self._values(member) for member in found], axis=0)
        unit = float(predicted.std())
        if not (np.isfinite(predicted).all() and unit > 1e-6):
            return False
        self._members = [Member(eye, weight / unit, bias / unit) for eye, weight, bias in found]
        self._weights = [torch.from_numpy(member.weight).float().to(self.device) for member in self._members]
        self._mean, self._unit, self._as_odds, self.fitted = mean, sd * unit, as_odds, True
        return True

    @torch.inference_mode(False)
    @torch.enable_grad()
    def held_out_r(self) -> float:
        """Pearson r of predicted and observed scores of images that are held out, predicted from the others; NaN with too few.

        Held out are about a fifth of the photographs, each with all of its crops, and a fifth of all other images. Where both
        kinds were added it is one r of both together, so that a model that only tells photographs from draws has one too.
        """
        scores, _ = self._targets()
        number = {name: i for i, name in enumerate(dict.fromkeys(self._sources))}  # photographs come before draws
        is_held = np.array([number[name] % HELD_OUT == 0 for name in self._sources], dtype=bool)
        held, kept = np.flatnonzero(is_held), np.flatnonzero(~is_held)
        if len(kept) < FEWEST or len(held) < 3 or not 0 < scores[kept].std() < np.inf:
            return float("nan")
        self._look()
        scores = (scores - scores[kept].mean()) / scores[kept].std()
        predicted = [self._values(member, held) for member in self._readouts(kept, scores)]
        return float(pearson(np.mean(predicted, axis=0)[:, None], scores[held, None])[0])

    def __call__(self, images: Tensor) -> Tensor:
        """(n, members) of (n, 3, s, s) images in [0, 1]: scores in units of the s.d. of predictions, from their mean.

        Differentiable.
        """
        seen: dict[Candidate, Tensor] = {}
        for (network, size), layers in self.passes.items():
            if network == PIXELS:
                every = [functional.interpolate(images, (size, size), mode="bilinear", antialias=True)]
            else:
                maps = networks.load(network, layers, size, self.device)(images)
                every = [functional.adaptive_avg_pool2d(m, min(GRID, m.shape[-1])) for m in maps]
            seen |= {Candidate(network, layer, size): m.flatten(1) for layer, m in zip(layers, every, strict=True)}
        both = zip(self._members, self._weights, strict=True)
        return torch.stack([seen[self.eyes[member.eye]] @ weight + member.bias for member, weight in both], dim=1)

    def predict(self, latents: Latents) -> Rates:
        """(n,) scores that the fitted ensemble expects of (n, d) latents, drawn as a display would."""
        self._look()
        places = np.array([self._place.get(key(latent), -1) for latent in latents], dtype=np.intp)
        expected = np.empty(len(latents))
        if (known := places >= 0).any():  # their maps are at hand
            expected[known] = np.mean([self._values(member, places[known]) for member in self._members], axis=0)
        for part in (at for at in np.split(np.flatnonzero(~known), range(DRAWN, len(latents), DRAWN)) if len(at)):
            expected[part] = self._see(draw(self.generator, latents[part]))
        return self._score(expected)

    def predict_images(self, images: Images) -> Rates:
        """The same of (n, 3, s, s) uint8 images."""
        parts = [self._see(part.to(self.device)) for part in torch.split(images, DRAWN)]
        return self._score(np.concatenate(parts))

    def _score(self, expected: Rates) -> Rates:
        """From the ensemble's own units."""
        linear = self._mean + self._unit * expected
        return np.asarray(1 / (1 + np.exp(-linear))) if self._as_odds else linear

    @torch.inference_mode()
    def _see(self, images: Images) -> Rates:
        """(n,) what the ensemble makes of uint8 images, in its own units."""
        return np.asarray(self(images.float() / 255).mean(dim=1).cpu().double())

    def _look(self) -> None:
        """At what is new: latents that came one by one are drawn together."""
        if not self._new:
            return
        parts: list[Images] = []
        waiting: list[Latents] = []
        for new in [*self._new, None]:
            if isinstance(new, np.ndarray):
                waiting.append(new)
                continue
            if waiting:
                together = np.concatenate(waiting)
                parts += [draw(self.generator, part) for part in np.split(together, range(DRAWN, len(together), DRAWN))]
                waiting = []
            if new is not None:
                parts.append(new.to(self.device))
        seen = look(torch.cat(parts), self.eyes, device=self.device)
        maps = [seen[eye].values for eye in self.eyes]
        self._maps = [np.concatenate(both) for both in zip(self._maps, maps, strict=True)] if self._maps else maps
        self._new = []

    def _readouts(self, rows: NDArray[np.intp], scores: Rates) -> list[Member]:
        """The members, fitted to these rows."""
        found = []
        for eye, maps in enumerate(self._maps):
            for mapping in self.mappings:
                readout = mapping.prepare(maps).fit(rows, scores[rows, None])
                found.append(Member(eye, readout.weight[0].ravel(), float(readout.bias[0])))
        return found

    def _values(self, member: Member, places: NDArray[np.intp] | slice = slice(None)) -> Rates:
        """What a member makes of images that were looked at."""
        maps = self._maps[member.eye][places]
        return np.asarray(maps.reshape(len(maps), -1) @ member.weight.astype(np.float32) + member.bias, dtype=np.float64)
