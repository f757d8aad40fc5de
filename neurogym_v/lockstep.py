"""Loops of reinforcement learning turned inside out: the `learn()` of stable-baselines3 is asked and told.

`learn()` runs in a greenlet, on one-step environments side by side: it is left where they want rewards for their actions,
and entered again with them. It draws from global generators of random numbers; it has its own, which are there only while
it runs. Raffin et al. 2021, JMLR 22(268).
"""

from __future__ import annotations

import random
import threading
import warnings
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import greenlet  # type: ignore[import-untyped]
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import TRPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv

from neurogym_v.types import NeuroGymError

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a round."""

    rewards: NDArray[np.float64]
    """(n,) of the first n of its actions; NaN where there is none."""
    observation: Vectors
    """(o,) before the next round; all environments see the same."""


class Learner:
    """An algorithm whose `learn()` waits for the outcome of its `actions`.

    It belongs to the thread of the first `ask`: a greenlet that has begun cannot change it. What is global in python, numpy
    and torch (generators of random numbers, whether gradients are recorded) is the same after each call as before it.

    Args:
        algorithm: class of stable-baselines3 or sb3-contrib.
        params: its keywords.
        environments: actions a round; populations of ARS are shown in rounds of at most so many.
        action_dim: numbers an action, each within [-reach, reach].
        observation: (o,) before the first round.
        total: actions in all, with which schedules are planned; it goes on beyond them.
        centred: whether a policy that is squashed into its box starts in the middle, with s.d. 1, instead of anywhere.

    Raises:
        NeuroGymError: a device that is not there; used in another thread, or after it has ended in an error.
    """

    def __init__(
        self,
        algorithm: type[BaseAlgorithm],
        params: Mapping[str, Any],
        *,
        environments: int,
        action_dim: int,
        reach: float,
        observation: Vectors,
        total: int,
        seed: int,
        centred: bool = False,
    ) -> None:
        _check_device(params.get("device", "auto"))
        rounds = Rounds(environments, observation, Normal(-reach, reach, (action_dim,), np.float32))
        self._apart = Apart()
        with self._apart, warnings.catch_warnings(action="ignore"):
            self.model = algorithm(env=rounds, seed=seed, verbose=0, **params)
            self.model.set_logger(Logger(None, []))
            if centred:
                _centre(self.model.policy.get_submodule("actor"), reach)
            for optimizer in _optimizers(self.model):
                optimizer.register_step_pre_hook(_skip_what_is_not_finite)
        self._total = total
        self._running: greenlet.greenlet | None = None
        self.actions: Vectors = np.empty((0, action_dim), np.float32)
        """(n, action_dim) that wait for their outcome; none before the first `ask`."""

    def ask(self) -> Vectors:
        """The `actions`."""
        if self._running is None:
            self._thread = threading.current_thread()
            self._running = greenlet.greenlet(_learn)
            weakref.finalize(self, _abandon, self._running)
            _wait_in_this_thread(self._running)
            self._enter(self._running, self.model, self._total)
        self._check(self._running)
        return self.actions

    def tell(self, outcome: Outcome) -> None:
        """Learn from the outcome of `actions`, up to the next ones."""
        self._enter(self._check(self._running), outcome)

    def best(self) -> Vectors:
        """(action_dim,): the policy's deterministic action at the current observation."""
        env: Any = self.model.get_env()  # it was made with one
        with self._apart:
            action, _ = self.model.predict(env.reset()[:1], deterministic=True)
        return np.asarray(action[0], dtype=np.float32)

    def _check(self, running: greenlet.greenlet | None) -> greenlet.greenlet:
        if running is None:
            raise NeuroGymError("SB3: expected ask() before tell(), got none")
        if self._thread is not threading.current_thread():
            raise NeuroGymError("SB3: expected the thread that asked first for all rounds of a session, got another one")
        if running.dead:
            raise NeuroGymError("SB3: expected an agent that learns, got one whose learning has ended in an error")
        return running

    def _enter(self, running: greenlet.greenlet, *message: Any) -> None:
        running.parent = greenlet.getcurrent()
        with self._apart:
            self.actions = np.array(running.switch(*message), dtype=np.float32)


