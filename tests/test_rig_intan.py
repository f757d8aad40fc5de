"""Intan RHX from end to end over real sockets: what arrives is what was sent, or covered by a fault, or an error."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import NO_NUMBER, Acquisition, RigError
from neurogym_v.rigs.acquisitions import intan as reader
from neurogym_v.rigs.acquisitions import intan_control
from neurogym_v.rigs.acquisitions.intan import Intan, _Edges
from neurogym_v.rigs.acquisitions.intan_stream import SPIKE
from neurogym_v.rigs.virtual import Stretch
from neurogym_v.rigs.virtual.mischief import MESSAGES, STREAMS, Mischief, Misdeed
from tests.intan_rig import NAMES, RATE, Kept, Log, Told, listen, play, rig, wait


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy with other things, the virtual rig may fall silent for a while."""
    monkeypatch.setattr(reader, "SILENT_S", 5.0)


@pytest.mark.parametrize("detect", ["spikes", "threshold"])
def test_what_was_sent_arrives(detect: str) -> None:
    log = Log()
    with rig(detect=detect) as (source, intan):
        assert isinstance(intan, Acquisition) and intan.sample_rate == RATE
        told = Told(log)
        listen(intan, play(source, log), told)
    assert told.spikes() == set(zip(log.spike.tolist(), log.channel.tolist(), strict=True)) and len(told.spikes()) > 300
    assert sum(len(e.spike_s) for e in told.events) == len(log.spike)
    assert told.onsets() == set(log.onset.tolist()) and not any(e.faults for e in told.events)
    assert all((e.number == NO_NUMBER).all() for e in told.events)


