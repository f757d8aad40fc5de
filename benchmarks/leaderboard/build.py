"""Pages of all entries: README.md, the schema, and a page a suite. The same entries give the same bytes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from neurogym_v.benchmarks import suite as suites
from neurogym_v.benchmarks.leaderboard.board import Board, board_of
from neurogym_v.benchmarks.leaderboard.checks import check
from neurogym_v.benchmarks.leaderboard.entry import Entry, Said, entry_of
from neurogym_v.benchmarks.leaderboard.markdown import readme
from neurogym_v.benchmarks.leaderboard.page import page
from neurogym_v.benchmarks.leaderboard.reading import read_entry, schema
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.files import write_whole
from neurogym_v.types import NeuroGymError

PAGE_OF_BENCH = "index.html"
FOLDER = re.compile(r"([A-Za-z0-9_.-]+)-v([0-9]+)")


def build(to: Path, own: Suite | None = None) -> list[Path]:
    """Write the pages of all entries in a folder, and return their files.

    Args:
        to: the folder of all leaderboards.
        own: a suite that does not ship.

    Raises:
        NeuroGymError: no such folder, an entry that cannot be right, two of one agent, or a suite that is not here.
    """
    if not to.is_dir():
        raise NeuroGymError(f"{to}: expected the folder of the leaderboards, found none")
    boards, earlier = list[Board](), list[str]()
    for folder in sorted(inner for inner in to.iterdir() if inner.is_dir() and FOLDER.fullmatch(inner.name)):
        if (suite := suite_of(folder, own)) is None:
            earlier.append(folder.name)
        elif found := entries_in(folder, suite):
            boards.append(board_of(suite, found.values()))
    made = {to / "README.md": readme(boards, earlier).encode(), to / "schema.json": schema().encode()}
    made |= {to / f"{board.suite.id}.html": page(board).encode() for board in boards}
    write_all(made)
    return list(made)


def write_page(suite: Suite, folder: Folder, file: Path, source: str | None = None) -> list[str]:
    """The page of one's own bench: that of a leaderboard, with the suite's agents whose runs are all done. Who is left out.

    Args:
        suite: with the agents and seeds that are meant.
        source: the suite as it was named; None: by its own name.

    Raises:
        NeuroGymError: no agent's runs are all done, or they were made with different code.
    """
    whole = [agent for agent in suite.agents if all(folder.result(task).is_file() for task in suite.tasks([agent]))]
    if not whole:
        raise NeuroGymError(f"{folder.path}: expected an agent whose runs are all done, found none yet")
    said = Said(date=f"{datetime.now(UTC):%Y-%m-%d}", source=source, outdated=True)
    html = page(board_of(suite, (entry_of(suite, agent, folder, said) for agent in whole)))
    write_whole(file, lambda out: out.write(html.encode()))
    return [agent for agent in suite.agents if agent not in whole]


def suite_of(folder: Path, own: Suite | None) -> Suite | None:
    """The suite whose entries are in a folder; None: an earlier version of one that ships, whose page stays as it is.

    Raises:
        NeuroGymError: it is not here.
    """
    if own is not None and own.id == folder.name:
        return own
    name, version = folder.name.rpartition("-v")[::2]
    if name not in suites.names():
        raise NeuroGymError(f"{folder}: expected entries of a suite that ships; one of your own is given with --suite FILE")
    shipped = suites.load(name)
    if int(version) > shipped.version:
        raise NeuroGymError(f"{folder}: expected {shipped.id} or earlier, found a later suite, of a later neurogym-v")
    return shipped if shipped.id == folder.name else None


def entries_in(folder: Path, suite: Suite) -> dict[str, Entry]:
    """Agent -> its entry.

    Raises:
        NeuroGymError: a file is no entry of the suite, or two are of one agent.
    """
    found: dict[str, Entry] = {}
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        entry = read_entry(path)
        check(entry, suite, str(path))
        agent = entry["agent"]
        if agent in found:
            raise NeuroGymError(f"{path}: expected one entry an agent, found another of {agent}: {files[agent].name}")
        found[agent], files[agent] = entry, path
    return found


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write all or none: nothing is put in its place before all are on disk."""
    staged: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            staged[Path(name)] = path
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
        for temporary, path in staged.items():
            temporary.replace(path)
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)
