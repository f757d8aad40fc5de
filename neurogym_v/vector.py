"""NeuronVectorEnv: N independent sessions in lockstep, through one call of the generator and one of the network."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from neurogym_v import together
from neurogym_v.env import NeuronEnv, Observation
from neurogym_v.noise import simulate
from neurogym_v.normaliser import load_normaliser
from neurogym_v.registry import load_generator
from neurogym_v.session import Showing, of_latents
from neurogym_v.types import Latents, NeuroGymError, Rates


class NeuronVectorEnv(gym.vector.VectorEnv[Observation, Latents, NDArray[Any]]):
    """N sessions of `NeuronEnv` side by side: same spaces with a leading N, same seeds, same rates.

    Each session has its own budget, randomness and noise; the networks run once for all of them. With `batch_size=1`
    this is the view of reinforcement learning: N images, a reward each.

    Autoreset mode is NEXT_STEP: after a session has ended, the next step ignores its action, resets it, and returns its
    first observation with reward 0. `info` holds, beside the counters (N,), `rates` and `site_rates` (N, batch) and
    `latents` (N, batch, d), NaN where nothing was shown.

    Args:
        num_envs: sessions.
        sites: one site for all of them or N, overriding `site`.
        kwargs: those of `NeuronEnv`, which have to describe a simulated neuron.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, *, sites: list[int] | None = None, **kwargs: Any) -> None:
        if num_envs < 1:
            raise NeuroGymError(f"num_envs: expected at least 1, got {num_envs}")
        sites = [int(kwargs.pop("site", 0))] * num_envs if sites is None else list(sites)
        if len(sites) != num_envs:
            raise NeuroGymError(f"sites: expected {num_envs}, one a session, got {len(sites)}")
        if isinstance(kwargs.get("generator", "natural64"), str):
            kwargs["generator"] = load_generator(kwargs.get("generator", "natural64"), device=kwargs.get("device", "auto"))
        if isinstance(kwargs.get("neuron", "v4"), str):
            conditions = {key: kwargs[key] for key in ("noise", "image_deg", "position_deg", "device") if key in kwargs}
            kwargs["neuron"] = simulate(kwargs.get("neuron", "v4"), **conditions)
        kwargs["normaliser"] = load_normaliser(kwargs.get("normaliser", 0), kwargs["generator"].image_size) or 0
        name = kwargs.pop("session", "session")
        self.envs = [NeuronEnv(site=site, session=f"{name}-{i}", **kwargs) for i, site in enumerate(sites)]
        first = self.envs[0]
        if len({id(together.simulated(env.neuron).source) for env in self.envs}) > 1:
            raise NeuroGymError("lockstep: expected sessions that share one simulated neuron, got several")
        self.num_envs, self.render_mode = num_envs, first.render_mode
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """`seed` s gives session i the seed s + i; a list gives each its own."""
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)] if not isinstance(seed, list) else seed
        if len(seeds) != self.num_envs:
            raise NeuroGymError(f"seed: expected {self.num_envs}, one a session, got {len(seeds)}")
        self._ended[:] = False
        results = [env.reset(seed=s, options=options) for env, s in zip(self.envs, seeds, strict=True)]
        return _stack([r[0] for r in results]), _merge([r[1] for r in results])

    def step(self, actions: Latents) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        expected = self.action_space.shape
        if np.shape(actions) != expected:
            raise NeuroGymError(f"latents: expected {expected}, one batch a session, got {np.shape(actions)}")
        running = [i for i in range(self.num_envs) if not self._ended[i]]
        shown = dict(zip(running, self._show(running, actions), strict=True))
        results = []
        for i, env in enumerate(self.envs):
            if i in shown:
                results.append(env.outcome(*shown[i]))
            else:
                observation, info = env.reset()
                results.append((observation, 0.0, False, False, info))
        terminated, truncated = np.array([r[2] for r in results]), np.array([r[3] for r in results])
        self._ended = terminated | truncated
        return (
            _stack([r[0] for r in results]),
            np.array([r[1] for r in results]),
            terminated,
            truncated,
            _merge([self._padded(r[4]) for r in results]),
        )

    def render(self) -> tuple[NDArray[np.uint8] | None, ...]:  # type: ignore[override]
        """The last round of each session."""
        return tuple(env.render() for env in self.envs)

    def _show(self, running: list[int], actions: Latents) -> list[tuple[Latents, Rates]]:
        """The round of the sessions that run: (latents as shown, rates), all sessions block by block."""
        latents = {i: self.envs[i].affordable(actions[i]) for i in running}
        sessions = {i: self.envs[i].live for i in running}
        going = {i: sessions[i].blocks(of_latents(rows, "search")) for i, rows in latents.items()}
        answers: dict[int, Rates | None] = dict.fromkeys(running)
        rates: dict[int, Rates] = {}
        while going:
            asked: dict[int, Showing] = {}
            for i, blocks in list(going.items()):
                try:
                    asked[i] = blocks.send(answers[i])  # type: ignore[arg-type]  # None starts it
                except StopIteration as shown:
                    rates[i] = shown.value
                    del going[i]
            answers |= together.answers(sessions, asked)
        return [(latents[i], rates[i]) for i in running]

    def _padded(self, info: dict[str, Any]) -> dict[str, Any]:
        """Rates and latents as long as a batch, so that those of all sessions stack."""
        batch, d = self.single_action_space.shape or (0, 0)
        for key, shape in (("rates", (batch,)), ("site_rates", (batch,)), ("latents", (batch, d))):
            rows = info.get(key, np.empty((0, *shape[1:])))
            info[key] = np.concatenate([rows, np.full((batch - len(rows), *shape[1:]), np.nan)]).astype(np.asarray(rows).dtype)
        return info


def _stack(observations: list[Observation]) -> Observation:
    return {key: np.stack([o[key] for o in observations]) for key in observations[0]}


def _merge(infos: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: np.array([info[key] for info in infos]) for key in infos[0]}
