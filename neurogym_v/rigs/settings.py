"""The sections [timing], [window] and [policy] of a rig file: which values cannot be, and which are seldom meant."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from neurogym_v.types import NeuroGymError

LEAST_MS, MOST_MS = 4.0, 60_000.0
"""Less than the first is shorter than a frame of any screen: it was meant as seconds. A fixation does not last longer than the
other."""
LONGEST_REST_MS = 600_000.0
"""That a display can be asked for."""
LEAST_TOLERANCE_MS = 0.5
"""A photodiode's edge jitters as much."""
REFRESH_HZ = (20.0, 500.0)
MOST_IMAGES = 1000
"""In a fixation."""
LATEST_MS = 5000.0
"""After the onset, that a window may end."""
OFF_RESPONSE_MS = 50.0
"""After an onset in which the neuron does not answer to it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Of a fixation, milliseconds."""

    on_ms: float = 100.0
    off_ms: float = 100.0
    per_fixation: int = 6
    fixation_ms: float = 300.0
    inter_trial_ms: float = 800.0
    refresh_hz: float | None = None
    """Of the screen, if it is to be refused where it has another; the display may be set up for any."""

    @property
    def onset_to_onset_ms(self) -> float:
        return self.on_ms + self.off_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Milliseconds after the measured onset."""

    response_ms: tuple[float, float] = (70.0, 170.0)
    baseline_ms: tuple[float, float] | None = None
    tolerance_ms: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is done about what is lost."""

    again: int = 2
    patience_s: float = 1.0
    listen_s: float = 3.0
    """To the channels before the first image; 0: not."""


def check(timing: Timing, window: Windows, policy: Policy) -> None:
    """What no rig can do.

    Raises:
        NeuroGymError: with the section, the key, and what it may be.
    """
    for key, value in dataclasses.asdict(timing).items():
        least = "" if key == "on_ms" else "0, or "
        most = LONGEST_REST_MS if key == "inter_trial_ms" else MOST_MS
        if key.endswith("_ms") and not (LEAST_MS <= value <= most or (least and value == 0)):
            seconds = " (seconds?)" if 0 < value < LEAST_MS else ""
            raise NeuroGymError(
                f"[timing] {key}: expected {least}{LEAST_MS:g} to {most:.0f} milliseconds, got {value:g}{seconds}"
            )
    if not 1 <= timing.per_fixation <= MOST_IMAGES:
        raise NeuroGymError(f"[timing] per_fixation: expected 1 to {MOST_IMAGES}, got {timing.per_fixation}")
    low, high = REFRESH_HZ
    if timing.refresh_hz is not None and not low <= timing.refresh_hz <= high:
        raise NeuroGymError(f"[timing] refresh_hz: expected {low:g} to {high:g}, got {timing.refresh_hz:g}")
    for key, expected, holds in (
        ("again", "0 or more", policy.again >= 0),
        ("patience_s", "0.05 to 60", 0.05 <= policy.patience_s <= 60),
        ("listen_s", "0 to 60", 0 <= policy.listen_s <= 60),
    ):
        if not holds:
            raise NeuroGymError(f"[policy] {key}: expected {expected}, got {getattr(policy, key):g}")
    _check_windows(timing, window)


def _check_windows(timing: Timing, window: Windows) -> None:
    for key, first in (("response_ms", 0.0), ("baseline_ms", -1000.0)):
        if (pair := getattr(window, key)) is not None:
            if not pair[0] < pair[1]:
                raise NeuroGymError(f"[window] {key}: expected [start, end], got {list(pair)}")
            if max(map(abs, pair)) < LEAST_MS:
                raise NeuroGymError(f"[window] {key}: expected milliseconds, got {list(pair)} (seconds?)")
            if not (first <= pair[0] and pair[1] <= LATEST_MS):
                raise NeuroGymError(
                    f"[window] {key}: expected [start, end] within {first:g} to {LATEST_MS:g} ms of the onset, got {list(pair)}"
                )
    length, cycle = window.response_ms[1] - window.response_ms[0], timing.onset_to_onset_ms
    if length > cycle:
        raise NeuroGymError(
            f"[window] response_ms: expected a window no longer than on_ms + off_ms = {cycle:g} ms, or those of two images "
            f"overlap, got {length:g} ms"
        )
    if not LEAST_TOLERANCE_MS <= window.tolerance_ms < cycle / 2:
        raise NeuroGymError(
            f"[window] tolerance_ms: expected {LEAST_TOLERANCE_MS:g} or more, and less than half of on_ms + off_ms = {cycle:g} "
            f"ms, or an onset could be its neighbour's, got {window.tolerance_ms:g}"
        )


def doubts(timing: Timing, window: Windows) -> tuple[str, ...]:
    """What may be meant, and is seldom right."""
    said = []
    response, baseline, cycle = window.response_ms, window.baseline_ms, timing.onset_to_onset_ms
    if response[1] > cycle + OFF_RESPONSE_MS:
        said.append(
            f"[window] response_ms ends {response[1]:g} ms after the onset, when the next image has been on for "
            f"{response[1] - cycle:g} ms: what it brings about may be counted too"
        )
    if baseline and baseline[0] < response[1] and baseline[1] > response[0]:
        said.append("[window] baseline_ms overlaps response_ms: a part of the response is subtracted from it")
    elif baseline:
        for back in range(1, timing.per_fixation):
            start, end = response[0] - back * cycle, response[1] - back * cycle
            if baseline[0] < end and baseline[1] > start:
                said.append(
                    f"[window] baseline_ms from {baseline[0]:g} ms of the onset meets the response window of an image before, "
                    f"from {start:g} to {end:g} ms: its response is subtracted too"
                )
                break
    if window.tolerance_ms > timing.on_ms / 2:
        said.append(f"[window] tolerance_ms of {window.tolerance_ms:g} is more than half of on_ms")
    return tuple(said)
