"""The live neuron: an electrode behind the interface of every other neuron."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from neurogym_v.importing import in_a_line
from neurogym_v.journal import JournalError
from neurogym_v.neurons.simulated import Neuron, check_images
from neurogym_v.rigs import Asked, Rig, RigError
from neurogym_v.rigs.log import FILE, INTERRUPTED, OPENED, Begun, LiveLog
from neurogym_v.types import Images, NeuroGymError, Rates


class LiveNeuron(Neuron):
    """A neuron in an animal, or whatever else is behind a rig.

    A presentation that is lost is shown again, up to `again` times, at the end of its block; every showing is paid for. One
    that stays lost is NaN. What an earlier process has shown of a block is not shown again.

    Args:
        rig: what shows and counts; it is opened with the first presentation, or by `open`.
        log: the file where every presentation is written, made with the first of them.
        again: how often a lost presentation may be shown again.
        rig_file: kept in the log.
        measures: what a count is (channels, windows, thresholds), as text: one session has the same to its end.
        look: looks at the rig once it is open, before the first image; gives what the experimenter is to be warned of.
    """

    def __init__(
        self,
        rig: Rig,
        log: Path,
        *,
        again: int = 2,
        rig_file: str = "",
        measures: str = "",
        look: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        if again < 0:
            raise NeuroGymError(f"again: expected 0 or more, got {again}")
        self.rig, self.again, self.rig_file, self.measures, self._look = rig, again, rig_file, measures, look
        self._log_path, self._log = log, None  # type: Path, LiveLog | None
        self.sites = len(rig.channels)
        self.name = "live"
        self.presented = 0
        """Presentations of all sessions that were asked for, those that were shown again not counted."""
        self.repeated = 0
        self.tally = Counter[str]()
        """Presentations of this process by why they were lost; "" are those that were answered."""
        self.warn: Callable[[str], None] = lambda _: None
        """Told what the log is told too: what is doubtful about the rig, before the first image."""
        self.between_s = deque[float](maxlen=1000)
        """From the last outcome of each block until the next images are asked for: the animal rests meanwhile."""
        self._answered_at: float | None = None
        self._opened = False

    @property
    def log(self) -> LiveLog:
        if self._log is None:
            meta = {"channels": "\n".join(self.rig.channels), "measures": self.measures, "rig": self.rig_file}
            self._log = LiveLog(self._log_path, meta=meta)
            self.rig.note = self._log.note
        return self._log

    def keep(self, folder: Path) -> None:
        """Write the log to the folder of a run, and go on with one that is there."""
        self._log_path, self._log = folder / FILE, None

    def open(self) -> None:
        """Connect to every part of the rig, and look at it.

        Raises:
            RigError: one is not there, or not what the rig file says.
        """
        if not self._opened:
            self.rig.open()
            self._opened = True
            self.log.note(OPENED)
            for warning in self._look():
                self.log.note(f"warning: {warning}")
                self.warn(warning)

    def close(self) -> None:
        self.rig.close()
        self._opened = False
        if self._log:
            self._log.close()
            self._log = None

    def begin(self, rng: np.random.Generator) -> Self:  # noqa: ARG002
        self.repeated = 0
        return self

    def state(self) -> dict[str, Any]:
        return {"presented": self.presented, "repeated": self.repeated}

    def restore(self, state: Mapping[str, Any]) -> None:
        found = [state.get(key) for key in ("presented", "repeated")]
        if not all(isinstance(number, int) and number >= 0 for number in found):
            raise NeuroGymError(f"state of a live neuron: expected how many were presented and repeated, found {dict(state)}")
        self.presented, self.repeated = found  # type: ignore[assignment]

    def present(self, images: Images, order: NDArray[np.intp], rng: np.random.Generator) -> Rates:  # noqa: ARG002
        check_images(images)
        images = images.cpu()
        digests = {int(i): hashlib.sha256(images[i].numpy().tobytes()).hexdigest()[:32] for i in np.unique(order)}
        rates = np.full((len(order), self.sites), np.nan)
        shown = np.zeros(len(order), dtype=int)
        interrupted = self._recover(rates, shown, [digests[int(i)] for i in order])
        place_of: dict[int, int] = {}
        while True:
            places = np.flatnonzero(np.isnan(rates).all(axis=1) & (shown - interrupted <= self.again))
            if not len(places):
                break
            self._show(images, order, places, digests, rates, place_of)
            shown[places] += 1
        self.presented += len(order)
        self.repeated += int(shown.sum()) - len(order)
        self._answered_at = time.monotonic()
        return rates

    def _recover(self, rates: Rates, shown: NDArray[np.int_], images: Sequence[str]) -> NDArray[np.int_]:
        """Take from the log what an earlier process has shown of this block; gives how often each image was interrupted.

        Raises:
            JournalError: it showed something else.
        """
        interrupted = np.zeros_like(shown)
        for logged in self.log.presentations(self.presented):
            place = logged.begun.position - self.presented
            if place >= len(images) or logged.begun.image != images[place]:
                raise JournalError(
                    f"{self.log.path}: expected the images that are asked for now, found that others were shown as "
                    f"presentation {logged.begun.number} (another version or setting than the run was begun with?)"
                )
            shown[place] += 1
            interrupted[place] += logged.outcome.lost.startswith(INTERRUPTED)
            if logged.outcome.rates is not None:
                rates[place] = logged.outcome.rates
        return interrupted

    def _show(
        self,
        images: Images,
        order: NDArray[np.intp],
        places: NDArray[np.intp],
        digests: Mapping[int, str],
        rates: Rates,
        place_of: dict[int, int],
    ) -> None:
        """Show the images of these places of the block once, and fill in how the neuron answered.

        Args:
            place_of: the place of each number of this block so far; grows.

        Raises:
            RigError: the rig failed, or takes back what an agent has been told.
        """
        first = self.log.next_number
        place_of |= {first + i: int(place) for i, place in enumerate(places)}
        asked = [Asked(first + i, int(order[place])) for i, place in enumerate(places)]

        def begun(numbers: Sequence[int]) -> None:
            if self._answered_at is not None:
                self.between_s.append(time.monotonic() - self._answered_at)
                self._answered_at = None
            self.log.begin([Begun(n, self.presented + place_of[n], digests[int(order[place_of[n]])]) for n in numbers])

        try:
            self.open()
            for known in self.rig.show(images, asked, begun):
                self.log.withdraw([outcome.number for outcome in known if not outcome.shown])
                outcomes = [outcome for outcome in known if outcome.shown]
                self.log.end(outcomes)
                self.tally.update(outcome.lost for outcome in outcomes)
                for outcome in outcomes:
                    if outcome.number not in place_of:
                        raise RigError(
                            f"rig: expected the count of presentation {outcome.number} to stand, as it was told to the agent, "
                            f"but {outcome.lost}; the stream is not to be relied on (more settle_ms or buffer_ms in "
                            "[acquisition]?)"
                        )
                    rates[place_of[outcome.number]] = np.nan if outcome.rates is None else outcome.rates
        except BaseException as error:
            self.log.abandon(f"{INTERRUPTED}: {in_a_line(error)}")
            self.close()
            raise
