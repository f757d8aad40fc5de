"""How soon an agent gets where: presentations to a target, their expectation, and the area under a curve.

Hansen et al. 2016, arXiv:1605.03560, in presentations instead of evaluations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurogym_v.types import NeuroGymError


def first_hits(spent: ArrayLike, curve: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
    """(targets,) presentations at which a curve is first at a target or above; inf if it never is.

    Args:
        spent: (m,) presentations used at each point, never falling.
        curve: (m,) what the incumbent is worth from there on; NaN: not known at this point, which reaches nothing.
        targets: (targets,) in the units of the curve.

    Raises:
        NeuroGymError: spent and curve of different lengths, or presentations that fall.
    """
    at, heights = _steps(spent, curve)
    highest = np.maximum.accumulate(np.where(np.isnan(heights), -np.inf, heights))
    return np.append(at, np.inf)[np.searchsorted(highest, np.asarray(targets, dtype=np.float64), side="left")]


def expected_running_time(first_hit: ArrayLike, spent: ArrayLike) -> NDArray[np.float64]:
    """(..., runs) -> (...): presentations of all runs until they reach the target or end, over the number that reach it.

    This is what an agent that starts anew after each failure needs on average (Auger & Hansen 2005).

    Args:
        first_hit: (..., runs) presentations until the target; inf: never; NaN: the run is missing and left out.
        spent: (..., runs), or one number: presentations that a run without success used.

    Returns:
        inf without a success, NaN without a run.

    Raises:
        NeuroGymError: shapes that do not fit, or a run without success whose presentations are not known.
    """
    hit = np.asarray(first_hit, dtype=np.float64)
    try:
        used = np.where(np.isfinite(hit), hit, np.broadcast_to(np.asarray(spent, dtype=np.float64), hit.shape))
    except ValueError:
        raise NeuroGymError(f"spent: expected a number for each of {hit.shape} runs, got {np.shape(spent)}") from None
    there = ~np.isnan(hit)
    if not np.isfinite(used[there]).all():
        raise NeuroGymError("spent: expected the presentations of each run without success, got a number that is not finite")
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.where(there, used, 0).sum(axis=-1) / np.isfinite(hit).sum(axis=-1)
    return found


def area_under(spent: ArrayLike, curve: ArrayLike, budget: float, *, log: bool = False, before: float = 0.0) -> float:
    """Mean height of a step curve over the presentations from 0 to the budget, or over their logarithm, from 1 on.

    Args:
        spent: (m,) presentations used at each point, never falling.
        curve: (m,) height from this point to the next, and from the last to the budget; NaN: not known, as before.
        budget: Presentations; points beyond are cut.
        log: Whether the axis is logarithmic, so that the first tenth weighs as much as the rest of a tenfold does.
        before: Height ahead of the first point that is known.

    Raises:
        NeuroGymError: spent and curve of different lengths, presentations that fall, or a budget with nothing inside.
    """
    at, heights = _steps(spent, curve)
    start = 1.0 if log else 0.0
    if not start < budget < np.inf:
        raise NeuroGymError(f"budget: expected presentations above {start:.0f}, got {budget}")
    known = ~np.isnan(heights)
    edges = np.concatenate([[start], at[known], [budget]]).clip(start, budget)
    edges = np.log(edges) if log else edges
    return float(np.diff(edges) @ np.append(before, heights[known]) / (edges[-1] - edges[0]))


def _steps(spent: ArrayLike, curve: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at, heights = np.asarray(spent, dtype=np.float64), np.asarray(curve, dtype=np.float64)
    if at.ndim != 1 or at.shape != heights.shape:
        raise NeuroGymError(f"spent and curve: expected as many numbers of each, got shapes {at.shape} and {heights.shape}")
    if not (np.diff(at) >= 0).all() or not np.isfinite(at).all():
        raise NeuroGymError("spent: expected finite presentations that never fall, got others; sort both by them")
    return at, heights
