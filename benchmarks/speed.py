"""How fast the loop is, and the agents in it: `python -m neurogym_v.benchmarks.speed`.

The loop is measured beside the bare networks in one process, in turns, so that the ratios hold on a busy machine; what agents
think, and the memory they take, beside other libraries.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from neurogym_v.benchmarks.speed_agents import BATCH as BATCH
from neurogym_v.benchmarks.speed_agents import agent_speed
from neurogym_v.env import NeuronEnv
from neurogym_v.generators import quantise
from neurogym_v.journal import Journal
from neurogym_v.noise import with_noise
from neurogym_v.registry import load_generator, load_neuron


def loop_speed(console: Console, *, neuron: str, generator: str, device: str, rounds: int) -> None:
    """Images/s of env.step, with and without a journal, beside the bare networks on the same batches."""
    drawn, cell = load_generator(generator, device=device), with_noise(load_neuron(neuron, device=device), "poisson")
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((BATCH, drawn.latent_dim), dtype=np.float32) for _ in range(rounds)]
    target = next(drawn.parameters()).device  # type: ignore[attr-defined]

    def bare_generator(latents: Any) -> torch.Tensor:
        with torch.inference_mode():
            images = quantise(drawn(torch.from_numpy(latents).to(target)))
            if target.type == "cuda":
                torch.cuda.synchronize()
            return images

    def bare(latents: Any) -> None:
        cell.source.expected_rate(bare_generator(latents))

    with TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite", config={}) as journal:
        settings: dict[str, Any] = {"neuron": cell, "generator": drawn, "budget": 10**9, "batch_size": BATCH}
        plain, journaled = NeuronEnv(**settings), NeuronEnv(**settings, journal=journal)
        plain.reset(seed=0), journaled.reset(seed=0)
        shown = {"bare generator": bare_generator, "bare generator + network": bare, "env.step": plain.step}
        shown["env.step, journaled"] = journaled.step
        seconds = in_turns({name: [partial(call, z) for z in batches] for name, call in shown.items()})
    base = seconds["bare generator + network"]
    table = Table(title=f"{neuron} + {generator} on {target}: batches of {BATCH}, median of {rounds}", box=None)
    for heading in ("", "images/s", "ratio to bare (median of pairs)"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, times in seconds.items():
        table.add_row(name, f"{BATCH / np.median(times):.0f}", f"{np.median(base / times):.3f}")
    console.print(table)


def in_turns(calls: dict[str, list[Callable[[], object]]]) -> dict[str, np.ndarray[Any, Any]]:
    """Seconds of every call, the names taking turns; the first turn warms up and is run twice."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name in calls:
        calls[name][0]()
    for i in range(len(next(iter(calls.values())))):
        for name in calls:
            began = time.perf_counter()
            calls[name][i]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.benchmarks.speed", description=__doc__)
    parser.add_argument("--neuron", default="v4")
    parser.add_argument("--generator", default="natural64")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=30, help="batches of 40 for each way through the loop; 0: none [30]")
    parser.add_argument("--only-agents", action="store_const", const=0, dest="rounds", help="leave the loop out: --rounds 0")
    parser.add_argument("--dims", type=int, nargs="*", default=[256, 1024, 4096], help="latent sizes of the agents")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each agent and size [5]")
    chosen = parser.parse_args()
    console = Console()
    if chosen.rounds:
        loop_speed(console, neuron=chosen.neuron, generator=chosen.generator, device=chosen.device, rounds=chosen.rounds)
    agent_speed(console, sizes=chosen.dims, seconds=chosen.seconds)


if __name__ == "__main__":
    main()
