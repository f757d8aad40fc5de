"""Does an entry reproduce? Some of its runs are done again, from the file alone, and the numbers are held against each other.

Where machine, versions and code are those of the entry, every number must come out as it is. Elsewhere sums are rounded in
another order, and a search that meets another number in the 16th digit soon goes another way: it is as good as a search with
another seed. So sites are searched several times here, and these searches say by how much numbers may differ: never the entry,
whose author would choose it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.engines import Engine
from neurogym_v.benchmarks.leaderboard.checks import identity, named
from neurogym_v.benchmarks.leaderboard.entry import Entry, run_of
from neurogym_v.benchmarks.machine import alike
from neurogym_v.benchmarks.reduced import IDENTITY, NUMBERS, Run, hits_of, number
from neurogym_v.benchmarks.runs import Asked, Folder, search
from neurogym_v.benchmarks.suite import Suite, Task
from neurogym_v.env import NeuronEnv
from neurogym_v.experiment import Experiment, agent_seed, is_sanity_check
from neurogym_v.naming import split
from neurogym_v.registry import agents, make_agent
from neurogym_v.types import NeuroGymError
from neurogym_v.validation import REPEATS

FALSE_ALARM = 0.01
"""Chance that an honest entry is said not to reproduce on another machine, over all numbers compared, if they are normal with
one s.d.; `python -m neurogym_v.benchmarks.leaderboard.alarms` says what it is where they are not."""
AGAIN = 4
"""Searches of a site on another machine: with seeds of the suite, and with others where it has fewer."""
ROUNDING = 0.01
"""Relative activations that differ by less are the same on another machine; so are rates, by the best natural image's."""
LEAST = {"share": 0.05, "log": 1.0}
"""... and by how much others may differ, by the first word of their name: counts, which few searches may all have alike."""
OWN = {"agent_s", "wall_s"}
"""What no run has twice."""
Place = tuple[Any, ...]
"""What tells a run apart, but for its seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """One run of an entry, or on another machine all of a site, done again."""

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
    """Do a random sample of the runs again; where no number need be the same, AGAIN searches of as many sites.

    Whose model is made of the neuron's own kind of network is found without a search: of all runs, and before any is done.

    Args:
        suite: that the entry is of (see `checks.check`).
        entry: of an agent that may be made (see `trusted`).
        engine: where they are done.
        rng: draws the runs.
        runs: how many, or of how many sites; all of them, if the entry has fewer.
        device: of generator and neuron.

    Raises:
        NeuroGymError: on another machine, no two searches of a site come to a number that the entry has.
    """
    if runs and (wrong := _unfair(suite, entry, device)):
        return wrong
    if alike(entry, device) and entry["code"] in ("", code_of(entry["agent"])):
        sample = [entry["runs"][at] for at in _drawn(rng, len(entry["runs"]), runs)]
        again = _again(suite, entry["agent"], [identity(run) for run in sample], engine, device)
        return [same(run, other) for run, other in zip(sample, again, strict=True)]
    sites: dict[Place, list[Run]] = {}
    for run in entry["runs"]:
        sites.setdefault(identity(run)[:-1], []).append(run)
    chosen = [list(sites)[at] for at in _drawn(rng, len(sites), runs)]
    others = (seed for seed in range(len(suite.seeds) + AGAIN) if seed not in suite.seeds)
    seeds = [*suite.seeds, *others][:AGAIN]
    again = _again(suite, entry["agent"], [(*place, seed) for place in chosen for seed in seeds], engine, device)
    return judged([(sites[place], again[at * AGAIN : (at + 1) * AGAIN]) for at, place in enumerate(chosen)])


def same(run: Run, again: Run) -> Rerun:
    """A run and the same done again, where every number must be what it is."""
    name = named(identity(run))
    if run["failed"] is not None or again["failed"] is not None:
        theirs, ours = run["failed"], again["failed"]
        said = f"failed: {theirs or 'not'} in the entry, {ours or 'not'} here"
        return Rerun(run=name, reproduces=(theirs is None) == (ours is None), exactly=theirs == ours, said=said)
    different = [key for key in again if key not in OWN and again[key] != run[key]]
    there, here = numbers(run), numbers(again)
    apart = {key: abs(value - here[key]) for key, value in there.items() if not (np.isnan(value) and np.isnan(here[key]))}
    worst = max((key for key in apart if apart[key] != 0), key=lambda key: np.nan_to_num(apart[key], nan=np.inf), default=None)
    what = f"{worst} is {there[worst]:.6g} in the entry and {here[worst]:.6g} here" if worst else f"other {different[:1]}"
    return Rerun(run=name, reproduces=not different, exactly=not different, said=what if different else "every number")


def judged(sites: Sequence[tuple[Sequence[Run], Sequence[Run]]]) -> list[Rerun]:
    """Of each site, the entry's runs and searches done again: by how much may means of m of these and n of those differ?

    By t s sqrt(1/m + 1/n): s is the s.d. over seeds of the searches done again, pooled over sites, or that of the site itself
    where it is more; t is Student's quantile, with the degrees of freedom of all sites, that any of all numbers compared is
    beyond with the chance FALSE_ALARM at most. Compared are the mean of all runs of the entry, and each alone.

    Raises:
        NeuroGymError: a number is known of no two searches of a site.
    """
    found = [_numbers(*site) for site in sites]
    checks = max(1, sum(len(there) + (len(there) > 1) for site in found for there, _ in site.values()))
    allowed: dict[str, tuple[float, float]] = {}
    for name in dict.fromkeys(name for site in found for name in site):
        known = [_known(site[name][1]) for site in found if name in site]
        freedom = sum(len(one) - 1 for one in known if len(one))
        if freedom:
            variance = sum(((one - one.mean()) ** 2).sum() for one in known if len(one)) / freedom
            allowed[name] = float(stats.t.ppf(1 - FALSE_ALARM / (2 * checks), freedom)), float(np.sqrt(variance))
        elif any(map(len, known)):
            raise NeuroGymError(f"{name}: expected two searches of a site that come to a number, found one: do more --runs")
    return [_verdict(*site, values, allowed) for site, values in zip(sites, found, strict=True)]


def numbers(run: Run, unit: float = 1.0) -> dict[str, float]:
    """What is compared, but for `sanity_check`: name -> a number; NaN where no one knows it.

    Args:
        run: that did not fail.
        unit: of rates: that of the best natural image, as it was found here.
    """
    said: dict[str, float] = {}
    budget = run["milestones"][-1]["presentations"]
    for milestone in run["milestones"]:
        for key in NUMBERS:
            said[f"{key.replace('_', ' ')} at {milestone['presentations']}"] = number(milestone[key])
    for name, moments in run["test"].items():
        said |= {f"{part} of {name}": number(moments[part]) / unit for part in ("mean", "sd")}
        said[f"share of {name} answered"] = moments["n"] / REPEATS
    return said | {
        "area": number(run["area"]),
        "log presentations to targets": float(np.log(np.clip(hits_of(run), 1, budget)).mean()),
        "share of presentations": run["presentations"] / budget,
        "share of lost": run["lost"] / max(1, run["presentations"]),
        "optimism": float(np.arcsinh(number(run["optimism"]))),
    }


def _numbers(there: Sequence[Run], here: Sequence[Run]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Name -> that of the runs of the entry, and of those done again, that did not fail; nothing, if all of either did."""
    theirs, ours = ([run for run in runs if run["failed"] is None] for runs in (there, here))
    if not theirs or not ours:
        return {}
    natural = _known(np.array([number(run["test"]["natural"]["mean"]) for run in ours]))
    unit = float(natural.mean()) if len(natural) and natural.mean() > 0 else 1.0
    read = [[numbers(run, unit) for run in runs] for runs in (theirs, ours)]
    values = ({name: np.array([one[name] for one in runs]) for name in read[0][0]} for runs in read)
    first, second = values
    return {name: (first[name], second[name]) for name in first}


