"""NeuronEnv: a visual neuron as a gymnasium environment."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from neurogym_v.generators import Generator
from neurogym_v.journal import Journal
from neurogym_v.neurons.simulated import Neuron, SimulatedNeuron
from neurogym_v.noise import neuron_by_name
from neurogym_v.normaliser import Normaliser, load_normaliser
from neurogym_v.objectives import Objective, OneHot, make_objective, moments
from neurogym_v.references import load_references
from neurogym_v.registry import load_generator
from neurogym_v.render import grid
from neurogym_v.session import Session, Show
from neurogym_v.types import Latents, LoopSpec, NeuroGymError, Rates, References

Observation = dict[str, NDArray[Any]]
FEWEST_REFERENCES = 20
"""From which the mean and s.d. over natural images are taken where no model knows them."""


class NeuronEnv(gym.Env[Observation, Latents]):
    """A visual neuron is the environment: propose latents, a generator draws them, the firing rate is the reward.

    ## Description
    Each step is one *round*: a batch of latents becomes a batch of images, the neuron is shown each once, in order, and
    answers with a firing rate. The aim is to find what drives it most within a budget of presentations, the only
    currency: references, normaliser images and lost trials cost one each like everything else. The expected, noise-free
    rate is nowhere in what the environment gives.

    ## Action space
    | what | shape | type | range | unit |
    |---|---|---|---|---|
    | latents | (batch, d) | float32 | [-bound, bound] (clipped) | s.d. of the generator's standard normal prior |

    A round of another size, (n, d), is accepted too: sizes belong to algorithms. If the budget does not pay for n more
    presentations, the first ones are shown.

    ## Observation space
    | key | shape | type | range | unit |
    |---|---|---|---|---|
    | `rates` | (batch,) | float32 | the objective's | scores of the objective, clipped to the range; 0 where `valid` is 0 |
    | `valid` | (batch,) | int8 | {0, 1} | 1: shown and answered; 0: lost, or not shown |
    | `budget_left` | (1,) | float32 | [0, 1] | fraction of the budget |

    ## Reward
    Mean score of the valid presentations of the round. NaN if every trial was lost, never a silent 0.

    | objective | score of a presentation | range | unit |
    |---|---|---|---|
    | `stretch` | rate of the site | [0, 1000] | spikes/s |
    | `one_hot` | softmax over all sites, of rates z-scored over natural images; the part of the site | [0, 1] | of 1 |
    | an `Objective` | its own (see `neurogym_v.objectives`) | its `bounds` | its `unit` |

    `one_hot` needs each site's mean and s.d. over natural images. A simulated neuron knows its own; for another one they are
    those of the references shown at reset, 20 of them at least.

    ## Info
    `rates` (n,) scores, which agents learn from, with NaN for lost trials; `site_rates` (n,) spikes/s of the site, the same
    with `stretch`; `latents` (n, d) as really shown; `spent` and `left` presentations; `lost` trials so far; `best_rate`,
    the highest single score so far (one noisy observation, no result). After a reset with references also
    `reference_rates` (k,), scores as well, and `reference_names`.

    ## Starting state
    A fresh session with the whole budget. `reset(options={"references": k})` first shows k natural images once each; they
    cost k presentations.

    ## Episode end
    *Truncated* when the budget pays for no further presentation. *Terminated* when the site is lost for good.

    ## Arguments
    Args:
        neuron: name, weights file or object. generator: the same.
        site: column of the neuron's rates that is to be driven.
        objective: `stretch`, `one_hot` or an `Objective`: what the reward is made of.
        budget: presentations. batch_size: images a round.
        noise: effects of a session around a named neuron, such as `poisson+lost:0.1` (see `neurogym_v.noise`).
        image_deg, position_deg: degrees that an image spans on a named neuron's screen, and where its centre stands, to the
            right and upwards; by default it fills the neuron's field.
        device: `auto`, `cpu`, `cuda`, ...
        normaliser: how many of the references come back through the whole session, to take slow changes of gain out of the
            rates (see `neurogym_v.normaliser`); or a `Normaliser`; 0 for none. Each round costs an eighth more, one at least.
        render_mode: `rgb_array` (the last round as a labelled grid) or None.
        journal, session: where presentations are written, and under which name (see `neurogym_v.journal`); sessions after
            the first reset get `#1`, `#2`, ... behind it.
        show: how blocks are shown (see `neurogym_v.session`), for sessions in lockstep; by default at once.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium's own form)

    def __init__(
        self,
        *,
        neuron: str | Neuron = "v4",
        generator: str | Generator = "natural64",
        site: int = 0,
        objective: str | Objective = "stretch",
        budget: int = 3000,
        batch_size: int = 40,
        noise: str = "poisson",
        image_deg: float | None = None,
        position_deg: tuple[float, float] = (0.0, 0.0),
        device: str = "auto",
        normaliser: int | Normaliser = 0,
        render_mode: str | None = None,
        journal: Journal | None = None,
        session: str = "session",
        show: Show | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise NeuroGymError(f"render_mode: expected None or one of {self.metadata['render_modes']}, got {render_mode!r}")
        self.generator = load_generator(generator, device=device) if isinstance(generator, str) else generator
        if isinstance(neuron, str):
            neuron = neuron_by_name(neuron, noise=noise, image_deg=image_deg, position_deg=position_deg, device=device)
        self.neuron = neuron
        if not 0 <= site < self.neuron.sites:
            raise NeuroGymError(f"site: expected 0 to {self.neuron.sites - 1} for this neuron, got {site}")
        self.normaliser = load_normaliser(normaliser, self.generator.image_size)
        if batch_size < 1 or budget < batch_size:
            raise NeuroGymError(f"expected 1 <= batch_size <= budget, got batch_size {batch_size}, budget {budget}")
        if budget < self._cost(1):
            raise NeuroGymError(f"budget: expected {self._cost(1)} or more, for an image and its normaliser, got {budget}")
        self.site, self.budget, self.batch_size, self.render_mode = site, budget, batch_size, render_mode
        self._journal, self._name, self._sessions, self._show = journal, session, 0, show
        natural = self.neuron.natural() if objective == "one_hot" and isinstance(self.neuron, SimulatedNeuron) else None
        self.objective = make_objective(objective, site, natural)
        self._by_references = self.objective is None
        self._bounds = (self.objective or OneHot).bounds
        d, bound = self.generator.latent_dim, self.generator.bound
        self.action_space = spaces.Box(-bound, bound, (batch_size, d), np.float32)
        self.observation_space = cast("gym.Space[Observation]", observation_space(batch_size, self._bounds))
        self.session: Session | None = None
        self.references: References | None = None

    @property
    def spec_for_agents(self) -> LoopSpec:
        """All that an agent may know."""
        return LoopSpec(
            latent_dim=self.generator.latent_dim,
            bound=self.generator.bound,
            budget=self.room + self.session.shown["search"] if self.session else self._room(self.budget),
            generator=self.generator,
            references=self.references and _copied(self.references),
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        count = (options or {}).get("references", 0)
        if not isinstance(count, int) or count < 0 or self._cost(count) + self._cost(1) > self.budget:
            raise NeuroGymError(f"options['references']: expected 0 or more, within the budget of {self.budget}, got {count!r}")
        if self._by_references and count < FEWEST_REFERENCES:
            raise NeuroGymError(
                f"one_hot: expected options={{'references': {FEWEST_REFERENCES}}} or more at reset, as this neuron's mean and "
                f"s.d. over natural images are not known, got {count}"
            )
        super().reset(seed=seed)
        self.begin(int(self.np_random.integers(2**63)))
        info: dict[str, Any] = {}
        if count:
            shown = self.show_references(load_references(count=count, size=self.generator.image_size))
            info = {"reference_rates": np.array(shown.rates), "reference_names": shown.names}
        return self.observation(np.empty(0)), info | self.account

    def begin(self, entropy: int) -> Session:
        """Start a session whose randomness is all in `entropy`."""
        name = f"{self._name}#{self._sessions}" if self._sessions else self._name
        self._sessions += 1
        self.session = Session(
            self.generator,
            self.neuron,
            seed=entropy,
            journal=self._journal,
            name=name,
            normaliser=self.normaliser,
            show=self._show,
        )
        self.references = None
        self.objective = None if self._by_references else self.objective
        self.best_rate, self.lost = -np.inf, 0
        self._round: tuple[Latents, Rates] | None = None
        return self.session

    def show_references(self, references: References) -> References:
        """Show natural images once each, before the first round; with their scores they are what agents may know of them."""
        order = np.arange(len(references.names))
        rates = self.live.show_images(references.images, references.names, order, kind="reference")
        if self._by_references:
            self.objective = OneHot(self.site, *moments(rates))
        scores = self.score(rates)
        self.lost += int(np.isnan(scores).sum())
        self.references = References(references.images, references.names, scores)
        return self.references

    def score(self, rates: Rates) -> Rates:
        """(m, sites) spikes/s -> (m,) scores of the objective, NaN where the trial is lost.

        Raises:
            NeuroGymError: an objective that gives something else, or one that still needs the rates of references.
        """
        if self.objective is None:
            raise NeuroGymError("one_hot: expected references, shown by reset(), before the first round; got none")
        scores = np.array(self.objective(rates), dtype=np.float64)  # a copy: a view would hold the other sites' rates
        if scores.shape != (len(rates),):
            raise NeuroGymError(f"objective {self.objective.name}: expected ({len(rates)},) scores, got {scores.shape}")
        return scores

    @property
    def spent(self) -> int:
        return self.live.shown.total()

    @property
    def left(self) -> int:
        return self.budget - self.spent

    @property
    def room(self) -> int:
        """Presentations that what is left still pays for, with the normaliser images before them."""
        return self._room(self.left)

    @property
    def account(self) -> dict[str, Any]:
        return {"spent": self.spent, "left": self.left, "lost": self.lost, "best_rate": self.best_rate}

    def step(self, action: Latents) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        latents, rates = self.live.show_latents(self.affordable(action), kind="search")
        return self.outcome(latents, rates)

    def affordable(self, action: Latents) -> Latents:
        """The part of an action that the budget still pays for, checked and clipped."""
        latents = self.live.clip(action)
        if self.room <= 0:
            raise gym.error.ResetNeeded(f"the budget of {self.budget} presentations is spent; reset() starts a new session")
        return latents[: self.room]

    def outcome(self, latents: Latents, rates: Rates) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """What `step` returns for (n, d) latents that were shown and their (n, sites) rates."""
        scores, site_rates = self.score(rates), rates[:, self.site].copy()
        self._round = latents, site_rates
        valid = np.isfinite(scores)
        self.lost += int((~valid).sum())
        reward = float(scores[valid].mean()) if valid.any() else float("nan")
        if valid.any():
            self.best_rate = max(self.best_rate, float(scores[valid].max()))
        info = {"rates": scores, "site_rates": site_rates.copy(), "latents": latents.copy(), **self.account}
        return self.observation(scores), reward, not self.live.neuron.alive[self.site], self.room <= 0, info

    def observation(self, scores: Rates) -> Observation:
        """What an agent of another framework sees after a round with (n,) scores."""
        seen = np.full(self.batch_size, np.nan, dtype=np.float32)
        seen[: len(scores)] = scores[: self.batch_size]
        valid = np.isfinite(seen)
        left = np.array([max(0.0, self.left / self.budget)], dtype=np.float32)
        return {
            "rates": np.where(valid, seen, 0).clip(*self._bounds),
            "valid": valid.astype(np.int8),
            "budget_left": left,
        }

    def render(self) -> NDArray[np.uint8] | None:
        """The last round: every image above its rate, (height, width, 3) uint8."""
        if self.render_mode is None:
            return None
        title = f"{getattr(self.neuron, 'name', 'neuron')} site {self.site}   {self.spent}/{self.budget} presentations"
        if self._round is None:
            size = self.generator.image_size
            return grid(torch.empty((0, 3, size, size), dtype=torch.uint8), np.empty(0), title)
        latents, rates = self._round
        return grid(self.live.draw(latents), rates, title)

    @property
    def live(self) -> Session:
        """The session that runs."""
        if self.session is None:
            raise gym.error.ResetNeeded("call reset() before step() or render()")
        return self.session

    def _cost(self, presentations: int) -> int:
        return self.normaliser.cost(presentations) if self.normaliser else presentations

    def _room(self, budget: int) -> int:
        return self.normaliser.affords(budget) if self.normaliser else budget


def _copied(references: References) -> References:
    """For an agent to do with as it likes: the images are shared by everything that shows them."""
    rates = None if references.rates is None else references.rates.copy()
    return References(references.images.clone(), references.names, rates)


def observation_space(batch_size: int, bounds: tuple[float, float]) -> spaces.Dict[Any]:
    """See the table in `NeuronEnv`."""
    return spaces.Dict(
        {
            "rates": spaces.Box(*bounds, (batch_size,), np.float32),
            "valid": spaces.MultiBinary(batch_size),
            "budget_left": spaces.Box(0, 1, (1,), np.float32),
        }
    )
