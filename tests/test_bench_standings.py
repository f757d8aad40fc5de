"""Standings of runs that are made up, so that a hand finds the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.standings import Track, compared, standings, tracks
from neurogym_v.benchmarks.suite import Suite

SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "Four sites."
citation = "no one"
agents = ["good", "bad"]
budget = 100
report_at = [50]
seeds = [0, 1]

[[grid]]
neuron = "gabor"
sites = [0, 1, 2, 3]
"""
ALLOWED = (50, 100)


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Suite:
    return suite.parse(SUITE.replace('"good", "bad"', '"random", "nes"'), where="mine.toml")


def estimate(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value}


def result(agent: str, site: int, seed: int, activation: float | None, **changes: Any) -> dict[str, Any]:
    """A run whose curve of incumbents rises evenly to its end, where the rate is 10 + 20 x relative activation."""
    rng = np.random.default_rng([site, seed])
    gain = 1 + 0.3 * rng.standard_normal(80)  # of all that is shown in a round
    shown = {
        name: (gain * rate + rng.standard_normal(80)).tolist()
        for name, rate in {"image": 10 + 20 * (activation or 0), "natural": 30, "spontaneous": 10}.items()
    }
    milestones = [
        {"presentations": at, "relative_activation": estimate(activation and activation * at / 100),
         "best_relative_activation": estimate(activation and activation + 0.1), "contrast_matched": estimate(0.5),
         "expected_relative_activation": activation and activation * at / 100, "shown": shown,
         "expected": activation and 10 + 20 * activation}
        for at in ALLOWED
    ]  # fmt: skip
    config = {"neuron": "gabor", "site": site, "seed": seed, "noise": "poisson", "objective": "stretch"}
    made = {
        "agent": agent, "condition": f"gabor-{site}-poisson-{seed}", "config": config, "failed": None, "sanity_check": False,
        "milestones": milestones, "incumbents": [[at, activation and activation * at / 100] for at in range(0, 101, 10)],
        "presentations": 100, "agent_s": 0.02, "diagnostics": {},
        "natural": {"best_image": "a@1"},
    }  # fmt: skip
    return made | changes


def rows(mine: Suite, results: list[dict[str, Any]]) -> dict[str, Any]:
    (track,) = tracks(mine.tasks())
    return {row.agent: row for row in standings(mine, track, results)}


def grid(agent: str, activations: list[list[float]], **changes: Any) -> list[dict[str, Any]]:
    return [result(agent, site, seed, a, **changes) for site, row in enumerate(activations) for seed, a in enumerate(row)]


GOOD = [[1.5, 1.3], [0.9, 1.0], [1.4, 1.6], [1.2, 1.2]]
BAD = [[0.5, 0.5]] * 4


def test_a_track_is_a_noise_and_an_objective_with_all_sites_and_seeds(mine: Suite) -> None:
    sites = tuple(("gabor", site) for site in range(4))
    assert tracks(mine.tasks()) == [Track(noise="poisson", objective="stretch", sites=sites, seeds=(0, 1))]
    assert [(track.noise, track.objective) for track in tracks(suite.load("bashivan2019").tasks())] == [
        ("poisson", "stretch"),
        ("poisson", "one_hot"),
    ]


def test_numbers_are_what_a_hand_finds(mine: Suite) -> None:
    found = rows(mine, grid("bad", BAD) + grid("good", GOOD))
    assert list(found) == ["good", "bad"]
    good, bad = found["good"], found["bad"]
    np.testing.assert_array_equal(good.scores, GOOD)
    # of eight runs the two lowest and the two highest are cut
    assert good.score.value == pytest.approx(np.mean([1.2, 1.2, 1.3, 1.4])) and good.score.low < good.score.value
    assert good.at[50].value == pytest.approx(good.score.value / 2)
    assert good.best.value == pytest.approx(good.score.value + 0.1)
    assert good.contrast_matched.value == 0.5
    assert good.expected.value == pytest.approx(good.score.value)
    assert good.area.value == pytest.approx(0.45 * good.score.value)  # a staircase of ten steps
    assert (good.done, good.of, good.failed, good.sanity_checks) == (8, 8, (), 0)
    assert good.seconds == pytest.approx(0.2)
    assert np.isnan(good.optimism)
    # the first seed is above the best natural image on three sites of four, by 20 (a - 1) of 30 spikes/s
    assert good.stretched.value == 0.75 and bad.stretched.value == 0
    assert good.gain.value == pytest.approx(np.median([20 * (row[0] - 1) / 30 for row in GOOD]), abs=0.02)


