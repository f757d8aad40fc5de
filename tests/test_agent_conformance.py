"""Every agent keeps the contract, survives any rates and beats chance; the kit finds those that do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.agent import Agent
from neurogym_v.agents.random import Random
from neurogym_v.generators.pixel import Pixel
from neurogym_v.registry import AGENTS, agent_class, make_agent
from neurogym_v.testing import ConformanceError, check_agent
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError, Rates

OURS = ("random", "ga", "cma_es", "sphere_cma", "csa_es", "nes", "fdgd")
"""Numpy alone: fast enough to be asked for everything with every preset."""
LIBRARIES = ("pycma", "nevergrad", "sb3")
MODELS = {name: f"{name},network=pixels" for name in ("bashivan2019", "inception_loop")}
"""Model-driven ones, with models that are made in a moment."""
CASES = [*OURS, *(f"{name}:{preset}" for name in OURS for preset in agent_class(name)[0].presets)]
SCALED = [*CASES, "pycma", "pycma:vkd", "sb3", *MODELS.values()]
"""Those that have a first standard deviation of their own; nevergrad's optimizers begin as the library has them."""


def test_every_agent_is_asked() -> None:
    assert {*OURS, *LIBRARIES, *MODELS} == set(AGENTS)


def make(case: str, spec: LoopSpec, batch_size: int = 40, seed: int = 0, **params: Any) -> Agent:
    return make_agent(case, spec, batch_size=batch_size, seed=seed, **params)


@pytest.mark.parametrize("case", [*CASES, *LIBRARIES])
def test_conformance(case: str) -> None:
    check_agent(lambda spec, batch_size, seed: make(case, spec, batch_size, seed))


@pytest.mark.parametrize("case", MODELS.values())
def test_conformance_of_agents_that_make_a_model(case: str, cosines) -> None:
    check_agent(lambda spec, batch_size, seed: make(case, spec, batch_size, seed), generator=cosines, rounds=8)


@pytest.mark.parametrize("case", SCALED)
@pytest.mark.parametrize("sigma0", [0.5, 1.0])
def test_sigma0_means_the_same_for_all(case: str, sigma0: float) -> None:
    """The r.m.s. latent of the first round, in units of the prior."""
    generator = Pixel(16) if case in MODELS.values() else None
    spec = LoopSpec(latent_dim=3 * 16**2, bound=10.0, budget=400, generator=generator)
    assert np.sqrt((make(case, spec, sigma0=sigma0).ask() ** 2).mean()) == pytest.approx(sigma0, rel=0.05)


any_rates = st.one_of(
    st.lists(st.floats(-1e100, 1e100) | st.just(float("nan")), min_size=6, max_size=6),
    st.floats(-1e100, 1e100).map(lambda r: [r] * 6),
    st.lists(st.sampled_from([0.0, 10.0, float("nan")]), min_size=6, max_size=6),
)


