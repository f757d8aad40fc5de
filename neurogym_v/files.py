"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """`value` as JSON (see `as_json`), whole or not at all."""
    text = json.dumps(as_json(value), indent=indent, allow_nan=False)
    write_whole(path, lambda file: file.write(text.encode()))


def as_json(value: Any) -> Any:
    """What JSON can hold: records become dicts, arrays lists, and of numbers that are not finite null is left."""
    match value:
        case Mapping():
            return {str(key): as_json(inner) for key, inner in value.items()}
        case list() | tuple():
            return [as_json(inner) for inner in value]
        case np.ndarray() | np.generic():
            return as_json(value.tolist())
        case float():
            return value if math.isfinite(value) else None
    return {field.name: as_json(getattr(value, field.name)) for field in fields(value)} if is_dataclass(value) else value


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A folder to fill, `.NAME.partial` beside `path`, which takes its place at the end; a kill leaves no `path`.

    `path` may be there as an empty folder. What an earlier kill left beside it goes first.
    """
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            path.rmdir()  # no system but POSIX puts a folder in the place of another
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
