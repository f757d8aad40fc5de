"""What each nuisance of a session costs beside the network: `python -m neurogym_v.benchmarks.nuisances`.

A batch of 40 images is presented behind each effect and behind all of them at once, in turns with the bare neuron. An
effect takes less than the network's own time varies on a busy machine, so each is also timed where the network's answer is
already there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from neurogym_v.benchmarks.speed import in_turns
from neurogym_v.benchmarks.speed_agents import BATCH
from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.noise import with_noise
from neurogym_v.references import load_references
from neurogym_v.registry import EFFECTS, load_neuron, resolve
from neurogym_v.types import Images, Rates

COUNTING = "modulated"
"""Of the effects that make spike counts, which exclude each other, the dearest: it stands for them where all are measured."""


class Known(SimulatedNeuron):
    """As many sites, whose rates are there without a network."""

    name = "known"

    def __init__(self, neuron: SimulatedNeuron) -> None:
        self.sites, self.field_deg, self.timing = neuron.sites, neuron.field_deg, neuron.timing
        self.rates = np.random.default_rng(0).exponential(30.0, (1000, self.sites))

    def expected_rate(self, images: Images) -> Rates:
        return self.rates[: len(images)]


def combinations() -> dict[str, str]:
    """What is measured, by its name in the table: nothing, each effect, all that go together, the preset of a session."""
    counting = [name for name in EFFECTS if getattr(resolve("noise", name, EFFECTS), "counts", False)]
    together = [name for name in EFFECTS if name == COUNTING or name not in counting]
    return {"none": "none"} | {name: name for name in EFFECTS} | {"all together": "+".join(together), "session": "session"}


def presenting(neuron: SimulatedNeuron, noise: str) -> Callable[[torch.Tensor], object]:
    """Images (n, 3, s, s) -> their rates in one session behind this noise."""
    rng = np.random.default_rng(0)
    session = with_noise(neuron, noise).begin(rng)
    return lambda images: session.present(images, np.arange(len(images)), rng)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.benchmarks.nuisances", description=__doc__)
    parser.add_argument("--neuron", default="v4")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=64, help="pixels a side of the images [64]")
    parser.add_argument("--rounds", type=int, default=40, help="batches of 40 for each combination [40]")
    chosen = parser.parse_args()
    neuron = load_neuron(chosen.neuron, device=chosen.device)
    images = load_references(size=chosen.size).images.to(getattr(neuron, "device", "cpu"))
    pick = np.random.default_rng(0)
    batches = [images[pick.choice(len(images), BATCH, replace=False)] for _ in range(chosen.rounds)]
    known = Known(neuron)
    shown: dict[str, Callable[[Any], object]] = {"bare network": neuron.expected_rate}
    shown |= {name: presenting(neuron, noise) for name, noise in combinations().items()}
    shown |= {f"{name}, known": presenting(known, noise) for name, noise in combinations().items()}
    seconds = in_turns({name: [partial(call, batch) for batch in batches] for name, call in shown.items()})
    bare = seconds["bare network"]
    title = f"{chosen.neuron}, {neuron.sites} sites, batches of {BATCH} at {chosen.size} px: median of {chosen.rounds}"
    table = Table(title=title, box=None)
    for heading in ("", "ms with the network", "% more than bare", "ms of its own", "% of bare"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("bare network", f"{1000 * np.median(bare):.1f}", "", "", "")
    for name in combinations():
        times, own = seconds[name], seconds[f"{name}, known"]
        more, part = 100 * np.median(times / bare - 1), 100 * np.median(own / bare)
        table.add_row(name, f"{1000 * np.median(times):.1f}", f"{more:.1f}", f"{1000 * np.median(own):.2f}", f"{part:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
