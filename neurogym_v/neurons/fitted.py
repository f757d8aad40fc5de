"""Sites of macaque V4 as they were recorded: features of a pretrained network, one linear readout a site, spikes/s.

    rate = floor + max(0, weight . features(image) + bias)

The features are those of EfficientNet-Lite0 after one block, averaged to a small grid; the readout is a ridge
regression (as in Brain-Score and in the DiCarlo lab's mappings), rescaled so that the modelled rates of the session's
own photographs have the mean and the signal variance that were recorded. There is no saturation above: an image may
drive a site beyond everything that was recorded. `neurogym_v.neurons.fit` makes such files from recordings and says how,
step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from neurogym_v import networks, weights
from neurogym_v.neurons.simulated import SimulatedNeuron, check_images
from neurogym_v.types import Images, Rates
from neurogym_v.weights import WeightsError

KIND = "neuron:fitted"
SHIPPED = Path(__file__).parent / "weights" / "v4.safetensors"
GRID = 7
"""Feature maps are averaged to GRID x GRID places before the readout."""
CHUNK = 64
"""Images in memory as features at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCard:
    """What is known about one site: where it was recorded, how well it is modelled, and its rates in spikes/s."""

    session: str
    animal: str
    neuron: int
    """Row in the session's `mean_counts.npy`."""
    images: int
    """Different images shown in the session."""
    repeats: float
    """Presentations of an image: the median over images."""
    r: float
    """Pearson r of predicted and recorded rates, five-fold cross-validated over images; not corrected for noise."""
    ceiling: float | None
    """The r that a perfect model would reach, from split halves of the trials; None where only means were released."""
    recorded_mean_hz: float
    recorded_p99_hz: float
    recorded_max_hz: float
    """Of the image that drove the site most: a maximum over noisy means, so above the rate a repetition would give."""
    signal_sd_hz: float
    """Standard deviation over images, without the Poisson variance of the means."""
    floor_hz: float
    """The site never falls below: the 5th percentile of its recorded rates."""
    spontaneous_hz: float
    """Modelled rate for a uniform mid-grey screen. No blank was recorded: the fit was told that grey is the floor."""
    p99_recorded_model_hz: float
    best_recorded_model_hz: float
    """Modelled rate of the best image of the session: what an evolved image has to beat."""


def features(images: Images, *, block: int, size: int, device: str) -> torch.Tensor:
    """(n, channels * GRID * GRID) float32, on `device`, of (n, 3, s, s) uint8 images."""
    with torch.inference_mode():
        (maps,) = networks.load("lite0", (block,), size, device)(images.to(device))
    return functional.adaptive_avg_pool2d(maps, GRID).flatten(1)


class FittedNeuron(SimulatedNeuron):
    """Sites of macaque V4: EfficientNet-Lite0 features and a readout each, fitted to recordings, spikes/s.

    `cards[site]` says where a site was recorded and how well it is modelled.
    """

    def __init__(
        self,
        *,
        weight: torch.Tensor,
        bias: torch.Tensor,
        floor: torch.Tensor,
        cards: tuple[SiteCard, ...],
        block: int,
        size: int,
        name: str = "v4",
        device: str = "cpu",
    ) -> None:
        """The formula's numbers: weight (sites, channels * GRID * GRID), bias and floor (sites,) spikes/s."""
        self.sites, self.name, self.cards = len(cards), name, cards
        self.block, self.size, self.device = block, size, device
        # The readout stays on the CPU: some accelerators have no float64, and it is a hundredth of the work.
        self.weight, self.bias, self.floor = weight.double(), bias.double(), floor.double()

    def expected_rate(self, images: Images) -> Rates:
        check_images(images)
        rates = torch.empty(len(images), self.sites, dtype=torch.float64)
        for at in range(0, len(images), CHUNK):
            part = images[at : at + CHUNK]
            seen = features(part, block=self.block, size=self.size, device=self.device).cpu().double()
            rates[at : at + CHUNK] = self.floor + (seen @ self.weight.T + self.bias).clamp_min(0.0)
        return np.asarray(rates)

    @classmethod
    def load(cls, path: Path | str | None = None, *, device: str = "cpu") -> FittedNeuron:
        """The sites in `path`, a file that `neurogym_v.neurons.fit` wrote; None is the one that ships.

        Raises:
            WeightsError: the file is missing, damaged, of another kind, or not what a fitted neuron needs.
        """
        path = SHIPPED if path is None else Path(path)
        tensors, card = weights.load(path, kind=KIND)
        block, size, records = card.get("block"), card.get("size"), card.get("sites")
        if not (isinstance(block, int) and isinstance(size, int) and isinstance(records, list)) or not records or size < 1:
            raise WeightsError(f"weights file {path}: expected a card with block, size and sites, found {sorted(card)}")
        try:
            cards = tuple(SiteCard(**record) for record in records)
        except TypeError as error:
            raise WeightsError(f"weights file {path}: expected one full card a site, found another ({error})") from None
        columns = networks.load("lite0", (block,), size, device).channels[0] * GRID * GRID
        weights.check(path, tensors, {"weight": (len(cards), columns), "bias": (len(cards),), "floor": (len(cards),)})
        if (lowest := float(tensors["floor"].min())) < 0:
            raise WeightsError(f"weights file {path}: floor: expected rates of 0 or more, found {lowest}")
        return cls(**tensors, cards=cards, block=block, size=size, name=path.stem, device=device)
