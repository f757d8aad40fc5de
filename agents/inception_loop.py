"""Inception loop of Walker et al. 2019: an ensemble of models, most exciting images, shown again; here round after round.

Walker et al. 2019, Nature Neuroscience 22:2060, doi:10.1038/s41593-019-0517-x; code: cajal/inception_loop2019
`staticnet_analyses/multi_mei.py`.
"""

from __future__ import annotations

import torch

from neurogym_v.fitting.ridge import Ridge
from neurogym_v.fitting.what_where import WhatWhere
from neurogym_v.naming import LARGEST
from neurogym_v.synthesis.ascent import Ascent, climb, within
from neurogym_v.synthesis.driven import ModelDriven
from neurogym_v.synthesis.surrogate import views
from neurogym_v.types import Latents, LoopSpec, NeuroGymError


class InceptionLoop(ModelDriven):
    """Closed loop after Walker et al. 2019: an ensemble's most exciting images are shown, it learns from them, and again.

    The members are a smooth ridge and a what/where readout of each layer. Their mean is climbed, with the high frequencies of
    the gradient weakened by the published filter, the same in all iterations, and latents of a fixed length, so that an image
    is not found for its contrast. In every cycle the images found are shown and the best of all so far re-tested; then all
    members are fitted to all that was shown.

    Differences from the original:
    - One loop took days, and closed once. Its members differ by seed, and are networks trained on thousands of the animal's
      images; here they differ by layer and fit, and are linear readouts of a network that never saw the neuron.
    - Latents of a generator are climbed, and not pixels, from draws of which half are the best of the mapping, in the place of
      grey noise; their length stands for contrast, which was matched afterwards.
    - The published ascent has 1000 iterations, steps that shrink 24-fold, normalised by the mean of |g|, and blurs the image by
      1.5 px, annealed to none. Here it is 12, 5-fold, by the s.d. of g over latents, and no blur; `blur` is of the gradient, as
      the image is a generator's.

    Args:
        sigma0: standard deviation of draws and starts, in units of the prior.
        network, layers, size: where the members read from: layers (from 0; None: two chosen on sites of v4) of a network
            that sees images of `size` px (None: 64), or `pixels` (None: 16). A network of the neuron's own family is no fair
            test.
        mapping: share of all presentations, references included, that goes to the first mapping.
        cycles: how often the loop is closed.
        starts: of each ascent, as many as images that are synthesised in a cycle; fewer where they could not be shown twice.
        iterations, step, last_step: of each ascent; the s.d. of a step over dimensions, in units of the prior.
        exponent, blur: of the filter of the gradient; the latter in px of an image of 64 px at the first iteration, none at the
            last.
        contrast: length of the latents, in units of the prior's.
        caution: standard deviations over members that are taken from their mean.

    Raises:
        NeuroGymError: a parameter out of its range, no such network or layer, a generator without gradients, or a budget
            below what is needed.
        WeightsError: the package with the network's weights is missing.
    """

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        network: str = "vgg16",
        layers: tuple[int, ...] | None = None,
        size: int | None = None,
        mapping: float = 0.5,
        cycles: int = 4,
        starts: int = 10,
        iterations: int = 12,
        step: float = 0.15,
        last_step: float = 0.03,
        exponent: float = 0.1,
        blur: float = 0.0,
        contrast: float = 1.0,
        caution: float = 0.0,
    ) -> None:
        super().__init__(
            spec,
            batch_size=batch_size,
            seed=seed,
            sigma0=sigma0,
            mapping=mapping,
            cycles=cycles,
            starts=starts,
            eyes=views(network, layers, size, 2),
            fittings=(Ridge(), WhatWhere(penalties=((1.0, 1.0),), steps=200)),
        )
        if not within(caution, 0, LARGEST):
            raise NeuroGymError(f"InceptionLoop: expected caution of 0 to {LARGEST:g}, got {caution!r}")
        self.caution = caution
        self.ascent = Ascent(
            iterations=iterations, step=step, last_step=last_step, exponent=exponent, blur=blur / 64, norm=contrast
        )

    def _synthesise(self, starts: Latents) -> Latents:
        return climb(self._score, self.spec.generator, starts, self.ascent, self.rng)

    def _score(self, images: torch.Tensor) -> torch.Tensor:
        members = self.surrogate(images)
        return torch.sub(members.mean(dim=1), members.std(dim=1, correction=0), alpha=self.caution)
