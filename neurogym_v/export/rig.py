"""What an exported file needs of a rig file: the times of a trial, the windows of its spikes, and who was recorded how."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurogym_v.rigs.config import TEXTS, RigConfig, read_rig
from neurogym_v.rigs.settings import Timing, Windows
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Times in seconds."""

    text: str
    """The file that the run was begun with."""
    on_s: float
    """How long an image stood."""
    step_s: float
    """From one onset of a fixation to the next."""
    window: Window
    """Around an onset, in which spikes were kept."""
    acquisition: str
    """Its kind, or `folder`."""
    about: Mapping[str, Mapping[str, str]]
    """The sections of `rigs.config.TEXTS`."""


def rig_of(text: str, log: Path, *, instead: Path | None = None) -> Rig:
    """The rig that a log's copy of its file describes; of the file `instead`, if there is one, what it says of the experiment.

    The copy was checked when the run began. It is not checked anew: a part that only the rig's own machine has may be named.

    Raises:
        NeuroGymError: the copy is none, and there is no other.
    """
    other = read_rig(instead) if instead else None
    if not text and other is None:
        raise NeuroGymError(f"{log}: expected the text of a rig file in it, found none; name the file with --rig")
    try:
        found = tomllib.loads(text or (other.text if other else ""))
        timing, windows = Timing(**found.get("timing", {})), Windows(**_tuples(found.get("window", {})))
        response_s, baseline_s = (
            None if pair is None else (pair[0] / 1000, pair[1] / 1000) for pair in (windows.response_ms, windows.baseline_ms)
        )
        kind = "folder" if "folder" in found else str(found["acquisition"]["kind"])
        about = {name: {key: str(value) for key, value in found.get(name, {}).items()} for name in TEXTS}
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as error:
        raise NeuroGymError(f"{log}: expected the text of a rig file in it, found another ({error!r})") from None
    return Rig(
        text=text or (other.text if other else ""),
        on_s=timing.on_ms / 1000,
        step_s=timing.onset_to_onset_ms / 1000,
        window=Window(response_s=response_s or (0.07, 0.17), baseline_s=baseline_s),
        acquisition=kind,
        about=_about(other) if other else about,
    )


def _about(other: RigConfig) -> Mapping[str, Mapping[str, str]]:
    return {name: other.about.get(name, {}) for name in TEXTS}


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
