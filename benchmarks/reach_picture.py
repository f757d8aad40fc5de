"""The picture of `neurogym_v.benchmarks.reach`: images that generators were driven to, beside the best photograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from neurogym_v.benchmarks.naturals import Naturals
from neurogym_v.benchmarks.reach_report import WORDS, Reached, by_target
from neurogym_v.benchmarks.targets import Measured, Target
from neurogym_v.types import Images

matplotlib.use("Agg")
PANELS = 2
"""Targets of each depth, side by side."""
CELL, LABEL, GAP, HEAD = 0.92, 0.17, 0.05, 0.55
"""Inches: an image, the line under it, between images, the heading."""
MARGIN, BETWEEN = 0.95, 0.42
"""Inches: the depths' names at the left, between the panels."""
INK, FAINT, ABOVE = "#111827", "#6b7280", "#15803d"


def open_picture(path: Path) -> Images:
    """(3, s, s) uint8."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def sample(targets: Sequence[Target]) -> list[tuple[str, list[Target]]]:
    """Up to PANELS targets of every depth, by their place alone: the first, the one in the middle, ..."""
    rows = []
    for depth in dict.fromkeys(target.depth for target in targets):
        of_depth = [target for target in targets if target.depth == depth]
        count = min(PANELS, len(of_depth))
        rows.append((depth, [of_depth[i * len(of_depth) // count] for i in range(count)]))
    return rows


def draw_picture(
    reached: Sequence[Reached], generators: Sequence[str], naturals: Naturals, measured: Measured, noise: str
) -> Figure:
    """A row a depth; in it, for each of its targets, the best photograph and what each generator came to, with its ratio."""
    targets, _ = by_target(reached, generators, "ratio")
    rows = sample(targets)
    panels = max((len(chosen) for _, chosen in rows), default=1)
    columns = 1 + len(generators)
    wide = columns * (CELL + GAP) - GAP
    width = MARGIN + panels * wide + (panels - 1) * BETWEEN + 0.12
    height = HEAD + len(rows) * (CELL + LABEL + GAP) + 0.3
    figure = Figure(figsize=(width, height))

    def place(panel: int, column: int, row: int) -> Axes:
        left = MARGIN + panel * (wide + BETWEEN) + column * (CELL + GAP)
        bottom = height - HEAD - row * (CELL + LABEL + GAP) - CELL
        return figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))

    first: dict[tuple[Target, str], Reached] = {}
    for one in reached:  # of several seeds, the first
        first.setdefault((one.target, one.generator), one)
    for row, (depth, chosen) in enumerate(rows):
        for panel, target in enumerate(chosen):
            axes = place(panel, 0, row)
            show(axes, naturals.images[measured.best(target)], target.label, FAINT)
            if panel == 0:
                words = depth.replace(" ", "\n", 1)
                axes.text(-0.1, 0.5, words, transform=axes.transAxes, ha="right", va="center", fontsize=8, color=INK)
            found = [first[target, name] for name in generators]
            best = max(one.ratio for one in found)
            for column, one in enumerate(found, start=1):
                colour = ABOVE if one.ratio > 1 else INK
                axes = place(panel, column, row)
                show(axes, open_picture(one.picture), f"{one.ratio:.2f}", colour, bold=one.ratio == best > 0)
    for panel in range(panels):
        for column, name in enumerate(("best photograph", *generators)):
            x = MARGIN + panel * (wide + BETWEEN) + column * (CELL + GAP) + CELL / 2
            style = "normal" if column else "italic"
            y = (height - HEAD + 0.06) / height
            figure.text(x / width, y, name, ha="center", va="bottom", fontsize=7.5, color=INK, fontstyle=style)
    figure.text(0.12 / width, 1 - 0.1 / height, f"Images evolved through each generator ({WORDS[noise]})", fontsize=10,
                va="top", color=INK, fontweight="bold")  # fmt: skip
    note = "under an image: its noise-free rate over that of the best photograph; green: above it; bold: highest of its row"
    figure.text(0.12 / width, 0.07 / height, note, fontsize=6.5, va="bottom", color=FAINT)
    return figure


def show(axes: Axes, image: Images, under: str, colour: str, *, bold: bool = False) -> None:
    axes.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="bicubic")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(under, fontsize=7, labelpad=1.5, color=colour, fontweight="bold" if bold else "normal")
    for spine in axes.spines.values():
        spine.set_visible(False)
