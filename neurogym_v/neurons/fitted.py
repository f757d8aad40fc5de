"""Recorded sites: features of a pretrained network, one linear readout a site, and the response model, in spikes/s.

    drive = weight . features(image) + bias,    rate = response(drive)

The features are the maps of one layer, averaged to a small grid. `neurogym-v fit` makes such files from recordings; those
that ship are made by `neurogym_v.fitting.cast`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional

from neurogym_v import networks, weights
from neurogym_v.neurons.response import Response
from neurogym_v.neurons.simulated import SimulatedNeuron, check_images
from neurogym_v.types import Images, NeuroGymError, Rates
from neurogym_v.weights import WeightsError

KIND = "neuron:fitted"
FOLDER = Path(__file__).parent / "weights"
CHUNK = 64
"""Images in memory as features at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCard:
    """What is known about one site: where it comes from, how well it is modelled, and its rates in spikes/s."""

    session: str
    """The recording; of a unit, what its natural images were."""
    animal: str
    neuron: str
    """What the recording calls it; of a unit, its channel."""
    images: int
    """Different images it was fitted to."""
    repeats: float | None = None
    """Presentations of an image, the median over images; None where no one knows."""
    r: float | None = None
    """Pearson r of predicted and recorded rates, cross-validated over images with the layer chosen inside; not corrected
    for noise. None for a unit: it is what it is."""
    ceiling: float | None = None
    """The r that a perfect model would reach, from split halves of the trials; None where only means were released."""
    explained: float | None = None
    """(r / ceiling)², the share of explainable variance; 0 where r is below 0."""
    recorded_mean_hz: float | None = None
    recorded_p99_hz: float | None = None
    recorded_max_hz: float | None = None
    """Of the image that drove the site most: a maximum over noisy means, so above the rate a repetition would give."""
    mean_hz: float
    """Modelled, over the recording's images: their recorded mean."""
    sd_hz: float
    """Modelled, over images: the recorded s.d. without the variance of the means that is noise."""
    best_hz: float
    """Modelled rate of the best image of the recording: what an evolved image has to beat."""
    p99_hz: float
    baseline_hz: float
    """The site never falls below: the 5th percentile of its recorded rates, or the lowest of them where the mean is hardly
    above that; or the spontaneous rate of an area."""
    spontaneous_hz: float
    """Modelled rate of a uniform mid-grey screen."""
    exponent: float
    ceiling_hz: float | None
    """No image takes the site above; None without saturation."""
    rf_x_deg: float | None
    """Centre of the receptive field from that of the image, to the right; rf_y_deg upwards; rf_deg its diameter: two s.d. of
    the readout's weights to each side, or of a unit's gradients over photographs. None where these are the same everywhere."""
    rf_y_deg: float | None
    rf_deg: float | None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                object.__setattr__(self, field.name, round(value, 3))


