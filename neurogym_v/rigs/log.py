"""The rig's log: every single presentation of a live neuron as it happened, on disk before the next fixation begins.

The journal is written a block at a time, and a block of a live neuron may be a minute of an animal's work. So each
presentation is written here: that it is about to be shown, before it is, and what became of it, as soon as that is known.
After a crash the block is put together from here, and only what is missing is shown. Spikes, counts, reasons of loss and how
the clocks compared are here too, for pictures and for export.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from neurogym_v.database import JournalError, JournalInUse, exclusive, explained, transaction
from neurogym_v.rigs import Outcome, RigError

VERSION = 1
FILE = "live.sqlite"
"""Its name in the folder of a run."""
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE note (at TEXT NOT NULL, what TEXT NOT NULL);
CREATE TABLE presentation (
    number INTEGER PRIMARY KEY, position INTEGER NOT NULL, image TEXT NOT NULL, begun_at TEXT NOT NULL, ended_at TEXT,
    lost TEXT, onset_s REAL, late_frames INTEGER, rates BLOB, counts BLOB, spike_s BLOB, channel BLOB);
CREATE INDEX presentation_position ON presentation (position);
"""
OPENED = "the rig was opened"
"""A note: what was before may have been on another day."""
INTERRUPTED = "interrupted before it was counted"


