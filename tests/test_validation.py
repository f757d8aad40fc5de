"""What scores rest on: milestones of a search, images of one contrast, natural images that are measured once."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.experiment import Experiment, RunConfig, Watcher
from neurogym_v.files import as_json
from neurogym_v.types import NeuroGymError
from neurogym_v.validation import REPEATS, Natural, match_contrast

SETTINGS: dict[str, Any] = {"neuron": "gabor", "site": 2, "generator": "fourier", "budget": 100, "batch_size": 20}


@pytest.fixture
def config(photographs: Path) -> RunConfig:
    return RunConfig(**SETTINGS, agents=("cma_es",), report_at=(50, 60), recommend=3, references=str(photographs))


def test_a_milestone_is_what_was_recommended_from_no_more_presentations_than_it_says(config: RunConfig) -> None:
    experiment = Experiment(config)
    natural = experiment.measure()
    result = experiment.search("cma_es", natural)
    assert [(m.presentations, m.spent) for m in result.milestones] == [(50, 40), (60, 60), (100, 100)]
    for milestone in result.milestones:
        assert milestone.recommended.shape == (3, experiment.generator.latent_dim)
        assert milestone.scores.shape == (3, REPEATS) and milestone.expected.shape == (3,)
        assert milestone.score.value == pytest.approx(milestone.scores[0].mean())
    ends = replace(config, budget=60, report_at=())  # the same search, which ends there
    (shorter,) = Experiment(ends).run().agents
    np.testing.assert_array_equal(shorter.recommended, result.milestones[1].recommended)
    assert result.recommended is result.milestones[-1].recommended
    assert result.incumbents[:, 0].tolist() == [0, 20, 40, 60, 80, 100]
    at = {int(spent): score for spent, score in result.incumbents}
    for milestone in result.milestones:
        assert at[milestone.spent] == pytest.approx(milestone.expected[0])


def test_a_milestone_before_the_first_round_is_what_the_agent_believes_then(config: RunConfig) -> None:
    (result,) = Experiment(replace(config, report_at=(10,))).run().agents
    assert result.milestones[0].spent == 0 and not result.milestones[0].recommended.any()  # the mean of the prior


def test_looking_on_the_way_changes_nothing(config: RunConfig) -> None:
    (looked,) = Experiment(config).run().agents
    (plain,) = Experiment(replace(config, report_at=(), recommend=1)).run().agents
    for mine, theirs in zip(looked.rounds, plain.rounds, strict=True):
        np.testing.assert_array_equal(mine.rates, theirs.rates)
    np.testing.assert_array_equal(looked.recommended[:1], plain.recommended)


def test_natural_images_measured_before_are_as_good_as_now(config: RunConfig) -> None:
    config = replace(config, normaliser=3, noise="gain+poisson+lost:0.2")
    whole = Experiment(config).run()
    stored = json.loads(json.dumps(as_json(Experiment(config).measure())))
    result = Experiment(config).search("cma_es", Natural.from_json(stored))
    assert as_json(result.milestones) == as_json(whole.agents[0].milestones)
    assert stored["usual"] is not None and None in as_json(result.rounds[0].rates)


def test_natural_images_of_another_set_are_refused(config: RunConfig) -> None:
    experiment = Experiment(config)
    with pytest.raises(NeuroGymError, match="natural image elsewhere: expected it among the references"):
        experiment.search("cma_es", replace(experiment.measure(), best_image="elsewhere"))


def test_driving_a_site_alone_is_scored_as_a_share(config: RunConfig) -> None:
    result = Experiment(replace(config, objective="one_hot", noise="none")).run()
    (agent,) = result.agents
    shares = [result.natural.best.value, agent.final.value, *agent.incumbents[:, 1], *agent.rounds[0].rates]
    assert all(0 < share < 1 for share in shares)
    assert agent.final.value == pytest.approx(agent.expected_final)
    assert result.natural.spontaneous.value == result.natural.expected_spontaneous == 0  # a grey screen is nothing special here
    assert agent.relative_activation.value == pytest.approx(agent.final.value / result.natural.best.value)
    assert agent.expected_relative_activation == pytest.approx(agent.relative_activation.value)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.25), st.floats(0.3, 0.7))
def test_matched_images_have_the_mean_and_contrast_of_another(seed: int, sd: float, mean: float) -> None:
    torch_rng = torch.Generator().manual_seed(seed)
    like = (255 * (mean + sd * torch.randn(3, 16, 16, generator=torch_rng)).clamp(0, 1)).to(torch.uint8)
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=torch_rng, dtype=torch.uint8)
    before = images.clone()
    matched = match_contrast(images, like)
    assert matched.dtype == torch.uint8 and torch.equal(images, before)
    for image in matched.float():
        assert float(image.mean()) == pytest.approx(float(like.float().mean()), abs=2.5)
        assert float(image.std()) == pytest.approx(float(like.float().std()), rel=0.05)
    same = match_contrast(like[None], like)[0]
    assert (same.int() - like.int()).abs().max() <= 1


def test_an_even_image_has_no_contrast_to_be_matched() -> None:
    even = torch.full((1, 3, 8, 8), 90, dtype=torch.uint8)
    like = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert match_contrast(even, like).float().std() == 0


def test_runs_of_earlier_versions_go_on(config: RunConfig) -> None:
    stored = {key: value for key, value in asdict(config).items() if key not in ("report_at", "recommend", "objective")}
    found = RunConfig.from_json(json.loads(json.dumps(stored)))
    assert found == replace(config, report_at=(), recommend=1)
    with pytest.raises(NeuroGymError, match="found colour, of a later version?"):
        RunConfig.from_json(stored | {"colour": "red"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"report_at": (0,)}, "report_at: expected presentations of 1 to 100"),
        ({"report_at": (101,)}, "report_at: expected presentations of 1 to 100"),
        ({"recommend": 0}, "recommend: expected 1 image or more"),
        ({"objective": "loudest"}, "objective: expected one of stretch, one_hot, got 'loudest'"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NeuroGymError, match=message):
        RunConfig(**SETTINGS, **change)


def test_watchers_hear_of_milestones_too(config: RunConfig) -> None:
    heard: list[str] = []
    watcher = Watcher(stage=heard.append, agent_done=lambda result: heard.append(f"{len(result.milestones)} milestones"))
    Experiment(config).run(watcher=watcher)
    assert heard[-2:] == ["cma_es", "3 milestones"]
