"""Sessions in lockstep: what several of them show goes through one call of the generator and one of the network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch

from neurogym_v import generators
from neurogym_v.neurons.simulated import Neuron, SimulatedNeuron
from neurogym_v.session import Session, Showing
from neurogym_v.types import Images, NeuroGymError, Rates

Key = TypeVar("Key", bound=Hashable)


def answers(sessions: Mapping[Key, Session], asked: Mapping[Key, Showing]) -> dict[Key, Rates]:
    """What the neurons of sessions answer to a block each: (m, sites) rates, as if each session were alone.

    Sessions whose neurons are made of the same one, behind whatever effects, share its network; the rest takes a call more.

    Raises:
        NeuroGymError: a session with a neuron that is not simulated. Whatever is raised, some neurons may have answered.
    """
    images = _drawn(sessions, asked)
    neurons = {key: simulated(sessions[key].neuron) for key in asked}
    rngs = {key: sessions[key].rng(block.kind) for key, block in asked.items()}
    seen = {key: neurons[key].see(images[key], block.order, rngs[key]) for key, block in asked.items()}
    found: dict[Key, Rates] = {}
    for keys in _alike(asked, lambda key: (id(neurons[key].source.made_of), seen[key][0].shape[1:])):
        expected = neurons[keys[0]].source.expected_rate(torch.cat([seen[key][0] for key in keys]))
        ends = np.cumsum([len(seen[key][0]) for key in keys])
        for key, part in zip(keys, np.split(expected, ends[:-1]), strict=True):
            found[key] = neurons[key].respond(part[seen[key][1]], images[key], asked[key].order, rngs[key])
    return found


def simulated(neuron: Neuron) -> SimulatedNeuron:
    """The neuron, if it can be in lockstep with others.

    Raises:
        NeuroGymError: it is live.
    """
    if not isinstance(neuron, SimulatedNeuron):
        raise NeuroGymError("lockstep: expected sessions that share one simulated neuron; a live one is one session")
    return neuron


def _drawn(sessions: Mapping[Key, Session], asked: Mapping[Key, Showing]) -> dict[Key, Images]:
    """The images of all blocks, on one device; those of latents are drawn together."""
    latents = {key: block.pictures for key, block in asked.items() if isinstance(block.pictures, np.ndarray)}
    drawn: dict[Key, Images] = {}
    for keys in _alike(latents, lambda key: id(sessions[key].generator)):
        images = generators.draw(sessions[keys[0]].generator, np.concatenate([latents[key] for key in keys]))
        drawn |= zip(keys, torch.split(images, [len(latents[key]) for key in keys]), strict=True)
    device = next(iter(drawn.values())).device if drawn else "cpu"
    given = {key: block.pictures for key, block in asked.items() if isinstance(block.pictures, torch.Tensor)}
    return drawn | {key: images.to(device) for key, images in given.items()}


def _alike(keys: Mapping[Key, object], thing: Callable[[Key], Hashable]) -> list[list[Key]]:
    """The keys in groups that share a thing, in their order."""
    groups: dict[Hashable, list[Key]] = {}
    for key in keys:
        groups.setdefault(thing(key), []).append(key)
    return list(groups.values())
