"""Presenter and acquisition joined: every image gets its own spikes, or none and the reason."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import Asked, Events, Fault, Outcome, RigError
from neurogym_v.rigs.clocks import Clocks
from neurogym_v.rigs.displays.server import FLASH_S
from neurogym_v.rigs.event_rig import BLIND, FLASHES_S, EventRig
from neurogym_v.rigs.recorder import KEPT_S, Recorder
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError
from tests.scripted_rig import OFFSET_S, ScriptedAcquisition, ScriptedPresenter, Trial

IMAGES = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 8, 8).contiguous()


def respond(image: int) -> list[tuple[float, int]]:
    """`image` spikes of channel 0 in the window and one of channel 1; others just outside of it."""
    inside = [(0.071 + 0.005 * i, 0) for i in range(image)]
    return [*inside, (0.1, 1), (0.0699, 0), (0.1701, 0), (-0.02, 0)]


def rig(change=lambda _: None, *, patience_s: float = 0.1, **window) -> EventRig:
    acquisition = ScriptedAcquisition()
    made = EventRig(
        ScriptedPresenter(acquisition, respond, change), acquisition, window=Window(**window), patience_s=patience_s
    )
    made.open()
    return made


def shown(made: EventRig, count: int = 10, first: int = 0) -> list[Outcome]:
    begun: list[int] = []
    asked = [Asked(first + i, i) for i in range(count)]
    outcomes = [outcome for known in made.show(IMAGES, asked, begun.extend) for outcome in known]
    assert set(begun) == {a.number for a in asked}
    return outcomes


def test_each_image_gets_the_spikes_of_its_own_window() -> None:
    made = rig()
    outcomes = shown(made)
    assert [o.number for o in outcomes] == list(range(10))
    np.testing.assert_array_equal([o.counts for o in outcomes], [[i, 1] for i in range(10)])
    np.testing.assert_allclose([o.rates for o in outcomes], [[10 * i, 10] for i in range(10)])
    assert made.clocks.offset_s == pytest.approx(OFFSET_S, abs=1e-9)
    made.close()
    assert made.acquisition.closed and made.presenter.closed


def test_the_window_starts_with_its_first_moment_and_ends_before_its_last() -> None:
    edges = [(0.07, 0), (0.17, 0)]
    acquisition = ScriptedAcquisition()
    made = EventRig(ScriptedPresenter(acquisition, lambda _: edges), acquisition, window=Window())
    made.open()
    assert [o.counts.tolist() for o in shown(made)] == [[1, 0]] * 10


def test_a_baseline_is_subtracted() -> None:
    outcomes = shown(rig(baseline_s=(-0.025, 0.0)))
    np.testing.assert_allclose([o.rates[0] for o in outcomes], [10 * i - 40 for i in range(10)])
    assert [int(o.counts[0]) for o in outcomes] == list(range(10))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: setattr(t, "broken", True), "fixation broken"),
        (lambda t: setattr(t, "onsets", []), "no onset was measured"),
        (lambda t: setattr(t, "onsets", [(t.onsets[0][0] + 0.0125, -1)]), "its onset was measured +12.5 ms from where"),
        (lambda t: setattr(t, "onsets", [*t.onsets, (t.onsets[0][0] + 0.004, -1)]), "2 onsets where one was expected"),
        (lambda t: setattr(t, "onsets", [(t.onsets[0][0], t.number + 1)]), "its onset was measured +0.0 ms"),
    ],
)
def test_what_is_not_known_for_sure_is_lost_and_its_neighbours_are_not(change, said: str) -> None:
    outcomes = shown(rig(lambda trial: change(trial) if trial.number == 4 else None))
    assert [bool(o.lost) for o in outcomes] == [i == 4 for i in range(10)]
    assert outcomes[4].lost.startswith(said) and outcomes[4].rates is None and outcomes[4].counts is None
    np.testing.assert_array_equal([o.counts[0] for o in outcomes if not o.lost], [i for i in range(10) if i != 4])


def test_silence_of_all_channels_is_no_answer() -> None:
    acquisition = ScriptedAcquisition()
    made = EventRig(
        ScriptedPresenter(acquisition, lambda image: [(0.1, 0)] if image == 7 else []), acquisition, window=Window()
    )
    made.open()
    assert {o.lost for o in shown(made, 5)} == {"no channel has fired since the rig was opened"}
    shown(made, 10, 5)
    after = shown(made, 5, 15)
    assert not any(o.lost for o in after) and after[0].counts.tolist() == [0, 0]


def test_an_onset_that_was_told_twice_is_one() -> None:
    outcomes = shown(rig(lambda trial: trial.onsets.append(trial.onsets[0])))
    assert not any(o.lost for o in outcomes)


def test_images_that_never_reached_the_screen_are_shown_in_the_next_fixation() -> None:
    def look_away(trial: Trial) -> None:
        if len(made.presenter.trials) == 2:
            trial.broken = True
        trial.shown = len(made.presenter.trials) not in (3, 4, 5)

    made = rig()
    made.presenter.change = look_away
    outcomes = shown(made)
    assert [o.number for o in outcomes if not o.shown] == [3, 4, 5]
    assert sorted(o.number for o in outcomes if o.shown) == list(range(10))
    assert [o.number for o in outcomes if o.lost and o.shown] == [2]
    assert [t.number for t in made.presenter.trials] == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9]


def test_a_gap_in_the_stream_costs_the_trials_that_touch_it() -> None:
    def gap(trial: Trial) -> None:
        if trial.number == 3:
            at = trial.onsets[0][0] + 0.1
            made.acquisition.put(faults=(Fault(at, at + 0.001, "messages 5 to 7 are missing"),))

    made = rig()
    made.presenter.change = gap
    outcomes = shown(made)
    assert {o.number: o.lost for o in outcomes if o.lost} == {3: "messages 5 to 7 are missing"}


def test_an_acquisition_that_stops_is_noticed_in_time_and_in_words() -> None:
    made = rig()
    made.presenter.complete = False
    with pytest.raises(RigError, match=r"expected all events up to .* within 0\.1 s, they are complete to .* has it stopped"):
        shown(made)


def test_an_acquisition_that_is_late_and_moves_is_waited_for() -> None:
    made, notes = rig(), list[str]()
    made.note, made.presenter.complete = notes.append, False
    events, reached_s = made.acquisition.events, [made.recorder.complete_s]

    def slowly(timeout_s: float) -> Events:
        if not made.acquisition.queue:
            time.sleep(0.02)
            reached_s.append(min(reached_s[-1] + 0.3, made.presenter.now_s + OFFSET_S + 0.5))
            made.acquisition.put(complete_s=reached_s[-1])
        return events(timeout_s)

    made.acquisition.events = slowly
    outcomes = shown(made)
    np.testing.assert_array_equal([o.counts for o in outcomes], [[i, 1] for i in range(10)])
    assert [note for note in notes if "falls behind" in note] == notes[:1], "it is said once"
    made.close()


def test_what_an_adapter_raises_is_raised_where_someone_asks() -> None:
    made = rig()
    made.acquisition.queue.append(RigError("acquisition at 127.0.0.1:5001: closed its socket"))
    with pytest.raises(RigError, match="closed its socket"):
        shown(made)
    made = rig()
    made.acquisition.queue.append(KeyError("channel"))
    with pytest.raises(RigError, match="its adapter failed with KeyError: 'channel'"):
        shown(made)


def test_without_a_photodiode_it_stops_soon() -> None:
    made = rig()
    made.presenter.change = lambda trial: trial.onsets.clear()
    with pytest.raises(RigError, match=f"none in the last {BLIND} fixations .* is the photodiode on the patch"):
        shown(made, 10)
        shown(made, 10, 10)
    assert len(made.presenter.trials) <= 6 * (BLIND + 1)


def test_a_spike_that_comes_after_the_count_takes_it_back() -> None:
    made = rig()
    outcomes = made.show(IMAGES, [Asked(i, i) for i in range(10)], lambda _: None)
    told = next(known for known in outcomes if known)
    assert [o.number for o in told] == list(range(6))  # a fixation's become known together
    late = told[2].onset_s + 0.12
    made.acquisition.put(spikes=[(late, 0)])
    wait_for(lambda: made.recorder._second_thoughts)
    rest = [outcome for known in outcomes for outcome in known]
    assert [(o.number, o.lost) for o in rest if o.lost] == [(2, "a spike arrived late, after it had been counted")]


def test_what_was_counted_before_the_clocks_run_apart_stays(monkeypatch) -> None:
    made, told = rig(), []
    matched, calls = made.clocks.matched, iter(range(100))

    def drifts(*times: float) -> None:
        if next(calls) >= 4:
            raise RigError("clocks: run apart")
        matched(*times)

    monkeypatch.setattr(made.clocks, "matched", drifts)
    with pytest.raises(RigError, match="run apart"):
        for known in made.show(IMAGES, [Asked(i, i) for i in range(10)], lambda _: None):
            told += [(outcome.number, outcome.lost) for outcome in known]
    assert told == [(i, "") for i in range(4)]


def test_what_becomes_known_after_a_block_is_told_with_the_next() -> None:
    made = rig()
    told = shown(made)
    made.acquisition.put(spikes=[(told[5].onset_s + 0.12, 0)])
    at = told[7].onset_s + 0.1
    made.acquisition.put(faults=(Fault(at, at + 0.01, "message 5 is missing"),))
    wait_for(lambda: len(made.recorder._second_thoughts) == 2)
    again = shown(made, 1, 10)
    assert [(o.number, o.lost) for o in again] == [
        (5, "a spike arrived late, after it had been counted"),
        (7, "message 5 is missing, after it had been counted"),
        (10, ""),
    ]


def test_what_becomes_known_as_the_stream_dies_is_told_too() -> None:
    made = rig()
    told = shown(made)
    made.acquisition.put(spikes=[(told[2].onset_s + 0.12, 0)])
    made.acquisition.queue.append(RigError("gone"))
    wait_for(lambda: made.recorder._error)
    after: list[int] = []
    with pytest.raises(RigError, match="gone"):
        for known in made.show(IMAGES, [Asked(10, 0)], lambda _: None):
            after += [outcome.number for outcome in known]
    assert after == [2]


def test_a_channel_that_never_fired_has_no_rate() -> None:
    acquisition = ScriptedAcquisition(("a", "b", "dead"))
    made = EventRig(ScriptedPresenter(acquisition, respond), acquisition, window=Window())
    notes: list[str] = []
    made.note = notes.append
    made.open()
    outcomes = shown(made)
    assert all(np.isnan(o.rates[2]) and np.isfinite(o.rates[:2]).all() for o in outcomes)
    assert sum("have not fired" in note and "dead" in note for note in notes) == 1


def test_a_rig_that_failed_can_be_opened_again() -> None:
    made = rig()
    made.acquisition.queue.append(RigError("gone"))
    with pytest.raises(RigError, match="gone"):
        shown(made)
    made.close()
    made.acquisition.queue.clear()
    made.presenter.reports_.clear()
    made.open()
    assert [o.lost for o in shown(made, 10, 10)] == [""] * 10


def test_a_process_that_was_held_up_does_not_take_it_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    made, clock, times = rig(), time.monotonic, []

    def held_up() -> float:
        times.append(0)
        return clock() + 10.0 * len(times)  # ten seconds pass between any two looks

    monkeypatch.setattr("neurogym_v.rigs.event_rig.REALIGN_S", 1e9)
    monkeypatch.setattr("neurogym_v.rigs.event_rig.time.monotonic", held_up)
    assert not any(o.lost for o in shown(made))


def test_a_photodiode_that_is_the_wrong_way_round_is_no_alignment() -> None:
    """Edges at the end of flashes, which the display server makes of two lengths."""
    lengths = np.array([FLASH_S if i % 3 else 2 * FLASH_S for i in range(len(FLASHES_S))])
    with pytest.raises(RigError, match="found 0 ways"):
        Clocks(0.008).align(np.array(FLASHES_S), np.array(FLASHES_S) + lengths)


def test_spikes_of_a_channel_that_is_none_and_times_that_are_none_are_errors() -> None:
    for spikes, said in (([(1.0, 2)], "expected channels 0 to 1, got 2"), ([(np.nan, 0)], "expected finite times")):
        made = rig()
        made.acquisition.put(spikes=spikes)
        with pytest.raises(RigError, match=said):
            wait_for(made.recorder.check)


def test_events_with_unequal_lengths_are_refused() -> None:
    with pytest.raises(RigError, match="expected a channel for each spike"):
        Events(spike_s=np.zeros(2), channel=np.zeros(1, dtype=np.intp))


def test_the_recorder_forgets_what_nobody_needs() -> None:
    acquisition = ScriptedAcquisition()
    recorder = Recorder(acquisition)
    recorder.start()
    for second in range(2000, 2400):
        acquisition.put(spikes=[(second + 0.1, 0)], onsets=[(second + 0.2, -1)], complete_s=second + 1)
        if second % 50 == 0:
            wait_for(lambda second=second: recorder.complete_s == second + 1)
            assert len(recorder.spikes(0, 9999)[0]) <= KEPT_S + 1
    wait_for(lambda: recorder.complete_s == 2400)
    recorder.stop()
    assert len(recorder.spikes(0, 9999)[0]) <= KEPT_S + 1 and len(recorder.onsets().s) <= KEPT_S + 1
    assert recorder.spikes_seen.tolist() == [400, 0]


@settings(max_examples=30, deadline=None)
@given(
    offset=st.floats(-1e5, 1e5),
    drift=st.floats(-2e-4, 2e-4),
    extra=st.lists(st.floats(0, 4), max_size=3),
)
def test_clocks_are_joined_whatever_their_offset_and_small_drift(offset: float, drift: float, extra: list[float]) -> None:
    clocks, flashes = Clocks(0.008), np.array([0.05, 0.15, 0.32, 0.44, 0.67, 0.81, 1.0, 1.11])

    def onset(s):
        return offset + s * (1 + drift)

    clocks.align(flashes, np.array([*onset(flashes), *(offset + 20 + e for e in extra)]))
    for at in np.arange(2, 300, 2.0):
        assert abs(clocks.predict(at) - onset(at)) < clocks.tolerance_s
        clocks.matched(float(at), float(onset(at)))
    assert clocks.drift == pytest.approx(drift, abs=1e-9 + 1e-6 * abs(offset) / 1e3)


def test_flashes_that_were_not_all_seen_are_no_alignment() -> None:
    flashes = np.array([0.05, 0.15, 0.32, 0.44, 0.67, 0.81, 1.0, 1.11])
    with pytest.raises(RigError, match="among the 7 onsets of the acquisition, in one way, and found 0 ways"):
        Clocks(0.008).align(flashes, flashes[1:] + 7)


def test_clocks_that_run_apart_are_an_error() -> None:
    clocks = Clocks(0.008)
    clocks.align(np.array([0.0, 0.3]), np.array([0.0, 0.3]))
    with pytest.raises(RigError, match=r"drift by less than 1000 ppm, got 5\d{4} ppm"):
        for at in np.arange(1, 20, 0.5):
            clocks.matched(float(at), float(at * 1.05))


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({"response_s": (0.17, 0.07)}, "expected a start before an end"),
        ({"response_s": (-0.1, 0.1)}, "expected one that starts after the onset"),
        ({"response_s": (70.0, 170.0)}, "within -1 and 5 s"),
        ({"baseline_s": (0.0, 0.0)}, "baseline window"),
    ],
)
def test_windows_that_are_none_are_refused(window, said: str) -> None:
    with pytest.raises(NeuroGymError, match=said):
        Window(**window)


def wait_for(happens, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.002)
