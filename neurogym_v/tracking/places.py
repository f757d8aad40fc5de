"""Folders of trackers: which names they have, and whether they can be written to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from neurogym_v.tracking.record import RunInfo
from neurogym_v.types import NeuroGymError


def folder(user: str, where: str, default: Path) -> Path:
    """The folder `where` says, or the default; nothing is made.

    Raises:
        NeuroGymError: it cannot be made or written to.
    """
    path = Path(where).expanduser() if where else default
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        found = "one that is not writable" if there.is_dir() else f"a file, {there}"
        raise NeuroGymError(f"{user}: expected a folder that can be written to, got {path}: {found}")
    return path


def run_folder(base: Path, run: RunInfo) -> Path:
    """GROUP/NAME-ID below `base`: no two runs share it, and a resumed run finds its own."""
    return base / slug(run.group) / f"{slug(run.name)}-{run.id[:8]}"


def slug(text: str) -> str:
    """`text` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", text)[:80].strip(".-") or "run"
