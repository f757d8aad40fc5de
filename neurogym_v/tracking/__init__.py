"""Experiment trackers by name, `NAME[:WHERE]`: nothing of their libraries is imported until one is chosen.

A new tracker is one file and one line here, or an entry point of the group `neurogym_v.trackers`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from neurogym_v import importing
from neurogym_v.naming import nearest
from neurogym_v.tracking.record import CALLS, Tracker
from neurogym_v.types import NeuroGymError

TRACKERS = {
    "csv": "neurogym_v.tracking.csv:CSV",
    "tensorboard": "neurogym_v.tracking.tensorboard:TensorBoard",
    "mlflow": "neurogym_v.tracking.mlflow:MLflow",
    "wandb": "neurogym_v.tracking.wandb:WandB",
}


@cache
def trackers() -> dict[str, str]:
    """Name -> "module:Class" of every tracker: ours, and those of installed packages."""
    found = entry_points(group="neurogym_v.trackers")
    return {entry.name: f"{entry.module}:{entry.attr}" for entry in found if entry.name.isidentifier()} | TRACKERS


def open_tracker(name: str, beside: Path) -> Tracker:
    """A tracker for one run, by `NAME[:WHERE]`; without WHERE it keeps what it writes in the folder `beside`.

    Nothing is written and nobody is asked before its `begin`.

    Raises:
        NeuroGymError: no such tracker, a WHERE that it cannot use, or a package that is missing.
    """
    base, colon, where = name.partition(":")
    if base not in trackers():
        raise nearest("tracker", base, trackers())
    if colon and not where:
        raise NeuroGymError(f"tracker {name!r}: expected where to after the colon, or no colon, got nothing")
    cls = importing.named("tracker", trackers()[base], tuple(trackers()))
    try:
        tracker: Tracker = cls(where, beside)
    except NeuroGymError:
        raise
    except Exception as error:  # other people's code
        if base in TRACKERS:
            raise
        raise importing.wrong("tracker", base, "a class made of (where, beside)", error) from error
    if missing := [call for call in CALLS if not callable(getattr(tracker, call, None))]:
        raise importing.wrong("tracker", base, "a class with all methods of a tracker", f"one without {', '.join(missing)}")
    return tracker
