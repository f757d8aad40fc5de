"""Every run of a suite once, and only those that are missing; a run that was cut off goes on from its journal.

The folder of a bench holds `suite.json` (what is run), `natural/` (what natural images do, measured once a condition and
shared by all agents), and a folder an agent with a JSON a run that is done, or the journal of one that is under way.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import re
import sqlite3
import time
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurogym_v import __version__, cast
from neurogym_v.benchmarks import machine
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.benchmarks.suite import of as suite_of
from neurogym_v.experiment import AgentResult, Experiment, RunConfig, Watcher
from neurogym_v.files import as_json, write_json
from neurogym_v.journal import Journal, JournalError, JournalInUse
from neurogym_v.registry import NEURONS
from neurogym_v.session import Show
from neurogym_v.tracked import Tracked
from neurogym_v.types import NeuroGymError
from neurogym_v.validation import Milestone, Natural

SUITE = "suite.json"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
ANEW = "--refresh begins it anew"
PATIENCE_S = 60.0
"""A worker that lost its scheduler is told so late: it may be at a journal for a while after its run was given to another."""

_LOST: set[str] = set()
"""Trackers of this process that failed or hung."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the results of a suite are."""

    path: Path

    def natural(self, config: RunConfig) -> Path:
        return self.path / "natural" / f"{condition(config)}.json"

    def result(self, task: Task) -> Path:
        return self.path / "agents" / slug(task.agent) / f"{condition(task.config)}.json"

    def journal(self, task: Task) -> Path:
        return self.result(task).with_suffix(".sqlite")

    def open(self, suite: Suite) -> str:
        """Make it, or see that it is this suite's; its own name among all folders of benches.

        Raises:
            NeuroGymError: it holds results of another suite, version or setting.
        """
        file, mine = self.path / SUITE, as_json(dataclasses.asdict(suite) | {"cast": cast.VERSION})
        for key in ("agents", "seeds", "testing"):  # more of them may be added to what is there
            mine.pop(key)
        if not file.exists():
            write_json(file, mine | {"id": uuid.uuid4().hex})
        theirs = read_json(file)
        if different := [key for key in mine if theirs.get(key) != mine[key]]:
            key = different[0]
            raise NeuroGymError(
                f"{self.path}: expected results of {suite.id}, found others ({key}: {theirs.get(key)!r}); choose another --out"
            )
        return str(theirs.get("id", ""))

    def suite(self) -> Suite:
        """Whose results are here: all agents and seeds of which there are any.

        Raises:
            NeuroGymError: it is no folder of a bench, or nothing is done yet.
        """
        file = self.path / SUITE
        if not file.is_file():
            raise NeuroGymError(f"{self.path}: expected the folder of a bench, found no {SUITE} in it")
        told = {key: value for key, value in read_json(file).items() if key not in ("id", "cast")}
        results = [read_result(result) for result in sorted(self.path.glob("agents/*/*.json"))]
        if not results:
            raise NeuroGymError(f"{self.path}: expected a run that is done, found none yet")
        agents = sorted({str(result["agent"]) for result in results})
        seeds = sorted({int(result["config"]["seed"]) for result in results})
        return suite_of(told | {"agents": agents, "seeds": seeds}, where=str(file))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a worker is told of a run."""

    task: Task
    folder: Path
    """Where natural images are measured once, and where runs go on from: on another machine, best a folder that all share."""
    code: str
    """Digest of the agent's code when all was started."""
    suite: str = ""
    bench: str = ""
    """The name of the folder among all."""
    track: tuple[str, ...] = ()
    """Trackers, as for `neurogym-v run`."""


def search(asked: Asked, show: Show | None = None) -> dict[str, Any]:
    """A run, as JSON, be it why it failed; in a worker. `show` is how blocks are shown (see `neurogym_v.session`).

    Raises:
        NeuroGymError: the journal is in use, damaged, or of other settings, or the disk is full.
    """
    task, folder = asked.task, Folder(asked.folder)
    (agent,) = task.config.agents
    settings = as_json(dataclasses.asdict(dataclasses.replace(task.config, device="")))
    path = folder.journal(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path, settings | {"code": asked.code}) as journal:
        if (begun := begun_with(journal)) != (settings, asked.code):
            other = f"other code of {task.agent}" if begun[0] == settings else "other settings"
            raise NeuroGymError(f"{path}: expected a run that was begun as it would be now, found one of {other}; {ANEW}")
        try:
            natural = measured(task.config, folder.natural(task.config))
            found = numbers(_tracked(asked, Experiment(task.config, show), agent, natural, journal), natural)
        except JournalError as error:  # what a journal holds is nobody's result
            raise NeuroGymError(f"{error}; {ANEW}" if "diverged" in str(error) else str(error)) from error
        except Exception as error:  # whatever an agent does, the others go on
            if isinstance(error.__cause__, sqlite3.Error) or getattr(error, "errno", None) in UNWRITABLE:
                raise  # a full disk is nobody's result
            found = {"failed": one_line(error), "traceback": traceback.format_exc()}
    about = {"agent": task.agent, "condition": condition(task.config), "label": task.label, "held_out": task.held_out}
    made_with = {
        "config": settings,
        "code": asked.code,
        "version": __version__,
        "cast": cast.VERSION,
        "versions": machine.versions(),
        "hardware": machine.hardware(task.config.device),
    }
    return about | made_with | found


