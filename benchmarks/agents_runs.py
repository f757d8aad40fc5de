"""The runs of `neurogym_v.benchmarks.agents`: each agent on each condition once, and only those that are missing.

A condition is a folder. In its journal natural images are measured once and every agent has a session of its own; beside it
lies a JSON for every agent that is done. A run that was cut off goes on from the journal.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from neurogym_v import cast
from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.engines.local import THREADS, begin_worker, ctrl_c_later
from neurogym_v.benchmarks.progress import progress
from neurogym_v.benchmarks.reduced import OWN_ESTIMATES
from neurogym_v.benchmarks.runs import one_line, slug
from neurogym_v.experiment import Experiment, RunConfig, RunResult
from neurogym_v.files import write_json
from neurogym_v.journal import Journal, JournalError
from neurogym_v.types import NeuroGymError, Rates

BATCH = 40
JOURNAL = "journal.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What agents are compared on: the same neuron with the same luck."""

    neuron: str
    site: int
    noise: str
    seed: int
    budget: int
    generator: str
    device: str = "cpu"

    @property
    def place(self) -> str:
        """What a claim generalises over; seeds and noises are not."""
        return f"{self.neuron}:{self.site}"

    def config(self, *agents: str) -> RunConfig:
        return RunConfig(agents=agents, batch_size=BATCH, **dataclasses.asdict(self))

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside its agent, as JSON gives it back."""
        config = dataclasses.asdict(self.config("random")) | {"cast": cast.VERSION}
        kept = {key: value for key, value in config.items() if key not in ("agents", "device")}
        return dict(json.loads(json.dumps(kept)))

    def folder(self, out: Path) -> Path:
        return out / slug(self.noise) / slug(f"{Path(self.neuron).stem}-{self.site}-{self.seed}")

    def file(self, agent: str, out: Path) -> Path:
        return self.folder(out) / f"{slug(agent)}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one agent came to on one condition; numbers are NaN where it failed."""

    condition: Condition
    agent: str
    failed: str | None = None
    """Why, in one line."""
    outdated: bool = False
    """The agent's code, or that which it rests on, has changed since."""
    relative_activation: float = float("nan")
    expected_relative_activation: float = float("nan")
    final_hz: float = float("nan")
    expected_final_hz: float = float("nan")
    """Noise-free."""
    own_hz: float = float("nan")
    """What the agent itself expects of the image that it recommends; NaN where it does not say."""
    norm: float = float("nan")
    """Of the recommended latent, in units of sqrt(d)."""
    agent_s: float = float("nan")
    presentations: int = 0
    """Of the search, natural images that the agent asked for included."""
    sanity_check: bool = False
    spent: Rates = dataclasses.field(default_factory=lambda: np.empty(0))
    """(m,) presentations used when each of the search's images had been shown."""
    rates: Rates = dataclasses.field(default_factory=lambda: np.empty(0))
    """(m,) spikes/s of each; NaN marks a lost trial."""


def do(condition: Condition, agent: str, out: Path, code: str | None = None) -> None:
    """Run an agent on a condition and write what came of it, be it why it failed; `code` as of when all was started.

    Raises:
        NeuroGymError: the journal is in use, damaged, or of other settings.
    """
    folder = condition.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    code = code_of(agent) if code is None else code  # before it runs: a file that is edited meanwhile is not what ran
    with Journal(folder / JOURNAL, config=condition.settings) as journal:
        _check(folder / JOURNAL, condition, journal.config)
        try:
            found = _numbers(Experiment(condition.config(agent)).run(journal))
        except Exception as error:  # whatever an agent does, the others go on
            if isinstance(error, JournalError) and isinstance(error.__cause__, sqlite3.Error):
                raise  # a full disk is nobody's result
            found = {"failed": one_line(error), "traceback": traceback.format_exc()}
    whole = {"agent": agent, "code": code, "settings": condition.settings} | found
    write_json(condition.file(agent, out), whole, indent=None)


