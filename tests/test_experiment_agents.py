"""What an agent pays for and what it may know: natural images from its budget, and the label of a sanity check."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurogym_v import networks
from neurogym_v.agents.random import Random
from neurogym_v.cli import main
from neurogym_v.experiment import Experiment, RunConfig, is_sanity_check
from neurogym_v.journal import Journal
from neurogym_v.neurons.view import Viewed
from neurogym_v.noise import with_noise
from neurogym_v.registry import load_neuron
from neurogym_v.types import LoopSpec, NeuroGymError

SETTINGS: dict[str, Any] = {"neuron": "gabor", "generator": "fourier", "budget": 60, "batch_size": 20}


LOOKER = """
from neurogym_v.agents.random import Random

class Looker(Random):
    'Asks for five natural images, and says what it was given.'

    @classmethod
    def references(cls, budget, **params):
        return budget if params.get("n_retest") == 1 else 5

    def diagnostics(self):
        shown = self.spec.references
        return {"shown": float(len(shown.names)), "mean_hz": float(shown.rates.mean())} if shown else {}
"""


@pytest.fixture
def looker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The agent above, in a module of its own in the working folder."""
    (tmp_path / "looking.py").write_text(LOOKER)
    monkeypatch.chdir(tmp_path)
    return "looking:Looker"


def test_natural_images_that_an_agent_asks_for_are_paid_from_its_budget(looker: str, photographs: Path, tmp_path: Path) -> None:
    config = RunConfig(**SETTINGS, agents=(looker,), references=str(photographs))
    with Journal(tmp_path / "journal.sqlite", config={}) as journal:
        (result,) = Experiment(config).run(journal).agents
        kinds = [block.kind for block in journal.blocks(looker)]
        again = Experiment(config).run(journal).agents[0]
    assert result.search_presentations == 60
    assert [len(feedback.rates) for feedback in result.rounds] == [20, 20, 17]  # three photographs are all there are
    assert kinds[:4] == ["reference", "search", "search", "search"]
    assert result.diagnostics["shown"] == 3 and result.diagnostics["mean_hz"] > 0
    np.testing.assert_array_equal(again.recommended, result.recommended)


def test_natural_images_that_cost_the_whole_budget_are_refused(looker: str, photographs: Path) -> None:
    config = RunConfig(
        **(SETTINGS | {"budget": 3, "batch_size": 3}), agents=(f"{looker},n_retest=1",), references=str(photographs)
    )
    with pytest.raises(
        NeuroGymError, match="agent looking:Looker,n_retest=1: expected a budget above 3, what its natural images cost"
    ):
        Experiment(config)


@pytest.mark.parametrize(
    ("neuron", "surrogates", "sanity"),
    [
        ("v4", ("vgg16",), False),
        ("v4", ("lite0",), True),
        ("v4", ("vgg16", "lite2"), True),  # the family, not only the weights
        ("v4:vgg16", ("lite2",), False),
        ("v4:vgg16", ("vgg16",), True),
        ("gabor", ("lite0",), False),
        ("gabor", ("pixels",), True),
        ("v4", ("timm:tf_efficientnet_lite0",), True),
        ("v4:vgg16", ("torchvision:vgg16_bn",), True),
        ("v4", ("torchvision:vgg16",), False),
        ("v4", (), False),
    ],
)
def test_a_model_of_the_neurons_own_kind_is_a_sanity_check(neuron: str, surrogates: tuple[str, ...], sanity: bool) -> None:
    agent = Random(LoopSpec(latent_dim=4, bound=1.0, budget=40))
    agent.surrogates = surrogates
    for noise in ("none", "session", "multi_unit+poisson"):
        assert is_sanity_check(agent, with_noise(load_neuron(neuron), noise)) is sanity
    view = with_noise(load_neuron(neuron), "multi_unit+session", partial(Viewed, size_deg=4.0))
    assert is_sanity_check(agent, view) is sanity


def test_families_of_networks() -> None:
    assert networks.family("lite0") == networks.family("lite2") != networks.family("vgg16")
    assert networks.family("timm:resnet50") == networks.family("torchvision:resnet18") != networks.family("timm:convnext_tiny")
    assert networks.family("mylab:vgg16") == "mylab:vgg16"  # it could be anything


def test_a_sanity_check_is_labelled_in_every_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photographs: Path
) -> None:
    monkeypatch.setattr("neurogym_v.experiment.is_sanity_check", lambda agent, _: isinstance(agent, Random))
    labels: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_ylabel", lambda _, text, **__: labels.append(text))
    out = tmp_path / "run"
    chosen = ["--neuron", "gabor", "--generator", "fourier", "--budget", "40", "--references", str(photographs)]
    assert main(["run", *chosen, "--agent", "random", "--agent", "ga", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "random *" in printed and "* sanity check" in printed and "(sanity check)" in printed
    assert "random (sanity check)" in labels and "ga" in labels
    summary = json.loads((out / "summary.json").read_text())
    assert [agent["sanity_check"] for agent in summary["agents"]] == [True, False]


def test_sites_do_not_share_their_luck_and_agents_do() -> None:
    settings = [RunConfig(neuron="v4", site=3), RunConfig(neuron="v4", site=4), RunConfig(neuron="v4:vgg16", site=3)]
    assert len({config.entropy for config in settings}) == 3
    assert RunConfig(site=3, agents=("random",), noise="none").entropy == settings[0].entropy


def test_final_pictures_of_agents_whose_names_are_alike_or_long_are_all_there(tmp_path: Path, photographs: Path) -> None:
    agents = ["random,sigma0=1e+1", "random,sigma0=1e-1", "random,sigma0=1." + 300 * "0"]
    chosen = ["--neuron", "gabor", "--generator", "fourier", "--budget", "40", "--references", str(photographs)]
    out = tmp_path / "run"
    assert main(["run", *chosen, *(part for agent in agents for part in ("--agent", agent)), "--out", str(out)]) == 0
    assert len(list(out.glob("final-*.png"))) == 3
