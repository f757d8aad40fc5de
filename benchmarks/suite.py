"""Suites: benchmarks as data. One is a TOML file in `suites/`, or anyone's own.

A suite says which sites are searched, under which noise, with how many presentations and seeds, and who runs if no one is
named. Its version grows whenever a result could change; results of different versions are never mixed.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from neurogym_v.experiment import RunConfig
from neurogym_v.naming import nearest
from neurogym_v.registry import agent_class
from neurogym_v.synthesis.driven import ModelDriven
from neurogym_v.types import NeuroGymError

FOLDER = "suites"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")
"""Folders of results are named so."""
SMALLER = {"agents", "seeds", "budget", "report_at", "recommend", "batch_size", "generator"}
"""What [testing] may change."""
WORDS = {"str": "text", "str | None": "text", "int": "a whole number", "tuple[int, ...]": "a list of whole numbers",
         "tuple[str, ...]": "a list of texts"}  # fmt: skip
"""What the types of fields are to those who write TOML."""
LEAST = {"version": 0, "sites": 0, "seeds": 0, "budget": 1, "recommend": 1, "batch_size": 1, "normaliser": 0}
"""What is possible of numbers."""
MAY_BE_EMPTY = {"report_at", "held_out"}
"""Of the lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Sites of one neuron, each under every noise and for every objective."""

    neuron: str
    sites: tuple[int, ...]
    noises: tuple[str, ...] = ("poisson",)
    objectives: tuple[str, ...] = ("stretch",)
    held_out: tuple[int, ...] = ()
    """Those of the sites that nothing must be tuned on."""
    network: str | None = None
    """What model-driven agents look through here; None: what they choose themselves."""
    label: str | None = None
    """What these sites are, in tables; None: the neuron's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A benchmark."""

    name: str
    version: int
    title: str
    about: str
    """What is measured, in some sentences."""
    citation: str
    grids: tuple[Grid, ...]
    agents: tuple[str, ...]
    """Who runs if no one is named."""
    seeds: tuple[int, ...] = (0,)
    budget: int = 3000
    report_at: tuple[int, ...] = ()
    """Presentations at which recommendations are validated, beside the budget."""
    recommend: int = 5
    batch_size: int = 40
    generator: str = "natural64"
    normaliser: int = 0
    testing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is smaller in the slice that only tests the machinery."""

    @property
    def id(self) -> str:
        return f"{self.name}-v{self.version}"

    def slice(self) -> Suite:
        """The same machinery in seconds: smaller as `testing` says, of each grid the first site only."""
        changes = {key: tuple(value) if isinstance(value, list) else value for key, value in self.testing.items()}
        grids = tuple(dataclasses.replace(grid, sites=grid.sites[:1], noises=grid.noises[-1:]) for grid in self.grids)
        return dataclasses.replace(self, name=f"{self.name}-testing", **({"grids": grids} | changes))

    def tasks(self, agents: Sequence[str] = (), seeds: Sequence[int] = (), device: str = "cpu") -> list[Task]:
        """Every run, agent by agent, so that the first agent is done first."""
        return [
            Task(agent=agent, label=grid.label or grid.neuron, held_out=site in grid.held_out, config=self._config(
                _through(agent, grid.network), grid, site, noise, objective, seed, device))
            for agent in agents or self.agents
            for seed in seeds or self.seeds
            for grid in self.grids
            for noise in grid.noises
            for objective in grid.objectives
            for site in grid.sites
        ]  # fmt: skip

    def _config(self, agent: str, grid: Grid, site: int, noise: str, objective: str, seed: int, device: str) -> RunConfig:
        return RunConfig(
            agents=(agent,),
            neuron=grid.neuron,
            site=site,
            noise=noise,
            objective=objective,
            seed=seed,
            budget=self.budget,
            report_at=self.report_at,
            recommend=self.recommend,
            batch_size=self.batch_size,
            generator=self.generator,
            normaliser=self.normaliser,
            device=device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of a suite."""

    agent: str
    """As it was named; the config may say more of it."""
    label: str
    held_out: bool
    config: RunConfig


