"""Memory of agents is their own, and a library that is missing costs its rows only."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from rich.console import Console

from neurogym_v.benchmarks import speed, speed_agents
from neurogym_v.registry import AGENTS


def test_peak_memory_is_that_of_the_agent_alone() -> None:
    here = np.ones(2**26)  # 512 MB of this process, which a process forked or started from it must not be given
    matrix = 512**2 * 8 / 2**20
    assert speed_agents.peak_memory("pycma, full", 512) > 3 * matrix  # C, B and the steps between
    assert 0 <= speed_agents.peak_memory("nes", 512) < 3 * matrix
    assert here.all()


def test_rivals_are_every_agent_that_trains_no_network_and_the_libraries() -> None:
    names = [rival.name for rival in speed_agents.rivals()]
    assert len(set(names)) == len(names)
    assert set(AGENTS) - {name.partition(":")[0] for name in names} == {"sb3", "bashivan2019", "inception_loop"}
    assert speed_agents.MEASURE in names


def test_without_a_library_its_rows_are_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    monkeypatch.setattr(speed_agents, "peak_memory", lambda name, _: {"random": 6.0, "cmaes SepCMA": 3.0}.get(name, 1.0))
    chosen = ("random", "pycma:diagonal", "pycma, diagonal", "cmaes SepCMA", "cmaes CMA")
    rivals = [rival for rival in speed_agents.rivals() if rival.name in chosen]
    monkeypatch.setattr(speed_agents, "rivals", lambda: rivals)
    speed_agents.agent_speed(Console(width=200), sizes=[4, 2048], seconds=0.01)
    printed = capsys.readouterr().out
    assert "pycma, diagonal: benchmark speed: expected the package cma" in printed
    table = printed[printed.index("ask + tell") :]
    assert "pycma:" not in table
    rows = {line[:14].strip(): line.split() for line in table.splitlines()}
    assert rows["random"][-3:] == ["–", "6", "–"]  # nothing to take a ratio to
    assert rows["cmaes CMA"][-5:] == ["not", "run", "–", "–", "–"]


def test_ratios_are_to_the_plain_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(speed_agents, "peak_memory", lambda name, _: 6.0 if name == "random" else 4.0)
    monkeypatch.setattr(speed_agents, "_milliseconds", lambda *_: [1.0, 2.0, 9.0])
    monkeypatch.setattr(speed_agents, "rivals", lambda: [speed_agents.Rival(name, lambda _: lambda: None)
                                                         for name in ("random", speed_agents.MEASURE)])  # fmt: skip
    speed_agents.agent_speed(Console(width=200), sizes=[8], seconds=0.01)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["random", "2.0", "(9.0)", "1.00", "6", "1.50"]


def test_the_loop_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []
    monkeypatch.setattr(speed, "loop_speed", lambda *_, **__: began.append("loop"))
    monkeypatch.setattr(speed, "agent_speed", lambda *_, **__: began.append("agents"))
    for words in (["--only-agents"], ["--rounds", "0"], []):
        monkeypatch.setattr(sys, "argv", ["speed", *words])
        speed.main()
    assert began == ["agents", "agents", "loop", "agents"]
