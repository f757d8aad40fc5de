"""The command line, `neurogym-v COMMAND`: a command is one file with `add(subparsers)`; `neurogym-v --help` shows all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from neurogym_v import __version__
from neurogym_v.memory import keep_freed
from neurogym_v.types import NeuroGymError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line; the usage is a --help away."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for anything that the user can mend."""
    from neurogym_v.cli import bench, cast, export, fit, leaderboard, listing, live, report, rig, run, weights

    parser = _Parser(prog="neurogym-v", description="A visual neuron as an environment: evolve images that drive it.")
    parser.add_argument("--version", action="version", version=f"neurogym-v {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (run, live, rig, report, export, bench, leaderboard, fit, cast, listing, weights):
        module.add(commands)
    chosen = parser.parse_args(arguments)
    keep_freed()
    try:
        code: int = chosen.command(chosen)
    except NeuroGymError as error:
        print(f"neurogym-v: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"neurogym-v: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    return code
