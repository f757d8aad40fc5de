"""Suites as data: those that ship, and what is no suite."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pytest

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.leaderboard.build import FOLDER
from neurogym_v.files import as_json
from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.noise import parse
from neurogym_v.normaliser import load_normaliser
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
    assert suite.of(as_json(asdict(found)), where="the folder of a bench") == found


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


def test_ponce2019_affords_250_rounds_of_40_beside_its_photographs() -> None:
    ponce = suite.load("ponce2019")
    normaliser = load_normaliser(ponce.normaliser, 64)
    assert normaliser is not None and ponce.batch_size == 40 and ponce.report_at == (3000,)
    assert normaliser.affords(ponce.budget) == 250 * 40 and normaliser.cost(250 * 40) == ponce.budget


def test_xdream2020_is_500_rounds_of_20_at_the_noise_of_the_paper() -> None:
    xdream = suite.load("xdream2020")
    assert xdream.batch_size == 20 and xdream.budget == 500 * 20
    assert {"ga:xdream2020", "nes:xdream2020", "fdgd:xdream2020"} <= set(xdream.agents)
    for grid in xdream.grids:
        assert grid.noises[0] == "none"
        windows = [parse(noise)["poisson"]["window_s"] for noise in grid.noises[1:]]
        for site in grid.sites:
            spikes = [window * ceiling_hz(load_neuron(grid.neuron), site) for window in windows]
            assert spikes == pytest.approx([5, 20, 250], rel=0.25)


def ceiling_hz(neuron: SimulatedNeuron, site: int) -> float:
    response = neuron.response
    return float(response.baseline[site] + response.ceiling[site])


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
        (("sites = [0, 5]", "sites = [0, 5]\nheld_out = [2]"), "held_out: expected sites of the grid, got .2."),
        (("sites = [0, 5]", 'sites = ["0"]'), "expected sites as a list of whole numbers, got .'0'."),
        (("budget = 80", "bugdet = 80"), "bugdet"),
        (("budget = 40", "neuron = 40"), "testing. cannot change neuron"),
        (("[[grid]]", "[grid]"), r"expected at least one \[\[grid\]\]"),
        (('citation = "no one"', ""), "expected citation, found none"),
        (('"bashivan2019"', '"nobody"'), "nobody"),
        (("budget = 80", "budget = 80\nreport_at = [90]"), "report_at: expected presentations of 1 to 80"),
        (("Two cells.", 'Two "cells".'), "expected TOML, got"),
        (("version = 2", f"version = {'2' * 5000}"), "expected TOML, got"),
        (("seeds = [3, 4]", f"seeds = {'[' * 3000}"), "expected TOML, got"),
        (("seeds = [3, 4]", "seeds = []"), "expected seeds as a list of whole numbers, one at least, got none"),
        (("sites = [0, 5]", "sites = []"), "expected sites as a list of whole numbers, one at least, got none"),
        (('["none", "poisson"]', "[]"), "expected noises as a list of texts, one at least, got none"),
        (("sites = [0, 5]", "sites = [0]\nobjectives = []"), "expected objectives as a list of texts, one at least, got none"),
        (('["random", "bashivan2019"]', "[]"), "expected agents as a list of texts, one at least, got none"),
        (("seeds = [3, 4]", "seeds = [3, -1]"), r"expected seeds of 0 or more, got \[3, -1\]"),
        (("sites = [0, 5]", "sites = [-1]"), r"expected sites of 0 or more, got \[-1\]"),
        (("version = 2", "version = -2"), "expected version of 0 or more, got -2"),
        (("budget = 80", "budget = 0"), "expected budget of 1 or more, got 0"),
        (("budget = 80", "budget = 80\nbatch_size = 0"), "expected batch_size of 1 or more, got 0"),
        (("budget = 80", "budget = 80\nrecommend = 0"), "expected recommend of 1 or more, got 0"),
        (("budget = 80", "budget = 80\nnormaliser = -1"), "expected normaliser of 0 or more, got -1"),
        (("budget = 80", "budget = 80\nbatch_size = 81"), r"expected a budget of a batch \(81\) or more, got 80"),
        (("budget = 80", "budget = 80\nreport_at = [0]"), "report_at: expected presentations of 1 to 80"),
        (('["none", "poisson"]', '["none"]\nobjectives = ["rest"]'), "objective: expected one of stretch, one_hot"),
        (("budget = 40", 'budget = "80"'), ".testing.: expected budget as a whole number, got '80'"),
        (("budget = 40", "seeds = 3"), ".testing.: expected seeds as a list of whole numbers, got 3"),
        (("budget = 40", "generator = 3"), ".testing.: expected generator as text, got 3"),
        (('\nagents = ["random"]', "\nagents = []"), ".testing.: expected agents as a list of texts, one at least, got none"),
        (('\nagents = ["random"]', '\nagents = "random"'), ".testing.: expected agents as a list of texts, got 'random'"),
        (('\nagents = ["random"]', '\nagents = ["nobody"]'), ".testing.: unknown agent 'nobody'"),
        (('\nagents = ["random"]', '\nagents = ["random", "random"]'), ".testing.: expected every run once, got some twice"),
        (("budget = 40", "budget = 0"), ".testing.: expected budget of 1 or more, got 0"),
        (("budget = 40", "budget = 39"), r".testing.: expected a budget of a batch \(40\) or more, got 39"),
        (("budget = 40", "batch_size = 0"), ".testing.: expected batch_size of 1 or more, got 0"),
        (("budget = 40", "recommend = 0"), ".testing.: expected recommend of 1 or more, got 0"),
        (("budget = 80", "budget = 80\nreport_at = [60]"), ".testing.: report_at: expected presentations of 1 to 40"),
        (('name = "mine"', 'name = "../../../escaped"'), "expected a name of .*, got '../../../escaped'"),
    ],
)
def test_what_is_no_suite_is_refused_in_one_line(change: tuple[str, str], message: str) -> None:
    with pytest.raises(NeuroGymError, match=f"suite mine.toml.*{message}") as refused:
        mine(change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("grid", ["grid = [1, 2]", r'grid = "two\nlines"', "grid = []", "grid = [[], []]"])
def test_a_grid_that_is_no_table_is_refused(grid: str) -> None:
    with pytest.raises(NeuroGymError, match=r"^suite mine.toml: expected at least one \[\[grid\]\] .*, got .+$"):
        suite.parse(grid + SUITE.partition("[[grid]]")[0], where="mine.toml")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "/tmp/away", "a/b", "a\\\\b", "two words", "tab\\t", "end\\n", "né", "x" * 81]
)
def test_names_that_lead_elsewhere_or_nowhere_are_refused(name: str) -> None:
    with pytest.raises(NeuroGymError, match="^suite mine.toml: expected a name of 1 to 80 letters, digits, .*, got .*$"):
        mine(('name = "mine"', f'name = "{name}"'))


@pytest.mark.parametrize("name", ["x", "mine_2.b-c", "-", "0" * 80])
def test_names_are_those_of_folders_of_a_leaderboard(name: str) -> None:
    found = mine(('name = "mine"', f'name = "{name}"'))
    assert found.name == name and FOLDER.fullmatch(found.id)


def test_suites_that_are_not_there() -> None:
    with pytest.raises(NeuroGymError, match="core"):
        suite.load("kore")
    with pytest.raises(NeuroGymError, match="expected a file, found none"):
        suite.load("elsewhere.toml")


def test_suites_are_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(SUITE.replace("Two cells.", "Zwei Zellen, ähnlich.").encode())
    assert suite.load(str(file)).about == "Zwei Zellen, ähnlich."
    file.write_bytes(SUITE.replace("Two cells.", "Zwei Zellen, ähnlich.").encode("latin-1"))
    with pytest.raises(NeuroGymError, match="^suite .*mine.toml: expected TOML, which is UTF-8, got .* byte 0xe4 .*$"):
        suite.load(str(file))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    for name in ("folder", "loop", "x" * 300):
        with pytest.raises(NeuroGymError, match="^suite .*toml: expected a file that can be read, got: .+$"):
            suite.load(str(tmp_path / f"{name}.toml"))


def test_grids_are_written_one_by_one() -> None:
    with pytest.raises(NeuroGymError, match="grids"):
        suite.parse(suite._shipped().joinpath("quick.toml").read_text().replace("version", "grids = []\nversion", 1), where="x")
