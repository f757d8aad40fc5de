"""A run told to trackers: turns what a `Watcher` hears into their calls, one tracked run an agent."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from neurogym_v.experiment import AgentResult, RunConfig, Watcher
from neurogym_v.files import write_json
from neurogym_v.generators import Generator, draw
from neurogym_v.stats import Estimate
from neurogym_v.tracking import open_tracker
from neurogym_v.tracking.background import Background
from neurogym_v.tracking.record import SCORE, Picture, Row, RunInfo, Tracker
from neurogym_v.types import Feedback, Images, NeuroGymError, References
from neurogym_v.validation import Natural

KEPT = "tracking.json"
"""In a run's folder: its trackers, so that `resume` goes on with them."""
PANELS, EVERY = 12, 120
"""Pictures of an agent's evolution, and the presentations between two, at least: to draw one takes as long as one or two."""


@dataclass(slots=True)
class _Search:
    """What is known of one agent's search so far."""

    natural: Natural
    generator: Generator
    lost: int = 0
    next_panel: float = 0.0


@dataclass(slots=True)
class _Backend:
    """One `--track`: a thread that makes the calls of all its trackers, one an agent."""

    calls: Background
    trackers: dict[str, Tracker] = field(default_factory=dict)

    @property
    def places(self) -> str:
        return "; ".join(dict.fromkeys(place for t in self.trackers.values() if (place := getattr(t, "place", ""))))


