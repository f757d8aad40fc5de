"""The virtual rig tells the truth: its log is what its spikes and edges say, and what it does wrong it writes down."""

from __future__ import annotations

import hashlib
import json
import math
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.neurons.gabor import Gabor
from neurogym_v.noise import with_noise
from neurogym_v.rigs import NO_NUMBER
from neurogym_v.rigs.build import load
from neurogym_v.rigs.log import FILE, LiveLog
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.clock import HeldClock
from neurogym_v.rigs.virtual.config import VirtualConfig
from neurogym_v.rigs.virtual.mischief import BURST, FAULTS, MESSAGES, Mischief, Misdeed
from neurogym_v.rigs.virtual.rig import VirtualRig
from neurogym_v.rigs.virtual.screen import VirtualScreen
from neurogym_v.rigs.virtual.world import World
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError

RATE = 20000.0
CELL = with_noise(Gabor(size=32), "modulated:0.15+lost:0.2")


def world(tmp_path, **settings_) -> World:
    return World(
        CELL, ("a", "b"), sites=(1, 2), window=Window(), sample_rate=RATE, pace=50, log=tmp_path / "rig.jsonl", **settings_
    )


def shown(made: World, images: int = 60) -> Stretch:
    """Show images as a display does, and give the stream of it in one piece."""
    screen, rng = VirtualScreen(made), np.random.default_rng(0)
    screen.load([str(i) for i in range(8)], rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8))
    parts, at_s = [], made.clock.now()
    for number in range(images):
        at_s = screen.flip(str(number % 8), patch=True, at_s=at_s + 0.1, number=number)
        parts.append(made.stretch())
        screen.fixating()
        at_s = screen.flip(None, patch=False, at_s=at_s + 0.1)
        parts.append(made.stretch())
    screen.flip(None, patch=False, at_s=at_s + 0.5)
    parts.append(made.stretch())
    assert all(a.end == b.start for a, b in pairwise(parts)), "stretches follow each other without gaps"
    assert all(part.start <= part.spike.min(initial=part.start) and part.spike.max(initial=-1) < part.end for part in parts)
    both = {
        key: np.concatenate([getattr(part, key) for part in parts]) for key in ("spike", "channel", "edge", "high", "number")
    }
    return Stretch(start=parts[0].start, end=parts[-1].end, **both)


def truth(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "rig.jsonl").read_text().splitlines()]


def test_the_log_is_what_stream_and_window_say(tmp_path) -> None:
    stream, window = shown(world(tmp_path)), Window()
    lines = truth(tmp_path)
    assert len(lines) == 60 and {line["broken"] for line in lines} == {True, False}
    onsets = dict(zip(stream.number[stream.high].tolist(), stream.edge[stream.high].tolist(), strict=True))
    for line in lines:
        assert onsets[line["number"]] == line["onset"]
        counts, _ = window.rates((stream.spike - line["onset"]) / RATE, stream.channel, 2)
        assert counts.tolist() == line["counts"]
    assert sum(sum(line["counts"]) for line in lines) > 20


def test_edges_alternate_and_spikes_of_a_channel_keep_their_distance(tmp_path) -> None:
    stream = shown(world(tmp_path))
    assert stream.high.tolist() == [True, False] * 60
    for channel in range(2):
        assert np.diff(np.sort(stream.spike[stream.channel == channel])).min() >= 0.0015 * RATE


def test_onsets_fall_on_frames_and_a_photodiode_follows(tmp_path) -> None:
    made = world(tmp_path, drift=1e-4)
    screen = VirtualScreen(made, refresh_hz=75.0)
    screen.load(["x"], np.zeros((1, 3, 32, 32), dtype=np.uint8))
    shown_s = [screen.flip("x", patch=True, at_s=0.2 * i + 0.01, number=i) for i in range(5)]
    assert all(math.isclose(s * 75, round(s * 75), abs_tol=1e-6) for s in shown_s)
    onsets = [line["onset"] for line in truth(tmp_path)]
    late_s = np.array(onsets) / RATE - np.array([made.sample(s) for s in shown_s]) / RATE
    assert (late_s > 0.001).all() and (late_s < 0.0018).all()


def test_faults_of_the_world(tmp_path) -> None:
    stream = shown(world(tmp_path, unplugged_after=20))
    assert stream.number[stream.high].tolist() == list(range(20))
    flickering = shown(world(tmp_path, extra_edges=5.0))
    assert (flickering.number[flickering.high] == NO_NUMBER).sum() > 10


