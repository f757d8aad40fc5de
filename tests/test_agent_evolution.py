"""SphereCMA, CSA-ES, NES and FDGD against their published formulas, and against what any of them must do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.agents.cma_es import CMAES
from neurogym_v.agents.csa_es import CSAES
from neurogym_v.agents.fdgd import FDGD
from neurogym_v.agents.nes import NES
from neurogym_v.agents.sphere_cma import SphereCMA
from neurogym_v.testing import check_agent
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError, Rates

Array = NDArray[np.float64]
NAN = np.nan
CLASSES: tuple[Any, ...] = (SphereCMA, CSAES, NES, FDGD)
CASES: dict[str, Callable[..., Any]] = {c.__name__: c for c in CLASSES}
CASES |= {f"{c.__name__}:{name}": partial(c, **params) for c in CLASSES for name, params in c.presets.items()}
all_cases = pytest.mark.parametrize("case", CASES)


def spec(d: int, bound: float = 1e6, budget: int = 600) -> LoopSpec:
    return LoopSpec(latent_dim=d, bound=bound, budget=budget)


def tell(agent: Agent, latents: Latents, rates: Array | list[float]) -> None:
    rates = np.asarray(rates, dtype=np.float64)
    agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=len(latents), left=0))


def smooth(x: NDArray[Any]) -> Array:
    """Noise-free, without ties: a peak away from 0, in some dimensions more than in others."""
    scale = np.linspace(0.5, 2, x.shape[1])
    return np.asarray(100 - ((x.astype(np.float64) - 0.7) ** 2) @ scale)


def trajectory(agent: Agent, objective: Callable[[Latents], Array], rounds: int = 12) -> list[Latents]:
    asked = []
    for _ in range(rounds):
        asked.append(agent.ask())
        tell(agent, asked[-1], objective(asked[-1]))
    return asked


@all_cases
def test_conformance(case: str) -> None:
    make = CASES[case]
    for n, rounds in ((12, 12), (7, 5)):
        check_agent(lambda spec, n, seed: make(spec, batch_size=n, seed=seed), batch_size=n, rounds=rounds)


any_rates = st.one_of(
    st.lists(st.floats(-1e100, 1e100) | st.just(NAN), min_size=7, max_size=7),
    st.floats(-1e100, 1e100).map(lambda r: [r] * 7),
    st.lists(st.sampled_from([0.0, 10.0, NAN]), min_size=7, max_size=7),
)


@all_cases
@given(rounds=st.lists(any_rates, min_size=1, max_size=8), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_rates_keep_everything_finite(case: str, rounds: list[list[float]], seed: int) -> None:
    agent = CASES[case](spec(5, bound=3.0), batch_size=6, seed=seed)
    for rates in rounds:
        shown = np.clip(agent.ask(), -3, 3)
        tell(agent, shown, rates[: len(shown)])
        assert np.isfinite(agent.recommend(3)).all()
        assert isinstance(agent, SphereCMA) or np.abs(agent.recommend(1)).max() <= 3 + 1e-5  # what was shown
        assert np.isfinite(list(agent.diagnostics().values())).all()


@pytest.mark.parametrize("sigma0", [1.0, 0.5])
@all_cases
def test_sigma0_is_the_standard_deviation_of_the_first_round(case: str, sigma0: float) -> None:
    x = CASES[case](spec(4096), sigma0=sigma0).ask()
    assert x.shape == (40, 4096)
    assert np.sqrt((x**2).mean()) == pytest.approx(sigma0, rel=0.05)
    assert abs(x.mean()) < 0.01


def search(agent: Agent) -> float:
    """Expected rate, 0 to 60, of what is recommended after 1600 presentations, with Poisson counts and lost trials."""
    d = agent.spec.latent_dim
    features = np.random.default_rng(0).standard_normal((d, 12)) / np.sqrt(d)

    def expected(x: Latents) -> Rates:
        return np.asarray(np.clip(20 * np.tanh(x @ features).sum(axis=1) / 4, 0, 60), dtype=np.float64)

    rng, left = np.random.default_rng(7), 1600
    while left:
        x = np.clip(agent.ask(), -5, 5)[:left]
        left -= len(x)
        tell(agent, x, np.where(rng.random(len(x)) < 0.05, NAN, rng.poisson(expected(x))))
    return float(expected(agent.recommend(1))[0])


@all_cases
def test_beats_random_search(case: str) -> None:
    reached = [search(CASES[case](spec(96, bound=5.0, budget=1600), seed=seed)) for seed in range(5)]
    assert np.mean(reached) > 1.2 * 34.95  # of random search, recorded in the conformance tests


def on_sphere(x: Array, radius: float) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True) * radius


def rank_weighted(x: NDArray[Any], rates: Array) -> Array:
    mu = len(rates) // 2
    w = np.log(len(rates) / 2 + 0.5) - np.log(np.arange(1, mu + 1))
    return np.asarray((w / w.sum()) @ x.astype(np.float64)[np.argsort(-rates)[:mu]])


@pytest.mark.parametrize("schedule", ["exp", "inv", "lin"])
def test_sphere_cma_as_published(schedule: str) -> None:
    d, n, rounds, seed = 30, 10, 14, 3
    agent = SphereCMA(spec(d, budget=n + (n + 1) * (rounds - 1)), batch_size=n, seed=seed, sigma0=0.8, schedule=schedule)
    rng, R = deepcopy(agent.rng), 0.8 * np.sqrt(d)  # the agent's numbers, in its order
    inv = 15 + 1 / (0.0017 * np.arange(1, rounds + 1) + 0.0146)
    exp, lin = np.logspace(np.log10(50), np.log10(7.33), rounds), np.linspace(50, 7.33, rounds)
    mulist = {"exp": exp, "lin": lin, "inv": inv}[schedule] / 180 * np.pi / np.sqrt(d)

    x = on_sphere(rng.standard_normal((n, d), dtype=np.float32).astype(np.float64), R)
    centre = None
    for round_ in range(rounds + 3):  # beyond the schedule the step stays
        asked = agent.ask()
        assert asked == pytest.approx(x, abs=1e-5)
        assert np.linalg.norm(asked, axis=1) == pytest.approx(R, rel=1e-5)
        tell(agent, asked, smooth(asked))
        rng.permutation(n)  # of the ties
        if centre is None:
            centre = on_sphere(rank_weighted(x, smooth(x)), R)
        else:
            target = on_sphere(rank_weighted(x[1:], smooth(x)[1:]), R)
            angle = np.arccos(centre @ target / R**2)
            centre = (np.sin((1 - 1.5) * angle) * centre + np.sin(1.5 * angle) * target) / np.sin(angle)
        assert agent.recommend(1)[0] == pytest.approx(centre, abs=1e-5)
        U = rng.standard_normal((n, d), dtype=np.float32).astype(np.float64)
        tangent = mulist[min(round_, rounds - 1)] * (U - np.outer(U @ centre, centre) / R**2)
        t = np.linalg.norm(tangent, axis=1, keepdims=True)
        x = np.vstack([centre, on_sphere(np.cos(t) * centre / R + np.sin(t) * tangent / t, R)])


def test_csa_es_as_published() -> None:
    d, n = 30, 10
    agent = CSAES(spec(d), batch_size=n, seed=1, sigma0=0.8)
    m, path, sigma = np.zeros(d), np.zeros(d), 0.8
    w = np.log(n / 2 + 0.5) - np.log(np.arange(1, n // 2 + 1))
    w /= w.sum()
    mu_eff = 1 / (w**2).sum()
    cs = np.sqrt(mu_eff) / (np.sqrt(mu_eff) + np.sqrt(d))
    damps = 1 + cs + 2 * max(0, np.sqrt((mu_eff - 1) / (d + 1)) - 1)
    for _ in range(30):
        x = agent.ask()
        z = (x - m) / sigma
        tell(agent, x, smooth(x))
        step = w @ z[np.argsort(-smooth(x))[: n // 2]]
        m = m + sigma * step
        path = (1 - cs) * path + np.sqrt(cs * (2 - cs) * mu_eff) * step
        sigma *= np.exp(cs / damps * (np.linalg.norm(path) / (np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))) - 1))
        assert agent.mean == pytest.approx(m, abs=1e-4)
        assert agent.sigma == pytest.approx(sigma, rel=1e-4)
    assert sigma < 0.7  # it did adapt


def test_csa_es_is_cma_es_before_its_first_covariance_update() -> None:
    agents: list[Any] = [CSAES(spec(64, bound=2.0), seed=5), CMAES(spec(64, bound=2.0), seed=5, update_every=1000)]
    rng = np.random.default_rng(0)
    for _ in range(25):
        shown = [np.clip(agent.ask(), -2, 2) for agent in agents]
        assert np.array_equal(*shown)
        rates = np.where(rng.random(40) < 0.2, NAN, rng.poisson(np.maximum(smooth(shown[0]), 0) / 10))
        for agent, x in zip(agents, shown, strict=True):
            tell(agent, x, rates)
        assert agents[0].mean == pytest.approx(agents[1].mean, abs=1e-12)
        assert agents[0].sigma == pytest.approx(agents[1].sigma, rel=1e-12)


@pytest.mark.parametrize("n", [10, 9])
@pytest.mark.parametrize("radius_lr", [0.0, 0.1])
def test_nes_as_published_with_standardised_scores(n: int, radius_lr: float) -> None:
    d, lr = 30, 1.3
    agent = NES(spec(d), batch_size=n, seed=2, sigma0=0.5, learning_rate=lr, radius_learning_rate=radius_lr)
    c, r, pairs = np.zeros(d), 0.5, n // 2
    for _ in range(12):
        x = agent.ask()
        assert x[: 2 * pairs : 2] + x[1 : 2 * pairs : 2] == pytest.approx(2 * np.tile(c, (pairs, 1)), abs=1e-4)
        e = (x - c) / r
        s = (smooth(x) - smooth(x).mean()) / smooth(x).std()
        tell(agent, x, smooth(x))
        c = c + lr * 0.5**2 * sum(s[i] * e[i] for i in range(n)) / n / r
        r = max(r + radius_lr * 0.5**2 * np.mean(s[:, None] * (e**2 - 1)) / r, 0.005)
        assert agent.centre == pytest.approx(c, abs=1e-4)
        assert agent.radius == pytest.approx(r, abs=1e-4)
    assert (r != 0.5) == bool(radius_lr)
    assert smooth(c[None]) > smooth(np.zeros((1, d))) + 3


@pytest.mark.parametrize("n", [10, 9])
def test_fdgd_as_published_with_standardised_scores(n: int) -> None:
    d, lr, pairs = 30, 0.7, n // 2
    agent = FDGD(spec(d), batch_size=n, seed=2, sigma0=0.5, learning_rate=lr)
    c = np.zeros(d)
    for _ in range(12):
        x = agent.ask()
        plus, minus = x[: 2 * pairs : 2], x[1 : 2 * pairs : 2]
        if n % 2:
            assert x[-1] == pytest.approx(c, abs=1e-4)
        e = plus - c
        scores = smooth(x) / smooth(x[: 2 * pairs]).std()
        half = (scores[: 2 * pairs : 2] - scores[1 : 2 * pairs : 2]) / 2
        assert minus == pytest.approx(c - e, abs=1e-4)
        tell(agent, x, smooth(x))
        c = c + lr * 0.5**2 * sum(half[k] * e[k] / np.mean(np.abs(e[k])) ** 2 for k in range(pairs)) / pairs
        assert agent.centre == pytest.approx(c, abs=1e-4)
    assert smooth(c[None]) > smooth(np.zeros((1, d))) + 3


@all_cases
def test_the_unit_of_the_rates_does_not_matter(case: str) -> None:
    first = trajectory(CASES[case](spec(16)), smooth)
    second = trajectory(CASES[case](spec(16)), lambda x: 1000 * smooth(x) - 3e4)
    assert np.concatenate(second) == pytest.approx(np.concatenate(first), abs=1e-3)


@all_cases
def test_scale_does_not_matter(case: str) -> None:
    first = trajectory(CASES[case](spec(16), sigma0=1.0), smooth)
    second = trajectory(CASES[case](spec(16), sigma0=4.0), lambda x: smooth(x / np.float32(4)))
    assert np.concatenate(second) == pytest.approx(4 * np.concatenate(first), abs=1e-3)


def test_sphere_steps_follow_the_schedule_and_spend_the_budget() -> None:
    d, budget = 400, 40 + 41 * 20
    agent = SphereCMA(spec(d, budget=budget))
    first = agent.ask()
    tell(agent, first, smooth(first))
    angles, shown = [], len(first)
    while shown < budget:
        x = agent.ask()
        assert np.array_equal(x[0], agent.recommend(1)[0])  # the centre, first
        angles.append(np.degrees(np.arccos((x[1:] @ x[0]).mean() / agent.radius**2)))
        tell(agent, x, smooth(x))
        shown += len(x)
    assert shown == budget
    steps = np.geomspace(50, 7.33, 21)
    assert angles == pytest.approx(steps[:20], rel=0.03)
    assert agent.diagnostics()["step_deg"] == pytest.approx(steps[19])


@pytest.mark.parametrize("cls", [SphereCMA, CSAES])
def test_lost_trials_are_left_out_of_the_ranking(cls: Any) -> None:
    agent = cls(spec(10), batch_size=8)
    x = agent.ask()
    tell(agent, x, [NAN, 3, 9, NAN, 1, 7, NAN, 2])
    mean = 0.730423 * x[2] + 0.269577 * x[5]  # 5 valid: the weights of ranks 1 and 2 of 5
    if cls is SphereCMA:
        mean = on_sphere(mean, np.sqrt(10))
    assert agent.recommend()[0] == pytest.approx(mean, abs=1e-5)


def test_the_centre_of_the_sphere_is_not_ranked() -> None:
    agents = [SphereCMA(spec(10), batch_size=4) for _ in range(3)]
    for rate, agent in zip((1e6, 0.0, NAN), agents, strict=True):
        tell(agent, agent.ask(), [1, 2, 3, 4])
        tell(agent, agent.ask(), [rate, 1, 2, 3, 4])
    assert np.array_equal(agents[0].recommend(2), agents[1].recommend(2))
    assert np.array_equal(agents[0].recommend(2), agents[2].recommend(2))


def test_nes_takes_the_one_side_of_a_broken_pair() -> None:
    agent = NES(spec(10), batch_size=6)
    x = agent.ask()
    tell(agent, x, [4, NAN, 1, 3, NAN, 8])
    scores = np.array([4, 1, 3, 8]) - 4
    assert agent.centre == pytest.approx(scores / scores.std() @ x[[0, 2, 3, 5]] / 4, abs=1e-5)


def test_fdgd_leaves_a_broken_pair_out() -> None:
    agent = FDGD(spec(10), batch_size=6, learning_rate=1.0)
    x = agent.ask()
    tell(agent, x, [4, NAN, 1, 3, 5, 8])
    slopes = np.array([-1, -1.5]) / np.std([1, 3, 5, 8]) / np.abs(x[[2, 4]]).mean(axis=1) ** 2
    assert agent.centre == pytest.approx(slopes @ x[[2, 4]] / 2, abs=1e-5)
    before = agent.centre
    tell(agent, agent.ask(), [4, NAN, NAN, 3, NAN, 8])
    assert np.array_equal(agent.centre, before)


def test_clipped_points_are_put_back_on_the_sphere() -> None:
    agent = SphereCMA(spec(12, bound=0.5), batch_size=10)
    shown = np.clip(agent.ask(), -0.5, 0.5)
    tell(agent, shown, smooth(shown))
    mean = rank_weighted(on_sphere(shown.astype(np.float64), 1), smooth(shown))
    assert agent.recommend()[0] == pytest.approx(on_sphere(mean, np.sqrt(12)), abs=1e-5)


@pytest.mark.parametrize("cls", [CSAES, NES, FDGD])
def test_clipped_latents_are_learned_from_as_shown(cls: Any) -> None:
    agent = cls(spec(12, bound=0.5), batch_size=10)
    for _ in range(3):
        before = agent.recommend()[0]
        shown = np.clip(agent.ask(), -0.5, 0.5)
        rates = smooth(shown)
        tell(agent, shown, rates)
        if cls is CSAES:
            expected = rank_weighted(shown, rates)
        elif cls is NES:
            expected = before + (rates - rates.mean()) / rates.std() @ (shown - before) / 10
        else:
            e = (shown[::2] - shown[1::2]) / 2
            slopes = (rates[::2] - rates[1::2]) / 2 / rates.std() / np.abs(e).mean(axis=1) ** 2
            expected = before + 0.8 * slopes @ e / 5
        assert agent.recommend()[0] == pytest.approx(np.clip(expected, -0.5, 0.5), abs=1e-5)
        assert agent.recommend().any()


def test_the_radius_of_nes_has_a_floor() -> None:
    agent = NES(spec(8), sigma0=0.5, radius_learning_rate=5.0, smallest_radius=0.2)
    trajectory(agent, lambda x: np.asarray(-(x**2).sum(axis=1), dtype=np.float64), rounds=8)
    assert agent.radius == pytest.approx(0.1)


@pytest.mark.parametrize("cls", [CSAES, SphereCMA])
def test_ties_are_broken_at_random(cls: Any) -> None:
    """The same images and rates; only the numbers drawn for the ties differ."""
    ends = []
    for seed in (1, 2):
        agent = cls(spec(50))
        x = agent.ask()
        agent.rng = np.random.default_rng(seed)
        tell(agent, x, np.full(40, 7.3))
        ends.append(agent.recommend()[0])
    assert np.abs(ends[0] - ends[1]).max() > 0.05


@pytest.mark.parametrize("cls", [NES, FDGD])
def test_equal_rates_move_no_gradient(cls: Any) -> None:
    agent = cls(spec(50))
    tell(agent, agent.ask(), np.full(40, 7.3))
    assert not agent.recommend().any()


def test_a_round_without_a_direction_leaves_the_sphere_where_it_is() -> None:
    agent = SphereCMA(spec(6), batch_size=4)
    assert not agent.recommend(2).any()  # no centre yet
    tell(agent, agent.ask(), [NAN, 5, NAN, NAN])  # one cannot be ranked
    assert len(agent.ask()) == 4  # so random points again
    tell(agent, np.zeros((4, 6), np.float32), [1, 2, 3, 4])
    tell(agent, agent.ask(), [1, 2, 3, 4])
    centre = agent.recommend(1)
    for shown in (-np.repeat(centre, 5, axis=0), np.repeat(centre, 5, axis=0), np.zeros((5, 6), np.float32)):
        assert len(agent.ask()) == 5
        shown[0] = centre
        tell(agent, shown, [1, 2, 3, 4, 5])
        assert np.array_equal(agent.recommend(1), centre)


@all_cases
def test_recommend_is_the_mean_and_the_means_before(case: str) -> None:
    agent = CASES[case](spec(5), batch_size=6)
    means = []
    for _ in range(3):
        x = agent.ask()
        tell(agent, x, smooth(x))
        means.insert(0, agent.recommend(1)[0])
    assert np.array_equal(agent.recommend(3), means)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(means))


@pytest.mark.parametrize(
    ("cls", "params", "text"),
    [
        *((cls, {"sigma0": wrong}, "sigma0") for cls in CLASSES for wrong in (0.0, -1.0, NAN, np.inf)),
        *((cls, {"learning_rate": 0.0}, "learning_rate") for cls in (SphereCMA, NES, FDGD)),
        (SphereCMA, {"schedule": "cosine"}, "schedule to be one of exp, inv, lin"),
        (NES, {"radius_learning_rate": -0.1}, "radius_learning_rate"),
        (NES, {"smallest_radius": 0.0}, "smallest_radius"),
    ],
)
def test_wrong_parameters_are_named(cls: Any, params: dict[str, Any], text: str) -> None:
    with pytest.raises(NeuroGymError, match=f"{cls.__name__}: expected {text}.* got .*") as error:
        cls(spec(5), **params)
    assert "\n" not in str(error.value)
    with pytest.raises(NeuroGymError, match="batch_size of at least 2, got 1"):
        cls(spec(5), batch_size=1)
