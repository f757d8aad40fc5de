"""What a run comes to: the numbers that standings rest on, and that an entry of a leaderboard holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.files import as_json
from neurogym_v.scoring import area_under, first_hits
from neurogym_v.types import Rates

TARGETS = (0.5, 0.8, 1.0, 1.2, 1.5)
"""Relative activations that agents are timed to, by the noise-free rate of what they would recommend."""
OWN_ESTIMATES = ("incumbent_hz", "observed_hz")
"""Diagnostics in which an agent says what rate it expects of the image that it recommends."""
IDENTITY = ("neuron", "site", "noise", "objective", "seed")
"""Settings that tell the runs of an agent on a suite apart."""
ESTIMATES = ("relative_activation", "best_relative_activation", "contrast_matched")
NUMBERS = (*ESTIMATES, "expected_relative_activation")
"""Of a milestone."""
Result = Mapping[str, Any]
"""A finished run, as `runs.search` gives it."""
Run = Mapping[str, Any]
"""What is left of it here; all of it is JSON, where null is a number that no one knows."""


def reduced(result: Result, budget: int) -> dict[str, Any]:
    """The numbers of a run; `budget` is presentations of the search, over which the area is taken."""
    about = {key: result["config"][key] for key in IDENTITY}
    if result["failed"] is not None:
        return about | {"failed": result["failed"], "sanity_check": False}
    end = max(result["milestones"], key=lambda milestone: milestone["presentations"])
    spent, heights = _curve(result)
    known = bool(np.isfinite(heights).any())
    hits = [float(hit) for hit in first_hits(spent, heights, TARGETS)]
    final, best, grey = (np.array(end["shown"][key], dtype=np.float64) for key in ("image", "natural", "spontaneous"))
    repeats = {"final": final, "natural": best, "spontaneous": grey, "difference": final - best}
    numbers = {
        "failed": None,
        "sanity_check": result["sanity_check"],
        "milestones": [{key: m[key] for key in ("presentations", *NUMBERS)} for m in result["milestones"]],
        "area": area_under(spent, heights, budget) if known else None,
        "hits": {f"{target:g}": hit for target, hit in zip(TARGETS, hits, strict=True)} if known else None,
        "presentations": result["presentations"],
        "agent_s": result["agent_s"],
        "optimism": _optimism(result, end),
        "test": {name: _moments(values) for name, values in repeats.items()},
    }
    return dict(as_json(about | numbers))


def hits_of(run: Run | None) -> NDArray[np.float64]:
    """(targets,) presentations until each; inf: never, as of a run that failed, NaN: no one knows."""
    if run is not None and run["failed"] is not None:
        return np.full(len(TARGETS), np.inf)
    if run is None or run["hits"] is None:
        return np.full(len(TARGETS), np.nan)
    return np.array([np.inf if (hit := run["hits"][f"{target:g}"]) is None else hit for target in TARGETS])


def repeats_of(moments: Mapping[str, Any]) -> Rates:
    """(n,) numbers with this mean and s.d.: for tests that look at nothing else, as Student's does."""
    n = int(moments["n"])
    if n < 2:
        return np.full(n, number(moments["mean"]))
    away = np.resize([1.0, -1.0], n)
    away[n - n % 2 :] = 0
    away *= number(moments["sd"]) * np.sqrt((n - 1) / (n - n % 2))
    return away + number(moments["mean"])


def milestone(run: Run, presentations: int) -> Mapping[str, Any]:
    """What was validated after so many presentations."""
    found: Mapping[str, Any] = next(m for m in run["milestones"] if m["presentations"] == presentations)
    return found


def number(found: Any) -> float:
    """A number, or that of an estimate; null is NaN."""
    inner = found["value"] if isinstance(found, Mapping) else found
    return float("nan") if inner is None else float(inner)


def _moments(repeats: Rates) -> dict[str, float]:
    valid = repeats[np.isfinite(repeats)]
    if len(valid) > 1 and not np.ptp(valid):  # without noise; a mean of equal numbers may be rounded
        return {"mean": float(valid[0]), "sd": 0.0, "n": len(valid)}
    mean = float(valid.mean()) if len(valid) else np.nan
    return {"mean": mean, "sd": float(valid.std(ddof=1)) if len(valid) > 1 else np.nan, "n": len(valid)}


def _curve(result: Result) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Presentations, and the noise-free relative activation of what would have been recommended then."""
    points: Sequence[Sequence[Any]] = result["incumbents"]
    spent, heights = np.array([[spent, number(height)] for spent, height in points]).T
    return spent, heights


def _optimism(result: Result, end: Mapping[str, Any]) -> float:
    """(the agent's own estimate - the noise-free rate of its image) / that rate; NaN where it gives none."""
    own = next((result["diagnostics"][key] for key in OWN_ESTIMATES if result["diagnostics"].get(key) is not None), np.nan)
    expected = number(end["expected"])
    return float((own - expected) / expected) if expected > 0 else float("nan")