class Tracked:
    """The trackers of one run. As a context it begins and ends them; whatever they do, it takes seconds and raises nothing.

    Args:
        names: NAME[:WHERE] each; none is fine, too.
        config: of the run.
        folder: of the run; its name is the group of the tracked runs, `tracking` beside it holds what has no WHERE.
        suite: what the run is a part of.
        id: of a run that is resumed.

    Raises:
        NeuroGymError: no such tracker, a missing package, or a place that it cannot use.
    """

    def __init__(
        self,
        names: Sequence[str],
        config: RunConfig,
        folder: Path,
        *,
        suite: str = "run",
        id: str | None = None,  # noqa: A002
    ) -> None:
        if len(set(names)) < len(names):
            raise NeuroGymError(f"trackers: expected each once, got {', '.join(names)}")
        self.names, self.config, self.folder, self.suite = tuple(names), config, folder, suite
        self.id = id or uuid.uuid4().hex
        self.say: Callable[[str], None] = print
        """What the user is told goes here, one line each; from any thread."""
        beside = folder.parent / "tracking"
        self._backends = [_Backend(Background(name, self._tell)) for name in names]
        for backend, name in zip(self._backends, names, strict=True):
            backend.trackers.update({agent: open_tracker(name, beside) for agent in config.agents})
        self._searches: dict[str, _Search] = {}
        self._finished = False

    @classmethod
    def resumed(cls, names: Sequence[str], config: RunConfig, folder: Path) -> Self:
        """The trackers of a run that goes on: those that its folder names, or `names` instead.

        Raises:
            NeuroGymError: what the folder says of its trackers cannot be read.
        """
        path = folder / KEPT
        if not path.exists():
            return cls(names, config, folder)
        try:
            kept = json.loads(path.read_text())
            return cls(names or kept["trackers"], config, folder, suite=kept["suite"], id=kept["id"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, NeuroGymError):
                raise
            raise NeuroGymError(f"{path}: expected the trackers of a run, found damage; name them with --track") from None

    def keep(self) -> None:
        """Write to the run's folder which trackers it has, so that `resumed` finds them."""
        if self.names:
            write_json(self.folder / KEPT, {"id": self.id, "suite": self.suite, "trackers": self.names})

    @property
    def lost(self) -> tuple[str, ...]:
        """The trackers that failed or hung; known when the context is over."""
        pairs = zip(self.names, self._backends, strict=True)
        return tuple(name for name, backend in pairs if backend.calls.failure or backend.calls.abandoned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if not self._finished:
            self._call_all("stop")
        for backend in self._backends:
            backend.calls.end()
        try:
            self._wait()
        except KeyboardInterrupt:
            self._tell("trackers were not waited for")

    def _wait(self) -> None:
        for backend in self._backends:
            calls = backend.calls
            if problem := calls.wait():
                self._tell(f"tracker {calls.label}: {problem}")
            if self._searches and backend.places and not (calls.failure or calls.abandoned):
                self._tell(f"tracked with {calls.label.partition(':')[0]}: {backend.places}")

    def watcher(self, references: References, watcher: Watcher) -> Watcher:
        """The same watcher, with the trackers listening too. `references` are the natural images of the run."""
        if not self._backends:
            return watcher

        def search(agent: str, natural: Natural, generator: Generator) -> None:
            self._searches[agent] = _Search(natural, generator)
            self._call(agent, "begin", self._info(agent), needed=True)
            watcher.search(agent, natural, generator)

        def round_done(agent: str, feedback: Feedback) -> None:
            self._round(agent, feedback)
            watcher.round(agent, feedback)

        def agent_done(result: AgentResult) -> None:
            self._scores(result, references)
            watcher.agent_done(result)

        return Watcher(stage=watcher.stage, round=round_done, agent_done=agent_done, search=search)

    def finish(self, agents: Sequence[AgentResult], files: Sequence[Path]) -> None:
        """The run is over and left these files."""
        self._finished = True
        if self._backends:
            self._call_all("finish", [_row(result, self._searches[result.agent].natural) for result in agents], list(files))

    def _round(self, agent: str, feedback: Feedback) -> None:
        search = self._searches[agent]
        search.lost += int(np.isnan(feedback.rates).sum())
        if feedback.spent >= search.next_panel and self._heard() and not np.isnan(feedback.rates).all():
            every = max(self.config.budget / (PANELS - 1), EVERY)
            search.next_panel = (feedback.spent // every + 1) * every
            best = int(np.nanargmax(feedback.rates))
            caption = f"round {feedback.round + 1}: {self._units(feedback.rates[best])}"
            self._images(agent, feedback.spent, "evolution", draw(search.generator, feedback.latents[best : best + 1]), caption)
        numbers = {
            "spent": float(feedback.spent),
            "lost": float(search.lost),
            "round/best": feedback.best_rate,
            "round/mean": feedback.mean_rate,
            "natural/best": search.natural.best.value,
            "natural/spontaneous": search.natural.spontaneous.value,
            **{f"agent/{name}": float(value) for name, value in feedback.diagnostics.items()},
        }
        self._call(agent, "log", feedback.spent, numbers)

    def _scores(self, result: AgentResult, references: References) -> None:
        natural, generator = self._searches[result.agent].natural, self._searches[result.agent].generator
        step = result.search_presentations + result.validation_presentations
        recommended = draw(generator, result.recommended[:1])
        self._images(result.agent, step, "recommended", recommended, f"recommended: {self._units(result.final.value)}")
        at = references.names.index(natural.best_image)
        best, rate = references.images[at : at + 1], self._units(natural.best.value)
        self._images(result.agent, step, "best_natural", best, f"best natural: {rate}")
        numbers = {
            **_estimate("relative_activation", result.relative_activation),
            **_estimate("final", result.final),
            **_estimate("best_natural", natural.best),
            **_estimate("spontaneous", natural.spontaneous),
            **_estimate("first_round", result.first_round),
            "expected_final": result.expected_final,
            "expected_relative_activation": result.expected_relative_activation,
            "search_presentations": float(result.search_presentations),
            "lost_presentations": float(result.lost_presentations),
            "sanity_check": float(result.sanity_check),
            "site_lost": float(result.site_lost),
        }
        seconds = {"time/search_s": result.wall_s, "time/agent_s": result.agent_s}
        self._call(result.agent, "log", step, {SCORE + name: value for name, value in numbers.items()} | seconds, needed=True)

    def _heard(self) -> bool:
        """Whether any tracker still takes calls, so that it is worth drawing."""
        return any(backend.calls.listens for backend in self._backends)

    def _images(self, agent: str, step: int, name: str, images: Images, caption: str) -> None:
        pictures = [Picture(image.permute(1, 2, 0).cpu().numpy(), caption) for image in images]
        self._call(agent, "images", step, name, pictures)

    def _units(self, score: float) -> str:
        return f"{score:.1f} spikes/s" if self.config.objective == "stretch" else f"{score:.3g}"

    def _info(self, agent: str) -> RunInfo:
        config = self.config
        tags = {"suite": self.suite, "agent": agent, "neuron": config.neuron, "noise": config.noise}
        settings = {name: value for name, value in asdict(config).items() if name != "agents"}
        return RunInfo(
            id=hashlib.sha256(f"{self.id} {agent}".encode()).hexdigest()[:12],
            name=f"{agent} {Path(config.neuron).stem} {config.site} seed {config.seed}",
            group=self.folder.resolve().name,
            tags=tags | {"site": str(config.site), "seed": str(config.seed)},
            config=settings | {"agent": agent, "version": version("neurogym-v")},
        )

    def _call_all(self, method: str, *arguments: object) -> None:
        for agent in self._searches:
            self._call(agent, method, *arguments, needed=True)

    def _call(self, agent: str, method: str, *arguments: object, needed: bool = False) -> None:
        for backend in self._backends:
            backend.calls.call(partial(getattr(backend.trackers[agent], method), *arguments), needed=needed)

    def _tell(self, line: str) -> None:
        self.say(line)


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _row(result: AgentResult, natural: Natural) -> Row:
    """Of the table at the end."""
    return {
        "agent": result.agent,
        "spontaneous": natural.spontaneous.value,
        "best_natural": natural.best.value,
        "first_round": result.first_round.value,
        "final": result.final.value,
        **_estimate("relative_activation", result.relative_activation),
        "search_presentations": result.search_presentations,
        "search_s": result.wall_s,
    }
