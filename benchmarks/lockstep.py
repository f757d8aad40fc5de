"""Runs side by side in one process: what they show goes through one batch, and each comes to what it would alone.

Every run is a greenlet. It is left where it wants a batch shown, and entered again with the rates, when all others have come
as far. On a device that is faster with large batches this is most of the time saved; on two cores it saves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        NeuroGymError: as `runs.search`, of any of them; what all have shown is in their journals.
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
        for place, rates in answers(sessions, blocks).items():
            said[place] = runs[place].switch(rates)
    return [said[place] for place in range(len(runs))]


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
