"""Benches: every run once, whatever is killed, and standings that a hand finds."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from neurogym_v.benchmarks import runs, suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines import load_engine
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.cli import main
from neurogym_v.experiment import Experiment, RunConfig, Watcher
from neurogym_v.journal import Journal
from neurogym_v.types import NeuroGymError

SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "Two cells of known optimum."
citation = "no one"
agents = ["random", "cma_es"]
budget = 80
report_at = [40]
batch_size = 20
recommend = 2
generator = "fourier"

[[grid]]
neuron = "gabor"
sites = [1, 6]
noises = ["poisson+lost:0.2"]
"""
TIMES = ("wall_s", "agent_s")


@pytest.fixture(scope="module")
def mine() -> Suite:
    return suite.parse(SUITE, where="mine.toml")


@pytest.fixture(scope="module")
def done(mine: Suite, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """All of it, done in this process."""
    folder = Folder(tmp_path_factory.mktemp("done"))
    run_all(mine, mine.tasks(), folder, Serial())
    return folder


def found(folder: Folder) -> dict[str, Any]:
    """What is said of every run, but for how long it took."""
    files = sorted(folder.path.glob("agents/*/*.json"))
    return {
        str(f.relative_to(folder.path)): {k: v for k, v in json.loads(f.read_text()).items() if k not in TIMES} for f in files
    }


def test_a_result_is_what_the_experiment_comes_to(mine: Suite, done: Folder) -> None:
    task = mine.tasks()[3]
    said = json.loads(done.result(task).read_text())
    assert (said["agent"], said["config"]["site"], said["failed"]) == ("cma_es", 6, None)
    (agent,) = Experiment(task.config).run().agents
    assert [m["presentations"] for m in said["milestones"]] == [40, 80]
    for mine_, theirs in zip(said["milestones"], agent.milestones, strict=True):
        assert mine_["relative_activation"]["value"] == theirs.relative_activation.value
        assert mine_["best_relative_activation"]["value"] == theirs.best_relative_activation.value
        assert mine_["contrast_matched"]["low"] == theirs.contrast_matched.low
    assert said["milestones"][-1]["expected_relative_activation"] == pytest.approx(agent.expected_relative_activation)
    assert said["lost"] == agent.lost_presentations > 0 and said["presentations"] == 80
    assert [spent for spent, *_ in said["rounds"]] == [20, 40, 60, 80]
    assert len(said["incumbents"]) == 5


def test_nothing_is_done_twice_and_what_is_missing_is_done_again_the_same(mine: Suite, done: Folder) -> None:
    before, (first, *_) = found(done), mine.tasks()
    times = {file: file.stat().st_mtime_ns for file in done.path.glob("agents/*/*.json")}
    done.result(first).unlink()
    counts: list[tuple[int, int]] = []
    run_all(mine, mine.tasks(), done, Serial(), lambda finished, of: counts.append((finished, of)))
    assert counts == [(3, 4), (4, 4)] and found(done) == before
    changed = [file for file, at in times.items() if file.stat().st_mtime_ns != at]
    assert changed == [done.result(first)]
    assert not list(done.path.rglob("*.sqlite*"))


def test_agents_share_what_natural_images_do(done: Folder) -> None:
    assert len(list((done.path / "natural").iterdir())) == 2
    natural = {json.dumps(said["natural"]) for said in found(done).values()}
    assert len(natural) == 2


def test_a_run_that_was_cut_off_goes_on_from_its_journal(
    mine: Suite, done: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Experiment.search

    def stop(_agent: str, feedback: Any) -> None:
        if feedback.round == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "search", lambda self, *given: search(self, *given[:3], Watcher(round=stop)))
    with pytest.raises(KeyboardInterrupt):
        run_all(mine, mine.tasks(), Folder(tmp_path), Serial())
    (journal,) = tmp_path.rglob("*.sqlite")
    assert journal == Folder(tmp_path).journal(mine.tasks()[0])
    monkeypatch.undo()
    run_all(mine, mine.tasks(), Folder(tmp_path), Serial())
    assert found(Folder(tmp_path)) == found(done)
    assert not list(tmp_path.rglob("*.sqlite*"))


def test_results_of_another_suite_are_never_mixed_in(mine: Suite, done: Folder) -> None:
    for change in ("version = 2", "budget = 100"):
        key = change.partition(" ")[0]
        old = next(line for line in SUITE.splitlines() if line.startswith(key))
        other = suite.parse(SUITE.replace(old, change), where="other.toml")
        with pytest.raises(NeuroGymError, match=rf"expected results of mine-v\d, found others \({key}: .*choose another --out"):
            run_all(other, other.tasks(), done, Serial())
    more = suite.parse(SUITE.replace('"cma_es"]', '"cma_es", "nes"]'), where="more.toml")
    done.open(more)  # more agents are welcome


def test_a_half_written_result_is_named(mine: Suite, done: Folder) -> None:
    file = done.result(mine.tasks()[0])
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    try:
        with pytest.raises(NeuroGymError, match="expected a finished result, found something else; remove it") as refused:
            runs.read_json(file)
        assert str(file) in str(refused.value) and "\n" not in str(refused.value)
    finally:
        file.write_text(whole)


def test_an_agent_that_fails_stops_nobody(
    mine: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(
        "from neurogym_v.agents.random import Random\n\n\nclass Broken(Random):\n    def _tell(self, latents, rates):\n"
        "        raise RuntimeError('no idea')\n"
    )
    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neurogym_v.cli.bench.load_engine", lambda *_, **__: Serial())
    assert main(["bench", "mine.toml", "--agents", "broken:Broken", "random", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "failed: broken:Broken: RuntimeError: no idea" in said and "0/2" in said and "2/2" in said
    page = (tmp_path / "out" / "index.html").read_text()
    assert "page: out/index.html" in said and "broken:Broken" in page and "no idea" in page and page.count("data:image") > 2
    assert main(["bench", "mine.toml", "--agents", "random", "--seeds", "0", "--report-only", "--out", "out"]) == 0
    assert "broken:Broken" not in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["quick", "--agents", "nobody"], "nobody"),
        (["quick", "--agents", "nes", "nes"], "--agents: expected each once, got nes twice"),
        (["kwick"], "quick"),
        (["quick", "--agents", "nes", "--jobs", "0"], "jobs: expected 1 or more, got 0"),
        (["quick", "--report-only", "--out", "empty"], "expected the folder of a bench, found no suite.json in it"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *options]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_full_disk_is_nobodys_result(mine: Suite, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    code = (
        "import resource, signal, sys\n"
        "from neurogym_v.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))\n"
        "main(['bench', 'mine.toml', '--engine', 'serial', '--out', 'out'])\n"
    )
    for limit in (20_000, 200_000):  # not even a journal can be begun; a search is cut off
        command = [sys.executable, "-c", code, str(limit)]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "expected a whole, writable SQLite file, got: disk I/O error" in run.stderr and len(run.stderr.splitlines()) == 1
        assert not list((tmp_path / "out").glob("agents/*/*.json"))
    run_all(mine, mine.tasks(), Folder(tmp_path / "out"), Serial())


def test_a_bench_that_is_killed_again_and_again_ends_as_if_it_never_was(mine: Suite, done: Folder, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    command = [sys.executable, "-m", "neurogym_v.cli", "bench", "mine.toml", "--jobs", "2", "--out", "out"]
    killed = 0
    for wanted in (1, 3):
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL)
        while (
            process.poll() is None
            and len(list((tmp_path / "out").rglob("*.sqlite"))) + len(found(Folder(tmp_path / "out"))) < wanted
        ):
            time.sleep(0.02)
        killed += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert killed == 2
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert found(Folder(tmp_path / "out")) == found(done)


def test_the_page_of_a_folder_has_all_who_are_done(
    mine: Suite, done: Folder, tmp_path: Path, capsys: Any, refused: Any
) -> None:
    copied = Folder(shutil.copytree(done.path, tmp_path / "copied"))
    assert main(["report", str(copied.path)]) == 0
    page = (copied.path / "index.html").read_text()
    assert "random" in page and "cma_es" in page and "index.html (" in capsys.readouterr().out
    copied.result(mine.tasks(["random"])[0]).unlink()
    assert main(["report", str(copied.path), "--out", str(tmp_path / "other.html")]) == 0
    assert "not in it: random, 1 of 2 runs are done" in capsys.readouterr().out
    assert ">random<" not in (tmp_path / "other.html").read_text() and (copied.path / "index.html").read_text() == page
    shutil.rmtree(copied.path / "agents")
    assert "expected a run that is done, found none yet" in refused("report", copied.path)
    (copied.path / "suite.json").write_text("{}")
    copied.result(mine.tasks()[0]).parent.mkdir(parents=True)
    shutil.copy(done.result(mine.tasks()[0]), copied.result(mine.tasks()[0]))
    assert "suite.json: expected at least one" in refused("report", copied.path)


def test_a_worker_that_is_still_at_a_journal_is_waited_for(
    mine: Suite, done: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = Folder(tmp_path), mine.tasks()[0]
    folder.open(mine)
    folder.journal(task).parent.mkdir(parents=True)
    other = Journal(folder.journal(task), config={})
    monkeypatch.setattr(runs, "PATIENCE_S", 0.0)
    with pytest.raises(NeuroGymError, match="expected nobody at it, but another process has it open"):
        run_all(mine, [task], folder, Serial())
    monkeypatch.undo()
    monkeypatch.setattr("time.sleep", lambda _: (other.close(), folder.journal(task).unlink()))
    run_all(mine, [task], folder, Serial())
    assert found(folder).items() <= found(done).items()


def test_runs_in_lockstep_come_to_the_same(mine: Suite, done: Folder, tmp_path: Path) -> None:
    calls: list[int] = []

    class Counting(Serial):
        def each(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            calls.extend(len(group) for group in tasks)
            return super().each(work, tasks)

    run_all(mine, mine.tasks(), Folder(tmp_path), Counting(), lockstep=3)
    assert calls == [3, 1] and found(Folder(tmp_path)) == found(done)


def test_every_run_of_a_bench_is_told_to_trackers(mine: Suite, done: Folder, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "bench")
    run_all(mine, mine.tasks(), folder, Serial(), track=[f"csv:{tmp_path / 'tracked'}"])
    assert found(folder) == found(done)
    with (tmp_path / "tracked" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["id"] for row in rows}) == 4
    assert {row["suite"] for row in rows} == {"mine-v1"}
    told = {(row["agent"], row["site"]): float(row["relative_activation"]) for row in rows}
    scores = {
        (r["agent"], str(r["config"]["site"])): r["milestones"][-1]["relative_activation"]["value"]
        for r in found(done).values()
    }
    assert told == pytest.approx(scores)


def test_luck_and_settings_of_a_task_are_those_of_a_run() -> None:
    task = suite.load("quick").tasks()[0]
    assert task.config.entropy == RunConfig(neuron="v4", site=8).entropy


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(NeuroGymError, match="local"):
        load_engine("lokal")
