"""Before an animal sits down: does every part of the rig deliver what it should?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs.config import RigConfig
from neurogym_v.rigs.event_rig import EventRig

LISTEN_S = 3.0
"""To the channels; one that fires less than once in that time is worth a warning."""
FRAMES = 0.1
"""Of a frame by which a time may differ from whole ones."""
FLASHES = 3
"""Times that the clocks are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a rig delivers."""

    refresh_hz: float
    offset_s: float
    """Acquisition's clock less the display's."""
    jitter_s: float
    """S.d. of the measured onsets of the patch around where the display's clock says."""
    lag_s: float
    """Longest time by which onsets arrived after the display's word of them; wall clock."""
    spikes_hz: NDArray[np.float64]
    """(channels,) while it was listened to."""
    warnings: tuple[str, ...]


def check(rig: EventRig, config: RigConfig) -> Findings:
    """Look at a rig that is open: light the patch a few times, listen to the channels.

    Raises:
        RigError: a part fails meanwhile.
    """
    lags = [rig.lag_s]
    for _ in range(FLASHES):
        rig.align()
        lags.append(rig.lag_s)
    before, start_s, until = rig.recorder.spikes_seen.copy(), rig.recorder.complete_s, time.monotonic() + LISTEN_S
    while time.monotonic() < until:
        rig.recorder.wait(0.1)
    listened_s = max(rig.recorder.complete_s - start_s, 1e-9)
    spikes = rig.recorder.spikes_seen - before
    warnings = [*config.warnings, *_frames(config, rig.presenter.refresh_hz)]
    warnings += [
        f"channel {name}: no spike in {listened_s:.1f} s of its clock; is it the right one, and its threshold reached?"
        for name, count in zip(rig.channels, spikes, strict=True)
        if not count
    ]
    return Findings(
        refresh_hz=rig.presenter.refresh_hz,
        offset_s=rig.clocks.offset_s,
        jitter_s=rig.clocks.jitter_s,
        lag_s=max(lags),
        spikes_hz=spikes / listened_s,
        warnings=tuple(warnings),
    )


def _frames(config: RigConfig, refresh_hz: float) -> list[str]:
    """Times that are no whole frames."""
    said = []
    for key in ("on_ms", "off_ms"):
        frames = getattr(config.timing, key) / 1000 * refresh_hz
        if abs(frames - round(frames)) > FRAMES:
            shown = np.ceil(frames)
            said.append(
                f"[timing] {key}: {getattr(config.timing, key):g} ms are {frames:.2f} frames of a screen of {refresh_hz:g} Hz; "
                f"they will be {shown:.0f}, {1000 * shown / refresh_hz:.1f} ms"
            )
    return said
