"""From a rig file to the rig that it describes, and to the neuron behind it."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from neurogym_v.importing import in_a_line
from neurogym_v.registry import part_class
from neurogym_v.rigs import Acquisition, Rig, check
from neurogym_v.rigs.config import RigConfig, kind_of, read_rig
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.folder import Folder
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError

MEMBERS = ("channels", "patience_s", "quiet_s", "open", "arm", "events", "close")
"""Of an acquisition."""
PATHS = ("path", "server_key", "client_key", "gamma")
"""Keys that name files, from where the rig file is."""
WHERE = ("address", "heartbeat", "host", "command_port", "waveform_port", "spike_port", "spikes", "markers")
PATIENCE = ("settle_ms", "buffer_ms")
"""Keys of [acquisition] that may change while a run lasts: where it is, and how long it is waited for."""


def build(config: RigConfig) -> Rig:
    """The rig that a file describes; nothing is connected yet.

    Raises:
        NeuroGymError: values that a part refuses, or a class that is none of an acquisition.
    """
    with _said(config):
        if config.folder:
            return Folder(**_located(config, config.folder))
        kind, given = kind_of(config.acquisition)
        acquisition = part_class("acquisition", kind)(**_located(config, given))
        acquisition.patience_s = config.policy.patience_s
        if missing := [member for member in MEMBERS if not hasattr(acquisition, member)]:
            raise NeuroGymError(
                f"[acquisition] {kind}: expected {', '.join(missing)} too, found none; see neurogym_v.rigs.Acquisition"
            )
        return _joined(config, acquisition)


def _joined(config: RigConfig, acquisition: Acquisition) -> EventRig:
    """With the presenter."""
    kind, given = kind_of(config.presenter)
    timing = dataclasses.asdict(config.timing)
    per_fixation, refresh_hz = timing.pop("per_fixation"), timing.pop("refresh_hz")
    start_ms, end_ms = config.window.response_ms
    baseline_ms = config.window.baseline_ms
    window = Window(
        response_s=(start_ms / 1000, end_ms / 1000),
        baseline_s=baseline_ms and (baseline_ms[0] / 1000, baseline_ms[1] / 1000),
    )
    presenter = part_class("presenter", kind)(
        **_located(config, given), **timing, response_ms=1000 * window.end_s, patience_s=config.policy.patience_s
    )
    quiet_s = acquisition.quiet_s
    tolerance_s = config.window.tolerance_ms / 1000
    return EventRig(
        presenter,
        acquisition,
        window=window,
        per_fixation=per_fixation,
        tolerance_s=tolerance_s,
        closing_s=window.end_s + quiet_s + 3 * tolerance_s if quiet_s else 0.0,
        patience_s=config.policy.patience_s,
        refresh_hz=refresh_hz,
    )


def display(config: RigConfig) -> Any:
    """The screen that a rig file describes.

    Raises:
        NeuroGymError: it describes none, or one that cannot be.
    """
    with _said(config):
        if not config.display:
            raise NeuroGymError("expected a section [display], found none")
        kind, given = kind_of(config.display)
        return part_class("display", kind)(**_located(config, given))


def load(path: Path) -> LiveNeuron:
    """The neuron behind a rig file. Until it is told otherwise (`LiveNeuron.keep`) its log stands beside that file."""
    config = read_rig(path)
    log = path.with_name(f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S}.live.sqlite")
    rig = build(config)
    return LiveNeuron(
        rig,
        log,
        again=config.policy.again,
        rig_file=config.text,
        measures=_measures(config),
        look=partial(check.warnings, rig, config),
    )


def _measures(config: RigConfig) -> str:
    """What a response is: of what, to images of which size and timing, counted how. One run has the same to its end.

    JSON; what is not named in the file has its default, numbers are floats.
    """
    if config.folder:
        return "folder"
    kind, given = kind_of(config.acquisition)
    parameters = inspect.signature(part_class("acquisition", kind)).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if parameter.default is not parameter.empty}
    said = {key: value for key, value in (defaults | given).items() if key not in (*WHERE, *PATIENCE, "channels")}
    said |= {"kind": kind, "response_ms": config.window.response_ms, "baseline_ms": config.window.baseline_ms}
    said |= {key: getattr(config.timing, key) for key in ("on_ms", "off_ms", "per_fixation")}
    said |= {key: value for key, value in config.display.items() if key in ("image_deg", "position_deg")}
    return json.dumps(_plain(said), sort_keys=True)


def _plain(value: Any) -> Any:
    """As it is, however it was written."""
    match value:
        case bool() | str() | None:
            return value
        case int() | float():
            return float(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return str(value)


def _located(config: RigConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """With its files where the rig file says, wherever the command is started."""
    return {
        key: str(config.path.parent / value) if key in PATHS and value and isinstance(value, str) else value
        for key, value in given.items()
    }


@contextmanager
def _said(config: RigConfig) -> Iterator[None]:
    """Whatever a part says of its section is said of the file."""
    try:
        yield
    except NeuroGymError as error:
        raise type(error)(f"rig file {config.path}: {error}") from None
    except Exception as error:  # a laboratory's own class
        raise NeuroGymError(f"rig file {config.path}: expected parts that can be made of it, got {in_a_line(error)}") from error