def read(condition: Condition, agent: str, out: Path) -> Outcome | None:
    """What a finished run found, or None.

    Raises:
        NeuroGymError: it was made with other settings, or is no such file.
    """
    file = condition.file(agent, out)
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        _check(file, condition, found["settings"])
        if found["agent"] != agent:
            raise NeuroGymError(f"{file}: expected a run of {agent}, found one of {found['agent']}; choose another --out")
        outdated = found.get("code") != code_of(agent)
        if found["failed"] is not None:
            return Outcome(condition=condition, agent=agent, outdated=outdated, failed=found["failed"])
        rounds = [(spent, rates) for spent, rates in found["rounds"]]
        return Outcome(
            condition=condition,
            agent=agent,
            outdated=outdated,
            relative_activation=_float(found["relative_activation"]),
            expected_relative_activation=_float(found["expected_relative_activation"]),
            final_hz=_float(found["final_hz"]),
            expected_final_hz=_float(found["expected_final_hz"]),
            own_hz=_float(next((found["diagnostics"][key] for key in OWN_ESTIMATES if key in found["diagnostics"]), None)),
            norm=_float(found["norm"]),
            agent_s=_float(found["agent_s"]),
            presentations=found["presentations"],
            sanity_check=found["sanity_check"],
            spent=np.concatenate([np.arange(spent - len(rates), spent) + 1.0 for spent, rates in rounds]),
            rates=np.array([_float(rate) for _, rates in rounds for rate in rates]),
        )
    except (json.JSONDecodeError, KeyError, TypeError):
        raise NeuroGymError(f"{file}: expected a finished run, found something else; remove it") from None


def forget(condition: Condition, agent: str, out: Path) -> None:
    """Remove what an agent did on a condition: its session first, so that a kill leaves no result without one."""
    journal = condition.folder(out) / JOURNAL
    if journal.is_file():
        with Journal(journal, config=condition.settings) as opened:  # refuses what is damaged, or in use just now
            _check(journal, condition, opened.config)
            opened.forget(agent)
    condition.file(agent, out).unlink(missing_ok=True)


def do_all(missing: Sequence[tuple[Condition, str]], out: Path, *, jobs: int, done: int, console: Console) -> None:
    """Do these runs in this order, `jobs` at a time with one thread each; `done` have been already.

    Runs on one condition share its journal and never overlap: the next one whose condition is free starts.
    """
    waiting, running = list(missing), dict[Future[None], Condition]()
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the workers' libraries when they are loaded
    codes = {agent: code_of(agent) for _, agent in missing}
    spawn = get_context("spawn")  # a forked process inherits the threads of torch in an unknown state
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=begin_worker)
    with progress(console) as bar:
        task = bar.add_task("agents on conditions", total=done + len(missing), completed=done)
        try:
            while waiting or running:
                busy = set(running.values())
                while len(running) < jobs and (pair := next((pair for pair in waiting if pair[0] not in busy), None)):
                    waiting.remove(pair)
                    busy.add(pair[0])
                    with ctrl_c_later():
                        running[pool.submit(do, *pair, out, codes[pair[1]])] = pair[0]
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    running.pop(future)
                    future.result()
                    bar.advance(task)
        except BrokenProcessPool:
            raise NeuroGymError(
                "a process was killed, perhaps for its memory; the same command goes on (fewer --jobs?)"
            ) from None
        finally:  # a journal is whole at any time: an error, or Ctrl-C, waits for nothing
            if running:
                for worker in active_children():
                    worker.terminate()
            pool.shutdown(cancel_futures=True)


def _numbers(result: RunResult) -> dict[str, Any]:
    (agent,) = result.agents
    natural, latent = result.natural, agent.recommended[0]
    return {
        "failed": None,
        "relative_activation": agent.relative_activation.value,
        "interval": [agent.relative_activation.low, agent.relative_activation.high],
        "expected_relative_activation": agent.expected_relative_activation,
        "final_hz": agent.final.value,
        "expected_final_hz": agent.expected_final,
        "natural_hz": natural.best.value,
        "spontaneous_hz": natural.spontaneous.value,
        "best_image": natural.best_image,
        "norm": float(np.linalg.norm(latent) / np.sqrt(len(latent))),
        "presentations": agent.search_presentations,
        "lost": agent.lost_presentations,
        "wall_s": round(agent.wall_s, 3),
        "agent_s": round(agent.agent_s, 4),
        "sanity_check": agent.sanity_check,
        "site_lost": agent.site_lost,
        "diagnostics": dict(agent.diagnostics),
        "recommended": [round(float(z), 6) for z in latent],
        "rounds": [[feedback.spent, [round(float(rate), 3) for rate in feedback.rates]] for feedback in agent.rounds],
    }


def _check(file: Path, condition: Condition, theirs: Any) -> None:
    for key, mine in condition.settings.items():
        if theirs.get(key) != mine:
            raise NeuroGymError(
                f"{file}: expected a run with {key} {mine}, found {theirs.get(key, 'none')}; "
                "choose another --out, or the settings that were used"
            )


def _float(number: float | None) -> float:
    return float("nan") if number is None else float(number)
