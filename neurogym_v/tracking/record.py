"""What trackers are told of a run, and the calls they are told it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

SCORE = "score/"
"""Numbers under this name are what runs are compared by; all others are curves."""
CALLS = ("begin", "log", "images", "finish", "stop")

Row: TypeAlias = Mapping[str, str | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What one tracked run is: one agent on one site with one seed."""

    id: str
    """Letters and digits: no other run has it, and a resumed run has it again."""
    name: str
    group: str
    """Of runs that belong together: the agents of one `neurogym-v run`."""
    tags: Mapping[str, str]
    """suite, agent, neuron, site, seed, noise: what dashboards group and filter by."""
    config: Mapping[str, Any]
    """Numbers, text, None, or lists of them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with what is said below it."""

    pixels: NDArray[np.uint8]
    """(h, w, 3) sRGB"""
    caption: str


class Tracker(Protocol):
    """One tracked run. Made of (where, beside), see `open_tracker`; then called in the order below, in a thread of its own.

    What it raises ends the tracking, never the run. A resumed run is told again from the beginning, with the same `RunInfo`.
    """

    place: str
    """Where a user looks at it; known once it began."""

    def begin(self, run: RunInfo) -> None:
        """The run begins."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers after `step` presentations; NaN where there is none, such as the mean rate of a round that was lost."""

    def images(self, step: int, name: str, pictures: Sequence[Picture]) -> None:
        """Pictures after `step` presentations; called before `log` is for this step."""

    def finish(self, table: Sequence[Row], files: Sequence[Path]) -> None:
        """The run is over: the table of all agents of its group, and the files that it left."""

    def stop(self) -> None:
        """The run was stopped before its end; it may be resumed, by another process."""
