"""Pictures of a run: how the images evolved, how the rates rose, and what was found, beside the best photograph."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from neurogym_v.experiment import AgentResult, RunResult
from neurogym_v.generators import Generator, draw
from neurogym_v.render import to_pil
from neurogym_v.types import Images

matplotlib.use("Agg")
COLOURS = ("#2563eb", "#d97706", "#6b7280", "#059669", "#dc2626", "#7c3aed")
FRAMES = 12
"""Rounds in the film strip."""


def save_pictures(result: RunResult, generator: Generator, folder: Path) -> list[Path]:
    """Write the film strip and the final images of a run; returns the files."""
    evolution = folder / "evolution.png"
    figure = draw_evolution(result, generator)
    figure.savefig(evolution, dpi=110, facecolor="white")
    files = [evolution]
    for agent in result.agents:
        files.append(folder / f"final-{final_name(agent.agent)}.png")
        to_pil(draw(generator, agent.recommended)[0]).save(files[-1])
    files.append(folder / "best-natural.png")
    to_pil(_natural(result)).save(files[-1])
    return files


def draw_evolution(result: RunResult, generator: Generator) -> Figure:
    """The best image per round of each agent, above their rates, with the band of the best natural image."""
    rows = len(result.agents)
    figure = Figure(figsize=(15, 1.35 * rows + 4.6))
    grid = GridSpec(
        rows + 1,
        FRAMES + 2,
        figure=figure,
        height_ratios=[1] * rows + [3.2],
        left=0.05,
        right=0.985,
        bottom=0.08,
        top=0.93,
        wspace=0.06,
        hspace=0.28,
    )
    config = result.config
    figure.suptitle(
        f"{config.neuron} site {config.site} · {config.generator} · {config.budget} presentations an agent", y=0.985
    )
    for row, (agent, colour) in enumerate(zip(result.agents, _colours(rows), strict=True)):
        _film(figure, grid, row, agent, colour, generator)
    _curves(figure.add_subplot(grid[rows, : FRAMES - 1]), result)
    axes = figure.add_subplot(grid[rows, FRAMES - 1 :])
    _picture(axes, _natural(result), f"best of {len(result.references.names)} natural\n{_hz(result.natural.best.value)}")
    return figure


def _film(figure: Figure, grid: GridSpec, row: int, agent: AgentResult, colour: str, generator: Generator) -> None:
    rounds = [r for r in agent.rounds if np.isfinite(r.rates).any()]
    chosen = [rounds[i] for i in np.unique(np.linspace(0, len(rounds) - 1, FRAMES).astype(int))] if rounds else []
    bests = [int(np.nanargmax(r.rates)) for r in chosen]
    if chosen:
        images = draw(generator, np.stack([r.latents[i] for r, i in zip(chosen, bests, strict=True)]))
        for column, (feedback, i) in enumerate(zip(chosen, bests, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            _picture(axes, images[column], f"r{feedback.round + 1}: {feedback.rates[i]:.0f}", colour=None, size=7)
            if column == 0:
                axes.set_ylabel(_label(agent), color=colour, fontsize=9, fontweight="bold")
    final = figure.add_subplot(grid[row, FRAMES:])
    title = f"recommended: {_hz(agent.final.value)}\nrelative activation {agent.relative_activation.value:.2f}"
    _picture(final, draw(generator, agent.recommended)[0], title, colour=colour)


def _curves(axes: Axes, result: RunResult) -> None:
    natural = result.natural
    axes.axhspan(natural.best.low, natural.best.high, color="#16a34a", alpha=0.18, lw=0)
    axes.axhline(natural.best.value, color="#16a34a", lw=1, label="best natural image, 95% band")
    axes.axhline(natural.spontaneous.value, color="#9ca3af", lw=1, ls=":", label="spontaneous (grey screen)")
    for agent, colour in zip(result.agents, _colours(len(result.agents)), strict=True):
        spent = [r.spent for r in agent.rounds]
        rates = [r.mean_rate for r in agent.rounds]
        axes.plot(spent, rates, color=colour, lw=1.6, label=f"{_label(agent)}: mean of the round")
        final = agent.final
        axes.errorbar(
            result.config.budget * 1.02,
            final.value,
            [[final.value - final.low], [final.high - final.value]],
            color=colour,
            fmt="o",
            ms=5,
            capsize=3,
        )
    axes.set(xlabel="presentations", ylabel="spikes/s", xlim=(0, result.config.budget * 1.05))
    axes.set_ylim(bottom=0)
    note = "film: each round's image of highest response, one presentation · points: the recommended image, fresh repeats"
    axes.set_title(note, fontsize=8, loc="right")
    axes.legend(fontsize=8, frameon=False, loc="best")
    axes.spines[["top", "right"]].set_visible(False)


def final_name(agent: str) -> str:
    """The agent's name; where letters had to be replaced or left out, with a few digits that no other name has."""
    name = re.sub(r"[^A-Za-z0-9_.=-]+", "-", agent)[:80]
    return name if name == agent.replace(":", "-") else f"{name}-{hashlib.sha256(agent.encode()).hexdigest()[:6]}"


def _label(agent: AgentResult) -> str:
    return f"{agent.agent} (sanity check)" if agent.sanity_check else agent.agent


def _picture(axes: Axes, image: Images, title: str, *, colour: str | None = "#16a34a", size: int = 8) -> None:
    axes.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="lanczos")
    axes.set_title(title, fontsize=size, pad=2)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=colour is not None, color=colour or "none", linewidth=2)


def _natural(result: RunResult) -> Images:
    return result.references.images[result.references.names.index(result.natural.best_image)]


def _colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _hz(rate: float) -> str:
    return f"{rate:.0f} spikes/s"
