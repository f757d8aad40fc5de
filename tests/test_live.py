"""The live neuron behind the interface of every other: nothing shown is lost, nothing is counted twice."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from neurogym_v.journal import Journal, JournalError, JournalInUse
from neurogym_v.neurons.simulated import Neuron
from neurogym_v.rigs import RigError
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.log import INTERRUPTED, Begun, LiveLog
from neurogym_v.rigs.window import Window
from neurogym_v.session import Session
from neurogym_v.types import NeuroGymError
from tests.conftest import Cosines
from tests.scripted_rig import ScriptedAcquisition, ScriptedPresenter, Trial

IMAGES = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 8, 8).contiguous()
RNG = np.random.default_rng(0)
DIM = Cosines().latent_dim


def respond(image: int) -> list[tuple[float, int]]:
    return [(0.071 + 0.004 * i, 0) for i in range(image)] + [(0.1, 1)]


def live(tmp_path, change=lambda _: None, *, again: int = 2) -> LiveNeuron:
    acquisition = ScriptedAcquisition()
    rig = EventRig(ScriptedPresenter(acquisition, respond, change), acquisition, window=Window(), patience_s=0.1)
    neuron = LiveNeuron(rig, tmp_path / "live.sqlite", again=again)
    return neuron.begin(RNG)


def trials(neuron: LiveNeuron) -> list[Trial]:
    return neuron.rig.presenter.trials


def breaking(*times: int):
    """Fixation breaks in the presentations that are the n-th of their session."""
    count = iter(range(10**6))
    return lambda trial: setattr(trial, "broken", next(count) in times)


def test_it_is_a_neuron_that_answers_in_order(tmp_path) -> None:
    neuron = live(tmp_path)
    assert isinstance(neuron, Neuron) and neuron.sites == 2
    rates = neuron.present(IMAGES, np.array([3, 3, 0, 9, 1]), RNG)
    np.testing.assert_allclose(rates, [[30, 10], [30, 10], [0, 10], [90, 10], [10, 10]])
    assert neuron.state() == {"presented": 5, "repeated": 0}


def test_what_is_lost_is_shown_again_and_paid_for(tmp_path) -> None:
    neuron = live(tmp_path, breaking(2, 7))
    rates = neuron.present(IMAGES, np.arange(6), RNG)
    np.testing.assert_allclose(rates[:, 0], [0, 10, 20, 30, 40, 50])
    assert [t.image for t in trials(neuron)] == [0, 1, 2, 3, 4, 5, 2]
    assert neuron.repeated == 1
    logged = neuron.log.presentations()
    assert [p.begun.position for p in logged] == [0, 1, 2, 3, 4, 5, 2]
    assert [p.outcome.lost for p in logged] == ["", "", "fixation broken", "", "", "", ""]


def test_what_stays_lost_is_nan(tmp_path) -> None:
    neuron = live(tmp_path, lambda trial: setattr(trial, "broken", trial.image == 4), again=3)
    rates = neuron.present(IMAGES, np.arange(6), RNG)
    assert np.isnan(rates[4]).all() and np.isfinite(np.delete(rates, 4, axis=0)).all()
    assert neuron.repeated == 3 and sum(t.image == 4 for t in trials(neuron)) == 4
    never = live(tmp_path / "never", breaking(1), again=0)
    assert np.isnan(never.present(IMAGES, np.arange(3), RNG)[1]).all() and never.repeated == 0


def test_what_never_reached_the_screen_costs_nothing(tmp_path) -> None:
    def look_away(trial: Trial) -> None:
        trial.broken, trial.shown = trial.number == 1, not 1 < len(trials(neuron)) < 5

    neuron = live(tmp_path)
    neuron.rig.presenter.change = look_away
    rates = neuron.present(IMAGES, np.arange(5), RNG)
    np.testing.assert_allclose(rates[:, 0], 10 * np.arange(5))
    logged = neuron.log.presentations()
    assert neuron.repeated == 1 and [p.begun.position for p in logged] == [0, 1, 2, 3, 4, 1]


def test_a_session_pays_for_what_was_shown_again(tmp_path) -> None:
    session = Session(Cosines(), live(tmp_path, breaking(2, 7, 9)), seed=0)
    session.show_latents(np.zeros((6, DIM), dtype=np.float32), kind="search")
    assert (session.shown["search"], session.shown["repeated"], session.shown.total()) == (6, 1, 7)
    session.show_latents(np.zeros((6, DIM), dtype=np.float32), kind="search")
    assert session.shown.total() == 15


def test_a_rig_that_fails_within_a_block_costs_only_what_was_on_the_screen(tmp_path) -> None:
    def fail(trial: Trial) -> None:
        if trial.number == 8:
            first.rig.acquisition.queue.append(RigError("acquisition: gone"))

    first = live(tmp_path, fail)
    with pytest.raises(RigError, match="gone"):
        first.present(IMAGES, np.arange(10), RNG)
    with LiveLogOf(tmp_path) as log:
        before = log.presentations()
    answered = [p.begun.position for p in before if not p.outcome.lost]
    assert set(answered) >= set(range(6))  # the fixation before
    assert {p.outcome.lost for p in before if p.outcome.lost} == {f"{INTERRUPTED}: RigError: acquisition: gone"}
    second = live(tmp_path)
    rates = second.present(IMAGES, np.arange(10), RNG)
    np.testing.assert_allclose(rates[:, 0], 10 * np.arange(10))
    assert not {t.image for t in trials(second)} & set(answered), "what had been answered was shown again"
    assert second.repeated == len(before) - len(answered)


def test_interruptions_do_not_use_up_what_may_be_shown_again(tmp_path) -> None:
    for _ in range(3):
        failing = live(tmp_path, again=0)
        failing.rig.presenter.change = lambda _, gone=failing.rig.acquisition.queue: gone.append(RigError("gone"))
        with pytest.raises(RigError, match="gone"):
            failing.present(IMAGES, np.arange(4), RNG)
    good = live(tmp_path, again=0)
    np.testing.assert_allclose(good.present(IMAGES, np.arange(4), RNG)[:, 0], 10 * np.arange(4))
    assert good.repeated == len(good.log.presentations()) - 4 > 0


def test_a_count_that_an_agent_was_told_and_that_falls_is_said(tmp_path) -> None:
    neuron = live(tmp_path)
    neuron.present(IMAGES, np.arange(4), RNG)
    onset_s = neuron.log.presentations()[2].outcome.onset_s
    neuron.rig.acquisition.put(spikes=[(onset_s + 0.1, 0)])
    while not neuron.rig.recorder._second_thoughts:
        time.sleep(0.001)
    with pytest.raises(RigError, match="expected the count of presentation 2 to stand, as it was told to the agent"):
        neuron.present(IMAGES, np.arange(4), RNG)
    with LiveLogOf(tmp_path) as log:
        assert log.presentations()[2].outcome.lost == "a spike arrived late, after it had been counted"


def test_a_session_measures_the_same_to_its_end(tmp_path) -> None:
    meta = {"channels": "a", "measures": '{"response_ms": [70, 170]}', "rig": "x"}
    LiveLog(tmp_path / "live.sqlite", meta=meta).close()
    with pytest.raises(JournalError, match=r"the measures that it was begun with, response_ms \[70, 170\], got .* \[50, 90\]"):
        LiveLog(tmp_path / "live.sqlite", meta=meta | {"measures": '{"response_ms": [50, 90]}'})
    more = meta | {"measures": '{"response_ms": [70, 170], "on_ms": 100.0}'}  # of a later version, which compares more
    LiveLog(tmp_path / "live.sqlite", meta=more).close()
    log = LiveLog(tmp_path / "live.sqlite", meta=meta | {"rig": "y"})
    assert "the rig file is another one now" in log.notes()[-1][1]
    log.close()


def test_a_journal_and_a_log_go_on_together(tmp_path) -> None:
    latents = np.random.default_rng(1).standard_normal((3, 8, DIM)).astype(np.float32)
    with Journal(tmp_path / "journal.sqlite", config={}) as journal:
        neuron = live(tmp_path, breaking(3))
        session = Session(Cosines(), neuron, seed=0, journal=journal)
        first = [session.show_latents(x, kind="search")[1] for x in latents[:2]]
        neuron.close()
    with Journal(tmp_path / "journal.sqlite") as journal:
        again = live(tmp_path)
        session = Session(Cosines(), again, seed=0, journal=journal)
        replayed = [session.show_latents(x, kind="search")[1] for x in latents[:2]]
        np.testing.assert_array_equal(first, replayed)
        assert not trials(again) and session.shown.total() == 17
        session.show_latents(latents[2], kind="search")
        assert [t.number for t in trials(again)] == list(range(17, 25))


def test_a_log_of_other_images_is_refused(tmp_path) -> None:
    neuron = live(tmp_path)
    neuron.present(IMAGES, np.arange(4), RNG)
    neuron.close()
    with pytest.raises(JournalError, match="found that others were shown as presentation 0"):
        live(tmp_path).present(IMAGES, np.arange(4)[::-1].copy(), RNG)


def test_what_was_begun_when_the_session_died_is_lost_and_shown_again(tmp_path) -> None:
    neuron = live(tmp_path)
    neuron.present(IMAGES, np.arange(4), RNG)
    digest = neuron.log.presentations()[2].begun.image
    neuron.log.begin([Begun(4, 4, digest)])
    neuron.close()
    after = live(tmp_path)
    after.restore({"presented": 4, "repeated": 0})
    np.testing.assert_allclose(after.present(IMAGES, np.array([2]), RNG), [[20, 10]])
    assert [p.outcome.lost for p in after.log.presentations(4)] == [INTERRUPTED, ""] and after.repeated == 1


def test_a_log_keeps_everything_of_a_presentation(tmp_path) -> None:
    neuron = live(tmp_path)
    neuron.present(IMAGES, np.array([2]), RNG)
    outcome = neuron.log.presentations()[0].outcome
    np.testing.assert_allclose(outcome.spike_s, [0.071, 0.075, 0.1])
    assert outcome.channel.tolist() == [0, 0, 1] and outcome.counts.tolist() == [2, 1] and np.isfinite(outcome.onset_s)
    assert any("clocks aligned" in what for _, what in neuron.log.notes())


def test_logs_that_are_none_are_refused(tmp_path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(JournalError, match="expected a whole, writable SQLite file"):
        LiveLog(tmp_path / "text")
    Journal(tmp_path / "journal.sqlite", config={}).close()
    with pytest.raises(JournalError, match="expected the log of a live neuron"):
        LiveLog(tmp_path / "journal.sqlite")
    kept = LiveLog(tmp_path / "live.sqlite", meta={"channels": "a\nb"})
    with pytest.raises(JournalInUse):
        LiveLog(tmp_path / "live.sqlite")
    kept.close()
    with pytest.raises(JournalError, match="expected the channels that it was begun with"):
        LiveLog(tmp_path / "live.sqlite", meta={"channels": "a"})


def test_settings_and_states_that_cannot_be_are_refused(tmp_path) -> None:
    with pytest.raises(NeuroGymError, match="again: expected 0 or more"):
        live(tmp_path, again=-1)
    with pytest.raises(NeuroGymError, match="expected how many were presented and repeated"):
        live(tmp_path).restore({"presented": 3})
    with pytest.raises(NeuroGymError, match=r"images: expected \(n, 3, s, s\) uint8"):
        live(tmp_path).present(IMAGES.float(), np.arange(2), RNG)


class LiveLogOf(LiveLog):
    def __init__(self, folder) -> None:
        super().__init__(folder / "live.sqlite")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()
