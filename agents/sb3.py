"""Reinforcement learning as an agent: the algorithms of stable-baselines3 and sb3-contrib that have continuous actions.

Raffin et al. 2021, JMLR 22(268). That one-step problems of this kind are bandits: Sutton & Barto 2018, ch. 2.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from neurogym_v.agent import Agent
from neurogym_v.evolution import Means
from neurogym_v.importing import require
from neurogym_v.naming import GIVEN, nearest
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
REACH = 3.0
FEWEST = 16
"""Images from which a policy without replay buffer learns: with small batches, those of several rounds."""
LONGEST_REPLAY = 100_000
STOCK = "-stock"
OURS = {"env", "batch_size", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model", "replay_buffer_class"}
"""What an algorithm is given here, whatever the user wants."""
MOST = 1_000_000
SIGNED = (-MOST, MOST)
SHARE = (0, 1)
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (0, 10),  # policies start with an s.d. of 1: a step of more is out of the box
    "delta_std": (1e-6, MOST),
    "clip_range": (1e-6, MOST),
    "target_kl": (0, 100),
    "gamma": SHARE,
    "gae_lambda": SHARE,
    "tau": SHARE,
    "line_search_shrinking_factor": SHARE,
    "ent_coef": SIGNED,
    "target_entropy": SIGNED,
    "alive_bonus_offset": SIGNED,
    "gradient_steps": (-1, MOST),
    "sde_sample_freq": (-1, MOST),
    "learning_starts": (0, MOST),
    "top_quantiles_to_drop_per_net": (0, 24),  # of 25
}
"""Of the library's numbers; the others are from 0, counts from 1. The library checks few, and some only after a round."""


class SB3(Agent):
    """An algorithm of stable-baselines3 or sb3-contrib, by its name: PPO, A2C, TRPO, ARS, SAC, TQC, CrossQ, TD3 or DDPG.

    Each image is an episode of one step: its latents are the action, its rate the reward. The batch is that many
    environments side by side; the library's own `learn()` runs, and waits where it wants a reward.

    - Reward: the rate less the mean of all rates so far, over their s.d., within 10 of 0.
    - Observation: 1, and for PPO and TRPO, of the rewards of the last round, the mean, the highest and the s.d., the same for
      all images of a round: what was learned is followed further while it pays. A2C, SAC, TQC and CrossQ, which were tried
      with both on one toy or one site each, did better with the 1 alone, and TD3, DDPG and ARS get that too; the weights of
      a candidate of ARS are then latents.
    - Action: latents over `sigma0`. Where policies are Gaussian (PPO, A2C, TRPO) or candidates are (ARS), the box is the bound;
      those that are squashed into a box get one of `reach`. The first round has a mean of 0 and an s.d. of `sigma0` for all.
    - Lost trials: kept out of the replay buffer; where there is none, such an image gets the mean reward of its round, with
      which its advantage is 0 (with `NAME-stock` of A2C nearly 0: it does not centre advantages); in ARS its pair is followed
      nowhere.
    - What is shown is clipped to the bound; the algorithm is told of the action that it chose.
    - An update whose gradients overflowed is skipped. In PPO with many dimensions the ratio of probabilities does overflow; its
      loss is clipped then, but 0 times infinity, in the gradient, is not a number.
    - All the library draws comes from this agent's seed, and nothing global is left changed.
    - An agent may be made in one thread and used in another, but from the first `ask` to the last `tell` it is the same one:
      the library waits there in the middle of its own function. Another thread is refused.

    `NAME-stock` is the library's own choice of networks and parameters, less what follows from rounds: `n_steps`, minibatches,
    the size of the buffer. Those are chosen for robots and longer training, and are no fair judge of the algorithm here.

    Recurrent policies have nothing to remember in episodes of one step; the others of the packages take no continuous actions.

    Args:
        sigma0: s.d. of the latents of the first round.
        algorithm: see above.
        stock: the library's defaults.
        reach: half the width of the box of SAC, TQC, CrossQ, TD3 and DDPG, in units of sigma0; None is 3.
        exploration: s.d. that is added to the actions of those five after the first round, in units of sigma0; None is 1 for
            TD3 and DDPG, else 0.
        minibatch: images a gradient step, for those five, PPO and TRPO; None is all of a rollout, or the library's choice where
            there is a replay buffer.
        device: of the networks; one that is not there is refused.
        params: any other keyword of the algorithm, such as `learning_rate`, `n_epochs`, `gradient_steps`, `policy_kwargs`.

    Raises:
        NeuroGymError: no such algorithm or keyword, one that the algorithm has no use for, a value out of its range, a package
            that is not installed; later, whatever the library raises, or a change of thread.
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
        reach: float | None = None,
        exploration: float | None = None,
        minibatch: int | None = None,
        device: str = "cpu",
        **params: Any,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        if algorithm not in PACKAGES:
            raise nearest("algorithm of SB3", algorithm, PACKAGES)
        for package in ("greenlet", "stable_baselines3", "sb3_contrib"):
            require(package, user="agent sb3", extra="agents")
        lockstep = require("neurogym_v.lockstep", user="agent sb3", extra="agents")
        library = getattr(require(PACKAGES[algorithm], user="agent sb3", extra="agents"), algorithm)
        self._algorithm = algorithm
        self._outcome = lockstep.Outcome

        squashed = algorithm not in UNSQUASHED
        unused = {} if squashed else {"reach": reach, "exploration": exploration}
        unused |= {"minibatch": minibatch} if algorithm in ("A2C", "ARS") else {}
        for name, value in unused.items():
            if value is not None:
                raise NeuroGymError(f"SB3: expected no {name} for {algorithm}, which has none, got {_line(value)}")
        _check("sigma0", sigma0, {Real}, 1e-6, MOST)
        _check("reach", reach, {Real, type(None)}, 1e-6, MOST)
        _check("exploration", exploration, {Real, type(None)}, 0, MOST)
        _check("stock", stock, {bool}, 0, 1)
        _check("device", device, {str}, 0, 1)
        _check("minibatch", minibatch, {Integral, type(None)}, 1, MOST)
        _check_keywords(algorithm, library, params)
        reach = REACH if reach is None else float(reach)

        chosen = copy.deepcopy(({} if stock else TUNED[algorithm]) | params)  # the library writes into policy_kwargs
        tuned_exploration = chosen.pop("exploration", 0.0)
        exploration = tuned_exploration if exploration is None else exploration

        d = spec.latent_dim
        fixed: dict[str, Any] = {"policy": "MlpPolicy", "device": device}
        if algorithm == "ARS":
            fixed |= {"policy": "LinearPolicy", "n_delta": max(1, batch_size // 2)}
        elif algorithm in ON_POLICY:
            rounds = chosen.get("n_steps", -(-FEWEST // batch_size))
            fixed["n_steps"] = rounds
            _check("sub_sampling_factor", chosen.get("sub_sampling_factor", 1), {Integral}, 1, max(1, rounds * batch_size // 2))
            if algorithm != "A2C":
                fixed["batch_size"] = minibatch or rounds * batch_size
        else:
            fixed |= {"buffer_size": min(spec.budget, LONGEST_REPLAY), "replay_buffer_class": lockstep.Heard}
            fixed |= {"learning_starts": batch_size} if not stock else {}
            fixed |= {"batch_size": minibatch} if minibatch else {}
            fixed |= {"action_noise": lockstep.Later(exploration / reach, d)} if exploration else {}
        delta_std = chosen.get("delta_std", 0.05) if algorithm == "ARS" else 1
        self._sees = algorithm in SEEING
        self._count, self._mean, self._squares = 0, 0.0, 0.0  # of all rates so far
        with self._library():
            self._scale = sigma0 / float(delta_std(1) if callable(delta_std) else delta_std)
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
            self._means = Means(self._scale * self._learner.best())

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """`PPO` is the algorithm as tuned here, `PPO-stock` with the library's defaults."""
        algorithm = name.removesuffix(STOCK)
        if algorithm not in PACKAGES:
            raise nearest("algorithm of sb3", name, [*PACKAGES, *(known + STOCK for known in PACKAGES)])
        return {"algorithm": algorithm, "stock": name.endswith(STOCK)}

    def _ask(self) -> Latents:
        with self._library():
            return np.asarray(self._scale * self._learner.ask(), dtype=np.float32)

    def _tell(self, latents: Latents, rates: Rates) -> None:  # noqa: ARG002 (the algorithm knows its actions)
        rewards = self._standardised(rates)
        with self._library():
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
        (`approx_kl`, `actor_loss`, ...), under its names. Nothing before the first `ask`.
        """
        if not len(self._learner.actions):
            return {}
        logged = {key: value for key, value in self._learner.model.logger.name_to_value.items() if key.startswith("train/")}
        return {
            "round_sd": float((self._scale * self._learner.actions).std(axis=0).mean()),
            "mean_norm": float(np.linalg.norm(self._means.latest(1))),
            **{key.removeprefix("train/"): float(value) for key, value in logged.items() if np.isfinite(value)},
        }

    @contextmanager
    def _library(self) -> Iterator[None]:
        """The library's turn: whatever it raises becomes one line."""
        try:
            yield
        except NeuroGymError:
            raise
        except Exception as error:
            raise NeuroGymError(
                f"SB3: expected parameters that {self._algorithm} takes, got: {type(error).__name__}: {_line(error)}"
            ) from error


