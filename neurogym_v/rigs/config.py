"""The rig file: TOML that says what a rig consists of and how a trial goes. `live:rig.toml` is the neuron behind it.

    [acquisition]                      # where spikes come from: registry.ACQUISITIONS, and what its class takes
    kind = "intan"
    channels = ["A-003", "A-017"]      # the sites, in order

    [presenter]                        # where images go
    kind = "remote"
    address = "tcp://127.0.0.1:5580"

    [timing]                           # of a fixation; milliseconds
    on_ms = 100
    off_ms = 100
    per_fixation = 6
    fixation_ms = 300
    inter_trial_ms = 800
    refresh_hz = 60                    # optional: refuse a screen that has another

    [window]                           # milliseconds after the measured onset
    response_ms = [70, 170]
    baseline_ms = [-50, 0]             # optional: its rate is subtracted
    tolerance_ms = 8                   # how far an onset may lie from where the display's clock says

    [display]                          # for `neurogym-v rig display`: the screen, and what its class takes
    kind = "pygame"
    distance_cm = 57
    width_cm = 52
    image_deg = 8

    [policy]
    again = 2                          # how often a lost presentation is shown again
    patience_s = 1.0                   # how long a part may be silent
    listen_s = 3.0                     # to the channels before the first image: a warning names those that do not fire

Or, for a laboratory that shows and counts by itself, `[folder]` in place of acquisition, presenter, timing and window.
`[subject]`, `[electrode]` and `[session]` describe the experiment; they go to exported files.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from neurogym_v.naming import check_parameters, nearest
from neurogym_v.registry import DISPLAYS, PRESENTERS, acquisition_class, resolve
from neurogym_v.rigs import Rig, check
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.folder import Folder
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError

TEXTS = {
    "subject": ("subject_id", "species", "sex", "age", "description", "weight"),
    "electrode": ("description", "location", "manufacturer", "group", "reference", "filtering"),
    "session": ("experimenter", "institution", "lab", "description", "protocol", "notes", "keywords"),
}
"""Sections that nothing here depends on, with what they may say."""
LEAST_MS = 4.0
"""Shorter than a frame of any screen: what is less was meant as seconds."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RigConfig:
    """A rig file, read and checked."""

    path: Path
    text: str
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    presenter: Mapping[str, Any] = field(default_factory=dict)
    folder: Mapping[str, Any] = field(default_factory=dict)
    display: Mapping[str, Any] = field(default_factory=dict)
    timing: Timing = Timing()
    window: Windows = Windows()
    policy: Policy = Policy()
    about: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The sections of TEXTS."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be meant, and is seldom right."""
        said = []
        response, timing = self.window.response_ms, self.timing
        if not self.folder and response[1] > timing.onset_to_onset_ms + 50:
            said.append(
                f"[window] response_ms ends {response[1]:g} ms after the onset, when the next image has been on for "
                f"{response[1] - timing.onset_to_onset_ms:g} ms: what it brings about may be counted too"
            )
        if self.window.tolerance_ms > timing.on_ms / 2:
            said.append(f"[window] tolerance_ms of {self.window.tolerance_ms:g} is more than half of on_ms")
        return tuple(said)


def read_rig(path: Path) -> RigConfig:
    """A rig file.

    Raises:
        NeuroGymError: no such file, no TOML, a section, key or value that cannot be, windows that overlap.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except OSError as error:
        raise NeuroGymError(f"rig file {path}: expected a TOML file, got: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NeuroGymError(f"rig file {path}: expected TOML, got: {error}") from None
    try:
        return _config(path, text, found)
    except NeuroGymError as error:
        raise NeuroGymError(f"rig file {path}: {error}") from None


def build(config: RigConfig) -> Rig:
    """The rig that a file describes; nothing is connected yet."""
    if config.folder:
        return Folder(**config.folder)
    kind, given = _kind(config.acquisition)
    acquisition = acquisition_class(kind)(**given)
    acquisition.patience_s = config.policy.patience_s
    kind, given = _kind(config.presenter)
    timing = dataclasses.asdict(config.timing)
    per_fixation, refresh_hz = timing.pop("per_fixation"), timing.pop("refresh_hz")
    response_s = tuple(ms / 1000 for ms in config.window.response_ms)
    baseline_s = config.window.baseline_ms and tuple(ms / 1000 for ms in config.window.baseline_ms)
    window = Window(response_s=response_s, baseline_s=baseline_s)  # type: ignore[arg-type]
    presenter = resolve("presenter", kind, PRESENTERS)(
        **given, **timing, response_ms=1000 * window.end_s, patience_s=config.policy.patience_s
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
        NeuroGymError: it describes none.
    """
    if not config.display:
        raise NeuroGymError(f"rig file {config.path}: expected a section [display], found none")
    kind, given = _kind(config.display)
    return resolve("display", kind, DISPLAYS)(**given)


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
    """What a count depends on, wherever the parts of the rig are."""
    if config.folder:
        return "folder"
    said = {key: value for key, value in config.acquisition.items() if key in ("kind", "detect", "threshold_uv")}
    said |= {"response_ms": config.window.response_ms, "baseline_ms": config.window.baseline_ms}
    return json.dumps(said, sort_keys=True)


