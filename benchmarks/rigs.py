"""Whether a rig that misbehaves can make a session count wrong: all transports and faults, from a rig in another process.

Each session shows so many presentations of a search by CMA-ES through real sockets; then the session's log is compared with
the rig's own, presentation by presentation. A count that differs is *wrong*: that must never be. What is not known for sure is
lost, and shown again. A session may also stop, with one sentence, which the table gives.

    python -m neurogym_v.benchmarks.rigs --presentations 1000 --transport intan lsl --fault none drop
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from neurogym_v.files import write_json
from neurogym_v.registry import SOURCES, load_generator, make_agent
from neurogym_v.rigs import Outcome, RigError
from neurogym_v.rigs.build import load
from neurogym_v.rigs.log import FILE, LiveLog, Logged
from neurogym_v.rigs.virtual.config import FOLDER
from neurogym_v.rigs.virtual.mischief import ANSWERS, FAULTS
from neurogym_v.session import Session
from neurogym_v.types import Feedback, LoopSpec, NeuroGymError

STREAMS = (*sorted(SOURCES), "intan:threshold")
"""Transports in time; after a colon, what [acquisition] says of `detect`."""
TRANSPORTS = (*STREAMS, FOLDER)
BATCH = 40
RIG_LOG = "rig.jsonl"
RARER = {"delay": 20, "burst": 10}
"""Faults that touch many messages each time happen so many times more seldom."""
BLOCKS = 4
"""From one misdeed to the next, of those that answer a block at once: in a folder."""
READY_S = 60.0
"""For a rig's process to be there: on a busy machine its imports take a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one session."""

    transport: str
    fault: str
    presented: int
    """Presentations, those that were shown again included."""
    lost: int
    repeated: int
    wrong: int
    """Counts that are not the rig's own."""
    unknown: int
    """Presentations that the rig knows nothing of."""
    misdeeds: int
    """Messages that the rig let go wrong."""
    reasons: Mapping[str, int]
    """Why presentations were lost, numbers apart."""
    stopped: str
    """What the session said when it stopped before its end."""
    stopped_s: float
    """From the last misdeed until it stopped; NaN if it did not, or without a misdeed."""
    wall_s: float