class FittedNeuron(SimulatedNeuron):
    """Sites fitted to a recording: features of a pretrained network, a readout and a response each, spikes/s.

    `cards[site]` says where a site was recorded and how well it is modelled.
    """

    family = ""
    """Shipped files are FOLDER/family.safetensors and FOLDER/family-variant.safetensors."""
    variants: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        network: str,
        layer: int,
        size: int,
        weight: torch.Tensor,
        bias: torch.Tensor,
        response: Response,
        cards: tuple[SiteCard, ...],
        name: str,
        field_deg: float = 8.0,
        device: str = "cpu",
    ) -> None:
        """The formula's numbers: weight (sites, channels, grid, grid), bias (sites,), response (sites,) each."""
        self.sites, self.name, self.cards, self.field_deg = len(cards), name, cards, float(field_deg)
        self.network, self.layer, self.size, self.device = network, layer, size, device
        # The readout stays on the CPU: some accelerators have no float64, and it is a hundredth of the work.
        self.weight, self.bias, self.response = weight.double(), bias.double(), response

    @property
    def networks(self) -> tuple[str, ...]:
        return (self.network,)

    @property
    def grid(self) -> int:
        return int(self.weight.shape[-1])

    def drive(self, images: Images) -> Rates:
        """(n, sites) of (n, 3, s, s) uint8 images: what the readout makes of the features."""
        check_images(images)
        network, readout = networks.load(self.network, (self.layer,), self.size, self.device), self.weight.flatten(1).T
        drives = [torch.empty((0, self.sites), dtype=torch.float64)]
        for part in torch.split(images, CHUNK) if len(images) else ():
            with torch.inference_mode():
                (maps,) = network(part.to(self.device))
                seen = functional.adaptive_avg_pool2d(maps, self.grid).flatten(1)
            drives.append(seen.cpu().double() @ readout + self.bias)
        return np.asarray(torch.cat(drives))

    def expected_rate(self, images: Images) -> Rates:
        return self.response(self.drive(images))

    def natural(self) -> tuple[Rates, Rates]:
        return np.array([card.mean_hz for card in self.cards]), np.array([card.sd_hz for card in self.cards])

    def select(self, sites: Sequence[int]) -> FittedNeuron:
        """The neuron of these sites, in this order."""
        keep = list(sites)
        numbers = {name: getattr(self.response, name)[keep] for name in Response.__dataclass_fields__}
        return FittedNeuron(
            network=self.network,
            layer=self.layer,
            size=self.size,
            weight=self.weight[keep],
            bias=self.bias[keep],
            response=Response(**numbers),
            cards=tuple(self.cards[site] for site in keep),
            name=self.name,
            field_deg=self.field_deg,
            device=self.device,
        )

    @classmethod
    def join(cls, parts: Sequence[FittedNeuron], name: str) -> FittedNeuron:
        """One neuron of all sites of several that read the same layer.

        Raises:
            NeuroGymError: they read different ones.
        """
        first = parts[0]
        where = {(part.network, part.layer, part.size, part.field_deg) for part in parts}
        if len(where) > 1:
            raise NeuroGymError(f"join: expected neurons that read one layer, got {sorted(where)}")
        numbers = {
            key: np.concatenate([getattr(part.response, key) for part in parts]) for key in Response.__dataclass_fields__
        }
        return FittedNeuron(
            network=first.network,
            layer=first.layer,
            size=first.size,
            weight=torch.cat([part.weight for part in parts]),
            bias=torch.cat([part.bias for part in parts]),
            response=Response(**numbers),
            cards=tuple(card for part in parts for card in part.cards),
            name=name,
            field_deg=first.field_deg,
            device=first.device,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers that make the rates but the network's."""
        return weights.digest(self._tensors())

    def save(self, path: Path, about: Mapping[str, Any]) -> str:
        """Write the neuron with what there is to know `about` it, whole or not at all; returns the digest of its tensors."""
        where = {"network": self.network, "layer": self.layer, "size": self.size, "field_deg": self.field_deg}
        where["network_digest"] = networks.load(self.network, (self.layer,), self.size, self.device).digest
        card = {**about, **where, "sites": [asdict(card) for card in self.cards]}
        return weights.save(path, self._tensors(), kind=KIND, card=card)

    def _tensors(self) -> dict[str, torch.Tensor]:
        response = {name: torch.from_numpy(getattr(self.response, name)) for name in Response.__dataclass_fields__}
        # A file holds finite numbers only: no saturation is a ceiling of infinity, whose inverse is 0.
        response["saturation"] = 1.0 / response.pop("ceiling")
        return {"weight": self.weight.float(), "bias": self.bias, **response}

    @classmethod
    def load(cls, path: Path | str | None = None, *, variant: str | None = None, device: str = "cpu") -> Self:
        """The sites in `path`, a file that `neurogym-v fit` wrote; None is the one that ships.

        Raises:
            WeightsError: the file is missing, damaged, of another kind, or not what a fitted neuron needs; or the network it
                reads cannot be loaded, has other weights than that it was fitted on, or is MODULE:CALLABLE and not among
                those that the environment variable `networks.TRUSTED` lists.
        """
        path = FOLDER / f"{'-'.join(filter(None, (cls.family, variant)))}.safetensors" if path is None else Path(path)
        if variant is None and path.parent == FOLDER and path.stem == cls.family and not path.is_file():
            names = ", ".join(f"{cls.family}:{one}" for one in cls.variants)
            raise WeightsError(f"neuron {cls.family}: expected one of its variants: {names}")
        tensors, card = weights.load(path, kind=KIND)
        cards = cards_of(path, card)
        where: dict[str, Any] = {key: card[key] for key in WHERE}
        network, layer, size, field_deg = where.values()
        _check_trust(path, network)
        try:
            trunk = networks.load(network, (layer,), size, device)
        except NeuroGymError as error:
            raise WeightsError(f"weights file {path}: {error}") from error
        if trunk.digest != card.get("network_digest"):
            expected = str(card.get("network_digest"))[:12]
            raise WeightsError(
                f"weights file {path}: expected network {network} of digest {expected}, found {trunk.digest[:12]}"
            )
        sites, grid = len(cards), int(tensors["weight"].shape[-1]) if "weight" in tensors else 0
        numbers = ("bias", "baseline", "gain", "threshold", "exponent", "saturation")
        shapes = {"weight": (sites, trunk.channels[0], grid, grid)} | dict.fromkeys(numbers, (sites,))
        weights.check(path, tensors, shapes)
        lowest = {"baseline": 0.0, "gain": 0.0, "exponent": 1.0, "saturation": 0.0}
        for name, least in lowest.items():
            if (found := float(tensors[name].min())) < least:
                raise WeightsError(f"weights file {path}: {name}: expected {least:g} or more, found {found:g}")
        tensors["ceiling"] = 1.0 / tensors.pop("saturation")
        return cls(
            network=network,
            layer=layer,
            size=size,
            weight=tensors["weight"],
            bias=tensors["bias"],
            response=Response(**{name: tensors[name].double().numpy() for name in Response.__dataclass_fields__}),
            cards=cards,
            name=path.stem.replace("-", ":", 1) if path.parent == FOLDER else path.stem,
            field_deg=field_deg,
            device=device,
        )


WHERE: dict[str, type | tuple[type, ...]] = {"network": str, "layer": int, "size": int, "field_deg": (int, float)}
"""What the card of a file has to say, besides its sites."""


def _check_trust(path: Path, network: str) -> None:
    """Raise WeightsError for a network that is anyone's code, unless the user says that it may run: files are passed on."""
    trusted = [name.strip() for name in os.environ.get(networks.TRUSTED, "").split(",") if name.strip()]
    if networks.runs_code(network) and network not in trusted:
        raise WeightsError(
            f"weights file {path}: expected a network that runs no code of others, found {network!r}; "
            f"if you trust it, set {networks.TRUSTED}={','.join([*trusted, network])!r}"
        )


def cards_of(path: Path, card: Mapping[str, Any]) -> tuple[SiteCard, ...]:
    """The sites of a file, by its card.

    Raises:
        WeightsError: the card is not that of a fitted neuron.
    """
    wrong = [name for name, kind in WHERE.items() if not isinstance(card.get(name), kind)]
    records = card.get("sites")
    if wrong or not isinstance(records, list) or not records or card["size"] < 1 or not 0 < card["field_deg"] < np.inf:
        raise WeightsError(f"weights file {path}: expected a card with {', '.join(WHERE)} and sites, found {sorted(card)}")
    try:
        return tuple(SiteCard(**record) for record in records)
    except TypeError as error:
        raise WeightsError(f"weights file {path}: expected one full card a site, found another ({error})") from None


class V4(FittedNeuron):
    """Sites of macaque V4, recorded by Cowley, Stan, Pillow & Smith (2023) and read from EfficientNet-Lite0.

    Its variants are the same cells in the same order, read from other networks: site k of `v4` and of `v4:vgg16` are a
    transfer pair.
    """

    family = "v4"
    variants = ("vgg16", "lite2")


class Units(FittedNeuron):
    """Channels of pretrained networks in the middle of the picture, at several depths, with the rates of an area."""

    family = "units"
    variants = (
        "lite0-block4",
        "lite0-block7",
        "lite0-block10",
        "lite0-block14",
        "vgg16-conv3_3",
        "vgg16-conv4_3",
        "vgg16-conv5_3",
    )
