"""PyCMA: the library's own iterates, and what it does with lost trials, clipping, ties and its own failures."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import cma
import numpy as np
import pytest
from numpy.typing import NDArray

from neurogym_v.agents.pycma import COVARIANCES, PyCMA
from neurogym_v.testing import check_agent
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError

Array = NDArray[np.float64]
NAN = np.nan
each = pytest.mark.parametrize("covariance", COVARIANCES)


def spec(d: int, bound: float = 1e6) -> LoopSpec:
    return LoopSpec(latent_dim=d, bound=bound, budget=3000)


def tell(agent: PyCMA, latents: Latents, rates: Array | list[float]) -> None:
    rates = np.asarray(rates, dtype=np.float64)
    agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=len(latents), left=0))


def smooth(x: NDArray[Any]) -> Array:
    return np.asarray(100 - ((x.astype(np.float64) - 0.7) ** 2) @ np.linspace(0.5, 2, x.shape[1]))


@each
def test_conformance(covariance: str) -> None:
    check_agent(lambda spec, batch_size, seed: PyCMA(spec, batch_size=batch_size, seed=seed, covariance=covariance))


@pytest.mark.parametrize("sigma0", [1.0, 0.5])
@pytest.mark.parametrize("covariance", ["diagonal", "vd", "vkd"])  # full would take a gigabyte
def test_sigma0_is_the_standard_deviation_of_the_first_round(covariance: str, sigma0: float) -> None:
    x = PyCMA(spec(4096), sigma0=sigma0, covariance=covariance).ask()
    assert np.sqrt((x**2).mean()) == pytest.approx(sigma0, rel=0.05)


@each
def test_equals_the_library_where_nothing_is_lost(covariance: str) -> None:
    d, n, seed = 30, 12, 4
    agent = PyCMA(spec(d), batch_size=n, seed=seed, sigma0=0.6, covariance=covariance)
    rng = np.random.Generator(np.random.SFC64(seed))  # the agent draws when it is made, too

    def randn(*shape: int) -> Array:
        return rng.standard_normal(shape)

    options: dict[str, Any] = {"popsize": n, "randn": randn, "seed": NAN, "verbose": -9, "verb_log": 0}
    options["AdaptSigma"] = cma.sigma_adaptation.CMAAdaptSigmaCSA
    if covariance == "diagonal":
        options["CMA_diagonal"] = True
    elif covariance != "full":
        samplers = cma.restricted_gaussian_sampler
        sampler = samplers.GaussVDSampler if covariance == "vd" else samplers.GaussVkDSampler
        options = sampler.extend_cma_options(options) | {"CMA_sampler_options": {"randn": randn}}
    es = cma.CMAEvolutionStrategy(np.zeros(d), 0.6, options)
    for _ in range(15):
        theirs, ours = np.array(es.ask()), agent.ask()
        assert ours == pytest.approx(theirs, abs=1e-6)
        rates = smooth(theirs)
        tell(agent, ours, rates)
        rng.permutation(n)  # of the ties
        es.tell(list(theirs), list(-rates))
        assert agent.recommend(1)[0] == pytest.approx(es.mean, abs=1e-6)
        assert agent.diagnostics()["sigma"] == pytest.approx(np.sqrt(np.mean(es.stds**2)))
    assert abs(agent.diagnostics()["sigma"] / 0.6 - 1) > 0.05  # the step was adapted


@each
def test_a_lost_trial_has_no_weight(covariance: str) -> None:
    agent = PyCMA(spec(20), batch_size=8, covariance=covariance)
    x = agent.ask()
    tell(agent, x, [NAN, 3, 9, 5, 1, 7, NAN, 2])
    w = np.log(6 / 2 + 0.5) - np.log([1, 2, 3])  # 6 valid: the better 3 of a round of 6
    assert agent.recommend()[0] == pytest.approx(w / w.sum() @ x[[2, 5, 3]], abs=1e-6)
    assert len(agent.ask()) == 8


@each
def test_a_round_with_lost_trials_is_one_of_fewer(covariance: str) -> None:
    """The covariance after it is that of the library's own round of 20."""
    larger, smaller = (PyCMA(spec(20), batch_size=n, covariance=covariance) for n in (24, 20))
    x = larger.ask()
    smaller.ask()
    smaller._x = x[4:].astype(np.float64)
    tell(larger, x, [*[NAN] * 4, *smooth(x[4:])])
    tell(smaller, x[4:], smooth(x[4:]))
    shapes = [agent.es.stds / agent.es.sigma for agent in (larger, smaller)]
    assert shapes[0] == pytest.approx(shapes[1], rel=1e-6)
    assert np.ptp(shapes[0]) > 1e-3  # it was updated
    assert larger.recommend() == pytest.approx(smaller.recommend(), abs=1e-6)


