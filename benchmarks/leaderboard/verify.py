"""Does an entry reproduce? Some of its runs are done again, from the file alone, and the numbers are held against each other.

Where machine, versions and code are those of the entry, every number must come out as it is. Elsewhere sums are rounded in
another order, and a search that meets another number in the 16th digit soon goes another way: it is as good as a search with
another seed. So the entry says itself by how much numbers may differ: by what its own seeds do at a site.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.engines import Engine
from neurogym_v.benchmarks.leaderboard.checks import identity, named
from neurogym_v.benchmarks.leaderboard.entry import Entry, run_of
from neurogym_v.benchmarks.machine import alike
from neurogym_v.benchmarks.reduced import IDENTITY, NUMBERS, Run, number
from neurogym_v.benchmarks.runs import Asked, Folder, search
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.naming import split
from neurogym_v.registry import agents
from neurogym_v.types import NeuroGymError

FALSE_ALARM = 0.01
"""Chance that an honest entry is said not to reproduce on another machine, over all numbers compared, if they are normal with
one s.d.; `python -m neurogym_v.benchmarks.leaderboard.alarms` says what it is where they are not."""
ROUNDING = 0.01
"""Relative activations that differ by less are the same on another machine."""
OWN = {"agent_s", "wall_s"}
"""What no run has twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """One run of an entry, done again."""

    run: str
    reproduces: bool
    exactly: bool
    said: str
    """What was compared, or what differs, in a line."""


def trusted(agent: str, named_again: Sequence[str]) -> None:
    """Nothing, if this agent may be made: by a name of ours or of an installed package, with parameters that name no code.

    Raises:
        NeuroGymError: it is MODULE:CLASS, or looks through MODULE:CALLABLE, and the user has not repeated this very name.
    """
    if agent in named_again:
        return
    base, _, written = split(agent)
    if base not in agents() or any(isinstance(value, str) and ":" in value for value in written.values()):
        raise NeuroGymError(
            f"agent {agent!r}: expected a name of `neurogym-v list`, as an entry must not choose which code is run; if you "
            f"trust it, repeat the name: --agent {agent!r}"
        )


def verify(
    suite: Suite, entry: Entry, engine: Engine, rng: np.random.Generator, *, runs: int = 3, device: str = "cpu"
) -> list[Rerun]:
    """Do a random sample of the runs again.

    Args:
        suite: that the entry is of (see `checks.check`).
        entry: of an agent that may be made (see `trusted`).
        engine: where they are done.
        rng: draws the runs.
        runs: how many; all of them, if the entry has fewer.
        device: of generator and neuron.

    Raises:
        NeuroGymError: on another machine, no site of the entry has two runs to compare.
    """
    chosen = rng.choice(len(entry["runs"]), size=min(runs, len(entry["runs"])), replace=False)
    sample = [entry["runs"][place] for place in sorted(chosen.tolist())]
    exactly = alike(entry, device) and entry["code"] in ("", code_of(entry["agent"]))
    allowed = {} if exactly else tolerances(entry["runs"], checks=sum(len(numbers(run)) for run in sample))
    again = _again(suite, entry["agent"], sample, engine, device)
    return [compare(run, other, None if exactly else allowed) for run, other in zip(sample, again, strict=True)]


def compare(run: Run, again: Run, allowed: Mapping[str, float] | None) -> Rerun:
    """A run and the same done again; `allowed` is by how much each number may differ, None: not at all."""
    name = named(identity(run))
    if run["failed"] is not None or again["failed"] is not None:
        theirs, ours = run["failed"], again["failed"]
        said = f"failed: {theirs or 'not'} in the entry, {ours or 'not'} here"
        return Rerun(run=name, reproduces=(theirs is None) == (ours is None), exactly=theirs == ours, said=said)
    there, here = numbers(run), numbers(again)
    apart = {key: abs(value - here[key]) for key, value in there.items() if not (np.isnan(value) and np.isnan(here[key]))}
    if allowed is None:
        different = [key for key in again if key not in OWN and again[key] != run[key]]
        worst = max(
            (key for key in apart if apart[key] != 0), key=lambda key: np.nan_to_num(apart[key], nan=np.inf), default=None
        )
        what = f"{worst} is {there[worst]:.6g} in the entry and {here[worst]:.6g} here" if worst else f"other {different[:1]}"
        return Rerun(run=name, reproduces=not different, exactly=not different, said=what if different else "every number")
    worst = max(apart, key=lambda key: np.nan_to_num(apart[key] / allowed[key], nan=np.inf), default=None)
    if worst is None:
        return Rerun(run=name, reproduces=True, exactly=False, said="no number is known")
    said = f"{worst} is {there[worst]:.3f} in the entry and {here[worst]:.3f} here, and may differ by {allowed[worst]:.3f}"
    return Rerun(run=name, reproduces=bool(apart[worst] <= allowed[worst]), exactly=False, said=said)


def tolerances(runs: Sequence[Run], *, checks: int) -> dict[str, float]:
    """By how much each number of `numbers` may differ, when so many are compared: t sqrt(2) s.

    s is the s.d. over seeds at a site, pooled over sites, with as many degrees of freedom as there are runs beyond the first of
    each site; two runs of one site differ by sqrt(2) s. t is Student's quantile that any of `checks` numbers is beyond with the
    chance FALSE_ALARM at most.

    Raises:
        NeuroGymError: no site has two runs.
    """
    sites: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for run in runs:
        if run["failed"] is None:
            sites.setdefault(tuple(run[key] for key in IDENTITY if key != "seed"), []).append(numbers(run))
    names = dict.fromkeys(name for site in sites.values() for one in site for name in one)
    found: dict[str, float] = {}
    for name in names:
        values = [np.array([one[name] for one in site]) for site in sites.values()]
        values = [known for one in values if len(known := one[np.isfinite(one)]) > 1]
        freedom = sum(len(one) - 1 for one in values)
        if not freedom:
            raise NeuroGymError(
                "expected sites with two seeds, which say by how much a number may differ on another machine or with other "
                "versions than the entry's, found none"
            )
        variance = sum(((one - one.mean()) ** 2).sum() for one in values) / freedom
        t = stats.t.ppf(1 - FALSE_ALARM / (2 * max(1, checks)), freedom)
        found[name] = max(ROUNDING, float(t * np.sqrt(2 * variance)))
    return found


def numbers(run: Run) -> dict[str, float]:
    """What is compared on another machine: name -> relative activation; NaN where no one knows it."""
    if run["failed"] is not None:
        return {}
    said = {
        f"{key.replace('_', ' ')} at {milestone['presentations']}": number(milestone[key])
        for milestone in run["milestones"]
        for key in NUMBERS
    }
    return said | {"area": number(run["area"])}


def _again(suite: Suite, agent: str, sample: Sequence[Run], engine: Engine, device: str) -> list[Run]:
    """The same runs, by what their suite and their agent's name say and nothing else."""
    tasks = {tuple(getattr(task.config, key) for key in IDENTITY): task for task in suite.tasks([agent], device=device)}
    work: Callable[[Asked], dict[str, Any]] = search
    with tempfile.TemporaryDirectory() as made:
        folder = Folder(Path(made))
        asked = [Asked(task=tasks[identity(run)], folder=folder.path, code="") for run in sample]
        results = dict(engine.each(work, asked))
        done = [(one.task, results[at]) for at, one in enumerate(asked)]
        return [run_of(task, result, suite.budget) for task, result in done]