@settings(max_examples=60, deadline=None)
@given(
    fault=st.sampled_from([f for f in MESSAGES if f != "delay"]),
    every=st.integers(1, 40),
    after=st.integers(0, 30),
    count=st.integers(1, 200),
)
def test_what_goes_wrong_is_written_down_and_nothing_else_goes_wrong(fault: str, every: int, after: int, count: int) -> None:
    told: list[Misdeed] = []
    mischief = Mischief(fault, every=every, after=after, told=told.append)
    sent = [hashlib.sha256(bytes([i])).digest() for i in range(count)]
    arrived = [list(mischief(message, i, i + 1)) for i, message in enumerate(sent)]
    marked = {misdeed.start for misdeed in told}
    flat = [message for some in arrived for message in some]
    assert marked <= set(range(after, count)) and (count <= after or marked)
    for i, message in enumerate(sent):
        if i not in marked:
            assert flat.count(message) == 1
        elif fault in ("drop", "burst", "corrupt", "half"):
            assert message not in flat
        elif fault == "duplicate":
            assert flat.count(message) == 2
        else:
            assert flat.count(message) == (1 if i + 1 < count else 0)  # held until the next
    if fault == "burst" and count > after:
        assert len(marked) >= min(BURST, count - after)


def test_a_clock_waits_for_who_must_keep_up() -> None:
    wall_s = [100.0]
    clock = HeldClock(40.0, 0.1, wall=lambda: wall_s[0])
    seen = []
    for passed_s, follow in ((0.05, True), (0.3, False), (5.0, True), (0.05, True), (0.1, False), (0.1, False)):
        wall_s[0] += passed_s
        seen.append(clock.now())
        if follow:
            clock.follow()
    assert seen == pytest.approx([2.0, 6.0, 6.0, 8.0, 12.0, 12.0])
    clock.free()
    wall_s[0] += 1.0
    assert clock.now() == pytest.approx(52.0)


def test_time_waits_for_a_rig_that_cannot_keep_up_with_its_pace(tmp_path) -> None:
    """Its stream takes three times as long to be written as it lasts."""
    config = VirtualConfig(transport="open_ephys", sites=(1, 4), pace=40.0, log=tmp_path / "rig.jsonl")
    rig = VirtualRig(CELL, config)
    write = rig.source.write

    def slowly(stretch: Stretch) -> None:
        write(stretch)
        time.sleep(3 * (stretch.end - stretch.start) / config.sample_rate / config.pace)

    rig.source.write = slowly
    rig.open()
    (tmp_path / "rig.toml").write_text(rig.rig_file)
    neuron = load(tmp_path / "rig.toml")
    neuron.keep(tmp_path)
    neuron.open()
    images = torch.zeros((60, 3, 32, 32), dtype=torch.uint8)
    rates = neuron.present(images, np.arange(60), np.random.default_rng(0))
    neuron.close()
    rig.close()
    log = LiveLog(tmp_path / FILE)
    counted = {p.begun.number: p.outcome.counts for p in log.presentations() if p.outcome.counts is not None}
    log.close()
    told = {line["number"]: line["counts"] for line in truth(tmp_path)}
    assert len(counted) > 30 and np.isfinite(rates).mean() > 0.5
    np.testing.assert_array_equal(list(counted.values()), [told[number] for number in counted])


def test_until_it_begins_everything_passes() -> None:
    mischief = Mischief("drop", every=1, after=0)
    mischief.begun = False
    assert list(mischief(b"x", 0, 1)) == [b"x"]
    mischief.begun = True
    assert list(mischief(b"x", 0, 1)) == []


@pytest.mark.parametrize("fault", ["stall", "die"])
def test_a_stream_falls_silent_for_good(fault: str) -> None:
    mischief = Mischief(fault, after=2)
    assert [len(list(mischief(b"x", i, i + 1))) for i in range(6)] == [1, 1, 0, 0, 0, 0]
    assert mischief.stalled == (fault == "stall") and mischief.dead == (fault == "die")


def test_rigs_that_cannot_be_are_refused() -> None:
    with pytest.raises(NeuroGymError, match="unknown fault of a rig 'dorp': did you mean 'drop'"):
        VirtualConfig(fault="dorp")
    with pytest.raises(NeuroGymError, match="unknown transport 'intam'"):
        VirtualConfig(transport="intam")
    with pytest.raises(NeuroGymError, match="sites: expected some of 0 to 11, each once, got 3, 3"):
        VirtualRig(CELL, VirtualConfig(sites=(3, 3)))
    with pytest.raises(NeuroGymError, match="channels: expected 2 names, one a site, got 1"):
        VirtualRig(CELL, VirtualConfig(sites=(3, 4), channels=("a",)))
    with pytest.raises(NeuroGymError, match="every >= 1 and after >= 0"):
        Mischief("drop", every=0)
    assert len(set(FAULTS)) == len(FAULTS)
