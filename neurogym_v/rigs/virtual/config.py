"""What a virtual rig is, whatever it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from neurogym_v.naming import nearest
from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.registry import SOURCES
from neurogym_v.rigs.virtual.mischief import ANSWERS, FAULTS
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError

FOLDER = "folder"
"""The transport of files."""
HANDOFF = Path("handoff")
"""Where they are exchanged, if nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualConfig:
    """What a virtual rig is."""

    transport: str = "intan"
    """Of registry.SOURCES, or `folder`."""
    sites: tuple[int, ...] = ()
    """Of the neuron, that are recorded; empty: all."""
    channels: tuple[str, ...] = ()
    """Their names; empty: A-000, A-001, ..."""
    window: Window = field(default_factory=Window)
    sample_rate: int = 20000
    """Hz"""
    pace: float = 1.0
    """Seconds of the rig's time in a second: a rehearsal may run faster than an animal."""
    fault: str = ""
    every: int = 100
    """Messages from one misdeed to the next."""
    after: int = 50
    """Messages before the first misdeed, from the first image on; or images, for what is no fault of messages."""
    seed: int = 0
    display_port: int = 0
    """0: a free one."""
    folder: Path = HANDOFF
    """With the transport `folder`, that one."""
    log: Path | None = None
    """For what a reader ought to find, one line of JSON a presentation."""

    def __post_init__(self) -> None:
        if self.transport not in (*SOURCES, FOLDER):
            raise nearest("transport", self.transport, (*SOURCES, FOLDER))
        for key, least in (("every", 1), ("after", 0)):
            if getattr(self, key) < least:
                raise NeuroGymError(f"{key}: expected {least} or more, got {getattr(self, key)}")
        faults = ANSWERS if self.transport == FOLDER else FAULTS
        if self.fault and self.fault not in faults:
            raise nearest("fault of a folder" if self.transport == FOLDER else "fault of a rig", self.fault, faults)

    def recorded(self, neuron: SimulatedNeuron) -> tuple[list[int], tuple[str, ...]]:
        """Which sites of a neuron are recorded, and the names of their channels.

        Raises:
            NeuroGymError: sites that it does not have, or another number of names.
        """
        sites = self.sites or tuple(range(neuron.sites))
        if not set(sites) <= set(range(neuron.sites)) or len(set(sites)) < len(sites):
            raise NeuroGymError(f"sites: expected some of 0 to {neuron.sites - 1}, each once, got {', '.join(map(str, sites))}")
        channels = self.channels or tuple(f"A-{site:03d}" for site in sites)
        if len(channels) != len(sites):
            raise NeuroGymError(f"channels: expected {len(sites)} names, one a site, got {len(channels)}")
        return list(sites), channels


def toml(value: object) -> str:
    """A value as a TOML file has it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list() | tuple():
            return "[" + ", ".join(toml(item) for item in value) + "]"
    return str(value)