@contextmanager
def served(transport: str, fault: str, *, pace: float, folder: Path, every: int = 97) -> Iterator[Path]:
    """A virtual rig in a process of its own, as long as the context lasts: its rig file.

    Raises:
        NeuroGymError: it did not start, or the folder has been used before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NeuroGymError(f"{folder}: expected an empty folder, as logs of two sessions would mix; found files")
    every = BLOCKS if transport == FOLDER else every * RARER.get(fault, 1)
    transport, _, detect = transport.partition(":")
    command = [sys.executable, "-m", "neurogym_v.cli", "rig", "serve", "--transport", transport, "--neuron", "gabor"]
    command += ["--sites", "0", "1", "2", "--noise", "modulated:0.15+lost:0.05", "--pace", str(pace)]
    command += [
        "--log",
        str(folder / RIG_LOG),
        "--rig-file",
        str(folder / "rig.toml"),
        "--every",
        str(every),
        "--after",
        str(every),
    ]
    command += ["--fault", fault] if fault else []
    command += ["--folder", str(folder / "handoff")]
    with (folder / "serve.log").open("w") as said:
        rig = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        _wait_for(folder / "rig.toml", rig, folder / "serve.log")
        if detect:
            rig_file = folder / "rig.toml"
            rig_file.write_text(rig_file.read_text().replace("[acquisition]\n", f'[acquisition]\ndetect = "{detect}"\n'))
        yield folder / "rig.toml"
    finally:
        rig.terminate()
        rig.wait(timeout=20)


def session(transport: str, fault: str, *, presentations: int, pace: float, folder: Path, every: int = 97) -> Verdict:
    """Run a rig in a process of its own and a session with it here, and compare their logs."""
    stopped, stopped_s = "", float("nan")
    with served(transport, fault, pace=pace, folder=folder, every=every):
        began = time.monotonic()
        try:
            _search(folder, presentations)
        except RigError as error:
            stopped, ended = str(error), time.time()
            log = (folder / RIG_LOG).read_text().splitlines() if (folder / RIG_LOG).exists() else []
            misdeeds = [json.loads(line)["at"] for line in log if '"fault"' in line]
            stopped_s = ended - misdeeds[-1] if misdeeds else stopped_s
        wall_s = time.monotonic() - began
    kept = LiveLog(folder / FILE) if (folder / FILE).exists() else None
    logged = kept.presentations() if kept else []
    if kept:
        kept.close()
    return _compared(transport, fault, logged, folder / RIG_LOG, stopped, stopped_s, wall_s)


def faults_of(transport: str) -> tuple[str, ...]:
    """What can go wrong there."""
    return ANSWERS if transport == FOLDER else FAULTS


def _search(folder: Path, presentations: int) -> None:
    """A search of CMA-ES on the rig."""
    neuron, generator = load(folder / "rig.toml"), load_generator("natural64", device="cpu")
    neuron.keep(folder)
    shown = Session(generator, neuron, seed=1)
    spec = LoopSpec(latent_dim=generator.latent_dim, bound=generator.bound, budget=presentations, generator=generator)
    agent = make_agent("cma_es", spec, batch_size=BATCH, seed=1)
    try:
        for number in range(-(-presentations // BATCH)):
            latents, rates = shown.show_latents(agent.ask(), kind="search")
            spent = shown.shown.total()
            agent.tell(
                Feedback(round=number, latents=latents, rates=rates[:, 0], spent=spent, left=max(0, presentations - spent))
            )
    finally:
        neuron.close()


def _compared(
    transport: str, fault: str, logged: Sequence[Logged], rig_log: Path, stopped: str, stopped_s: float, wall_s: float
) -> Verdict:
    lines = [json.loads(line) for line in rig_log.read_text().splitlines()] if rig_log.exists() else []
    truth = {line["number"]: line for line in lines if "number" in line}
    answered = [p for p in logged if p.outcome.rates is not None]
    wrong = [p.begun.number for p in answered if p.begun.number in truth and _differs(p.outcome, truth[p.begun.number])]
    wrong += [p.begun.number for p in answered if truth.get(p.begun.number, {}).get("broken")]
    reasons: dict[str, int] = {}
    for p in logged:
        if p.outcome.lost:
            kind = re.sub(r"-?\d[\d.]*", "N", p.outcome.lost)
            reasons[kind] = reasons.get(kind, 0) + 1
    positions = [p.begun.position for p in logged]
    return Verdict(
        transport=transport,
        fault=fault or "none",
        presented=len(logged),
        lost=sum(reasons.values()),
        repeated=len(positions) - len(set(positions)),
        wrong=len(set(wrong)),
        unknown=sum(p.begun.number not in truth for p in answered),
        misdeeds=sum("fault" in line for line in lines),
        reasons=reasons,
        stopped=stopped,
        stopped_s=stopped_s,
        wall_s=wall_s,
    )


def _differs(outcome: Outcome, truth: Mapping[str, Any]) -> bool:
    """From what the rig knows: counts, or the rates that it answered with."""
    found, true = (outcome.counts, truth["counts"]) if "counts" in truth else (outcome.rates, truth["rates"])
    return found is None or not np.array_equal(found, true)


def _wait_for(file: Path, process: subprocess.Popen[Any], log: Path) -> None:
    until = time.monotonic() + READY_S
    while not file.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise NeuroGymError(f"virtual rig: expected it to write {file}, it said: {log.read_text().strip()[-500:]}")
        time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--transport", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument(
        "--fault", nargs="+", choices=("none", *dict.fromkeys((*FAULTS, *ANSWERS))), help="[all of a transport]"
    )
    parser.add_argument("--presentations", type=int, default=1000)
    parser.add_argument("--pace", type=float, default=20.0, help="seconds of the rig's time in a second [%(default)g]")
    parser.add_argument("--every", type=int, default=97, help="messages from one misdeed to the next [%(default)s]")
    parser.add_argument("--out", type=Path, help="folder for the logs of all sessions, and verdicts.json [none is kept]")
    chosen = parser.parse_args(arguments)
    cells = [
        (transport, fault.replace("none", ""))
        for transport in chosen.transport
        for fault in chosen.fault or ("none", *faults_of(transport))
        if fault in ("none", *faults_of(transport))
    ]
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "transport",
        "fault",
        "misdeeds",
        "presented",
        "lost",
        "repeated",
        "wrong",
        "s",
        "stopped, and after how long",
    ):
        table.add_column(heading, justify="left" if heading in ("transport", "fault") or heading.startswith("st") else "right")
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as temporary:
        for transport, fault in track(cells, "sessions"):
            folder = (chosen.out or Path(temporary)) / f"{transport.replace(':', '-')}-{fault or 'none'}"
            v = session(
                transport, fault, presentations=chosen.presentations, pace=chosen.pace, folder=folder, every=chosen.every
            )
            found.append(v)
            after = f" ({v.stopped_s:.1f} s)" if np.isfinite(v.stopped_s) else ""
            said = escape(f"{v.stopped}{after}")
            numbers = (v.misdeeds, v.presented, v.lost, v.repeated, v.wrong + v.unknown)
            table.add_row(v.transport, v.fault, *map(str, numbers), f"{v.wall_s:.0f}", said)
            if chosen.out:
                write_json(chosen.out / "verdicts.json", [asdict(verdict) for verdict in found])
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    for v in found:
        for why, count in v.reasons.items():
            console.print(f"{v.transport}, {v.fault}: {count} x {why}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
