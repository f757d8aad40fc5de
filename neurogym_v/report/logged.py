"""From the log of a rig to its part of the record: every showing of what was validated, and how the rig did."""

from __future__ import annotations

import itertools
import re
import tomllib
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from neurogym_v.experiment import RunConfig
from neurogym_v.journal import Block, JournalError, JournalInUse
from neurogym_v.registry import LIVE
from neurogym_v.report.record import NAN, Answers, RigRecord, Showing
from neurogym_v.rigs.log import FILE, OPENED, Kept, Logged, read_log
from neurogym_v.rigs.settings import Windows
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError
from neurogym_v.validation import named

Blocks = Mapping[str, Sequence[Block]]
NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:\.\d+)?|(?<=[a-z])\d{3,}")
"""One in a sentence, or of a file; the name of a channel, A-005, stays."""
ALIGNED = re.compile(r"clocks aligned: acquisition - display = (-?\d+(?:\.\d+)?) s")
"""What `EventRig` notes when it has compared the clocks."""


def read(folder: Path, blocks: Blocks, config: RunConfig, best_natural: str | None) -> tuple[RigRecord | None, list[str]]:
    """What the log in the folder of a run with a live neuron says, and a sentence if that cannot be known.

    Args:
        blocks: session -> its blocks.
        best_natural: the name of the image that recommended ones were shown in turn with.
    """
    if not config.neuron.startswith(LIVE):
        return None, []
    path = folder / FILE
    without = "Without it there are no spikes here, and nothing of how the rig did."
    if not path.is_file():
        return None, [f"{FILE}, the log of the rig, is not in the folder. {without}"]
    try:
        return _record(read_log(path), blocks, config, best_natural), []
    except JournalInUse:
        return None, [f"{FILE}, the log of the rig, is in use by a session that still runs. {without}"]
    except NeuroGymError as error:
        return None, [f"{FILE}, the log of the rig, was left aside ({str(error).removeprefix(f'{path}: ')}). {without}"]


def _record(kept: Kept, blocks: Blocks, config: RunConfig, best_natural: str | None) -> RigRecord:
    channels, every = tuple(kept.meta.get("channels", "").split("\n")), kept.presentations
    showings: dict[int, list[Logged]] = {}
    for one in every:
        showings.setdefault(one.begun.position, []).append(one)
    _check(channels, showings, blocks, config)
    reasons = _grouped(one.outcome.lost for one in every if one.outcome.lost)
    aligned = [ALIGNED.fullmatch(what) for _, what in kept.notes]
    return RigRecord(
        channels=channels,
        site=config.site,
        shown=len(every),
        asked=len(showings),
        unanswered=sum(all(one.outcome.lost for one in its) for its in showings.values()),
        reasons=reasons,
        late=sum(one.outcome.late_frames > 0 for one in every if not one.outcome.lost),
        offsets_s=tuple(float(found[1]) for found in aligned if found),
        notes=_grouped(what for (_, what), found in zip(kept.notes, aligned, strict=True) if not found),
        first=every[0].begun_at if every else "",
        last=every[-1].begun_at if every else "",
        between_s=_between_s(kept, showings, blocks),
        window=_window(kept.meta.get("rig", "")),
        spikes=any(len(one.outcome.spike_s) for one in every),
        answers={name: _answers(blocks[name], showings, config, best_natural) for name in config.agents},
    )


