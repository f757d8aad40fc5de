"""Everything that can be named on the command line, as lazy "module:Class" strings: nothing is imported until it is used.

A new agent, generator or neuron is one file and one line here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from neurogym_v import importing, weights
from neurogym_v.agent import Agent
from neurogym_v.generators import Generator, foreign
from neurogym_v.naming import check_parameters, nearest, split
from neurogym_v.neurons.simulated import Neuron, SimulatedNeuron
from neurogym_v.projection import Projected
from neurogym_v.types import LoopSpec, NeuroGymError

AGENTS = {
    "random": "neurogym_v.agents.random:Random",
    "ga": "neurogym_v.agents.ga:GA",
    "cma_es": "neurogym_v.agents.cma_es:CMAES",
    "sphere_cma": "neurogym_v.agents.sphere_cma:SphereCMA",
    "csa_es": "neurogym_v.agents.csa_es:CSAES",
    "nes": "neurogym_v.agents.nes:NES",
    "fdgd": "neurogym_v.agents.fdgd:FDGD",
    "pycma": "neurogym_v.agents.pycma:PyCMA",
    "nevergrad": "neurogym_v.agents.nevergrad:Nevergrad",
    "sb3": "neurogym_v.agents.sb3:SB3",
    "bashivan2019": "neurogym_v.agents.bashivan2019:Bashivan2019",
    "inception_loop": "neurogym_v.agents.inception_loop:InceptionLoop",
}
PROJECTIONS = ("norm", "max_norm")
"""Parameters that any agent may be named with."""
GENERATORS = {
    "natural64": "neurogym_v.generators.natural:Natural",
    "pixel": "neurogym_v.generators.pixel:Pixel",
    "fourier": "neurogym_v.generators.fourier:Fourier",
    "components": "neurogym_v.generators.components:Components",
    "deepsim": "neurogym_v.generators.deepsim:DeePSiM",
    "biggan": "neurogym_v.generators.biggan:BigGAN",
    "dcgan": "neurogym_v.generators.dcgan:DCGAN",
}
NEURONS = {
    "v4": "neurogym_v.neurons.fitted:V4",
    "gabor": "neurogym_v.neurons.gabor:Gabor",
    "energy": "neurogym_v.neurons.energy:Energy",
    "units": "neurogym_v.neurons.fitted:Units",
}
EFFECTS = {
    "multi_unit": "neurogym_v.neurons.effects.multi_unit:MultiUnit",
    "gaze": "neurogym_v.neurons.effects.gaze:Gaze",
    "retuning": "neurogym_v.neurons.effects.retuning:Retuning",
    "adaptation": "neurogym_v.neurons.effects.adaptation:Adaptation",
    "carry_over": "neurogym_v.neurons.effects.carry_over:CarryOver",
    "drift": "neurogym_v.neurons.effects.drift:Drift",
    "gain": "neurogym_v.neurons.effects.gain:Gain",
    "dying": "neurogym_v.neurons.effects.dying:Dying",
    "gaussian": "neurogym_v.neurons.effects.gaussian:Gaussian",
    "poisson": "neurogym_v.neurons.effects.poisson:Poisson",
    "modulated": "neurogym_v.neurons.effects.modulated:Modulated",
    "lost": "neurogym_v.neurons.effects.lost:Lost",
}
"""Of a session, in the order in which they happen to a response."""
ACQUISITIONS = {
    "intan": "neurogym_v.rigs.acquisitions.intan:Intan",
    "open_ephys": "neurogym_v.rigs.acquisitions.open_ephys:OpenEphys",
    "event_broadcaster": "neurogym_v.rigs.acquisitions.event_broadcaster:EventBroadcaster",
    "lsl": "neurogym_v.rigs.acquisitions.lsl:LSL",
}
"""Recording systems; those of installed packages come with the entry-point group `neurogym_v.acquisition`."""
SOURCES = {
    "intan": "neurogym_v.rigs.virtual.intan:IntanSource",
    "open_ephys": "neurogym_v.rigs.virtual.open_ephys:OpenEphysSource",
    "event_broadcaster": "neurogym_v.rigs.virtual.open_ephys:EventBroadcasterSource",
    "lsl": "neurogym_v.rigs.virtual.lsl:LSLSource",
}
"""The same as the virtual rig plays them."""
PRESENTERS = {"remote": "neurogym_v.rigs.presenters.remote:Remote"}
DISPLAYS = {
    "pygame": "neurogym_v.rigs.displays.pygame_window:PygameWindow",
    "psychopy": "neurogym_v.rigs.displays.psychopy_window:PsychoPyWindow",
    "headless": "neurogym_v.rigs.displays.headless:Headless",
}
LIVE = "live:"
"""Before the rig file of a live neuron."""


def resolve(kind: str, name: str, known: Mapping[str, str]) -> Any:
    """The class behind a name."""
    if name not in known:
        raise nearest(kind, name, known)
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)


def describe(kind: str, known: Mapping[str, str]) -> dict[str, str]:
    """Name -> first line of the docstring."""
    return {name: (inspect.getdoc(resolve(kind, name, known)) or "").partition("\n")[0] for name in known}


def device_of(name: str) -> str:
    """`auto` is a GPU where there is one; any other name is checked."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise NeuroGymError(f"device {name!r}: expected auto, cpu or an available device, got: {reason}") from None
    return name