@pytest.mark.parametrize("detect", ["spikes", "threshold"])
def test_sockets_may_cut_anywhere(detect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, log = np.random.default_rng(0), Log(1)

    def drain(output: socket.socket, which: str) -> tuple[bytes, bool]:
        try:
            return output.recv(int(rng.integers(1, 8_000 if which == "waveform" else 60))), False
        except BlockingIOError:
            return b"", True

    monkeypatch.setattr(reader, "drain", drain)
    with rig(detect=detect) as (source, intan):
        told = Told(log)
        listen(intan, play(source, log), told)
    assert told.spikes() == set(zip(log.spike.tolist(), log.channel.tolist(), strict=True))
    assert told.onsets() == set(log.onset.tolist()) and not any(e.faults for e in told.events)


@pytest.mark.parametrize("fault", [*MESSAGES, *STREAMS])
def test_what_goes_wrong_is_told(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what the format cannot tell: a spike record that is missing, and one byte of it that became a likely other."""
    if fault == "stall":
        monkeypatch.setattr(reader, "SILENT_S", 0.5)
    log, misdeeds = Log(2), list[Misdeed]()
    told = Told(log)
    mischief = Mischief(fault, every=100 if fault != "delay" else 400, seed=3, told=misdeeds.append)
    ended = ""
    with rig(mischief) as (source, intan):
        thread = play(source, log)
        try:
            listen(intan, thread, told)
        except RigError as error:
            ended = str(error)
        thread.join()
    assert misdeeds and bool(ended) == (fault in STREAMS)
    known = told.complete_s * RATE
    truth = {(int(t), int(c)) for t, c in zip(log.spike, log.channel, strict=True) if t < known}
    lost = {spike for spike in truth - told.spikes() if not told.faulty(spike[0])}
    made_up = {spike for spike in told.spikes() - truth if spike[0] < known and not told.faulty(spike[0])}
    records = {m.start for m in misdeeds if m.end == m.start + 1}
    if fault in ("drop", "burst"):
        assert {time for time, _ in lost} <= records and not made_up
    elif fault == "corrupt":
        assert len(made_up) <= len(records) and {time for time, _ in lost} <= records
        for one in made_up:
            assert min(changed_bytes(one, other) for other in lost) == 1
    else:
        assert not lost and not made_up
    onsets = {int(t) for t in log.onset if t < known}
    assert not {t for t in onsets ^ {t for t in told.onsets() if t < known} if not told.faulty(t)}
    blocks = [m for m in misdeeds if m.end > m.start + 1 and m.end < known]
    if fault in ("drop", "half", "burst"):
        assert blocks and all(told.faulty(m.start) and told.faulty(m.end - 1) for m in blocks)
    if fault in ("delay", "duplicate"):
        assert told.spikes() >= truth
    if fault == "stall":
        assert "got none for" in ended
    if fault == "die":
        assert "closed the" in ended or "reset" in ended


def changed_bytes(one: tuple[int, int], other: tuple[int, int]) -> int:
    a, b = (np.array([(0, NAMES[c].encode(), t, 1)], SPIKE).tobytes() for t, c in (one, other))
    return sum(x != y for x, y in zip(a, b, strict=True))


def test_half_a_record_holds_the_watermark_until_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SILENT_S", 0.3)
    told, nothing = Told(Log()), np.empty(0, np.int64)
    with rig() as (source, intan):
        began = time.monotonic()
        for start in range(0, 200_000, 200):
            if start == 4000:
                source._server.send("spike", b"\x0f\x71\xe2\x3aA-0")
            source.write(
                Stretch(
                    start=start,
                    end=start + 200,
                    spike=nothing,
                    channel=nothing,
                    edge=nothing,
                    high=nothing == 0,
                    number=nothing,
                )
            )
            told.add(intan.events(0.01))
            if told.complete_s > 0.5:
                break
            assert told.complete_s < 0.2 or any(e.faults for e in told.events)
            time.sleep(0.002)
        assert time.monotonic() - began > 0.3
    (fault,) = [f for e in told.events for f in e.faults]
    assert fault.start_s == -np.inf and fault.end_s >= 0.2 and "half a spike record (7 bytes)" in fault.what


def test_spikes_are_complete_when_they_have_had_the_time_to_come() -> None:
    told, nothing = Told(Log()), np.empty(0, np.int64)
    with rig(settle_ms=100.0) as (source, intan):
        began = time.monotonic()
        quiet = {"spike": nothing, "channel": nothing, "edge": nothing, "high": nothing == 0, "number": nothing}
        source.write(Stretch(start=0, end=12_800, **quiet))  # type: ignore[arg-type]
        while told.complete_s == -np.inf:
            told.add(intan.events(0.01))
        assert time.monotonic() - began >= 0.1
        assert told.complete_s == (12_799 - 2_000) / RATE


def test_a_line_that_flickers_is_a_fault_and_no_onset() -> None:
    told = Told(Log())
    with rig() as (source, intan):
        for start in range(0, 40_000, 400):
            edge = np.array([20_100, 20_101, 20_103, 20_104, 24_100]) if start in (20_000, 24_000) else np.empty(0)
            edge = edge[(edge >= start) & (edge < start + 400)].astype(np.int64)
            nothing = np.empty(0, np.int64)
            source.write(
                Stretch(
                    start=start,
                    end=start + 400,
                    spike=nothing,
                    channel=nothing,
                    edge=edge,
                    high=np.arange(len(edge)) % 2 == 0,
                    number=edge,
                )
            )
            told.add(intan.events(0.01))
    assert told.onsets() == {24_100}
    faults = [(round(f.start_s * RATE), round(f.end_s * RATE), f.what) for e in told.events for f in e.faults]
    assert [f[:2] for f in faults] == [(20_099, 20_102), (20_102, 20_105)] and "line 1 changed" in faults[0][2]


def test_a_spike_that_comes_too_late_is_told_as_it_is() -> None:
    """Whoever has counted must hear of it: `Recorder` sees that it is from before the watermark."""
    log = Log()
    told = Told(log)
    with rig() as (source, intan):
        listen(intan, play(source, log), told)
        source._server.send("spike", b"\x0f\x71\xe2\x3aA-000" + (log.spike[-1] + 1).astype("<u4").tobytes() + b"\x01")
        complete_s = max(e.complete_s for e in told.events)
        late: list[float] = []
        wait(lambda: late.extend(intan.events(0.01).spike_s) or late)
    assert late == [pytest.approx((log.spike[-1] + 1) / RATE)] and late[0] < complete_s


def test_channels_that_are_not_there_are_named() -> None:
    with (
        pytest.raises(RigError, match="expected channels D-004, A-031, but RHX has none"),
        rig(channels=("A-000", "D-004", "A-031")),
    ):
        pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": ("A-0", "A-001")}, "channels such as A-003.*A-0"),
        ({"channels": ("A-001", "A-001")}, "each once"),
        ({"channels": ()}, "each once"),
        ({"detect": "peaks"}, "peaks"),
        ({"line": 0}, "line from 1 to 16"),
        ({"settle_ms": 0.0}, "settle_ms"),
        ({"threshold_uv": 40.0, "detect": "threshold"}, "threshold_uv"),
        ({"threshold_uv": float("nan")}, "threshold_uv"),
    ],
)
def test_values_that_cannot_be(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RigError, match=message):
        Intan(**{"channels": NAMES, **wrong})  # type: ignore[arg-type]


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        intan = Intan(channels=NAMES, command_port=bound.getsockname()[1])
        with pytest.raises(RigError, match="press Connect in Network > Remote TCP Control"):
            intan.open()
        intan.close()
        with pytest.raises(RigError, match="it is closed"):
            intan.events(0.0)
        with pytest.raises(RigError, match="open before"):
            intan.arm()


@pytest.mark.parametrize(
    ("says", "message"), [(b"", "expected an answer of RHX within"), (b"HTTP/1.1 400 Bad Request", "HTTP/1.1 400")]
)
def test_somebody_else_listens(says: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intan_control, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        intan = Intan(channels=NAMES, command_port=listening.getsockname()[1])
        accepted = list[socket.socket]()
        threading.Thread(target=lambda: (accepted.append(listening.accept()[0]), accepted[0].send(says)), daemon=True).start()
        with pytest.raises(RigError, match=message):
            intan.open()
        accepted[0].close()


def test_a_port_that_the_program_does_not_send_on() -> None:
    with pytest.raises(RigError, match="expected spikes on port 1, but RHX sends them on"), rig(spike_port=1):
        pass


def test_one_reader_at_a_time() -> None:
    with rig() as (source, _), pytest.raises(RigError, match="closed the command connection"):
        Intan(channels=NAMES, **source.settings).open()  # type: ignore[arg-type]


def test_an_output_that_somebody_else_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intan_control, "ANSWER_S", 0.2)
    with rig(armed=False) as (source, intan), socket.socket() as other:
        intan.close()
        wait(lambda: source._program.status["spike"] == "Disconnected")
        with source._lock:
            source._program.answer("execute connecttcpspikedataoutput;")
        other.connect(("127.0.0.1", source.settings["spike_port"]))
        wait(lambda: source._program.status["spike"] == "Connected")
        with pytest.raises(RigError, match="spike output of RHX to be free, but another program reads it"):
            intan.open()


def test_a_run_that_was_started_here_is_stopped_and_can_be_repeated() -> None:
    log = Log(4)
    with rig() as (source, intan):
        for _ in range(2):
            told = Told(log)
            listen(intan, play(source, log), told)
            assert told.onsets() == set(log.onset.tolist())
            intan.close()
            intan.close()
            assert not source._program.running
            intan.open()
            assert not source._program.running
            intan.arm()
            intan.arm()
            wait(lambda: source._program.running)


def test_a_run_of_somebody_else_is_joined_if_its_settings_fit_and_left_alone() -> None:
    log = Log(5)
    with rig() as (source, intan):
        listen(intan, play(source, log), Told(Log()))
        intan._started = False  # as if somebody else had
        intan.close()
        assert source._program.running
        intan.open()
        intan.arm()
        log = Log(6, begin=log.end + RATE + 10_000)
        told = Told(log)
        listen(intan, play(source, log), told)
        assert told.spikes() == set(zip(log.spike.tolist(), log.channel.tolist(), strict=True))
        intan.close()
        assert source._program.running
        other = Intan(channels=NAMES, threshold_uv=-45.0, **source.settings)  # type: ignore[arg-type]
        with pytest.raises(RigError, match="runs with a-003.spikethresholdmicrovolts -60, .*stop it there"):
            other.open()
        with pytest.raises(RigError, match="runs with a-003.tcpdataoutputenabled False"):
            Intan(channels=NAMES, detect="threshold", **source.settings).open()  # type: ignore[arg-type]
        source._program.answer("set runmode stop;")
        other.open()
        other.close()


def test_a_run_that_is_refused_and_an_output_that_is_switched_are_errors() -> None:
    with rig() as (source, intan):
        source._program.answer("set a-000.tcpdataoutputenabled true;")
        thread = play(source, Log())
        with pytest.raises(RigError, match="got 8 bytes .*switched on or off"):
            listen(intan, thread, Told(Log()))
        thread.join()
    with rig(armed=False) as (source, intan):
        source._program.answer("set runmode run;")
        intan.arm()
        with pytest.raises(RigError, match="Board must be stopped in order to start running"):
            listen(intan, threading.Thread(), Told(Log()))


@pytest.mark.parametrize("which", ["command", "waveform", "spike"])
def test_a_socket_that_closes_is_an_error_at_once(which: str) -> None:
    with rig() as (source, intan):
        with source._lock:
            source._server._drop(which)
        began = time.monotonic()
        with pytest.raises(RigError, match=f"closed the {which} connection"):
            intan.events(5.0)
        assert time.monotonic() - began < 4


def test_a_run_that_never_begins_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "START_S", 0.1)
    with rig(armed=False) as (_, intan):
        time.sleep(0.15)
        assert intan.events(0.0).complete_s == -np.inf  # not armed: nothing is expected
        intan.arm()
        with pytest.raises(RigError, match="expected waveforms of RHX all the time"):
            listen(intan, threading.Thread(), Told(Log()))


def test_a_line_that_changes_while_blocks_are_missing_is_no_onset() -> None:
    log = Log()
    told, lost = Told(log), int(log.onset[3])
    with rig(Kept(range(lost - 200, lost + 200))) as (source, intan):  # type: ignore[arg-type]
        listen(intan, play(source, log), told)
    assert told.onsets() == set(log.onset.tolist()) - {lost}
    (fault,) = [f for e in told.events for f in e.faults]
    assert told.faulty(lost) and "are missing" in fault.what and fault.end_s - fault.start_s < 0.03


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_edges_are_changes_that_last_however_the_stream_is_cut(words: list[int], places: list[int]) -> None:
    level = np.array([(w >> 1) & 1 for w in words])  # the other bits are other lines
    edges, at, onsets, flickers = _Edges(2), 0, list[int](), list[int]()
    for end in sorted({*(p for p in places if 0 < p < len(words)), len(words)}):
        rising, flicker = edges.feed(100 + at, np.array(words[at:end], np.uint16))
        onsets += rising.tolist()
        flickers += flicker.tolist()
        at = end
    expected, wrong = [], []
    for i in range(1, len(level) - 1):
        if level[i] != level[i - 1]:
            lasts = level[i + 1] == level[i] and (i == 1 or level[i - 1] == level[i - 2])
            if not lasts:
                wrong.append(100 + i)
            elif level[i]:
                expected.append(100 + i)
    assert onsets == expected and flickers == wrong
