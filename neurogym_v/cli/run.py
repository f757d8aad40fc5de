"""`neurogym-v run` and `neurogym-v resume`: evolve images for a neuron, and leave a folder that tells how it went."""

from __future__ import annotations

import argparse
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from neurogym_v.experiment import AGENTS, OBJECTIVES, STARTS, AgentResult, Experiment, RunConfig, RunResult, Watcher
from neurogym_v.files import write_json
from neurogym_v.journal import Journal
from neurogym_v.pictures import save_pictures
from neurogym_v.report import write_report
from neurogym_v.rigs import RigError
from neurogym_v.rigs.gate import Gate
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.view import LiveView
from neurogym_v.tracked import Tracked
from neurogym_v.types import Feedback, NeuroGymError

JOURNAL, SUMMARY = "journal.sqlite", "summary.json"
LOST = "the site was lost"
SANITY = " *"
"""Beside the name of an agent that knows more of the neuron than it may."""


def add(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="evolve images for a neuron",
        description="Let agents search, one after the other with the same luck, for images that drive a neuron; compare "
        "what they recommend with natural images, on fresh presentations; write journal, table and pictures to a folder.",
        epilog="example: neurogym-v run --agent cma_es --agent ga:ponce2019 --neuron v4 --site 3 --budget 3000",
    )
    default = RunConfig()
    run.add_argument("--agent", action="append", dest="agents", metavar="NAME[:PRESET][,KEY=VALUE...]", help="such as cma_es, "
                     "ga:ponce2019,temperature=1 or sphere_cma,norm=1; repeat for several; `neurogym-v list` shows them "
                     f"[{' '.join(default.agents)}]")  # fmt: skip
    run.add_argument("--neuron", default=default.neuron, help="name or weights file [%(default)s]")
    run.add_argument("--site", type=int, default=default.site, help="which of the neuron's sites is to be driven [%(default)s]")
    run.add_argument("--generator", default=default.generator, metavar="NAME[:VARIANT]", help="or a weights file, or "
                     "MODULE:CALLABLE [%(default)s]")  # fmt: skip
    run.add_argument("--budget", type=int, default=default.budget, help="presentations of each agent's search [%(default)s]")
    run.add_argument("--objective", choices=OBJECTIVES, default=default.objective, help="drive the site most, or alone among "
                     "all sites of the neuron [%(default)s]")  # fmt: skip
    run.add_argument("--recommend", type=int, default=default.recommend, metavar="K", help="images that each agent recommends, "
                     "all of which are shown again [%(default)s]")  # fmt: skip
    run.add_argument("--report-at", type=int, nargs="+", default=(), metavar="N", help="presentations at which what an agent "
                     "recommends is scored too, beside the end")  # fmt: skip
    run.add_argument("--batch-size", type=int, default=default.batch_size, help="images a round [%(default)s]")
    run.add_argument("--seed", type=int, default=default.seed, help="of agents and noise; same seed, same run [%(default)s]")
    run.add_argument("--noise", default=default.noise, metavar="EFFECT[:NUMBER]+...", help="what a session does to the rates, "
                     "such as poisson+lost:0.1 or session; `neurogym-v list` shows all [%(default)s]")  # fmt: skip
    run.add_argument("--start", choices=STARTS, default=default.start, help="where searches begin: at the generator's prior, "
                     "or at the latent of the best natural image, which its screening paid for [%(default)s]")  # fmt: skip
    run.add_argument("--references", metavar="FOLDER", help="natural images to compare with [several hundred "
                     "crops of photographs inside installed packages]")  # fmt: skip
    run.add_argument("--image-deg", type=float, metavar="DEG", help="what an image spans on the screen [the neuron's field]")
    run.add_argument("--position-deg", type=float, nargs=2, default=default.position_deg, metavar=("X", "Y"), help="of its "
                     "centre, to the right and upwards [0 0]")  # fmt: skip
    run.add_argument("--normaliser", type=int, default=default.normaliser, metavar="IMAGES", help="natural images that come "
                     "back through every session, an eighth more presentations, to take slow changes of gain out of the rates; "
                     "the field shows 25 [%(default)s]")  # fmt: skip
    run.add_argument("--device", default=default.device, help="auto, cpu, cuda, ... [%(default)s]")
    run.add_argument("--out", type=Path, metavar="FOLDER", help="run folder; must be new [runs/DATE-NEURON-SITE]")
    add_track(run, "without WHERE: in the folder tracking beside the run's")
    run.set_defaults(command=_run)
    resume = commands.add_parser(
        "resume",
        help="continue a run that was stopped or killed",
        description="Continue a run from its journal: what was shown is replayed to the agents, not shown again; then the "
        "run goes on and ends as if nothing had happened. On a finished run: write its table and pictures again.",
    )
    resume.add_argument("run", type=Path, metavar="RUN", help="its folder")
    add_track(resume, "the trackers that it was begun with")
    add_minutes(resume)
    resume.set_defaults(command=_resume)


