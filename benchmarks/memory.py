"""What keeping freed memory saves: `python -m neurogym_v.benchmarks.memory`.

The same batches are drawn and shown to a network in processes of their own, in turns with and without
`neurogym_v.memory.keep_freed`. Ratios are of processor time, paired by turn. The images and rates must be the same.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neurogym_v.benchmarks.speed_agents import BATCH
from neurogym_v.generators import draw
from neurogym_v.memory import keep_freed
from neurogym_v.registry import load_generator, load_neuron
from neurogym_v.types import NeuroGymError


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Of one process."""

    seconds: float
    """Of the processor, a batch."""
    faults: float
    """Pages asked of the system, a batch."""
    peak_mib: float
    shown: str
    """Digest of the images and rates."""


def spent(neuron: str, generator: str, rounds: int, threads: int, kept: bool) -> Spent:
    """In a process of its own.

    Raises:
        NeuroGymError: memory cannot be kept here, or a name that is none.
    """
    if kept and not keep_freed():
        raise NeuroGymError("expected glibc, whose memory can be kept, found another C library")
    torch.set_num_threads(threads)
    drawn, cell = load_generator(generator, device="cpu"), load_neuron(neuron, device="cpu")
    latents = np.random.default_rng(0).standard_normal((rounds + 1, BATCH, drawn.latent_dim), dtype=np.float32)
    digest = hashlib.sha256()

    def show(batch: np.ndarray) -> None:
        images = draw(drawn, batch)
        for part in (images, torch.as_tensor(cell.expected_rate(images))):
            digest.update(part.cpu().numpy().tobytes())

    show(latents[0])
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF)
    for batch in latents[1:]:
        show(batch)
    took, after = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF)
    faults = (after.ru_minflt - before.ru_minflt) / rounds
    return Spent(seconds=took / rounds, faults=faults, peak_mib=after.ru_maxrss / 1024, shown=digest.hexdigest())


def measure(neuron: str, generator: str, *, rounds: int, turns: int, threads: int) -> dict[bool, list[Spent]]:
    """Kept or not -> a process a turn."""
    found: dict[bool, list[Spent]] = {False: [], True: []}
    for turn in track(range(turns), "turns"):
        for kept in (False, True) if turn % 2 else (True, False):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found[kept].append(process.submit(spent, neuron, generator, rounds, threads, kept).result())
    return found


def report(found: dict[bool, list[Spent]]) -> Table:
    table = Table(title=f"batches of {BATCH}, medians of {len(found[True])} processes", box=None)
    for heading in ("freed memory", "ms a batch", "times as fast [all turns]", "pages a batch", "peak MiB"):
        table.add_column(heading, justify="left" if heading == "freed memory" else "right")
    base = np.array([one.seconds for one in found[False]])
    for kept, every in found.items():
        ratios = base / np.array([one.seconds for one in every])
        table.add_row(
            "kept" if kept else "given back",
            f"{1000 * np.median([one.seconds for one in every]):.1f}",
            f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]",
            f"{np.median([one.faults for one in every]):.0f}",
            f"{np.median([one.peak_mib for one in every]):.0f}",
        )
    same = len({one.shown for every in found.values() for one in every}) == 1
    table.caption = f"images and rates are {'the same' if same else 'NOT the same'}"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.benchmarks.memory", description=__doc__)
    parser.add_argument("--neuron", default="v4", help="[%(default)s]")
    parser.add_argument("--generator", default="natural64", help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="batches of each process [%(default)s]")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="[%(default)s]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="as in the workers of a bench [%(default)s]")
    chosen = parser.parse_args()
    if min(chosen.rounds, chosen.turns, chosen.threads) < 1:
        parser.error("--rounds, --turns, --threads: expected 1 or more")
    try:
        how = {"rounds": chosen.rounds, "turns": chosen.turns, "threads": chosen.threads}
        found = measure(chosen.neuron, chosen.generator, **how)
    except NeuroGymError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    Console(width=100).print(report(found))


if __name__ == "__main__":
    main()