@pytest.mark.parametrize("case", CASES)
@given(rounds=st.lists(any_rates, min_size=1, max_size=5), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_rates_keep_ask_finite_and_in_shape(case: str, rounds: list[list[float]], seed: int) -> None:
    spec = LoopSpec(latent_dim=5, bound=3.0, budget=600)
    agent = make(case, spec, 6, seed)
    for i, rates in enumerate(rounds):
        latents = agent.ask()  # the base raises where it is not finite
        assert latents.shape[1] == 5
        shown = np.clip(latents, -3, 3)
        told = np.resize(rates, len(latents))
        agent.tell(Feedback(round=i, latents=shown, rates=told, spent=6 * (i + 1), left=0))
        assert np.isfinite(agent.recommend(3)).all()
        assert all(np.isfinite(value) or np.isnan(value) for value in agent.diagnostics().values())


def toy(latents: Latents) -> Rates:
    """Expected rate of a unit of low effective dimension: 2 to 60 spikes/s, saturating."""
    d = latents.shape[1]
    features = np.random.default_rng(0).standard_normal((d, 12)) / np.sqrt(d)
    drive = np.tanh(latents @ features).sum(axis=1) / 4
    return np.asarray(np.clip(20 * drive, 0, 60), dtype=np.float64)


def search(agent: Agent, presentations: int = 1600) -> float:
    """Expected rate of what the agent recommends after that many presentations, with Poisson counts and lost trials."""
    rng = np.random.default_rng(7)
    for round_ in range(presentations // agent.batch_size):
        latents = np.clip(agent.ask(), -5, 5)
        rates = np.where(rng.random(len(latents)) < 0.05, np.nan, rng.poisson(toy(latents)))
        agent.tell(Feedback(round=round_, latents=latents, rates=rates, spent=0, left=0))
    return float(toy(agent.recommend(1))[0])


RANDOM_REACHES = 34.95
"""Spikes/s, recorded: mean of `search` of Random over seeds 0 to 4."""


def mean_rate(case: str) -> float:
    spec = LoopSpec(latent_dim=96, bound=5.0, budget=1600)
    return float(np.mean([search(make(case, spec, seed=seed)) for seed in range(5)]))


def test_random_reaches_what_was_recorded() -> None:
    assert mean_rate("random") == pytest.approx(RANDOM_REACHES, rel=0.1)


@pytest.mark.parametrize("case", [*(case for case in CASES if case != "random"), *LIBRARIES])
def test_beats_random_search(case: str) -> None:
    assert mean_rate(case) > 1.2 * RANDOM_REACHES


def test_re_tests_find_a_better_candidate_than_the_luckiest_sample() -> None:
    """Same budget, one tenth of it for re-tests, averaged over 20 sessions of a noisy neuron."""
    spec = LoopSpec(latent_dim=96, bound=5.0, budget=1600)
    with_, without = (np.mean([search(Random(spec, seed=seed, n_retest=n)) for seed in range(20)]) for n in (None, 0))
    assert with_ > without + 1.0


def test_random_shows_candidates_again_until_they_are_known() -> None:
    spec = LoopSpec(latent_dim=4, bound=5.0, budget=100)
    agent = Random(spec, batch_size=5, n_retest=1, shows=3)
    first = agent.ask()
    agent.tell(Feedback(round=0, latents=first, rates=np.array([1.0, 9, 2, 8, 0]), spent=5, left=0))
    # the prior is 4 and counts for 4 trials: (9 + 16) / 5 = 5 and (8 + 16) / 5 = 4.8; after a 3 the former has 28 / 6 = 4.7,
    # and the latter goes to 5.3 and 5.7 by its 8s
    for expected, rate in ((1, 3.0), (3, 8.0), (3, 8.0)):
        latents = agent.ask()
        assert np.array_equal(latents[0], first[expected])
        agent.tell(Feedback(round=0, latents=latents, rates=np.array([rate, 4, 4, 4, 4]), spent=0, left=0))
    assert np.array_equal(agent.recommend(2), first[[3, 1]])
    assert np.array_equal(agent.ask()[0], first[1])  # the best was shown three times: the next one's turn
    assert agent.diagnostics()["incumbent_shows"] == 3


@pytest.mark.parametrize("params", [{"sigma0": 0.0}, {"n_retest": 40}, {"shows": 0}])
def test_wrong_parameters_of_random_are_named(params: dict[str, Any]) -> None:
    with pytest.raises(NeuroGymError, match=r"expected .*, got"):
        Random(LoopSpec(latent_dim=4, bound=5.0, budget=100), **params)


class Plain(Agent):
    """Keeps the contract; the broken ones below each break one clause of it."""

    best: Latents

    def _ask(self) -> Latents:
        return self.rng.standard_normal((self.batch_size, self.spec.latent_dim), dtype=np.float32)

    def _tell(self, latents: Latents, rates: Rates) -> None:
        self.best = latents[[np.nanargmax(rates)]]

    def recommend(self, k: int = 1) -> Latents:
        best = getattr(self, "best", np.zeros((1, self.spec.latent_dim), np.float32))
        return np.repeat(best, k, axis=0)


class NoOrder(Plain):
    def ask(self) -> Latents:
        self._asked = None
        return super().ask()


class GlobalSeed(Plain):
    def _ask(self) -> Latents:
        self.rng = np.random.default_rng()
        return super()._ask()


class IgnoresSeed(Plain):
    def __init__(self, spec: LoopSpec, *, batch_size: int = 40, seed: int = 0) -> None:  # noqa: ARG002
        super().__init__(spec, batch_size=batch_size, seed=0)


class DrawsToRecommend(Plain):
    def recommend(self, k: int = 1) -> Latents:
        self.rng.random()
        return super().recommend(k)


class GivesItsOwn(Plain):
    def recommend(self, k: int = 1) -> Latents:
        return super().recommend(k) if k > 1 else getattr(self, "best", super().recommend(1))


class ShowsItsOwn(Plain):
    def _ask(self) -> Latents:
        self.kept = getattr(self, "kept", super()._ask())  # until it is told
        return self.kept

    def _tell(self, latents: Latents, rates: Rates) -> None:
        super()._tell(latents, rates)
        del self.kept


class ChangesRates(Plain):
    def tell(self, feedback: Feedback) -> None:
        super().tell(feedback)
        feedback.rates.sort()


class NoLostTrials(Plain):
    def _tell(self, latents: Latents, rates: Rates) -> None:
        if np.isnan(rates).any():
            raise ValueError("NaN")
        super()._tell(latents, rates)


class WholeRoundsOnly(Plain):
    def _tell(self, latents: Latents, rates: Rates) -> None:
        super()._tell(latents, rates[np.arange(self.batch_size)])


class OneOnly(Plain):
    def recommend(self, k: int = 1) -> Latents:  # noqa: ARG002
        return super().recommend(1)


class WrongNumbers(Plain):
    def recommend(self, k: int = 1) -> Latents:
        return super().recommend(k) * np.float32(np.nan)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (NoOrder, "ask\\(\\) twice"),
        (GlobalSeed, "the same seed"),
        (IgnoresSeed, "another seed"),
        (DrawsToRecommend, "must not touch self.rng"),
        (GivesItsOwn, "the caller's|its arrays"),
        (ShowsItsOwn, "the caller's"),
        (ChangesRates, "changes neither"),
        (NoLostTrials, "lost|NaN"),
        (WholeRoundsOnly, "only 3 were shown"),
        (OneOnly, "recommend\\(3\\)"),
        (WrongNumbers, "all finite"),
    ],
)
def test_the_kit_finds_what_is_broken(broken: Callable[..., Agent], sentence: str) -> None:
    check_agent(lambda spec, batch_size, seed: Plain(spec, batch_size=batch_size, seed=seed))
    with pytest.raises(ConformanceError, match=sentence):
        check_agent(lambda spec, batch_size, seed: broken(spec, batch_size=batch_size, seed=seed))


def test_the_kit_needs_no_test_framework() -> None:
    code = "import sys, neurogym_v.testing; sys.exit('pytest' in sys.modules or 'hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
