"""TensorBoard event files: curves, pictures, the table, and the settings as hyperparameters (tensorboard's own records)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from neurogym_v import importing
from neurogym_v.tracking.panel import captioned, png
from neurogym_v.tracking.places import folder, run_folder
from neurogym_v.tracking.record import SCORE, Picture, Row, RunInfo


class TensorBoard:
    """An event file in WHERE/GROUP/NAME-ID, beside the files of the run; a resumed run writes its event file anew."""

    def __init__(self, where: str, beside: Path) -> None:
        self.base = folder("tracker tensorboard", where, beside / "tensorboard")
        self.place = f"tensorboard --logdir {self.base}"
        self._event = _module("compat.proto.event_pb2")
        self._summary = _module("compat.proto.summary_pb2")
        self._record_writer = _module("summary.writer.record_writer").RecordWriter
        self._hparams = _module("plugins.hparams.summary_v2")
        self._text = _module("plugins.text.metadata")
        self._tensors = _module("util.tensor_util")
        self._compared: set[str] = set()
        self._last = 0

    def begin(self, run: RunInfo) -> None:
        self.folder = run_folder(self.base, run)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        file = (self.folder / f"events.out.tfevents.{int(time.time())}.{run.id}").open("wb")
        # not the library's own EventFileWriter: it has a thread that prints a traceback when the disk is full
        self._writer = self._record_writer(file)
        self._write(file_version="brain.Event:2")
        self._write(session_log=self._event.SessionLog(status=self._event.SessionLog.START))
        given = {**run.config, **run.tags, "group": run.group}
        self._settings = {name: value if isinstance(value, int | float) else str(value) for name, value in given.items()}
        self._write(summary=self._hparams.hparams_pb(self._settings, trial_id=run.id))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._last = max(self._last, step)
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(step, summary=self._summary.Summary(value=values))
        scores = {name for name in numbers if name.startswith(SCORE)}
        if scores - self._compared:
            self._compared |= scores
            settings = [self._hparams.HParam(name) for name in self._settings]
            metrics = [self._hparams.Metric(name) for name in sorted(self._compared)]
            self._write(summary=self._hparams.hparams_config_pb(settings, metrics))

    def images(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        for number, picture in enumerate(pictures):
            pixels = captioned(picture)
            image = self._summary.Summary.Image(
                height=pixels.shape[0], width=pixels.shape[1], colorspace=3, encoded_image_string=png(pixels)
            )
            value = self._summary.Summary.Value(tag=f"{name}/{number}" if number else name, image=image)
            self._write(step, summary=self._summary.Summary(value=[value]))

    def finish(self, table: Sequence[Row], files: Sequence[Path]) -> None:
        self._write(
            self._last,
            summary=self._summary.Summary(
                value=[
                    self._summary.Summary.Value(
                        tag="table",
                        metadata=self._text.create_summary_metadata(display_name="table", description=""),
                        tensor=self._tensors.make_tensor_proto(np.array([_markdown(table)], dtype=object)),
                    )
                ]
            ),
        )
        for file in files:
            shutil.copy2(file, self.folder)
            if file.suffix == ".png":
                with Image.open(file) as image:
                    self.images(self._last, f"files/{file.stem}", [Picture(np.asarray(image.convert("RGB")), file.name)])
        self._writer.close()

    def stop(self) -> None:
        self._writer.close()

    def _write(self, step: int = 0, **content: Any) -> None:
        self._writer.write(self._event.Event(wall_time=time.time(), step=step, **content).SerializeToString())
        self._writer.flush()


def _module(name: str) -> Any:
    return importing.require(f"tensorboard.{name}", user="tracker tensorboard", extra="tensorboard")


def _markdown(table: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in table for name in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(name, "")) for name in columns] for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