def _check(channels: Sequence[str], showings: Mapping[int, Sequence[Logged]], blocks: Blocks, config: RunConfig) -> None:
    """That the log is the journal's own, and its channels are the sites.

    Raises:
        JournalError: it is not, or they are not.
    """
    for position, its in showings.items():
        for one in its:
            spikes, channel, rates = one.outcome.spike_s, one.outcome.channel, one.outcome.rates
            fits = len(spikes) == len(channel) and (not len(channel) or 0 <= channel.min() <= channel.max() < len(channels))
            if not fits or (rates is not None and len(rates) != len(channels)):
                raise JournalError(
                    f"expected spikes and rates of {len(channels)} channels, found others of presentation {one.begun.number}, "
                    f"position {position}"
                )
    for block in _every(blocks):
        if block.rates.shape[1] != len(channels) or not config.site < len(channels):
            raise JournalError(
                f"expected the {block.rates.shape[1]} sites of the journal, found channels {', '.join(channels)}"
            )
        for position, rates in zip(_positions(block), block.rates, strict=True):
            if position not in showings:
                raise JournalError(
                    f"expected every presentation of the journal, found none of position {position}; of another run?"
                )
            last = showings[position][-1].outcome.rates
            if not np.array_equal(np.full(len(channels), np.nan) if last is None else last, rates, equal_nan=True):
                raise JournalError(f"expected the rates of the journal, found others at position {position}; of another run?")


def _between_s(kept: Kept, showings: Mapping[int, Sequence[Logged]], blocks: Blocks) -> tuple[float, ...]:
    """From the last outcome of each block until the next images were asked for, where the rig was not opened anew between."""
    edges = sorted(
        (its[0].begun_at, max(one.ended_at for one in its))
        for its in ([one for position in _positions(b) for one in showings[position]] for b in _every(blocks))
    )
    opened = sorted(at for at, what in kept.notes if what == OPENED)
    return tuple(
        max(0.0, (datetime.fromisoformat(begun) - datetime.fromisoformat(ended)).total_seconds())
        for (_, ended), (begun, _) in itertools.pairwise(edges)
        if ended and bisect(opened, begun) == bisect(opened, ended)
    )


def _every(blocks: Blocks) -> Iterator[Block]:
    return (block for session in blocks.values() for block in session if len(block.rates))


def _positions(block: Block) -> range:
    """Of the presentations of a block among all that the run's sessions asked for.

    Raises:
        JournalError: the journal does not say.
    """
    if not isinstance(presented := block.state.get("presented"), int):
        raise JournalError("expected a journal of a live neuron beside it, which says how many were presented, found another")
    return range(presented - len(block.rates), presented)


def _answers(
    blocks: Sequence[Block], showings: Mapping[int, Sequence[Logged]], config: RunConfig, best_natural: str | None
) -> tuple[Answers, ...]:
    """What was shown in turn in a validation, the recommended image first; nothing before it was."""
    own = named(config.budget, 0)
    names = {own: "recommended", f"{own}: {best_natural}": "natural", f"{own}: grey": "grey"}
    found: dict[str, list[Logged]] = {what: [] for what in names.values()}
    for block in blocks:
        for position, name in zip(_positions(block), block.images or (), strict=False):
            if block.kind == "validation" and name in names:
                found[names[name]] += showings[position]
    for its in found.values():
        its.sort(key=lambda one: one.begun.number)  # what was shown again came later
    return tuple(
        Answers(what=what, showings=tuple(_showing(one, config.site) for one in its)) for what, its in found.items() if its
    )


def _showing(one: Logged, site: int) -> Showing:
    outcome = one.outcome
    rate = NAN if outcome.rates is None else float(outcome.rates[site])
    return Showing(rate=rate, spike_s=np.sort(outcome.spike_s[outcome.channel == site]), lost=outcome.lost)


def _window(text: str) -> Window | None:
    """Of the rig file that the log has a copy of, which was checked when the run began."""
    try:
        found = tomllib.loads(text)
        windows = Windows(**found.get("window", {}))
        (start, end), baseline = windows.response_ms, windows.baseline_ms
        baseline_s = baseline and (baseline[0] / 1000, baseline[1] / 1000)
        return Window(response_s=(start / 1000, end / 1000), baseline_s=baseline_s) if "acquisition" in found else None
    except (tomllib.TOMLDecodeError, TypeError, ValueError, AttributeError, NeuroGymError):
        return None


def _grouped(said: Iterable[str]) -> dict[str, int]:
    """How often each was said, whatever its numbers were."""
    return dict(Counter(NUMBER.sub("N", one).rstrip(": ") for one in said).most_common())
