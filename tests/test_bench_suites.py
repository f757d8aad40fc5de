"""Suites as data: those that ship, and what is no suite."""

from __future__ import annotations

from itertools import combinations

import pytest

from neurogym_v.benchmarks import suite
from neurogym_v.registry import load_neuron
from neurogym_v.synthesis.surrogate import TUNED_ON
from neurogym_v.types import NeuroGymError

SUITE = """
name = "mine"
version = 2
title = "Mine"
about = "Two cells."
citation = "no one"
agents = ["random", "bashivan2019"]
budget = 80
seeds = [3, 4]

[[grid]]
neuron = "gabor"
sites = [0, 5]
noises = ["none", "poisson"]
network = "vgg16"

[testing]
budget = 40
agents = ["random"]
"""


def mine(*changes: tuple[str, str]) -> suite.Suite:
    text = SUITE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return suite.parse(text, where="mine.toml")


@pytest.mark.parametrize("name", suite.names())
def test_shipped_suites_can_be_run_and_say_where_they_come_from(name: str) -> None:
    found = suite.load(name)
    assert found.name == name and found.version >= 1 and len(found.about) > 50 and found.citation
    for grid in found.grids:
        assert max(grid.sites) < load_neuron(grid.neuron).sites
    assert 0 < len(found.slice().tasks()) <= 12 and found.slice().budget <= 120


def test_every_suite_of_the_issue_is_there() -> None:
    assert set(suite.names()) == {"ponce2019", "xdream2020", "wang2022", "bashivan2019", "core", "quick"}


def test_nothing_was_tuned_on_what_core_asks_and_a_half_is_held_out() -> None:
    core = suite.load("core")
    (v4,) = (grid for grid in core.grids if grid.neuron == "v4")
    assert not {*v4.sites} & {*TUNED_ON, 12}  # the last: where agents of stable-baselines3 got their presets
    places = [(grid.neuron, site) for grid in core.grids for site in grid.sites]
    held = [(grid.neuron, site) for grid in core.grids for site in grid.held_out]
    assert len(places) == len(set(places)) == 20 and len(held) == 10
    assert {task.config.report_at for task in core.tasks()} == {(1000,)} and core.budget == 3000


def test_tasks_are_a_grid_agent_by_agent() -> None:
    tasks = mine().tasks()
    assert len(tasks) == 2 * 2 * 2 * 2 == len({(task.agent, task.config) for task in tasks})
    assert [task.agent for task in tasks] == ["random"] * 8 + ["bashivan2019"] * 8
    assert {task.config.seed for task in tasks} == {3, 4}
    assert {task.config.agents for task in tasks} == {("random",), ("bashivan2019,network=vgg16",)}
    (other, *_), own = mine().tasks(["bashivan2019,network=lite2"]), mine().tasks(["cma_es"], [9])
    assert other.config.agents == ("bashivan2019,network=lite2",)
    assert {(task.agent, task.config.seed) for task in own} == {("cma_es", 9)}


def test_a_slice_is_the_same_with_less() -> None:
    whole, part = mine(), mine().slice()
    (task, other) = part.tasks()
    assert part.budget == 40 and task.config.noise == "poisson" and task.config.site == 0 and part.id != whole.id
    assert {task.config.seed, other.config.seed} == {3, 4}


def test_luck_is_shared_by_agents_and_by_nothing_else() -> None:
    configs = [task.config for task in suite.load("core").tasks(["random", "nes"])]
    luck = {(c.neuron, c.site, c.seed): c.entropy for c in configs}
    assert all(luck[c.neuron, c.site, c.seed] == c.entropy for c in configs)
    assert all(a != b for a, b in combinations(luck.values(), 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version = 2", "version = 2.5"), "expected version as a whole number, got 2.5"),
        (("version = 2", "version = true"), "expected version as a whole number, got True"),
        (("seeds = [3, 4]", "seeds = [3, 3]"), "expected every run once, got some twice"),
        (("seeds = [3, 4]", "seeds = [-1]"), "seed: expected 0 or more, got -1"),
        (("sites = [0, 5]", "sites = []\nheld_out = [2]"), "held_out: expected sites of the grid, got .2."),
        (("sites = [0, 5]", 'sites = ["0"]'), "expected sites as a list of whole numbers, got .'0'."),
        (("budget = 80", "bugdet = 80"), "bugdet"),
        (("budget = 40", "neuron = 40"), "testing. cannot change neuron"),
        (("[[grid]]", "[grid]"), r"expected at least one \[\[grid\]\]"),
        (('citation = "no one"', ""), "expected citation, found none"),
        (('"bashivan2019"', '"nobody"'), "nobody"),
        (("budget = 80", "budget = 80\nreport_at = [90]"), "report_at: expected presentations of 1 to 80"),
        (("Two cells.", 'Two "cells".'), "expected TOML, got"),
    ],
)
def test_what_is_no_suite_is_refused_in_one_line(change: tuple[str, str], message: str) -> None:
    with pytest.raises(NeuroGymError, match=message) as refused:
        mine(change)
    assert "\n" not in str(refused.value)


def test_suites_that_are_not_there() -> None:
    with pytest.raises(NeuroGymError, match="core"):
        suite.load("kore")
    with pytest.raises(NeuroGymError, match="expected a file, found none"):
        suite.load("elsewhere.toml")
