"""`neurogym-v leaderboard`: make entries of finished benches, check those of others, and build the pages."""

from __future__ import annotations

import argparse
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.engines import load_engine
from neurogym_v.benchmarks.leaderboard.build import build, write_all
from neurogym_v.benchmarks.leaderboard.checks import check
from neurogym_v.benchmarks.leaderboard.entry import Entry, Said, entry_of, path_of, text_of
from neurogym_v.benchmarks.leaderboard.reading import fits, read_entry
from neurogym_v.benchmarks.leaderboard.verify import trusted, verify
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.registry import device_of
from neurogym_v.types import NeuroGymError

FOLDER = Path("leaderboards")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "leaderboard",
        help="entries of finished benches, their checks and their pages",
        description="An entry is one JSON file: all runs of an agent on a suite.",
        epilog="examples:\n"
        "  neurogym-v bench core --agents cma_es                            all runs of an agent\n"
        '  neurogym-v leaderboard add runs/bench/core-v1 --by "Our lab"     their entry\n'
        "  neurogym-v leaderboard verify leaderboards/core-v1/cma_es.json   some of its runs again\n"
        "  neurogym-v leaderboard build                                     the pages of all entries",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = parser.add_subparsers(title="what to do", required=True, metavar="add | verify | build")

    one = inner.add_parser("add", help="make entries of the agents whose runs are all done")
    one.add_argument("bench", type=Path, metavar="BENCH_FOLDER", help="where neurogym-v bench left its results")
    one.add_argument("--agents", nargs="+", default=[], metavar="NAME", help="[all in the folder]")
    one.add_argument("--by", metavar="NAME", help="who submits")
    one.add_argument("--note", metavar="TEXT", help="shown beside the entry")
    one.add_argument("--outdated", action="store_true", help="runs of earlier code are welcome, and their entry says so")
    one.add_argument("--replace", action="store_true", help="in the place of an entry that is there")
    _shared(one)
    one.set_defaults(command=_add)

    two = inner.add_parser(
        "verify",
        help="check entries, and do some of their runs again from the file alone",
        description="Exit code 0: all reproduce; 1: a run does not; 2: a file is no entry, or cannot be run here.",
    )
    two.add_argument("entries", nargs="+", type=Path, metavar="ENTRY")
    two.add_argument(
        "--runs",
        type=int,
        default=3,
        metavar="N",
        help="of each entry, on another machine four of as many sites; 0: only its form and numbers [%(default)s]",
    )
    two.add_argument("--seed", type=int, metavar="N", help="which runs [another sample each time]")
    two.add_argument("--agent", action="append", default=[], dest="agents", metavar="MODULE:CLASS",
                     help="run this agent of the entries, which is code of others; repeat for several")  # fmt: skip
    two.add_argument("--jobs", type=int, metavar="N", help="runs at a time [one a core]")
    two.add_argument("--device", default="cpu", help="auto, cpu, cuda, ... [%(default)s]")
    _suite(two)
    two.set_defaults(command=_verify)

    three = inner.add_parser("build", help="README.md and a page a suite, from all entries")
    _shared(three)
    three.set_defaults(command=_build)


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER", help="of all entries [%(default)s]")
    _suite(parser)


def _suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", metavar="FILE", help="TOML file of a suite that does not ship")


def _add(chosen: argparse.Namespace) -> int:
    folder = Folder(chosen.bench)
    there = folder.suite()
    asked = _named(there.id, chosen.suite)
    folder.open(asked)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    said = Said(by=chosen.by, note=chosen.note, date=today, source=chosen.suite, outdated=chosen.outdated)
    made: dict[Path, Entry] = {}
    for name in dict.fromkeys(chosen.agents or there.agents):
        path = path_of(chosen.to, asked.id, name)
        if path.exists() and not chosen.replace:
            raise NeuroGymError(
                f"{path}: expected no entry of {name} yet, found one; put the new one in its place with --replace"
            )
        if path in made:
            raise NeuroGymError(f"{path}: expected names that make different files, got {made[path]['agent']} and {name}")
        made[path] = entry_of(asked, name, folder, said)
        fits(made[path], name)
        check(made[path], asked, name)
    write_all({path: text_of(entry).encode() for path, entry in made.items()})
    for path in made:
        _say(f"{path}: {len(made[path]['runs'])} runs")
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    if chosen.runs < 0:
        raise NeuroGymError(f"--runs: expected 0 or more, got {chosen.runs}")
    seed = secrets.randbits(32) if chosen.seed is None else chosen.seed
    if seed < 0:
        raise NeuroGymError(f"--seed: expected 0 or more, got {seed}")
    try:
        return max(_verified(path, chosen, seed) for path in chosen.entries)
    except KeyboardInterrupt:
        _say("stopped")
        return 130


def _verified(path: Path, chosen: argparse.Namespace, seed: int) -> int:
    """The exit code of one file; what is wrong with it is said, and the others go on."""
    try:
        entry = read_entry(path)
        asked = _named(entry["suite"]["id"], chosen.suite)
        check(entry, asked, str(path))
        _say(f"{path}: {entry['agent']} on {asked.id}, {len(entry['runs'])} runs whose form, digest and numbers fit")
        if not chosen.runs:
            return 0
        trusted(entry["agent"], chosen.agents)
        device, engine = device_of(chosen.device), load_engine("local", jobs=chosen.jobs)
        count = min(chosen.runs, len(entry["runs"]))
        _say(f"doing {count} of them again; on another machine than the entry's, four of each site")
        runs = verify(asked, entry, engine, np.random.default_rng(seed), runs=chosen.runs, device=device)
    except NeuroGymError as error:
        said = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        _say(f"neurogym-v: error: {said}", error=True)
        return 2
    for one in runs:
        verdict = "reproduces exactly" if one.exactly else "reproduces" if one.reproduces else "DOES NOT REPRODUCE"
        _say(f"  {verdict}: {one.run}: {one.said}")
    good = sum(one.reproduces for one in runs)
    _say(f"{path}: {good} of {len(runs)} runs reproduce; the same sample: --seed {seed} --runs {chosen.runs}")
    return 0 if good == len(runs) else 1


def _build(chosen: argparse.Namespace) -> int:
    own = suite.load(chosen.suite) if chosen.suite else None
    for path in build(chosen.to, own):
        _say(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


def _named(identity: str, own: str | None) -> Suite:
    """A suite that ships by its name and version, or the user's own.

    Raises:
        NeuroGymError: neither is it.
    """
    if own:
        return suite.load(own)
    shipped = {one.id: one for one in map(suite.load, suite.names())}
    if identity not in shipped:
        raise NeuroGymError(
            f"suite {identity[:80]}: expected one that ships ({', '.join(shipped)}); one of your own is given with --suite FILE"
        )
    return shipped[identity]


def _say(text: str, *, error: bool = False) -> None:
    Console(stderr=error).print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)