class Normal(spaces.Box):
    """A box whose samples, the first round of algorithms with a replay buffer, are standard normal instead of uniform."""

    def sample(self, *_: Any, **__: Any) -> Vectors:
        return np.clip(self.np_random.standard_normal(self.shape, dtype=np.float32), self.low, self.high)


class Later(NormalActionNoise):
    """Exploration on top of a policy's actions, from the second round on: those of the first are no policy's."""

    def __init__(self, sd: float, action_dim: int) -> None:
        super().__init__(np.zeros(action_dim), np.full(action_dim, sd))
        self._first = True

    def __call__(self) -> Vectors:
        if self._first:
            self._first = False
            return np.zeros_like(self._mu, dtype=np.float32)
        return np.asarray(super().__call__(), dtype=np.float32)


class Rounds(VecEnv):
    """One-step environments: `step` leaves the greenlet with their actions and comes back with the outcome."""

    def __init__(self, environments: int, observation: Vectors, action_space: spaces.Box) -> None:
        observation_space = spaces.Box(-np.inf, np.inf, observation.shape, np.float32)
        super().__init__(environments, observation_space, action_space)
        self._observation = observation

    def show(self, actions: Vectors) -> Outcome:
        """(n, action_dim) actions, which need not be one an environment; a whole round without rewards is never told."""
        if not np.isfinite(actions).all():
            raise FloatingPointError("actions that are not finite")
        outcome: Outcome = greenlet.getcurrent().parent.switch(actions)
        self._observation = outcome.observation
        missing = len(actions) - len(outcome.rewards)  # the budget ended within the round
        return Outcome(np.concatenate([outcome.rewards, np.full(missing, np.nan)]), outcome.observation)

    def reset(self) -> Vectors:
        return np.tile(self._observation, (self.num_envs, 1))

    def step_async(self, actions: Vectors) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Vectors, Vectors, NDArray[np.bool_], list[dict[str, Any]]]:
        """A lost image gets the mean of its round: with a common baseline that is the advantage that teaches nothing."""
        rewards: NDArray[Any] = self.show(self._actions).rewards
        lost = np.isnan(rewards)
        rewards = np.where(lost, rewards[~lost].mean(), rewards).astype(np.float32)
        return self.reset(), rewards, np.ones(self.num_envs, np.bool_), [{"lost": bool(one)} for one in lost]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ARG002
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False] * self.num_envs