def add_minutes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--minutes", type=float, help="end the session of a live neuron after so long, to be resumed on "
                         "another day [no limit]")  # fmt: skip


def gate_of(minutes: float | None) -> Gate:
    """That ends a live session after so long."""
    if minutes is not None and not minutes > 0:
        raise NeuroGymError(f"minutes: expected more than 0, got {minutes:g}")
    return Gate(None if minutes is None else time.monotonic() + 60 * minutes)


def add_track(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--track", action="append", default=[], metavar="NAME[:WHERE]", help="csv:FOLDER, tensorboard:FOLDER, "
                         "mlflow:sqlite:///FILE or its server's address, wandb:PROJECT or wandb:ENTITY/PROJECT; repeat for "
                         f"several [{default}]")  # fmt: skip


def _run(chosen: argparse.Namespace) -> int:
    settings = {key: value for key, value in vars(chosen).items() if key not in ("command", "out", "agents", "track")}
    settings |= {"position_deg": tuple(chosen.position_deg), "report_at": tuple(chosen.report_at)}
    return start(RunConfig(**settings, agents=tuple(chosen.agents or AGENTS)), chosen.out, chosen.track)


def start(config: RunConfig, out: Path | None, track: Sequence[str], gate: Gate | None = None) -> int:
    """Begin a run in a new folder, by default one under `runs`; the exit code of the command."""
    stem = Path(config.neuron).stem.replace(":", "-")
    folder = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{stem}-{config.site}"
    if (folder / JOURNAL).exists():
        raise NeuroGymError(f"{folder}: expected a new folder, found a run; continue it with: {_resuming(folder)}")
    tracked = Tracked(track, config, folder)
    experiment = Experiment(config)  # what cannot run is refused before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL, config=asdict(config)) as journal:
        return _carry_out(experiment, journal, folder, tracked, gate)


def _resume(chosen: argparse.Namespace) -> int:
    with Journal(chosen.run / JOURNAL) as journal:
        config = RunConfig.from_json(journal.config)
        tracked = Tracked.resumed(chosen.track, config, chosen.run)
        return _carry_out(Experiment(config), journal, chosen.run, tracked, gate_of(chosen.minutes))


def _carry_out(experiment: Experiment, journal: Journal, folder: Path, tracked: Tracked, gate: Gate | None = None) -> int:
    console = Console()
    console.print(f"run folder: {folder}", soft_wrap=True, markup=False)
    tracked.say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    tracked.keep()
    neuron = experiment.neuron
    neuron.keep(folder)
    with tracked:
        try:
            if isinstance(neuron, LiveNeuron):
                with LiveView(experiment.config, neuron, console, gate or Gate()) as view:
                    result = experiment.run(journal, tracked.watcher(experiment.references, view.watcher))
            else:
                result = _watched(experiment, journal, console, tracked)
        except KeyboardInterrupt:
            console.print(f"stopped; nothing is lost. Continue with: {_resuming(folder)}", soft_wrap=True, markup=False)
            return 130
        except RigError:
            console.print(f"the rig failed; nothing is lost. Continue with: {_resuming(folder)}", soft_wrap=True, markup=False)
            raise
        finally:
            neuron.close()
        write_summary(result, folder / SUMMARY)
        console.print(result_table(result))
        files = save_pictures(result, experiment.generator, folder)
        page = write_report(folder, journal, generator=lambda _: experiment.generator)
        tracked.finish(result.agents, [folder / SUMMARY, page, *files])
    console.print(
        f"natural images and validation included: {result.total_presentations} presentations, {result.wall_s:.0f} s\n"
        f"page: {page.name}; pictures: {', '.join(path.name for path in files)}; numbers: {SUMMARY}; "
        f"every presentation: {JOURNAL}; in {folder}",
        soft_wrap=True,
        markup=False,
    )
    return 0


