"""Before an animal sits down: does every part of the rig deliver what it should?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import Rig
from neurogym_v.rigs.config import RigConfig
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.settings import Timing

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
    """(channels,) while it was listened to; NaN: it was not."""
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
    spikes, listened_s = _listen(rig, config.policy.listen_s)
    return Findings(
        refresh_hz=rig.presenter.refresh_hz,
        offset_s=rig.clocks.offset_s,
        jitter_s=rig.clocks.jitter_s,
        lag_s=max(lags),
        spikes_hz=spikes / listened_s if listened_s > 0 else np.full(len(spikes), np.nan),
        warnings=(*_doubts(rig, config), *_silent(rig, spikes, listened_s)),
    )


def warnings(rig: Rig, config: RigConfig) -> tuple[str, ...]:
    """What an experimenter should know of a rig that is open, before the first image: times that are no whole frames, windows
    that may count another image's response, channels that do not fire while they are listened to.

    Raises:
        RigError: a part fails meanwhile.
    """
    if not isinstance(rig, EventRig):
        return config.warnings
    return (*_doubts(rig, config), *_silent(rig, *_listen(rig, config.policy.listen_s)))


def _listen(rig: EventRig, listen_s: float) -> tuple[NDArray[np.int_], float]:
    """Spikes of each channel, and the seconds in which they came: of the acquisition's clock, if its stream is never silent."""
    before, start_s, until = rig.recorder.spikes_seen.copy(), rig.recorder.complete_s, time.monotonic() + listen_s
    while (left_s := until - time.monotonic()) > 0 and not rig.gate.ending:
        rig.recorder.wait(min(left_s, 0.1))
        rig.recorder.check()
    listened_s = listen_s if rig.acquisition.quiet_s else rig.recorder.complete_s - start_s
    return rig.recorder.spikes_seen - before, listened_s


def _silent(rig: EventRig, spikes: NDArray[np.int_], listened_s: float) -> list[str]:
    if not listened_s > 0:
        return []
    return [
        f"channel {name}: no spike in {listened_s:.1f} s; is it the right one, and its threshold reached?"
        for name, count in zip(rig.channels, spikes, strict=True)
        if not count
    ]


def _doubts(rig: EventRig, config: RigConfig) -> list[str]:
    return [*config.warnings, *_frames(config.timing, rig.presenter.refresh_hz)]


def _frames(timing: Timing, refresh_hz: float) -> list[str]:
    """Times that are no whole frames."""
    said = []
    for key in ("on_ms", "off_ms"):
        frames = getattr(timing, key) / 1000 * refresh_hz
        if abs(frames - round(frames)) > FRAMES:
            shown = np.ceil(frames)
            said.append(
                f"[timing] {key}: {getattr(timing, key):g} ms are {frames:.2f} frames of a screen of {refresh_hz:g} Hz; "
                f"they will be {shown:.0f}, {1000 * shown / refresh_hz:.1f} ms"
            )
    return said
