"""Engines: all tasks once whatever is killed, the same results, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from neurogym_v.benchmarks.engines import ENGINES, load_engine
from neurogym_v.benchmarks.engines.local import Local
from neurogym_v.types import NeuroGymError

SOON = 180.0
"""Seconds in which a process has started, on a machine with much else to do."""


WORK = """
import os, signal

from neurogym_v.types import NeuroGymError


def square(task):
    'Leaves a line for every time it is begun; 13 kills its process the first time, 666 each time.'
    folder, number = task
    with (folder / str(number)).open("a") as file:
        file.write(f"{os.getpid()}\\n")
    times = len((folder / str(number)).read_text().splitlines())
    if number == 666 or (number == 13 and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 7:
        raise NeuroGymError("expected another number, got 7")
    return number**2
"""


@pytest.fixture
def square(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[Path, int]], int]:
    """In a module that other processes can import, too."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "squares_of_tests.py").write_text(WORK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "squares_of_tests", raising=False)
    found: Callable[[tuple[Path, int]], int] = import_module("squares_of_tests").square
    return found


def times(folder: Path) -> dict[int, int]:
    return {int(file.name): len(file.read_text().splitlines()) for file in folder.iterdir()}


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "dask":
        pytest.importorskip("distributed")
    return str(request.param)


def test_every_task_is_done_once_and_results_come_with_their_place(name: str, square: Any, tmp_path: Path) -> None:
    engine = load_engine(name, jobs=1 if name == "serial" else 2)
    tasks = [(tmp_path, number) for number in range(6)]
    assert sorted(engine.each(square, tasks)) == [(place, place**2) for place in range(6)]
    assert times(tmp_path) == dict.fromkeys(range(6), 1)
    assert list(engine.each(square, [])) == []


def test_what_the_work_raises_is_raised_here(name: str, square: Any, tmp_path: Path) -> None:
    with pytest.raises(NeuroGymError, match="expected another number, got 7"):
        list(load_engine(name, jobs=1).each(square, [(tmp_path, 7), (tmp_path, 8)]))


def test_no_jobs_at_all_is_one_line(name: str) -> None:
    with pytest.raises(NeuroGymError, match="expected 1 (or more|job), got 0"):
        load_engine(name, jobs=0)


def test_engine_serial_does_one_at_a_time() -> None:
    with pytest.raises(NeuroGymError, match="engine serial: expected 1 job, got 2; engine local does several at a time"):
        load_engine("serial", jobs=2)


def test_a_killed_process_costs_no_result(square: Any, tmp_path: Path) -> None:
    tasks = [(tmp_path, number) for number in (1, 13, 2, 3)]
    assert sorted(Local(1).each(square, tasks)) == [(0, 1), (1, 169), (2, 4), (3, 9)]
    assert times(tmp_path) == {1: 1, 13: 2, 2: 1, 3: 1}


def test_what_kills_its_process_each_time_ends_in_one_line(square: Any, tmp_path: Path) -> None:
    found = []
    with pytest.raises(NeuroGymError, match="processes were killed 3 times, perhaps for their memory; start again to go on"):
        found.extend(Local(1).each(square, [(tmp_path, 2), (tmp_path, 666)]))
    assert found == [(0, 4)] and times(tmp_path)[666] == 3


def listening(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


class Cluster:
    """A scheduler and workers, processes of their own on loopback."""

    def __init__(self, folder: Path, port: int) -> None:
        pytest.importorskip("distributed")
        self.folder, self.port, self.address = folder, port, f"tcp://127.0.0.1:{port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start_scheduler()

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port)]
        self.scheduler = listening([*command, "--no-dashboard"], self.folder / "scheduler.log")
        return self.scheduler

    def start_worker(self) -> None:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny"]
        command += ["--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(self.folder / "scratch")]
        self.workers.append(listening([*command, "--death-timeout", "120"], self.folder / "workers.log"))

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path, unused_port: int) -> Iterator[Cluster]:
    made = Cluster(tmp_path, unused_port)
    try:
        for _ in range(2):
            made.start_worker()
        yield made
    finally:
        made.stop()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


BENCH = """
name = "mine"
version = 1
title = "Mine"
about = "Two cells of known optimum."
citation = "no one"
agents = ["random", "cma_es"]
budget = 200
batch_size = 20
recommend = 1
generator = "fourier"

[[grid]]
neuron = "gabor"
sites = [1, 6]
noises = ["poisson+lost:0.2"]
"""


def bench(folder: Path, out: str, *options: str) -> subprocess.Popen[bytes]:
    (folder / "mine.toml").write_text(BENCH)
    command = [sys.executable, "-m", "neurogym_v.cli", "bench", "mine.toml", "--out", out, *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def results(folder: Path) -> dict[str, Any]:
    return {
        str(file.relative_to(folder)): {k: v for k, v in json.loads(file.read_text()).items() if k not in ("wall_s", "agent_s")}
        for file in sorted(folder.glob("agents/*/*.json"))
    }


def wait_for(true: Any, what: str, running: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < ends, f"waited {SOON:.0f} s for {what}"
        assert running.poll() is None, running.communicate()[0].decode()
        time.sleep(0.05)


def test_dask_comes_to_the_same_though_a_worker_is_killed_and_the_scheduler_starts_anew(cluster: Cluster) -> None:
    folder = cluster.folder
    running = bench(folder, "dask", "--engine", "dask", "--scheduler", cluster.address)
    try:
        wait_for(lambda: list((folder / "dask").rglob("*.sqlite")), "a run that has begun", running)
        cluster.workers[0].kill()  # SIGKILL
        cluster.workers[0].wait()
        wait_for(lambda: results(folder / "dask"), "a run that is done", running)
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        for worker in cluster.workers:
            worker.kill()
            worker.wait()
        cluster.start_scheduler()
        cluster.start_worker()
        said, _ = running.communicate(timeout=3 * SOON)
    finally:
        running.kill()
    assert running.returncode == 0, said.decode()
    local = bench(folder, "local", "--jobs", "1")
    assert local.wait() == 0
    assert results(folder / "dask") == results(folder / "local") and len(results(folder / "local")) == 4
    assert not list((folder / "dask").rglob("*.sqlite*"))


def test_a_scheduler_that_is_not_there_is_one_line(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("neurogym_v.benchmarks.engines.dask.TIMEOUT_S", 1.0)
    address = f"tcp://127.0.0.1:{unused_port}"
    with pytest.raises(NeuroGymError, match=f"expected a scheduler at {address}, none answers; start one with"):
        load_engine("dask", address=address)
    with pytest.raises(NeuroGymError, match="expected a scheduler at nowhere, none answers"):
        load_engine("dask", address="nowhere")
