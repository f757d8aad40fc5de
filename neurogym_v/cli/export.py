"""`neurogym-v export`: a run as a file that other programs read."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from neurogym_v.cli.report import copied
from neurogym_v.cli.run import JOURNAL
from neurogym_v.export import write_nwb
from neurogym_v.export.run import Run, read
from neurogym_v.importing import require
from neurogym_v.rigs.log import FILE
from neurogym_v.types import NeuroGymError

SUFFIX = ".nwb"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write a run to an NWB file",
        description="Write a run to one NWB 2 file (Neurodata Without Borders), which SpikeInterface, Neo (with --neo) and "
        "`neurogym-v fit` read. In it are a row for every presentation, lost ones included (trials), every "
        "distinct image pixel for pixel (stimulus templates), every latent, and what the run was started with; of a live run "
        "also its channels (electrodes) and all spikes in the windows around the onsets that were kept (units), on the "
        "acquisition's clock. A run that was stopped, or still goes on, is written as far as it is.",
        epilog="examples:\n  neurogym-v export runs/20260101-120000-v4-12 --nwb v4-12.nwb\n"
        "  neurogym-v export runs/20260101-120000-rig-0 --nwb monkey-a.nwb --rig rig.toml\n  neurogym-v fit monkey-a.nwb",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="its folder")
    parser.add_argument("--nwb", type=Path, metavar="FILE", required=True, help=f"to write; its name ends in {SUFFIX}")
    parser.add_argument("--rig", type=Path, metavar="RIG.TOML", help="take [subject], [electrode] and [session] from this file "
                        "[the rig file as it was when the run began]")  # fmt: skip
    parser.add_argument("--neo", action="store_true", help="leave out what Neo cannot read: keywords, the series of images "
                        "(trials tell the same), and the gaps between windows, which become invalid times")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.set_defaults(command=_export)


def _export(chosen: argparse.Namespace) -> int:
    path: Path = chosen.nwb
    if path.suffix.lower() != SUFFIX:
        raise NeuroGymError(f"--nwb {path}: expected a name that ends in {SUFFIX}")
    if path.is_dir() or (path.exists() and not chosen.force):
        what = "a folder" if path.is_dir() else "one; --force replaces it"
        raise NeuroGymError(f"--nwb {path}: expected no such file yet, found {what}")
    require("pynwb", user="export", extra="nwb")
    console, notes = Console(), Console(stderr=True)
    run = _read(chosen.run, chosen.rig)
    with _Bars(console) as bars:
        told = write_nwb(run, path, neo=chosen.neo, progress=bars)
    for sentence in told:
        notes.print(f"note: {sentence}", soft_wrap=True, highlight=False, markup=False)
    size = f"{len(run.presentations)} presentations, {path.stat().st_size / 1e6:.1f} MB"
    console.print(f"{path} ({size})", soft_wrap=True, markup=False, highlight=False)
    return 0


def _read(folder: Path, rig: Path | None) -> Run:
    """From copies: the files of a run are not changed, and may be in use."""
    journal, log = folder / JOURNAL, folder / FILE
    if not journal.is_file():
        raise NeuroGymError(f"{folder}: expected the folder of a run, found no {JOURNAL}")
    copies: dict[Path, Path] = {}
    try:
        with ExitStack() as stack:
            copies[journal] = stack.enter_context(copied(journal))
            if log.is_file():  # after the journal: so it has at least the presentations that the journal has
                copies[log] = stack.enter_context(copied(log))
            return read(folder, copies[journal], copies.get(log), rig=rig)
    except NeuroGymError as error:
        text = str(error)
        for original, copy in copies.items():
            text = text.replace(str(copy), str(original))
        raise type(error)(text) from None


class _Bars(Progress):
    """A bar for each thing that takes time, on a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:12}"), BarColumn(24), TimeElapsedColumn())
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._known: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._known:
            self._known[what] = self.add_task(what)
        pulse = done == 0 and total == 1  # nobody knows how far it is
        self.update(self._known[what], completed=done, total=None if pulse else total)
