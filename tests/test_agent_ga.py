"""The genetic algorithm against rounds worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from neurogym_v.agents.ga import GA, roulette_fitness
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError

SPEC = LoopSpec(latent_dim=6, bound=5.0, budget=1000)
NAN = np.nan
COPY = {"mutation_rate": 0.0, "heritability": 1.0}
"""Children are copies of their first parent: they show who was drawn."""


def tell(agent: GA, latents: Latents, rates: list[float] | NDArray[np.float64]) -> None:
    rates = np.asarray(rates, dtype=np.float64)
    agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=len(latents), left=0))


def who(rows: Latents, population: Latents) -> list[int]:
    """Index in the population of each row; -1 for one that is not in it."""
    return [next((i for i, x in enumerate(population) if x.tobytes() == row.tobytes()), -1) for row in rows]


def test_fitness_by_hand() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    std = 1.1180339887  # sqrt(1.25): deviations 1.5, .5, -.5, -1.5
    soft, hard = roulette_fitness(scores, 2 * std), roulette_fitness(scores, std / 2)
    assert soft == pytest.approx([1.0, 0.639407, 0.408841, 0.261416], abs=1e-5)  # exp(-j / 2.236)
    assert hard == pytest.approx([1.0, 0.167152, 0.027940, 0.004670], abs=1e-5)  # exp(-j / 0.559)
    assert soft**4 == pytest.approx(hard)  # "2" against "2": four times the temperature


def test_the_same_2_means_opposite_things() -> None:
    """kT_multiplier 2 of the Ponce lab and selectivity 2 of XDream, as presets, for the same rates."""
    kT = {}
    for preset in ("ponce2019", "wang2022", "xdream2020", "scale_matched"):
        agent = GA(SPEC, batch_size=4, **GA.presets[preset])
        tell(agent, agent.ask(), [4, 3, 2, 1])
        kT[preset] = agent.diagnostics()["kT"]
    assert kT == pytest.approx(
        {"ponce2019": 2.236068, "wang2022": 2.236068, "xdream2020": 0.559017, "scale_matched": 0.559017}, rel=1e-6
    )


def test_temperature_is_of_the_valid_scores_before_clipping() -> None:
    agent = GA(SPEC, batch_size=6, temperature=1.0, clip=True)
    tell(agent, agent.ask(), [0, 0, 0, 100, NAN, NAN])
    assert agent.diagnostics()["kT"] == pytest.approx(43.30127)  # mean 25; (3 x 625 + 5625) / 4 = 1875
    agent = GA(SPEC, batch_size=6, temperature=1.0)
    tell(agent, agent.ask(), [7] * 6)
    assert agent.diagnostics()["kT"] == 1e-8


def test_zeros_are_replaced_with_the_smallest_positive() -> None:
    fitness = roulette_fitness(np.array([0.0, -1.0, -5000.0, -9000.0]), 1.0)
    assert fitness == pytest.approx([1.0, 0.367879, 0.367879, 0.367879], rel=1e-5)
    assert roulette_fitness(np.array([3.0, 3.0]), 1e-8).tolist() == [1.0, 1.0]


def drawn(rates: list[float], rounds: int = 1500, **params: object) -> NDArray[np.float64]:
    """How often each of the population became a parent, as a share."""
    count = np.zeros(len(rates))
    for seed in range(rounds):
        agent = GA(SPEC, batch_size=len(rates), seed=seed, n_conserve=0, **COPY, **params)  # type: ignore[arg-type]
        population = agent.ask()
        tell(agent, population, rates)
        children = who(agent.ask(), population)
        assert -1 not in children
        count += np.bincount(children, minlength=len(rates))
    return np.asarray(count / count.sum())


def test_parents_are_drawn_by_roulette() -> None:
    # fitness of test_fitness_by_hand over its sum: 2.309664 and 1.199762
    soft = drawn([1, 2, 3, 4], temperature=2.0, clip=False)
    hard = drawn([1, 2, 3, 4], temperature=0.5, clip=False)
    assert soft == pytest.approx([0.1132, 0.1770, 0.2768, 0.4330], abs=0.025)  # 6000 draws: 4 standard errors
    assert hard == pytest.approx([0.0039, 0.0233, 0.1393, 0.8335], abs=0.02)


def test_clipping_at_the_95th_percentile() -> None:
    # of 3, 2, 1, 0 the 95th percentile is 2.85 (position 2.85 of 3), and kT is 0.5 std = 0.559 in both
    cut = np.exp(np.array([-2.85, -1.85, -0.85, 0.0]) / 0.5590170)
    assert drawn([0, 1, 2, 3], clip=True, temperature=0.5) == pytest.approx(cut / cut.sum(), abs=0.02)
    # one wild score among 20: cut to 18 + 0.05 x 82 = 22.1, while kT = 0.5 x 20.4 still knows of it
    rates = [*range(19), 100.0]
    kT = 0.5 * np.std(rates)
    cut = np.exp((np.minimum(rates, 22.1) - 22.1) / kT)
    assert drawn(rates, rounds=400, clip=True, temperature=0.5) == pytest.approx(cut / cut.sum(), abs=0.02)
    wild = np.exp((np.array(rates) - 100) / kT)
    assert drawn(rates, rounds=400, clip=False, temperature=0.5) == pytest.approx(wild / wild.sum(), abs=0.02)


def test_the_best_are_shown_again_to_the_byte() -> None:
    agent = GA(SPEC, batch_size=8, n_conserve=3, mutation_rate=1.0)
    first = agent.ask()
    tell(agent, first, [1, 9, 2, 8, 3, 7, 4, 5])
    second = agent.ask()
    assert who(second, first) == [1, 3, 5, -1, -1, -1, -1, -1]
    # their old scores are forgotten: the one that was best is now the worst, and goes
    tell(agent, second, [0, 1, 9, 2, 3, 8, 7, 4])
    assert who(agent.ask()[:3], second) == [2, 5, 6]


def test_lost_trials_are_carried_over_to_the_last_slots() -> None:
    agent = GA(SPEC, batch_size=8, n_conserve=2, mutation_rate=1.0)
    first = agent.ask()
    tell(agent, first, [NAN, 1, 2, NAN, 5, 4, 3, NAN])
    second = agent.ask()
    assert who(second, first) == [4, 5, -1, -1, -1, 0, 3, 7]
    tell(agent, second, [NAN] * 8)  # all lost: all shown again
    assert np.array_equal(agent.ask(), second)
    tell(agent, second, [NAN] * 7 + [1.0])  # one valid: no place for a child
    assert who(agent.ask(), second) == [7, 0, 1, 2, 3, 4, 5, 6]


def test_lost_images_are_no_parents() -> None:
    agent = GA(SPEC, batch_size=40, n_conserve=0, **COPY)  # type: ignore[arg-type]
    first = agent.ask()
    rates = np.where(np.arange(40) % 2, NAN, 3.0)
    tell(agent, first, rates)
    second = agent.ask()
    assert all(i % 2 == 0 for i in who(second[:20], first))
    assert who(second[20:], first) == list(range(1, 40, 2))


def test_a_short_last_round_leaves_the_rest_to_be_shown() -> None:
    agent = GA(SPEC, batch_size=6, n_conserve=1, mutation_rate=1.0)
    first = agent.ask()
    tell(agent, first[:3], [1, 3, 2])
    assert who(agent.ask(), first) == [1, -1, -1, 3, 4, 5]


def test_children_mix_the_genes_of_two_parents() -> None:
    spec = LoopSpec(latent_dim=4000, bound=5.0, budget=1000)
    agent = GA(spec, batch_size=20, n_conserve=0, mutation_rate=0.0, heritability=0.75)
    first = agent.ask()
    tell(agent, first, list(range(20)))
    shares = []
    for child in agent.ask():
        share = (first == child).mean(axis=1)
        assert share.sum() == pytest.approx(1.0)  # every gene is a parent's (no two individuals share one)
        shares.append(sorted(share)[-2:])
    crossed = np.array([s for s in shares if s[1] < 1.0])  # the others mated with themselves
    assert len(crossed) > 3
    assert crossed == pytest.approx(np.tile([0.25, 0.75], (len(crossed), 1)), abs=0.03)


def test_mutation_rate_and_size() -> None:
    spec = LoopSpec(latent_dim=2000, bound=5.0, budget=1000)
    agent = GA(spec, batch_size=20, n_conserve=5, mutation_rate=0.25, mutation_size=0.75)
    agent.ask()
    tell(agent, np.ones((20, 2000), np.float32), list(range(20)))  # as shown: all alike
    second = agent.ask()
    assert (second[:5] == 1).all()  # kept images are not mutated
    added = second[5:] - 1
    assert (added != 0).mean() == pytest.approx(0.25, abs=0.01)
    assert added[added != 0].std() == pytest.approx(0.75, abs=0.02)


def test_ties_are_broken_at_random() -> None:
    kept: set[int] = set()
    for seed in range(40):
        agent = GA(SPEC, batch_size=6, n_conserve=1, seed=seed)
        first = agent.ask()
        tell(agent, first, [0, 0, 5, 5, 5, 0])
        kept.update(who(agent.ask()[:1], first))
    assert kept == {2, 3, 4}


def test_evolution_goes_on_from_what_was_shown() -> None:
    agent = GA(SPEC, batch_size=6, n_conserve=2)
    shown = np.clip(agent.ask(), -0.5, 0.5)
    tell(agent, shown, [6, 5, 4, 3, 2, NAN])
    assert np.array_equal(agent.ask()[[0, 1, 5]], shown[[0, 1, 5]])


def test_recommend_is_the_mean_and_then_re_tested_images() -> None:
    agent = GA(SPEC, batch_size=4, n_conserve=2)
    assert np.array_equal(agent.recommend(2), np.zeros((2, 6)))
    first = agent.ask()
    tell(agent, first, [10, 8, 1, 0])
    second = agent.ask()  # 10 and 8 again, and two children
    tell(agent, second, [2, 8, 50, 0])
    best = agent.recommend(3)
    assert best[0] == pytest.approx(second.mean(axis=0), abs=1e-6)
    # means over shows: 8 of (8, 8) before 6 of (10, 2); the child with 50 was shown once
    assert who(best[1:], second) == [1, 0]


def test_presets_are_the_published_numbers() -> None:
    for preset in GA.presets:
        agent = GA(SPEC, batch_size=40, **GA.presets[preset])
        assert agent.n_conserve == (0 if preset == "xdream2020" else 10)
    assert not GA.presets["wang2022"]["clip"]


@pytest.mark.parametrize(
    "params",
    [{"n_conserve": 40}, {"n_conserve": -1}, {"mutation_rate": 1.5}, {"temperature": 0.0}, {"mutation_size": -1.0}],
)
def test_wrong_parameters_are_named(params: dict[str, float]) -> None:
    with pytest.raises(NeuroGymError, match=rf"GA: expected {next(iter(params))} .* got .*"):
        GA(SPEC, batch_size=40, **params)  # type: ignore[arg-type]
