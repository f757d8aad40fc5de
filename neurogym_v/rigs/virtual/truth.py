"""The rig's own log: what a reader ought to find, one line of JSON for each presentation and each misdeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO


class Truth:
    """Lines at the end of a file, each on its way to the disk at once; without a path, nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = path.open("a", buffering=1) if path else None

    def write(self, **line: object) -> None:
        if self._file:
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """May be called twice."""
        if self._file:
            self._file.close()
            self._file = None