class Heard(ReplayBuffer):
    """A replay buffer that leaves out what got no reward."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"n_envs": 1}))  # so that rounds of different lengths fit

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        for i, info in enumerate(infos):
            if not info["lost"]:
                one = slice(i, i + 1)
                super().add(obs[one], next_obs[one], action[one], reward[one], done[one], infos[one])


class Candidates:
    """The policies of a population of ARS, shown together instead of one after the other.

    It stands where sb3-contrib has an `AsyncEval` with processes of its own.
    """

    remotes = (None,)
    """Workers: candidates are counted one by one."""

    def __init__(self, model: BaseAlgorithm, rounds: Rounds) -> None:
        self._policy, self._rounds = model.policy, rounds

    def send_jobs(self, candidate_weights: torch.Tensor, pop_size: int) -> None:  # noqa: ARG002
        current = torch.nn.utils.parameters_to_vector(self._policy.parameters()).detach().cpu().numpy()
        actions = []
        for weights in candidate_weights.cpu():
            self._policy.load_from_vector(weights.numpy())
            actions.append(self._policy.predict(self._rounds.reset()[:1])[0])
        self._policy.load_from_vector(current)
        self._actions = np.concatenate(actions)

    def get_results(self) -> list[tuple[int, tuple[NDArray[np.float64], NDArray[np.intp]]]]:
        """A pair of candidates of which one was lost gets the mean: its direction is not followed."""
        n = self._rounds.num_envs
        parts = [self._actions[i : i + n] for i in range(0, len(self._actions), n)]
        pairs = np.concatenate([self._rounds.show(part).rewards for part in parts]).reshape(2, -1)
        heard = np.isfinite(pairs).all(axis=0)
        rewards = np.where(heard, pairs, np.nanmean(pairs)).ravel()
        return [(i, (rewards[i : i + 1], np.ones(1, np.intp))) for i in range(len(rewards))]

    def get_obs_rms(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class SteadyTRPO(TRPO):
    """Without a difference between the rewards there is no direction to search, and the library divides by its length."""

    def train(self) -> None:
        with suppress(ZeroDivisionError):
            super().train()


class Apart:
    """What is global in python, numpy and torch: inside the context that of an algorithm, outside as it was."""

    def __init__(self) -> None:
        self._inside = (*_global()[:-1], True)

    def __enter__(self) -> None:
        self._outside = _global()
        _make_global(self._inside)

    def __exit__(self, *error: object) -> None:
        self._inside = _global()
        _make_global(self._outside)


def _global() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda, torch.is_grad_enabled()  # noqa: NPY002


def _make_global(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda, gradients = state
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    torch.set_grad_enabled(gradients)


def _learn(model: BaseAlgorithm, total: int) -> None:
    """The body of the greenlet. Nothing here may lead to the `Learner`: frames that wait are not searched for cycles."""
    env = model.get_env()
    more = {"async_eval": Candidates(model, env)} if hasattr(model, "evaluate_candidates") else {}  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        model.learn(total, log_interval=None, **more)  # type: ignore[arg-type]
        while True:
            model.learn(1, log_interval=None, reset_num_timesteps=False, **more)  # type: ignore[arg-type]


def _abandon(running: greenlet.greenlet) -> None:
    """Let `learn()` end where it waits; its context managers would leave their setting of gradients behind."""
    gradients = torch.is_grad_enabled()
    with suppress(greenlet.error, ValueError):  # the thread it belongs to is another one
        if not running.dead:
            running.parent = greenlet.getcurrent()
            running.throw()
    torch.set_grad_enabled(gradients)


class Waiting:
    """The greenlets of a thread, which end with it: from frames that wait in a thread that is gone, the collector crashes."""

    def __init__(self) -> None:
        self.greenlets: weakref.WeakSet[greenlet.greenlet] = weakref.WeakSet()

    def __del__(self) -> None:
        for running in list(self.greenlets):
            _abandon(running)


_here = threading.local()


def _wait_in_this_thread(running: greenlet.greenlet) -> None:
    if not hasattr(_here, "waiting"):
        _here.waiting = Waiting()
    _here.waiting.greenlets.add(running)


def _check_device(name: str) -> None:
    """The library takes the CPU instead of a GPU that is not there, and says nothing."""
    if name != "auto" and torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise NeuroGymError(f"SB3: expected a device that is there, such as cpu or auto, got {str(name)!r}")


def _centre(actor: torch.nn.Module, reach: float) -> None:
    """Layers start at random: with few inputs, far from the middle of the box. tanh has a slope of 1 there."""
    for name, value in (("mu", 0.0), ("log_std", -np.log(reach))):
        layer = getattr(actor, name, None)
        layer = layer[-2] if isinstance(layer, torch.nn.Sequential) else layer  # the tanh is the last
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.constant_(layer.bias, value)


def _optimizers(model: BaseAlgorithm) -> list[torch.optim.Optimizer]:
    places = [model, model.policy, *model.policy.children()]
    return [value for place in places for value in vars(place).values() if isinstance(value, torch.optim.Optimizer)]


def _skip_what_is_not_finite(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """A step along gradients that overflowed would end in NaN for good; without gradients there is no step."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        optimizer.zero_grad(set_to_none=True)
