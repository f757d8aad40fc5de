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
    baseline_ms = [-25, 25]            # optional: its rate is subtracted
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
import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from neurogym_v.naming import check_parameters, nearest
from neurogym_v.registry import part_class
from neurogym_v.rigs import settings
from neurogym_v.rigs.folder import Folder
from neurogym_v.rigs.settings import Policy, Timing, Windows
from neurogym_v.types import NeuroGymError

TEXTS = {
    "subject": ("subject_id", "species", "sex", "age", "description", "weight"),
    "electrode": ("description", "location", "manufacturer", "group", "reference", "filtering"),
    "session": ("experimenter", "institution", "lab", "description", "protocol", "notes", "keywords"),
}
"""Sections that nothing here depends on, with what they may say."""
HOW_LONG = {"response_ms": "window", "patience_s": "policy"}
"""What else a presenter takes that stands in another section."""
HINT = "docs/live.md has all that there are"


@dataclass(frozen=True, slots=True, kw_only=True)
class RigConfig:
    """A rig file, read and checked."""

    path: Path
    text: str
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    presenter: Mapping[str, Any] = field(default_factory=dict)
    folder: Mapping[str, Any] = field(default_factory=dict)
    display: Mapping[str, Any] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    window: Windows = field(default_factory=Windows)
    policy: Policy = field(default_factory=Policy)
    about: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The sections of TEXTS."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be meant, and is seldom right."""
        return () if self.folder else settings.doubts(self.timing, self.window)


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


def _config(path: Path, text: str, found: Mapping[str, Any]) -> RigConfig:
    plain = {"timing": Timing, "window": Windows, "policy": Policy}
    known = ("acquisition", "presenter", "folder", "display", *plain, *TEXTS)
    for name, section in found.items():
        if name not in known:
            raise nearest("section", name, known, hint=HINT)
        if not isinstance(section, dict):
            raise NeuroGymError(f"{name}: expected a section [{name}], got {section!r}")
    made: dict[str, Any] = {name: _record(name, cls, found.get(name, {})) for name, cls in plain.items()}
    about = {name: _texts(name, found[name]) for name in TEXTS if name in found}
    halves = {name: _tuples(found[name]) for name in ("acquisition", "presenter", "folder", "display") if name in found}
    if ("folder" in halves) == ("acquisition" in halves or "presenter" in halves):
        raise NeuroGymError("expected [acquisition] and [presenter], or [folder], got " + (", ".join(halves) or "none of them"))
    if "folder" in halves:
        if beside := [name for name in ("timing", "window") if name in found]:
            raise NeuroGymError(f"[{beside[0]}]: expected none beside [folder], whose laboratory times and counts by itself")
        _check_part("[folder]", Folder, halves["folder"])
    for name in ("acquisition", "presenter") if "folder" not in halves else ():
        if name not in halves:
            raise NeuroGymError(f"expected [acquisition] and [presenter], found no [{name}]")
        kind, given = kind_of(halves[name], name)
        for key, section in (dict.fromkeys(dataclasses.asdict(made["timing"]), "timing") | HOW_LONG).items():
            if name == "presenter" and key in given:
                raise NeuroGymError(f"[presenter]: expected {key} in [{section}], found it here")
        elsewhere = () if name == "acquisition" else (*dataclasses.asdict(made["timing"]), *HOW_LONG)
        _check_part(f"[{name}] {kind}", part_class(name, kind), given, elsewhere)
    if "display" in halves:
        kind, given = kind_of(halves["display"], "display")
        if ":" not in kind:  # a laboratory's own need only be where the screen is
            _check_part(f"[display] {kind}", part_class("display", kind), given)
    names = (halves.get("folder") or halves["acquisition"]).get("channels", ())
    if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names) or not names:
        raise NeuroGymError(f"channels: expected a list of names, each once, got {_as_written(names)}")
    made |= halves
    config = RigConfig(path=path, text=text, about=about, **made)
    settings.check(config.timing, config.window, config.policy)
    return config


def _record(name: str, cls: Any, given: Mapping[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(cls)}
    for key, value in given.items():
        if key not in known:
            raise nearest(f"key of [{name}]", key, sorted(known), hint=HINT)
        numbers = value if isinstance(value, list) else [value]
        pair = key in ("response_ms", "baseline_ms")
        whole = key in ("per_fixation", "again")
        right = all(isinstance(n, int if whole else int | float) and not isinstance(n, bool) and isfinite(n) for n in numbers)
        if not right or (isinstance(value, list) != pair) or (pair and len(numbers) != 2):
            expected = "[start, end] in milliseconds" if pair else "a whole number" if whole else "a number"
            raise NeuroGymError(f"[{name}] {key}: expected {expected}, got {value!r}")
    return cls(**_tuples(given))


def _texts(name: str, given: Mapping[str, Any]) -> Mapping[str, str]:
    for key, value in given.items():
        if key not in TEXTS[name]:
            raise nearest(f"key of [{name}]", key, TEXTS[name], hint=HINT)
        if not isinstance(value, str):
            raise NeuroGymError(f"[{name}] {key}: expected text, got {value!r}; put it in quotes")
    return dict(given)


def kind_of(section: Mapping[str, Any], name: str = "") -> tuple[str, dict[str, Any]]:
    """The `kind` of a section, and the rest of it."""
    given = dict(section)
    kind = given.pop("kind", None)
    if not isinstance(kind, str):
        raise NeuroGymError(f"[{name}] kind: expected a name, got {kind!r}")
    return kind, given


def _check_part(what: str, make: Any, given: Mapping[str, Any], elsewhere: Sequence[str] = ()) -> None:
    """Whether a section has what a class takes, and all that it needs but for what other sections say."""
    if not callable(make):
        raise NeuroGymError(f"{what}: expected a class, found {make!r}")
    check_parameters(what, make, {key: value for key, value in given.items() if key != "channels"}, positional=True)
    for key, parameter in inspect.signature(make).parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.KEYWORD_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        )
        if needed and key not in given and key not in elsewhere:
            raise NeuroGymError(f"{what}: expected a value for {key}, found none")


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _as_written(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
