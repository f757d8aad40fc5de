"""Reinforcement learning is asked and told like any agent, and leaves nothing behind it."""

from __future__ import annotations

import gc
import math
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from neurogym_v.agents.sb3 import PACKAGES, SB3
from neurogym_v.testing import check_agent
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError, Rates

Neuron = Callable[[Latents], Rates]


def make(name: str, *, d: int = 8, batch_size: int = 10, budget: int = 200, seed: int = 0, **params: Any) -> SB3:
    spec = LoopSpec(latent_dim=d, bound=5.0, budget=budget)
    return SB3(spec, batch_size=batch_size, seed=seed, **(SB3.preset(name) | params))


def linear(latents: Latents) -> Rates:
    return np.asarray(20 + 5 * latents.sum(axis=1) / np.sqrt(latents.shape[1]), dtype=np.float64)


def round_(agent: SB3, neuron: Neuron = linear) -> Latents:
    latents = agent.ask()
    tell(agent, latents, neuron(latents))
    return latents


def tell(agent: SB3, latents: Latents, rates: Rates) -> None:
    agent.tell(Feedback(round=0, latents=latents, rates=rates, spent=0, left=0))


@pytest.mark.parametrize("name", ["PPO", "A2C", "TRPO", "ARS", "SAC", "TD3", "A2C-stock", "TQC-stock"])
def test_conformance(name: str) -> None:
    cheap = {"gradient_steps": 1} if name in ("SAC", "TD3") else {}

    def factory(spec: LoopSpec, batch_size: int, seed: int) -> SB3:
        return SB3(spec, batch_size=batch_size, seed=seed, **(SB3.preset(name) | cheap))

    check_agent(factory, latent_dim=6, batch_size=6, rounds=4)


@pytest.mark.parametrize("name", [*PACKAGES, "PPO-stock", "ARS-stock"])
def test_the_first_round_is_the_prior_times_sigma0(name: str) -> None:
    latents = make(name, d=64, batch_size=100, sigma0=0.5).ask()
    assert latents.shape == (100, 64)
    assert latents.std(axis=0).mean() == pytest.approx(0.5, rel=0.03)
    assert np.abs(latents.mean(axis=0)).max() < 0.25  # 0.05 is the error of a mean of 100


@pytest.mark.parametrize("name", PACKAGES)
def test_it_climbs(name: str) -> None:
    agent = make(name, d=6, batch_size=20, budget=400, **({"minibatch": 64} if name in ("TQC", "CrossQ", "SAC") else {}))
    before = linear(agent.recommend(1))[0]
    for _ in range(20):
        round_(agent, lambda latents: linear(latents) + np.random.default_rng(len(latents)).normal(size=len(latents)))
    assert linear(agent.recommend(1))[0] > before + 10  # two s.d. of the first round


@pytest.mark.parametrize("name", ["PPO", "SAC", "ARS", "TD3"])
def test_nothing_global_is_read_or_left_changed(name: str) -> None:
    def state() -> tuple[Any, ...]:
        numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), numpy, torch.get_rng_state().tolist(), torch.is_grad_enabled()

    alone = make(name, seed=3)
    wanted = [round_(alone) for _ in range(4)]

    agents = [make(name, seed=3), make(name, seed=4)]
    shown: list[list[Latents]] = [[], []]
    for number in range(4):
        random.seed(number), np.random.seed(number), torch.manual_seed(number)  # noqa: NPY002
        with torch.set_grad_enabled(number % 2 == 0):
            before = state()
            for agent, rounds in zip(agents, shown, strict=True):
                rounds.append(round_(agent))
                agent.recommend(2), agent.diagnostics()
            assert state() == before
    assert np.array_equal(shown[0], wanted)
    assert not np.array_equal(shown[1], wanted)


@pytest.mark.parametrize("name", ["PPO", "ARS"])  # the latter waits where no gradients are recorded
def test_an_abandoned_agent_is_collected_and_changes_nothing(name: str) -> None:
    agent = make(name)
    round_(agent)
    model, gone = weakref.ref(agent._learner.model), weakref.ref(agent)
    with torch.no_grad():
        del agent
        gc.collect()
        assert not torch.is_grad_enabled()
    assert gone() is None
    assert model() is None


