"""Runs in lockstep: one batch for all of them, and what each comes to, be it an error, is what it would alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from neurogym_v import registry
from neurogym_v.benchmarks import lockstep, side_by_side, suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.session import Session, Showing

MINE = """
import numpy as np

from neurogym_v.agents.random import Random
from neurogym_v.generators import draw
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.registry import load_generator

GENERATOR = load_generator("fourier", device="cpu")
DARED = np.full(GENERATOR.latent_dim, 2, np.float32)
FEARED = draw(GENERATOR, DARED[None])


class Daring(Random):
    "Shows in its second round what some cells here cannot bear."

    rounds = 0

    def _ask(self):
        self.rounds += 1
        latents = super()._ask()
        if self.rounds == 2:
            latents[3] = DARED
        return latents


class Calm(Gabor):
    "Bears everything, and tells how many images it saw at a time."

    batches = []

    def expected_rate(self, images):
        self.batches.append(len(images))
        return super().expected_rate(images)


def bear(images):
    if (images == FEARED).flatten(1).all(1).any():
        raise RuntimeError("cannot bear this image")


class BeforeRates(Gabor):
    def expected_rate(self, images):
        bear(images)
        return super().expected_rate(images)


class AfterRates(Gabor):
    "By then, those before it in the same batch have answered."

    def observe(self, expected, shown, rng):
        bear(shown.images)
        return super().observe(expected, shown, rng)


class Untold(Gabor):
    "How it is, it cannot tell."

    def state(self):
        raise RuntimeError("cannot tell")


class Small(Gabor):
    "As on a device without room for the batches of several."

    def expected_rate(self, images):
        if len(images) == 80:
            raise RuntimeError("out of memory")
        return super().expected_rate(images)
"""
SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "Two cells of known optimum."
citation = "no one"
agents = ["random", "mine_of_tests:Daring"]
budget = 60
batch_size = 20
recommend = 1
generator = "fourier"

[[grid]]
neuron = "mine_of_tests:NEURON"
sites = [1, 6]
noises = ["adaptation+carry_over+drift+gain+poisson+lost:0.2"]
"""
TIMES = ("wall_s", "agent_s")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module that the suite names."""
    (tmp_path / "mine_of_tests.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()
    sys.modules.pop("mine_of_tests", None)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sessions each shared batch was for."""
    found: list[int] = []
    answers = lockstep.answers

    def counted(sessions: Mapping[Any, Session], asked: Mapping[Any, Showing]) -> Any:
        found.append(len(asked))
        return answers(sessions, asked)

    monkeypatch.setattr(lockstep, "answers", counted)
    return found


def bench(neuron: str, folder: Path, side_by_side: int) -> dict[str, Any]:
    """All that is said of every run, but for how long it took, and through which code an error came."""
    whole = suite.parse(SUITE.replace("NEURON", neuron), where="mine.toml")
    run_all(whole, whole.tasks(), Folder(folder), Serial(), lockstep=side_by_side)
    assert not list(folder.rglob("*.sqlite*"))
    found = {}
    for file in sorted(folder.glob("agents/*/*.json")):
        said = {key: value for key, value in json.loads(file.read_text()).items() if key not in TIMES}
        if said["failed"]:
            said["traceback"] = said["traceback"].splitlines()[-1]
        found[str(file.relative_to(folder))] = said
    return found


def test_what_runs_show_goes_through_one_batch(mine: Any, sizes: list[int], tmp_path: Path) -> None:
    alone = bench("Calm", tmp_path / "alone", 1)
    batches = registry.load_neuron("mine_of_tests:Calm", device="cpu").batches  # type: ignore[attr-defined]
    assert not sizes and batches.count(20) >= 4 * 3 and 80 not in batches
    batches.clear()
    assert bench("Calm", tmp_path / "together", 4) == alone
    assert set(sizes) == {4} and len(sizes) > 3  # three rounds of search, and then their validation
    assert batches.count(80) == 3 and 20 not in batches  # the images of four runs through one call of the network


@pytest.mark.parametrize("neuron", ["BeforeRates", "AfterRates"])
def test_what_a_neuron_raises_fails_those_that_it_would_alone(neuron: str, mine: Any, sizes: Any, tmp_path: Path) -> None:
    alone = bench(neuron, tmp_path / "alone", 1)
    failed = {name: said["failed"] for name, said in alone.items() if "Daring" in name}
    assert set(failed.values()) == {"RuntimeError: cannot bear this image"} and len(failed) == 2
    assert [said["failed"] for name, said in alone.items() if name not in failed] == [None, None]
    assert bench(neuron, tmp_path / "together", 4) == alone
    assert sizes[:2] == [4, 4] and set(sizes[2:]) == {2}  # the others go on together


def test_a_batch_that_is_too_large_only_for_all_together_fails_nobody(mine: Any, sizes: list[int], tmp_path: Path) -> None:
    together = bench("Small", tmp_path / "together", 4)
    assert together == bench("Small", tmp_path / "alone", 1)
    assert [said["failed"] for said in together.values()] == [None] * 4 and set(sizes) == {4}


def test_a_neuron_that_cannot_go_into_a_journal_fails_every_run_and_not_the_bench(mine: Any, tmp_path: Path) -> None:
    together = bench("Untold", tmp_path / "together", 4)
    assert together == bench("Untold", tmp_path / "alone", 1)
    assert [said["failed"] for said in together.values()] == ["RuntimeError: cannot tell"] * 4


def side_by_side_of(arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.argv", ["side_by_side", *arguments.split()])
    side_by_side.main()
    return " ".join(capsys.readouterr().out.split())


def test_runs_an_hour_are_told_of_equal_results(mine: Any, sizes: list[int], tmp_path: Path, monkeypatch, capsys) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SUITE.replace("NEURON", "Calm"))
    told = side_by_side_of(f"{file} --device cpu --turns 2 --lockstep 4", capsys, monkeypatch)
    assert "4 runs on cpu, 0 of them failed" in told and re.search(r" 4 [\d.]+ \d+ [\d.]+ \[[\d., ]+\] 4/4", told)
    assert set(sizes) == {4} and len(sizes) == 2 * 4  # two turns of three rounds of search and their validation


def test_results_that_differ_are_counted(mine: Any, tmp_path: Path, monkeypatch, capsys) -> None:
    """As on a device that rounds a larger batch otherwise."""
    file = tmp_path / "mine.toml"
    file.write_text(SUITE.replace("NEURON", "Calm"))
    answers = lockstep.answers

    def otherwise(sessions: Mapping[Any, Session], asked: Mapping[Any, Showing]) -> Any:
        found = answers(sessions, asked)
        return {place: rates[::-1] if place == max(found) else rates for place, rates in found.items()}

    monkeypatch.setattr(lockstep, "answers", otherwise)
    told = side_by_side_of(f"{file} --device cpu --turns 1 --lockstep 2", capsys, monkeypatch)
    assert re.search(r" 2 [\d.]+ \d+ [\d.]+ \[[\d., ]+\] 2/4 up to 0\.\d+", told)


def test_runs_that_cannot_be_are_refused_before_the_clock_runs(monkeypatch, capsys) -> None:
    for arguments, said in [("nosuch", "unknown suite 'nosuch'"), ("quick --agents noo", "unknown agent 'noo'"),
                            ("--turns 0", "--lockstep, --turns: expected 1 or more")]:  # fmt: skip
        with pytest.raises(SystemExit):
            side_by_side_of(arguments, capsys, monkeypatch)
        assert said in capsys.readouterr().err
