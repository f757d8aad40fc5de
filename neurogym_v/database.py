"""SQLite files that one process writes and that survive its death: what the journal and a rig's log have in common."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurogym_v.types import NeuroGymError


class JournalError(NeuroGymError):
    """The journal cannot be opened, is damaged, or does not fit what is asked of it."""


class JournalInUse(JournalError):
    """Another process has it open."""


def exclusive(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """The file, made where there is none: ours alone, with a write-ahead log that is synced at every transaction.

    Args:
        any_thread: it may be used by one thread after another.
    """
    db = sqlite3.connect(path, isolation_level=None, timeout=1, check_same_thread=not any_thread)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")  # two processes must never continue one run
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of what is written within is on disk at the end, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def explained(called: str, expected: str = "a whole, writable SQLite file") -> Iterator[None]:
    """What SQLite says, in the words of this project; `called` is what the file is named with."""
    try:
        yield
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise JournalInUse(f"{called}: expected nobody at it, but another process has it open") from error
        raise JournalError(f"{called}: expected {expected}, got: {error}") from error
