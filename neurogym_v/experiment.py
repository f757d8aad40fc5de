"""One run: several agents on the same neuron with the same luck, measured against natural images and validated."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v import networks
from neurogym_v.agent import Agent
from neurogym_v.env import NeuronEnv
from neurogym_v.generators import Generator
from neurogym_v.generators.around import Around
from neurogym_v.generators.invert import invert
from neurogym_v.journal import Journal
from neurogym_v.loop import run
from neurogym_v.neurons.simulated import Neuron, SimulatedNeuron
from neurogym_v.noise import neuron_by_name
from neurogym_v.normaliser import Normaliser
from neurogym_v.references import load_references
from neurogym_v.registry import LIVE, agent_class, load_generator, make_agent
from neurogym_v.session import Show
from neurogym_v.stats import Estimate, mean_rate
from neurogym_v.types import Feedback, Images, Latents, NeuroGymError, References
from neurogym_v.validation import FULL, SHORT, Milestone, Natural, Plan, Rounds, expected_scores, measure_natural, validate

AGENTS = ("cma_es", "ga:ponce2019", "random")
"""What runs if no agent is named."""
STARTS = ("prior", "natural")
OBJECTIVES = ("stretch", "one_hot")


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
    """Where searches begin: at the `prior`, or at the latent of the best `natural` image, whose finding no budget pays for."""
    references: str | None = None
    """A folder of images; None: crops of the photographs inside installed packages."""
    image_deg: float | None = None
    """What an image spans on the screen; None: the neuron's whole field."""
    position_deg: tuple[float, float] = (0.0, 0.0)
    """Of the image's centre from the field's, to the right and upwards."""
    normaliser: int = 0
    """References that come back all through every session, to take slow changes of gain out of the rates."""
    objective: str = "stretch"
    """What is maximised: the rate of the site, or with `one_hot` its share among all sites."""
    recommend: int = 1
    """Images that an agent recommends."""
    report_at: tuple[int, ...] = ()
    """Presentations at which what it recommends is kept, to be validated beside what it recommends at the end."""
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.agents or len(set(self.agents)) < len(self.agents):
            raise NeuroGymError(f"agents: expected at least one, each once, got {', '.join(self.agents) or 'none'}")
        if self.neuron.startswith(LIVE):  # its noise is its own
            object.__setattr__(self, "noise", "none")
            if self.objective != "stretch":  # it needs what natural images do to all sites, before any is shown
                raise NeuroGymError(f"objective: expected stretch for a live neuron, got {self.objective}")
        if self.seed < 0:
            raise NeuroGymError(f"seed: expected 0 or more, got {self.seed}")
        if self.start not in STARTS:
            raise NeuroGymError(f"start: expected one of {', '.join(STARTS)}, got {self.start!r}")
        if self.objective not in OBJECTIVES:
            raise NeuroGymError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        if self.recommend < 1:
            raise NeuroGymError(f"recommend: expected 1 image or more, got {self.recommend}")
        if any(not 0 < at <= self.budget for at in self.report_at):
            raise NeuroGymError(f"report_at: expected presentations of 1 to {self.budget}, got {self.report_at}")

    @property
    def plan(self) -> Plan:
        """How much is shown for the sake of scores."""
        return SHORT if self.neuron.startswith(LIVE) else FULL

    def natural_images(self, size: int) -> References:
        """Those that are compared with, of so many pixels a side."""
        found = load_references(size=size, folder=Path(self.references) if self.references else None)
        return found.spread(self.plan.references) if self.plan.references else found

    @property
    def entropy(self) -> int:
        """Of the sessions: the same for all agents, another for every site, or sites would share their luck."""
        return _hashed(f"{Path(self.neuron).name} {self.site} {self.seed}")

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> RunConfig:
        """The config as a journal keeps it."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(stored.keys() - known):
            raise NeuroGymError(
                f"run config: expected {', '.join(sorted(known))}; found {', '.join(unknown)}, of a later version?"
            )
        given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """How one agent did."""

    agent: str
    milestones: tuple[Milestone, ...]
    """What it recommended on the way and, last, at the end, with fresh scores."""
    first_round: Estimate
    """Score over the images of the first round, from one fresh presentation each."""
    expected_relative_activation: float
    """Noise-free, of the recommended image; NaN where no one can know it."""
    incumbents: NDArray[np.float64]
    """(rounds + 1, 2): presentations used, and the noise-free score of what would have been recommended then."""
    search_presentations: int
    lost_presentations: int
    validation_presentations: int
    wall_s: float
    """Of the search in this process; a resumed run replays most of it."""
    agent_s: float
    """The agent's own share of it."""
    sanity_check: bool
    """Its model of the neuron is made of the neuron's own kind of network: not a result, however good."""
    diagnostics: Mapping[str, float]
    """The agent's own numbers at the end."""
    site_lost: bool
    """The site was lost before the validation was over: nothing can be said about the recommended image."""
    rounds: tuple[Feedback, ...]

    @property
    def final(self) -> Estimate:
        """Score of the recommended image, from fresh repeats."""
        return self.milestones[-1].score

    @property
    def shown(self) -> Rounds:
        """Scores of the recommended image, and of what was shown in turn with it."""
        return self.milestones[-1].shown[0]

    @property
    def relative_activation(self) -> Estimate:
        return self.milestones[-1].relative_activation

    @property
    def expected_final(self) -> float:
        """Noise-free score of the recommended image; NaN where no one can know it."""
        return float(self.milestones[-1].expected[0])

    @property
    def recommended(self) -> Latents:
        """(k, d), the one it believes best first."""
        return self.milestones[-1].recommended


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """All of a run."""

    config: RunConfig
    natural: Natural
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
    search: Callable[[str, Natural, Generator], None] = lambda _agent, _natural, _generator: None
    """An agent's search begins: the measure that it will be held to, and the generator of its latents."""


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

    Args:
        config: what the run is.
        show: how blocks are shown (see `neurogym_v.session`); by default at once.

    Raises:
        NeuroGymError: a name, site, file or setting that cannot be used.
    """

    def __init__(self, config: RunConfig, show: Show | None = None) -> None:
        self.config, self._show = config, show
        self.generator: Generator = load_generator(config.generator, device=config.device)
        self.neuron = neuron_by_name(
            config.neuron,
            noise=config.noise,
            image_deg=config.image_deg,
            position_deg=config.position_deg,
            device=config.device,
        )
        self.references = config.natural_images(self.generator.image_size)
        self.normaliser = Normaliser.spread(self.references, config.normaliser) if config.normaliser else None
        for name in config.agents:
            self._agent(name, self._env(name, None, self.normaliser))
            self._wanted(name)

    def run(self, journal: Journal | None = None, watcher: Watcher | None = None) -> RunResult:
        """Measure natural images, let each agent search, validate; what is in `journal` already is not shown again."""
        watcher, began = watcher or Watcher(), time.perf_counter()
        natural = self.measure(journal, watcher)
        results = tuple(self.search(name, natural, journal, watcher) for name in self.config.agents)
        spent = natural.presentations + sum(r.search_presentations + r.validation_presentations for r in results)
        return RunResult(
            config=self.config,
            natural=natural,
            agents=results,
            references=self.references,
            total_presentations=spent,
            wall_s=time.perf_counter() - began,
        )

    def measure(self, journal: Journal | None = None, watcher: Watcher | None = None) -> Natural:
        """What natural images do to the site, in a session of their own.

        Raises:
            NeuroGymError: the site was lost meanwhile.
        """
        (watcher or Watcher()).stage(f"{len(self.references.names)} natural images")
        env = self._env("natural", journal, self.normaliser)
        env.begin(_hashed(f"natural {self.config.entropy}"))  # a session as any other, on another day
        measured = measure_natural(env, self.references, np.random.default_rng([self.config.entropy, 1]), self.config.plan)
        if not env.live.neuron.alive[self.config.site]:
            raise NeuroGymError(
                f"site {self.config.site}: expected it to last, but it was lost while natural images were shown"
            )
        return measured

    def search(
        self, name: str, natural: Natural, journal: Journal | None = None, watcher: Watcher | None = None
    ) -> AgentResult:
        """One agent's search and validation, against natural images that were measured before."""
        watcher = watcher or Watcher()
        self._start(self._image(natural.best_image), watcher)
        normaliser = replace(self.normaliser, usual=natural.usual) if self.normaliser else None
        watcher.stage(name)
        watcher.search(name, natural, self.generator)
        env = self._env(name, journal, normaliser)
        env.begin(self.config.entropy)  # agents meet the same luck, batch by batch
        began = time.perf_counter()
        if wanted := self._wanted(name):
            env.show_references(wanted)
        agent = self._agent(name, env)
        rounds: list[Feedback] = []
        recommended = [(env.spent, self._recommended(agent, env))]
        for feedback in run(agent, env):
            rounds.append(feedback)
            recommended.append((feedback.spent, self._recommended(agent, env)))
            watcher.round(name, feedback)
        wall_s, spent, lost = time.perf_counter() - began, env.spent, env.lost
        allowed = sorted({*self.config.report_at, self.config.budget})
        reached = [(m, *next((r for r in reversed(recommended) if r[0] <= m), recommended[0])) for m in allowed[:-1]]
        reached.append((self.config.budget, *recommended[-1]))  # what was shown again may have cost more than the budget
        rng, plan = np.random.default_rng([self.config.entropy, 2]), self.config.plan
        milestones, first = validate(env, reached, rounds[0].latents, natural.best_image, self.references, rng, plan)
        incumbents = env.live.draw(np.stack([latents[0] for _, latents in recommended]))
        result = AgentResult(
            agent=name,
            milestones=milestones,
            first_round=mean_rate(first, rng),
            expected_relative_activation=natural.activation(float(milestones[-1].expected[0])),
            incumbents=np.column_stack([[used for used, _ in recommended], expected_scores(env, incumbents)]),
            search_presentations=spent,
            lost_presentations=lost,
            validation_presentations=env.spent - spent,
            wall_s=wall_s,
            agent_s=agent.thinking_s,
            sanity_check=is_sanity_check(agent, self.neuron),
            diagnostics=dict(agent.diagnostics()),
            site_lost=not env.live.neuron.alive[self.config.site],
            rounds=tuple(rounds),
        )
        watcher.agent_done(result)
        return result

    def _env(self, session: str, journal: Journal | None, normaliser: Normaliser | None) -> NeuronEnv:
        return NeuronEnv(
            neuron=self.neuron,
            generator=self.generator,
            site=self.config.site,
            objective=self.config.objective,
            budget=self.config.budget,
            batch_size=self.config.batch_size,
            normaliser=normaliser or 0,
            journal=journal,
            session=session,
            show=self._show,
        )

    def _start(self, best_natural: Images, watcher: Watcher) -> None:
        """Put the generator's origin where searches are to start."""
        if self.config.start == "natural" and not isinstance(self.generator, Around):
            watcher.stage("latent of the best natural image")
            self.generator = Around(self.generator, invert(self.generator, best_natural)[0])

    def _image(self, name: str) -> Images:
        """(1, 3, s, s) of a natural image by its name.

        Raises:
            NeuroGymError: it is not among the references.
        """
        if name not in self.references.names:
            raise NeuroGymError(f"natural image {name}: expected it among the references, found others")
        at = self.references.names.index(name)
        return self.references.images[at : at + 1]

    def _recommended(self, agent: Agent, env: NeuronEnv) -> Latents:
        return env.live.clip(agent.recommend(self.config.recommend))

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