def load_live(name: str) -> Neuron:
    """The neuron behind the rig file of `live:rig.toml`.

    Raises:
        NeuroGymError: no such file, or one that describes no rig.
    """
    neuron: Neuron = import_module("neurogym_v.rigs.build").load(Path(name.removeprefix(LIVE)))
    return neuron


def part_class(kind: str, name: str) -> Any:
    """The class of a part of a rig (`acquisition`, `presenter` or `display`): ours, of an installed package (entry-point group
    `neurogym_v.acquisition`, and so on), or a laboratory's own, MODULE:CLASS.

    Raises:
        NeuroGymError: no such thing.
    """
    known = {"acquisition": ACQUISITIONS, "presenter": PRESENTERS, "display": DISPLAYS}[kind]
    if name in known:
        return resolve(kind, name, known)
    theirs = {entry.name: f"{entry.module}:{entry.attr}" for entry in entry_points(group=f"neurogym_v.{kind}")}
    if name in theirs:
        return importing.named(kind, theirs[name], tuple(known))
    if ":" in name:
        return importing.named(kind, name, tuple(known | theirs))
    raise nearest(kind, name, known | theirs)


@cache
def agents() -> dict[str, str]:
    """Name -> "module:Class" of every agent: ours, and those of installed packages (entry-point group `neurogym_v.agents`)."""
    found = entry_points(group="neurogym_v.agents")
    # others cannot be written on a command line, or are the journal's own
    return {
        entry.name: f"{entry.module}:{entry.attr}" for entry in found if re.fullmatch(r"(?!natural$)[\w.-]+", entry.name)
    } | AGENTS


def agent_class(name: str) -> tuple[type[Agent], dict[str, Any]]:
    """`ga:ponce2019,temperature=1` -> the class, and the parameters of its preset with those that are written.

    What is no name of ours may be MODULE:CLASS, an agent of the user's own.

    Raises:
        NeuroGymError: no such agent, preset or parameter, or a value of another type.
    """
    base, preset, written = split(name)
    if base in AGENTS or not (base in agents() or preset):
        cls = resolve("agent", base, AGENTS if base in AGENTS else agents())
    elif base in agents():
        cls = their_agent(agents()[base])
    else:
        cls, preset = their_agent(f"{base}:{preset}"), ""
    params = (cls.preset(preset) if preset else {}) | written
    _check(base, cls, params)
    return cls, params


def their_agent(name: str) -> type[Agent]:
    """The class of an agent that is not ours, MODULE:CLASS.

    Raises:
        NeuroGymError: no such module or class, or it is no agent.
    """
    cls = importing.named("agent", name, tuple(agents()))
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise importing.wrong("agent", name, "a subclass of neurogym_v.agent.Agent", type(cls).__name__)
    if missing := getattr(cls, "__abstractmethods__", None):
        raise importing.wrong(
            "agent", name, "a class with all methods of an agent", f"one without {', '.join(sorted(missing))}"
        )
    return cls


