"""The one interface of all agents: ask for latents, be told their rates, recommend the best.

The base class keeps the order, checks shapes and values once for everybody, and remembers what was asked; an algorithm is
the two methods `_ask` and `_tell` (and `recommend`, where it knows better than the mean of its last round). Maximises.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from neurogym_v.naming import nearest
from neurogym_v.types import Feedback, Latents, LoopSpec, NeuroGymError, Rates


class Agent(ABC):
    """Proposes batches of latents and learns from the rates they evoke.

    Args:
        spec: what may be known of the session (latent size, bound, budget, generator, references); never the neuron.
        batch_size: images a round.
        seed: of the agent's one random generator, `self.rng`; same seed and same rates, same latents.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named parameter sets: `ga:ponce2019` is `presets["ponce2019"]` of `ga`."""
    smallest_batch: ClassVar[int] = 1
    surrogates: tuple[str, ...] = ()
    """Networks that the agent looks through (`neurogym_v.networks`): where they are of the family that the neuron is made of,
    a run is no more than a sanity check, and says so."""

    def __init__(self, spec: LoopSpec, *, batch_size: int = 40, seed: int = 0) -> None:
        for name, value in (("batch_size", batch_size), ("seed", seed)):
            if not isinstance(value, int | np.integer) or value < 0:
                raise NeuroGymError(f"{type(self).__name__}: expected {name} as a whole number, not negative, got {value!r}")
        if batch_size < self.smallest_batch:
            raise NeuroGymError(
                f"{type(self).__name__}: expected batch_size of at least {self.smallest_batch}, got {batch_size}"
            )
        self.spec = spec
        self.batch_size = batch_size
        # the fastest of numpy's: normal numbers are most of an evolutionary agent's time
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.thinking_s = 0.0
        """Seconds spent in `_ask` and `_tell` so far."""
        self._asked: tuple[int, int] | None = None

    def require_above_zero(self, **values: float) -> None:
        """Raise NeuroGymError that names the first of these parameters which is not a finite number above 0."""
        for name, value in values.items():
            if not 0 < value < np.inf:
                raise NeuroGymError(f"{type(self).__name__}: expected {name} above 0, got {value}")

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """The parameters behind `agent:name`; families whose names are a library's say it themselves.

        Raises:
            NeuroGymError: no such preset.
        """
        if name not in cls.presets:
            raise nearest(f"preset of {cls.__name__}", name, cls.presets)
        return dict(cls.presets[name])

    @classmethod
    def references(cls, budget: int, **params: Any) -> int:  # noqa: ARG003 (those that want some look at them)
        """How many natural images the agent wants shown to it first, once each; they are paid from its budget."""
        return 0

    @abstractmethod
    def _ask(self) -> np.ndarray[Any, Any]:
        """Propose (n, d) latents of any float type; n is the batch size, but for rounds the algorithm defines otherwise."""

    @abstractmethod
    def _tell(self, latents: Latents, rates: Rates) -> None:
        """Learn from (n, d) latents as shown and their (n,) rates; NaN marks a lost trial; at least one is valid.

        In the last round of a session n may be smaller than what was asked: the first n were shown.
        """

    @abstractmethod
    def recommend(self, k: int = 1) -> Latents:
        """(k, d) latents the agent believes best: a mean or a re-tested incumbent, never the luckiest noisy sample."""

    def diagnostics(self) -> Mapping[str, float]:
        """The agent's own numbers (step size, norm, model fit) for trackers."""
        return {}

    def ask(self) -> Latents:
        """(n, d) float32 latents to show next.

        Raises:
            RuntimeError: asked twice without a tell between.
        """
        if self._asked is not None:
            raise RuntimeError(f"{type(self).__name__}: ask() was called twice; tell() the rates of the last round first")
        began = time.perf_counter()
        latents = np.asarray(self._ask(), dtype=np.float32)
        self.thinking_s += time.perf_counter() - began
        if latents.ndim != 2 or latents.shape[1] != self.spec.latent_dim or not len(latents):
            raise RuntimeError(
                f"{type(self).__name__}: _ask() should give (n, {self.spec.latent_dim}) latents, gave {latents.shape}"
            )
        if not np.isfinite(latents).all():
            raise NeuroGymError(
                f"{type(self).__name__}: expected finite latents from _ask(), got others: parameters too large?"
            )
        self._asked = latents.shape
        return latents

    def tell(self, feedback: Feedback) -> None:
        """Learn from a round. A round in which every trial was lost teaches nothing and is passed over.

        Raises:
            RuntimeError: told without an ask before.
            ValueError: latents or rates of another shape than asked, or latents that are not finite.
        """
        if self._asked is None:
            raise RuntimeError(f"{type(self).__name__}: tell() was called without ask()")
        latents, rates = feedback.latents, np.asarray(feedback.rates, dtype=np.float64)
        if latents.ndim != 2 or latents.shape[1] != self.spec.latent_dim or not 0 < len(latents) <= self._asked[0]:
            raise NeuroGymError(f"latents: expected up to {self._asked} as asked, got {latents.shape}")
        if rates.shape != (len(latents),):
            raise NeuroGymError(f"rates: expected ({len(latents)},), one a latent, got {rates.shape}")
        if not np.isfinite(latents).all() or np.isinf(rates).any():
            raise NeuroGymError("latents and rates: expected finite numbers (rates may be NaN, a lost trial), got others")
        self._asked = None
        if not np.isnan(rates).all():
            began = time.perf_counter()
            self._tell(latents.copy(), rates.copy())
            self.thinking_s += time.perf_counter() - began
