"""Lab Streaming Layer, both ends over real sockets: what is sent arrives, and all that goes wrong on the way is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neurogym_v.rigs import NO_NUMBER, Events, RigError
from neurogym_v.rigs.acquisitions import lsl, lsl_config
from neurogym_v.rigs.acquisitions.lsl import LSL
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.lsl import LSLSource
from neurogym_v.rigs.virtual.mischief import Mischief, Misdeed
from neurogym_v.testing_rigs import check_acquisition

pylsl = pytest.importorskip("pylsl")
RATE = 30_000
SITES = ("A#1", "B", "A#2")
LENGTH = RATE // 100
"""Samples of a stretch."""


def stretch(place: int) -> Stretch:
    """Some spikes, and in every tenth an onset, numbered by its stretch."""
    rng = np.random.default_rng(place)
    start = place * LENGTH
    spike = np.sort(rng.choice(LENGTH, rng.integers(0, 6), replace=False)) + start
    onset = place % 10 == 0
    return Stretch(
        start=start,
        end=start + LENGTH,
        spike=spike,
        channel=rng.integers(0, 3, len(spike)),
        edge=np.array([start + 7, start + 150])[: 2 * onset],
        high=np.array([True, False])[: 2 * onset],
        number=np.array([place, NO_NUMBER])[: 2 * onset],
    )


@pytest.fixture
def pair() -> Iterator[Callable[..., tuple[LSLSource, LSL]]]:
    """A source and an acquisition that is connected to it."""
    ends: list[Any] = []

    def make(mischief: Mischief | None = None, channels: tuple[str, ...] = SITES, **settings: Any) -> tuple[LSLSource, LSL]:
        source = LSLSource(SITES, RATE, mischief, **settings)
        ends.append(source)
        source.open()
        acquisition = LSL(channels=channels, **source.settings)
        ends.append(acquisition)
        acquisition.open()
        return source, acquisition

    yield make
    for end in reversed(ends):
        end.close()


def together(heard: list[Events]) -> Events:
    parts = [np.concatenate([getattr(e, name) for e in heard]) for name in ("spike_s", "channel", "onset_s", "number")]
    return Events(*parts, heard[-1].complete_s, tuple(fault for e in heard for fault in e.faults))


def listen(acquisition: LSL, until_s: float) -> Events:
    """All that comes until it is complete."""
    heard, deadline = [Events()], time.monotonic() + 5
    while heard[-1].complete_s < until_s and time.monotonic() < deadline:
        heard.append(acquisition.events(0.1))
    return together(heard)


def base_s(source: LSLSource) -> float:
    return source._base_s


@pytest.mark.parametrize("settings", [{}, {"onsets": "markers"}], ids=["one stream", "markers"])
def test_both_ends_keep_the_contract(settings: dict[str, Any]) -> None:
    with closing(LSLSource(SITES, RATE, **settings)) as source:
        source.open()
        check_acquisition(lambda: LSL(channels=SITES, **source.settings), source.write, sample_rate=RATE)


MISDEEDS = ("drop", "delay", "reorder", "duplicate", "corrupt", "half", "burst")


@pytest.mark.parametrize("fault", MISDEEDS)
def test_what_goes_wrong_with_messages_lies_within_faults(fault: str, pair) -> None:
    """Beyond the faults each spike and onset came once; and what was taken away or touched lies in one of them."""
    misdeeds: list[Misdeed] = []
    source, acquisition = pair(
        Mischief(fault, every={"delay": 60, "burst": 200}.get(fault, 25), after=20, told=misdeeds.append)
    )
    stretches = [stretch(place) for place in range(130)]
    for each in stretches:
        source.write(each)
    heard = listen(acquisition, base_s(source) + stretches[-1].end / RATE)
    faults = [f for f in heard.faults if f.end_s > base_s(source) + 1e-9 and f.start_s > -np.inf]
    assert misdeeds and bool(faults) == (fault != "delay")

    def clean(samples: np.ndarray) -> np.ndarray:
        at = base_s(source) + np.asarray(samples) / RATE
        inside = [(at >= f.start_s - 1e-9) & (at <= f.end_s + 1e-9) for f in faults]
        return ~np.any(inside, axis=0) if faults else np.ones(len(at), dtype=bool)

    spike, channel = (np.concatenate([getattr(s, name) for s in stretches]) for name in ("spike", "channel"))
    edge, number = (np.concatenate([getattr(s, name)[s.high] for s in stretches]) for name in ("edge", "number"))
    for came_s, came, played, there in (
        (heard.spike_s, heard.channel, spike, channel),
        (heard.onset_s, heard.number, edge, number),
    ):
        sample = np.rint((came_s - base_s(source)) * RATE).astype(int)
        got = sorted(zip(sample[clean(sample)].tolist(), came[clean(sample)].tolist(), strict=True))
        assert got == sorted(zip(played[clean(played)].tolist(), there[clean(played)].tolist(), strict=True))
        assert len(got) > 0.2 * len(played)
    for misdeed in misdeeds:
        start_s, end_s = base_s(source) + misdeed.start / RATE, base_s(source) + misdeed.end / RATE
        covered = [f for f in faults if f.start_s <= start_s + 1e-9 and f.end_s >= end_s - 1e-9]
        touched = [f for f in faults if f.start_s <= end_s and f.end_s >= end_s - 1e-9]  # all of it came, and then again
        assert covered or fault == "delay" or (touched and fault == "duplicate"), f"{misdeed} lies in no fault of {faults}"


def test_a_stream_that_falls_silent_is_told(pair) -> None:
    source, acquisition = pair(Mischief("stall", after=5))
    for place in range(10):
        source.write(stretch(place))
    began = time.monotonic()
    with pytest.raises(RigError, match=r"every 10 ms or so, but stream 'spikes-\w+' was silent for 1 s; is its sender still"):
        listen(acquisition, np.inf)
    assert 0.9 < time.monotonic() - began < 2
    began = time.monotonic()
    with pytest.raises(RigError, match="silent"):
        acquisition.events(5)
    assert time.monotonic() - began < 2
    acquisition.arm()  # a second again
    assert acquisition.events(0).complete_s > 0


def test_a_reader_that_was_busy_for_long_does_not_take_itself_for_the_silent_one(pair) -> None:
    source, acquisition = pair()
    acquisition.patience_s = 0.05
    source.write(stretch(0))
    time.sleep(0.2)
    assert acquisition.events(1.0).complete_s == pytest.approx(base_s(source) + 0.01)


@pytest.mark.parametrize("settings", [{}, {"onsets": "markers"}], ids=["one stream", "markers"])
def test_a_stream_that_ends_is_told_soon(settings: dict[str, Any], pair) -> None:
    source, acquisition = pair(Mischief("die", after=5), **settings)
    began = time.monotonic()
    for place in range(10):
        source.write(stretch(place))
    with pytest.raises(RigError, match=r"acquisition lsl: expected stream 'spikes-\w+' to go on, but the stream has been lost"):
        listen(acquisition, np.inf)
    assert time.monotonic() - began < 0.9


def test_markers_that_end_are_told_soon(pair) -> None:
    source, acquisition = pair(onsets="markers")
    source._marker_outlet = None
    with pytest.raises(RigError, match=r"expected stream 'markers-\w+' to go on, but the stream has been lost"):
        for place in range(500):
            source.write(stretch(place))
            acquisition.events(0.01)


def test_markers_wait_for_those_that_are_on_their_way(pair) -> None:
    source, acquisition = pair(onsets="markers")
    source.write(stretch(0))
    end_s = base_s(source) + 0.01
    began, heard = time.monotonic(), [Events()]
    while heard[-1].complete_s < end_s:
        heard.append(acquisition.events(0.02))
        assert time.monotonic() - began < 2
    assert time.monotonic() - began > 0.099
    source._marker_outlet.push_sample(["nonsense"], end_s + 0.002)
    source._marker_outlet.push_sample(['{"event": "onset", "number": 3}'], end_s - 0.002)
    source.write(stretch(1))
    events = listen(acquisition, end_s + 0.01)
    assert [f.what.partition(":")[0][:40] for f in events.faults] == [
        "a marker is no JSON",
        "the marker of onset 3 came too late; a l",
    ]
    assert not len(events.onset_s) and np.concatenate([e.number for e in heard]).tolist() == [0]


def test_a_marker_that_comes_just_in_time_counts(pair) -> None:
    source, acquisition = pair(onsets="markers")
    source.write(stretch(1))
    deadline = time.monotonic() + 5
    while not acquisition._settling and time.monotonic() < deadline:  # until its watermark has come
        assert acquisition.events(0.1).complete_s == -np.inf
    source._marker_outlet.push_sample([b'{"event": "onset", "number": 5}'], base_s(source) + 0.015)
    time.sleep(acquisition.settle_s + 0.1)
    events = acquisition.events(0)
    assert (events.number.tolist(), events.complete_s) == ([5], pytest.approx(base_s(source) + 0.02))


def test_markers_from_another_host_are_moved_to_the_clock_of_the_spikes(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the spikes is 7 s ahead of this machine's, and that of the markers is a microsecond behind, then more."""
    hosts = iter(["display", "amplifier"] * 9)
    monkeypatch.setattr(pylsl.StreamInfo, "hostname", lambda _: next(hosts))
    monkeypatch.setattr(lsl, "MEASURE_S", 0.0)
    measured: list[float] = []

    def correction(inlet: Any, _: float) -> float:
        measured.append(pylsl.local_clock())
        return 1e-6 * len(measured) if inlet.channel_format == pylsl.cf_string else -7.0

    monkeypatch.setattr(pylsl.StreamInlet, "time_correction", correction)
    source, acquisition = pair(onsets="markers")
    place = 10 * (1 + int(10 * (pylsl.local_clock() - base_s(source))))
    at = base_s(source) + place / 100 + 7 / RATE
    while pylsl.local_clock() < at:
        time.sleep(0.01)
    source.write(stretch(place))
    heard = listen(acquisition, base_s(source) + place / 100 + 0.01)
    (first, before), (second, after) = acquisition.corrections  # two comparisons: at the start, and for the marker
    assert (before, after) == pytest.approx((7 + 2e-6, 7 + 4e-6), abs=1e-9)
    assert first < at < second
    assert heard.onset_s == pytest.approx(at + np.interp(at, [first, second], [before, after]), abs=1e-9)


