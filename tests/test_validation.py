"""What scores rest on: milestones of a search, images of one contrast, natural images that are measured once."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.env import NeuronEnv
from neurogym_v.experiment import Experiment, RunConfig, Watcher
from neurogym_v.files import as_json
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.noise import with_noise
from neurogym_v.references import load_references, photograph
from neurogym_v.types import NeuroGymError, References
from neurogym_v.validation import FILLERS, REPEATS, Natural, balanced, company, match_contrast, measure_natural, validate

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
        assert len(milestone.shown) == 3 and milestone.expected.shape == (3,)
        assert all(len(one) == REPEATS for rounds in milestone.shown for one in astuple(rounds))
        assert milestone.score.value == pytest.approx(milestone.shown[0].image.mean())
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


@pytest.mark.parametrize("alike", [1, 5])
def test_the_best_natural_image_is_as_good_as_itself_in_a_session_that_adapts_and_drifts(alike: int) -> None:
    """However many images like it were recommended, and whatever the gain was when natural images were measured."""
    references = load_references(count=60, size=32)
    found = []
    for seed in range(4):
        generator = Pictures(references.images)
        neuron = with_noise(Gabor(size=32), "adaptation+carry_over+drift+gain+gaussian:0.1+lost:0.1")
        env = NeuronEnv(neuron=neuron, generator=generator, site=8, budget=400, batch_size=40)
        env.begin(seed)
        natural = measure_natural(env, references, np.random.default_rng(0))
        best = generator.latent(references.names.index(natural.best_image))
        env.begin(100 + seed)
        reached = [(at, at, np.repeat(best, alike, axis=0)) for at in (200, 400)]
        milestones, _ = validate(env, reached, best, natural.best_image, references, np.random.default_rng(1))
        found += [milestone.relative_activation for milestone in milestones]
        assert milestones[0].expected[0] <= natural.expected_best
    assert np.mean([one.value for one in found]) == pytest.approx(1, abs=0.04)
    assert sum(one.low <= 1 <= one.high for one in found) >= 6


class Pictures:
    """Draws one of given images: that of the first coordinate."""

    bound, latent_dim = 1e3, 2

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.image_size = images, images.shape[-1]

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        return self.images[latents[:, 0].round().long()].float() / 255

    def latent(self, place: int) -> np.ndarray[Any, Any]:
        return np.array([[place, 0]], dtype=np.float32)

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, len(self.images), (n, 2)).astype(np.float32))


@pytest.mark.parametrize("n", range(1, 9))
def test_orders_are_balanced_for_what_comes_before(n: int) -> None:
    rows = balanced(n)
    assert all((np.sort(rows, axis=axis) == np.resize(np.arange(n), rows.shape)).all() for axis in (1,))
    assert all((np.bincount(column, minlength=n) == len(rows) // n).all() for column in rows.T)
    follows = np.zeros((n, n), dtype=int)
    np.add.at(follows, (rows[:, :-1].ravel(), rows[:, 1:].ravel()), 1)
    assert len(set(follows[~np.eye(n, dtype=bool)].tolist())) <= 1 and not follows.diagonal().any()


def test_what_is_shown_in_turn_is_of_other_photographs() -> None:
    references = load_references(count=60, size=32)
    beside = company(references, references.names[7])
    assert beside.names[0] == references.names[7] and len(beside.names) == 1 + FILLERS == len(set(beside.names))
    assert photograph(beside.names[0]) not in {photograph(name) for name in beside.names[1:]}
    assert torch.equal(beside.images[0], references.images[7])
    one = References(references.images[:2], ("a@1", "a@2"))
    assert company(one, "a@2").names == ("a@2", "a@1")  # there is no other photograph
    assert company(References(references.images[:1], ("a",)), "a").names == ("a",)


def test_noise_does_not_move_the_noise_free_yardstick(config: RunConfig) -> None:
    best = [Experiment(replace(config, noise=noise)).measure().expected_best for noise in ("none", "gaussian:3")]
    assert best[0] == best[1]


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
