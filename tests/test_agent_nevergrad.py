"""Optimizers of nevergrad work on noisy rounds: they learn, repeat themselves to the byte, and fail in one line."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neurogym_v.agent import Agent
from neurogym_v.agents.nevergrad import RECOMMENDED, Nevergrad, _parts
from neurogym_v.testing import check_agent
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError, Rates

# from every corner of the registry: populations, distributions, samplers, wrappers, a choice by size
SOME = "NGOpt TBPSA ES EDA RescaledCMA SplitDE VoronoiDE LognormalDiscreteOnePlusOne ScrHammersleySearch ChainDEwithR MetaModel"


def make(optimizer: str, d: int = 24, batch_size: int = 12, budget: int = 1200, **params: Any) -> Nevergrad:
    return Nevergrad(LoopSpec(latent_dim=d, bound=3.0, budget=budget), batch_size=batch_size, optimizer=optimizer, **params)


def show(agent: Agent, rates: Callable[[Latents], Rates], rounds: int = 1) -> Latents:
    """The latents asked in the last of some rounds."""
    for i in range(rounds):
        asked = agent.ask()
        shown = np.clip(asked, -agent.spec.bound, agent.spec.bound)
        agent.tell(Feedback(round=i, latents=shown, rates=rates(shown), spent=0, left=0))
    return asked


def counts(seed: int, lost: float = 0.0) -> Callable[[Latents], Rates]:
    rng = np.random.default_rng(seed)
    return lambda x: np.where(rng.random(len(x)) < lost, np.nan, rng.poisson(np.exp(x[:, ::2].mean(axis=1) + 1)))


@pytest.mark.parametrize("optimizer", ["DiagonalCMA", "TwoPointsDE", "PSO", "OnePlusOne"])
def test_conformance(optimizer: str) -> None:
    check_agent(lambda spec, batch_size, seed: Nevergrad(spec, batch_size=batch_size, seed=seed, optimizer=optimizer), rounds=4)


@pytest.mark.filterwarnings("ignore:nevergrad.VoronoiDE")
@pytest.mark.parametrize("optimizer", SOME.split())
def test_a_session_is_repeatable_whatever_runs_between(optimizer: str) -> None:
    first, second = make(optimizer, seed=3), make(optimizer, seed=3)
    rates, same_rates = counts(0, lost=0.2), counts(0, lost=0.2)
    for round_ in range(4):
        asked = show(first, rates)
        np.random.seed(round_)  # noqa: NPY002
        random.seed(round_)
        make("TwoPointsDE").ask()
        assert np.array_equal(asked, show(second, same_rates))
    assert np.array_equal(first.recommend(3), second.recommend(3))
    assert not np.array_equal(asked, make(optimizer, seed=4).ask())


@pytest.mark.filterwarnings("ignore:nevergrad.VoronoiDE")
@pytest.mark.parametrize("optimizer", ["VoronoiDE", "LognormalDiscreteOnePlusOne", "PolyLN"])  # they draw from them
def test_the_global_generators_are_left_alone(optimizer: str) -> None:
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = random.random(), np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    show(make(optimizer), counts(0), rounds=3)
    assert (random.random(), np.random.random()) == before  # noqa: NPY002


def test_it_is_imported_when_used_and_sizes_drawn_then_are_those_of_every_process() -> None:
    code = (
        "import sys, numpy; numpy.random.seed(1); from neurogym_v.agents.nevergrad import Nevergrad;"
        "from neurogym_v.types import LoopSpec; spec = LoopSpec(latent_dim=24, bound=3.0, budget=1200);"
        "Nevergrad.preset('DE'); assert 'nevergrad' not in sys.modules;"
        "print(Nevergrad(spec, batch_size=12, optimizer='PolyLN').ask().tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout == f"{make('PolyLN').ask().tolist()}\n"


@pytest.mark.parametrize("optimizer", ["DiagonalCMA", "TwoPointsDE", "DE", "PSO"])
def test_the_first_round_has_the_size_asked_for(optimizer: str) -> None:
    spec = LoopSpec(latent_dim=100, bound=50.0, budget=400)
    first = Nevergrad(spec, optimizer=optimizer, sigma0=2.0, batch_size=30).ask()
    assert first.std() == pytest.approx(2.0, rel=0.06)  # 3000 numbers; DE adds a few mutants


@pytest.mark.parametrize("optimizer", ["CMA", "DiagonalCMA"])
def test_cma_learns_where_pycma_would_wait_for_probes_of_the_mean(optimizer: str) -> None:
    """At 300 dimensions and more pycma takes a step-size rule that needs whole generations; here trials are lost."""
    agent = make(optimizer, d=320, batch_size=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        show(agent, lambda x: np.where(np.arange(len(x)) % 20 == 0, np.nan, x[:, 0] + x[:, 1]), rounds=25)
    best = agent.recommend(1)[0]
    assert best[:2].sum() > 4.0  # of 40 samples of the first round the best has about 3
    (cma,) = [part for part in _parts(agent._search) if hasattr(part, "_es")]
    assert cma._es.countiter >= 22


def test_cma_does_not_begin_again_when_a_site_falls_silent() -> None:
    agent = make("DiagonalCMA", n_retest=0)
    show(agent, lambda x: x[:, 0], rounds=30)
    before = agent.recommend(1)[0, 0]
    assert before > 1.5
    show(agent, lambda x: np.zeros(len(x)), rounds=10)
    assert agent.recommend(1)[0, 0] > before / 2


def test_an_update_that_pycma_refuses_is_said() -> None:
    with pytest.warns(UserWarning, match=r"nevergrad:Portfolio: a generation was not learned from: .*once per iteration"):
        show(make("Portfolio"), counts(0), rounds=8)  # it tells its CMA-ES what the others asked, too


def test_what_was_clipped_is_told_as_shown() -> None:
    agent = make("DE", batch_size=30, n_retest=0, sigma0=4.0)
    shown = show(agent, counts(0))
    assert np.abs(shown).max() == 3.0
    told = [individual.value for individual in agent._search.population.values() if individual.loss is not None]
    assert len(told) == 30
    assert np.array_equal(np.sort(np.ravel(told).astype(np.float32)), np.sort(shown.ravel()))


@pytest.mark.parametrize("optimizer", ["DiagonalCMA", "TwoPointsDE", "PSO", "RescaledCMA", "SplitDE", "TBPSA"])
def test_lost_trials_leave_nothing_behind(optimizer: str) -> None:
    agent = make(optimizer, batch_size=10, budget=3000)
    show(agent, counts(0, lost=0.5), rounds=40)
    show(agent, lambda x: np.full(len(x), np.nan), rounds=10)
    for part in _parts(agent._search):
        assert len(part._asked) <= 10
        assert len(getattr(part, "_subcandidates", {})) <= 10
        assert len(getattr(part, "_to_be_asked", ())) + len(getattr(part, "_to_be_told", ())) <= 40


def test_huge_rates_are_ranked() -> None:
    for optimizer in RECOMMENDED:
        agent = make(optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            show(agent, lambda x: 1e100 * x[:, 0].astype(float), rounds=4)
            show(agent, lambda x: -1e100 * x[:, 0].astype(float), rounds=2)
        assert np.isfinite(agent.ask()).all()


def test_recommends_a_re_tested_candidate_not_the_luckiest() -> None:
    agent = make("TwoPointsDE", n_retest=2)
    lucky = show(agent, lambda x: np.where(np.arange(len(x)) == 5, 20.0, 5.0))[5]
    show(agent, lambda x: np.where((x == lucky).all(axis=1), 0.0, 5.0 + x[:, 0]), rounds=12)
    assert not np.array_equal(agent.recommend(1)[0], lucky)
    assert agent.diagnostics()["incumbent_shows"] > 1


def test_without_re_tests_the_mean_comes_first() -> None:
    agent = make("DiagonalCMA", n_retest=0, sigma0=0.5)
    show(agent, lambda x: x[:, 0], rounds=6)
    (centre, sample), mean = agent.recommend(2), agent._search._es.mean
    assert centre == pytest.approx(0.5 * mean, abs=1e-6)
    assert not np.allclose(centre, sample)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"optimizer": "diagonalcma"}, "unknown optimizer of nevergrad 'diagonalcma': did you mean 'DiagonalCMA'"),
        ({"optimizer": "SQP"}, "nevergrad:SQP: expected .*wants each rate before the next image"),
        ({"optimizer": "Cobyla", "batch_size": 1}, "wants each rate before the next image"),
        ({"optimizer": "FCMA"}, "fcmaes"),
        ({"optimizer": "DE", "sigma0": 0.0}, "expected sigma0 above 0, got 0.0"),
        ({"optimizer": "DE", "n_retest": 12}, r"expected n_retest from 0 to 11 \(batch - 1\), got 12"),
    ],
)
def test_what_cannot_work_is_one_line(params: dict[str, Any], line: str) -> None:
    with pytest.raises(NeuroGymError, match=line) as error:
        make(**params)
    assert "\n" not in str(error.value)


def test_presets_are_all_names_of_nevergrad() -> None:
    assert Nevergrad.preset("NoisyDE") == {"optimizer": "NoisyDE"}
    for name in Nevergrad.presets:
        assert make(**Nevergrad.preset(name)).ask().shape == (11, 24)  # the re-test has nobody yet
    with pytest.raises(NeuroGymError, match="did you mean 'TwoPointsDE'"):
        Nevergrad.preset("twopointde")


def test_finds_a_direction_that_random_search_does_not() -> None:
    """A mean over half of 96 dimensions: the best of 1600 samples of the prior has 3.4 / sqrt(48) = 0.5."""
    agent = make("TwoPointsDE", d=96, batch_size=40, budget=1600)
    rng = np.random.default_rng(5)
    show(agent, lambda x: rng.poisson(np.exp(2 * x[:, ::2].mean(axis=1) + 2)).astype(float), rounds=40)
    assert agent.recommend(1)[0, ::2].mean() > 0.8
