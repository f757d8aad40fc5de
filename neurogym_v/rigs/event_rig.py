"""A rig of two halves: a presenter that says what it showed when, an acquisition that says when spikes came.

For every image: its measured onset (the edge of the photodiode that lies where the display's clock says) -> spikes in the
response window after it. What cannot be known for sure is lost, with its reason: a broken fixation, an onset that was not
measured, was measured twice or lies elsewhere, channels that have never fired, a stretch of the stream in which something is
missing, a spike that came after all had been counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from neurogym_v.importing import in_a_line
from neurogym_v.rigs import NO_NUMBER, Acquisition, Asked, Fixation, Outcome, Presenter, RigError, Shown
from neurogym_v.rigs.clocks import Clocks
from neurogym_v.rigs.gate import Gate
from neurogym_v.rigs.recorder import Onsets, Recorder
from neurogym_v.rigs.window import Window
from neurogym_v.types import Images, NeuroGymError

FLASHES_S = tuple(np.cumsum([0.05, 0.10, 0.17, 0.12, 0.23, 0.14, 0.19, 0.11]).round(3).tolist())
"""When the patch is lit to compare the clocks: all intervals differ, so that one lost or one too many is no other pattern."""
BLIND = 3
"""Fixations in a row without a single onset, before the rig is stopped."""
REALIGN_S = 60.0
"""Without an image, before the clocks are compared anew."""
UNCOUNTED = 2
"""Fixations that are over and not yet counted, at most: more would be lost if the acquisition turned out to be silent."""
START_S = 5.0
"""For an acquisition to deliver its first data."""
UNSEEN = 20
"""Fixations in a row without an image, before that is noted."""
LONGEST_LOOK_S = 0.1
"""Between two looks at what has arrived; longer, and nobody looked."""
LOOK_S = 0.002
"""How long to wait for the presenter before the acquisition is looked at again."""


@dataclass(slots=True)
class _Fixation:
    """One that was begun."""

    asked: tuple[Asked, ...]
    since_s: float
    """Acquisition's clock, before anything of it."""
    shown: dict[int, Shown] = field(default_factory=dict)
    over_at: float | None = None
    """Seconds in which somebody looked; None: it still runs."""


