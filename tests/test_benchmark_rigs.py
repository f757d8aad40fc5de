"""The benchmarks of the live neuron find what they look for, and the commands of a rig do what they say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.benchmarks import rigs, rigs_fuzz
from neurogym_v.cli import main
from neurogym_v.rigs import Outcome
from neurogym_v.rigs.log import Begun, Logged
from neurogym_v.rigs.presenters.remote import Remote

pytest.importorskip("zmq", reason="pyzmq is not installed: pip install 'neurogym-v[live]'")


def answered(number: int, counts: list[int]) -> Logged:
    outcome = Outcome(number=number, rates=10.0 * np.array(counts), counts=np.array(counts))
    return Logged(Begun(number, number, "x"), "", "", outcome)


def compared(tmp_path: Path, logged: list[Logged], *lines: dict) -> rigs.Verdict:
    path = tmp_path / "rig.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rigs._compared("lsl", "", logged, path, "", float("nan"), 1.0)


def test_a_wrong_count_is_found(tmp_path: Path) -> None:
    truth = [{"number": n, "counts": [n, 1], "broken": n == 2} for n in range(4)]
    lost = Logged(Begun(2, 2, "x"), "", "", Outcome(number=2, lost="fixation broken"))
    again = Logged(Begun(3, 2, "x"), "", "", Outcome(number=3, rates=np.array([30.0, 10.0]), counts=np.array([3, 1])))
    right = [answered(0, [0, 1]), answered(1, [1, 1]), lost, again]
    found = compared(tmp_path, right, *truth, {"fault": "drop", "at": 1.0})
    assert (found.presented, found.lost, found.repeated, found.wrong, found.unknown, found.misdeeds) == (4, 1, 1, 0, 0, 1)
    assert compared(tmp_path, [*right[:1], answered(1, [1, 2]), lost, again], *truth).wrong == 1, "a count that differs"
    assert compared(tmp_path, [*right[:2], answered(2, [2, 1]), again], *truth).wrong == 1, "one of a broken fixation"
    assert compared(tmp_path, [*right, answered(9, [0, 0])], *truth).unknown == 1, "one that nobody showed"


def test_parsers_are_fuzzed(capsys: pytest.CaptureFixture[str]) -> None:
    assert rigs_fuzz.main(["--packets", "150", "--files", "10"]) == 0
    printed = capsys.readouterr().out
    assert "open ephys data" in printed and "folder .h5" in printed


def test_the_fuzz_finds_a_parser_that_fails() -> None:
    def parse(packet: list[bytes]) -> None:
        json.loads(packet[0])

    found = rigs_fuzz.fuzz([b'{"a": 1}'], parse, 200, seed=0)
    assert found["JSONDecodeError"] + found["UnicodeDecodeError"] > 100 and found["refused"] == 0


def test_a_rig_that_is_served_passes_its_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rigs.served("intan", "", pace=20.0, folder=tmp_path) as rig_file:
        assert main(["rig", "check", str(rig_file)]) == 0
    assert "channel A-002" in capsys.readouterr().out
    said = (tmp_path / "serve.log").read_text()
    assert "neurogym-v live" in said and "Traceback" not in said


def test_keys_are_made_and_their_places_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert main(["rig", "keys", str(folder)]) == 0
    told = capsys.readouterr().out
    for file in ("server.key_secret", "clients", "server.key", "client.key_secret"):
        assert f"{folder / file}: " in told and (folder / file).exists()
    assert main(["rig", "keys", str(folder)]) == 2, "others may rely on those that are there"
    assert "expected a folder without keys" in capsys.readouterr().err


def test_a_display_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "rig.toml").write_text(
        '[acquisition]\nkind = "open_ephys"\nchannels = ["a"]\n[presenter]\nkind = "remote"\n[display]\nkind = "headless"\n'
    )
    command = [sys.executable, "-m", "neurogym_v.cli", "rig", "display", str(tmp_path / "rig.toml")]
    said = tmp_path / "said"
    with said.open("w") as out:
        display = subprocess.Popen(
            [*command, "--address", "tcp://127.0.0.1:*"],
            stdout=out,
            stderr=out,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test in the background has none
        )
    try:
        until = time.monotonic() + 60
        while "Ctrl-C" not in said.read_text():
            assert display.poll() is None and time.monotonic() < until, said.read_text()
            time.sleep(0.05)
        address = said.read_text().split()[2].rstrip(";")
        presenter = Remote(address=address, on_ms=100, off_ms=100, fixation_ms=300, inter_trial_ms=100, response_ms=170)
        presenter.open()
        assert presenter.refresh_hz > 0
        presenter.close()
        display.send_signal(signal.SIGINT)
        assert display.wait(timeout=20) == 0, said.read_text()
    finally:
        display.kill()
        display.wait()
