"""The table of all agents: `python -m neurogym_v.benchmarks.agents`.

Every agent searches on every condition: a site of a neuron, a noise and a seed, in which agents that ask for equal batches
have the same luck. Scores rest on fresh repeats of what an agent recommends, against natural images that are measured once a
condition. The first agent is run on all conditions, then the second, ...: stop it whenever you like, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from rich.console import Console

from neurogym_v.benchmarks.agents_picture import draw_picture
from neurogym_v.benchmarks.agents_report import GA, GOAL, RANDOM, rich_table, rows, write
from neurogym_v.benchmarks.agents_runs import BATCH, Condition, Outcome, do_all, forget, read
from neurogym_v.experiment import Experiment
from neurogym_v.registry import agent_class, device_of
from neurogym_v.types import NeuroGymError

AGENTS = (
    "random", "ga:ponce2019", "ga:wang2022", "ga:xdream2020", "ga:scale_matched", "cma_es", "sphere_cma:exp", "sphere_cma:inv",
    "csa_es", "nes", "fdgd", "pycma:full", "pycma:diagonal", "pycma:vd", "pycma:vkd", "nevergrad:TwoPointsDE", "nevergrad:DE",
    "nevergrad:DiagonalCMA", "nevergrad:CMA", "nevergrad:PSO", "nevergrad:OnePlusOne", "nevergrad:NGOpt", "sb3:PPO", "sb3:A2C",
    "sb3:SAC", "sb3:TD3", "sb3:DDPG", "sb3:TQC", "sb3:TRPO", "sb3:ARS", "sb3:CrossQ", "bashivan2019", "inception_loop",
)  # fmt: skip
SITES = ("v4:5", "v4:17", "v4:30", "units:lite0-block7:0", "units:lite0-block14:0", "gabor:6")
"""Recorded, a unit in the middle of a network and a deep one, and a cell of known optimum: chosen by their place alone, but for
one that natural images hardly drive (`energy:6`), where a ratio to them would say nothing."""
NOISES = ("none", "poisson", "modulated:0.15+lost:0.1")
MAIN = ("random", "ga:ponce2019", "ga:wang2022", "cma_es", "sphere_cma:exp", "nevergrad:DiagonalCMA", "sb3:PPO", "bashivan2019")
"""The main agents, one a kind; `random` and `ga:wang2022` are what all are measured by."""
MAIN_SITES = (*SITES, *(f"v4:{site}" for site in range(4, 60, 5)))
EPILOG = f"""\
examples:
  python -m neurogym_v.benchmarks.agents --agents random cma_es --sites v4:5 gabor:6 --budget 400 --out runs/trial
  python -m neurogym_v.benchmarks.agents                          the whole table: hours
  python -m neurogym_v.benchmarks.agents --main                   fewer agents, {len(MAIN_SITES)} sites
  python -m neurogym_v.benchmarks.agents --report-only            the table of what is done
  python -m neurogym_v.benchmarks.agents --refresh                what older code came to, anew
  python -m neurogym_v.benchmarks.agents --again cma_es           all of cma_es anew

