"""Objectives: closed forms of the softmax, what lost trials and dead sites do, and that a search maximises them."""

from __future__ import annotations

import math
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neurogym_v.env import NeuronEnv
from neurogym_v.loop import run
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.neurons.simulated import Neuron, SimulatedNeuron
from neurogym_v.noise import with_noise
from neurogym_v.objectives import OneHot, Stretch, moments
from neurogym_v.references import load_references
from neurogym_v.registry import make_agent
from neurogym_v.types import NeuroGymError
from neurogym_v.vector import NeuronVectorEnv

NAN = math.nan
MEAN, SD = np.array([10.0, 20.0, 5.0]), np.array([2.0, 4.0, 1.0])


class Live(Neuron):
    """An electrode, as far as the environment can tell: it answers, and nobody knows its expected rates."""

    def __init__(self) -> None:
        self.inner = with_noise(Gabor(size=32), "poisson")
        self.sites = self.inner.sites

    def present(self, images, order, rng):
        return self.inner.present(images, order, rng)


class Halves(SimulatedNeuron):
    """Site 0 likes a bright image, site 1 a bright right half: only a bright left half tells them apart."""

    name, sites = "halves", 2

    def expected_rate(self, images):
        left, right = (half.float().mean(dim=(1, 2, 3)) / 2.55 for half in images.chunk(2, dim=3))
        return torch.stack([(left + right) / 2, right], dim=1).double().numpy()


def latents(env: NeuronEnv, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((env.batch_size, env.generator.latent_dim)).astype(np.float32)


def test_stretch_is_the_rate() -> None:
    np.testing.assert_array_equal(Stretch(1)(np.array([[1.0, 2.0], [3.0, NAN]])), [2.0, NAN])


def test_one_hot_of_two_sites_is_logistic_in_the_difference_of_their_z_scores() -> None:
    score = OneHot(0, MEAN[:2], SD[:2])
    rates = np.array([[10.0, 20.0], [14.0, 20.0], [14.0, 32.0]])
    np.testing.assert_allclose(score(rates), [1 / (1 + math.exp(-d)) for d in (0.0, 2.0, -1.0)], rtol=1e-12)


@given(arrays(float, (4, 3), elements=st.floats(0, 1e6)))
def test_shares_of_all_sites_sum_to_one_however_far_they_are_apart(rates: np.ndarray) -> None:
    shares = np.stack([OneHot(site, MEAN, SD)(rates) for site in range(3)])
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-9)


def test_a_dead_competitor_is_left_out_and_a_lost_trial_is_nan() -> None:
    score = OneHot(0, MEAN, SD)
    rates = np.array([[13.0, NAN, 4.0], [NAN, 20.0, 5.0], [NAN, NAN, NAN], [13.0, NAN, NAN]])
    without = OneHot(0, MEAN, SD, population=(0, 2))(rates)
    np.testing.assert_array_equal(score(rates), [without[0], NAN, NAN, NAN])
    assert without[0] == pytest.approx(1 / (1 + math.exp(-2.5)))


def test_sites_that_no_natural_image_moves_are_no_competitors() -> None:
    rates = np.array([[13.0, 24.0, 9.0]])
    np.testing.assert_array_equal(OneHot(0, MEAN, SD * [1, 1, 0])(rates), OneHot(0, MEAN, SD, population=(0, 1))(rates))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneHot(3, MEAN, SD), "expected sites of 0 to 2, got site 3"),
        (lambda: OneHot(0, MEAN, SD, population=(0, 7)), r"among \[0, 7\]"),
        (lambda: OneHot(0, MEAN, SD, population=(1, 2)), "expected site 0 and others"),
        (lambda: OneHot(0, MEAN, SD, population=(0,)), "expected site 0 and others"),
        (lambda: OneHot(1, MEAN, SD * [1, 0, 1]), "vary over natural images, got site 1"),
        (lambda: OneHot(0, MEAN, SD * [1, NAN, 1], population=(0, 1)), "vary over natural images, got site 1"),
        (lambda: NeuronEnv(neuron="gabor", objective="onehot"), "expected stretch, one_hot or an Objective, got 'onehot'"),
        (lambda: NeuronEnv(neuron="gabor", objective=max), "expected stretch, one_hot or an Objective"),
    ],
)
def test_bad_arguments_are_refused(make, message: str) -> None:
    with pytest.raises(NeuroGymError, match=message):
        make()


