"""A session on a rig, and the rig, killed with SIGKILL at random moments: nothing counted is lost, nothing counts twice."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import time
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.journal import Journal
from neurogym_v.rigs.log import FILE, INTERRUPTED, LiveLog
from tests.live_to_kill import BATCH, BUDGET

pytest.importorskip("zmq", reason="pyzmq is not installed: pip install 'neurogym-v[live]'")
SCRIPT = Path(__file__).parent / "live_to_kill.py"
KILLS = 10
LIBRARIES = ["neurogym_v.env", "neurogym_v.rigs.config", "neurogym_v.rigs.virtual.rig", "torch", "zmq", "cmaes"]
WITHIN_S = 2.5
"""From the death of a rig to the sentence that says so: two seconds, and a slow machine's start of a process."""


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


class Parts:
    """The processes of one test."""

    def __init__(self, processes, folder: Path) -> None:
        self.processes, self.folder, self.rigs = processes, folder, 0
        self.rig = self.session = None

    def start(self, part: str, *arguments):
        process = self.processes.Process(target=runpy.run_path, args=(str(SCRIPT), {"ARGUMENTS": arguments}, part), daemon=True)
        process.start()
        return process

    def serve(self) -> None:
        (self.folder / "rig.toml").unlink(missing_ok=True)
        self.rig = self.start("rig", self.folder, "open_ephys", self.rigs)
        self.rigs += 1
        self.until((self.folder / "rig.toml").exists)

    def search(self) -> None:
        (self.folder / "stopped").unlink(missing_ok=True)
        self.session = self.start("session", self.folder)

    @property
    def done(self) -> bool:
        return (self.folder / "done").exists()

    @property
    def logged(self) -> int:
        """Presentations that the rig has shown so far."""
        log = self.folder / "rig.jsonl"
        return log.read_text().count("\n") if log.exists() else 0

    def until(self, happens, timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not happens():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.005)

    def close(self) -> None:
        for process in (self.session, self.rig):
            if process is not None and process.is_alive():
                process.kill()
                process.join()


@pytest.fixture
def parts(processes, tmp_path: Path):
    made = Parts(processes, tmp_path)
    yield made
    made.close()


def test_a_session_that_is_killed_is_resumed(parts: Parts) -> None:
    rng = np.random.default_rng()
    parts.serve()
    for _ in range(KILLS):
        before = parts.logged
        parts.search()
        parts.until(lambda before=before: parts.logged > before or parts.done)
        assert not parts.done, "it ended before it could be killed so often"
        time.sleep(rng.uniform(0, 0.15))
        parts.session.kill()
        parts.session.join()
    parts.search()
    parts.until(lambda: parts.done)
    check(parts.folder)


def test_a_rig_that_is_killed_is_noticed_and_the_session_resumed(parts: Parts) -> None:
    rng = np.random.default_rng()
    for _ in range(KILLS):
        parts.serve()
        before = parts.logged
        parts.search()
        parts.until(lambda before=before: parts.logged > before or parts.done)
        assert not parts.done, "it ended before it could be killed so often"
        time.sleep(rng.uniform(0, 0.15))
        parts.rig.kill()
        died = time.monotonic()
        parts.rig.join()
        parts.until(lambda: not parts.session.is_alive())
        assert time.monotonic() - died < WITHIN_S
        said = (parts.folder / "stopped").read_text()
        assert "silent" in said or "none came" in said or "within" in said, said
    parts.serve()
    parts.search()
    parts.until(lambda: parts.done)
    check(parts.folder)


def check(folder: Path) -> None:
    """Journal, the session's log and the rig's own say the same."""
    truth: dict[int, dict] = {}
    for line in (folder / "rig.jsonl").read_text().splitlines():
        shown = json.loads(line)
        if "number" in shown:
            assert shown["number"] not in truth, "a number was shown twice"
            truth[shown["number"]] = shown
    log = LiveLog(folder / FILE)
    logged = log.presentations()
    log.close()
    assert truth.keys() <= {p.begun.number for p in logged}, "something was shown that the log knows nothing of"
    answers: dict[int, np.ndarray] = {}
    for p in logged:
        if p.outcome.counts is not None:
            shown = truth[p.begun.number]
            assert not shown["broken"]
            np.testing.assert_array_equal(p.outcome.counts, shown["counts"])
            assert p.begun.position not in answers, "a presentation was counted twice"
            answers[p.begun.position] = p.outcome.rates
        else:
            assert p.outcome.lost
            assert p.begun.number in truth or p.outcome.lost.startswith(INTERRUPTED), "lost, and never shown"
    with Journal(folder / "journal.sqlite") as journal:
        blocks = journal.blocks("cma_es")
    assert [len(block.rates) for block in blocks] == [BATCH] * (BUDGET // BATCH)
    rates = np.concatenate([block.rates for block in blocks])
    expected = np.array([answers.get(i, np.full(2, np.nan)) for i in range(len(rates))])
    np.testing.assert_array_equal(rates, expected)
    assert np.isfinite(rates[:, 0]).mean() > 0.9
    spent = float((folder / "done").read_text())
    assert spent == len(logged), "not every showing was paid for, or some were paid for twice"
