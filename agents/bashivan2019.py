"""Neural population control of Bashivan, Kar & DiCarlo 2019: map the neuron once, synthesise its image, show it.

Bashivan, Kar & DiCarlo 2019, Science 364:eaav9436, doi:10.1126/science.aav9436; code: dicarlolab/npc `npc/synthesizer.py`,
dicarlolab/convmap `cubemap/mapper.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from neurogym_v.fitting.what_where import WhatWhere
from neurogym_v.synthesis.ascent import Ascent, climb
from neurogym_v.synthesis.driven import ModelDriven
from neurogym_v.synthesis.surrogate import views
from neurogym_v.types import Latents, LoopSpec

PENALTIES = ((0.3, 0.3), (1.0, 1.0))
"""(ls, ld) that are tried: with one trial an image the first is the better one of 1000 images, the second one of 200."""
STEPS = 200
"""Of the fit: twice as many predict as well."""


class Bashivan2019(ModelDriven):
    """Open-loop control of Bashivan et al. 2019: a what/where readout of a network, and gradient ascent through it.

    Natural images (the references) and draws from the prior are shown once each; a separable readout (where it looks times
    what it looks for) of one layer is fitted to their scores; its prediction is climbed from several starts, with a jittered
    image, a penalty on total variation and gradients of one size; the images found are shown, and the best re-tested.

    Differences from the original: latents of a generator are climbed, and not pixels; with the generators `pixel` and
    `fourier`, whose latents are as many as channel values, it is the published search. There a latent of 1 is 0.54 near grey,
    where images are in [-1, 1], so the published step of 0.01 is 0.0185 (the preset `published`, with its 200 iterations and
    5 starts). The default goes as far in fewer, longer steps, from more starts, of which half are the best draws of the
    mapping. The score is in units of the s.d. of predictions over the images of the mapping; the original's, of averaged
    responses. One-hot scores are told to the agent and mapped as they are, as no agent sees the other sites.

    Args:
        sigma0: standard deviation of draws and starts, in units of the prior.
        network, layer, size: where the readout reads from: a layer (from 0; None: the one that predicts V4 sites best) of a
            network that sees images of `size` px (None: 64), or `pixels` (None: 16). A network of the neuron's own family is
            no fair test.
        mapping: share of all presentations, references included, that goes to the mapping.
        starts: of the ascent, as many as images that are synthesised.
        iterations, step: of the ascent; the s.d. of a step over dimensions, in units of the prior.
        jitter: in px of an image of 299 px, as published.
        variation: weight of the total variation, as published.

    Raises:
        NeuroGymError: a parameter out of its range, no such network or layer, a generator without gradients, or a budget
            below what is needed.
        WeightsError: the package with the network's weights is missing.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {"starts": 5, "iterations": 200, "step": 0.0185}}

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        network: str = "vgg16",
        layer: int | None = None,
        size: int | None = None,
        mapping: float = 0.6,
        starts: int = 32,
        iterations: int = 16,
        step: float = 0.12,
        jitter: int = 19,
        variation: float = 500.0,
    ) -> None:
        super().__init__(
            spec,
            batch_size=batch_size,
            seed=seed,
            sigma0=sigma0,
            mapping=mapping,
            cycles=1,
            starts=starts,
            eyes=views(network, None if layer is None else (layer,), size, 1),
            fittings=(WhatWhere(penalties=PENALTIES, steps=STEPS),),
        )
        self.ascent = Ascent(iterations=iterations, step=step, last_step=step, jitter=jitter / 299, variation=variation)

    def _synthesise(self) -> Latents:
        return climb(lambda images: self.surrogate(images)[:, 0], self.spec.generator, self.starts(), self.ascent, self.rng)
