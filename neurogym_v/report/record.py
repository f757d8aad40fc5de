"""What a page tells of a run: the rounds of each agent, and the scores as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurogym_v.experiment import RunConfig
from neurogym_v.rigs.window import Window
from neurogym_v.stats import Estimate
from neurogym_v.types import Latents, Rates

NAN = float("nan")
RATE = "spikes/s"
UNKNOWN = Estimate(NAN, NAN, NAN)
Curve = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a search."""

    number: int
    """From 1."""
    spent: int
    """Presentations of the session so far, this round included."""
    latents: Latents
    """(n, d) as shown"""
    rates: Rates
    """(n,) of the site, spikes/s as the agent heard them; NaN marks a lost trial."""
    mean: float
    """Score over the valid trials, spikes/s for most objectives; NaN if all were lost."""
    best: float

    @property
    def lost(self) -> float:
        """Share of its trials."""
        return float(np.isnan(self.rates).mean())

    def quartiles(self) -> tuple[float, float]:
        """Of the rates; NaN if all were lost."""
        valid = self.rates[np.isfinite(self.rates)]
        low, high = np.quantile(valid, [0.25, 0.75]) if len(valid) else (NAN, NAN)
        return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalRecord:
    """What natural images did to the site."""

    best_image: str
    best: Estimate
    spontaneous: Estimate
    screened: Rates
    """(images,) mean of each in the screening."""
    expected_best: float = NAN
    expected_spontaneous: float = NAN


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """How far one agent came, and what it found."""

    name: str
    rounds: tuple[Round, ...] = ()
    searched: int = 0
    """Presentations of its search."""
    validated: int = 0
    lost: int = 0
    """Trials of its search."""
    recommended: Latents | None = None
    """(k, d), the one it believes best first."""
    final: Estimate = UNKNOWN
    first_round: Estimate = UNKNOWN
    relative_activation: Estimate = UNKNOWN
    expected_final: float = NAN
    expected_relative_activation: float = NAN
    agent_s: float = NAN
    sanity_check: bool = False
    site_lost: bool = False
    finished: bool = False
    """Search and validation are over, and summary.json has its numbers."""
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    """Its own numbers at the end."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Its own numbers, (rounds, 2): presentations and value; none where the summary keeps only those of the end."""
    contrast_matched: Estimate = UNKNOWN
    """Relative activation of the recommended image with the brightness and contrast of the best natural one."""
    milestones: tuple[tuple[int, Estimate], ...] = ()
    """Presentations, and the score in fresh repeats of what it recommended then; the last is `final`."""
    incumbents: Curve = field(default_factory=lambda: np.empty((0, 2)))
    """(rounds + 1, 2): presentations and the noise-free score of what it would have recommended then; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One showing of an image to a live neuron."""

    rate: float
    """Of the site, spikes/s as it was counted; NaN: lost."""
    spike_s: NDArray[np.float64]
    """(n,) of the site, from the measured onset; none of a showing that was lost."""
    lost: str = ""
    """Why; "": it was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All showings of an image in the validation of an agent, in their order."""

    what: str
    """`recommended`, `natural` or `grey`."""
    showings: tuple[Showing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RigRecord:
    """What the rig's log says of a run with a live neuron."""

    channels: tuple[str, ...]
    site: int
    """The one that is driven."""
    shown: int
    """Showings, with those of images that were shown again."""
    asked: int
    """Presentations that were asked for: each was shown once at least."""
    unanswered: int
    """Of these, presentations without a response."""
    reasons: Mapping[str, int]
    """Why showings were lost, numbers replaced; the most frequent first."""
    late: int
    """Answered showings that came late or stood too long."""
    offsets_s: tuple[float, ...]
    """The acquisition's clock less the display's, each time that they were compared."""
    notes: Mapping[str, int]
    """What else was noted, numbers replaced."""
    first: str
    """UTC, ISO 8601, when the first showing began; "": there was none."""
    last: str
    between_s: tuple[float, ...]
    """From the last outcome of each block until the next images were asked for."""
    window: Window | None
    """None: the log does not say, or the rig counts by itself."""
    spikes: bool
    """Whether any were kept."""
    answers: Mapping[str, tuple[Answers, ...]]
    """Agent -> what was shown in turn in its validation."""

    @property
    def channel(self) -> str:
        return self.channels[self.site]

    @property
    def lost(self) -> int:
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that a run folder says."""

    folder: Path
    config: RunConfig
    natural: NaturalRecord | None
    agents: tuple[AgentRecord, ...]
    presentations: int
    """Shown so far, natural images and validation included."""
    wall_s: float
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    """A sentence for each thing that the folder does not tell."""
    rig: RigRecord | None = None
    """None: of a simulated neuron, or of one whose log cannot be read."""

    @property
    def unit(self) -> str:
        """Of scores."""
        return RATE if self.config.objective == "stretch" else "of 1"

    @property
    def decimals(self) -> int:
        """That scores are written with."""
        return 1 if self.config.objective == "stretch" else 3