def _resuming(folder: Path) -> str:
    """The command that goes on, as a shell takes it."""
    return f"neurogym-v resume {shlex.quote(str(folder))}"


def _watched(experiment: Experiment, journal: Journal, console: Console, tracked: Tracked) -> RunResult:
    """Run, with a bar for each stage on a terminal and a line for each elsewhere."""
    config = experiment.config
    columns = (TextColumn("{task.description:20}", markup=False), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def stage(name: str) -> None:
            for bar in bars.values():
                progress.update(bar, total=progress.tasks[bar].total or 1, completed=progress.tasks[bar].total or 1)
            bars[name] = progress.add_task(name, total=config.budget if name in config.agents else None, note="")
            if not console.is_terminal:
                console.print(name, highlight=False, markup=False)

        def round_done(name: str, feedback: Feedback) -> None:
            mean = feedback.mean_rate
            note = "all trials lost" if np.isnan(mean) else f"round mean {mean:.0f} spikes/s"
            progress.update(bars[name], completed=feedback.spent, note=note)

        def agent_done(result: AgentResult) -> None:
            note = f"{result.final.value:.0f} spikes/s, relative activation {result.relative_activation.value:.2f}"
            note = LOST if result.site_lost else note + (" (sanity check)" if result.sanity_check else "")
            progress.update(bars[result.agent], note=note)
            if not console.is_terminal:
                console.print(f"  {note}", highlight=False)

        watcher = Watcher(stage, round_done, agent_done)
        return experiment.run(journal, tracked.watcher(experiment.references, watcher))


def result_table(result: RunResult) -> Table:
    """What was found, as the command prints it; fits 80 columns."""
    config, natural = result.config, result.natural
    table = Table(
        title=f"{escape(config.neuron)} site {config.site}: spikes/s, means of fresh repeats"
        + ("; searches start at the best natural image" if config.start == "natural" else ""),
        caption="relative activation = (final - spontaneous) / (best natural - spontaneous), of images shown in turn; shown: "
        "presentations"
        + (f"\nthe image that searches start at cost {natural.presentations} more" if config.start == "natural" else "")
        + ("\n* sanity check: its model is made of the neuron's own kind of network" if _sanity(result) else ""),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    headings = ("agent", "sponta-\nneous", "best\nnatural", "first\nround", "final", "relative activation\n[95% interval]",
                "shown", "s")  # fmt: skip
    for heading in headings:
        left = heading == "agent"
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading.startswith("relative"), overflow="fold")
    for agent in sorted(result.agents, key=lambda a: -a.final.value):
        table.add_row(
            escape(agent.agent) + (SANITY if agent.sanity_check else ""),
            f"{agent.shown.means['spontaneous']:.1f}",
            f"{agent.shown.means['natural']:.1f}",
            f"{agent.first_round.value:.1f}",
            f"{agent.final.value:.1f}",
            LOST if agent.site_lost else str(agent.relative_activation),
            str(agent.search_presentations),
            f"{agent.wall_s:.0f}",
        )
    return table


def _sanity(result: RunResult) -> bool:
    return any(agent.sanity_check for agent in result.agents)


def write_summary(result: RunResult, path: Path) -> None:
    """All numbers of a run as JSON, whole or not at all."""

    def plain(agent: AgentResult) -> dict[str, Any]:
        """The numbers of the end under names of their own, then all milestones."""
        ends = ("final", "relative_activation", "expected_final", "recommended")
        names = [field.name for field in fields(AgentResult) if field.name not in ("milestones", "rounds")]
        rounds = [
            {"spent": r.spent, "mean": r.mean_rate, "best": r.best_rate, "diagnostics": r.diagnostics} for r in agent.rounds
        ]
        values = {name: getattr(agent, name) for name in (*names, *ends)}
        return values | {"milestones": agent.milestones, "rounds": rounds}

    packages = ("neurogym-v", "torch", "numpy", "gymnasium")
    summary = {
        "config": asdict(result.config),
        "natural": result.natural,
        "agents": [plain(agent) for agent in result.agents],
        "total_presentations": result.total_presentations,
        "wall_s": result.wall_s,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }
    write_json(path, summary)