def test_no_probes_in_high_dimensions() -> None:
    """From 300 on the library would draw two mirrored ones a round, and fail where one is lost."""
    agent = PyCMA(spec(320), batch_size=8)
    for _ in range(4):
        x = agent.ask()
        assert np.abs(x[0] + x[1] - 2 * agent.recommend()[0]).max() > 0.1
        tell(agent, x, [NAN, *smooth(x[1:])])


@each
def test_what_was_lost_leaves_no_trace(covariance: str) -> None:
    """The same session, but for what the lost trials would have shown."""
    agents = [PyCMA(spec(20), batch_size=8, covariance=covariance) for _ in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(6):
        x = [agent.ask() for agent in agents]
        assert np.array_equal(*x)
        lost = rng.random(8) < 0.3
        x[1][lost] *= 7
        for agent, shown in zip(agents, x, strict=True):
            tell(agent, shown, np.where(lost, NAN, smooth(x[0])))
    assert np.array_equal(agents[0].recommend(3), agents[1].recommend(3))


def test_too_few_valid_trials_are_passed_over() -> None:
    agent = PyCMA(spec(20), batch_size=8, covariance="vd")
    tell(agent, agent.ask(), [NAN, 3, 9, NAN, NAN, 7, NAN, NAN])
    assert not agent.recommend().any()
    assert agent.diagnostics()["sigma"] == pytest.approx(1.0, rel=0.1)


def test_vkd_keeps_its_step_size_where_a_probe_was_lost() -> None:
    def sigma_after(*lost: int) -> tuple[float, float]:
        agent = PyCMA(spec(30), batch_size=10, covariance="vkd")
        for _ in range(4):
            x = agent.ask()
            tell(agent, x, smooth(x))
        x, before = agent.ask(), agent.es.sm.sigma
        assert x[0] + x[1] == pytest.approx(2 * agent.recommend()[0], abs=1e-5)  # the probes
        rates = smooth(x)
        rates[list(lost)] = NAN
        tell(agent, x, rates)
        return before, agent.es.sm.sigma

    for probe in (0, 1):
        before, after = sigma_after(probe)
        assert after == before
    before, after = sigma_after(5)
    assert after != before


@each
def test_clipped_latents_are_told_as_shown(covariance: str) -> None:
    agent = PyCMA(spec(20, bound=0.5), batch_size=10, covariance=covariance)
    for round_ in range(60):
        shown = np.clip(agent.ask(), -0.5, 0.5)
        tell(agent, shown, shown.sum(axis=1).astype(np.float64))
        if round_ == 0:
            w = np.log(5.5) - np.log(np.arange(1, 6))
            best = np.argsort(-shown.sum(axis=1))[:5]
            assert agent.recommend()[0] == pytest.approx(w / w.sum() @ shown[best], abs=1e-6)
        assert np.abs(agent.recommend()).max() <= 0.5 + 1e-6
    assert agent.recommend().mean() > 0.15


@each
def test_ties_are_broken_at_random(covariance: str) -> None:
    ends = []
    for seed in (1, 2):
        agent = PyCMA(spec(50), covariance=covariance)
        x = agent.ask()
        agent.rng = np.random.default_rng(seed)
        tell(agent, x, np.full(40, 7.3))
        ends.append(agent.recommend()[0])
    assert np.abs(ends[0] - ends[1]).max() > 0.05


@each
def test_only_ranks_matter_and_none_is_too_large(covariance: str) -> None:
    agents = [PyCMA(spec(12), batch_size=8, covariance=covariance) for _ in range(2)]
    for _ in range(10):
        x = [agent.ask() for agent in agents]
        tell(agents[0], x[0], smooth(x[0]))
        tell(agents[1], x[1], 1e100 * smooth(x[1]) - 1e102)
        assert np.array_equal(*x)


@each
def test_stays_in_range_on_a_silent_site(covariance: str) -> None:
    """Long after the library would have stopped."""
    agent = PyCMA(spec(5, bound=2.0), batch_size=6, covariance=covariance)
    for _ in range(300):
        shown = np.clip(agent.ask(), -2, 2)
        tell(agent, shown, np.zeros(6))
    assert 1e-9 < agent.diagnostics()["sigma"] <= 2 * (1 + 1e-9)
    assert np.abs(agent.recommend(16)).max() <= 2 + 1e-6


def test_the_step_size_ends_at_the_bound() -> None:
    agent = PyCMA(spec(20, bound=2.0), batch_size=8)
    agent.es.sigma = 1e6
    tell(agent, np.clip(agent.ask(), -2, 2), np.arange(8.0))
    assert agent.diagnostics()["sigma"] == pytest.approx(2.0)


def test_full_stays_in_the_coordinates_of_the_latents() -> None:
    """Beyond a condition of 1e12 the library would go on in others."""
    agent = PyCMA(spec(4), batch_size=8, covariance="full")
    tell(agent, agent.ask(), np.arange(8.0))
    agent.es.sm.C = np.diag([1e13, 1, 1, 1.0])
    agent.es.sm.update_now(-1)
    before = agent.recommend()
    x = agent.ask()
    assert np.array_equal(agent.es.mean.astype(np.float32), before[0])
    tell(agent, x, np.arange(8.0))
    assert agent.es.gp.isidentity


@each
def test_touches_nothing_outside(
    covariance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.random.seed(3)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    asked = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = PyCMA(spec(6, bound=1.0), batch_size=6, covariance=covariance)
        rng = np.random.default_rng(0)
        for _ in range(10):
            asked.append(agent.ask())
            tell(agent, np.clip(asked[-1], -1, 1), np.where(rng.random(6) < 0.3, NAN, 0.0))
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]  # noqa: NPY002
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    np.random.seed(4)  # noqa: NPY002
    assert np.array_equal(PyCMA(spec(6, bound=1.0), batch_size=6, covariance=covariance).ask(), asked[0])


def test_a_failure_of_the_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = PyCMA(spec(6), batch_size=6)
    x = agent.ask()

    def fail(*_: Any) -> None:
        raise ArithmeticError("no eigenvalues\nand much more to say")

    monkeypatch.setattr(agent.es, "tell", fail)
    with pytest.raises(NeuroGymError, match=r"^PyCMA: expected the library cma to work, got ArithmeticError: no eigenvalues$"):
        tell(agent, x, np.arange(6.0))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(NeuroGymError, match=r"^agent pycma: expected the package cma, .* pip install 'neurogym-v\[agents\]'$"):
        PyCMA(spec(5))


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"sigma0": 0.0}, "sigma0 above 0, got 0.0"),
        ({"sigma0": NAN}, "sigma0 above 0, got nan"),
        ({"covariance": "lm"}, "covariance to be one of full, diagonal, vd, vkd, got 'lm'"),
        ({"batch_size": 3}, "batch_size of at least 4, got 3"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], text: str) -> None:
    with pytest.raises(NeuroGymError, match=f"^PyCMA: expected {text}$"):
        PyCMA(spec(5), **params)
    with pytest.raises(NeuroGymError, match="at least 2 dimensions, got 1"):
        PyCMA(spec(1))