def _verdict(
    there: Sequence[Run],
    here: Sequence[Run],
    values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    allowed: Mapping[str, tuple[float, float]],
) -> Rerun:
    """Of a site; `allowed` is t and the pooled s of each number."""
    seeds = " and ".join(str(run["seed"]) for run in there)
    name = named((*identity(there[0])[:-1], seeds))
    theirs, ours = ([run["failed"] for run in runs if run["failed"] is not None] for runs in (there, here))
    if not values or (theirs and not ours):
        fits = bool(theirs) == bool(ours)
        said = f"failed: {theirs[0] if theirs else 'not'} in the entry, {ours[0] if ours else 'not'} here"
        return Rerun(run=name, reproduces=fits, exactly=False, said=said)
    fair = {run["sanity_check"] for run in here if run["failed"] is None}
    if wrong := [run["sanity_check"] for run in there if run["failed"] is None and run["sanity_check"] not in fair]:
        return Rerun(run=name, reproduces=False, exactly=False, said=f"sanity_check is {wrong[0]} in the entry, not here")
    worst, said = -1.0, "no number is known"
    for key, (entry, again) in values.items():
        first, second = _known(entry), _known(again)
        if len(first) < len(entry) and len(second) == len(again):
            return Rerun(run=name, reproduces=False, exactly=False, said=f"{key} is not known in the entry, and known here")
        if len(first) and not len(second):
            return Rerun(run=name, reproduces=False, exactly=False, said=f"{key} is known in the entry, and not known here")
        if len(first):
            least = next((least for word, least in LEAST.items() if key.startswith(word)), ROUNDING)
            t, pooled = allowed[key]
            sd, middle = max(pooled, float(second.std(ddof=1)) if len(second) > 1 else 0.0), second.mean()
            for value, of in [(first.mean(), len(first)), *((value, 1) for value in first)]:
                apart, may = abs(value - middle), max(least, t * sd * np.sqrt(1 / of + 1 / len(second)))
                if apart / may > worst:
                    worst = apart / may
                    said = f"{key} is {value:.3f} in the entry and {middle:.3f} here, and may differ by {may:.3f}"
    return Rerun(run=name, reproduces=bool(worst <= 1), exactly=False, said=said)


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _drawn(rng: np.random.Generator, of: int, count: int) -> list[int]:
    """Places, in their order."""
    return sorted(int(at) for at in rng.choice(of, size=min(count, of), replace=False))