def _config(path: Path, text: str, found: Mapping[str, Any]) -> RigConfig:
    plain = {"timing": Timing, "window": Windows, "policy": Policy}
    known = ("acquisition", "presenter", "folder", "display", *plain, *TEXTS)
    for name, section in found.items():
        if name not in known:
            raise nearest("section", name, known)
        if not isinstance(section, dict):
            raise NeuroGymError(f"{name}: expected a section [{name}], got {section!r}")
    made: dict[str, Any] = {name: _record(name, cls, found.get(name, {})) for name, cls in plain.items()}
    about = {name: _texts(name, found[name]) for name in TEXTS if name in found}
    halves = {name: _tuples(found[name]) for name in ("acquisition", "presenter", "folder", "display") if name in found}
    if ("folder" in halves) == ("acquisition" in halves or "presenter" in halves):
        raise NeuroGymError("expected [acquisition] and [presenter], or [folder], got " + (", ".join(halves) or "none of them"))
    if "folder" in halves:
        check_parameters("[folder]", Folder, _without_channels(halves["folder"]))
    else:
        for name in ("acquisition", "presenter"):
            if name not in halves:
                raise NeuroGymError(f"expected [acquisition] and [presenter], found no [{name}]")
        kind, given = _kind(halves["acquisition"], "acquisition")
        check_parameters(f"[acquisition] {kind}", acquisition_class(kind), _without_channels(given))
        kind, given = _kind(halves["presenter"], "presenter")
        check_parameters(f"[presenter] {kind}", resolve("presenter", kind, PRESENTERS), given)
        for key in dataclasses.asdict(made["timing"]):
            if key in given:
                raise NeuroGymError(f"[presenter]: expected {key} in [timing], found it here")
    if "display" in halves:
        kind, given = _kind(halves["display"], "display")
        check_parameters(f"[display] {kind}", resolve("display", kind, DISPLAYS), given)
    names = (halves.get("folder") or halves["acquisition"]).get("channels", ())
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise NeuroGymError(f"channels: expected a list of names, each once, got {list(names) if names else 'none'}")
    made |= halves
    config = RigConfig(path=path, text=text, about=about, **made)
    _check_times(config.timing, config.window, config.policy)
    return config


def _check_times(timing: Timing, window: Windows, policy: Policy) -> None:
    for key, value in dataclasses.asdict(timing).items():
        if key.endswith("_ms") and (value < 0 or (key == "on_ms" and value < LEAST_MS) or 0 < value < 1):
            raise NeuroGymError(
                f"[timing] {key}: expected milliseconds, {LEAST_MS:g} or more for on_ms, got {value:g} (seconds?)"
            )
    if not 0 <= policy.listen_s <= 60:
        raise NeuroGymError(f"[policy] listen_s: expected 0 to 60, got {policy.listen_s:g}")
    if timing.per_fixation < 1 or policy.again < 0 or not 0.05 <= policy.patience_s <= 60:
        raise NeuroGymError(
            f"expected per_fixation of 1 or more, again of 0 or more and patience_s of 0.05 to 60, got {timing.per_fixation}, "
            f"{policy.again} and {policy.patience_s:g}"
        )
    for key in ("response_ms", "baseline_ms"):
        if (pair := getattr(window, key)) is not None:
            if not (pair[0] < pair[1]):
                raise NeuroGymError(f"[window] {key}: expected [start, end], got {list(pair)}")
            if max(map(abs, pair)) < LEAST_MS:
                raise NeuroGymError(f"[window] {key}: expected milliseconds, got {list(pair)} (seconds?)")
    length, cycle = window.response_ms[1] - window.response_ms[0], timing.onset_to_onset_ms
    if length > cycle:
        raise NeuroGymError(
            f"[window] response_ms: expected a window no longer than on_ms + off_ms = {cycle:g} ms, or those of two images "
            f"overlap, got {length:g} ms"
        )
    if not 0 < window.tolerance_ms < cycle / 2:
        raise NeuroGymError(
            f"[window] tolerance_ms: expected less than half of on_ms + off_ms = {cycle:g} ms, or an onset could be its "
            f"neighbour's, got {window.tolerance_ms:g}"
        )


def _record(name: str, cls: Any, given: Mapping[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(cls)}
    for key, value in given.items():
        if key not in known:
            raise nearest(f"key of [{name}]", key, sorted(known))
        numbers = value if isinstance(value, list) else [value]
        pair = key in ("response_ms", "baseline_ms")
        whole = key in ("per_fixation", "again")
        right = all(isinstance(n, int if whole else int | float) and not isinstance(n, bool) for n in numbers)
        if not right or (isinstance(value, list) != pair) or (pair and len(numbers) != 2):
            expected = "[start, end] in milliseconds" if pair else "a whole number" if whole else "a number"
            raise NeuroGymError(f"[{name}] {key}: expected {expected}, got {value!r}")
    return cls(**_tuples(given))


def _texts(name: str, given: Mapping[str, Any]) -> Mapping[str, str]:
    for key, value in given.items():
        if key not in TEXTS[name]:
            raise nearest(f"key of [{name}]", key, TEXTS[name])
        if not isinstance(value, str):
            raise NeuroGymError(f"[{name}] {key}: expected text, got {value!r}")
    return dict(given)


def _kind(section: Mapping[str, Any], name: str = "") -> tuple[str, dict[str, Any]]:
    given = dict(section)
    kind = given.pop("kind", None)
    if not isinstance(kind, str):
        raise NeuroGymError(f"[{name}] kind: expected a name, got {kind!r}")
    return kind, given


def _without_channels(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "channels"}


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
