"""Any optimizer of nevergrad as an agent, under the name that it has there: `nevergrad:DiagonalCMA`.

Bennet et al. 2021, SIGEVOlution 14(1), doi:10.1145/3460310.3460312; code: facebookresearch/nevergrad 1.0.12.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from neurogym_v.agent import Agent
from neurogym_v.importing import require
from neurogym_v.incumbents import Incumbents
from neurogym_v.naming import nearest
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates

RECOMMENDED = ("DiagonalCMA", "TwoPointsDE", "DE", "PSO", "CMA", "NGOpt", "TBPSA")
LARGEST = 1e18
"""Rates beyond are told as this one: nevergrad squares losses, and above 5e20 it cuts them itself."""


class Nevergrad(Agent):
    """Any optimizer of nevergrad, by its name there, over an unbounded array with mutations of size `sigma0`.

    Differences from nevergrad's own loop:

    - **Recommendation.** nevergrad recommends the best noisy sample. Here `n_retest` presentations a round show the best
      candidates again; their rates are not told to the optimizer.
    - **Lost trials** are never told as numbers, and what an optimizer keeps for them is dropped: DE and PSO ask that
      individual again later. Telling them as the worst of their round made no consistent difference with 5 or 20% lost.
      CMA-ES alone is told the median of the round in their place, which its ranks give next to no weight: its generations
      have to be whole rounds, or it learns from a mixture of old and new ones ever after, and its step shrinks.
    - **Rounds** have as many fresh images each, so the first, without re-tests, is shorter.
    - **Clipped** latents are told as they were shown. Rates are told in random order, which breaks ties.
    - **CMA-ES** inside any optimizer gets a population that is the nearest multiple of the fresh images a round (with
      another, pycma refuses some generations, which nevergrad hides), the step-size rule CSA (pycma's own choice from 300
      dimensions on, TPA, breaks where rounds are not whole generations), and no restarts: nevergrad would begin again
      at 0 when rates are flat, as those of a silent site are. What pycma still refuses becomes a warning.
    - Optimizers that want each rate before the next image (SQP, Cobyla, Powell, ...) are refused.

    **First round.** Most sample a normal of standard deviation `sigma0`. Some start as they do in nevergrad: OnePlusOne
    asks 0 first; CMA and NGOpt have 0.89 (or 0.47) times `sigma0`; TBPSA draws a size for each sample, of mean `sigma0`;
    QODE and SQOPSO mirror some; Portfolio mixes.

    Args:
        optimizer: a name in `nevergrad.optimizers.registry`.
        sigma0: standard deviation of the first round, in units of the prior.
        n_retest: presentations a round for re-tests; None is a tenth of the batch, but at least one from a batch of 5 on.
            With 0 the centre is recommended where the optimizer has one (CMA-ES, TBPSA, EDA), else the luckiest sample.

    Raises:
        NeuroGymError: no optimizer of that name, one that cannot work on such rounds, or a parameter out of its range;
            whatever nevergrad raises.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"optimizer": name} for name in RECOMMENDED}

    def __init__(
        self,
        spec: LoopSpec,
        *,
        batch_size: int = 40,
        seed: int = 0,
        optimizer: str = "DiagonalCMA",
        sigma0: float = 1.0,
        n_retest: int | None = None,
    ) -> None:
        super().__init__(spec, batch_size=batch_size, seed=seed)
        self.require_above_zero(sigma0=sigma0)
        if n_retest is not None and not 0 <= n_retest < batch_size:
            raise NeuroGymError(f"Nevergrad: expected n_retest from 0 to {batch_size - 1} (batch - 1), got {n_retest}")
        known = _registry()
        if optimizer not in known:
            raise nearest("optimizer of nevergrad", optimizer, known)
        self.optimizer = optimizer
        self.sigma0 = sigma0
        self.n_retest = max(batch_size // 10, int(batch_size > 4)) if n_retest is None else n_retest
        self.incumbents = Incumbents(spec.latent_dim)
        self._candidates: list[Any] = []  # nevergrad's, of the fresh images of the last round asked
        self._n_again = 0  # re-tests before them
        self._by_generations = False  # there is a CMA-ES in it
        self._mean_norm = float("nan")
        self._said: set[tuple[str, int]] = set()
        seeds = [int(s) for s in self.rng.integers(2**32, size=2)]
        self._globals = _seeded(seeds[0])  # a few optimizers draw from the global generators

        n_fresh = batch_size - self.n_retest
        if known[optimizer].no_parallelization and n_fresh > 1:
            raise _sequential(optimizer, optimizer)
        with self._library("set up"):
            space = require("nevergrad", user="agent nevergrad", extra="agents").p.Array(shape=(spec.latent_dim,))
            space.set_mutation(sigma=float(sigma0))
            space.random_state = np.random.RandomState(seeds[1])
            # all of it may be fresh images, where trials are lost; samplers that run out of their budget stop a session
            self._search = known[optimizer](space, budget=spec.budget, num_workers=n_fresh)
            for part in _parts(self._search):
                self._prepare(part, n_fresh)

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        if name not in cls.presets and name not in (known := _registry()):
            raise nearest("optimizer of nevergrad", name, known)
        return {"optimizer": name}

    def _prepare(self, part: Any, n_fresh: int) -> None:
        optimizers = require("nevergrad.optimization", user="agent nevergrad", extra="agents")
        if isinstance(part, optimizers.recaster.RecastOptimizer):
            raise _sequential(self.optimizer, part.name)
        if isinstance(part, optimizers.optimizerlib._CMA):
            csa = require("cma", user=f"nevergrad:{self.optimizer}", extra="agents").sigma_adaptation.CMAAdaptSigmaCSA
            self._by_generations = True
            part._popsize = n_fresh * max(1, round(part._popsize / n_fresh))
            part._config = copy.copy(part._config)  # the registry's is everybody's
            part._config.inopts = {"AdaptSigma": csa, **(part._config.inopts or {})}
            part.es.stop = dict  # {}: no reason to restart
            part.es.tell = _outspoken(part.es.tell)

    def _ask(self) -> Latents:
        again = self.incumbents.again(self.n_retest)
        self._n_again = len(again)
        with self._library("ask"):
            for candidate in self._candidates:
                _forget(self._search, candidate)  # unless it was told
            self._candidates = [self._search.ask() for _ in range(self.batch_size - self.n_retest)]
            fresh = np.stack([candidate.value for candidate in self._candidates])
        # some reach far beyond float32; clipping comes anyway
        return np.concatenate([again, fresh.clip(-self.spec.bound, self.spec.bound).astype(np.float32)])

    def _tell(self, latents: Latents, rates: Rates) -> None:
        self.incumbents.tell(latents, rates)
        latents, rates = latents[self._n_again :], rates[self._n_again :]
        if self._by_generations and not np.isnan(rates).all():
            rates = np.where(np.isnan(rates), np.nanmedian(rates), rates)
        if len(latents):
            self._mean_norm = float(np.linalg.norm(latents.mean(axis=0)))
        with self._library("tell"):
            for i in self.rng.permutation(np.flatnonzero(~np.isnan(rates))):
                candidate = self._candidates[i]
                if not np.array_equal(candidate.value.astype(np.float32), latents[i]):
                    candidate = _as_shown(candidate, latents[i])
                self._search.tell(candidate, float(np.clip(-rates[i], -LARGEST, LARGEST)))  # it minimises

    def recommend(self, k: int = 1) -> Latents:
        """(k, d) candidates, the best first, by what all their shows say; before any, the prior's mean.

        With k beyond the candidates they are repeated in turn. With `n_retest` 0 the optimizer's centre comes first.
        """
        if not len(self.incumbents):
            return np.zeros((k, self.spec.latent_dim), np.float32)
        centre = None if self.n_retest else _centre(self._search)
        if centre is None:
            return self.incumbents.best(k)
        first = (self.sigma0 * centre).clip(-self.spec.bound, self.spec.bound)[None].astype(np.float32)
        return np.concatenate([first, self.incumbents.best(k)[: k - 1]])

    def diagnostics(self) -> Mapping[str, float]:
        """`mean_norm` of the mean of the last round's fresh images; `incumbent_hz`: estimated rate of the best candidate;
        `incumbent_shows`: the valid trials behind it."""
        if not len(self.incumbents):
            return {}
        hz, shows = self.incumbents.incumbent()
        return {"mean_norm": self._mean_norm, "incumbent_hz": hz, "incumbent_shows": float(shows)}

    @contextmanager
    def _library(self, doing: str) -> Iterator[None]:
        """The library's turn: with this agent's global generators; what it raises or warns of becomes one line."""
        try:
            with _global_generators(self._globals), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield
        except NeuroGymError:
            raise
        except Exception as error:
            raise NeuroGymError(
                f"nevergrad:{self.optimizer}: expected an optimizer for {self.spec.latent_dim} dimensions and rounds of "
                f"{self.batch_size}, got in its {doing}: {type(error).__name__}: {_first_line(error)}"
            ) from error
        for warning in caught:
            place = warning.filename, warning.lineno
            if place not in self._said and not issubclass(warning.category, DeprecationWarning | FutureWarning):
                self._said.add(place)
                warnings.warn(f"nevergrad:{self.optimizer}: {_first_line(warning.message)}", UserWarning, stacklevel=4)


def _sequential(optimizer: str, part: str) -> NeuroGymError:
    return NeuroGymError(
        f"nevergrad:{optimizer}: expected an optimizer that can wait for rounds of images, got one that wants each rate before "
        f"the next image ({part}); nevergrad:DiagonalCMA can"
    )


def _registry() -> Any:
    """Name -> what makes the optimizer. One of them is given random sizes when the module is imported: here the same."""
    with _global_generators(_seeded(0)):
        return require("nevergrad", user="agent nevergrad", extra="agents").optimizers.registry


def _seeded(seed: int) -> list[Any]:
    return [random.Random(seed).getstate(), np.random.RandomState(seed).get_state()]


@contextmanager
def _global_generators(states: list[Any]) -> Iterator[None]:
    """Runs with these states of the global generators, which go on in place; what there was before comes back."""
    outside = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    try:
        yield
    finally:
        states[:] = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.setstate(outside[0])
        np.random.set_state(outside[1])  # noqa: NPY002


def _parts(optimizer: Any) -> Iterator[Any]:
    """The optimizer and all those it is made of."""
    kind = require("nevergrad.optimization.base", user="agent nevergrad", extra="agents").Optimizer
    getattr(optimizer, "optim", None)  # chosen when it is looked at
    yield optimizer
    for held in list(vars(optimizer).values()):
        for part in held if isinstance(held, list) else [held]:
            if isinstance(part, kind):
                yield from _parts(part)


def _forget(optimizer: Any, candidate: Any) -> None:
    """Drops what is kept until a candidate is told, which of a lost trial never comes."""
    for part in _parts(optimizer):
        part._asked.discard(candidate.uid)
        inner = getattr(part, "_subcandidates", {}).pop(candidate.uid, [])
        for other in inner if isinstance(inner, list) else [inner]:
            for inside in _parts(part):
                inside._asked.discard(other.uid)


def _as_shown(candidate: Any, latent: Latents) -> Any:
    """The candidate with another value: the optimizer knows it as the one that it asked."""
    shown = candidate.spawn_child(new_value=latent.astype(np.float64))
    shown.uid = candidate.uid
    shown.parents_uids = list(candidate.parents_uids)
    shown._meta = {key: value for key, value in candidate._meta.items() if key != "boxed_data"}  # of the other value
    return shown


def _outspoken(tell: Any) -> Any:
    """pycma's `tell`, whose refusals nevergrad would pass over in silence."""

    def outspoken(*args: Any) -> None:
        try:
            tell(*args)
        except (RuntimeError, AssertionError) as error:
            warnings.warn(f"a generation was not learned from: {_first_line(error)}", stacklevel=2)
            raise

    return outspoken


def _centre(optimizer: Any) -> Any:
    """(d,) mean of what is sampled, in units of sigma0; None where the optimizer has none."""
    while getattr(optimizer, "optim", None) is not None:
        optimizer = optimizer.optim
    es = getattr(optimizer, "_es", None)
    return getattr(optimizer, "current_center", None) if es is None else es.mean


def _first_line(said: object) -> str:
    return str(said).strip().partition("\n")[0]
