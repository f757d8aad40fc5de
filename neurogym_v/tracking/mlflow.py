"""MLflow, in a SQLite file or on a server: an experiment a suite, a run each, with metrics, settings, pictures and files."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from neurogym_v import importing
from neurogym_v.tracking.panel import captioned
from neurogym_v.tracking.places import folder
from neurogym_v.tracking.record import Picture, Row, RunInfo
from neurogym_v.types import NeuroGymError

EVERY_S = 2.0
"""Metrics are sent together: a call for each takes SQLite as long as one for hundreds."""
MOST = 500
"""Metrics that are sent at once; the server takes 1,000."""
PATIENCE_S = 60.0
"""For another process that is making the database."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",  # s; else a server that is gone is waited for 120 s
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""Of the environment, unless the user says otherwise."""
KEY = "neurogym_v.id"


class MLflow:
    """A run of the experiment `neurogym-v SUITE` in sqlite:///FILE or at http://SERVER; a resumed run goes on where it stopped.

    The first picture or number after the last step that is stored is the next that is kept.
    """

    def __init__(self, where: str, beside: Path) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self.uri, self.artifacts = _store(where, beside)
        self.place = f"mlflow ui --backend-store-uri {self.uri}" if self.artifacts else self.uri
        importing.require("sqlalchemy", user="tracker mlflow", extra="mlflow")
        importing.require("alembic", user="tracker mlflow", extra="mlflow")
        self._entities = importing.require("mlflow.entities", user="tracker mlflow", extra="mlflow")
        self._tracking = importing.require("mlflow.tracking", user="tracker mlflow", extra="mlflow")
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def begin(self, run: RunInfo) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)  # else every step of making a database is told
        if self.artifacts:
            self.artifacts.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._client = self._tracking.MlflowClient(tracking_uri=self.uri)
            experiment = self._experiment(f"neurogym-v {run.tags['suite']}")
        found = self._client.search_runs([experiment], f"tags.`{KEY}` = '{run.id}'", max_results=1)
        if found:
            self._run: str = found[0].info.run_id
            stored = self._client.get_metric_history(self._run, "step")
            self._after = max((metric.step for metric in stored), default=-1)
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {**run.tags, "group": run.group, KEY: run.id}
        self._run = self._client.create_run(experiment, run_name=f"{run.group} {run.name}", tags=tags).info.run_id
        self._after = -1
        settings = [self._entities.Param(key, str(value)[:6000]) for key, value in run.config.items()]
        self._client.log_batch(self._run, params=settings)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step <= self._after:
            return
        now = int(time.time() * 1000)
        self._waiting += [self._entities.Metric(name, value, now, step) for name, value in {**numbers, "step": step}.items()]
        if time.monotonic() - self._sent > EVERY_S or len(self._waiting) > MOST:
            self._send()

    def images(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        if step <= self._after:
            return
        for number, picture in enumerate(pictures):
            self._client.log_image(self._run, captioned(picture), key=f"{name}/{number}" if number else name, step=step)

    def finish(self, table: Sequence[Row], files: Sequence[Path]) -> None:
        self._send()
        self._client.log_dict(self._run, {"table": [dict(row) for row in table]}, "table.json")
        for file in files:
            self._client.log_artifact(self._run, str(file), "files")
        self._client.set_terminated(self._run, "FINISHED")

    def stop(self) -> None:
        self._send()
        self._client.set_terminated(self._run, "KILLED")

    def _send(self) -> None:
        for at in range(0, len(self._waiting), MOST):
            self._client.log_batch(self._run, metrics=self._waiting[at : at + MOST])
        self._waiting, self._sent = [], time.monotonic()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process makes the database: two at once, and MLflow fails in one. A server sees to that itself.

        What is locked is a SQLite file beside it, as that works on every system, and ends with a process that is killed.
        """
        if not self.artifacts:
            yield
            return
        file = f"{self.uri.removeprefix('sqlite:///')}.lock"
        with closing(sqlite3.connect(file, timeout=PATIENCE_S, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise NeuroGymError(f"tracker mlflow: expected {file} free within {PATIENCE_S:g} s, got: {error}") from None
            yield

    def _experiment(self, name: str) -> str:
        if (found := self._client.get_experiment_by_name(name)) is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=str(self.artifacts or "") or None))
            except Exception:  # another process made it meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


def _store(where: str, beside: Path) -> tuple[str, Path | None]:
    """The address of the store, and the folder of files beside it; a server has its own.

    Raises:
        NeuroGymError: neither sqlite:///FILE nor a server's address.
    """
    if re.fullmatch(r"https?://[^/\s]+\S*", where):
        if "@" in where.partition("//")[2].partition("/")[0]:  # it would be shown, and kept in the run's folder
            raise NeuroGymError("tracker mlflow: expected an address without user and password, got one with; they are set by "
                                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")  # fmt: skip
        return where, None
    kind, separator, file = where.partition(":///")
    if where and not (kind == "sqlite" and separator and file):
        raise NeuroGymError(f"tracker mlflow: expected sqlite:///FILE or the http address of a server, got {where!r}")
    path = Path(file).expanduser() if where else beside / "mlflow.sqlite"
    folder("tracker mlflow", str(path.parent), beside)
    if path.is_dir():
        raise NeuroGymError(f"tracker mlflow: expected a file for SQLite, got a folder, {path}")
    return f"sqlite:///{path.resolve()}", path.resolve().with_name(f"{path.stem}-artifacts")
