"""Latents held to a sphere or a ball, around agents that know nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.agents.cma_es import CMAES
from neurogym_v.agents.random import Random
from neurogym_v.projection import Projected
from neurogym_v.registry import make_agent
from neurogym_v.testing import check_agent
from neurogym_v.types import Feedback, LoopSpec

SPEC = LoopSpec(latent_dim=16, bound=50.0, budget=400)


def told(agent, rates):
    latents = agent.ask()
    agent.tell(Feedback(round=0, latents=latents, rates=rates(latents), spent=len(latents), left=0))
    return latents


@pytest.mark.parametrize("name", ["cma_es,norm=1", "ga,max_norm=.9", "random,norm=2"])
def test_conformance(name: str) -> None:
    check_agent(lambda spec, batch_size, seed: make_agent(name, spec, batch_size=batch_size, seed=seed), bound=9.0)


@given(norm=st.floats(0.1, 5), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_on_the_sphere_every_latent_has_the_norm(norm: float, seed: int) -> None:
    agent = Projected(Random(SPEC, batch_size=20, seed=seed), norm=norm)
    told(agent, lambda z: z[:, 0].astype(float))
    for latents in (agent.ask(), agent.recommend(3)):
        assert np.linalg.norm(latents, axis=1) == pytest.approx(norm * 4, rel=1e-5)


@given(limit=st.floats(0.1, 5), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_in_the_ball_only_what_is_outside_is_moved(limit: float, seed: int) -> None:
    free = Random(SPEC, batch_size=40, seed=seed).ask()
    held = Projected(Random(SPEC, batch_size=40, seed=seed), max_norm=limit).ask()
    norms = np.linalg.norm(free, axis=1)
    inside = norms <= 4 * limit
    np.testing.assert_array_equal(held[inside], free[inside])
    assert np.linalg.norm(held[~inside], axis=1) == pytest.approx(4 * limit, rel=1e-5)
    np.testing.assert_allclose(held[~inside] / (4 * limit), free[~inside] / norms[~inside, None], rtol=1e-4, atol=1e-6)


def test_the_origin_stays() -> None:
    assert not Projected(CMAES(SPEC, batch_size=4), norm=1).recommend(1).any()


def test_the_agent_inside_learns_from_what_was_shown() -> None:
    """A unit that likes contrast alone: free, the mean runs away; in a ball, the search stays, and is told so."""
    free, held = CMAES(SPEC, batch_size=20), Projected(CMAES(SPEC, batch_size=20), max_norm=1.0)
    for _ in range(60):
        told(free, lambda z: z[:, 0].astype(float))
        assert np.linalg.norm(told(held, lambda z: z[:, 0].astype(float)), axis=1).max() < 4 + 1e-4
    assert np.linalg.norm(free.mean) > 12
    assert np.linalg.norm(held.agent.mean) < 4.5
    assert held.recommend(1)[0, 0] > 3.5
    assert held.diagnostics().keys() == free.diagnostics().keys()
    assert held.thinking_s > 0


def test_a_round_lost_as_a_whole_ends_for_the_agent_inside_too() -> None:
    agent = Projected(CMAES(SPEC, batch_size=4), norm=1)
    told(agent, lambda z: np.full(len(z), np.nan))
    told(agent, lambda z: np.ones(len(z)))
