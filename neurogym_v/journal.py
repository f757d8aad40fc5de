"""The journal: every presentation is on disk before the agent hears of it, and a killed run continues by replay.

One SQLite file a run (write-ahead log, synced at each block). A *block* is what was shown in one go; it is written in one
transaction, so it is there whole or not at all. To resume, the run is simply started again on the same journal: as long as
it asks for blocks that are already there, the recorded rates are given back and nothing is shown; then it goes on. A run
that asks for something else than was recorded has diverged, and says so.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from neurogym_v.database import JournalError as JournalError
from neurogym_v.database import JournalInUse as JournalInUse
from neurogym_v.database import exclusive, explained, transaction
from neurogym_v.types import Latents, Rates

VERSION = 2
UNFINISHED = (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTINIT)
"""What SQLite says of a database that was left in the middle of a transaction to one who may only read."""
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE block (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL,
    shown_at TEXT NOT NULL, state TEXT NOT NULL, UNIQUE (session, number));
CREATE TABLE presentation (
    block INTEGER NOT NULL REFERENCES block, place INTEGER NOT NULL, image TEXT, latent BLOB, rates BLOB NOT NULL,
    PRIMARY KEY (block, place));
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Presentations shown in one go."""

    kind: str
    """What for: `search`, `reference`, `spontaneous`, `validation`, ..."""
    images: tuple[str, ...] | None
    """Names of the images, one a presentation, where they do not come from latents."""
    latents: Latents | None
    """(n, d) latents, one a presentation, where the images are generated."""
    rates: Rates
    """(n, sites) spikes/s; NaN marks a lost trial."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """Of the neuron after it, so that a session goes on from there."""

    def asks_for(self) -> tuple[object, ...]:
        """What was to be shown, apart from how the neuron answered."""
        return self.kind, self.images, None if self.latents is None else (self.latents.shape, self.latents.tobytes())


class Journal:
    """The SQLite file of a run, shared by its sessions (one an agent).

    Args:
        path: the file; made when `config` is given and there is none.
        config: what the run is, kept in the file so that the journal alone can continue it.

    Raises:
        JournalError: no journal, not one of ours, of another version, damaged, in use, or not writable.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._closed_because: str | None = None
        if not path.is_file() and config is None:
            raise JournalError(f"journal {path}: expected the journal of a run, found no file")
        with explained(f"journal {self.path}"):
            if path.is_file():
                self._inspect()
            self._db = exclusive(path)
            with transaction(self._db):
                if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                    for statement in SCHEMA.split(";"):
                        self._db.execute(statement)
                    rows = [("version", str(VERSION)), ("config", json.dumps(config or {}))]
                    self._db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
            self.config: dict[str, Any] = json.loads(self._meta("config"))

    def _inspect(self) -> None:
        """Refuse what is not a whole journal of this version, before anything is written to it.

        A process that was killed in the middle of making it left the database to be rolled back: SQLite does that first.
        """
        db = self._connect("ro")
        try:
            try:
                db.execute("SELECT 1 FROM sqlite_master")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in UNFINISHED:
                    raise
                db.close()
                db = self._connect("rw")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                if db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise JournalError(f"journal {self.path}: expected a journal, found another SQLite database")
                return  # killed before its first transaction: as good as new
            (version,) = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() or ("none",)
            if version != str(VERSION):
                raise JournalError(f"journal {self.path}: expected version {VERSION}, found version {version}")
            (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            short = db.execute(
                "SELECT number FROM block WHERE count != (SELECT count(*) FROM presentation WHERE block = block.id)"
            ).fetchone()
            if verdict != "ok" or short:
                what = f"block {short[0]} is not whole" if short else str(verdict).replace("\n", " ")
                raise JournalError(f"journal {self.path}: expected a whole file, found damage ({what}); it was left as it is")
        finally:
            db.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(self.path.resolve()))}?mode={mode}", uri=True, timeout=1)

    def blocks(self, session: str) -> list[Block]:
        """What a session has shown, in order."""
        with explained(f"journal {self.path}"):
            rows = self._db.execute(
                "SELECT block.number, kind, state, image, latent, rates FROM block JOIN presentation ON block = block.id"
                " WHERE session = ? ORDER BY number, place",
                (session,),
            ).fetchall()
        grouped: dict[int, list[tuple[Any, ...]]] = {}
        for number, *row in rows:
            grouped.setdefault(number, []).append(tuple(row))
        if list(grouped) != list(range(len(grouped))):
            raise JournalError(f"journal {self.path}: expected blocks 0, 1, 2, ..., found one missing in {session!r}")
        return [_block(list(zip(*group, strict=True))) for group in grouped.values()]

    def append(self, session: str, number: int, block: Block) -> None:
        """Write block `number` of a session; when this returns, it is on disk."""
        count = len(block.rates)
        images: list[str | None] = [*block.images] if block.images is not None else [None] * count
        latents = [None] * count if block.latents is None else [row.tobytes() for row in block.latents]
        shown_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with explained(f"journal {self.path}"), transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO block (session, number, kind, count, shown_at, state) VALUES (?, ?, ?, ?, ?, ?)",
                (session, number, block.kind, count, shown_at, json.dumps(block.state)),
            )
            rates = [row.tobytes() for row in np.ascontiguousarray(block.rates, dtype="<f8")]
            rows = zip([cursor.lastrowid] * count, range(count), images, latents, rates, strict=True)
            self._db.executemany("INSERT INTO presentation VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, session: str) -> None:
        """Remove a session and all its presentations, so that it can be run anew."""
        with explained(f"journal {self.path}"), transaction(self._db):
            blocks = "(SELECT id FROM block WHERE session = ?)"
            self._db.execute(f"DELETE FROM presentation WHERE block IN {blocks}", (session,))
            self._db.execute("DELETE FROM block WHERE session = ?", (session,))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _meta(self, key: str) -> str:
        (value,) = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(value)


def _block(columns: list[tuple[Any, ...]]) -> Block:
    kinds, states, images, latents, rates = columns
    return Block(
        kind=kinds[0],
        images=None if images[0] is None else images,
        latents=None if latents[0] is None else np.stack([np.frombuffer(row, dtype="<f4") for row in latents]),
        rates=np.stack([np.frombuffer(row, dtype="<f8") for row in rates]),
        state=json.loads(states[0]),
    )
