"""Low-rank Cholesky-CMA-ES against the dense equations, and against what any CMA-ES must do."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import cma
import numpy as np
import pytest
from numpy.typing import NDArray

from neurogym_v.agents.cma_es import CMAES
from neurogym_v.evolution import rank_weights
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError

Array = NDArray[np.float64]
NAN = np.nan


def spec(d: int, bound: float = 1e6) -> LoopSpec:
    return LoopSpec(latent_dim=d, bound=bound, budget=3000)


def tell(agent: CMAES, latents: Latents, rates: Array | list[float]) -> None:
    rates = np.asarray(rates, dtype=np.float64)
    agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=len(latents), left=0))


def near(x: NDArray[Any], y: NDArray[Any], tolerance: float = 1e-9) -> None:
    assert np.abs(x - y).max() < tolerance


def ellipsoid(d: int, condition: float, target: float = 1.0) -> Callable[[Latents], Array]:
    scale = condition ** (np.arange(d) / max(d - 1, 1))
    return lambda x: np.asarray(-(((x.astype(np.float64) - target) ** 2) @ scale))


class Dense:
    """The equations of Wang & Ponce 2022 with d x d matrices, written down once more; rows are vectors."""

    def __init__(self, d: int, n: int, sigma0: float) -> None:
        mu = n // 2
        self.w = np.log(n / 2 + 0.5) - np.log(np.arange(1, mu + 1))
        self.w /= self.w.sum()
        self.mueff = 1 / (self.w**2).sum()
        self.cc = 4 / (d + 4)
        self.cs = np.sqrt(self.mueff) / (np.sqrt(self.mueff) + np.sqrt(d))
        self.c1 = 2 / (d + np.sqrt(2)) ** 2
        self.damps = 1 + self.cs + 2 * max(0, np.sqrt((self.mueff - 1) / (d + 1)) - 1)
        self.chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
        self.m, self.ps, self.pc = np.zeros((1, d)), np.zeros((1, d)), np.zeros((1, d))
        self.A, self.Ainv = np.eye(d), np.eye(d)
        self.sigma = sigma0

    def learn(self, z: Array, rates: Array, *, update: bool) -> None:
        x = self.m + self.sigma * z @ self.A
        best = np.argsort(-rates)[: len(self.w)]
        self.m = self.w[None] @ x[best]
        zw = self.w[None] @ z[best]
        self.ps = (1 - self.cs) * self.ps + np.sqrt(self.cs * (2 - self.cs) * self.mueff) * zw
        self.pc = (1 - self.cc) * self.pc + np.sqrt(self.cc * (2 - self.cc) * self.mueff) * zw @ self.A
        self.sigma = self.sigma * np.exp(self.cs / self.damps * (np.linalg.norm(self.ps) / self.chi - 1))
        if update:
            v = self.pc @ self.Ainv
            n = (v @ v.T).item()
            k, r = np.sqrt(1 - self.c1), np.sqrt(1 + n * self.c1 / (1 - self.c1))
            self.A = k * self.A + k / n * (r - 1) * v.T @ self.pc
            self.Ainv = self.Ainv / k - 1 / (k * n) * (1 - 1 / r) * (self.Ainv @ v.T) @ v


@pytest.mark.parametrize(("d", "n", "every"), [(64, 40, 10), (300, 40, 10), (64, 40, 1), (8, 9, 1)])
def test_equals_the_dense_algorithm(d: int, n: int, every: int) -> None:
    agent, dense = CMAES(spec(d), batch_size=n, seed=1, sigma0=0.8, update_every=every), Dense(d, n, 0.8)
    objective = ellipsoid(d, 100.0)
    for round_ in range(1, 61):
        x = agent.ask()
        z = agent._z.astype(np.float64)
        near(x, dense.m + dense.sigma * z @ dense.A, 1e-5)  # float32
        tell(agent, x, objective(x))
        dense.learn(z, objective(x), update=round_ % every == 0)
        near(agent.mean, dense.m[0])
        assert agent.sigma == pytest.approx(dense.sigma, rel=1e-9)
        near(agent.p_s, dense.ps[0])
        near(agent.p_c, dense.pc[0])
    eye = np.eye(d)
    near(agent.A.left(eye), dense.A)
    near(agent.A_inv.left(eye), dense.Ainv)
    near(agent.A.left(agent.A_inv.left(eye)), eye)
    near(agent.A_inv.right(dense.pc[0]), dense.Ainv @ dense.pc[0])
    assert len(agent.A.P) == 60 // every
    assert np.abs(dense.A - eye).max() > 1e-5  # the covariance did change: the comparison is not of two identities


def test_no_d_by_d_matrix() -> None:
    d = 4096
    tracemalloc.start()
    agent = CMAES(spec(d), update_every=1)
    for _ in range(6):
        x = agent.ask()
        tell(agent, x, x.sum(axis=1).astype(np.float64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6 < d * d * 4  # bytes


def test_weights_by_hand() -> None:
    # 5 valid: the better 2; ln 3 - ln 1 = 1.098612 and ln 3 - ln 2 = 0.405465
    assert rank_weights(5) == pytest.approx([0.730423, 0.269577], abs=1e-6)
    assert rank_weights(2).tolist() == [1.0]
    assert rank_weights(3).tolist() == [1.0]
    assert len(rank_weights(40)) == 20
    assert rank_weights(40).sum() == pytest.approx(1.0)


def test_lost_trials_are_left_out() -> None:
    agent = CMAES(spec(10), batch_size=8)
    x = agent.ask()
    tell(agent, x, [NAN, 3, 9, NAN, 1, 7, NAN, 2])
    assert agent.mean == pytest.approx(0.730423 * x[2] + 0.269577 * x[5], abs=1e-5)
    assert agent.recommend()[0] == pytest.approx(agent.mean, abs=1e-6)


def test_one_valid_trial_cannot_be_ranked() -> None:
    agent = CMAES(spec(10), batch_size=8)
    tell(agent, agent.ask(), [NAN] * 7 + [5.0])
    assert not agent.mean.any()
    assert agent.sigma == 1.0


def test_a_short_round_counts_those_shown() -> None:
    agent = CMAES(spec(10), batch_size=8)
    x = agent.ask()
    tell(agent, x[:4], [1, 4, 3, 2])
    w = np.log(2.5) - np.log([1, 2])
    assert agent.mean == pytest.approx(w / w.sum() @ x[[1, 2]], abs=1e-6)


def test_clipped_latents_are_learned_from_as_shown() -> None:
    agent = CMAES(spec(12, bound=0.5), batch_size=10, update_every=1)
    for round_ in range(8):
        mean, sigma = agent.mean, agent.sigma
        shown = np.clip(agent.ask(), -0.5, 0.5)
        tell(agent, shown, shown.sum(axis=1).astype(np.float64))
        best = np.argsort(-shown.sum(axis=1), kind="stable")[:5]
        assert agent.mean == pytest.approx(rank_weights(10) @ shown[best], abs=1e-5), round_
        z = agent._z[best[0]]  # of what was shown: it leads there from the old mean
        if round_ == 0:
            assert mean + sigma * z == pytest.approx(shown[best[0]], abs=1e-6)


@pytest.mark.parametrize(("condition", "rounds"), [(1.0, 200), (100.0, 500)])
def test_converges_on_quadratics(condition: float, rounds: int) -> None:
    agent, objective = CMAES(spec(8), batch_size=12, update_every=1), ellipsoid(8, condition)
    for _ in range(rounds):
        x = agent.ask()
        tell(agent, x, objective(x))
    assert agent.recommend()[0] == pytest.approx(np.ones(8), abs=1e-4)


def test_is_as_fast_as_pycma_on_the_sphere() -> None:
    d, n, objective = 20, 12, ellipsoid(20, 1.0)

    def rounds(ask: Callable[[], Any], learn: Callable[[Any, Array], None]) -> int:
        for round_ in range(1, 500):
            x = ask()
            rates = objective(np.asarray(x))
            if rates.max() > -1e-4:
                return round_
            learn(x, rates)
        return 500

    agent = CMAES(spec(d), batch_size=n, seed=0, update_every=1)
    peer = cma.CMAEvolutionStrategy([0.0] * d, 1.0, {"popsize": n, "seed": 1, "verbose": -9})
    ours = rounds(agent.ask, lambda x, rates: tell(agent, x, rates))
    theirs = rounds(peer.ask, lambda x, rates: peer.tell(x, list(-rates)))
    assert ours < 1.5 * theirs < 700


def trajectory(agent: CMAES, objective: Callable[[Latents], Array], rounds: int = 25) -> list[Latents]:
    asked = []
    for _ in range(rounds):
        asked.append(agent.ask())
        tell(agent, asked[-1], objective(asked[-1]))
    return asked


def test_only_ranks_matter() -> None:
    f = ellipsoid(16, 10.0)
    first = trajectory(CMAES(spec(16)), f)
    second = trajectory(CMAES(spec(16)), lambda x: 1e3 * np.exp(f(x) / 100))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_scale_and_place_do_not_matter() -> None:
    f = ellipsoid(16, 10.0)
    first = trajectory(CMAES(spec(16), sigma0=0.5), f)
    other = CMAES(spec(16), sigma0=1.0, mean0=np.full(16, 3.0))  # x -> 2 x + 3, exact in float32 up to rounding
    second = trajectory(other, lambda x: f(((x.astype(np.float64) - 3) / 2).astype(np.float32)))
    assert np.stack(second) == pytest.approx(2 * np.stack(first) + 3, abs=1e-3)


def test_without_signal_the_step_size_stays() -> None:
    rng = np.random.default_rng(0)
    end = []
    for seed in range(8):
        agent = CMAES(spec(50), batch_size=20, seed=seed)
        trajectory(agent, lambda x: rng.random(len(x)), rounds=60)
        end.append(np.log(agent.sigma))
    assert abs(np.mean(end)) < 0.25


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_long_sessions_stay_in_range(slope: float) -> None:
    """A flat neuron, and one whose best latent is the corner of the box."""
    agent = CMAES(spec(5, bound=2.0), batch_size=8, update_every=1)
    for _ in range(1500):
        shown = np.clip(agent.ask(), -2, 2)
        tell(agent, shown, slope * shown.sum(axis=1).astype(np.float64))
    assert 1e-8 <= agent.sigma <= 2.0
    assert np.abs(agent.mean).max() <= 2.0 + 1e-6
    if slope:
        assert agent.mean == pytest.approx(np.full(5, 2.0), abs=1e-3)


def test_ties_are_broken_at_random() -> None:
    """A silent neuron moves the mean no more towards the first of the batch than towards the last."""
    weight = np.zeros(10)
    for seed in range(300):
        agent = CMAES(spec(400), batch_size=10, seed=seed)
        x = agent.ask()
        tell(agent, x, np.zeros(10))
        weight += np.linalg.lstsq(x.T, agent.mean, rcond=None)[0]
    assert weight / 300 == pytest.approx(np.full(10, 0.1), abs=0.05)


def test_recommend_is_the_mean_and_the_means_before() -> None:
    agent = CMAES(spec(5), batch_size=6)
    means = [agent.mean]
    for _ in range(3):
        x = agent.ask()
        tell(agent, x, x[:, 0].astype(np.float64))
        means.insert(0, agent.mean)
    assert agent.recommend(6) == pytest.approx(np.array([*means, means[-1], means[-1]]), abs=1e-6)


@pytest.mark.parametrize(
    ("params", "text"),
    [({"sigma0": 0.0}, "sigma0"), ({"update_every": 0}, "update_every"), ({"mean0": np.zeros(3)}, "mean0")],
)
def test_wrong_parameters_are_named(params: dict[str, Any], text: str) -> None:
    with pytest.raises(NeuroGymError, match=f"CMAES: expected {text} .* got .*"):
        CMAES(spec(5), **params)
    with pytest.raises(NeuroGymError, match="batch_size of at least 2, got 1"):
        CMAES(spec(5), batch_size=1)
