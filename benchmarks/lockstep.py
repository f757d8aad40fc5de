"""Runs side by side in one process: what they show goes through one batch, and each comes to what it would alone.

Every run is a greenlet. It is left where it wants a batch shown, and entered again with the rates, when all others have come
as far. On a device that is faster with large batches this is most of the time saved; on two cores it saves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from neurogym_v.benchmarks.runs import Asked, search
from neurogym_v.importing import require
from neurogym_v.session import Session, Showing, shown_alone
from neurogym_v.together import answers
from neurogym_v.types import Rates


def search_together(group: Sequence[Asked]) -> list[dict[str, Any]]:
    """`runs.search` of each, in a worker.

    Raises:
        NeuroGymError: as `runs.search`, of any of them; what all have shown is in their journals. What a shared batch raises is
            raised in the run it belongs to, as if that were alone.
    """
    if len(group) == 1:
        return [search(group[0])]
    greenlet = require("greenlet", user="runs in lockstep", extra="agents")
    hub = greenlet.getcurrent()

    def show(session: Session, block: Showing) -> Rates:
        """Leave the run; photographs are shown at once, as what a neuron answers to them is known after the first time."""
        rates: Rates = shown_alone(session, block) if isinstance(block.pictures, torch.Tensor) else hub.switch((session, block))
        return rates

    runs = [greenlet.greenlet(partial(search, asked, show)) for asked in group]
    said = {place: run.switch() for place, run in enumerate(runs)}
    while asked := {place: said[place] for place, run in enumerate(runs) if not run.dead}:
        sessions, blocks = ({place: pair[i] for place, pair in asked.items()} for i in (0, 1))
        for place, answer in _answered(sessions, blocks).items():
            run = runs[place]
            said[place] = run.throw(answer) if isinstance(answer, Exception) else run.switch(answer)
    return [said[place] for place in range(len(runs))]


def _answered(sessions: Mapping[int, Session], blocks: Mapping[int, Showing]) -> Mapping[int, Rates | Exception]:
    """What the neurons answer to a block each; where they cannot together, what each does alone, be it an error."""
    states: dict[int, Mapping[str, Any]] = {}
    try:
        for place in blocks:
            states[place] = sessions[place].neuron.state()
        return answers(sessions, blocks)
    except Exception:  # of a neuron that anyone wrote, of a batch too large for the device
        return {place: _answered_alone(sessions[place], block, states.get(place)) for place, block in blocks.items()}


def _answered_alone(session: Session, block: Showing, state: Mapping[str, Any] | None) -> Rates | Exception:
    """From `state` on, as the batch that failed may have gone past it for some."""
    try:
        if state is not None:
            session.neuron.restore(state)
        return shown_alone(session, block)
    except Exception as error:
        return error


def grouped(asked: Sequence[Asked], size: int) -> list[tuple[Asked, ...]]:
    """Runs that can share batches, in groups of at most `size`, in about their order."""
    groups: dict[tuple[str, str, str], list[list[Asked]]] = {}
    for one in asked:
        config = one.task.config
        alike = groups.setdefault((config.neuron, config.generator, config.device), [[]])
        if len(alike[-1]) == size:
            alike.append([])
        alike[-1].append(one)
    order = {id(one): place for place, one in enumerate(asked)}
    every = [tuple(group) for alike in groups.values() for group in alike]
    return sorted(every, key=lambda group: order[id(group[0])])
