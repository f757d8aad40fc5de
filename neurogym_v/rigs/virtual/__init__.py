"""The virtual rig: a process of its own that shows what it is sent to a simulated neuron, and answers as real rigs do.

`world` is the neuron and its clock; a *source* speaks the wire format of one acquisition system; `mischief` lets messages go
wrong on their way, and writes down which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """All that happened at the electrode in a stretch of time; stretches follow each other without gaps."""

    start: int
    """Samples of the acquisition's clock: the first of the stretch ..."""
    end: int
    """... and the first after it."""
    spike: NDArray[np.int64]
    """(n,) samples, ascending."""
    channel: NDArray[np.intp]
    """(n,) index into the channels."""
    edge: NDArray[np.int64]
    """(k,) samples, ascending, at which the photodiode line changes."""
    high: NDArray[np.bool_]
    """(k,) to what: rising edges are onsets."""
    number: NDArray[np.int64]
    """(k,) the presentation whose onset it is; NO_NUMBER for flashes and falling edges."""


class Source(Protocol):
    """One acquisition system as seen from outside. Its class takes (channels, sample_rate, mischief) and ports as keywords."""

    @property
    def settings(self) -> dict[str, object]:
        """What `[acquisition]` of a rig file must say to be connected to it; known after `open`."""

    def open(self) -> None:
        """Bind to loopback and listen. Port 0 takes a free one."""

    def write(self, stretch: Stretch) -> None:
        """Send what happened. Never waits for a reader: one that does not read loses, as with the real system."""

    def close(self) -> None:
        """Let go of all sockets; may be called twice."""
