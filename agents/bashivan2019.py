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

PENALTIES = ((1.0, 1.0),)
"""(ls, ld) of the fit, chosen for one trial an image on the sites `neurogym_v.synthesis.surrogate.TUNED_ON` of v4."""
STEPS = 200
"""Of the fit, chosen on the same sites."""


class Bashivan2019(ModelDriven):
    """Open-loop control of Bashivan et al. 2019: a what/where readout of a network, and gradient ascent through it.

    Natural images (the references) and draws from the prior are shown once each; a separable readout (where it looks times
    what it looks for) of one layer is fitted to their scores; its prediction is climbed from several starts, with a jittered
    image, a penalty on total variation and gradients of one size; the images found are shown, and the best re-tested.

    Differences from the original:
    - The network is VGG16 at 64 px in the place of AlexNet's conv3 at 299 px behind a model of the retina; its channels are
      cut to 128 principal components before the fit.
    - Masks start uniform and features small, in the place of standard normal weights; their norms are taken of the site, and
      so is the error, which was one over all sites; the rate of learning is annealed by a cosine.
    - Each image of the mapping is shown once, not repeatedly, and draws from the prior join the natural images. The score
      is in units of the s.d. of predictions over those, where the original's is of averaged responses.
    - Latents of a generator are climbed, and not grey pixels; a step is normalised over latents. With the generator `pixel` it
      is nearest to the published search: there a latent of 1 is 0.54 near grey, where images are in [-1, 1], so the published
      step of 0.01 is 0.0185 (the preset `published_steps`, with the published 200 iterations and 5 starts; all else of it is
      as by default, where steps are fewer and longer, and starts more).
    - Half of the starts are the best draws of the mapping, in the place of noise.
    - The images found are re-tested in the same session, in the place of another day.
    - One-hot scores are told to the agent and mapped as they are, as no agent sees the other sites.

    Args:
        sigma0: standard deviation of draws and starts, in units of the prior.
        network, layer, size: where the readout reads from: a layer (from 0; None: one chosen on sites of v4) of a
            network that sees images of `size` px (None: 64), or `pixels` (None: 16). A network of the neuron's own family is
            no fair test.
        mapping: share of all presentations, references included, that goes to the mapping.
        starts: of the ascent, as many as images that are synthesised; fewer where they could not be shown twice each.
        iterations, step: of the ascent; the s.d. of a step over dimensions, in units of the prior.
        jitter: in px of an image of 299 px, as published.
        variation: weight of the total variation, as published.

    Raises:
        NeuroGymError: a parameter out of its range, no such network or layer, a generator without gradients, or a budget
            below what is needed.
        WeightsError: the package with the network's weights is missing.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published_steps": {"starts": 5, "iterations": 200, "step": 0.0185}}

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

    def _synthesise(self, starts: Latents) -> Latents:
        return climb(lambda images: self.surrogate(images)[:, 0], self.spec.generator, starts, self.ascent, self.rng)
