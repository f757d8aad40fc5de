"""The parts that pages are built of: film strips, image cards, tables, facts, numbers, notices, and the document around them.

All text is escaped; what is `Markup` already is taken as it is.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neurogym_v import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image with what is said of it."""

    uri: str | None
    """A data URI; None: a place without an image."""
    title: str
    text: str = ""
    """What is said below it, in a line."""
    more: str = ""
    """What is said when it is enlarged."""
    colour: str = ""
    """Of its frame: a colour of the style sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One of a table."""

    text: str
    order: float | str | None = None
    """What it is sorted by, where that is not its text."""
    colour: str = ""
    """Of the mark before it."""
    note: str = ""
    """Said in small letters behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Of a table."""

    name: str
    words: bool = False
    """Left-aligned and sorted from A to Z; numbers are sorted from the highest."""
    about: str = ""
    """A tooltip."""


def film(name: str, frames: Sequence[Picture], *, colour: str = "", note: str = "") -> Markup:
    """Images in the order in which they were shown; each is enlarged by a click or the Enter key."""
    return _part("film", name=name, frames=frames, colour=colour, note=note)


def cards(pictures: Sequence[Picture]) -> Markup:
    """Images beside each other, large."""
    return _part("cards", pictures=pictures)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, caption: str) -> Markup:
    """A table that is sorted by a click on a heading; wider than the screen, it moves by itself."""
    return _part("table", columns=columns, rows=rows, caption=caption)


def heading(name: str, *, colour: str = "") -> Markup:
    """A small heading with the mark of a colour."""
    return _part("heading", name=name, colour=colour)


def facts(rows: Mapping[str, str]) -> Markup:
    """Names and what is known of them."""
    return _part("facts", rows=rows)


def numbers(tiles: Sequence[tuple[str, str, str]]) -> Markup:
    """Headline numbers: (number, unit or interval, what it is)."""
    return _part("numbers", tiles=tiles)


def notices(lines: Sequence[str]) -> Markup:
    """What a reader must know before all else; nothing without lines."""
    return _part("notices", lines=lines)


def command(text: str) -> Markup:
    """What is typed in a shell."""
    return _part("command", text=text)


def columns(*parts: str, narrow: bool = False) -> Markup:
    """Parts beside each other where there is room: two, or with `narrow` three and more."""
    return _part("columns", parts=parts, narrow=narrow)


def section(title: str, *parts: str, about: str = "") -> Markup:
    """Parts under a heading; `about` says in a sentence or two what is seen."""
    return _part("section", title=title, parts=parts, about=about)


def document(
    title: str, *parts: str, eyebrow: str = "", lead: str = "", foot: str = "", style: str = "", script: str = ""
) -> Markup:
    """A whole page with its style and script inside, and those of its own after them.

    Its content security policy lets nothing be fetched, and no other script be run.
    """
    scripts = [Markup(text) for text in (_asset("page.js"), script) if text]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    page = _environment().get_template("page.html").render(
        title=title, parts=parts, eyebrow=eyebrow, lead=lead, foot=foot, version=__version__, digests=digests,
        style=Markup(_asset("style.css") + style), scripts=scripts,
    )  # fmt: skip
    return Markup(page)


def _part(macro: str, /, **given: Any) -> Markup:
    made = getattr(_environment().get_template("parts.html").module, macro)(**given)
    return Markup(made)


def _asset(name: str) -> str:
    return files("neurogym_v.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("neurogym_v.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
