"""Candidates earn their place by repeats: what is estimated, who is shown again, and how often the lucky win."""

from __future__ import annotations

import numpy as np
import pytest

from neurogym_v.incumbents import Incumbents
from neurogym_v.types import NeuroGymError


def search(noise_sd: float, *, rounds: int = 60, seed: int = 0) -> tuple[float, float, int]:
    """Images whose expected rates are normal with s.d. 1, trials with noise: the estimate of the best, its truth, its shows."""
    rng, kept = np.random.default_rng(seed), Incumbents(1)
    for _ in range(rounds):
        again = kept.again(4)
        latents = np.concatenate([again, rng.standard_normal((40 - len(again), 1)).astype(np.float32)])
        kept.tell(latents, latents[:, 0] + noise_sd * rng.standard_normal(40))
    estimate, shows = kept.incumbent()
    return estimate, float(kept.best(1)[0, 0]), shows


def test_estimates_are_right_on_average_although_the_best_was_chosen() -> None:
    """At a reliability of 0.2; the raw mean of the shows that chose it would be too high by more than one."""
    found = np.array([search(2.0, seed=seed) for seed in range(40)])
    assert abs((found[:, 0] - found[:, 1]).mean()) < 0.25
    assert found[:, 1].mean() > 1.6  # of 2,000 images
    assert found[:, 2].min() > 3


def test_without_noise_the_highest_is_the_best() -> None:
    for seed in range(5):
        estimate, truth, _ = search(0.0, seed=seed)
        assert truth > 3.0
        assert estimate == pytest.approx(truth, rel=0.05)


def test_a_candidate_that_was_lucky_once_does_not_pass_one_that_is_known() -> None:
    rng, kept = np.random.default_rng(0), Incumbents(1)
    good = np.array([[5.0]], np.float32)
    kept.tell(np.concatenate([good, np.zeros((9, 1), np.float32)]), np.array([12.0, *rng.normal(0, 4, 9)]))
    for _ in range(7):
        again = kept.again(3)
        fresh = np.zeros((7, 1), np.float32)
        kept.tell(
            np.concatenate([again, fresh]), np.concatenate([10 * (again[:, 0] > 0) + rng.normal(0, 4, 3), rng.normal(0, 4, 7)])
        )
    kept.tell(np.full((1, 1), -1, np.float32), np.array([20.0]))
    assert kept.best(1)[0, 0] == 5.0


def test_a_round_that_was_lost_as_a_whole_leaves_nothing_behind() -> None:
    kept = Incumbents(1)
    kept.tell(np.arange(4, dtype=np.float32)[:, None], np.array([1.0, 5, 2, 3]))
    kept.again(2)  # shown, and all trials lost: never told
    kept.again(0)
    kept.tell(np.full((1, 1), 9, np.float32), np.array([7.0]))
    assert len(kept) == 5 and kept.best(1)[0, 0] == 9


def test_lost_trials_are_no_rates() -> None:
    kept = Incumbents(1)
    kept.tell(np.arange(3, dtype=np.float32)[:, None], np.array([1.0, np.nan, 2]))
    assert len(kept) == 2
    assert kept.again(5)[:, 0].tolist() == [2, 0]
    kept.tell(np.array([[2], [0], [8]], np.float32), np.array([np.nan, np.nan, np.nan]))
    assert len(kept) == 2 and kept.incumbent()[1] == 1


def test_the_pool_keeps_the_best() -> None:
    kept = Incumbents(1, pool=3)
    kept.tell(np.arange(9, dtype=np.float32)[:, None], np.arange(9.0))
    assert len(kept) == 3 and sorted(kept.best(3)[:, 0]) == [6, 7, 8]
    assert kept.best(5)[:, 0].tolist() == [8, 7, 6, 8, 7]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(NeuroGymError, match="expected shows and pool of at least 1, got 0 and 64"):
        Incumbents(1, shows=0)
    with pytest.raises(RuntimeError, match="none was shown yet"):
        Incumbents(1).best(1)
