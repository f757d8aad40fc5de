"""Whether an entry can be what it says: the runs of this suite, each once, with numbers that fit each other."""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from neurogym_v import cast
from neurogym_v.benchmarks.leaderboard.entry import Entry, digest, latent
from neurogym_v.benchmarks.reduced import ESTIMATES, IDENTITY, Run, hits_of, number
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.types import NeuroGymError
from neurogym_v.validation import REPEATS

NOBODY = "random"
"""Any agent of ours: which runs a suite has does not depend on who runs, and an entry's agent must not be imported here."""
CLOSE = 1e-6
"""Relative activations that are the same but for rounding."""
SHOWN = ("final", "natural", "spontaneous")
"""In turn, REPEATS times."""


def check(entry: Entry, suite: Suite, where: str) -> None:
    """Nothing, if the entry is of this suite and its numbers fit.

    Raises:
        NeuroGymError: the first thing that does not.
    """
    for wrong in _wrong(entry, suite):
        raise NeuroGymError(f"{where}: {wrong}")


def _wrong(entry: Entry, suite: Suite) -> Iterator[str]:
    if entry["suite"]["id"] != suite.id:
        yield f"expected an entry of {suite.id}, found one of {entry['suite']['id']}"
    if entry["suite"]["digest"] != digest(suite):
        yield f"expected the sites and settings of {suite.id} as they are here, found others under this name"
    if entry["cast"] != cast.VERSION:
        yield f"expected cast {cast.VERSION}, found {entry['cast']}"
    asked = {
        tuple(getattr(task.config, key) for key in IDENTITY): {"label": task.label, "held_out": task.held_out}
        for task in suite.tasks([NOBODY])
    }
    found = [identity(run) for run in entry["runs"]]
    if strangers := [one for one in found if one not in asked]:
        yield f"expected runs of {suite.id}, found another: {named(strangers[0])}"
    if len(set(found)) < len(found):
        yield f"expected every run once, found twice: {named(next(one for one in found if found.count(one) > 1))}"
    if missing := [one for one in asked if one not in set(found)]:
        yield f"expected all {len(asked)} runs of {suite.id}, {len(missing)} are missing, such as {named(missing[0])}"
    allowed = sorted({*suite.report_at, suite.budget})
    for run in entry["runs"]:
        for key, value in asked[identity(run)].items():
            if run[key] != value:
                yield f"{named(identity(run))}: expected {key} {value!r} as in the suite, found {run[key]!r}"
        if run["failed"] is None:
            yield from (f"{named(identity(run))}: {one}" for one in _unfit(run, allowed))


def identity(run: Run) -> tuple[Any, ...]:
    """What tells it apart."""
    return tuple(run[key] for key in IDENTITY)


def named(identity: tuple[Any, ...]) -> str:
    """As a reader says it."""
    neuron, site, noise, objective, seed = identity
    return f"{neuron}, site {site}, {noise}, {objective}, seed {seed}"


def _unfit(run: Run, allowed: list[int]) -> Iterator[str]:
    budget = allowed[-1]
    if (at := [m["presentations"] for m in run["milestones"]]) != allowed:
        yield f"expected scores after {allowed} presentations, found {at}"
    for milestone in run["milestones"]:
        for key in ESTIMATES:
            value, low, high = (number(milestone[key][part]) for part in ("value", "low", "high"))
            if low > value or value > high:
                yield f"expected {key} within its interval, found {value:g} and [{low:g}, {high:g}]"
    if run["presentations"] > budget or run["lost"] > run["presentations"]:
        found = f"{run['presentations']} and {run['lost']}"
        yield f"expected at most {budget} presentations, and no more of them lost, found {found}"
    hits = hits_of(run)
    if (hits[1:] < hits[:-1]).any() or (np.isfinite(hits) & (hits > budget)).any():
        yield f"expected targets reached one after the other within {budget} presentations, found {run['hits']}"
    yield from _untested(run)
    yield from _undrawable(run)


def _untested(run: Run) -> Iterator[str]:
    """The score of the end is what its repeats come to."""
    test: Mapping[str, Any] = run["test"]
    for name in (*SHOWN, "difference"):
        moments = test[name]
        n, unknown = moments["n"], [moments[key] is None for key in ("mean", "sd")]
        if n > REPEATS or unknown != [n < 1, n < 2]:
            yield f"expected mean and s.d. of at most {REPEATS} repeats ({name}), found {moments}"
    final, best, grey = (number(test[name]["mean"]) for name in SHOWN)
    says = number(run["milestones"][-1]["relative_activation"])
    means = (final - grey) / (best - grey) if best > grey else math.nan
    if math.isnan(says) != math.isnan(means) or abs(says - means) > CLOSE * max(1.0, abs(means)):
        yield f"expected the relative activation that its repeats come to, {means:.6g}, found {says:.6g}"


def _undrawable(run: Run) -> Iterator[str]:
    try:
        found = latent(run["recommended"])
    except (binascii.Error, ValueError):
        yield "expected the recommended latent as base64 of float16, found something else"
    else:
        if not len(found) or not np.isfinite(found).all():
            yield "expected finite numbers in the recommended latent, found others"
