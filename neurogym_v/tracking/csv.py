"""Files that anything opens: a folder a run with its curves, pictures and files, and one index of all runs beside them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from neurogym_v.files import write_json, write_whole
from neurogym_v.tracking.panel import captioned, png
from neurogym_v.tracking.places import folder, run_folder, slug
from neurogym_v.tracking.record import SCORE, Picture, Row, RunInfo


class CSV:
    """CSV files and pictures in WHERE/GROUP/NAME-ID, and WHERE/index.csv; a resumed run writes its files anew.

    A run's folder holds `rounds.csv` (a line a round), `run.json` (what it is, how it ended, its scores), `images/`, and at
    the end `table.csv` and the files of the run.
    """

    def __init__(self, where: str, beside: Path) -> None:
        self.base = folder("tracker csv", where, beside / "csv")
        self.place = str(self.base / "index.csv")
        self._rows: list[dict[str, float]] = []
        self._columns: list[str] = []
        self._scores: dict[str, float] = {}

    def begin(self, run: RunInfo) -> None:
        self.run, self.folder = run, run_folder(self.base, run)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows_path = self.folder / "rounds.csv"
        self._rows_path.write_text("")
        self._state("running")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        scores = {name.removeprefix(SCORE): value for name, value in numbers.items() if name.startswith(SCORE)}
        row = {"step": step, **{name: value for name, value in numbers.items() if not name.startswith(SCORE)}}
        if scores:
            self._scores |= scores
            self._state("running")
        if len(row) == 1:
            return
        self._rows.append(row)
        if new := [name for name in row if name not in self._columns]:
            self._columns += new  # all lines have all columns
            self._rows_path.write_text(_text(self._columns, self._rows))
        else:
            with self._rows_path.open("a", newline="") as file:
                file.write(_text(self._columns, [row], heading=False))

    def images(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        (self.folder / "images").mkdir(exist_ok=True)
        for number, picture in enumerate(pictures):
            more = f"-{number}" if number else ""
            (self.folder / "images" / f"{slug(name)}-{step:06d}{more}.png").write_bytes(png(captioned(picture)))

    def finish(self, table: Sequence[Row], files: Sequence[Path]) -> None:
        columns = list(dict.fromkeys(name for row in table for name in row))
        (self.folder / "table.csv").write_text(_text(columns, table))
        for file in files:
            shutil.copy2(file, self.folder)
        self._state("finished")
        self._index()

    def stop(self) -> None:
        self._state("stopped")
        self._index()

    def _state(self, state: str) -> None:
        run = self.run
        write_json(
            self.folder / "run.json",
            {"id": run.id, "group": run.group, "name": run.name, "state": state, "tags": dict(run.tags),
             "config": dict(run.config), "scores": self._scores},
        )  # fmt: skip

    def _index(self) -> None:
        """One line a run, of what all runs' own files say."""
        written: list[dict[str, Any]] = []
        while (rows := [_line(path) for path in sorted(self.base.glob("*/*/run.json"))]) != written:
            text = _text(dict.fromkeys(name for row in rows for name in row), rows).encode()
            write_whole(self.base / "index.csv", partial(_write, text))
            written = rows  # another process may do the same: the last one looks again


def _write(text: bytes, file: BinaryIO) -> None:
    file.write(text)


def _line(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(path.read_text())
    known = {name: run[name] for name in ("id", "group", "name", "state")}
    return {**known, "folder": str(path.parent.relative_to(path.parents[2])), **run["tags"], **run["scores"]}


def _text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]], *, heading: bool = True) -> str:
    """RFC 4180; what is missing stays empty."""
    file = StringIO()
    writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