--out keeps a folder a condition (its journal, and a JSON for every agent that is done), table.json, agents.md and agents.png.
Only what is missing is run. An agent that fails is shown as failed and not tried again without --again or --retry-failed. What
was run with older code (of the agent, or of what it shares with others) is listed, and kept until --refresh or --again.
"""


def conditions(options: argparse.Namespace) -> list[Condition]:
    """All that is asked for.

    Raises:
        NeuroGymError: something that cannot be run, said before anything starts.
    """
    for axis in ("agents", "sites", "noises", "seeds"):
        chosen = getattr(options, axis)
        if twice := [str(name) for name in dict.fromkeys(chosen) if chosen.count(name) > 1]:
            raise NeuroGymError(f"--{axis}: expected each once, got {', '.join(twice)} twice")
    if options.budget < BATCH or options.jobs < 1:
        raise NeuroGymError(
            f"expected --budget of {BATCH} (a batch) and more and --jobs of 1 and more, got {options.budget} and {options.jobs}"
        )
    shared = {"budget": options.budget, "generator": options.generator, "device": device_of(options.device)}
    grid = [
        Condition(neuron=neuron, site=site, noise=noise, seed=seed, **shared)
        for seed in options.seeds
        for noise in options.noises
        for neuron, site in map(_site, options.sites)
    ]
    if absent := [name for name in options.again if name not in options.agents]:
        raise NeuroGymError(f"--again: expected agents of this table, got {', '.join(absent)}")
    for name in options.agents:
        try:
            agent_class(name)
            Experiment(grid[0].config(name))
        except NeuroGymError:
            raise
        except Exception:
            pass  # a defect of this agent alone: it is met again, and recorded, when the agent runs
    for condition in grid:
        Experiment(condition.config(RANDOM))
    return grid


def _site(text: str) -> tuple[str, int]:
    """`v4:5`, or `v4/5` as `neurogym-v cast` writes it."""
    found = re.fullmatch(r"(.+)[:/](\d+)", text)
    if not found:
        raise NeuroGymError(f"--sites: expected NEURON:SITE, such as v4:5, got {text!r}")
    return found[1], int(found[2])


def report(options: argparse.Namespace, grid: list[Condition], found: list[Outcome], console: Console) -> None:
    """Print the table of each noise; write them, and the picture."""
    about = (
        f"{options.budget} presentations a search, batches of {BATCH}, generator {options.generator}, {len(options.sites)} "
        f"sites, {len(options.seeds)} seed(s); {sum(o.agent in options.agents for o in found)} of "
        f"{len(options.agents) * len(grid)} runs are done."
    )
    tables = {noise: rows(found, options.agents, [c for c in grid if c.noise == noise]) for noise in options.noises}
    console.print(about, highlight=False)
    for noise, table in tables.items():
        console.print(rich_table(noise, table), highlight=False)
    notes = write(options.out, about, tables, found)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    picture = options.picture or options.out / "agents.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(tables).savefig(picture, dpi=130, facecolor="white")
    console.print(f"table.json and agents.md are in {options.out}; picture: {picture}", highlight=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m neurogym_v.benchmarks.agents",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--agents", nargs="+", metavar="NAME", help=f"[all {len(AGENTS)}]")
    parser.add_argument("--sites", nargs="+", metavar="NEURON:SITE", help=f"[{' '.join(SITES)}]")
    parser.add_argument("--noises", nargs="+", metavar="NOISE", default=list(NOISES), help=f"[{' '.join(NOISES)}]")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", default=[0, 1], help="averaged in their site [0 1]")
    parser.add_argument("--budget", type=int, default=2000, help="presentations of each search [%(default)s]")
    parser.add_argument("--generator", default="natural64", help="[%(default)s]")
    parser.add_argument("--main", action="store_true", help=f"{' '.join(MAIN)} on {len(MAIN_SITES)} sites, where not named")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, ... [%(default)s]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, a thread each [one a core]")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="forget what these agents did, and do it again")
    parser.add_argument("--refresh", action="store_true", help="do again what was done with older code than today's")
    parser.add_argument("--retry-failed", action="store_true", help="do again what failed")
    parser.add_argument("--report-only", action="store_true", help="run nothing; the table of what is done")
    parser.add_argument("--out", type=Path, default=Path("runs/agents"), metavar="FOLDER", help="[%(default)s]")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="relative activation of all agents [agents.png in --out]")
    options = parser.parse_args()
    options.agents = options.agents or list(MAIN if options.main else AGENTS)
    options.sites = options.sites or list(MAIN_SITES if options.main else SITES)
    console = Console(width=None if Console().is_terminal else 160)
    try:
        grid = conditions(options)
        pairs = [(condition, agent) for agent in options.agents for condition in grid]
        if not options.report_only:
            for condition, agent in pairs:
                before = read(condition, agent, options.out) if options.refresh or options.retry_failed else None
                old = before and ((options.refresh and before.outdated) or (options.retry_failed and before.failed))
                if agent in options.again or old:
                    forget(condition, agent, options.out)
            missing = [pair for pair in pairs if not read(*pair, options.out)]
            if missing:
                console.print(f"{len(grid)} conditions, {len(pairs)} runs, {len(missing)} of them to do", highlight=False)
                do_all(missing, options.out, jobs=options.jobs, done=len(pairs) - len(missing), console=console)
        measures = [name for name in (RANDOM, GA, GOAL) if name not in options.agents]
        every = [*pairs, *((condition, agent) for agent in measures for condition in grid)]
        found = [outcome for pair in every if (outcome := read(*pair, options.out))]
        if not found:
            raise NeuroGymError(f"{options.out}: expected a run that is done, found none yet")
        report(options, grid, found, console)
    except NeuroGymError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; nothing is lost: the same command goes on\n")


if __name__ == "__main__":
    main()
