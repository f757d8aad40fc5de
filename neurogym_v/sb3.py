"""NeuronVectorEnv as stable-baselines3 wants its environments: for those who train its algorithms themselves."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from neurogym_v.types import NeuroGymError

Array = NDArray[Any]


class SB3VecEnv(VecEnv):
    """Sessions in lockstep with `batch_size=1`: an image each, a reward each, an episode a session.

        sessions = gymnasium.make_vec("neurogym_v/V4-v0", num_envs=40, batch_size=1, budget=50)
        PPO("MlpPolicy", SB3VecEnv(sessions), n_steps=1, batch_size=40).learn(40 * 50)

    Observation: (3,) rate of the session's last image, whether there was one, part of the budget that is left. A lost trial,
    whose reward is NaN in the environment, gets the mean reward of the other sessions' images, which is no better and no
    worse than the rest; `info["rate"]` has the NaN. When all sessions have ended, new ones begin at once. Where one ends
    alone, because its site was lost, its next action is not shown: a lost trial too.

    Args:
        sessions: made by `gymnasium.make_vec`, or a `NeuronVectorEnv`.
        seed: of the first sessions; those after them go on from there.

    Raises:
        NeuroGymError: sessions with rounds of more than one image.
    """

    def __init__(self, sessions: gym.vector.VectorEnv[Any, Any, Any], *, seed: int | None = None) -> None:
        single = sessions.single_action_space
        if not isinstance(single, spaces.Box) or len(single.shape) != 2 or single.shape[0] != 1:
            raise NeuroGymError(f"SB3VecEnv: expected sessions with batch_size=1, got actions of {single.shape}")
        self.sessions = sessions
        seen = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        super().__init__(sessions.num_envs, seen, spaces.Box(single.low[0], single.high[0], dtype=np.float32))
        self._first_seed = seed
        self._resetting = np.zeros(self.num_envs, dtype=bool)
        self._mean = 0.0  # reward of the last step of which anything was heard

    def reset(self) -> Array:
        observation, _ = self.sessions.reset(seed=self._first_seed)
        self._first_seed = None
        self._resetting[:] = False
        return _flat(observation)

    def step_async(self, actions: Array) -> None:
        self._actions = np.asarray(actions, dtype=np.float32)[:, None]

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        seen, rates, terminated, truncated, _ = self.sessions.step(self._actions)
        observation, rates = _flat(seen), np.where(self._resetting, np.nan, rates)
        heard = np.isfinite(rates)
        self._mean = float(rates[heard].mean()) if heard.any() else self._mean
        done = np.asarray(terminated | truncated)
        infos: list[dict[str, Any]] = [{"rate": float(rate)} for rate in rates]
        for i in np.flatnonzero(done):
            infos[i] |= {"terminal_observation": observation[i].copy(), "TimeLimit.truncated": bool(not terminated[i])}
        self._resetting = done.copy()
        if done.all():
            observation = self.reset()
        return observation, np.where(heard, rates, self._mean).astype(np.float32), done, infos

    def close(self) -> None:
        self.sessions.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.sessions, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ARG002
        raise NeuroGymError(f"SB3VecEnv: expected {attr_name} to be set where the sessions are made, not afterwards")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:  # noqa: ARG002
        raise NeuroGymError(f"SB3VecEnv: expected {method_name} to be called on the sessions themselves")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False] * len(list(self._get_indices(indices)))


def _flat(observation: dict[str, Array]) -> Array:
    return np.concatenate([observation[key] for key in ("rates", "valid", "budget_left")], axis=1, dtype=np.float32)
