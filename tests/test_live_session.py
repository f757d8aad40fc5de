"""`neurogym-v live` and `rig` over real sockets: a session from its first flash to its report."""

from __future__ import annotations

import json
import re
import threading
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from neurogym_v.cli import main
from neurogym_v.experiment import RunConfig
from neurogym_v.journal import Journal
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.noise import with_noise
from neurogym_v.registry import load_generator
from neurogym_v.rigs.build import load
from neurogym_v.rigs.gate import Gate
from neurogym_v.rigs.log import FILE, LiveLog
from neurogym_v.rigs.view import LiveView
from neurogym_v.rigs.virtual.config import VirtualConfig
from neurogym_v.rigs.virtual.rig import VirtualRig
from neurogym_v.types import Feedback

pytest.importorskip("zmq", reason="pyzmq is not installed: pip install 'neurogym-v[live]'")


@pytest.fixture
def rig_file(tmp_path: Path):
    """Of a virtual rig that runs in threads of this process."""
    neuron = with_noise(Gabor(size=32), "modulated:0.15+lost:0.1")
    rig = VirtualRig(neuron, VirtualConfig(transport="open_ephys", sites=(1, 4), pace=40.0, log=tmp_path / "rig.jsonl"))
    rig.open()
    path = tmp_path / "rig.toml"
    path.write_text(rig.rig_file)
    yield path
    rig.close()


def live(rig_file: Path, photographs: Path, *more: str) -> int:
    out = rig_file.parent / "run"
    search = ["--budget", "40", "--batch-size", "20", "--references", str(photographs), "--agent", "random"]
    return main(["live", str(rig_file), "--channel", "A-004", "--out", str(out), *search, *more])


def test_a_session_goes_from_photographs_to_a_report(rig_file: Path, photographs: Path, capsys) -> None:
    assert live(rig_file, photographs) == 0
    printed = capsys.readouterr().out
    assert "round 1: mean" in printed and "relative activation" in printed
    run = rig_file.parent / "run"
    truth = {}
    for line in (rig_file.parent / "rig.jsonl").read_text().splitlines():
        truth[json.loads(line).get("number")] = json.loads(line)
    log = LiveLog(run / FILE)
    logged = log.presentations()
    assert log.meta["channels"] == "A-001\nA-004" and log.meta["rig"] == rig_file.read_text()
    log.close()
    counted = [p for p in logged if p.outcome.counts is not None]
    assert len(counted) > 200 and any(p.outcome.lost == "fixation broken" for p in logged)
    for p in counted:
        np.testing.assert_array_equal(p.outcome.counts, truth[p.begun.number]["counts"])
    with Journal(run / "journal.sqlite") as journal:
        rates = np.concatenate([b.rates for name in ("natural", "random") for b in journal.blocks(name)])
    answers = {p.begun.position: p.outcome.rates for p in counted}
    np.testing.assert_array_equal(rates, [answers.get(i, np.full(2, np.nan)) for i in range(len(rates))])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["total_presentations"] == len(logged)
    assert summary["agents"][0]["expected_final"] is None, "what no one can know is not made up"
    page = (run / "report.html").read_text()
    assert len(page) > 20_000 and re.search(r"between blocks.{0,80}\d\.\d\d s at the median until", page, re.DOTALL)
    assert main(["resume", str(run)]) == 0, "a finished run is read again without a rig"


def test_a_check_says_what_every_part_delivers(rig_file: Path, capsys) -> None:
    assert main(["rig", "check", str(rig_file)]) == 0
    printed = capsys.readouterr().out
    assert "60.00 Hz" in printed and "channel A-004" in printed and "spikes/s" in printed


def test_a_rig_that_is_not_there_is_one_line(rig_file: Path, photographs: Path, capsys) -> None:
    text = rig_file.read_text()
    acquisition, _, _ = text.partition("[presenter]")
    rig_file.write_text(acquisition + "[presenter]\nkind = 'remote'\naddress = 'tcp://127.0.0.1:1'\n")
    began = time.monotonic()
    assert live(rig_file, photographs) == 2
    assert time.monotonic() - began < 15
    said = capsys.readouterr()
    assert "tcp://127.0.0.1:1" in said.err and said.err.count("\n") == 1
    assert "nothing is lost. Continue with: neurogym-v resume" in said.out.replace("\n", " ")


def test_what_is_doubtful_about_the_rig_is_said_before_it_shows_anything(rig_file: Path, photographs: Path, capsys) -> None:
    rig_file.write_text(rig_file.read_text() + "\n[timing]\non_ms = 90\noff_ms = 110\n")
    assert live(rig_file, photographs, "--minutes", "0.03", "--budget", "4000") == 130
    printed = capsys.readouterr().out
    warning = "warning: [timing] on_ms: 90 ms are 5.40 frames of a screen of 60 Hz; they will be 6, 100.0 ms"
    assert printed.count(warning) == 1
    assert main(["resume", str(rig_file.parent / "run"), "--minutes", "0.03"]) == 130
    assert capsys.readouterr().out.count(warning) == 1, "another session, perhaps on another day, is warned too"
    log = LiveLog(rig_file.parent / "run" / FILE)
    assert [what for _, what in log.notes()].count(warning) == 2
    log.close()


def test_the_clock_ends_a_session_between_two_fixations(rig_file: Path, photographs: Path, capsys) -> None:
    assert live(rig_file, photographs, "--minutes", "0.03", "--budget", "4000") == 130
    assert "stopped; nothing is lost" in capsys.readouterr().out
    log = LiveLog(rig_file.parent / "run" / FILE)
    logged = log.presentations()
    log.close()
    assert logged and {p.outcome.lost for p in logged} <= {"", "fixation broken"}, "what was on the screen was counted first"


def test_a_pause_holds_the_next_fixation_and_not_this_one(rig_file: Path) -> None:
    neuron = load(rig_file)
    neuron.keep(rig_file.parent / "run")
    gate = Gate()
    neuron.open()
    neuron.rig.gate = gate
    images = torch.zeros((30, 3, 32, 32), dtype=torch.uint8)
    answered: list[np.ndarray] = []
    gate.pause()
    thread = threading.Thread(
        target=lambda: answered.append(neuron.present(images, np.arange(30), np.random.default_rng(0))), daemon=True
    )
    thread.start()
    time.sleep(0.3)
    assert not (rig_file.parent / "rig.jsonl").read_text()
    gate.resume()
    thread.join(timeout=30)
    assert len(answered) == 1 and np.isfinite(answered[0]).mean() > 0.8
    neuron.close()


def test_the_panel_and_its_keys(rig_file: Path) -> None:
    neuron, gate, out = load(rig_file), Gate(), StringIO()
    config = RunConfig(neuron=f"live:{rig_file}", agents=("cma_es",), budget=100)
    console = Console(file=out, force_terminal=True, width=100)
    with LiveView(config, neuron, console, gate) as view:
        view.watcher.stage("cma_es")
        neuron.tally.update({"": 30, "fixation broken": 2})
        latents = np.zeros((20, 256), dtype=np.float32)
        view._generator = load_generator("natural64", device="cpu")
        view.watcher.round("cma_es", Feedback(round=0, latents=latents, rates=np.arange(20.0), spent=22, left=78))
        view.pressed("p")
        assert gate.paused and not gate.open
        view.pressed("p")
        assert gate.open
        view.pressed("q")
        assert gate.ending
    shown = out.getvalue()
    assert "2 x fixation broken" in shown and "22 of 100 presentations" in shown and "▀" in shown
    with pytest.raises(KeyboardInterrupt):
        gate.wait()