class EventRig:
    """See the module.

    Args:
        window: what of a response counts.
        per_fixation: images that are shown in one fixation.
        tolerance_s: how far a measured onset may lie from where the display's clock says it should be.
        closing_s: after the last onset of a fixation the photodiode patch is lit once more, for streams that fall silent
            between trials; 0: it is not.
        patience_s: how long a part may be silent when it should not.
        refresh_hz: of the screen, if that is to be checked.
        note: told what is worth keeping: how the clocks compare, what was lost.
    """

    def __init__(
        self,
        presenter: Presenter,
        acquisition: Acquisition,
        *,
        window: Window,
        per_fixation: int = 6,
        tolerance_s: float = 0.008,
        closing_s: float = 0.0,
        patience_s: float = 1.0,
        refresh_hz: float | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.presenter, self.acquisition, self.channels = presenter, acquisition, acquisition.channels
        self.window, self.per_fixation, self.closing_s, self.patience_s = window, per_fixation, closing_s, patience_s
        self.tolerance_s, self.note, self.gate, self._refresh_hz = tolerance_s, note, Gate(), refresh_hz
        self.lag_s = 0.0
        """From a presenter's word of the last flash to its onset's arrival, when the clocks were last compared; wall clock."""
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Nothing of before is of use: either clock may have been restarted."""
        self.clocks, self.recorder = Clocks(self.tolerance_s), Recorder(self.acquisition)
        self._counted = deque[tuple[int, float, float]](maxlen=1000)
        self._silent = set(self.channels)
        self._blind = self._unseen = 0
        self._last_at = self._looked_at = time.monotonic()
        self._looking_s = self._moved_at = 0.0
        self._complete_s, self._behind = -np.inf, False

    def open(self) -> None:
        try:
            self.acquisition.open()
            self.presenter.open()
            found = self.presenter.refresh_hz
            if self._refresh_hz and abs(found / self._refresh_hz - 1) > 0.02:
                raise RigError(f"presenter: expected a screen of {self._refresh_hz:g} Hz, found one of {found:.2f} Hz")
            self._begin_anew()
            self.recorder.start()
            self._wait_for_data()
            self.align()
        except (NeuroGymError, KeyboardInterrupt):
            self.close()
            raise
        except Exception as error:  # a laboratory's own part
            self.close()
            raise RigError(f"rig: expected its parts to open, one failed with {in_a_line(error)}") from error

    def close(self) -> None:
        for number, what in self._retracted():
            self.note(f"presentation {number} had been counted when this became known: {what}")
        self.recorder.stop()
        self.presenter.close()
        self.acquisition.close()

    def _wait_for_data(self) -> None:
        """Boards take their time to start; flashes before that would be for nothing.

        Raises:
            RigError: they do not start.
        """
        if self.acquisition.quiet_s:  # its stream may be silent for good reasons
            return
        until = time.monotonic() + START_S
        while self.recorder.complete_s == -np.inf:
            self.recorder.wait(LOOK_S)
            if time.monotonic() > until:
                raise RigError(f"acquisition: expected data within {START_S:g} s of its start, none came; does it record?")

    def align(self) -> None:
        """Compare the two clocks by flashes of the photodiode patch.

        Raises:
            RigError: the acquisition does not see them.
        """
        seen = self.recorder.onsets().s
        since = seen[-1] if len(seen) else -np.inf
        self.presenter.flash(FLASHES_S)
        flashes: list[float] = []
        until = time.monotonic() + FLASHES_S[-1] + 2 * self.patience_s
        while len(flashes) < len(FLASHES_S):
            flashes += self.presenter.reports(LOOK_S).flashes_s.tolist()
            self.recorder.check()
            if time.monotonic() > until:
                raise RigError(
                    f"presenter: expected {len(FLASHES_S)} flashes of the photodiode patch, it reports {len(flashes)}"
                )
        told = time.monotonic()
        until = told + self.patience_s
        while True:
            onsets = self.recorder.onsets().s
            try:
                self.clocks.align(np.array(flashes), onsets[onsets > since])
                break
            except RigError:
                if time.monotonic() > until:
                    raise
            self.recorder.wait(0.02)
        self._last_at = time.monotonic()
        self.lag_s = self._last_at - told
        self.note(f"clocks aligned: acquisition - display = {self.clocks.offset_s:.6f} s")

    def show(
        self, images: Images, asked: Sequence[Asked], begun: Callable[[Sequence[int]], None]
    ) -> Iterator[Sequence[Outcome]]:
        used = sorted({a.image for a in asked})
        place = {image: i for i, image in enumerate(used)}
        waiting, counting = deque(asked), deque[_Fixation]()
        running: _Fixation | None = None
        try:
            yield self._second_thoughts()
            self.presenter.prepare(images[used])
            while waiting or running or counting:
                self._look()
                if running is None and waiting and len(counting) < UNCOUNTED:
                    if self.gate.open:
                        if time.monotonic() - self._last_at > REALIGN_S and not counting:
                            self.align()
                        few = [waiting.popleft() for _ in range(min(self.per_fixation, len(waiting)))]
                        running = self._begin(few, place, begun)
                    elif not counting:
                        self._idle()
                        continue
                if running is not None:
                    self._hear(running)
                    self.recorder.check()
                    if running.over_at is not None:
                        unseen = [a for a in running.asked if a.number not in running.shown]
                        waiting.extendleft(reversed(unseen))
                        self._watch(running)
                        counting.append(running)
                        running = None
                        yield [Outcome(number=a.number, lost="it never reached the screen", shown=False) for a in unseen]
                        continue  # the next fixation first, then the counting
                else:
                    self.recorder.wait(LOOK_S)
                self.recorder.forget(min(fixation.since_s for fixation in (*counting, *([running] if running else []))))
                while counting and self._complete(counting[0]):
                    found, error = self._outcomes(counting.popleft())
                    yield found
                    if error:
                        raise error
                    self._check_sight(found)
                yield self._second_thoughts()
        except RigError:
            for fixation in counting:  # what had arrived before it failed is as good as ever
                if self.recorder.complete_s >= self._needed_s(fixation):
                    yield self._outcomes(fixation)[0]
            yield self._second_thoughts()
            raise
        self.recorder.forget(np.inf)

    def _look(self) -> None:
        """Count the time in which somebody looks: one whose process was held up for long was not waiting."""
        now = time.monotonic()
        self._looking_s += min(now - self._looked_at, LONGEST_LOOK_S)
        self._looked_at = now
        if self.recorder.complete_s != self._complete_s:
            self._complete_s, self._moved_at = self.recorder.complete_s, self._looking_s

    def _idle(self) -> None:
        """Nothing is shown for a while, by the experimenter's wish.

        Raises:
            RigError: a part fails meanwhile.
            KeyboardInterrupt: the session is to end.
        """
        self.recorder.forget(np.inf)
        self.gate.wait()
        self.presenter.reports(0.0)
        self.recorder.check()

    def _watch(self, fixation: _Fixation) -> None:
        """Whether the animal looks at all."""
        if fixation.shown:
            self._last_at, self._unseen = time.monotonic(), 0
            return
        self._unseen += 1
        if self._unseen % UNSEEN == 0:
            self.note(f"no image reached the screen in the last {self._unseen} fixations: the gaze does not come to the dot")

    def _begin(self, asked: Sequence[Asked], place: dict[int, int], begun: Callable[[Sequence[int]], None]) -> _Fixation:
        numbers = tuple(a.number for a in asked)
        begun(numbers)
        since_s = self.recorder.complete_s
        self.presenter.show(Fixation(tuple(place[a.image] for a in asked), numbers, flash_after_s=self.closing_s))
        return _Fixation(tuple(asked), since_s)

    def _hear(self, running: _Fixation) -> None:
        """What the presenter says of the fixation that runs."""
        reports = self.presenter.reports(LOOK_S)
        numbers = {a.number for a in running.asked}
        for shown in reports.shown:
            if shown.number not in numbers:
                raise RigError(f"presenter: expected reports of {min(numbers)} to {max(numbers)}, got one of {shown.number}")
            if np.isfinite(shown.onset_s):
                before = running.shown.get(shown.number, shown)
                running.shown[shown.number] = replace(shown, broken=shown.broken or before.broken)
            elif shown.broken and shown.number in running.shown:
                running.shown[shown.number] = replace(running.shown[shown.number], broken=True)
        if running.asked[0].number in reports.over:
            running.over_at = self._looking_s

    def _complete(self, fixation: _Fixation) -> bool:
        """Whether all that a fixation's responses consist of has arrived; what is late and still moves is waited for.

        Raises:
            RigError: it should have, long ago, and nothing comes any more.
        """
        if self.recorder.complete_s >= (needed_s := self._needed_s(fixation)):
            return True
        if fixation.over_at is None or self._looking_s - fixation.over_at <= self.patience_s:
            return False
        if self._looking_s - self._moved_at > self.patience_s:
            raise RigError(
                f"acquisition: expected all events up to {needed_s:.3f} s of its clock within {self.patience_s:g} s, they are "
                f"complete to {self.recorder.complete_s:.3f} s; has it stopped or lost its connection?"
            )
        if not self._behind:
            self._behind = True
            behind = (
                f"{needed_s - self.recorder.complete_s:.1f} s of its clock are missing {self.patience_s:g} s after a fixation"
            )
            self.note(f"the acquisition falls behind, and the images wait for it: {behind}")
        return False

    def _needed_s(self, fixation: _Fixation) -> float:
        """The end of its last window, acquisition's clock."""
        onsets = [self.clocks.predict(shown.onset_s) for shown in fixation.shown.values()]
        return max(onsets) + self.clocks.tolerance_s + self.window.end_s if onsets else -np.inf

    def _outcomes(self, fixation: _Fixation) -> tuple[list[Outcome], RigError | None]:
        """One of each image that was shown, up to the one, if any, at which the clocks turn out to run apart."""
        onsets, found = self.recorder.onsets(), list[Outcome]()
        for shown in fixation.shown.values():
            try:
                found.append(self._outcome(shown, onsets))
            except RigError as error:
                return found, error
        return found, None

    def _check_sight(self, found: Sequence[Outcome]) -> None:
        """Whether the photodiode sees the screen.

        Raises:
            RigError: there have been no onsets for a while.
        """
        if found and all(np.isnan(outcome.onset_s) for outcome in found):
            self._blind += 1
            if self._blind >= BLIND:
                raise RigError(
                    f"acquisition: expected an onset for every image, saw none in the last {BLIND} fixations "
                    f"({found[-1].lost}); is the photodiode on the patch, and its line the one of [acquisition]?"
                )
        elif found:
            self._blind = 0

    def _outcome(self, shown: Shown, onsets: Onsets) -> Outcome:
        mine = self.clocks.match(shown.onset_s, onsets.s)
        mine = mine[(onsets.number[mine] == NO_NUMBER) | (onsets.number[mine] == shown.number)]
        if len(mine) != 1:
            why = self._nearest(shown, onsets.s) if not len(mine) else f"{len(mine)} onsets where one was expected"
            return self._lost(shown, why)
        onset_s = float(onsets.s[mine[0]])
        self.clocks.matched(shown.onset_s, onset_s)
        if shown.broken:
            return self._lost(shown, "fixation broken", onset_s)
        start_s, end_s = onset_s + self.window.start_s, onset_s + self.window.end_s
        if fault := self.recorder.fault(start_s, end_s):
            return self._lost(shown, fault, onset_s)
        if not self.recorder.spikes_seen.any():  # names that no one has, or a headstage that is off
            return self._lost(shown, "no channel has fired since the rig was opened", onset_s)
        self._hear_of_silence()
        spike_s, channel = self.recorder.spikes(start_s, end_s)
        counts, rates = self.window.rates(spike_s - onset_s, channel, len(self.channels))
        self._counted.append((shown.number, start_s, end_s))
        return Outcome(
            number=shown.number,
            rates=np.where(self.recorder.spikes_seen > 0, rates, np.nan),  # of one that has never fired, who knows
            counts=counts,
            onset_s=onset_s,
            spike_s=spike_s - onset_s,
            channel=channel,
            late_frames=shown.late_frames,
        )

    def _lost(self, shown: Shown, why: str, onset_s: float = float("nan")) -> Outcome:
        return Outcome(number=shown.number, lost=why, onset_s=onset_s, late_frames=shown.late_frames)

    def _nearest(self, shown: Shown, onsets_s: NDArray[np.float64]) -> str:
        """Why no onset was found."""
        away = onsets_s - self.clocks.predict(shown.onset_s)
        if not len(away) or (nearest := float(away[np.abs(away).argmin()])) is None or abs(nearest) > 0.1:
            return "no onset was measured"
        return f"its onset was measured {1000 * nearest:+.1f} ms from where the display's clock says"

    def _hear_of_silence(self) -> None:
        """Say once which channels have not fired yet, and when they do."""
        silent = {name for name, seen in zip(self.channels, self.recorder.spikes_seen, strict=True) if not seen}
        if silent != self._silent and silent:
            self.note(f"channels that have not fired since the rig was opened, and have no rates: {', '.join(sorted(silent))}")
        self._silent = silent

    def _retracted(self) -> list[tuple[int, str]]:
        """Presentations that were counted before it was known that something of their time was missing, and what."""
        found = {}
        for fault in self.recorder.second_thoughts():
            for number, start_s, end_s in self._counted:
                if fault.start_s < end_s and fault.end_s > start_s:
                    found[number] = fault.what
        return list(found.items())

    def _second_thoughts(self) -> list[Outcome]:
        return [Outcome(number=number, lost=f"{what}, after it had been counted") for number, what in self._retracted()]
