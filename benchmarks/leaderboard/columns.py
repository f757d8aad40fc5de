"""The columns of a leaderboard, in its page and in README.md alike."""

from __future__ import annotations

import numpy as np

from neurogym_v.benchmarks.leaderboard.board import Board, View, score_on
from neurogym_v.benchmarks.reduced import TARGETS
from neurogym_v.benchmarks.standings import Standing
from neurogym_v.report.parts import Cell, Column
from neurogym_v.report.words import NONE, number
from neurogym_v.stats import Estimate

NEVER = 1e12
"""What it is sorted by."""
TIE = "≈ 1st"
ONE = TARGETS.index(1.0)
AGENT = 1
"""Its column."""


def columns(board: Board) -> list[Column]:
    """Their names, with what they are."""
    suite = board.suite
    earlier = [
        Column(
            name=f"at {at:,}",
            about=f"relative activation after {at:,} presentations of the same runs, which plan for {suite.budget:,}",
        )
        for at in sorted(set(suite.report_at) - {suite.budget})
    ]
    held = [
        Column(name="held out", about="relative activation on the sites that nothing may be tuned on"),
        Column(name="others", about="relative activation on the other sites"),
    ]
    return [
        Column(name="rank", about=f"by the score; {TIE}: not told apart from the first, after Holm"),
        Column(name="agent", words=True),
        Column(
            name=f"score at {suite.budget:,}",
            about="relative activation of the recommended image: interquartile mean of runs, with its 95% interval over sites",
        ),
        *earlier,
        Column(name="beats 1st", about="probability that a run of it is better than one of the first agent on the same site"),
        Column(name=f"best of {suite.recommend}", about="chosen on one half of the rounds, scored on the other"),
        Column(name="noise-free", about="from expected rates, which no agent sees"),
        Column(name="contrast matched", about="with the brightness and contrast of the best natural image"),
        Column(name="area", about="under the noise-free curve of what would have been recommended"),
        Column(name="ERT to 1", about="expected presentations to a noise-free relative activation of 1, of the median site"),
        Column(name="stretched", about="sites driven above their best natural image: paired t test, after Holm; first seed"),
        *(held if split(board) else []),
        Column(name="s per 1,000", about="the agent's own seconds for 1,000 presentations"),
        Column(name="runs", about="done, of all"),
        Column(name="date", words=True, about="of the entry, and its version of neurogym-v"),
    ]


def cells(board: Board, view: View) -> dict[str, list[Cell]]:
    """Agent -> its row, in the order of their rank."""
    return {row.agent: _row(board, view, row, rank) for rank, row in enumerate(view.rows, 1)}


def _row(board: Board, view: View, row: Standing, rank: int) -> list[Cell]:
    suite, entry = board.suite, board.entries[row.agent]
    earlier = [row.at[at] for at in sorted(set(suite.report_at) - {suite.budget})]
    apart = [[site for site in board.sites if site.held_out == held] for held in (True, False)]
    held = [_plain(score_on(view, row.agent, sites)) for sites in apart] if split(board) else []
    scored = np.isfinite(row.score.value)
    return [
        Cell(text=str(rank) if scored else NONE, order=-rank, note=TIE if scored and view.compared.tied(row.agent) else ""),
        Cell(text=row.agent, note=_remarks(row)),
        _estimate(row.score),
        *map(_estimate, earlier),
        _share(view.compared.better.get(row.agent, Estimate(np.nan, np.nan, np.nan))),
        _estimate(row.best),
        _estimate(row.expected),
        _estimate(row.contrast_matched),
        _estimate(row.area),
        _time(float(row.running_time[ONE])),
        _share(row.stretched),
        *held,
        _plain(row.seconds, 2 if row.seconds < 100 else 0),
        Cell(text=f"{row.done}/{row.of}", order=row.done),
        Cell(text=entry["date"], order=entry["date"], note=f"v{entry['versions']['neurogym-v']}"),
    ]


def split(board: Board) -> bool:
    """Whether some sites are held out and some are not."""
    return len({site.held_out for site in board.sites}) > 1


def _remarks(row: Standing) -> str:
    failed = [f"{len(row.failed)} failed"] if row.failed else []
    return "; ".join([*failed, *([f"{row.sanity_checks} runs not counted"] if row.sanity_checks else [])])


def _estimate(found: Estimate) -> Cell:
    if not np.isfinite(found.value):
        return Cell(text=NONE)
    note = f"[{number(found.low, 2)}, {number(found.high, 2)}]" if np.isfinite(found.low) else ""
    return Cell(text=number(found.value, 2), order=found.value, note=note)


def _share(found: Estimate) -> Cell:
    if not np.isfinite(found.value):
        return Cell(text=NONE)
    note = f"[{found.low:.0%}, {found.high:.0%}]" if np.isfinite(found.low) else ""
    return Cell(text=f"{found.value:.0%}", order=found.value, note=note)


def _plain(value: float, decimals: int = 2) -> Cell:
    return Cell(text=number(value, decimals), order=value if np.isfinite(value) else None)


def _time(value: float) -> Cell:
    if np.isposinf(value):
        return Cell(text="never", order=NEVER)
    return _plain(value, 0)