def sanity_checks(tasks: Sequence[Task]) -> dict[tuple[str, str], bool]:
    """(neuron, agent as it is made there) -> whether the agent looks through a network of the neuron's own family."""
    found: dict[tuple[str, str], bool] = {}
    for config in (task.config for task in tasks):
        (agent,) = config.agents
        if (config.neuron, agent) not in found:
            made = Experiment(config)
            size = config.batch_size
            env = NeuronEnv(
                neuron=made.neuron, generator=made.generator, site=config.site, budget=config.budget, batch_size=size
            )
            seen = make_agent(agent, env.spec_for_agents, batch_size=size, seed=agent_seed(config.entropy))
            found[config.neuron, agent] = is_sanity_check(seen, made.neuron)
    return found


def _unfair(suite: Suite, entry: Entry, device: str) -> list[Rerun]:
    """Of each neuron the first run that says of itself that it is a sanity check and is none, or the other way round."""
    finished = {identity(run): run for run in entry["runs"] if run["failed"] is None}
    tasks = {_identity(task): task for task in suite.tasks([entry["agent"]], device=device) if _identity(task) in finished}
    truth = sanity_checks(list(tasks.values()))
    wrong: dict[str, Rerun] = {}
    for key, task in tasks.items():
        says, here = finished[key]["sanity_check"], truth[task.config.neuron, task.config.agents[0]]
        if says != here:
            said = f"sanity_check is {says} in the entry and {here} here"
            wrong.setdefault(task.config.neuron, Rerun(run=named(key), reproduces=False, exactly=False, said=said))
    return list(wrong.values())


def _identity(task: Task) -> tuple[Any, ...]:
    return tuple(getattr(task.config, key) for key in IDENTITY)


def _again(suite: Suite, agent: str, sample: Sequence[Place], engine: Engine, device: str) -> list[Run]:
    """The runs of this identity, by what their suite and their agent's name say and nothing else."""
    seeds = list(dict.fromkeys(one[-1] for one in sample))
    tasks = {_identity(task): task for task in suite.tasks([agent], seeds, device)}
    work: Callable[[Asked], dict[str, Any]] = search
    with tempfile.TemporaryDirectory() as made:
        folder = Folder(Path(made))
        asked = [Asked(task=tasks[one], folder=folder.path, code="") for one in sample]
        results = dict(engine.each(work, asked))
        done = [(one.task, results[at]) for at, one in enumerate(asked)]
        return [run_of(task, result, suite.budget) for task, result in done]
