"""Noise by name: `modulated:0.15+gain+lost:0.1` puts the effects of a session around a neuron.

Effects are joined with `+`. Each is a name of `registry.EFFECTS`, alone, with its main number (`gain:0.2`), or with any
numbers (`gain:sd=0.2,tau_s=300`). They always stand in the order in which they happen, whatever the order they are written
in. A name of `PRESETS` stands for several; `none` for nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from neurogym_v.naming import nearest
from neurogym_v.neurons.simulated import Neuron, SimulatedNeuron
from neurogym_v.neurons.view import Viewed
from neurogym_v.registry import EFFECTS, LIVE, load_live, load_neuron, resolve
from neurogym_v.types import NeuroGymError

PRESETS = {
    "none": "",
    "v1": "modulated:0.07",
    "v4": "modulated:0.15",
    "it": "modulated:0.2",
    "session": "gaze+adaptation+carry_over+drift+gain+modulated:0.15+lost:0.1",
}
"""Sessions that have a name. Gains vary more along the visual pathway (Goris et al. 2014); `session` is one in V4."""


def neuron_by_name(
    name: str,
    *,
    noise: str = "poisson",
    image_deg: float | None = None,
    position_deg: tuple[float, float] = (0.0, 0.0),
    device: str = "auto",
) -> Neuron:
    """A simulated neuron as a session meets it (see `simulate`), or the live one of `live:rig.toml`.

    Raises:
        NeuroGymError: what `simulate` raises; a rig file that describes no rig; an image's size or place for a live neuron,
            which its display decides.
    """
    if not name.startswith(LIVE):
        return simulate(name, noise=noise, image_deg=image_deg, position_deg=position_deg, device=device)
    if image_deg is not None or any(position_deg):
        raise NeuroGymError(f"{name}: expected size and position of images where its display is set up, got them for the run")
    return load_live(name)


def simulate(
    name: str,
    *,
    noise: str = "poisson",
    image_deg: float | None = None,
    position_deg: tuple[float, float] = (0.0, 0.0),
    device: str = "auto",
) -> SimulatedNeuron:
    """A neuron by name or file, as a session meets it: images of a size at a place on its screen, effects around it.

    Args:
        image_deg: degrees of visual angle that an image spans; None: the neuron's whole field.
        position_deg: of the image's centre from the field's, to the right and upwards.

    Raises:
        NeuroGymError: no such neuron or effect, or an image that lies outside the field.
    """
    neuron = load_neuron(name, device=device)
    if image_deg is None and not any(position_deg):
        return with_noise(neuron, noise)
    size, (x, y) = neuron.field_deg if image_deg is None else image_deg, position_deg
    return with_noise(neuron, noise, partial(Viewed, size_deg=size, x_deg=x, y_deg=y))


def with_noise(
    neuron: SimulatedNeuron, text: str, view: Callable[[SimulatedNeuron], SimulatedNeuron] | None = None
) -> SimulatedNeuron:
    """The neuron behind the effects that `text` names.

    Args:
        view: puts a neuron behind where its images stand; it comes after what belongs to the electrode (the effects that
            change what is expected: `expects`), so that this does not depend on the images' size, and before the session's.

    Raises:
        NeuroGymError: no such effect or number, a number out of its range, two effects that both make spike counts.
    """
    chosen = parse(text)
    effects = {name: resolve("noise", name, EFFECTS) for name in EFFECTS if name in chosen}
    counting = [name for name in chosen if getattr(effects[name], "counts", False)]
    if len(counting) > 1:
        raise NeuroGymError(f"noise {text!r}: expected one effect that makes spike counts, got {' and '.join(counting)}")
    electrode = [name for name in effects if getattr(effects[name], "expects", False)]
    for name in electrode:
        neuron = effects[name](neuron, **chosen[name])
    neuron = view(neuron) if view else neuron
    for name in (name for name in effects if name not in electrode):
        neuron = effects[name](neuron, **chosen[name])
    return neuron


def parse(text: str) -> dict[str, dict[str, float]]:
    """Effect -> its numbers, of a text such as `poisson+lost:0.1`."""
    chosen: dict[str, dict[str, float]] = {}
    for part in (part for written in text.split("+") for part in _stands_for(text, written)):
        name, colon, values = part.partition(":")
        if name not in EFFECTS:
            raise nearest("noise", name, (*PRESETS, *EFFECTS))
        if name in chosen:
            raise NeuroGymError(f"noise {text!r}: expected each effect once, got {name} twice")
        chosen[name] = _numbers(name, values) if colon else {}
    return chosen


def parameters(name: str) -> dict[str, Any]:
    """The numbers of an effect and their defaults; the first is its main one."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(resolve("noise", name, EFFECTS)).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def describe_noise() -> dict[str, str]:
    """Each effect with its numbers, and each preset, in one line."""
    lines = {}
    for name in EFFECTS:
        numbers = ", ".join(f"{key}={value:g}" for key, value in parameters(name).items())
        lines[name] = f"{(inspect.getdoc(resolve('noise', name, EFFECTS)) or '').partition(chr(10))[0]} ({numbers})"
    return lines | {name: text or "the expected rate itself" for name, text in PRESETS.items()}


def _stands_for(text: str, written: str) -> list[str]:
    """The effects, with their numbers, behind one part of a text: those of a preset, or itself."""
    name, colon, _ = written.partition(":")
    if not written:
        raise NeuroGymError(f"noise {text!r}: expected effects joined with '+', such as poisson+lost:0.1")
    if name not in PRESETS:
        return [written]
    if colon:
        raise NeuroGymError(f"noise {text!r}: expected no number for {name!r}, which stands for {PRESETS[name] or 'nothing'}")
    return PRESETS[name].split("+") if PRESETS[name] else []


def _numbers(name: str, values: str) -> dict[str, float]:
    known, found = parameters(name), {}
    for place, text in enumerate(values.split(",")):
        key, equals, value = text.partition("=")
        if not equals and place == 0:
            key, value = next(iter(known)), text
        try:
            number = float(value)
        except ValueError:
            raise NeuroGymError(f"noise {name}: expected {name}:NUMBER or {name}:KEY=NUMBER,..., got {name}:{values}") from None
        if key not in known:
            raise nearest(f"number of noise {name}", key, tuple(known))
        if key in found:
            raise NeuroGymError(f"noise {name}: expected each number once, got {key} twice")
        if isinstance(known[key], int) and not number.is_integer():
            raise NeuroGymError(f"noise {name}: expected a whole number as {key}, got {value}")
        found[key] = int(number) if isinstance(known[key], int) else number
    return found