def _check_keywords(algorithm: str, library: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Raise NeuroGymError unless the algorithm has these keywords, and the values are of the types it says and in range."""
    ours = [name for name, p in inspect.signature(SB3).parameters.items() if p.kind is p.KEYWORD_ONLY and name not in GIVEN]
    theirs = {name: p for name, p in inspect.signature(library, eval_str=True).parameters.items() if name not in OURS}
    for name, value in params.items():
        if name not in theirs:
            raise nearest(f"parameter of {algorithm}", name, [*theirs, *ours])
        annotation = theirs[name].annotation
        kinds = {get_origin(kind) or kind for kind in get_args(annotation) or (annotation,)}
        kinds = {{int: Integral, float: Real}.get(kind, kind) for kind in kinds}
        low, high = RANGES.get(name, (1 if Integral in kinds else 0, MOST))
        if name == "train_freq":
            kinds = {Integral}  # steps are episodes here
        if {str, Real} <= kinds and isinstance(value, str):  # auto, auto_0.1
            kinds, value = {Real}, _number(value.removeprefix("auto").removeprefix("_") or "0")
        _check(name, value, kinds, low, high)
        if name == "gradient_steps" and value == 0:
            raise NeuroGymError("SB3: expected gradient_steps of at least 1, or -1 (one an image), got 0")


def _check(name: str, value: Any, kinds: set[Any], low: float, high: float) -> None:
    """Raise NeuroGymError unless the value is of one of these kinds and, where it is a number, between the two."""
    wrong = not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if wrong or (number and not low <= value <= high):
        names = {Integral: "a whole number", Real: "a number", type(None): "None", Callable: "a schedule"}
        wanted = " or ".join(sorted(names.get(kind, f"a {kind.__name__}") for kind in kinds))
        span = f" from {low:g} to {high:g}" if {Integral, Real} & kinds else ""
        raise NeuroGymError(f"SB3: expected {name} to be {wanted}{span}, got {_line(repr(value))}")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _line(said: object) -> str:
    return str(said).strip().partition("\n")[0].rstrip(":")
