"""Agents by name, preset and parameters: what is understood, and one line that says what to do about the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neurogym_v.agents.ga import GA
from neurogym_v.naming import nearest, split
from neurogym_v.projection import Projected
from neurogym_v.registry import agent_class, load_neuron, make_agent
from neurogym_v.types import LoopSpec, NeuroGymError

SPEC = LoopSpec(latent_dim=5, bound=3.0, budget=600)
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cma_es", ("cma_es", "", {})),
        ("ga:ponce2019", ("ga", "ponce2019", {})),
        ("ga:ponce2019,temperature=.5,clip=false", ("ga", "ponce2019", {"temperature": 0.5, "clip": False})),
        ("random,n_retest=None,pool=8", ("random", "", {"n_retest": None, "pool": 8})),
        ("m,network=lite2,layers=(3, 4),x=[1,2]", ("m", "", {"network": "lite2", "layers": (3, 4), "x": [1, 2]})),
        ("a:B,k={'x':[],'y':{'z':(1,2)}},l=3", ("a", "B", {"k": {"x": [], "y": {"z": (1, 2)}}, "l": 3})),
        ("mylab.agents:Climber,sigma0=2e-1", ("mylab.agents", "Climber", {"sigma0": 0.2})),
    ],
)  # fmt: skip
def test_what_is_written_is_understood(text: str, parts: tuple[object, ...]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gaa", "unknown agent 'gaa': did you mean 'ga'"),
        ("ga:ponce2091", "did you mean 'ponce2019'"),
        ("ga,temprature=1", "unknown parameter of agent ga 'temprature': did you mean 'temperature'"),
        ("ga,temperature=hot", "agent ga: expected float as temperature, got 'hot'"),
        ("ga,temperature=true", "agent ga: expected float as temperature, got True"),
        ("ga,n_conserve=1.5", "expected int | None within 1e[+]12 as n_conserve, got 1.5"),
        ("ga,temperature", r"expected NAME\[:PRESET\]\[,KEY=VALUE,...\], got 'temperature'"),
        ("ga,clip=true,clip=false", "each parameter once, got clip twice"),
        ("ga,temperature=-1", "expected temperature above 0, got -1"),
        ("cma_es,norm=0", "projection: expected a norm or a max_norm above 0, got norm 0"),
        ("cma_es,norm=1,max_norm=2", "got norm 1 and max_norm 2"),
        ("cma_es,seed=3", "unknown parameter of agent cma_es 'seed'"),
        ("cma_es,norm=abc", r"projection: expected float \| None as norm, got 'abc'"),
        ("cma_es,norm=1e39", "within 1e[+]12 as .*, got 1e[+]39"),
        ("nes,sigma0=1e999", "within 1e[+]12 as sigma0, got inf"),
        ("random,sigma0=1e39", "within 1e[+]12 as .*, got 1e[+]39"),
        ("cma_es,mean0=abc", "as mean0, got 'abc'"),
        ("sb3:PPO,spec=3", "unknown parameter of agent sb3 'spec'"),
        ("neurogym_v.agent:Agent", "expected a class with all methods of an agent, found one without _ask, _tell, recommend"),
        ("neurogym_v.projection:Projected", "expected|unknown"),
        ("no_such_module:Agent", "no agent and no module is named 'no_such_module'"),
        ("neurogym_v.types:LoopSpec", "expected a subclass of neurogym_v.agent.Agent"),
    ],
)
def test_what_is_not_is_told_in_one_line(name: str, sentence: str) -> None:
    with pytest.raises(NeuroGymError, match=sentence) as error:
        make_agent(name, SPEC)
    assert "\n" not in str(error.value)


def test_parameters_override_the_preset_and_calls_override_both() -> None:
    agent = make_agent("ga:ponce2019,temperature=1,heritability=.5", SPEC, heritability=0.25)
    assert isinstance(agent, GA)
    assert (agent.temperature, agent.heritability, agent.mutation_size) == (1, 0.25, 0.75)


def test_a_norm_puts_any_agent_behind_a_projection() -> None:
    assert isinstance(make_agent("sphere_cma:inv,norm=.5", SPEC), Projected)


def test_a_batch_that_is_too_small_is_refused() -> None:
    with pytest.raises(NeuroGymError, match="CMAES: expected batch_size of at least 2, got 1"):
        make_agent("cma_es", SPEC, batch_size=1)


def test_long_lists_of_names_are_cut() -> None:
    message = str(nearest("optimizer", "cma", [f"N{i}" for i in range(100)] + ["CMA"]))
    assert "did you mean 'CMA'?" in message and "and 71 more" in message


def test_an_agent_and_a_neuron_of_the_users_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    cls, params = agent_class("hill_climber:HillClimber,decay=0.9")
    assert (cls.__name__, params) == ("HillClimber", {"decay": 0.9})
    assert load_neuron("colour_cell:ColourCell").sites == 2
    with pytest.raises(NeuroGymError, match="expected a callable that makes a SimulatedNeuron, found HillClimber|without arg"):
        load_neuron("hill_climber:HillClimber")


def installed(folder: Path, entries: str) -> subprocess.CompletedProcess[str]:
    """`neurogym-v list` beside a package with these entry points, as pip leaves it: a module, and metadata."""
    (folder / "their_lab.py").write_text(
        (EXAMPLES / "hill_climber.py").read_text() + "\n\nclass Outer:\n    Inner = HillClimber\n"
    )
    metadata = folder / "their_lab-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-lab\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[neurogym_v.agents]\n{entries}")
    command = [sys.executable, "-m", "neurogym_v.cli", "list"]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "250"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder)


def test_an_installed_package_adds_an_agent(tmp_path: Path) -> None:
    listed = installed(tmp_path, "climber = their_lab:HillClimber\ninner = their_lab:Outer.Inner [extra]\n").stdout
    assert "climber" in listed and listed.count("Samples around the mean of the best quarter") == 2
    without = subprocess.run([sys.executable, "-m", "neurogym_v.cli", "list"], capture_output=True, text=True, check=True)
    assert "climber" not in without.stdout


def test_a_broken_package_hides_no_one_else(tmp_path: Path) -> None:
    broken = "gone = no_module:Agent\nnothing = their_lab:Nothing\nmap = their_lab:Latents\nnatural = their_lab:HillClimber\n"
    listed = installed(tmp_path, broken).stdout
    assert listed.count("cannot be used: ") == 3
    assert "cma_es" in listed and "neurogym_v/V4-v0" in listed
