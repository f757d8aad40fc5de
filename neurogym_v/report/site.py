"""What is known of the site that a run searched: its line in the cast, or the card of the weights file that it is from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from neurogym_v import cast, weights
from neurogym_v.experiment import RunConfig
from neurogym_v.neurons.fitted import SiteCard, cards_of
from neurogym_v.registry import LIVE
from neurogym_v.types import NeuroGymError

NUMBERS = {
    "r": ("r of the model, cross-validated", "", 2),
    "ceiling": ("r of a perfect model", "", 2),
    "explained": ("explainable variance explained", "", 2),
    "mean_hz": ("mean over the recording's images", "spikes/s", 1),
    "best_hz": ("best of the recording's images, modelled", "spikes/s", 1),
    "spontaneous_hz": ("grey screen, modelled", "spikes/s", 1),
    "ceiling_hz": ("no image takes it above", "spikes/s", 1),
    "exponent": ("exponent of the response", "", 1),
    "rf_deg": ("diameter of the receptive field", "deg", 1),
}
"""Field of the card -> what it is called, its unit, its decimals."""


def site_facts(config: RunConfig) -> dict[str, str]:
    """Name -> value; one line that says so where nothing is known."""
    if config.neuron.startswith(LIVE):
        return {"site": f"site {config.site} of a live neuron", "rig file": Path(config.neuron.removeprefix(LIVE)).name}
    try:
        for member in cast.members():
            if (member.neuron, member.site) == (config.neuron, config.site):
                known = {"site": f"{member.name} of the cast, version {cast.VERSION}"}
                if member.card is None:
                    return known | {"kind": "computed; its best image is known"}
                twins = {"the same cell in": ", ".join(member.twins)} if member.twins else {}
                return known | _card(member.card, recorded=member.kind == "V4") | twins
        for base, twin in ((m, t) for m in cast.members() for t in m.twins):
            if (twin, base.site) == (config.neuron, config.site) and base.card is not None:
                return {"site": f"the cell of {base.name}, read from another network"} | _origin(base.card, recorded=True)
        path = Path(config.neuron)
        if path.is_file():
            return {"file": path.name} | _card(cards_of(path, weights.card_of(path))[config.site], recorded=True)
    except (NeuroGymError, IndexError, OSError) as error:
        return {"site": f"its card cannot be read: {error}"}
    return {"site": f"{config.neuron}, site {config.site}: there is no card of it here"}


def _card(card: SiteCard, *, recorded: bool) -> dict[str, str]:
    found = _origin(card, recorded=recorded)
    known = {field.name for field in fields(SiteCard)}
    for name, (said, unit, decimals) in NUMBERS.items():
        value = getattr(card, name) if name in known else None
        if value is not None:
            found[said] = f"{value:,.{decimals}f} {unit}".strip()
    return found


def _origin(card: SiteCard, *, recorded: bool) -> dict[str, str]:
    if not recorded:
        return {"unit": card.neuron, "calibrated on": card.session}
    repeats = f", {card.repeats:g} presentations each (median)" if card.repeats else ""
    whose = f"animal {card.animal}, " if card.animal not in ("", "none") else ""
    return {
        "recorded from": f"{whose}session {card.session}, neuron {card.neuron}",
        "fitted to": f"{card.images:,} images{repeats}",
    }
