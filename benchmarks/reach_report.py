"""The tables of `neurogym_v.benchmarks.reach`: rows are depths, columns are generators, targets are what is counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from neurogym_v.benchmarks.targets import Target
from neurogym_v.files import write_whole
from neurogym_v.stats import median

TRUSTED = 0.3
"""Transfer counts twins of this cross-validated r or more: what another one predicts says nothing about its target."""
FEWEST = 5
"""Targets that an interval is given for."""
NONE = "–"
WORDS = {"poisson": "Poisson counts", "none": "noise-free"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one finished run came to."""

    generator: str
    target: Target
    noise: str
    seed: int
    ratio: float
    """Clean rate of the recommended image over that of the best natural photograph."""
    transfer: float
    """The same on the twin of the target in another network; NaN where there is no twin."""
    picture: Path


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as text, for the terminal and for markdown. The last row is over all targets."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in self.headings:
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row, style="bold" if row is self.rows[-1] else None)
        return table

    def markdown(self) -> str:
        lines = [
            [heading.replace("\n", " ") for heading in self.headings],
            ["---:" if heading else "---" for heading in self.headings],
            *self.rows,
        ]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sheets(
    reached: Sequence[Reached], generators: Sequence[str], noises: Sequence[str], r: Mapping[Target, float]
) -> list[Sheet]:
    """Two tables for each noise: how far each generator reaches, and how it compares and transfers."""
    pages = []
    for noise in noises:
        mine = [one for one in reached if one.noise == noise]
        targets, ratios = by_target(mine, generators, "ratio")
        _, transfers = by_target(mine, generators, "transfer")
        if not targets:
            continue
        first, *others = generators
        reach, paired = [], []
        for depth, rows in depths(targets):
            count = str(len(rows))
            reach.append([depth, count, *(_interval(ratios[rows, i]) for i in range(len(generators)))])
            wins = [f"{wins_of_first(ratios[rows])[i]:.0%}" for i in range(len(others))]
            twins = np.array([r.get(targets[row], np.nan) for row in rows])
            trusted = [row for row, known in zip(rows, twins, strict=True) if known >= TRUSTED]
            moved = [_median(transfers[trusted, i]) for i in range(len(generators))]
            paired.append([depth, count, *wins, _median(twins), str(len(trusted)), *moved])
        title = f"{WORDS[noise]}: clean rate of the final image / best photograph, median of targets [95 %]"
        pages.append(Sheet(title, ["", "targets", *generators], reach))
        above, moved = [f"above\n{name}" for name in others], [f"twins:\n{name}" for name in generators]
        headings = ["", "targets", *above, "twin\nr", f"twins\nr ≥ {TRUSTED}", *moved]
        title = (
            f"{WORDS[noise]}: share of targets on which {first} is above; median of the same ratio on twins of r ≥ {TRUSTED}"
        )
        pages.append(Sheet(title, headings, paired))
    return pages


def by_target(reached: Sequence[Reached], generators: Sequence[str], what: str) -> tuple[list[Target], NDArray[np.float64]]:
    """The targets that every generator finished with the same seeds, and (targets, generators) means over the seeds:
    targets are what a claim generalises over, seeds are not."""
    found: dict[Target, dict[str, dict[int, float]]] = {}
    for one in reached:
        found.setdefault(one.target, {}).setdefault(one.generator, {})[one.seed] = getattr(one, what)
    seeds = {target: [set(of.get(name, {})) for name in generators] for target, of in found.items()}
    targets = [target for target, sets in seeds.items() if sets[0] and all(other == sets[0] for other in sets)]
    means = [[np.mean(list(found[target][name].values())) for name in generators] for target in targets]
    return targets, np.array(means, dtype=np.float64).reshape(len(targets), len(generators))


def depths(targets: Sequence[Target]) -> list[tuple[str, list[int]]]:
    """(row of a table, its targets): every depth, every group of several depths, all."""
    rows = []
    for group in dict.fromkeys(target.group for target in targets):
        of_group = [i for i, target in enumerate(targets) if target.group == group]
        names = list(dict.fromkeys(targets[i].depth for i in of_group))
        rows += [(name, [i for i in of_group if targets[i].depth == name]) for name in names]
        if len(names) > 1:
            rows.append((f"{group}, all", of_group))
    return [*rows, ("all", list(range(len(targets))))]


def wins_of_first(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """(generators - 1,) share of the (targets, generators) rows in which the first is above each other; a tie is half."""
    return np.asarray(((np.sign(ratios[:, :1] - ratios[:, 1:]) + 1) / 2).mean(axis=0))


def write_tables(
    folder: Path,
    about: str,
    pages: Sequence[Sheet],
    notes: Sequence[str],
    reached: Sequence[Reached],
    r: Mapping[Target, float],
) -> None:
    """`reach.md`, and `table.json` with a row a run."""
    text = "\n\n".join(["# How far a search gets through a generator", about, *(page.markdown() for page in pages), *notes])
    rows = [
        {"generator": one.generator, "target": one.target.name, "depth": one.target.depth, "noise": one.noise, "seed": one.seed,
         "ratio": one.ratio, "transfer": _number(one.transfer), "twin_r": _number(r.get(one.target, float("nan")))}
        for one in reached
    ]  # fmt: skip
    tables = [{"title": page.title, "headings": page.headings, "rows": page.rows} for page in pages]
    whole = json.dumps({"about": about, "notes": notes, "tables": tables, "runs": rows}, indent=1)
    write_whole(folder / "reach.md", lambda file: file.write(f"{text}\n".encode()))
    write_whole(folder / "table.json", lambda file: file.write(whole.encode()))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)  # JSON has no NaN


def _median(values: NDArray[np.float64]) -> str:
    return NONE if np.isnan(values).all() else f"{np.nanmedian(values):.2f}"


def _interval(values: NDArray[np.float64]) -> str:
    return str(median(values, np.random.default_rng(0))) if len(values) >= FEWEST else f"{np.median(values):.2f}"
