"""What users bring by the name MODULE:CALLABLE, imported from where it is installed or from the working folder."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from neurogym_v.types import NeuroGymError


def require(module: str, *, user: str, extra: str) -> Any:
    """An optional package, for `user` ("agent sb3"), which `pip install 'neurogym-v[extra]'` would bring.

    Raises:
        NeuroGymError: it is not installed, or does not import.
    """
    try:
        return import_module(module)
    except ImportError as error:
        reason = str(error).partition(chr(10))[0]
        raise NeuroGymError(
            f"{user}: expected the package {module.partition('.')[0]}, got: {reason}; pip install 'neurogym-v[{extra}]'"
        ) from None


def named(kind: str, name: str, known: tuple[str, ...]) -> Any:
    """What MODULE:CALLABLE names; `known` are the names of this `kind` ("generator") that may have been meant.

    Raises:
        NeuroGymError: no such module, one that cannot be imported, or nothing of that name in it.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with _working_folder():
            module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            close = difflib.get_close_matches(module_name, known, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]!r}?" if close else f" ({kind}s: {', '.join(known)})"
            raise NeuroGymError(f"{kind} {name!r}: no {kind} and no module is named {module_name!r}{hint}") from None
        raise wrong(kind, name, "a module that can be imported", error) from error
    except Exception as error:  # other people's code
        raise wrong(kind, name, "a module that can be imported", error) from error
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise wrong(kind, name, f"a callable {attribute!r} in module {module_name!r}", "none")
    return found


def called(kind: str, name: str, found: Any) -> Any:
    """What the callable that was found makes.

    Raises:
        NeuroGymError: it is no callable, or fails without arguments.
    """
    if not callable(found):
        raise wrong(kind, name, f"a callable that makes a {kind}", type(found).__name__)
    try:
        with _working_folder():  # it may import what it needs only now
            return found()
    except Exception as error:  # other people's code
        raise wrong(kind, name, f"a callable without arguments that makes a {kind}", error) from error


@contextmanager
def _working_folder() -> Iterator[None]:
    """A lab's own files may be imported from the folder it works in: last, so that they hide nothing, and only meanwhile."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:  # this very entry: the lab may have added the same, or others, for good
        sys.path[:] = [entry for entry in sys.path if entry is not here]


def in_a_line(error: BaseException) -> str:
    """Its type and the first line of what it says: for errors of other people's code."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def wrong(kind: str, name: str, expected: str, found: object) -> NeuroGymError:
    """One line, of an exception too."""
    if isinstance(found, Exception):
        found = in_a_line(found)
    return NeuroGymError(f"{kind} {name!r}: expected {expected}, found {found}")
