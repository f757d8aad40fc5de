"""`neurogym-v report`: a run as one HTML page."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from neurogym_v.cli.run import JOURNAL
from neurogym_v.journal import Journal, JournalError
from neurogym_v.report import PAGE, write_report

TRIES = 5


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="make one HTML page of a run",
        description="Make one HTML page of a run: its images, curves and scores. It needs no server, no network and no other "
        "file, so it can be sent, archived and shown. A run that was stopped, or that still goes on, is shown as far as it is.",
        epilog="example: neurogym-v report runs/20260101-120000-v4-12",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="its folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"[RUN/{PAGE}]")
    parser.set_defaults(command=_report)


def _report(chosen: argparse.Namespace) -> int:
    with _copied(chosen.run / JOURNAL) as path:
        try:
            with Journal(path) as journal:
                written = write_report(chosen.run, journal, out=chosen.out)
        except JournalError as error:
            raise JournalError(str(error).replace(str(path), str(chosen.run / JOURNAL))) from None
    Console().print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)", soft_wrap=True, markup=False, highlight=False)
    return 0


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """A copy of a journal: opening it changes nothing, and it may be read-only, or in use by the run.

    Raises:
        JournalError: there is none, or it changes faster than it can be copied.
    """
    files = [path, path.with_name(f"{path.name}-wal")]  # what is not yet in the file itself
    if not path.is_file():
        raise JournalError(f"journal {path}: expected the journal of a run, found no file")
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(TRIES):
            before = _stamps(files)
            for file in files:
                target = Path(folder) / file.name
                target.unlink(missing_ok=True)
                if file.is_file():
                    shutil.copyfile(file, target)
            if _stamps(files) == before:
                yield Path(folder) / path.name
                return
    raise JournalError(f"journal {path}: expected it to rest for a moment, it changed while it was copied; try again")


def _stamps(files: list[Path]) -> list[tuple[int, int] | None]:
    """Of each file its size and when it was changed; None where there is none."""
    stats = [file.stat() if file.is_file() else None for file in files]
    return [stat and (stat.st_size, stat.st_mtime_ns) for stat in stats]
