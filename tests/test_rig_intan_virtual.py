"""The virtual Intan RHX says what the real one says, and sends what happened."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.rigs import RigError
from neurogym_v.rigs.acquisitions import intan_control
from neurogym_v.rigs.acquisitions.intan_stream import WaveformParser
from neurogym_v.rigs.virtual import intan_server as server
from neurogym_v.rigs.virtual.intan import SHAPE_UV, IntanSource
from neurogym_v.rigs.virtual.mischief import Mischief
from tests.intan_rig import NAMES, RATE, Kept, Log

RECORDINGS = Path(os.environ.get("NEUROGYM_V_RECORDINGS", Path(__file__).parents[2] / "shared" / "recordings"))


def test_a_virtual_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source = IntanSource(NAMES, RATE, Mischief(), spike_port=port)
        with pytest.raises(RigError, match=f"expected port {port} to be free"):
            source.open()
        source.close()
        source.close()
    with pytest.raises(RigError, match="five letters each, got A-0, B-000"):
        IntanSource(("A-0", "B-000"), RATE, Mischief())


def test_a_client_that_does_not_read_loses_the_oldest_and_whole_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BUFFERED", 200_000)
    frames = np.dtype([("magic", "<u4"), ("frame", [("time", "<u4"), ("digital", "<u2")], (128,))])
    parser, told, skips, begun = WaveformParser(0), list[int](), list[object](), 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        outbox = server.Outbox(ours)
        for i in range(1000):
            blocks = np.zeros(20, frames)
            blocks["magic"] = 0x2EF07A08
            blocks["frame"]["time"] = np.arange(i * 2560, (i + 1) * 2560).reshape(20, 128)
            outbox.put(blocks.tobytes())
            assert outbox._size <= 200_000
            begun += 0 < outbox._begun < blocks.nbytes
            if i > 900:
                data, _ = intan_control.drain(theirs, "waveform")
                found = parser.feed(data)
                told += found.time.tolist()
                skips += [skip.what for skip in found.skips]
    assert len(skips) == 1 and "are missing" in str(skips[0]) and told[-1] >= 980 * 2560 and begun > 100


def test_the_virtual_waveform_is_that_of_the_log() -> None:
    log, kept = Log(), Kept(range(0))
    source = IntanSource(NAMES, RATE, kept)  # type: ignore[arg-type]
    source._program.answer("".join(f"set {name}.tcpdataoutputenabled true;" for name in (*NAMES, "digital-in-01")))
    source._program.answer("set runmode run;")
    for stretch in log.stretches():
        source.write(stretch)
    frames = WaveformParser(3).feed(b"".join(kept.blocks))
    assert not frames.skips and frames.time[0] == log.begin and len(frames.time) > log.end - log.begin
    expected = np.zeros((len(frames.time), 3))
    for at, channel in zip(log.spike - log.begin, log.channel, strict=True):
        expected[at : at + len(SHAPE_UV), sorted(NAMES).index(NAMES[channel])] += SHAPE_UV
    noise = 0.195 * (frames.sample.astype(float) - 32768) - expected
    assert np.abs(noise).max() < 40 and noise.std() == pytest.approx(5.0, rel=0.05)
    high = np.searchsorted(log.edge, frames.time, side="right") % 2
    np.testing.assert_array_equal(frames.digital, high)


@pytest.mark.skipif(not (RECORDINGS / "intan_rhx").is_dir(), reason="recordings absent: set NEUROGYM_V_RECORDINGS")
def test_the_virtual_program_answers_as_the_real_one() -> None:
    """All commands that were recorded, in order, each in one send, as then; times apart."""
    lines = (RECORDINGS / "intan_rhx" / "commands.jsonl").read_text().splitlines()
    program = server.Program([f"A-{i:03d}" for i in range(8)], RATE)
    program.ports = {"waveform": 5001, "spike": 5002}
    compared = 0
    for line in map(json.loads, lines):
        if line["n"] == 85:  # two clients have come
            program.status = dict.fromkeys(program.status, "Connected")
        program.timestamp = {89: 77951, 90: 88191}.get(line["n"], 0)
        if line["n"] == 90:
            assert line["reply"] == "Return: 4.40955"
        assert (program.answer(line["sent"]) or None) == line["reply"], line
        compared += 1
    assert compared == 110


def test_commands_that_came_with_the_run_command_wait_for_its_end() -> None:
    program = server.Program(NAMES, RATE)
    assert program.answer("get runmode;set runmode run;get runmode;get type;") == "Return: RunMode Stop"
    assert program.answer("get runmode;") == "Return: RunMode Run"
    assert program.answer("set runmode stop;") == "Return: RunMode StopReturn: Type ControllerRecordUSB3"