def names() -> list[str]:
    """The suites that ship."""
    return sorted(file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml"))


def load(name: str) -> Suite:
    """A suite by its name, or from a TOML file.

    Raises:
        NeuroGymError: no such suite, or a file that is none.
    """
    if name.endswith(".toml"):
        return parse(_read(name), where=name)
    if name not in names():
        raise nearest("suite", name, names())
    return parse(_shipped().joinpath(f"{name}.toml").read_text(encoding="utf-8"), where=f"{name}.toml")


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NeuroGymError(f"suite {file}: expected a file, found none") from None
    except UnicodeDecodeError as error:
        raise NeuroGymError(f"suite {file}: expected TOML, which is UTF-8, got bytes that are not: {error}") from None
    except OSError as error:
        raise NeuroGymError(f"suite {file}: expected a file that can be read, got: {error.strerror}") from None


def parse(text: str, *, where: str) -> Suite:
    """A suite from TOML.

    Raises:
        NeuroGymError: no TOML, a key too much or too few, a value of another type, a name that no folder can have, or a run
            that cannot be, be it one of the slice only.
    """
    try:
        read = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers of 5,000 digits, and of lists in lists in lists
        raise NeuroGymError(f"suite {where}: expected TOML, got: {error}") from None
    if "grids" in read:
        raise nearest(f"key of suite {where}", "grids", ("grid",))
    grids = read.pop("grid", [])
    return of(read | {"grids": grids}, where=where)


def of(read: Mapping[str, Any], *, where: str) -> Suite:
    """A suite from what TOML or JSON holds.

    Raises:
        NeuroGymError: as `parse`.
    """
    grids = read.get("grids")
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        got = repr(grids) if grids else "none"
        raise NeuroGymError(f"suite {where}: expected at least one [[grid]] with a neuron and its sites, got {got}")
    suite: Suite = _record(Suite, {**read, "grids": tuple(_record(Grid, grid, where) for grid in grids)}, where)
    if not NAME.fullmatch(suite.name):
        raise NeuroGymError(
            f"suite {where}: expected a name of 1 to 80 letters, digits, _, - and ., no . first, got {suite.name!r}"
        )
    if unknown := sorted(suite.testing.keys() - SMALLER):
        raise NeuroGymError(f"suite {where}: [testing] cannot change {', '.join(unknown)}")
    _typed(Suite, suite.testing, f"{where}: [testing]")
    for grid in suite.grids:
        if strangers := sorted(set(grid.held_out) - set(grid.sites)):
            raise NeuroGymError(f"suite {where}: held_out: expected sites of the grid, got {strangers}")
    _require_runs(suite, where)
    _require_runs(suite.slice(), f"{where}: [testing]")
    return suite


def _require_runs(suite: Suite, where: str) -> None:
    """Refuse runs that cannot be, or are there twice."""
    if suite.batch_size > suite.budget:
        raise NeuroGymError(f"suite {where}: expected a budget of a batch ({suite.batch_size}) or more, got {suite.budget}")
    try:
        tasks = suite.tasks()
    except NeuroGymError as error:
        raise NeuroGymError(f"suite {where}: {error}") from None
    if len({(task.agent, task.config) for task in tasks}) < len(tasks):
        raise NeuroGymError(
            f"suite {where}: expected every run once, got some twice (a site, seed, noise or agent named twice?)"
        )


def _record(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """A frozen record from what TOML gave."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise nearest(f"key of suite {where}", key, tuple(known))
    missing = [name for name, field in known.items() if name not in values and field.default is dataclasses.MISSING
               and field.default_factory is dataclasses.MISSING]  # fmt: skip
    if missing:
        raise NeuroGymError(f"suite {where}: expected {', '.join(missing)}, found none")
    return cls(**_typed(cls, values, where))


def _typed(cls: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values for fields of a record, checked: lists become tuples."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(cls)}
    made = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for key, value in made.items():
        kind, wanted = kinds[key], WORDS.get(kinds[key], "a table")
        if not _fits(value, kind):
            raise NeuroGymError(f"suite {where}: expected {key} as {wanted}, got {values[key]!r}")
        if value == () and key not in MAY_BE_EMPTY:
            raise NeuroGymError(f"suite {where}: expected {key} as {wanted}, one at least, got none")
        if key in LEAST and min(value if isinstance(value, tuple) else (value,)) < LEAST[key]:
            raise NeuroGymError(f"suite {where}: expected {key} of {LEAST[key]} or more, got {values[key]!r}")
    return made


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is of the type that a field of these records names."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "str" | "str | None":
            return isinstance(value, str) or (value is None and kind != "str")
        case "int":
            return whole
        case "tuple[int, ...]":
            return isinstance(value, tuple) and all(_fits(one, "int") for one in value)
        case "tuple[str, ...]":
            return isinstance(value, tuple) and all(_fits(one, "str") for one in value)
        case "tuple[Grid, ...]":
            return True
    return isinstance(value, dict)


@cache
def _looks(agent: str) -> bool:
    return issubclass(agent_class(agent)[0], ModelDriven)


def _through(agent: str, network: str | None) -> str:
    """The agent, looking through a network if it looks through one, and none was chosen for it."""
    return f"{agent},network={network}" if network and "network=" not in agent and _looks(agent) else agent


def _shipped() -> Any:
    return resources.files("neurogym_v.benchmarks").joinpath(FOLDER)
