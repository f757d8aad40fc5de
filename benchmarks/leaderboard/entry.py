"""An entry: all runs of one agent on a suite in one JSON file, from which standings, pages and checks are made."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurogym_v import __version__, cast
from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.reduced import reduced
from neurogym_v.benchmarks.runs import Folder, condition, read_result, slug
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.files import as_json
from neurogym_v.naming import GIVEN
from neurogym_v.registry import agent_class
from neurogym_v.types import NeuroGymError

SCHEMA = 1
SIGNED = "sha256"
TEXTS = ("title", "about", "citation", "agents", "testing")
"""Parts of a suite that no result depends on."""
LONGEST = 80
"""Letters of a file's name, about."""
Entry = Mapping[str, Any]
"""As schema.json says."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a submitter adds to what the runs say."""

    by: str | None = None
    note: str | None = None
    date: str
    """YYYY-MM-DD"""
    source: str | None = None
    """The suite as it was named; None: by its own name."""
    outdated: bool = False
    """Runs of earlier code are welcome."""


def entry_of(suite: Suite, agent: str, folder: Folder, said: Said) -> dict[str, Any]:
    """The entry of an agent whose runs are all done.

    Raises:
        NeuroGymError: runs are missing, or were made with different code, or with other code or versions than there are now.
    """
    tasks = suite.tasks([agent])
    _complete(agent, tasks, folder)
    results = [read_result(folder.result(task)) for task in tasks]
    code = _code(agent, tasks, results, said)
    runs = [run_of(task, result, suite.budget) for task, result in zip(tasks, results, strict=True)]
    made = {
        "schema": SCHEMA,
        "suite": {"id": suite.id, "digest": digest(suite)},
        "cast": cast.VERSION,
        "agent": agent,
        "by": said.by,
        "note": said.note,
        "date": said.date,
        "command": command(suite, agent, said, results[0]["hardware"]["device"]),
        "parameters": parameters(agent),
        "code": code,
        "versions": _shared("versions", results) | {"neurogym-v": str(results[0]["version"])},
        "hardware": _shared("hardware", results),
        "wall_s": sum(run.get("wall_s", 0.0) for run in runs),
        "runs": runs,
    }
    return signed(as_json(made))


def run_of(task: Task, result: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """A run as an entry holds it."""
    about = {"label": task.label, "held_out": task.held_out}
    if result["failed"] is not None:
        return reduced({**result, "failed": shown(result["failed"])}, budget) | about
    more = {
        "lost": result["lost"],
        "wall_s": result["wall_s"],
        "natural_image": result["natural"]["best_image"],
        "recommended": base64.b64encode(np.array(result["recommended"], dtype="<f2").tobytes()).decode(),
    }
    return reduced(result, budget) | about | more


def signed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """With the digest of all else."""
    rest = {key: value for key, value in entry.items() if key != SIGNED}
    return rest | {SIGNED: hashlib.sha256(canonical(rest)).hexdigest()}


def text_of(entry: Entry) -> str:
    """As it is written: a line a field, and a line a run."""
    runs = ",\n  ".join(json.dumps(run, allow_nan=False) for run in entry["runs"])
    fields = {key: json.dumps(value, allow_nan=False) for key, value in entry.items()} | {"runs": f"[\n  {runs}\n ]"}
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {value}" for key, value in fields.items()) + "\n}\n"


def canonical(value: Any) -> bytes:
    """JSON that is the same wherever it is made."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest(suite: Suite) -> str:
    """Of what is run, whatever is written about it."""
    run = {key: value for key, value in as_json(suite).items() if key not in TEXTS}
    return hashlib.sha256(canonical(run)).hexdigest()


def path_of(folder: Path, suite_id: str, agent: str) -> Path:
    """Where an entry is kept; a name never leads out of the folder."""
    name = slug(agent)
    if len(name) > LONGEST or name.startswith("."):
        name = f"{name[:LONGEST].strip('.')}-{hashlib.sha256(agent.encode()).hexdigest()[:8]}"
    return folder / slug(suite_id) / f"{name}.json"


def parameters(agent: str) -> dict[str, Any]:
    """Everything that an agent is made with: defaults, the preset, and what is written."""
    cls, given = agent_class(agent)
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        and name not in GIVEN
        and parameter.default is not inspect.Parameter.empty
    }
    return dict(json.loads(json.dumps(as_json(default | given), default=str)))


def command(suite: Suite, agent: str, said: Said, device: str) -> str:
    """What makes the runs; a `device` that is no cpu has the name of a GPU."""
    options = [] if device == "cpu" else ["--device", "cuda"]
    return shlex.join(["neurogym-v", "bench", Path(said.source or suite.name).name, "--agents", agent, *options])


def latent(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(d,) what is kept of a recommended latent."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)


def _shared(key: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What results say of the machine; where they were made on several, all that is said, in one text."""
    said = {name: list(dict.fromkeys(result[key][name] for result in results)) for name in results[0][key]}
    return {name: max(values) if name == "cores" else "; ".join(map(str, values)) for name, values in said.items()}


def _complete(agent: str, tasks: Sequence[Task], folder: Folder) -> None:
    missing = [condition(task.config) for task in tasks if not folder.result(task).is_file()]
    if missing:
        few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise NeuroGymError(
            f"{folder.path}: expected all {len(tasks)} runs of {agent}, {len(missing)} are missing ({few}); the same "
            "neurogym-v bench goes on"
        )


def _code(agent: str, tasks: Sequence[Task], results: Sequence[Mapping[str, Any]], said: Said) -> str:
    """The digest of the code that all runs were made with."""
    made_with = [(result["version"], result["cast"], result["code"]) for result in results]
    if other := sorted({str(one) for one in made_with if one != made_with[0]}):
        count = sum(one != made_with[0] for one in made_with)
        raise NeuroGymError(
            f"{agent}: expected all runs with one version, cast and code, got {made_with[0]} and {count} with {other[0]}; "
            "remove the older ones and bench again"
        )
    now = (__version__, cast.VERSION, code_of(tasks[0].config.agents[0]))
    if made_with[0][1] != now[1]:
        raise NeuroGymError(f"{agent}: expected runs on cast {now[1]}, got some on cast {made_with[0][1]}; bench again")
    if made_with[0] != now and not said.outdated:
        raise NeuroGymError(
            f"{agent}: expected runs of the version and code of today, {now}, got {made_with[0]}; bench again, or --outdated"
        )
    return str(made_with[0][2])


def shown(text: object) -> str:
    """What an agent said when it failed, as one line of no more letters than an entry holds."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:500]
