"""What our code adds between two rounds of a live session, and whether its memory stays flat.

The clock starts when the display says that the last response window of a round is over, and stops when the first fixation of
the next round is asked for: the stream's own delay, counting, log and journal lie between, an agent's thinking does not (the
images are ready). From a virtual rig in another process, over loopback.

    python -m neurogym_v.benchmarks.rigs_latency --transport intan lsl --rounds 100
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neurogym_v.benchmarks.rigs import BATCH, STREAMS, served
from neurogym_v.journal import Journal
from neurogym_v.registry import load_generator
from neurogym_v.rigs import Fixation, Presenter, Reports
from neurogym_v.rigs.build import load
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.session import Session


class Timed:
    """A presenter whose word and whose work are timed."""

    def __init__(self, presenter: Presenter) -> None:
        self._presenter, self.over_at, self.waits = presenter, 0.0, list[float]()

    def __getattr__(self, name: str) -> object:
        return getattr(self._presenter, name)

    def show(self, fixation: Fixation) -> None:
        self.waits.append(time.perf_counter() - self.over_at)
        self._presenter.show(fixation)

    def reports(self, timeout_s: float) -> Reports:
        reports = self._presenter.reports(timeout_s)
        if reports.over:
            self.over_at = time.perf_counter()
        return reports


def measure(transport: str, rounds: int, pace: float, folder: Path) -> tuple[np.ndarray, list[int]]:
    """(rounds - 1,) seconds between rounds, and the memory in KiB after each tenth of them."""
    torch.set_num_threads(1)
    generator, waits, memory = load_generator("natural64", device="cpu"), [], []
    with served(transport, "", pace=pace, folder=folder) as rig_file, Journal(folder / "journal.sqlite", config={}) as journal:
        neuron = load(rig_file)
        neuron.keep(folder)
        assert isinstance(neuron.rig, EventRig)
        neuron.rig.presenter = timed = Timed(neuron.rig.presenter)  # type: ignore[assignment]
        session = Session(generator, neuron, seed=0, journal=journal)
        rng = np.random.default_rng(0)
        for number in track(range(rounds), transport):
            began = time.perf_counter()
            images = session.draw(rng.standard_normal((BATCH, generator.latent_dim), dtype=np.float32))
            drawing, at = time.perf_counter() - began, len(timed.waits)
            session.show_images(images, [str(i) for i in range(BATCH)], np.arange(BATCH), kind="search")
            if number:
                waits.append(timed.waits[at] - drawing)
            if number % max(1, rounds // 10) == 0:
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        neuron.close()
    return np.array(waits), memory


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--transport", nargs="+", choices=STREAMS, default=STREAMS)
    parser.add_argument("--rounds", type=int, default=100, help=f"of {BATCH} images [%(default)s]")
    parser.add_argument("--pace", type=float, default=20.0, help="seconds of the rig's time in a second [%(default)g]")
    chosen = parser.parse_args(arguments)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("transport", "rounds", "median ms", "p99 ms", "largest ms", "MiB after a tenth", "MiB at the end"):
        table.add_column(heading, justify="left" if heading == "transport" else "right")
    for transport in chosen.transport:
        with tempfile.TemporaryDirectory() as folder:
            waits, memory = measure(transport, chosen.rounds, chosen.pace, Path(folder))
        ms = 1000 * np.array([np.median(waits), np.quantile(waits, 0.99), waits.max()])
        numbers = (*(f"{m:.1f}" for m in ms), f"{memory[min(1, len(memory) - 1)] / 1024:.0f}", f"{memory[-1] / 1024:.0f}")
        table.add_row(transport, str(len(waits) + 1), *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
