"""The transfer benchmark starts, says what was found beside what was published, and does no site twice."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from neurogym_v.benchmarks.transfer import Task, choose_sites, main, parse, run_task, some, table, unseen
from neurogym_v.experiment import RunConfig
from neurogym_v.references import load_references
from neurogym_v.registry import load_neuron
from neurogym_v.synthesis.surrogate import TUNED_ON
from neurogym_v.types import NeuroGymError, References

AGENTS = ("cma_es", "bashivan2019,starts=4,iterations=4", "bashivan2019,starts=4,iterations=4,norm=1")
TASK = Task(neuron="gabor", network="pixels", objective="stretch", site=0, agents=AGENTS, budget=80, generator="pixel")
OPTIONS = "--pair gabor=pixels --sites 0 --generator pixel --objective stretch --jobs 1 --budget 80".split()


def start(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["transfer", *arguments])
    main()


def test_transfer(tmp_path: Path, monkeypatch, capsys) -> None:
    done = run_task(TASK, tmp_path)
    assert done["natural"] > 0
    cma, row, held = done["agents"]
    assert "r_natural" not in cma
    assert row["agent"].endswith(",network=pixels")
    for model in (row, held):
        assert -1 <= model["r_natural"] <= 1 and -1 <= model["r_synthesised"] <= 1
        assert model["low"] <= model["gain"] <= model["high"]
        assert model["gain"] == pytest.approx(model["score"] / done["natural"] - 1)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("gabor*.json")}
    assert len(kept) == 1
    with pytest.raises(NeuroGymError, match="choose another --out"):
        run_task(replace(TASK, budget=90), tmp_path)

    start(monkeypatch, *OPTIONS, "--out", str(tmp_path), *(word for agent in AGENTS for word in ("--agent", agent)))
    told = capsys.readouterr()
    for word in ("68%", "median gain 39%", "r synthesised", "bashivan2019", "cma_es"):
        assert word in told.out
    assert "warning" not in told.err
    assert json.loads((tmp_path / "table.json").read_text()) == [done]
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("gabor*.json")} == kept


def test_whole_photographs_are_kept_from_all_agents() -> None:
    every = load_references(size=16)
    held = unseen(every)
    shown, kept = ({name.partition("@")[0] for name in some(every, np.flatnonzero(of)).names} for of in (~held, held))
    assert len(shown) + len(kept) == 14 and not shown & kept
    assert 0.2 < held.mean() < 0.4
    folder = References(torch.zeros(9, 3, 2, 2, dtype=torch.uint8), tuple(f"{i}.png" for i in range(9)))
    assert np.flatnonzero(unseen(folder)).tolist() == [0, 4, 8]


def test_no_two_sites_share_their_luck() -> None:
    tasks = [TASK, replace(TASK, site=1), replace(TASK, seed=1), replace(TASK, neuron="v4:vgg16")]
    assert len({task.entropy for task in tasks}) == 4
    assert replace(TASK, objective="one_hot", network="vgg16", agents=("random",)).entropy == TASK.entropy
    assert RunConfig(neuron="gabor", site=0, seed=0).entropy == TASK.entropy


@pytest.mark.parametrize("neuron", ["v4", "v4:vgg16", "v4:lite2"])
def test_sites_that_agents_were_tuned_on_are_not_chosen(neuron: str) -> None:
    with pytest.raises(NeuroGymError, match=f"^--count: expected 1 to [0-9]+ sites of {neuron}, got 0$") as error:
        choose_sites(neuron, 0)
    most = int(str(error.value).split()[4])
    for count in (1, 12, most):
        sites = choose_sites(neuron, count)
        assert len(set(sites)) == count and not set(sites) & set(TUNED_ON)
    with pytest.raises(NeuroGymError, match="^--count"):
        choose_sites(neuron, most + 1)


def test_all_sites_of_others_may_be_chosen() -> None:
    every = load_neuron("gabor").sites
    assert choose_sites("gabor", every) == list(range(every))


@pytest.mark.parametrize(("sites", "named"), [(("20", "4", "3"), "3, 20"), (("4",), None)])
def test_sites_that_agents_were_tuned_on_are_warned_of(monkeypatch, capsys, tmp_path: Path, sites, named) -> None:
    options = ["--pair", "v4:vgg16=lite2", "--objective", "stretch", "--out", str(tmp_path), "--generator", "nothing"]
    with pytest.raises(SystemExit):  # before anything is shown, for want of the generator
        start(monkeypatch, *options, "--sites", *sites)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == (named is not None)
    assert not warnings or f"chosen on sites {named} of v4" in warnings[0]


def test_the_table_counts_sites() -> None:
    def site(number: int, gain: float, low: float) -> dict[str, object]:
        row = {
            "agent": "a,network=vgg16",
            "sanity_check": False,
            "gain": gain,
            "low": low,
            "r_natural": 0.5,
            "r_synthesised": np.nan,
        }
        return {"task": {"neuron": "v4", "network": "vgg16", "objective": "one_hot", "site": number}, "agents": [row]}

    console = Console(width=200, record=True, file=None)
    with console.capture() as capture:
        console.print(table([site(0, 0.4, 0.1), site(1, 0.2, -0.1), site(2, -0.3, -0.5), site(3, 0.1, 0.05)], "one_hot"))
    shown = capture.get()
    for cell in ("3/4 = 75%", "2/4 = 50%", "+15%", "0.50", "76% of targets"):
        assert cell in shown


@pytest.mark.parametrize("pair", ["v4", "=vgg16", "v4="])
def test_a_pair_that_is_none_is_named(pair: str) -> None:
    with pytest.raises(NeuroGymError, match="--pair: expected NEURON=NETWORK, got"):
        parse(pair)
    assert parse("v4:vgg16=lite2") == ("v4:vgg16", "lite2")
