"""Agents that make a model of the neuron: what they show, in which order, what it costs, and that it finds more than chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from neurogym_v.agent import Agent
from neurogym_v.agents.bashivan2019 import Bashivan2019
from neurogym_v.agents.inception_loop import InceptionLoop
from neurogym_v.fitting.features import PIXELS, Candidate, look
from neurogym_v.generators import draw
from neurogym_v.generators.pixel import Pixel
from neurogym_v.projection import Projected
from neurogym_v.synthesis.driven import ModelDriven
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError, Rates, References

CHEAP: dict[type[ModelDriven], dict[str, Any]] = {
    Bashivan2019: {"network": PIXELS, "starts": 6, "iterations": 8},
    InceptionLoop: {"network": PIXELS, "starts": 4, "iterations": 8, "cycles": 2},
}
both = pytest.mark.parametrize("cls", CHEAP)


@pytest.fixture
def spec(cosines) -> LoopSpec:
    return LoopSpec(latent_dim=36, bound=cosines.bound, budget=120, generator=cosines)


def make(cls: type[ModelDriven], spec: LoopSpec, **params: Any) -> ModelDriven:
    return cls(spec, **({"batch_size": 20} | CHEAP[cls] | params))


def likes_a_pattern(generator: Any) -> Callable[[Latents], Rates]:
    """Expected spikes/s of a neuron with a smooth pattern as its filter: about 5 for draws of the prior, and more if asked."""
    y, x = np.indices((16, 16)) / 16
    pattern = np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.08) - 0.25

    def expected(latents: Latents) -> Rates:
        eye = Candidate(PIXELS, 0, 16)
        grey = look(draw(generator, latents), [eye])[eye].values.mean(axis=1)
        return np.asarray(np.maximum(0, 50 + 6 * ((grey - 0.5) * pattern).sum(axis=(1, 2))))

    return expected


def play(agent: Agent, expected: Callable[[Latents], Rates], *, lost: float = 0.0, seed: int = 0) -> list[Feedback]:
    """The whole budget, Poisson counts in 0.1 s, and some lost trials."""
    rng, bound, left, told = np.random.default_rng(seed), agent.spec.bound, agent.spec.budget, []
    while left > 0:
        latents = np.clip(agent.ask(), -bound, bound)[:left]
        rates = np.where(rng.random(len(latents)) < lost, np.nan, rng.poisson(expected(latents) * 0.1) / 0.1)
        left -= len(latents)
        told.append(Feedback(round=len(told), latents=latents, rates=rates, spent=0, left=left))
        agent.tell(told[-1])
    return told


def distinct(latents: Latents) -> int:
    return len(np.unique(latents, axis=0))


@both
def test_what_it_recommends_drives_the_neuron_more_than_anything_in_its_mapping(cls, spec, cosines) -> None:
    expected = likes_a_pattern(cosines)
    agent = make(cls, replace(spec, budget=300))
    told = play(agent, expected)
    drawn = np.concatenate([feedback.latents for feedback in told])[: agent.mapped]
    assert expected(agent.recommend(1))[0] > 1.1 * expected(drawn).max()
    numbers = agent.diagnostics()
    assert 0.2 < numbers["model_r"] < 1
    assert numbers["predicted_hz"] == pytest.approx(agent.predict(agent.recommend(1))[0])
    shows = np.concatenate([f.rates[(f.latents == agent.recommend(1)).all(axis=1)] for f in told])
    assert len(shows) == numbers["incumbent_shows"] > 5
    assert numbers["observed_hz"] == pytest.approx(shows.mean())


@both
@pytest.mark.parametrize(("budget", "natural"), [(22, False), (40, True), (100, True)])
def test_no_single_lucky_trial_is_recommended_however_short_the_session(cls, spec, cosines, budget: int, natural: bool) -> None:
    """With the defaults for starts and cycles, and natural images from the budget or none."""
    expected, paid = likes_a_pattern(cosines), cls.references(budget) if natural else 0
    latents = np.random.default_rng(3).standard_normal((paid, 36), dtype=np.float32)
    rates = np.random.default_rng(4).poisson(expected(latents) * 0.1) / 0.1 if natural else np.empty(0)
    references = References(draw(cosines, latents), tuple(map(str, range(paid))), rates) if natural else None
    spec = replace(spec, budget=budget - paid, references=references)
    agent = cls(spec, batch_size=40, network=PIXELS, iterations=2)
    shown = np.concatenate([feedback.latents for feedback in play(agent, expected)])
    assert (shown == agent.recommend(1)).all(axis=1).sum() == agent.diagnostics()["incumbent_shows"] >= 2


def test_no_cycle_is_spent_on_the_re_tests_of_the_one_before(spec, cosines) -> None:
    """Cycles of 12: in each, six images and six re-tests, however many there are to be re-tested."""
    agent = make(InceptionLoop, replace(spec, budget=80), mapping=0.4, cycles=4, starts=10, batch_size=40)
    told = play(agent, likes_a_pattern(cosines))
    assert [len(feedback.latents) for feedback in told] == [32, *[6, 6] * 4]
    assert [len(latents) for latents, _ in agent.synthesised] == [6] * 4


@both
def test_where_nothing_was_shown_twice_the_model_is_believed(cls, spec, cosines) -> None:
    """Of images shown once, the one that fired most by chance is not what the model expects most of."""
    agent = make(cls, spec, starts=6)
    expected, seen = likes_a_pattern(cosines), 0
    while seen < agent.mapped:
        latents = agent.ask()
        seen += len(latents)
        agent.tell(Feedback(round=0, latents=latents, rates=expected(latents), spent=0, left=0))
    images = agent.ask()
    hopes = agent.predict(images)
    best = images[hopes.argmax()]
    assert np.array_equal(agent.recommend(1)[0], best)  # before any of them is shown
    agent.tell(Feedback(round=0, latents=images, rates=1000 * (hopes == hopes.min()) + 50.0, spent=0, left=0))
    np.testing.assert_array_equal(agent.recommend(2), images[np.argsort(-hopes)[:2]])
    again = agent.ask()
    agent.tell(Feedback(round=0, latents=again[1:2], rates=np.array([20.0]), spent=0, left=0))
    assert agent.diagnostics()["incumbent_shows"] == 2


def test_re_tests_lost_as_a_whole_credit_no_old_image_with_the_rates_of_new_ones(spec, cosines) -> None:
    agent = make(InceptionLoop, replace(spec, budget=80), mapping=0.4, cycles=2, starts=6)
    expected = likes_a_pattern(cosines)
    for _ in range(20):
        latents = agent.ask()
        if len(agent.synthesised) == 1 and len(agent._fresh):
            break  # the second cycle has begun
        lost = len(agent.synthesised) == 1  # its re-tests, all of them
        rates = np.full(len(latents), np.nan) if lost else expected(latents)
        agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=0, left=0))
    assert distinct(np.concatenate([latents, agent.synthesised[0][0]])) == 12
    before = agent.surrogate.observed(agent.synthesised[0][0])
    agent.tell(Feedback(round=0, latents=latents, rates=np.full(6, 1000.0), spent=0, left=0))
    assert len(agent.incumbents) == 12
    assert {z.tobytes() for z in agent.incumbents.best(6)} == {z.tobytes() for z in latents}
    assert agent.incumbents.incumbent()[1] == 1
    np.testing.assert_array_equal(agent.surrogate.observed(agent.synthesised[0][0]), before)


@both
@pytest.mark.parametrize("held", [{"norm": 2.0}, {"max_norm": 0.9}])
def test_what_was_synthesised_is_what_was_shown(cls, spec, cosines, held: dict[str, float]) -> None:
    """Projected latents, some of which are lost at first."""
    agent = make(cls, replace(spec, budget=120), mapping=0.5, starts=12)
    told = play(Projected(agent, **held), likes_a_pattern(cosines), lost=0.3)
    shown = {z.tobytes() for feedback in told for z in feedback.latents}
    latents, predicted = (np.concatenate(parts) for parts in zip(*agent.synthesised, strict=True))
    assert len(latents) == distinct(latents) >= 12
    assert {z.tobytes() for z in latents} <= shown
    assert np.isfinite(agent.surrogate.observed(latents)).all() and np.isfinite(predicted).all()
    assert -1 <= agent.diagnostics()["r_synthesised"] <= 1


def test_bashivan2019_maps_once_then_shows_its_images_and_the_best_again(spec, cosines) -> None:
    agent = make(Bashivan2019, spec, starts=16, mapping=0.5)
    told = play(agent, likes_a_pattern(cosines))
    shown = np.concatenate([feedback.latents for feedback in told])
    assert len(shown) == 120
    assert agent.mapped == distinct(shown[:60]) == 60
    images = shown[60:76]
    assert distinct(images) == 16
    assert distinct(np.concatenate([images, shown[76:]])) == 16  # nothing but re-tests
    counts = [int((shown[76:] == image).all(axis=1).sum()) for image in images]
    assert sum(counts) == 44  # rounds of all 16, then of the better 8: 16 + 16 + 8 + 4
    assert min(counts) == 2 < 3 <= max(counts)
    best = agent.recommend(1)[0]
    assert (shown[76:] == best).all(axis=1).sum() >= 3


def test_the_inception_loop_closes_and_learns_from_what_it_showed(spec, cosines) -> None:
    agent = make(InceptionLoop, replace(spec, budget=200), mapping=0.5, cycles=2, starts=5)
    before = []
    fit = agent.surrogate.fit

    def counted() -> bool:
        before.append(len(agent.surrogate))
        return fit()

    agent.surrogate.fit = counted  # type: ignore[method-assign]
    told = play(agent, likes_a_pattern(cosines))
    assert before == [100, 105]
    shown = np.concatenate([feedback.latents for feedback in told])
    assert distinct(shown) == 110
    np.testing.assert_allclose(np.linalg.norm(shown[100:], axis=1), 6, rtol=1e-4)  # of fixed length, that of the prior


@both
def test_references_pay_for_the_mapping(cls, spec, cosines) -> None:
    latents = np.random.default_rng(3).standard_normal((80, 36), dtype=np.float32)
    expected = likes_a_pattern(cosines)
    rates = np.random.default_rng(4).poisson(expected(latents) * 0.1) / 0.1
    rates[:10] = np.nan
    references = References(draw(cosines, latents), tuple(map(str, range(80))), rates)
    agent = make(cls, replace(spec, references=references), mapping=0.5)
    assert agent.mapped == 20  # half of 200 presentations, less 80
    assert len(agent.surrogate) == 70
    play(agent, expected)
    assert agent.surrogate.fitted


@pytest.mark.parametrize(("budget", "count"), [(20, 8), (1000, 400), (1570, 628), (10_000, 628)])
def test_the_natural_images_it_asks_for(budget: int, count: int) -> None:
    assert Bashivan2019.references(budget) == InceptionLoop.references(budget, starts=3) == count
    assert Bashivan2019.references(budget, mapping=0.1) <= 0.1 * budget


@both
@pytest.mark.parametrize(("lost", "enough"), [(0.5, True), (0.97, False)])
def test_lost_trials_are_survived(cls, spec, cosines, lost: float, enough: bool) -> None:
    agent = make(cls, replace(spec, budget=200), mapping=0.5)
    told = play(agent, likes_a_pattern(cosines), lost=lost)
    assert sum(len(feedback.latents) for feedback in told) == 200
    assert np.isfinite(agent.recommend(5)).all()
    assert agent.surrogate.fitted == enough


def test_a_synthesised_image_whose_trial_was_lost_is_shown_until_it_is_seen(spec, cosines) -> None:
    agent = make(Bashivan2019, spec, starts=8)
    expected, told = likes_a_pattern(cosines), 0
    while told < agent.mapped:
        latents = agent.ask()
        told += len(latents)
        agent.tell(Feedback(round=0, latents=latents, rates=expected(latents), spent=0, left=0))
    images = agent.ask()
    assert distinct(images) == 8
    rates = np.r_[np.full(5, np.nan), expected(images[5:])]
    agent.tell(Feedback(round=0, latents=images, rates=rates, spent=0, left=0))
    np.testing.assert_array_equal(agent.ask(), images[:5])


@both
def test_a_silent_neuron_is_drawn_for_until_it_speaks(cls, spec, cosines) -> None:
    agent = make(cls, spec)
    for round_ in range(5):
        latents = agent.ask()
        assert distinct(latents) == 20 or not agent.surrogate.fitted
        agent.tell(Feedback(round=round_, latents=latents, rates=np.zeros(len(latents)), spent=0, left=0))
    assert not agent.surrogate.fitted
    assert np.isnan(agent.predict(latents)).all()
    assert np.array_equal(agent.recommend(2), np.zeros((2, 36)))
    latents = agent.ask()
    agent.tell(Feedback(round=5, latents=latents, rates=likes_a_pattern(cosines)(latents), spent=0, left=0))
    agent.ask()
    assert agent.surrogate.fitted


@both
def test_same_seed_and_scores_give_the_same_bytes_whatever_ran_between(cls, spec, cosines) -> None:
    expected = likes_a_pattern(cosines)
    first = play(make(cls, spec, seed=3), expected, lost=0.1)
    torch.manual_seed(1)
    torch.rand(3)
    np.random.seed(5)  # noqa: NPY002
    state = torch.random.get_rng_state()
    with torch.inference_mode():  # wherever it is called from
        second = play(make(cls, spec, seed=3), expected, lost=0.1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert [f.latents.tobytes() for f in first] == [f.latents.tobytes() for f in second]


@both
def test_shares_of_a_softmax_are_scores_like_any(cls, spec, cosines) -> None:
    """One-hot scores: in [0, 1], most of them near 0."""
    rate = likes_a_pattern(cosines)
    rng = np.random.default_rng(0)

    def share(latents: Latents) -> Rates:
        return np.asarray(1 / (1 + np.exp(5 - (rate(latents) - 40) / 10)))

    agent = make(cls, replace(spec, budget=300))
    left = 300
    mapped: list[Rates] = []
    while left:
        latents = np.clip(agent.ask(), -10, 10)[:left]
        left -= len(latents)
        scores = np.clip(share(latents) + 0.02 * rng.standard_normal(len(latents)), 0, 1)
        mapped += [share(latents)] if not agent.surrogate.fitted else []
        agent.tell(Feedback(round=0, latents=latents, rates=scores, spent=0, left=left))
    assert share(agent.recommend(1))[0] > 1.1 * np.concatenate(mapped).max()


def test_published_steps_are_those_of_pixels() -> None:
    """With `pixel`, a step of the preset is the published 0.01 of pixels in [-1, 1], near grey."""
    generator = Pixel(16)
    published = Bashivan2019.preset("published_steps")
    assert published["iterations"] == 200
    step = torch.full((1, generator.latent_dim), published["step"])
    change = 2 * (generator(step) - generator(torch.zeros_like(step)))
    assert float(change.detach().mean()) == pytest.approx(0.01, rel=0.01)


def test_networks_are_named_for_who_asks_whether_the_test_is_fair(spec) -> None:
    assert InceptionLoop(spec, network="lite2", size=32).surrogates == ("lite2",)
    assert make(Bashivan2019, spec).surrogates == (PIXELS,)


@both
@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"sigma0": 0.0}, "expected sigma0 above 0, of 1e\\+06 at most, got 0.0"),
        ({"sigma0": float("inf")}, "expected sigma0 above 0, of 1e\\+06 at most, got inf"),
        ({"sigma0": 1e7}, "expected sigma0 above 0, of 1e\\+06 at most, got 10000000.0"),
        ({"sigma0": "1"}, "expected sigma0 above 0, of 1e\\+06 at most, got '1'"),
        ({"mapping": float("nan")}, "expected mapping between 0 and 1, got nan"),
        ({"mapping": 1.0}, "expected mapping between 0 and 1, got 1.0"),
        ({"starts": 0}, "expected starts as a whole number of 1 to 10000, got 0"),
        ({"starts": 10_001}, "expected starts as a whole number of 1 to 10000, got 10001"),
        ({"starts": 2.5}, "expected starts as a whole number of 1 to 10000, got 2.5"),
        ({"iterations": 0}, "expected iterations as a whole number of 1 to 100000, got 0"),
        ({"iterations": 10**9}, "expected iterations as a whole number of 1 to 100000, got 1000000000"),
        ({"network": "vgg61"}, "unknown network 'vgg61'"),
        ({"size": 0}, "expected images of 1 to 1024 px, got size 0"),
        ({"size": 1025}, "expected images of 1 to 1024 px, got size 1025"),
        ({"step": -0.1}, "ascent: expected step above 0, got -0.1"),
        ({"step": float("inf")}, "ascent: expected step as a finite number within 1e\\+12, got inf"),
    ],
)
def test_wrong_parameters_are_named(cls, spec, params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NeuroGymError, match=sentence):
        make(cls, spec, **params)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"cycles": 0}, "expected cycles as a whole number of 1 to 10000, got 0"),
        ({"cycles": 10**12}, "expected cycles as a whole number of 1 to 10000, got 1000000000000"),
        ({"contrast": float("nan")}, "ascent: expected norm as a finite number within 1e\\+12, got nan"),
        ({"caution": float("nan")}, "expected caution of 0 to 1e\\+12, got nan"),
        ({"caution": -0.5}, "expected caution of 0 to 1e\\+12, got -0.5"),
    ],
)
def test_wrong_parameters_of_the_loop_are_named(spec, params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NeuroGymError, match=sentence):
        make(InceptionLoop, spec, **params)


@both
def test_what_a_spec_must_have_is_named(cls, spec) -> None:
    with pytest.raises(NeuroGymError, match=f"^{cls.__name__}: expected a generator with gradients in the spec, got none$"):
        make(cls, replace(spec, generator=None))
    with pytest.raises(NeuroGymError, match="expected a budget of at least 20 presentations, got 19"):
        make(cls, replace(spec, budget=19))
    play(make(cls, replace(spec, budget=20), batch_size=1), likes_a_pattern(spec.generator))