@dataclass(frozen=True, slots=True)
class Begun:
    """A presentation that is about to be shown."""

    number: int
    position: int
    """Which of all that the run's sessions asked for it is; one that is shown again has the same."""
    image: str
    """Digest."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A presentation as the log keeps it."""

    begun: Begun
    begun_at: str
    """UTC, ISO 8601."""
    ended_at: str
    """When its outcome was written; "": it has none yet."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Kept:
    """All that a log holds."""

    meta: Mapping[str, str]
    notes: tuple[tuple[str, str], ...]
    """(when, what)"""
    presentations: tuple[Logged, ...]
    """By number."""


class LiveLog:
    """The SQLite file of a live run.

    Args:
        path: the file, made where there is none.
        meta: what is kept with it: channels, the rig file.

    Raises:
        JournalError: not one of ours, of another version or other channels, damaged, or not writable.
        JournalInUse: another process has it open.
    """

    def __init__(self, path: Path, *, meta: Mapping[str, str] | None = None) -> None:
        self.path = path
        with explained(str(self.path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = exclusive(path, any_thread=True)
            try:
                with transaction(self._db):
                    if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                        for statement in SCHEMA.split(";"):
                            self._db.execute(statement)
                        self._db.executemany(
                            "INSERT INTO meta VALUES (?, ?)", ({"version": str(VERSION)} | dict(meta or {})).items()
                        )
                    elif not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'note'").fetchone():
                        raise JournalError(f"{path}: expected the log of a live neuron, found another SQLite database")
                self.meta: dict[str, str] = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
                if self.meta.get("version") != str(VERSION):
                    raise JournalError(f"{path}: expected version {VERSION}, found version {self.meta.get('version')}")
                for key in ("channels", "measures"):
                    before, now = _differing(self.meta.get(key, ""), (meta or self.meta).get(key, ""))
                    if now != before:
                        raise JournalError(
                            f"{path}: expected the {key} that it was begun with, {before or 'none'}, got {now or 'none'}"
                        )
                if meta and meta.get("rig") != self.meta.get("rig"):
                    self.note(f"the rig file is another one now:\n{meta.get('rig')}")
                self._db.execute("UPDATE presentation SET lost = ?, ended_at = ? WHERE ended_at IS NULL", (INTERRUPTED, _now()))
            except BaseException:
                self._db.close()
                raise

    @property
    def next_number(self) -> int:
        """That no presentation has had."""
        with explained(str(self.path)):
            (largest,) = self._db.execute("SELECT max(number) FROM presentation").fetchone()
        return 0 if largest is None else int(largest) + 1

    def begin(self, begun: Sequence[Begun]) -> None:
        """Presentations are about to be shown; when this returns, that is on disk. Those that were begun, but not shown, may be
        begun again."""
        rows = [(b.number, b.position, b.image, _now()) for b in begun]
        with explained(str(self.path)), transaction(self._db):
            self._db.executemany(
                "INSERT OR REPLACE INTO presentation (number, position, image, begun_at) VALUES (?, ?, ?, ?)", rows
            )

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """What became of presentations; a later word replaces an earlier one."""
        rows = [
            (
                _now(), o.lost or None, None if np.isnan(o.onset_s) else o.onset_s, o.late_frames, _blob(o.rates, "<f8"),
                _blob(o.counts, "<i8"), _blob(o.spike_s, "<f8"), _blob(o.channel, "<i8"), o.number,
            )
            for o in outcomes
        ]  # fmt: skip
        if not rows:
            return
        with explained(str(self.path)), transaction(self._db):
            self._db.executemany(
                "UPDATE presentation SET ended_at = ?, lost = ?, onset_s = ?, late_frames = ?, rates = ?, counts = ?,"
                " spike_s = ?, channel = ? WHERE number = ?",
                rows,
            )

    def withdraw(self, numbers: Sequence[int]) -> None:
        """Presentations that were begun have not been shown."""
        if numbers:
            with explained(str(self.path)), transaction(self._db):
                rows = [(number,) for number in numbers]
                self._db.executemany("DELETE FROM presentation WHERE number = ? AND ended_at IS NULL", rows)

    def abandon(self, why: str) -> None:
        """Whatever was begun and has no outcome is lost."""
        with explained(str(self.path)):
            self._db.execute("UPDATE presentation SET lost = ?, ended_at = ? WHERE ended_at IS NULL", (why, _now()))

    def note(self, what: str) -> None:
        """Keep a line."""
        with explained(str(self.path)):
            self._db.execute("INSERT INTO note VALUES (?, ?)", (_now(), what))

    def notes(self) -> list[tuple[str, str]]:
        """(when, what) of all lines."""
        with explained(str(self.path)):
            return list(self._db.execute("SELECT at, what FROM note ORDER BY rowid").fetchall())

    def presentations(self, since: int = 0) -> list[Logged]:
        """Those of positions from `since` on, by number."""
        with explained(str(self.path)):
            return _presentations(self._db, since)

    def close(self) -> None:
        self._db.close()


def read_log(path: Path) -> Kept:
    """A log as it is: nothing in it is changed, and it may be read-only.

    One that was closed has no write-ahead log beside it, and is read as a file that nobody writes. One that has is that of a
    session which still runs, or died.

    Raises:
        JournalError: no file, not one of ours, of another version, or damaged.
        JournalInUse: another process has it open.
    """
    if not path.is_file():
        raise JournalError(f"{path}: expected the log of a live neuron, found no file")
    ahead = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if ahead.exists() else "immutable=1"
    try:
        with (
            explained(str(path), "a whole SQLite file that can be read"),
            closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?{how}", uri=True, timeout=0.1)) as db,
        ):
            (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise JournalError(f"{path}: expected a whole file, found damage ({verdict.replace(chr(10), ' ')})")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'note'").fetchone():
                raise JournalError(f"{path}: expected the log of a live neuron, found another SQLite database")
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
            if meta.get("version") != str(VERSION):
                raise JournalError(f"{path}: expected version {VERSION}, found version {meta.get('version')}")
            notes = tuple(db.execute("SELECT at, what FROM note ORDER BY rowid").fetchall())
            presentations = tuple(_presentations(db))
    except JournalError:
        raise
    except (RigError, ValueError, TypeError) as error:
        raise JournalError(f"{path}: expected whole presentations, found damage ({error})") from error
    if how == "immutable=1" and ahead.exists():
        raise JournalInUse(f"{path}: expected nobody at it, but another process has opened it meanwhile")
    return Kept(meta, notes, presentations)


def _presentations(db: sqlite3.Connection, since: int = 0) -> list[Logged]:
    rows = db.execute(
        "SELECT number, position, image, begun_at, ended_at, lost, onset_s, late_frames, rates, counts, spike_s, channel"
        " FROM presentation WHERE position >= ? ORDER BY number",
        (since,),
    ).fetchall()
    return [_logged(row) for row in rows]


def _logged(row: Sequence[Any]) -> Logged:
    number, position, image, begun_at, ended_at, lost, onset_s, late_frames, rates, counts, spike_s, channel = row
    found = _array(rates, "<f8")
    outcome = Outcome(
        number=number,
        rates=found,
        counts=_array(counts, "<i8"),
        lost=lost or ("" if found is not None else INTERRUPTED),
        onset_s=float("nan") if onset_s is None else onset_s,
        late_frames=late_frames or 0,
        spike_s=np.frombuffer(spike_s or b"", dtype="<f8"),
        channel=np.frombuffer(channel or b"", dtype="<i8").astype(np.intp),
    )
    return Logged(Begun(number, position, image), begun_at, ended_at or "", outcome)


def _differing(before: str, now: str) -> tuple[str, str]:
    """Of two texts what is to be compared: as they are, or, of two JSON objects, what both tell and tell differently."""
    try:
        one, other = json.loads(before), json.loads(now)
        keys = [key for key in one if key in other and one[key] != other[key]]
        return tuple(", ".join(f"{key} {json.dumps(found[key])}" for key in keys) for found in (one, other))  # type: ignore[return-value]
    except (ValueError, TypeError):
        return before.replace("\n", ", "), now.replace("\n", ", ")


def _blob(array: NDArray[Any] | None, dtype: str) -> bytes | None:
    return None if array is None else np.ascontiguousarray(array, dtype=dtype).tobytes()


def _array(blob: bytes | None, dtype: str) -> NDArray[Any] | None:
    return None if blob is None else np.frombuffer(blob, dtype=dtype)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
