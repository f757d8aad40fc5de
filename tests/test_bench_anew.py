"""What a bench does with what is there: runs of other code, runs that failed or were cut off, files that are none."""

from __future__ import annotations

import csv
import errno
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurogym_v import cast
from neurogym_v.benchmarks import runs, suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.code import code_of
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.cli import main
from neurogym_v.experiment import Experiment
from neurogym_v.journal import Journal
from neurogym_v.session import Session
from neurogym_v.tracking.csv import CSV
from neurogym_v.tracking.record import RunInfo
from neurogym_v.types import NeuroGymError

SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "One cell of known optimum."
citation = "no one"
agents = ["random"]
budget = 60
batch_size = 20
recommend = 1
generator = "fourier"

[[grid]]
neuron = "gabor"
sites = [8]
"""
AGENT = """
from neurogym_v.agents.random import Random


class Mine(Random):
    def _tell(self, latents, rates):
        super()._tell(latents, rates)
        {then}
"""
Edit = Callable[[str], None]


@pytest.fixture
def mine() -> Suite:
    return suite.parse(SUITE, where="mine.toml")


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Writes what an agent of a user does in `_tell`, and lets it be imported anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(SUITE)

    def write(then: str) -> None:
        (tmp_path / "edited_by_tests.py").write_text(AGENT.format(then=then))
        sys.modules.pop("edited_by_tests", None)
        code_of.cache_clear()

    write("pass")
    return write


NAME = "edited_by_tests:Mine"
COMMAND = ["bench", "mine.toml", "--agents", NAME, "--engine", "serial", "--out", "out"]


def test_an_agent_that_was_edited_is_said_to_be_and_refresh_does_it_again(edit: Edit, mine: Suite, capsys: Any) -> None:
    (task,) = mine.tasks([NAME])
    assert main(COMMAND) == 0 and "of earlier code" not in capsys.readouterr().out
    before = runs.read_result(Folder(Path("out")).result(task))["code"]
    edit("self.luck = 7")
    assert main(COMMAND) == 0
    assert f"of earlier code: 1 runs of {NAME}; --refresh does them again" in capsys.readouterr().out
    assert runs.read_result(Folder(Path("out")).result(task))["code"] == before
    assert main([*COMMAND, "--refresh"]) == 0 and "of earlier code" not in capsys.readouterr().out
    assert runs.read_result(Folder(Path("out")).result(task))["code"] not in (before, "")


def test_a_run_that_was_begun_with_other_code_is_nobodys_failure(edit: Edit, mine: Suite, capsys: Any) -> None:
    (task,) = mine.tasks([NAME])
    folder = Folder(Path("out"))
    edit("raise KeyboardInterrupt")
    assert main(COMMAND) == 130 and folder.journal(task).is_file()
    size = folder.journal(task).stat().st_size
    edit("pass")
    assert main(COMMAND) == 2
    said = capsys.readouterr().err
    assert f"found one of other code of {NAME}; --refresh begins it anew" in said and said.count("\n") == 1
    assert folder.journal(task).stat().st_size >= size and not folder.result(task).exists()
    assert main([*COMMAND, "--refresh"]) == 0 and not folder.journal(task).exists()
    assert runs.read_result(folder.result(task))["failed"] is None


def test_a_journal_that_diverges_is_kept_and_nobodys_failure(edit: Edit, mine: Suite, capsys: Any) -> None:
    (task,) = mine.tasks([NAME])
    edit("if getattr(self, 'rounds_', 0): raise KeyboardInterrupt\n        self.rounds_ = 1")
    assert main(COMMAND) == 130
    journal = Folder(Path("out")).journal(task)
    with sqlite3.connect(journal) as db:  # as if a library had drawn other numbers
        db.execute("UPDATE presentation SET latent = zeroblob(length(latent)) WHERE latent IS NOT NULL")
    db.close()
    assert main(COMMAND) == 2
    said = capsys.readouterr().err
    assert "replay diverged" in said and "--refresh begins it anew" in said and said.count("\n") == 1
    assert journal.is_file() and not Folder(Path("out")).result(task).exists()


def test_what_failed_is_done_again_when_asked(edit: Edit, mine: Suite, capsys: Any) -> None:
    edit("raise RuntimeError('no idea') if not __import__('os').path.exists('mended') else None")
    assert main(COMMAND) == 0 and "failed" in capsys.readouterr().out
    Path("mended").touch()
    assert main(COMMAND) == 0 and "no idea" in capsys.readouterr().out
    assert main([*COMMAND, "--retry-failed"]) == 0 and "no idea" not in capsys.readouterr().out


def test_a_run_that_was_cut_off_shows_nothing_twice(mine: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[int] = []
    begin, stop = Session.__init__, Experiment.search

    def noted(self: Session, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        replayed.append(len(self.replaying))

    def cut(self: Experiment, *given: Any) -> Any:
        stop(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "search", cut)
    with pytest.raises(KeyboardInterrupt):
        run_all(mine, mine.tasks(), Folder(tmp_path), Serial())
    monkeypatch.setattr(Experiment, "search", stop)
    monkeypatch.setattr(Session, "__init__", noted)
    run_all(mine, mine.tasks(), Folder(tmp_path), Serial())
    assert max(replayed) >= 3  # the rounds of the search, and its validation


def test_natural_images_are_measured_once(mine: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, times = Experiment.measure, []
    monkeypatch.setattr(Experiment, "measure", lambda self, *given: times.append(1) or measure(self, *given))
    run_all(mine, mine.tasks(["random", "nes"]), Folder(tmp_path), Serial())
    assert len(times) == 1


def test_a_journal_of_other_settings_is_not_gone_on_with(mine: Suite, tmp_path: Path) -> None:
    folder, (task,) = Folder(tmp_path), mine.tasks()
    folder.open(mine)
    folder.journal(task).parent.mkdir(parents=True)
    Journal(folder.journal(task), config={"budget": 7, "code": code_of("random")}).close()
    with pytest.raises(NeuroGymError, match="found one of other settings; --refresh begins it anew"):
        run_all(mine, [task], folder, Serial())


def test_neurons_of_one_stem_have_files_of_their_own(tmp_path: Path) -> None:
    both = suite.parse(SUITE + '\n[[grid]]\nneuron = "cells/m.safetensors"\nsites = [8]\n'
                       '\n[[grid]]\nneuron = "others/m.safetensors"\nsites = [8]\n', where="both.toml")  # fmt: skip
    files = {Folder(tmp_path).result(task).name for task in both.tasks()}
    assert len(files) == 3 and "gabor-8-poisson-0.json" in files
    assert sum(file.startswith("m-") for file in files) == 2


def test_a_tracker_that_cannot_be_made_in_a_worker_fails_no_run(
    mine: Suite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gone").write_text("a file")
    runs._LOST.clear()
    tasks = mine.tasks(["random", "nes"])
    run_all(mine, tasks, Folder(tmp_path / "out"), Serial(), track=[f"csv:{tmp_path / 'gone'}"])
    assert [runs.read_result(Folder(tmp_path / "out").result(task))["failed"] for task in tasks] == [None, None]
    assert sum(record.message.startswith("tracker csv") for record in caplog.records) == 1  # said once, not for every run
    runs._LOST.clear()


def test_json_that_is_no_result_is_one_line(mine: Suite, tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(SUITE)
    folder = Folder(tmp_path / "out")
    folder.open(mine)
    file = folder.result(mine.tasks()[0])
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    for command in (["bench", "mine.toml", "--out", "out"], ["bench", "mine.toml", "--out", "out", "--report-only"],
                    ["report", "out"]):  # fmt: skip
        assert "expected a finished result, found something else; remove it" in refused(*command)
    assert file.read_text() == "{}"
    assert "expected the folder of a bench" in refused("bench", "mine.toml", "--report-only", "--out", "typo")
    assert not (tmp_path / "typo").exists()


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_begun(edit: Edit, refused: Any) -> None:
    assert "nosuch" in refused("bench", "mine.toml", "--out", "out", "--track", "nosuch")
    assert not Path("out").exists()


def test_results_of_another_cast_are_never_mixed_in(mine: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Folder(tmp_path).open(mine)
    monkeypatch.setattr(cast, "VERSION", cast.VERSION + 1)
    with pytest.raises(NeuroGymError, match=r"expected results of mine-v1, found others \(cast: "):
        Folder(tmp_path).open(mine)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_is_nobodys_result(
    number: int, mine: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Experiment, "measure", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        run_all(mine, mine.tasks(), Folder(tmp_path), Serial())
    assert not list(tmp_path.glob("agents/*/*.json"))


def test_a_run_that_goes_on_is_one_run_to_trackers(edit: Edit, mine: Suite) -> None:
    track = ["--track", "csv:tracked"]
    edit("if not __import__('os').path.exists('mended'): raise KeyboardInterrupt")
    assert main([*COMMAND, *track]) == 130
    Path("mended").touch()
    assert main([*COMMAND, *track]) == 0
    with Path("tracked/index.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["state"] == "finished"


def test_a_tracker_that_failed_is_not_asked_again(
    mine: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[str] = []

    def fails(_: CSV, run: RunInfo) -> None:
        begun.append(run.name)
        raise RuntimeError("no server")

    monkeypatch.setattr(CSV, "begin", fails)
    runs._LOST.clear()
    run_all(mine, mine.tasks(["random", "nes"]), Folder(tmp_path / "out"), Serial(), track=[f"csv:{tmp_path / 'tracked'}"])
    assert len(begun) == 1 and "no server" in caplog.text
    runs._LOST.clear()