def test_a_simulated_neuron_knows_its_rates_over_natural_images_through_all_effects() -> None:
    neuron = Gabor(size=32)
    rates = neuron.expected_rate(load_references(count=100, size=64).images)
    mean, sd = with_noise(neuron, "poisson+lost:0.2").natural()
    np.testing.assert_allclose([mean, sd], moments(rates))
    assert neuron.natural()[0] is mean  # computed once


def test_multi_unit_sites_are_z_scored_by_rates_of_their_own_once_for_all_sessions() -> None:
    class Counted(Gabor):
        passes = 0

        def expected_rate(self, images):
            type(self).passes += 1
            return super().expected_rate(images)

    neuron = with_noise(Counted(size=32), "multi_unit:cells=3,hash_hz=15+poisson")
    env = NeuronEnv(neuron=neuron, generator="fourier", objective="one_hot")
    rates = neuron.expected_rate(load_references(count=100, size=64).images)
    np.testing.assert_allclose([env.objective.mean, env.objective.sd], moments(rates))
    assert (env.objective.mean > neuron.inner.inner.natural()[0] + 15).all()
    sessions = [neuron.begin(np.random.default_rng(0)) for _ in range(3)]
    before = Counted.passes
    assert all(session.natural()[0] is neuron.natural()[0] for session in sessions)
    late = with_noise(Counted(size=32), "multi_unit")  # known to no one before sessions begin
    assert len({id(late.begin(np.random.default_rng(0)).natural()[0]) for _ in range(3)}) == 1
    assert Counted.passes == before + 2  # neighbours, and rates


def test_moments_leave_lost_trials_out() -> None:
    mean, sd = moments(np.array([[1.0, NAN, 3.0], [3.0, NAN, NAN], [NAN, NAN, NAN]]))
    np.testing.assert_allclose(mean, [2, NAN, NAN])
    np.testing.assert_allclose(sd, [math.sqrt(2), NAN, NAN])


def test_the_environment_rewards_the_share_and_still_tells_the_rates(make_env) -> None:
    stretch, one_hot = make_env(noise="poisson+lost:0.2"), make_env(noise="poisson+lost:0.2", objective="one_hot")
    stretch.reset(seed=3), one_hot.reset(seed=3)
    (_, _, _, _, plain), (seen, reward, _, _, info) = (env.step(latents(env)) for env in (stretch, one_hot))
    np.testing.assert_array_equal(plain["rates"], plain["site_rates"])
    np.testing.assert_array_equal(info["site_rates"], plain["rates"])
    np.testing.assert_array_equal(np.isnan(info["rates"]), np.isnan(plain["rates"]))
    assert reward == pytest.approx(np.nanmean(info["rates"])) and 0 < reward < 1
    assert info["best_rate"] == np.nanmax(info["rates"])
    assert one_hot.observation_space.contains(seen)
    assert one_hot.observation_space["rates"].high.max() == 1
    np.testing.assert_allclose(seen["rates"], np.nan_to_num(info["rates"]), rtol=1e-6)


def test_gymnasium_finds_no_fault(make_env) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("neurogym_v/Gabor-v0", objective="one_hot", budget=80, render_mode="rgb_array").unwrapped)


def test_reference_rates_are_scores(make_env) -> None:
    env = make_env(objective="one_hot")
    _, info = env.reset(seed=0, options={"references": 30})
    assert ((info["reference_rates"] > 0) & (info["reference_rates"] < 1)).all()
    np.testing.assert_array_equal(env.spec_for_agents.references.rates, info["reference_rates"])


