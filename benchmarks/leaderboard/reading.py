"""Files of others: an entry is data, whatever is in it, and what is wrong with it is said in a line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from neurogym_v.benchmarks.leaderboard.entry import SIGNED, Entry, signed
from neurogym_v.importing import require
from neurogym_v.types import NeuroGymError

LARGEST = 8 << 20
"""Bytes of an entry."""
DEEPEST = 12
"""Lists and objects inside each other."""
LONGEST = 160
"""Letters of what a schema has to say."""


def read_entry(path: Path) -> Entry:
    """An entry whose form and digest are right; `checks.check` says whether its numbers can be.

    Raises:
        NeuroGymError: no file, one too large or cut off, no JSON as the schema has it, or numbers that were edited.
    """
    if not path.is_file():
        raise NeuroGymError(f"{path}: expected an entry, found no file")
    with path.open("rb") as file:
        read = file.read(LARGEST + 1)
    if len(read) > LARGEST:
        raise NeuroGymError(f"{path}: expected an entry of at most {LARGEST >> 20} MB, found more")
    try:
        found = json.loads(read, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_once)
        if _deeper(found, DEEPEST):
            raise RecursionError
        json.dumps(found, ensure_ascii=False).encode()  # there are JSON strings that no file can hold
    except RecursionError:
        raise NeuroGymError(f"{path}: expected an entry, found JSON that is nested too deeply") from None
    except ValueError as error:
        raise NeuroGymError(f"{path}: expected an entry as JSON, found: {_short(str(error))}") from None
    fits(found, str(path))
    if signed(found)[SIGNED] != found[SIGNED]:
        raise NeuroGymError(f"{path}: expected the numbers that its sha256 is of, found others: it was edited")
    return dict(found)


def fits(entry: Any, where: str) -> None:
    """Nothing, if the entry is as the schema says.

    Raises:
        NeuroGymError: it is not; or jsonschema is not installed.
    """
    jsonschema = require("jsonschema", user="leaderboard", extra="leaderboard")
    error = jsonschema.exceptions.best_match(_validator().iter_errors(entry))
    if error is not None:
        at = "/".join(map(str, error.absolute_path)) or "the top"
        raise NeuroGymError(f"{where}: expected an entry as schema.json says, found at {_short(at)}: {_short(error.message)}")


def schema() -> str:
    """The text of schema.json."""
    return files("neurogym_v.benchmarks.leaderboard").joinpath("schema.json").read_text(encoding="utf-8")


@cache
def _validator() -> Any:
    jsonschema = require("jsonschema", user="leaderboard", extra="leaderboard")
    return jsonschema.Draft202012Validator(json.loads(schema()))


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(one, levels - 1) for one in inner)


def _refused(name: str) -> None:
    raise ValueError(f"{name}, which is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]}, which is too large")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} twice in one object")
    return made


def _short(text: str) -> str:
    """In a line; of a long one, both ends: what was found comes first and what was expected last."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