def test_an_unfinished_session_ends_in_silence() -> None:
    code = (
        "from neurogym_v.agents.sb3 import SB3\nfrom neurogym_v.types import LoopSpec\n"
        "agents = [SB3(LoopSpec(latent_dim=4, bound=3.0, budget=40), algorithm=name) for name in ('PPO', 'ARS', 'SAC')]\n"
        "from threading import Thread\nimport gc\n"
        "[agent.ask() for agent in agents]\n"
        "others = [SB3(LoopSpec(latent_dim=4, bound=3.0, budget=40), algorithm=name) for name in ('PPO', 'ARS', 'SAC')]\n"
        "for do in ([other.ask for other in others], [others.pop, gc.collect]):  # they outlive the thread they wait in\n"
        "    threads = [Thread(target=one) for one in do]\n"
        "    [thread.start() for thread in threads], [thread.join() for thread in threads], gc.collect()\n"
        "del do, threads\nothers.clear()\ngc.collect()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["PPO", "A2C", "TRPO"])
def test_the_advantage_of_a_lost_image_is_that_of_the_average(name: str) -> None:
    agent = make(name, batch_size=20)
    model, seen = agent._learner.model, []
    train = model.train  # type: ignore[attr-defined]
    model.train = lambda: (seen.append(model.rollout_buffer.advantages.ravel().copy()), train())  # type: ignore[attr-defined]
    latents = agent.ask()
    rates = linear(latents)
    rates[[3, 7]] = np.nan
    tell(agent, latents, rates)
    (advantages,) = seen
    others = np.delete(advantages, [3, 7])
    assert np.allclose(advantages[[3, 7]], others.mean(), atol=1e-5)
    assert np.corrcoef(others, np.delete(rates, [3, 7]))[0, 1] > 0.999


def test_ars_does_not_follow_a_pair_of_which_one_was_lost() -> None:
    agent = make("ARS", batch_size=8)
    latents = agent.ask()
    rates = linear(latents)
    rates[[1, 2]] = 500.0, np.nan  # pairs are 0 and 4, 1 and 5, ...
    tell(agent, latents, rates)
    direction = sum((rates[i] - rates[i + 4]) * latents[i] for i in (0, 1, 3))
    moved = agent.recommend(1)[0]
    assert moved @ direction == pytest.approx(np.linalg.norm(moved) * np.linalg.norm(direction), rel=1e-3)


def test_what_was_lost_or_not_shown_is_not_in_the_replay_buffer() -> None:
    agent = make("SAC", batch_size=5)
    latents = agent.ask()
    tell(agent, latents, np.array([1.0, np.nan, 3, 4, np.nan]))
    agent.ask()
    agent._asked = latents.shape
    tell(agent, latents[:2], np.array([2.0, 3.0]))
    buffer = agent._learner.model.replay_buffer  # type: ignore[attr-defined]
    assert buffer.size() == 5
    assert np.allclose(3 * buffer.actions[:3, 0], latents[[0, 2, 3]], atol=1e-5)


@pytest.mark.parametrize("name", ["PPO", "SAC", "ARS"])
def test_a_round_that_was_lost_is_asked_again(name: str) -> None:
    agent = make(name)
    round_(agent)
    latents = agent.ask()
    tell(agent, latents, np.full(10, np.nan))
    assert np.array_equal(agent.ask(), latents)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_populations_of_ars_are_shown_in_rounds_of_the_batch(batch_size: int) -> None:
    agent = make("ARS", batch_size=batch_size)
    sizes = [len(round_(agent)) for _ in range(4)]
    assert sizes == {1: [1, 1, 1, 1], 3: [2, 2, 2, 2]}[batch_size]  # pairs


def test_the_basic_random_search_of_the_paper() -> None:
    """Mania et al. 2018, algorithm 1 with b = N: a step along the directions, weighted by their differences, over the s.d."""
    agent = make("ARS", d=5, batch_size=8, learning_rate=0.3)
    latents = agent.ask()
    rates = linear(latents)
    tell(agent, latents, rates)
    plus, minus = latents[:4], latents[4:]
    assert np.allclose(plus, -minus, atol=1e-6)
    r = (rates - rates.mean()) / rates.std()
    step = 0.3 / (4 * r.std(ddof=1)) * (r[:4] - r[4:]) @ plus
    assert np.allclose(agent.recommend(1)[0], step, atol=1e-4)


@pytest.mark.parametrize(
    "params",
    [{"algorithm": "PPO", "learning_rate": lr, "n_epochs": 10, "target_kl": None} for lr in (1e-2, 3e-2)]
    + [{"algorithm": name} for name in ("A2C", "TRPO", "SAC", "TD3", "PPO")],
)
def test_many_dimensions_end_in_numbers(params: dict[str, Any]) -> None:
    spec = LoopSpec(latent_dim=4096, bound=5.0, budget=400)
    cheap = {"gradient_steps": 1, "minibatch": 32} if params["algorithm"] in ("SAC", "TD3") else {}
    agent = SB3(spec, batch_size=20, **(cheap | params))
    start = linear(agent.recommend(1))[0]
    for _ in range(20):
        round_(agent)
    assert np.isfinite(agent.recommend(1)).all()
    if "n_epochs" in params:
        assert linear(agent.recommend(1))[0] > start + 5  # and it has learned


def test_without_the_guard_those_settings_end_in_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    from neurogym_v import lockstep

    monkeypatch.setattr(lockstep, "_skip_what_is_not_finite", lambda *_: None)
    spec = LoopSpec(latent_dim=4096, bound=5.0, budget=400)
    agent = SB3(spec, batch_size=20, learning_rate=3e-2, n_epochs=10, target_kl=None)
    with pytest.raises(NeuroGymError, match="SB3: expected parameters that PPO takes, got: ") as error:
        for _ in range(5):
            round_(agent)
    assert "\n" not in str(error.value)
    with pytest.raises(NeuroGymError, match="ended in an error"):
        agent.ask()


def test_it_goes_on_beyond_the_budget() -> None:
    agent = make("A2C", budget=20, batch_size=10)
    assert [round_(agent).shape for _ in range(5)] == [(10, 8)] * 5


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"algorithm": "PPPO"}, "unknown algorithm of SB3 'PPPO': did you mean 'PPO'"),
        ({"algorithm": "DQN"}, "unknown algorithm of SB3 'DQN'"),
        ({"learning_rte": 0.1}, "unknown parameter of PPO 'learning_rte': did you mean 'learning_rate'"),
        ({"minibach": 8}, "did you mean 'minibatch'.*known: policy, learning_rate, n_steps"),
        (
            {"clip_range": lambda _: "wide", "policy": "Bespoke"},
            "SB3: expected parameters that PPO takes, got: ValueError: Policy",
        ),
        ({"device": "abacus"}, "SB3: expected parameters that PPO takes, got: "),
        ({"sigma0": 0.0}, "expected sigma0 to be a number from 1e-06 to 1e[+]06, got 0.0"),
        ({"sigma0": math.nan}, "sigma0 .* got nan"),
        ({"sigma0": 1e7}, "sigma0 .* got 1"),
        ({"algorithm": "SAC", "reach": 1e7}, "expected reach to be None or a number"),
        ({"algorithm": "TD3", "exploration": math.inf}, "exploration .* got inf"),
        ({"algorithm": "TD3", "exploration": -0.5}, "exploration .* got -0.5"),
        ({"exploration": 0.1}, "SB3: expected no exploration for PPO, which has none, got 0.1"),
        ({"algorithm": "ARS", "reach": 3.0}, "SB3: expected no reach for ARS"),
        ({"algorithm": "A2C", "minibatch": 8}, "SB3: expected no minibatch for A2C"),
        ({"minibatch": 0}, "minibatch to be None or a whole number from 1 to 1e[+]06, got 0"),
        ({"algorithm": "SAC", "minibatch": 10**21}, "minibatch .* got 1000"),
        ({"gamma": np.eye(2)}, "gamma"),  # of two lines
        *[
            ({"n_steps": value}, "expected n_steps to be a whole number from 1")
            for value in ("abc", None, (1, 2), math.inf, 0, True)
        ],
        *[({"n_epochs": value}, "expected n_epochs to be a whole number from 1") for value in (0, -1, 1.5, "abc")],
        *[({"learning_rate": value}, "expected learning_rate to be ") for value in (1e6, 1e39, math.inf, "abc", -1)],
        *[({"target_kl": value}, "expected target_kl to be None or a number") for value in ("abc", math.nan)],
        *[({"clip_range": value}, "expected clip_range to be ") for value in (1e39, "wide", 0)],
        ({"ent_coef": None}, "expected ent_coef to be a number"),
        ({"gamma": "abc"}, "expected gamma to be a number from 0 to 1, got 'abc'"),
        ({"policy_kwargs": 3}, "expected policy_kwargs to be None or a dict, got 3"),
        ({"policy_kwargs": {"a": 1}}, "unexpected keyword argument 'a'"),
        ({"normalize_advantage": "abc"}, "expected normalize_advantage to be a bool, got 'abc'"),
        *[({"algorithm": "ARS", "delta_std": value}, "expected delta_std") for value in (0, "abc", math.inf)],
        ({"algorithm": "ARS", "n_top": 0}, "expected n_top to be None or a whole number from 1"),
        *[({"algorithm": "SAC", "gradient_steps": value}, "expected gradient_steps") for value in (1.5, 0, -2, "abc")],
        ({"algorithm": "SAC", "train_freq": (0, "step")}, "expected train_freq to be a whole number from 1"),
        *[({"algorithm": "SAC", "ent_coef": value}, "ent_coef") for value in ("inf", "auto_inf", "auto_x", None)],
        ({"algorithm": "SAC", "tau": "abc"}, "expected tau to be a number from 0 to 1"),
        ({"algorithm": "TRPO", "sub_sampling_factor": 21}, "sub_sampling_factor to be a whole number from 1 to 20"),
    ],
)
def test_what_is_wrong_is_named_in_a_line(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NeuroGymError, match=sentence) as error:
        SB3(LoopSpec(latent_dim=4, bound=3.0, budget=40), **params)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "SAC", "ent_coef": "auto_0.1", "target_entropy": "auto", "gradient_steps": -1, "exploration": 0.2},
        {"algorithm": "SAC", "ent_coef": "auto", "target_entropy": -2.0, "train_freq": 2, "reach": 2, "minibatch": 8},
        {"algorithm": "PPO", "learning_rate": lambda left: 0.01 * left, "target_kl": None, "gamma": np.float32(0.5)},
        {"algorithm": "ARS", "delta_std": lambda _: 0.5, "n_top": 2, "alive_bonus_offset": -1},
        {"algorithm": "TRPO", "sub_sampling_factor": 5, "n_steps": 2},
    ],
)
def test_what_the_library_takes_is_taken(params: dict[str, Any]) -> None:
    agent = SB3(LoopSpec(latent_dim=4, bound=3.0, budget=40), batch_size=8, **params)
    before = agent.recommend(1)
    for _ in range(3):
        round_(agent)
    assert not np.array_equal(agent.recommend(1), before)


