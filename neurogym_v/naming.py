"""Names as they are written on a command line: `ga:ponce2019,temperature=1`, and what is said of one that is not known."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from neurogym_v.types import NeuroGymError

GIVEN = ("batch_size", "seed")
"""What a run decides, for all agents alike."""
LARGEST = 1e12
"""Numbers beyond overflow before they mean anything."""
LISTS = "`neurogym-v list` shows names, help() of a class parameters"
LISTED = 30
"""Known names in a message, at most."""


def nearest(kind: str, name: str, known: Iterable[str], *, hint: str = LISTS) -> NeuroGymError:
    """The error for a name that is not known, with the nearest that is, or a `hint`."""
    names = list(known)
    spelt = {known_name.lower(): known_name for known_name in names}
    close = difflib.get_close_matches(name.lower(), list(spelt), n=1, cutoff=0.4)
    hint = f"did you mean {spelt[close[0]]!r}?" if close else hint
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return NeuroGymError(f"unknown {kind} {name!r}: {hint} (known: {', '.join(names[:LISTED]) or 'none'}{more})")


def split(text: str) -> tuple[str, str, dict[str, Any]]:
    """`base:preset,key=value,...` -> base, preset ("" where none is named) and the values as Python's, else as text.

    Raises:
        NeuroGymError: a part that is no key=value, or a key that comes twice.
    """
    name, *parts = _parts(text)
    values: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise NeuroGymError(f"{text!r}: expected NAME[:PRESET][,KEY=VALUE,...], got {part!r}")
        if key in values:
            raise NeuroGymError(f"{text!r}: expected each parameter once, got {key} twice")
        values[key] = _value(value)
    base, _, preset = name.partition(":")
    return base, preset, values


def check_parameters(kind: str, make: Callable[..., Any], values: dict[str, Any], *, positional: bool = False) -> None:
    """Raise NeuroGymError unless `make` has these keyword parameters, and each value is of the type it is written with.

    Args:
        positional: parameters that may be given without their name may be set, too.
    """
    signature = inspect.signature(make).parameters
    kinds = {inspect.Parameter.KEYWORD_ONLY} | ({inspect.Parameter.POSITIONAL_OR_KEYWORD} if positional else set())
    known = {name: p for name, p in signature.items() if p.kind in kinds and name not in GIVEN}
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values())
    for key, value in values.items():
        if key not in known:
            if anything and key not in signature and key not in GIVEN:
                continue
            raise nearest(f"parameter of {kind}", key, known)
        annotation = str(known[key].annotation)
        allowed = _types(annotation)
        fits = isinstance(value, allowed) and (not isinstance(value, bool) or bool in allowed) if allowed else True
        fits = fits and not (isinstance(value, float) and not math.isfinite(value)) and _items_fit(annotation, value)
        if not fits or (isinstance(value, int | float) and abs(value) > LARGEST):
            number = isinstance(value, int | float) and not isinstance(value, bool) and "tuple" not in annotation
            size = f" within {LARGEST:g}" if number else ""
            raise NeuroGymError(f"{kind}: expected {annotation}{size} as {key}, got {value!r}")


def _parts(text: str) -> list[str]:
    """At the commas that stand within no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _types(annotation: str) -> tuple[type, ...]:
    """Of an annotation such as `float | None`; empty where it is more than plain numbers and text."""
    plain: dict[str, tuple[type, ...]] = {
        "float": (float, int), "int": (int,), "bool": (bool,), "str": (str,), "None": (type(None),),
        "tuple[int, ...]": (tuple, list), "tuple[float, float]": (tuple, list), "NDArray[np.floating[Any]]": (np.ndarray,),
    }  # fmt: skip
    found = [plain.get(part.strip()) for part in annotation.split("|")]
    return () if None in found else tuple(t for types in found if types for t in types)


def _items_fit(annotation: str, value: Any) -> bool:
    """Whether what is in a list or tuple is whole numbers, or two numbers, where they are asked for."""
    if not isinstance(value, tuple | list):
        return True
    if "tuple[float, float]" in annotation and len(value) != 2:
        return False
    allowed = {"tuple[int, ...]": int, "tuple[float, float]": int | float}
    types = next((types for name, types in allowed.items() if name in annotation), object)
    return all(isinstance(item, types) and not isinstance(item, bool) for item in value)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