def test_a_search_for_the_share_finds_another_image_than_one_for_the_rate(make_env) -> None:
    """Expected rates of both cells at what is recommended, the mean of six searches each."""
    found = {}
    for objective in ("one_hot", "stretch"):
        reached = []
        for seed in range(6):
            env = make_env(neuron=with_noise(Halves(), "poisson"), objective=objective, budget=2000, batch_size=40)
            agent = make_agent("cma_es", env.spec_for_agents, seed=seed)
            env.begin(seed)
            list(run(agent, env))
            reached.append(env.neuron.expected_rate(env.live.draw(agent.recommend(1)))[0])
        found[objective] = np.mean(reached, axis=0)
    assert found["stretch"][0] > found["one_hot"][0] > found["one_hot"][1] + 8
    assert found["stretch"][1] > found["one_hot"][1] + 25


def test_lockstep_equals_one_by_one_each_for_its_site(cosines) -> None:
    settings = {"generator": cosines, "neuron": "gabor", "budget": 20, "batch_size": 20, "objective": "one_hot"}
    vector = NeuronVectorEnv(2, sites=[1, 6], **settings)
    vector.reset(seed=4)
    actions = np.stack([latents(vector.envs[0], seed) for seed in (0, 1)])
    _, reward, _, _, info = vector.step(actions)
    for i, site in enumerate((1, 6)):
        env = NeuronEnv(site=site, **settings)
        env.reset(seed=4 + i)
        _, alone, _, _, told = env.step(actions[i])
        assert reward[i] == alone
        np.testing.assert_array_equal(info["rates"][i], told["rates"])
        np.testing.assert_array_equal(info["site_rates"][i], told["site_rates"])


def test_a_live_neuron_is_z_scored_by_its_references(make_env) -> None:
    env = make_env(neuron=Live(), objective="one_hot")
    for options in (None, {"references": 19}):
        with pytest.raises(NeuroGymError, match="expected options={'references': 20} or more"):
            env.reset(seed=0, options=options)
    _, info = env.reset(seed=0, options={"references": 40})
    assert 0.02 < info["reference_rates"].mean() < 0.4
    assert 0 < env.step(latents(env))[1] < 1
    env.begin(0)
    with pytest.raises(NeuroGymError, match="expected references, shown by reset"):
        env.step(latents(env))


def test_an_objective_of_ones_own(make_env) -> None:
    class Contrast:
        name, unit, bounds = "contrast", "spikes/s", (-100.0, 100.0)

        def __call__(self, rates):
            return rates[:, 0] - rates[:, 1]

    class Wrong(Contrast):
        def __call__(self, rates):
            return rates

    env = make_env(objective=Contrast(), batch_size=50)
    env.reset(seed=0)
    seen, reward, _, _, info = env.step(latents(env))
    assert info["rates"].min() < 0 and reward == pytest.approx(info["rates"].mean())
    assert env.observation_space.contains(seen)
    np.testing.assert_allclose(seen["rates"], info["rates"])
    env = make_env(objective=Wrong())
    env.reset(seed=0)
    with pytest.raises(NeuroGymError, match=r"objective contrast: expected \(10,\) scores, got \(10, 12\)"):
        env.step(latents(env))


def test_an_objective_of_another_site_is_refused(make_env) -> None:
    mean, sd = np.full(12, 10.0), np.full(12, 3.0)
    with pytest.raises(NeuroGymError, match="one_hot: expected one of site 0, which is driven, got one of site 3"):
        make_env(objective=OneHot(3, mean, sd))


def test_scores_are_no_window_on_other_sites(make_env) -> None:
    class First:
        name, unit, bounds = "first", "spikes/s", (0.0, 1000.0)

        def __call__(self, rates):
            return rates[:, 0]

    env = make_env(objective=First())
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4]["rates"].base is None
