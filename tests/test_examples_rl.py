"""Users train stable-baselines3 on the environment themselves: the adapter, and the script that shows how."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO, SAC

import neurogym_v  # noqa: F401
from neurogym_v.sb3 import SB3VecEnv
from neurogym_v.types import NeuroGymError

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPT = EXAMPLES / "sb3_script.py"


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ("hill_climber", "HillClimber keeps the contract"),
        ("blobs", "Blobs keeps the contract"),
        ("colour_cell", "black and red, spikes/s: [[2.0, 2.0], [60.0, 60.0]]"),
    ],
)
def test_an_agent_a_generator_and_a_neuron_of_ones_own_are_as_shown(example: str, says: str, capsys) -> None:
    runpy.run_path(str(EXAMPLES / f"{example}.py"), run_name="__main__")
    assert says in capsys.readouterr().out


def sessions(generator: Any, n: int = 6, **kwargs: Any) -> Any:
    return gym.make_vec("neurogym_v/Gabor-v0", num_envs=n, **({"batch_size": 1, "budget": 4, "generator": generator} | kwargs))


def play(env: SB3VecEnv, steps: int) -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [env.step(rng.standard_normal((env.num_envs, *env.action_space.shape))) for _ in range(steps)]


def test_the_script_trains_and_validates() -> None:
    command = "--neuron gabor --generator fourier --site 3 --presentations 400 --sessions 20 --repeats 20"
    run = subprocess.run([sys.executable, SCRIPT, *command.split()], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    means = [float(rate) for rate in re.findall(r"(?:found|random): +([\d.]+) ±", run.stdout)]
    assert len(means) == 2
    assert means[0] > means[1]


def test_an_impossible_size_is_a_line_of_the_parser() -> None:
    run = subprocess.run([sys.executable, SCRIPT, "--sessions", "1"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "expected at least 2 sessions" in run.stderr
    assert "Traceback" not in run.stderr


def test_it_shows_the_actions_and_gives_the_rates_of_the_sessions(cosines) -> None:
    env, vector = SB3VecEnv(sessions(cosines), seed=3), sessions(cosines)
    vector.reset(seed=3)
    assert np.array_equal(env.reset(), np.tile([0, 0, 1], (6, 1)))
    actions = np.random.default_rng(1).standard_normal((6, *env.action_space.shape)).astype(np.float32)
    observation, rewards, done, _ = env.step(actions)
    _, wanted, _, _, _ = vector.step(actions[:, None])
    assert np.array_equal(rewards, wanted.astype(np.float32))
    assert np.allclose(observation, np.stack([wanted, np.ones(6), np.full(6, 0.75)], axis=1))
    assert not done.any()


def test_ended_sessions_are_followed_by_new_ones_at_once(cosines) -> None:
    env = SB3VecEnv(sessions(cosines), seed=0)
    env.reset()
    steps = play(env, 9)
    assert [bool(done.all()) for _, _, done, _ in steps] == [False, False, False, True] * 2 + [False]
    observation, _, _, infos = steps[3]
    assert np.array_equal(observation, np.tile([0, 0, 1], (6, 1)))
    assert infos[0]["terminal_observation"][2] == 0
    assert infos[0]["TimeLimit.truncated"]
    assert all(np.isfinite(info["rate"]) for info in steps[4][3])  # the first action of the new ones was shown


def test_lost_trials_get_the_mean_of_the_others(cosines) -> None:
    env = SB3VecEnv(sessions(cosines, n=40, noise="poisson+lost:0.5", budget=9), seed=0)
    env.reset()
    for _, rewards, _, infos in play(env, 3):
        rates = np.array([info["rate"] for info in infos])
        lost = np.isnan(rates)
        assert 0 < lost.sum() < 40
        assert np.array_equal(rewards[~lost], rates[~lost].astype(np.float32))
        assert np.allclose(rewards[lost], rates[~lost].mean())


def test_with_every_trial_lost_rewards_are_numbers(cosines) -> None:
    env = SB3VecEnv(sessions(cosines, noise="lost:0.999"), seed=0)
    env.reset()
    assert all(np.isfinite(rewards).all() and np.isfinite(observation).all() for observation, rewards, _, _ in play(env, 6))


def test_a_session_that_ends_alone_goes_on_as_another(cosines) -> None:
    env = SB3VecEnv(sessions(cosines, noise="poisson+dying:mean_h=0.002,notice=2", budget=60), seed=0)
    env.reset()
    steps = play(env, 40)
    alone = [(t, i) for t, (_, _, done, _) in enumerate(steps[:-1]) for i in np.flatnonzero(done) if not done.all()]
    assert alone
    t, i = alone[0]
    assert not steps[t][3][i]["TimeLimit.truncated"]
    assert np.isnan(steps[t + 1][3][i]["rate"])  # its action was not shown
    assert np.array_equal(steps[t + 1][0][i], [0, 0, 1])


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_algorithms_train_on_it(cosines, algorithm) -> None:
    env = SB3VecEnv(sessions(cosines, noise="poisson+lost:0.2"), seed=0)
    settings: dict[str, Any] = {"n_steps": 2, "batch_size": 12} if algorithm is PPO else {"learning_starts": 6}
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **settings).learn(36)
    assert np.isfinite(model.predict(env.reset(), deterministic=True)[0]).all()


def test_sessions_with_rounds_of_several_images_are_refused(cosines) -> None:
    with pytest.raises(NeuroGymError, match=r"expected sessions with batch_size=1, got actions of \(5, 36\)"):
        SB3VecEnv(sessions(cosines, batch_size=5, budget=50))
