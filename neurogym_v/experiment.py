"""One run: several agents on the same neuron with the same luck, measured against natural images and validated."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurogym_v import networks
from neurogym_v.agent import Agent
from neurogym_v.env import NeuronEnv
from neurogym_v.generators.around import Around
from neurogym_v.generators.invert import invert
from neurogym_v.journal import Journal
from neurogym_v.loop import run
from neurogym_v.neurons.simulated import GREY, Neuron, SimulatedNeuron
from neurogym_v.noise import simulate
from neurogym_v.normaliser import Normaliser
from neurogym_v.references import load_references
from neurogym_v.registry import agent_class, load_generator, make_agent
from neurogym_v.stats import Estimate, mean_rate, relative_activation
from neurogym_v.types import Feedback, Images, Latents, NeuroGymError, Rates, References
from neurogym_v.validation import Natural, measure_natural, validate

AGENTS = ("cma_es", "ga:ponce2019", "random")
"""What runs if no agent is named."""
STARTS = ("prior", "natural")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a run is; kept in its journal, so that the journal alone can continue it."""

    agents: tuple[str, ...] = AGENTS
    """NAME[:PRESET][,KEY=VALUE,...] each."""
    neuron: str = "v4"
    site: int = 0
    generator: str = "natural64"
    budget: int = 3000
    """Presentations of each agent's search, natural images that it asks for included; what scores rest on is counted beside."""
    batch_size: int = 40
    seed: int = 0
    noise: str = "poisson"
    start: str = "prior"
    """Where searches begin: at the `prior`, or at the latent of the best `natural` image of the screening."""
    references: str | None = None
    """A folder of images; None: crops of the photographs inside installed packages."""
    image_deg: float | None = None
    """What an image spans on the screen; None: the neuron's whole field."""
    position_deg: tuple[float, float] = (0.0, 0.0)
    """Of the image's centre from the field's, to the right and upwards."""
    normaliser: int = 0
    """References that come back all through every session, to take slow changes of gain out of the rates."""
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.agents or len(set(self.agents)) < len(self.agents):
            raise NeuroGymError(f"agents: expected at least one, each once, got {', '.join(self.agents) or 'none'}")
        if self.seed < 0:
            raise NeuroGymError(f"seed: expected 0 or more, got {self.seed}")
        if self.start not in STARTS:
            raise NeuroGymError(f"start: expected one of {', '.join(STARTS)}, got {self.start!r}")

    @property
    def entropy(self) -> int:
        """Of the sessions: the same for all agents, another for every site, or sites would share their luck."""
        return _hashed(f"{Path(self.neuron).name} {self.site} {self.seed}")

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> RunConfig:
        """The config as a journal keeps it."""
        known = {field.name for field in dataclasses.fields(cls)}
        if stored.keys() != known:
            raise NeuroGymError(f"run config: expected {sorted(known)}, found {sorted(stored)}")
        return cls(**(stored | {key: tuple(stored[key]) for key in ("agents", "position_deg")}))


@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalResult:
    """What natural images do to the site; the measure for every agent."""

    best_image: str
    best: Estimate
    """Spikes/s: chosen on one half of its repeats, estimated on the other."""
    spontaneous: Estimate
    screened: Rates
    """(images,) mean rate of each natural image in the screening."""
    expected_best: float
    """Noise-free rate of the best natural image; NaN where no one can know it."""
    expected_spontaneous: float
    presentations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """How one agent did."""

    agent: str
    final: Estimate
    """Spikes/s at the recommended image, from fresh repeats."""
    first_round: Estimate
    """Spikes/s over the images of the first round, from one fresh presentation each."""
    relative_activation: Estimate
    expected_final: float
    """Noise-free rate of the recommended image; NaN where no one can know it."""
    expected_relative_activation: float
    search_presentations: int
    lost_presentations: int
    validation_presentations: int
    wall_s: float
    """Of the search in this process; a resumed run replays most of it."""
    agent_s: float
    """The agent's own share of it."""
    recommended: Latents
    """(1, d)"""
    sanity_check: bool
    """Its model of the neuron is made of the neuron's own kind of network: not a result, however good."""
    diagnostics: Mapping[str, float]
    """The agent's own numbers at the end."""
    site_lost: bool
    """The site was lost before the validation was over: nothing can be said about the recommended image."""
    rounds: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """All of a run."""

    config: RunConfig
    natural: NaturalResult
    agents: tuple[AgentResult, ...]
    references: References
    total_presentations: int
    wall_s: float


@dataclass(slots=True)
class Watcher:
    """Callables that are told how a run goes; the defaults do nothing."""

    stage: Callable[[str], None] = lambda _: None
    """A stage begins: `natural images`, an agent's name, ..."""
    round: Callable[[str, Feedback], None] = lambda _agent, _feedback: None
    agent_done: Callable[[AgentResult], None] = lambda _: None


def is_sanity_check(agent: Agent, neuron: Neuron) -> bool:
    """Whether the agent looks through a network of a family that the neuron is made of."""
    own = neuron.networks if isinstance(neuron, SimulatedNeuron) else ()
    return bool({networks.family(name) for name in agent.surrogates} & {networks.family(name) for name in own})


