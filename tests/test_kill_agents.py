"""Every agent, killed with SIGKILL within its rounds, asks on replay for what it asked before, and ends as if it had lived."""

from __future__ import annotations

import multiprocessing
import runpy
import time
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.journal import Block, Journal
from neurogym_v.registry import AGENTS

SCRIPT = Path(__file__).parent / "session_to_kill.py"
SMALL = {
    "bashivan2019": "bashivan2019,network=pixels",
    "inception_loop": "inception_loop,network=pixels",
}
"""Models that are made in a moment."""
FAMILIES = ["ga:wang2022", "ga:xdream2020", "sphere_cma:inv", "pycma:full", "pycma:vd", "pycma:vkd", "cma_es,norm=1"]
FAMILIES += [
    "nevergrad:DiagonalCMA",
    "nevergrad:DE",
    "nevergrad:PSO",
    "sb3:SAC",
    "sb3:TD3",
    "sb3:TRPO",
    "sb3:ARS",
    "sb3:CrossQ",
]
NAMES = [*(SMALL.get(name, name) for name in AGENTS), *FAMILIES]
LIBRARIES = ["neurogym_v.env", "torch", "cma", "nevergrad", "sb3_contrib", "greenlet"]


@pytest.fixture(scope="module")
def processes():
    """Processes that have the libraries already: they are forked from one that only imported them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def blocks(journal: Path, name: str) -> list[Block]:
    with Journal(journal) as kept:
        return kept.blocks(name)


def rounds(journal: Path) -> int:
    """That the process at work has told its agent, those replayed included."""
    told = journal.with_suffix(".rounds")
    return told.stat().st_size if told.exists() else 0


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments_it_goes_on_as_if_nothing_had_happened(name: str, processes, tmp_path: Path) -> None:
    rng, killed = np.random.default_rng(), tmp_path / "killed.sqlite"
    for goal in (1, 6):
        killed.with_suffix(".rounds").unlink(missing_ok=True)
        arguments = {"ARGUMENTS": (name, killed, 0.1)}
        process = processes.Process(target=runpy.run_path, args=(str(SCRIPT), arguments, "to be killed"))
        process.start()
        while rounds(killed) < goal:
            assert process.is_alive(), f"the session ended before round {goal}"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        assert goal <= len(blocks(killed, name)) < goal + 5, "it was not killed within its rounds"
    session = runpy.run_path(str(SCRIPT))["session"]
    resumed, whole = session(name, killed, 0.0), session(name, tmp_path / "whole.sqlite", 0.0)
    for a, b in zip(blocks(killed, name), blocks(tmp_path / "whole.sqlite", name), strict=True):
        assert a.asks_for() == b.asks_for()
        np.testing.assert_array_equal(a.rates, b.rates)
    assert resumed == whole