def begun_with(journal: Journal) -> tuple[dict[str, Any], str]:
    """The settings of a run that was cut off, and the digest of its agent's code."""
    return {key: value for key, value in journal.config.items() if key != "code"}, str(journal.config.get("code", ""))


def _opened(path: Path, settings: dict[str, Any]) -> Journal:
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Journal(path, config=settings)
        except JournalInUse:
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)


def _tracked(asked: Asked, experiment: Experiment, agent: str, natural: Natural, journal: Journal) -> AgentResult:
    """The search, told to trackers; those that failed or hung once in this process are not asked again."""
    config = asked.task.config
    about: dict[str, Any] = {"suite": asked.suite, "id": f"{asked.bench} {condition(config)}"}
    for name in (name for name in asked.track if name not in _LOST):
        try:
            Tracked([name], config, asked.folder, **about)
        except NeuroGymError as error:  # of the tracker, which could be made where the bench was started
            _problems(f"tracker {name}: {error}")
            _LOST.add(name)
    names = [name for name in asked.track if name not in _LOST]
    tracked = Tracked(names, config, asked.folder, **about)
    tracked.say = _problems
    with tracked:
        result = experiment.search(agent, natural, journal, tracked.watcher(experiment.references, Watcher()))
        tracked.finish([result], [])
    _LOST.update(tracked.lost)
    return result


def _problems(line: str) -> None:
    """Of trackers, to the terminal; where each run is tracked would be a line a run."""
    logging.getLogger(__name__).log(logging.WARNING if line.startswith("tracker ") else logging.INFO, line)


def measured(config: RunConfig, file: Path) -> Natural:
    """What natural images do in a condition: the same for all agents, so whoever comes first measures them for all."""
    if not file.exists():
        found = Experiment(dataclasses.replace(config, agents=("random",))).measure()
        write_json(file, found, indent=None)
        return found
    return Natural.from_json(read_json(file))


def numbers(result: AgentResult, natural: Natural) -> dict[str, Any]:
    """All that is said of a run, as JSON."""
    return dict(
        as_json(
            {
                "failed": None,
                "natural": {"best_image": natural.best_image, "best": natural.best, "spontaneous": natural.spontaneous},
                "milestones": [_milestone(milestone, natural) for milestone in result.milestones],
                "incumbents": [[int(spent), natural.activation(score)] for spent, score in result.incumbents],
                "rounds": [[feedback.spent, feedback.mean_rate, feedback.best_rate] for feedback in result.rounds],
                "presentations": result.search_presentations,
                "lost": result.lost_presentations,
                "agent_s": result.agent_s,
                "wall_s": result.wall_s,
                "sanity_check": result.sanity_check,
                "site_lost": result.site_lost,
                "diagnostics": result.diagnostics,
                "norm": float(np.linalg.norm(result.recommended[0]) / np.sqrt(result.recommended.shape[1])),
                "recommended": np.round(result.recommended[0].astype(float), 5),
            }
        )
    )


def _milestone(milestone: Milestone, natural: Natural) -> dict[str, Any]:
    best = float(np.max(milestone.expected))
    return {
        "presentations": milestone.presentations,
        "spent": milestone.spent,
        "score": milestone.score,
        "relative_activation": milestone.relative_activation,
        "best_relative_activation": milestone.best_relative_activation,
        "contrast_matched": milestone.contrast_matched,
        "expected": float(milestone.expected[0]),
        "expected_relative_activation": natural.activation(float(milestone.expected[0])),
        "expected_best_relative_activation": natural.activation(best),
        "shown": milestone.shown[0],
    }


def condition(config: RunConfig) -> str:
    """A name for what agents share: neuron, site, noise, objective and seed."""
    goal = "" if config.objective == "stretch" else f"-{config.objective}"
    return slug(f"{_neuron(config.neuron)}-{config.site}-{config.noise}{goal}-{config.seed}")


def _neuron(name: str) -> str:
    """A neuron in the name of a file: one that does not ship, a file or a callable, is told apart from its namesakes."""
    if name.partition(":")[0] in NEURONS:
        return name
    return f"{Path(name).stem}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def slug(text: str) -> str:
    """As the name of a file."""
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "-", text)


def read_json(path: Path) -> dict[str, Any]:
    """A file of ours.

    Raises:
        NeuroGymError: it is half-written or something else.
    """
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    except (json.JSONDecodeError, UnicodeDecodeError):
        pass
    raise NeuroGymError(f"{path}: expected a finished result, found something else; remove it, and it is made again")


def read_result(path: Path) -> dict[str, Any]:
    """A finished run, as `search` gives it.

    Raises:
        NeuroGymError: it is half-written or something else.
    """
    found = read_json(path)
    if not {"agent", "condition", "config", "code", "failed"} <= found.keys():
        raise NeuroGymError(f"{path}: expected a finished result, found something else; remove it, and it is made again")
    return found


def one_line(error: Exception) -> str:
    """An exception as a table shows it."""
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, NeuroGymError) else f"{type(error).__name__}: {said}"


def forget(journal: Path) -> None:
    """Remove the journal of a run that is done, and what SQLite keeps beside it."""
    for end in ("", "-wal", "-shm"):
        journal.with_name(journal.name + end).unlink(missing_ok=True)