def agent_seed(entropy: int) -> int:
    """An agent's seed in a session: from it does not follow what the session's noise will be."""
    return _hashed(f"agent {entropy}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


class Experiment:
    """A run, ready: everything that `config` names is loaded and checked, and nothing has been shown or written.

    Raises:
        NeuroGymError: a name, site, file or setting that cannot be used.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.generator = load_generator(config.generator, device=config.device)
        self.neuron = simulate(
            config.neuron,
            noise=config.noise,
            image_deg=config.image_deg,
            position_deg=config.position_deg,
            device=config.device,
        )
        folder = Path(config.references) if config.references else None
        self.references = load_references(size=self.generator.image_size, folder=folder)
        self.normaliser = Normaliser.spread(self.references, config.normaliser) if config.normaliser else None
        for name in config.agents:
            self._agent(name, self._env(name, None, self.normaliser))
            self._wanted(name)

    def run(self, journal: Journal | None = None, watcher: Watcher | None = None) -> RunResult:
        """Measure natural images, let each agent search, validate; what is in `journal` already is not shown again."""
        watcher, began = watcher or Watcher(), time.perf_counter()
        watcher.stage(f"{len(self.references.names)} natural images")
        measured, natural, normaliser = self._natural(journal)
        if self.config.start == "natural":
            watcher.stage("latent of the best natural image")
            best = self.references.images[measured.best : measured.best + 1]
            base = load_generator(self.config.generator, device=self.config.device)
            self.generator = Around(base, invert(base, best)[0])
        results = []
        for name in self.config.agents:
            watcher.stage(name)
            results.append(self._search(self._env(name, journal, normaliser), name, measured, natural, watcher))
            watcher.agent_done(results[-1])
        spent = natural.presentations + sum(r.search_presentations + r.validation_presentations for r in results)
        return RunResult(
            config=self.config,
            natural=natural,
            agents=tuple(results),
            references=self.references,
            total_presentations=spent,
            wall_s=time.perf_counter() - began,
        )

    def _env(self, session: str, journal: Journal | None, normaliser: Normaliser | None) -> NeuronEnv:
        return NeuronEnv(
            neuron=self.neuron,
            generator=self.generator,
            site=self.config.site,
            budget=self.config.budget,
            batch_size=self.config.batch_size,
            normaliser=normaliser or 0,
            journal=journal,
            session=session,
        )

    def _agent(self, name: str, env: NeuronEnv) -> Agent:
        seed = agent_seed(self.config.entropy)
        return make_agent(name, env.spec_for_agents, batch_size=self.config.batch_size, seed=seed)

    def _wanted(self, name: str) -> References | None:
        """The natural images that an agent wants shown to it first.

        Raises:
            NeuroGymError: they would leave nothing of the budget.
        """
        cls, params = agent_class(name)
        count = min(cls.references(self.config.budget, **params), len(self.references.names))
        if count and self.config.budget - count < 1:
            raise NeuroGymError(f"agent {name}: expected a budget above {count}, what its natural images cost, got "
                                f"{self.config.budget}")  # fmt: skip
        return self.references.spread(count) if count else None

    def _natural(self, journal: Journal | None) -> tuple[Natural, NaturalResult, Normaliser | None]:
        """Of the neuron; and the normaliser with the usual responses to it, so that all sessions have one scale."""
        session = self._env("natural", journal, self.normaliser).begin(self.config.entropy)
        references = self.references
        measured = measure_natural(session, references, site=self.config.site)
        if not session.neuron.alive[self.config.site]:
            raise NeuroGymError(
                f"site {self.config.site}: expected it to last, but it was lost while natural images were shown"
            )
        rng = np.random.default_rng([self.config.entropy, 1])
        result = NaturalResult(
            best_image=references.names[measured.best],
            best=mean_rate(measured.best_rates, rng),
            spontaneous=mean_rate(measured.spontaneous_rates, rng),
            screened=measured.screened,
            expected_best=self._expected(references.images[measured.best : measured.best + 1]),
            expected_spontaneous=self._expected(torch.full_like(references.images[:1], GREY)),
            presentations=session.shown.total(),
        )
        return measured, result, session.slow_gain.after() if session.slow_gain else None

    def _search(self, env: NeuronEnv, name: str, measured: Natural, natural: NaturalResult, watcher: Watcher) -> AgentResult:
        env.begin(self.config.entropy)  # agents meet the same luck, batch by batch
        began, rounds = time.perf_counter(), []
        if wanted := self._wanted(name):
            env.show_references(wanted)
        agent = self._agent(name, env)
        for feedback in run(agent, env):
            rounds.append(feedback)
            watcher.round(name, feedback)
        wall_s, spent, lost = time.perf_counter() - began, env.spent, env.lost
        recommended = env.live.clip(agent.recommend(1))
        fresh = validate(env.live, recommended, rounds[0].latents, site=self.config.site)
        rng = np.random.default_rng([self.config.entropy, 2])
        expected = self._expected(env.live.draw(recommended))
        drive = natural.expected_best - natural.expected_spontaneous
        return AgentResult(
            agent=name,
            final=mean_rate(fresh.final_rates, rng),
            first_round=mean_rate(fresh.first_rates, rng),
            relative_activation=relative_activation(fresh.final_rates, measured.best_rates, measured.spontaneous_rates, rng),
            expected_final=expected,
            expected_relative_activation=(expected - natural.expected_spontaneous) / drive if drive > 0 else float("nan"),
            search_presentations=spent,
            lost_presentations=lost,
            validation_presentations=env.spent - spent,
            wall_s=wall_s,
            agent_s=agent.thinking_s,
            sanity_check=is_sanity_check(agent, self.neuron),
            diagnostics=dict(agent.diagnostics()),
            recommended=recommended,
            site_lost=not env.live.neuron.alive[self.config.site],
            rounds=tuple(rounds),
        )

    def _expected(self, images: Images) -> float:
        """Noise-free spikes/s of one image, for scoring; NaN for a live neuron."""
        if not isinstance(self.neuron, SimulatedNeuron):
            return float("nan")
        return float(self.neuron.expected_rate(images)[0, self.config.site])