def test_what_the_library_raises_later_is_a_line_too() -> None:
    agent = make("PPO", learning_rate=lambda left: 0.03 if left == 1 else "fast")
    latents = agent.ask()
    with pytest.raises(NeuroGymError, match="SB3: expected parameters that PPO takes, got: ValueError: could not convert"):
        for _ in range(3):
            tell(agent, latents, linear(latents))
            latents = agent.ask()


def test_actions_that_overflow_are_a_line_too() -> None:
    agent = make("TD3")
    latents = agent.ask()
    with torch.no_grad():
        next(agent._learner.model.policy.get_submodule("actor").parameters()).fill_(np.nan)
    with pytest.raises(NeuroGymError, match="got: FloatingPointError: actions that are not finite"):
        tell(agent, latents, linear(latents))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NeuroGymError, match="SB3: expected a device that is there, such as cpu or auto, got 'cuda'"):
        make("PPO", device="cuda")
    assert make("PPO", device="auto")._learner.model.device.type == "cpu"


def elsewhere(do: Callable[[], Any]) -> Any:
    """What comes of it in another thread, which then ends."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(do())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return came[0]


@pytest.mark.parametrize("name", ["PPO", "ARS", "SAC"])
def test_an_agent_is_made_in_one_thread_and_used_in_another(name: str) -> None:
    def session(agent: SB3) -> list[Latents]:
        return [round_(agent) for _ in range(3)] + [agent.recommend(1)]

    here, there = make(name, seed=2), make(name, seed=2)
    assert here.diagnostics() == {}
    for mine, others in zip(session(here), elsewhere(lambda: session(there)), strict=True):
        assert np.array_equal(mine, others)


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_an_agent_whose_thread_has_ended_waits_nowhere_and_is_collected(name: str) -> None:
    agent = make(name)
    elsewhere(partial(round_, agent))
    assert agent._learner._running.dead  # type: ignore[union-attr]
    assert agent.recommend(1).shape == (1, 8)
    model = weakref.ref(agent._learner.model)
    del agent
    gc.collect()
    assert model() is None


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_a_session_that_changes_its_thread_is_refused_in_a_line(name: str) -> None:
    begun_here, begun_there = make(name), make(name)
    latents = begun_here.ask()
    for refused in (
        elsewhere(lambda: tell(begun_here, latents, linear(latents))),
        [elsewhere(lambda: round_(begun_there)), elsewhere(begun_there.ask)][1],  # the first thread has ended by then
    ):
        assert isinstance(refused, NeuroGymError)
        assert str(refused) == "SB3: expected the thread that asked first for all rounds of a session, got another one"


def test_a_preset_is_an_algorithm() -> None:
    assert SB3.preset("CrossQ") == {"algorithm": "CrossQ", "stock": False}
    assert SB3.preset("PPO-stock") == {"algorithm": "PPO", "stock": True}
    with pytest.raises(NeuroGymError, match="did you mean 'SAC'"):
        SB3.preset("sac")


def test_the_parameters_of_an_algorithm_are_passed_on() -> None:
    assert make("PPO", learning_rate=0.5, n_epochs=3)._learner.model.learning_rate == 0.5
    assert make("SAC", gradient_steps=3)._learner.model.gradient_steps == 3  # type: ignore[attr-defined]


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(NeuroGymError, match=r"agent sb3: expected the package stable_baselines3.*neurogym-v\[agents\]"):
        SB3(LoopSpec(latent_dim=4, bound=3.0, budget=40))