def test_both_senders_on_one_host_have_one_clock(pair) -> None:
    _, acquisition = pair(onsets="markers")
    assert acquisition.corrections == []


def refusal(acquisition: LSL, within_s: float = 2.0) -> str:
    began = time.monotonic()
    with pytest.raises(RigError) as caught:
        acquisition.open()
    assert time.monotonic() - began < within_s + 0.5
    with pytest.raises(RigError, match="expected it to be open"):
        acquisition.events(0)
    return str(caught.value)


def test_nobody_there_and_wrong_names_are_told(pair) -> None:
    source, _ = pair()
    said = refusal(LSL(channels=("A",), spikes="spieks"))
    assert (
        "expected one stream named 'spieks', found none" in said and str(source.settings["spikes"]) in said
    )  # it names others
    assert "'X#1' in" not in refusal(LSL(channels=("X#1",), **source.settings), 0.5)
    assert "expected one channel 'X' in the stream, found none in: A, B" in refusal(LSL(channels=("X",), **source.settings))
    said = refusal(LSL(channels=("A",), onsets="markers", markers="mrk", **source.settings))
    assert "expected one stream named 'mrk'" in said


def test_two_streams_of_one_name_are_one_too_many(pair) -> None:
    source, _ = pair()
    name = str(source.settings["spikes"])
    with closing(LSLSource(SITES, RATE, spikes=name)) as twin:
        twin.open()
        assert f"expected one stream named '{name}', found 2" in refusal(LSL(channels=SITES, spikes=name))


