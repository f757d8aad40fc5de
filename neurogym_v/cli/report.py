"""`neurogym-v report`: a run, or a bench, as one HTML page."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from neurogym_v.benchmarks.leaderboard.build import PAGE_OF_BENCH, write_page
from neurogym_v.benchmarks.runs import SUITE, Folder
from neurogym_v.cli.run import JOURNAL
from neurogym_v.journal import Journal, JournalError
from neurogym_v.report import PAGE, write_report
from neurogym_v.types import NeuroGymError

TRIES = 5


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="make one HTML page of a run, or of a bench",
        description="Make one HTML page: of a run its images, curves and scores; of a bench its table, curves and the images "
        "of all agents beside each other. It needs no server, no network and no other file, so it can be sent, archived and "
        "shown. What was stopped, or still goes on, is shown as far as it is.",
        epilog="examples:\n  neurogym-v report runs/20260101-120000-v4-12\n  neurogym-v report runs/bench/quick-v1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="RUN_OR_BENCH", help="the folder of either")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"[{PAGE} in a run, {PAGE_OF_BENCH} in a bench]")
    parser.set_defaults(command=_report)


def _report(chosen: argparse.Namespace) -> int:
    written = _of_bench(chosen) if (chosen.folder / SUITE).is_file() else _of_run(chosen)
    _say(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
    return 0


def _of_bench(chosen: argparse.Namespace) -> Path:
    folder = Folder(chosen.folder)
    suite = folder.suite()
    file = chosen.out or folder.path / PAGE_OF_BENCH
    for agent in write_page(suite, folder, file):
        done = sum(folder.result(task).is_file() for task in suite.tasks([agent]))
        _say(f"not in it: {agent}, {done} of {len(suite.tasks([agent]))} runs are done")
    return Path(file)


def _of_run(chosen: argparse.Namespace) -> Path:
    journal_file = chosen.folder / JOURNAL
    if not journal_file.is_file():
        raise NeuroGymError(f"{chosen.folder}: expected the folder of a run or of a bench, found neither {JOURNAL} nor {SUITE}")
    with copied(journal_file) as path:
        try:
            with Journal(path) as journal:
                return write_report(chosen.folder, journal, out=chosen.out)
        except JournalError as error:
            raise JournalError(str(error).replace(str(path), str(journal_file))) from None


def _say(line: str) -> None:
    Console().print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """A copy of a journal: opening it changes nothing, and it may be read-only, or in use by the run.

    Raises:
        JournalError: it changes faster than it can be copied.
    """
    files = [path, path.with_name(f"{path.name}-wal")]  # what is not yet in the file itself
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
