"""`neurogym-v list`: what can be named, with one line each."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neurogym_v.benchmarks import suite
from neurogym_v.cli import weights
from neurogym_v.noise import describe_noise
from neurogym_v.registration import ENVIRONMENTS
from neurogym_v.registry import (
    ACQUISITIONS,
    DISPLAYS,
    GENERATORS,
    NEURONS,
    PRESENTERS,
    agent_class,
    agents,
    describe,
    resolve,
)
from neurogym_v.tracking import TRACKERS
from neurogym_v.types import NeuroGymError


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "list",
        help="show neurons, noise, generators, agents, trackers, parts of rigs, suites and environments",
        description="Show every neuron, noise (with its numbers), generator (with its variants), agent (with its presets), "
        "tracker, recording system, presenter and display of a rig, suite and environment that can be named, one line each.",
    )
    parser.set_defaults(command=_list)


def _list(_: argparse.Namespace) -> int:
    table = Table(box=None, show_header=False, pad_edge=False)
    neurons: dict[str, str] = {}
    for name, line in describe("neuron", NEURONS).items():
        variants = getattr(resolve("neuron", name, NEURONS), "variants", ())
        neurons |= {name: line} | {f"  {name}:{variant}": "" for variant in variants}
    _section(table, "neurons", neurons)
    _section(table, "noise", describe_noise())
    states = weights.states()
    generators: dict[str, str] = {}
    for name, line in describe("generator", GENERATORS).items():
        variants = [full for full in states if full.partition(":")[0] == name]
        variants = variants or [
            f"{name}:{variant}" for variant in getattr(resolve("generator", name, GENERATORS), "variants", ())
        ]
        generators |= {name: line} | {f"  {full}": states.get(full, "") for full in variants}
    _section(table, "generators", generators)
    listed = {}
    for name in agents():
        try:
            cls = agent_class(name)[0]
        except NeuroGymError as error:  # a package of others that is broken hides no one else
            listed[name] = f"[red]cannot be used: {escape(str(error))}[/red]"
            continue
        listed[name] = (inspect.getdoc(cls) or "").partition("\n")[0]
        listed |= {f"  {name}:{preset}": "" for preset in cls.presets}
    _section(table, "agents", listed)
    _section(table, "trackers", describe("tracker", TRACKERS))
    _section(table, "recording systems", describe("acquisition", ACQUISITIONS))
    _section(table, "presenters", describe("presenter", PRESENTERS))
    _section(table, "displays", describe("display", DISPLAYS))
    _section(table, "suites", {name: suite.load(name).title for name in suite.names()})
    _section(table, "environments", {name: f"gymnasium.make({name!r})" for name in ENVIRONMENTS})
    Console(soft_wrap=True).print(table)
    return 0


def _section(table: Table, title: str, rows: dict[str, str]) -> None:
    table.add_row(f"[bold]{title}[/bold]", "")
    for name, line in rows.items():
        table.add_row(f"  {name}", line)