def test_a_stream_of_other_values_is_told(pair) -> None:
    source, _ = pair(onsets="markers")
    said = refusal(LSL(channels=SITES, spikes=str(source.settings["markers"])))
    assert "to have 3 int32 values a sample, got 1 string; " in said


def test_settings_are_checked() -> None:
    for changes, message in (
        ({"channels": ()}, "channels as a list of names, each once"),
        ({"channels": ("A", "A")}, "channels as a list of names, each once"),
        ({"channels": "AB"}, "channels as a list of names, each once, got 'AB'"),
        ({"onsets": "ttl"}, "expected onsets = spikes or markers, got 'ttl'"),
        ({"settle_ms": -1}, "expected settle_ms from 0 to 1000, got -1"),
        ({"spikes": "it's"}, "expected the name of a stream, without quotes"),
    ):
        with pytest.raises(RigError, match=message):
            LSL(**{"channels": ("A",), **changes})  # type: ignore[arg-type]


def test_what_is_sent_before_and_after_is_nobodys(pair) -> None:
    source = LSLSource(SITES, RATE)
    source.write(stretch(0))  # not open
    source.close()
    source, acquisition = pair()
    source.close()
    source.close()
    source.write(stretch(0))
    with pytest.raises(RigError, match="lost"):
        listen(acquisition, 0)


def test_without_settings_of_the_lab_this_machine_alone_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    library = lsl_config.library.__wrapped__
    monkeypatch.setattr(lsl_config, "require", lambda *_, **__: SimpleNamespace(set_config_content=told.append))
    monkeypatch.setattr(lsl_config, "FILES", ("lsl_api.cfg",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSLAPICFG", raising=False)
    library("test")
    assert told == [lsl_config.SETTINGS] and "ResolveScope=machine" in told[0] and "KnownPeers={127.0.0.1}" in told[0]
    (tmp_path / "lsl_api.cfg").write_text("[lab]\n")
    library("test")
    (tmp_path / "lsl_api.cfg").unlink()
    monkeypatch.setenv("LSLAPICFG", "lab.cfg")
    library("test")
    assert len(told) == 1  # the lab's count
    monkeypatch.delenv("LSLAPICFG")
    monkeypatch.setattr(lsl_config, "require", lambda *_, **__: SimpleNamespace())
    with pytest.raises(RigError, match="test: expected pylsl 1.18 with liblsl, got: .*set_config_content.*set LSLAPICFG"):
        library("test")


def test_liblsl_took_these_settings(pair) -> None:
    source, _ = pair()
    if source._outlet.get_info().session_id() != "neurogym-v":
        pytest.skip("this machine has settings of LSL of its own")
    assert source._outlet.get_info().session_id() == "neurogym-v"