def test_targets_are_timed_by_the_noise_free_curve(mine: Suite) -> None:
    good = rows(mine, grid("good", GOOD))["good"]
    np.testing.assert_array_equal(good.hits[0, 0], [40, 60, 70, 80, 100])  # a curve to 1.5: .5, .8, 1, 1.2, 1.5
    np.testing.assert_array_equal(good.hits[1, 0], [60, 90, np.inf, np.inf, np.inf])
    reached = [hit for hit in good.hits[:, :, 2].ravel() if np.isfinite(hit)]
    never = 8 - len(reached)
    assert len(reached) == 7 and never == 1
    times = [np.mean(row) if np.isfinite(row).all() else np.inf for row in good.hits[:, :, 2]]
    times[1] = good.hits[1, 1, 2] + 100  # of two runs the one that does not get there spends all
    assert good.running_time[2] == pytest.approx(np.median(times))
    assert np.isposinf(rows(mine, grid("bad", BAD))["bad"].running_time[2])


def test_what_failed_is_missing_or_no_fair_test_does_not_count_and_is_told(mine: Suite) -> None:
    results = grid("good", GOOD)
    results[0] |= {"failed": "NeuroGymError: no idea"}
    results[3] |= {"sanity_check": True}
    row = rows(mine, results[:-1])["good"]
    assert row.scores[0, 0] == 0 and np.isposinf(row.hits[0, 0]).all()  # as good as a grey screen
    assert (row.done, row.of, row.failed, row.sanity_checks) == (5, 8, ("NeuroGymError: no idea",), 1)
    assert np.isnan(row.scores[[1, 3], [1, 1]]).all() and np.isfinite(row.scores).sum() == 6
    nothing = rows(mine, [result("good", 0, 0, 1.0, sanity_check=True)])["good"]
    assert nothing.done == 0 and np.isnan(nothing.score.value)


def test_a_site_that_was_lost_has_no_score(mine: Suite) -> None:
    row = rows(mine, [*grid("good", GOOD)[:-1], result("good", 3, 1, None)])["good"]
    assert np.isnan(row.scores[3, 1]) and np.isfinite(row.score.value)


def test_what_an_agent_says_of_itself_is_held_against_the_truth(mine: Suite) -> None:
    row = rows(mine, grid("good", [[1.0, 1.0]] * 4, diagnostics={"incumbent_hz": 45.0}))["good"]
    assert row.optimism == pytest.approx((45 - 30) / 30)


def test_all_are_compared_with_the_first_and_with_chance(mine: Suite) -> None:
    close = [[1.4, 1.4], [1.0, 1.1], [1.5, 1.3], [1.1, 1.1]]
    found = compared(list(rows(mine, grid("good", GOOD) + grid("close", close) + grid("bad", BAD)).values()))
    # of each site's four pairs of runs, one half for equal ones: 1/2, 7/8, 1/4 and 0
    assert found.better["close"].value == pytest.approx(np.mean([0.5, 0.875, 0.25, 0.0]))
    assert found.better["bad"].value == 0.0 and set(found.better) == {"close", "bad"}
    assert found.better["close"].low < found.better["close"].value < found.better["close"].high
    # ahead on all four sites: one of 16 ways to give signs to their ranks, on either side, and that of three pairs
    assert found.p["bad"] == pytest.approx(3 * 2 / 16) and found.tied("close") and not found.tied("good")
    assert found.differ is not None
    np.testing.assert_allclose(found.differ.mean_ranks, [5.5 / 4, 6.5 / 4, 3.0])  # they are equal on the first site
    chi_squared = (12 / (4 * 3 * 4) * (5.5**2 + 6.5**2 + 12**2) - 3 * 4 * 4) / (1 - 6 / (4 * 24))
    assert found.differ.sites == 4 and found.differ.p == pytest.approx(np.exp(-chi_squared / 2))  # of two degrees of freedom


def test_one_agent_or_one_without_a_score_is_compared_with_nobody(mine: Suite) -> None:
    alone = list(rows(mine, grid("good", GOOD)).values())
    nothing = list(rows(mine, grid("bad", BAD, sanity_check=True)).values())
    for some in ([], alone, alone + nothing):
        found = compared(some)
        assert found.differ is None and not found.p and not found.better and not found.tied("good")


def test_giving_up_on_hard_sites_gains_nothing(mine: Suite) -> None:
    hard = [[1.5, 1.5], [1.4, 1.4], [1.6, 1.6], [0.1, 0.1]]
    results = grid("honest", hard) + grid("quits", hard)
    for result_ in results[-2:]:
        result_ |= {"failed": "NeuroGymError: too hard"}
    found = rows(mine, results)
    assert found["quits"].score.value <= found["honest"].score.value
    assert found["quits"].area.value <= found["honest"].area.value
    assert found["quits"].running_time[0] >= found["honest"].running_time[0]
    assert found["quits"].stretched.value == found["honest"].stretched.value == 0.75


def test_a_site_that_no_run_solved_is_not_paid_for_by_an_easy_one(mine: Suite) -> None:
    found = rows(mine, grid("good", [[1.5, 1.5], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]))["good"]
    assert np.isposinf(found.running_time[2])
