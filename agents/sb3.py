"""Reinforcement learning as an agent: the algorithms of stable-baselines3 and sb3-contrib that have continuous actions.

Raffin et al. 2021, JMLR 22(268). That one-step problems of this kind are bandits: Sutton & Barto 2018, ch. 2.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means
from neurogym_v.importing import require
from neurogym_v.naming import nearest
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates

PACKAGES = {
    "PPO": "stable_baselines3",
    "A2C": "stable_baselines3",
    "SAC": "stable_baselines3",
    "TD3": "stable_baselines3",
    "DDPG": "stable_baselines3",
    "TQC": "sb3_contrib",
    "TRPO": "sb3_contrib",
    "ARS": "sb3_contrib",
    "CrossQ": "sb3_contrib",
}
ON_POLICY = ("PPO", "A2C", "TRPO")
UNSQUASHED = (*ON_POLICY, "ARS")
SEEING = ("PPO", "TRPO")
LINEAR: dict[str, Any] = {"net_arch": []}
CRITIC = {"net_arch": {"pi": [], "qf": [64]}}
"""A linear policy has the mean itself for its weights; the critic is the model of the neuron."""
MAXIMUM_ENTROPY = {"policy_kwargs": CRITIC, "learning_rate": 1e-2, "gradient_steps": 10, "ent_coef": 0.002}
DETERMINISTIC = {"policy_kwargs": CRITIC, "learning_rate": 1e-2, "gradient_steps": 10, "exploration": 1.0}
TUNED: dict[str, dict[str, Any]] = {
    "PPO": {"policy_kwargs": LINEAR, "learning_rate": 0.03, "target_kl": 2.0},
    "A2C": {"policy_kwargs": LINEAR, "learning_rate": 0.03, "normalize_advantage": True},
    "TRPO": {"policy_kwargs": LINEAR, "target_kl": 2.0},
    "ARS": {"learning_rate": 1.0, "delta_std": 1.0},
    "SAC": MAXIMUM_ENTROPY,
    "TQC": MAXIMUM_ENTROPY | {"gradient_steps": 5},
    "CrossQ": MAXIMUM_ENTROPY,
    "TD3": DETERMINISTIC,
    "DDPG": DETERMINISTIC,
}
FEWEST = 16
"""Images from which a policy without replay buffer learns: with small batches, those of several rounds."""
LONGEST_REPLAY = 100_000
STOCK = "-stock"
OURS = {"self", "env", "batch_size", "seed", "verbose", "tensorboard_log", "_init_setup_model", "replay_buffer_class"}
"""What an algorithm is given here, whatever the user wants."""


class SB3(Agent):
    """An algorithm of stable-baselines3 or sb3-contrib, by its name: PPO, A2C, TRPO, ARS, SAC, TQC, CrossQ, TD3 or DDPG.

    Each image is an episode of one step: its latents are the action, its rate the reward. The batch is that many
    environments side by side; the library's own `learn()` runs, and waits where it wants a reward.

    - Reward: the rate less the mean of all rates so far, over their s.d., within 10 of 0.
    - Observation: 1, and for PPO and TRPO, of the rewards of the last round, the mean, the highest and the s.d., the same for
      all images of a round: what was learned is followed further while it pays. The others did better with the 1 alone; the
      weights of a candidate of ARS are then latents.
    - Action: latents over `sigma0`. Where policies are Gaussian (PPO, A2C, TRPO) or candidates are (ARS), the box is the bound;
      those that are squashed into a box get one of `reach`. The first round has a mean of 0 and an s.d. of `sigma0` for all.
    - Lost trials: kept out of the replay buffer; where there is none, such an image gets the mean reward of its round, with
      which its advantage is 0 (with `NAME-stock` of A2C nearly 0: it does not centre advantages); in ARS its pair is followed
      nowhere.
    - What is shown is clipped to the bound; the algorithm is told of the action that it chose.
    - An update whose gradients overflowed is skipped. In PPO with many dimensions the ratio of probabilities does overflow; its
      loss is clipped then, but 0 times infinity, in the gradient, is not a number.
    - All the library draws comes from this agent's seed, and nothing global is left changed.

    `NAME-stock` is the library's own choice of networks and parameters, less what follows from rounds: `n_steps`, minibatches,
    the size of the buffer. Those are chosen for robots and longer training, and are no fair judge of the algorithm here.

    Recurrent policies have nothing to remember in episodes of one step; the others of the packages take no continuous actions.

    Args:
        sigma0: s.d. of the latents of the first round.
        algorithm: see above.
        stock: the library's defaults.
        reach: half the width of the box of SAC, TQC, CrossQ, TD3 and DDPG, in units of sigma0.
        exploration: s.d. that is added to the actions of TD3 and DDPG after the first round, in units of sigma0.
        minibatch: images a gradient step; None is all of a rollout, or the library's choice where there is a replay buffer.
        device: of the networks.
        params: any other keyword of the algorithm, such as `learning_rate`, `n_epochs`, `gradient_steps`, `policy_kwargs`.

    Raises:
        NeuroGymError: no such algorithm or keyword, a value the library refuses, or a package that is not installed.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"algorithm": name} for name in PACKAGES}

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        sigma0: float = 1.0,
        algorithm: str = "PPO",
        stock: bool = False,
        reach: float = 3.0,
        exploration: float | None = None,
        minibatch: int | None = None,
        device: str = "cpu",
        **params: Any,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        if algorithm not in PACKAGES:
            raise nearest("algorithm of SB3", algorithm, PACKAGES)
        if not (0 < sigma0 < np.inf and 0 < reach < np.inf):
            raise NeuroGymError(f"SB3: expected sigma0 and reach above 0, got {sigma0} and {reach}")
        for package in ("greenlet", "stable_baselines3", "sb3_contrib"):
            require(package, user="agent sb3", extra="agents")
        lockstep = require("neurogym_v.lockstep", user="agent sb3", extra="agents")
        library = getattr(require(PACKAGES[algorithm], user="agent sb3", extra="agents"), algorithm)
        self._outcome = lockstep.Outcome

        known = [name for name in inspect.signature(library).parameters if name not in OURS]
        for name in params:
            if name not in known:
                raise nearest(f"parameter of {algorithm}", name, known)
        chosen = copy.deepcopy(({} if stock else TUNED[algorithm]) | params)  # the library writes into policy_kwargs
        tuned_exploration = chosen.pop("exploration", 0.0)
        exploration = tuned_exploration if exploration is None else exploration
        if exploration < 0 or (minibatch is not None and minibatch < 1):
            raise NeuroGymError(
                f"SB3: expected exploration of 0 or more and a minibatch of at least 1, got {exploration}, {minibatch}"
            )

        d = spec.latent_dim
        fixed: dict[str, Any] = {"policy": "MlpPolicy", "device": device}
        if algorithm == "ARS":
            fixed |= {"policy": "LinearPolicy", "n_delta": max(1, batch_size // 2)}
        elif algorithm in ON_POLICY:
            rounds = int(chosen.get("n_steps", -(-FEWEST // batch_size)))
            fixed["n_steps"] = rounds
            if algorithm != "A2C":
                fixed["batch_size"] = minibatch or rounds * batch_size
        else:
            fixed |= {"buffer_size": min(spec.budget, LONGEST_REPLAY), "replay_buffer_class": lockstep.Heard}
            fixed |= {"learning_starts": batch_size} if not stock else {}
            fixed |= {"batch_size": minibatch} if minibatch else {}
            fixed |= {"action_noise": lockstep.Later(exploration / reach, d)} if exploration else {}
        squashed = algorithm not in UNSQUASHED
        self._scale = sigma0 / float(chosen.get("delta_std", 0.05) if algorithm == "ARS" else 1)
        self._sees = algorithm in SEEING
        self._count, self._mean, self._squares = 0, 0.0, 0.0  # of all rates so far
        try:
            self._learner = lockstep.Learner(
                lockstep.SteadyTRPO if algorithm == "TRPO" else library,
                fixed | chosen,
                environments=batch_size,
                action_dim=d,
                reach=reach if squashed else spec.bound / self._scale,
                observation=self._observation(np.zeros(1)),
                total=max(spec.budget, 1),
                seed=int(self.rng.integers(2**31)),
                centred=squashed and not stock,
            )
        except (TypeError, ValueError, AssertionError, KeyError, AttributeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise NeuroGymError(f"SB3: expected parameters that {algorithm} takes, got: {reason}") from error
        self._means = Means(self._scale * self._learner.best())

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """`PPO` is the algorithm as tuned here, `PPO-stock` with the library's defaults."""
        algorithm = name.removesuffix(STOCK)
        if algorithm not in PACKAGES:
            raise nearest("algorithm of sb3", name, [*PACKAGES, *(known + STOCK for known in PACKAGES)])
        return {"algorithm": algorithm, "stock": name.endswith(STOCK)}

    def _ask(self) -> Latents:
        return np.asarray(self._scale * self._learner.actions, dtype=np.float32)

    def _tell(self, latents: Latents, rates: Rates) -> None:  # noqa: ARG002 (the algorithm knows its actions)
        rewards = self._standardised(rates)
        self._learner.tell(self._outcome(rewards, self._observation(rewards[~np.isnan(rewards)])))
        self._means.append(self._scale * self._learner.best())

    def _standardised(self, rates: Rates) -> Rates:
        heard = rates[~np.isnan(rates)]
        before, now = self._count, len(heard)
        self._count += now
        delta = heard.mean() - self._mean
        self._mean += delta * now / self._count
        self._squares += heard.var() * now + delta**2 * before * now / self._count
        sd = np.sqrt(self._squares / self._count)
        return np.asarray(np.clip((rates - self._mean) / sd, -10, 10) if sd > 0 else 0 * rates)

    def _observation(self, rewards: Rates) -> NDArray[np.float32]:
        seen = [rewards.mean(), rewards.max(), rewards.std()] if self._sees else []
        return np.array([1, *seen], dtype=np.float32)

    def recommend(self, k: int = 1) -> Latents:
        """(k, d): the policy's deterministic action after the last round, then those after the rounds before, newest first."""
        return np.clip(self._means.latest(k), -self.spec.bound, self.spec.bound)

    def diagnostics(self) -> Mapping[str, float]:
        """`round_sd`: of the latents of the next round; `mean_norm`: of what is recommended; what the library logs of training
        (`approx_kl`, `actor_loss`, ...), under its names.
        """
        logged = {key: value for key, value in self._learner.model.logger.name_to_value.items() if key.startswith("train/")}
        return {
            "round_sd": float((self._scale * self._learner.actions).std(axis=0).mean()),
            "mean_norm": float(np.linalg.norm(self._means.latest(1))),
            **{key.removeprefix("train/"): float(value) for key, value in logged.items() if np.isfinite(value)},
        }
