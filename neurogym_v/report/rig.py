"""How the rig did: what was shown, what was lost and why, and how the two clocks compared."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from neurogym_v.report import parts, words
from neurogym_v.report.parts import Cell, Column
from neurogym_v.report.record import Record
from neurogym_v.report.words import number, whole

KINDS = 12
"""Reasons, or notes, that have a line of their own."""


def section(record: Record) -> Markup:
    """Nothing of a simulated run."""
    rig = record.rig
    if rig is None:
        return Markup("")
    lost = _table("why it was lost", few(rig.reasons), of=rig.shown, caption="reasons of loss")
    noted = _table("what the rig noted", few(rig.notes), of=0, caption="notes of the rig")
    return parts.section("The rig", parts.facts(words.rig(rig)), lost, noted, about=words.RIG)


def few(counts: Mapping[str, int]) -> dict[str, int]:
    """The first KINDS, and the rest as one."""
    first, rest = dict(list(counts.items())[:KINDS]), list(counts.values())[KINDS:]
    return first | ({f"{whole(len(rest))} others": sum(rest)} if rest else {})


def _table(what: str, counts: Mapping[str, int], *, of: int, caption: str) -> Markup:
    """How often; with `of`, also as a share of so many."""
    if not counts:
        return Markup("")
    shares = [Column(name="% of all", about="of everything that was shown")] if of else []
    columns = [Column(name=what, words=True), Column(name="presentations" if of else "times"), *shares]
    rows = [
        [Cell(text=said), Cell(text=whole(count), order=count)]
        + ([Cell(text=number(100 * count / of), order=count)] if of else [])
        for said, count in counts.items()
    ]
    return parts.table(columns, rows, caption=caption)