def make_agent(name: str, spec: LoopSpec, *, batch_size: int = 40, seed: int = 0, **params: Any) -> Agent:
    """An agent by NAME[:PRESET][,KEY=VALUE,...]; `params` override what is written.

    `norm=1` keeps the latents of any agent on a sphere, `max_norm=1` in a ball (see `neurogym_v.projection`).

    Raises:
        NeuroGymError: no such agent, preset or parameter, or one that is out of its range.
    """
    cls, written = agent_class(name)
    base = name.partition(",")[0]
    _check(base, cls, params)
    chosen = written | params
    held = {key: chosen.pop(key) for key in PROJECTIONS if key in chosen}
    try:
        agent = cls(spec, batch_size=batch_size, seed=seed, **chosen)
    except NeuroGymError:
        raise
    except Exception as error:  # other people's code
        if base.partition(":")[0] in AGENTS:
            raise
        raise importing.wrong("agent", base, "a class made of (spec, batch_size=, seed=, its parameters)", error) from error
    return Projected(agent, **held) if held else agent


def _check(base: str, cls: type[Agent], params: dict[str, Any]) -> None:
    check_parameters(f"agent {base}", cls, {key: value for key, value in params.items() if key not in PROJECTIONS})
    check_parameters("projection", Projected, {key: value for key, value in params.items() if key in PROJECTIONS})


def variant_of(kind: str, name: str, known: Mapping[str, str]) -> tuple[Any, str | None]:
    """`deepsim:fc6` -> the class and its variant (None: none was named)."""
    base, colon, variant = name.partition(":")
    cls = resolve(kind, base, known)
    variants = tuple(getattr(cls, "variants", ()))
    if not colon:
        return cls, None
    if getattr(cls, "any_variant", False):  # users name their own
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", variant, re.ASCII):
            raise NeuroGymError(f"{kind} {name!r}: expected letters, digits, '_', '-' and '.' after the colon")
    elif not variants:
        raise NeuroGymError(f"{kind} {base!r}: expected no variant, as it has none, got {variant!r}")
    elif variant not in variants:
        raise nearest(f"variant of {kind} {base}", variant, variants)
    return cls, variant


def load_generator(name: str, *, device: str = "auto") -> Generator:
    """A generator by NAME or NAME:VARIANT, from a weights file by its path, or made by a MODULE:CALLABLE without arguments.

    Raises:
        NeuroGymError: no such thing, weights that are missing or damaged, or a callable that makes no `Generator`.
    """
    generator: Generator = _load("generator", name, device_of(device))
    return generator


def load_neuron(name: str, *, device: str = "auto") -> SimulatedNeuron:
    """A neuron by name, from a file by its path, or made by a MODULE:CALLABLE without arguments; without noise.

    `neurogym_v.noise.with_noise` puts that around it.
    """
    neuron: SimulatedNeuron = _load("neuron", name, device_of(device))
    return neuron


@cache  # networks are stateless: sessions share them
def _load(kind: str, name: str, device: str) -> Any:
    known = {"generator": GENERATORS, "neuron": NEURONS}[kind]
    path = Path(name)
    base = name.partition(":")[0]
    if base in known:
        cls, variant = variant_of(kind, name, known)
        return cls.load(device=device) if variant is None else cls.load(variant=variant, device=device)
    if kind == "generator" and ":" in name and not path.exists() and path.suffix != ".safetensors":
        return foreign.load(name, tuple(GENERATORS), device=device)
    if kind == "neuron" and ":" in name and not path.exists() and path.suffix != ".safetensors":
        made = importing.called(kind, name, importing.named(kind, name, tuple(known)))
        if not isinstance(made, SimulatedNeuron):
            raise importing.wrong(kind, name, "a callable that makes a SimulatedNeuron", type(made).__name__)
        return made
    if path.suffix != ".safetensors" and not path.exists():
        raise nearest(kind, name, known)
    found = weights.kind_of(path)
    for cls in (resolve(kind, entry, known) for entry in known):
        if getattr(import_module(cls.__module__), "KIND", None) == found:  # what its weights files say they are
            return cls.load(path, device=device)
    hint = "; what others published is added with: neurogym-v weights add NAME FILE" if kind == "generator" else ""
    raise weights.WeightsError(f"weights file {path}: expected a {kind}, found {found!r}{hint}")
