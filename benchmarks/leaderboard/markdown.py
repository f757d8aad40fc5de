"""README.md of the leaderboards: a table a suite, which any forge shows."""

from __future__ import annotations

from collections.abc import Sequence

from neurogym_v.benchmarks.leaderboard.board import Board, View
from neurogym_v.benchmarks.leaderboard.columns import AGENT, TIE, cells, columns
from neurogym_v.benchmarks.leaderboard.words import differ
from neurogym_v.report.parts import Cell

HEAD = """# Leaderboards

`<suite>-v<N>/<agent>.json` is an entry, one file a submission; [schema.json](schema.json) says what it holds, and
[docs/benchmark.md](../docs/benchmark.md) what the numbers are and how to submit. Made by `neurogym-v leaderboard build`.
"""
NOTES = """\
Relative activation is (final - spontaneous) / (best natural - spontaneous) on fresh presentations; above 1 it beats the best
of the photographs. Scores are interquartile means of runs, with 95% intervals over sites. `{tie}`: not told apart from the
first (Wilcoxon's signed-rank test over sites, seeds paired, after Holm at 5%): their order among each other says little. ERT:
expected presentations to a noise-free 1.
"""
NONE = "There is no entry yet.\n"


def readme(boards: Sequence[Board], earlier: Sequence[str] = ()) -> str:
    """The whole file; `earlier` are pages of versions of suites that are not run any more."""
    parts = [HEAD, *([] if boards else [NONE]), *map(_board, boards), *([NOTES.format(tie=TIE)] if boards else [])]
    if earlier:
        listed = "\n".join(f"- [{name}]({name}.html)" for name in earlier)
        parts.append(f"## Earlier versions\nNot to be compared with those above.\n\n{listed}\n")
    return "\n".join(parts)


def _board(board: Board) -> str:
    suite, made = board.suite, []
    for at, track in enumerate(board.tracks):
        named = f"### {_code(track.noise)}, {_text(track.objective)}\n\n" if len(board.tracks) > 1 else ""
        view = board.view(at)
        made.append(named + (f"{_table(board, view)}\n{_text(differ(view))}\n" if view else ""))
    sites = f"{len(board.sites)} sites, {len(suite.seeds)} seed{'s' * (len(suite.seeds) > 1)}, {suite.budget:,} presentations"
    about = f"{_text(suite.about)} {sites}. [Images, curves and every entry]({suite.id}.html)."
    return f"## {_text(suite.title)}: {suite.id}\n\n{about}\n\n" + "\n".join(made)


def _table(board: Board, view: View) -> str:
    names = [column.name for column in columns(board)]
    lines = [names, ["---" if column.words else "--:" for column in columns(board)]]
    lines += [[_cell(cell, code=at == AGENT) for at, cell in enumerate(row)] for row in cells(board, view).values()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(cell: Cell, *, code: bool) -> str:
    return " ".join(filter(None, (_code(cell.text) if code else _text(cell.text), _text(cell.note))))


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`".replace("|", "\\|")


def _text(text: str) -> str:
    """Words that stay words."""
    return "".join(f"\\{letter}" if letter in "\\`*_<>|#!~&[]" else letter for letter in text)
