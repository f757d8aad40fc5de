"""What an experimenter is told of a rig before its first image."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from neurogym_v.rigs import RigError
from neurogym_v.rigs.check import check, warnings
from neurogym_v.rigs.config import read_rig
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.window import Window
from tests.scripted_rig import OFFSET_S, ScriptedAcquisition, ScriptedPresenter

RIG = """
[acquisition]
kind = "open_ephys"
channels = ["a", "b"]

[presenter]
kind = "remote"

[timing]
on_ms = {on_ms}
off_ms = 100

[window]
response_ms = [{start_ms}, {end_ms}]

[policy]
listen_s = {listen_s}
"""


def rig_of() -> EventRig:
    acquisition = ScriptedAcquisition()
    return EventRig(ScriptedPresenter(acquisition, lambda _: []), acquisition, window=Window(), patience_s=0.1)


def listening(rig: EventRig, *firing: int) -> None:
    """Once it is listened to, a second of its clock arrives, in which these channels fire ten times."""
    presenter, acquisition, wait = rig.presenter, rig.acquisition, rig.recorder.wait
    since_s = OFFSET_S + presenter.now_s
    presenter.now_s += 1
    spikes = [(since_s + i / 10, channel) for i in range(10) for channel in firing]

    def begun(timeout_s: float) -> None:
        rig.recorder.wait = wait
        acquisition.put(spikes=spikes, complete_s=since_s + 1)
        until = time.monotonic() + 10
        while rig.recorder.complete_s < since_s + 1:
            assert time.monotonic() < until, "it never arrived"
            wait(timeout_s)

    rig.recorder.wait = begun


def config_of(tmp_path: Path, *, on_ms: float = 100, start_ms: float = 70, end_ms: float = 170, listen_s: float = 0.1):
    path = tmp_path / "rig.toml"
    path.write_text(RIG.format(on_ms=on_ms, start_ms=start_ms, end_ms=end_ms, listen_s=listen_s))
    return read_rig(path)


@pytest.mark.parametrize(
    ("firing", "settings", "said"),
    [
        ((0, 1), {}, []),
        ((1,), {}, ["channel a: no spike in"]),
        ((), {}, ["channel a: no spike in", "channel b: no spike in"]),
        ((0, 1), {"on_ms": 90}, ["on_ms: 90 ms are 5.40 frames of a screen of 60 Hz; they will be 6, 100.0 ms"]),
        ((0, 1), {"start_ms": 160, "end_ms": 260}, ["response_ms ends 260 ms after the onset"]),
        ((), {"listen_s": 0}, []),
    ],
)
def test_what_is_doubtful_is_said(tmp_path: Path, firing: tuple[int, ...], settings: dict, said: list[str]) -> None:
    rig = rig_of()
    rig.open()
    listening(rig, *firing)
    found = warnings(rig, config_of(tmp_path, **settings))
    rig.close()
    assert len(found) == len(said) and all(part in line for part, line in zip(said, found, strict=True)), found


def test_a_check_finds_the_same_and_the_rates(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("neurogym_v.rigs.check.FLASHES", 0)  # scripted flashes come after what is heard here
    rig = rig_of()
    rig.open()
    listening(rig, 1)
    found = check(rig, config_of(tmp_path, on_ms=90))
    rig.close()
    assert found.spikes_hz[0] == 0 and 5 < found.spikes_hz[1] < 10
    assert len(found.warnings) == 2 and found.refresh_hz == 60


def test_the_log_and_whoever_sits_there_are_warned_before_the_first_image(tmp_path: Path) -> None:
    rig, config = rig_of(), config_of(tmp_path)

    def look():
        listening(rig, 1)
        return warnings(rig, config)

    neuron = LiveNeuron(rig, tmp_path / "live.sqlite", look=look)
    told: list[tuple[str, int]] = []
    neuron.warn = lambda what: told.append((what, len(rig.presenter.trials)))
    images = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    for _ in range(2):  # once a session, not once a block
        neuron.present(images, np.arange(2), np.random.default_rng(0))
    assert len(told) == 1 and told[0][0].startswith("channel a: no spike") and told[0][1] == 0
    assert [what for _, what in neuron.log.notes() if what.startswith("warning: channel a: no spike")]
    neuron.close()


def test_a_check_that_does_not_listen_knows_no_rates(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("neurogym_v.rigs.check.FLASHES", 0)
    rig = rig_of()
    rig.open()
    found = check(rig, config_of(tmp_path, listen_s=0))
    rig.close()
    assert np.isnan(found.spikes_hz).all() and not found.warnings


def test_whoever_ends_the_session_need_not_wait_for_the_channels(tmp_path: Path) -> None:
    rig = rig_of()
    rig.open()
    rig.gate.end()
    began = time.monotonic()
    warnings(rig, config_of(tmp_path, listen_s=30))
    assert time.monotonic() - began < 10
    rig.close()


def test_a_stream_that_dies_while_it_is_listened_to_is_an_error(tmp_path: Path) -> None:
    rig = rig_of()
    rig.open()
    rig.acquisition.queue.append(RigError("gone"))
    with pytest.raises(RigError, match="gone"):
        warnings(rig, config_of(tmp_path, listen_s=5))
    rig.close()
