"""Weights & Biases, online where there is a key, else in a folder that `wandb sync` sends later."""

from __future__ import annotations

import netrc
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from neurogym_v import importing
from neurogym_v.tracking.background import first_line
from neurogym_v.tracking.places import folder
from neurogym_v.tracking.record import Picture, Row, RunInfo
from neurogym_v.types import NeuroGymError

PROJECT = "neurogym-v"
ANSWER_S, SEND_S = 8.0, 8.0
"""How long the server may take to answer at the beginning, and to take what is left at the end."""


class WandB:
    """A run of PROJECT or ENTITY/PROJECT; without a key or with WANDB_MODE=offline, and where no server answers, kept offline.

    Online, a resumed run goes on after its last step; offline it is written anew, under the same id.
    """

    def __init__(self, where: str, beside: Path) -> None:
        if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", where or PROJECT, re.ASCII):
            raise NeuroGymError(f"tracker wandb: expected PROJECT or ENTITY/PROJECT, got {where!r}")
        entity, _, self.project = (where or PROJECT).rpartition("/")
        self.entity = entity or None
        self.folder = folder("tracker wandb", "", beside)
        self.place = ""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = importing.require("wandb", user="tracker wandb", extra="wandb")

    def begin(self, run: RunInfo) -> None:
        kept = (self.folder / "wandb").absolute()
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # else it keeps the table of an offline run in the home folder
            os.environ.setdefault(name, str(kept))
        self._settings = self._wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True, x_disable_stats=True,
            x_disable_meta=True, init_timeout=ANSWER_S, finish_timeout=SEND_S, finish_timeout_raises=True,
        )  # fmt: skip
        server = self._wandb.setup(settings=self._wandb.Settings(silent=True)).settings.base_url
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key(server) else "offline")
        why = "" if os.environ.get("WANDB_MODE") else "no key; "
        try:
            self._run = self._init(run, run.id, mode)
        except Exception as error:  # no network, a key that is refused
            if mode == "offline":
                raise
            why = f"no run at {server}: {first_line(error)}; "
            self._run = self._init(run, f"{run.id}-offline", "offline")  # the library still holds the other id
        if not self._run.offline:
            self.place = str(self._run.url or "")  # none where WANDB_MODE=disabled
            return
        here = Path(self._run.dir).resolve().parent
        self.place = f"{why}kept here; send it with: wandb sync {self.folder / 'wandb'}/offline-run-*"
        for old in kept.glob(f"offline-run-*-{self._run.id}"):
            if old.resolve() != here:
                shutil.rmtree(old)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def images(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        self._run.log({name: [self._wandb.Image(p.pixels, caption=p.caption) for p in pictures]}, step=step)

    def finish(self, table: Sequence[Row], files: Sequence[Path]) -> None:
        columns = list(dict.fromkeys(name for row in table for name in row))
        self._run.log({"table": self._wandb.Table(columns, [[row.get(name) for name in columns] for row in table])})
        for file in files:
            self._run.save(str(file), base_path=str(file.parent), policy="now")
        self._run.finish()

    def stop(self) -> None:
        self._run.finish(exit_code=1)

    def _init(self, run: RunInfo, id: str, mode: str) -> Any:  # noqa: A002
        return self._wandb.init(
            project=self.project,
            entity=self.entity,
            dir=str(self.folder),
            id=id,
            resume=None if mode == "offline" else "allow",
            name=run.name,
            group=run.group,
            job_type=run.tags["agent"][:64],
            tags=[f"{key}:{value}"[:64] for key, value in run.tags.items()],
            config=dict(run.tags) | dict(run.config),
            mode=mode,
            reinit="create_new",  # the agents of a run are tracked side by side
            settings=self._settings,
        )


def _has_key(server: str) -> bool:
    """Whether the library would find one; without, it would ask for it on the terminal."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    file = Path(os.environ.get("NETRC") or Path("~").expanduser() / (".netrc" if os.name != "nt" else "_netrc"))
    try:
        return netrc.netrc(str(file)).authenticators(urlsplit(server).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
