"""Engines: all tasks once whatever is killed, the same results, and errors that say what to do."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines import ENGINES, dask, load_engine
from neurogym_v.benchmarks.engines.local import Local
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.types import NeuroGymError

SOON = 180.0
"""Seconds in which a process has started, on a machine with much else to do."""
AT_ONCE = 5.0
"""Seconds in which what waits for nothing is over, on the same machine."""

WORK = """
import os, signal, time

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


def beside(task):
    '1 takes long; the others are over as soon as it is under way, 7 with an error.'
    folder, number = task
    if number == 1:
        (folder / "begins").write_text(str(os.getpid()))
        (folder / "begins").rename(folder / "begun")
        return time.sleep(30)
    while not (folder / "begun").exists():
        time.sleep(0.01)
    (folder / "over").touch()
    if number == 7:
        raise NeuroGymError("expected another number, got 7")
    return number


def interrupted(task):
    'Whether a process hears of Ctrl-C.'
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    return heard
"""


@pytest.fixture
def work(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> Any:
    """A module that other processes can import, too."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "squares_of_tests.py").write_text(WORK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "squares_of_tests", raising=False)
    return import_module("squares_of_tests")


def times(folder: Path) -> dict[int, int]:
    return {int(file.name): len(file.read_text().splitlines()) for file in folder.iterdir()}


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "dask":
        pytest.importorskip("distributed")
    return str(request.param)


def test_every_task_is_done_once_and_results_come_with_their_place(name: str, work: Any, tmp_path: Path) -> None:
    engine = load_engine(name, jobs=1 if name == "serial" else 2)
    tasks = [(tmp_path, number) for number in range(6)]
    assert sorted(engine.each(work.square, tasks)) == [(place, place**2) for place in range(6)]
    assert times(tmp_path) == dict.fromkeys(range(6), 1)
    assert list(engine.each(work.square, [])) == []


def test_what_the_work_raises_is_raised_here(name: str, work: Any, tmp_path: Path) -> None:
    with pytest.raises(NeuroGymError, match="expected another number, got 7"):
        list(load_engine(name, jobs=1).each(work.square, [(tmp_path, 7), (tmp_path, 8)]))


def test_no_jobs_at_all_is_one_line(name: str) -> None:
    with pytest.raises(NeuroGymError, match="expected 1 (or more|job), got 0"):
        load_engine(name, jobs=0)


def test_engine_serial_does_one_at_a_time() -> None:
    with pytest.raises(NeuroGymError, match="engine serial: expected 1 job, got 2; engine local does several at a time"):
        load_engine("serial", jobs=2)


def test_a_killed_process_costs_no_result(work: Any, tmp_path: Path) -> None:
    tasks = [(tmp_path, number) for number in (1, 13, 2, 3)]
    assert sorted(Local(1).each(work.square, tasks)) == [(0, 1), (1, 169), (2, 4), (3, 9)]
    assert times(tmp_path) == {1: 1, 13: 2, 2: 1, 3: 1}


def test_what_kills_its_process_each_time_ends_in_one_line(work: Any, tmp_path: Path) -> None:
    found = []
    with pytest.raises(NeuroGymError, match="processes were killed 3 times, perhaps for their memory; start again to go on"):
        found.extend(Local(1).each(work.square, [(tmp_path, 2), (tmp_path, 666)]))
    assert found == [(0, 4)] and times(tmp_path)[666] == 3


@pytest.mark.parametrize("second", [7, 2])  # an error; a result after which no more is wanted
def test_no_process_is_left_when_it_ends_before_all_is_done(second: int, work: Any, tmp_path: Path) -> None:
    found = Local(2).each(work.beside, [(tmp_path, 1), (tmp_path, second)])
    with suppress(NeuroGymError):
        assert next(found) == (1, 2)
    found.close()  # type: ignore[attr-defined]  # a generator
    assert time.time() - (tmp_path / "over").stat().st_mtime < AT_ONCE and not active_children()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)


def test_processes_never_hear_of_ctrl_c_as_their_parent_ends_them(work: Any) -> None:
    assert list(Local(1).each(work.interrupted, [None])) == [(0, [])]


class Cluster:
    """A scheduler and workers, processes of their own on loopback."""

    def __init__(self, folder: Path, port: int) -> None:
        pytest.importorskip("distributed")
        self.folder, self.port, self.address = folder, port, f"tcp://127.0.0.1:{port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        wait_for(lambda: answers(self.port), "a scheduler", self.scheduler)  # a bench has no patience with one at its start

    def start_worker(self) -> None:
        options = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--death-timeout", "120")
        self.workers.append(self.start("worker", self.address, *options, "--local-directory", str(self.folder / "scratch")))

    def start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *options]
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        for process in processes:
            process.kill()  # SIGKILL
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path, unused_port: int) -> Iterator[Cluster]:
    made = Cluster(tmp_path, unused_port)
    try:
        made.start_worker()
        made.start_worker()
        yield made
    finally:
        made.kill(*made.workers, made.scheduler)


@pytest.fixture
def unused_port() -> int:
    """Below those given to whoever connects, which may be taken while a scheduler is away; another one for each process."""
    return next(port for port in itertools.count(20_000 + os.getpid() % 10_000) if not answers(port))


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


BENCH = """
name = "mine"
version = 1
title = "Mine"
about = "Two cells of known optimum."
citation = "no one"
agents = ["random", "waiting_of_tests:Waiting"]
budget = 60
batch_size = 20
recommend = 1
generator = "fourier"

[[grid]]
neuron = "gabor"
sites = [1, 6]
noises = ["poisson+lost:0.2"]
"""
AGENT = """
import os, time
from pathlib import Path

from neurogym_v.agents.random import Random


class Waiting(Random):
    "Leaves a file with the number of its process and waits until that is removed, or for a file `go`, before its second round."

    rounds = 0
    def _ask(self):
        self.rounds += 1
        mark, go = Path(f"{os.getpid()}.waits"), Path("go")
        if self.rounds == 2 and not go.exists():
            mark.touch()
        while mark.exists() and not go.exists():
            time.sleep(0.02)
        return super()._ask()
"""
COMMAND = "import sys; from neurogym_v.cli import main; from neurogym_v.benchmarks.engines import dask; "
COMMAND += f"dask.PATIENCE_S = dask.TIMEOUT_S = {SOON}; sys.exit(main())"


def bench(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """`neurogym-v bench` of what is in a folder, in a group of processes of its own."""
    command = [sys.executable, "-c", COMMAND, "bench", "mine.toml", "--out", "out", *options]
    return subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def results(folder: Path) -> dict[str, Any]:
    return {
        str(file.relative_to(folder)): {k: v for k, v in json.loads(file.read_text()).items() if k not in ("wall_s", "agent_s")}
        for file in sorted(folder.glob("agents/*/*.json"))
    }


def waiting(folder: Path) -> set[int]:
    """The processes in which an agent waits."""
    return {int(file.stem) for file in folder.glob("*.waits")}


def wait_for(true: Any, what: str, running: subprocess.Popen[bytes] | None = None) -> None:
    ends = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < ends, f"waited {SOON:.0f} s for {what}"
        assert not running or running.poll() is None, f"ended before {what}: {running.communicate()[0]!r}"
        time.sleep(0.05)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The folder of a suite half of whose runs wait: they are under way for as long as a test wants."""
    (tmp_path / "mine.toml").write_text(BENCH)
    (tmp_path / "waiting_of_tests.py").write_text(AGENT)
    return tmp_path


def undisturbed(folder: Path, monkeypatch: Any) -> dict[str, Any]:
    """What the four runs come to in this process, once agents need not wait."""
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "waiting_of_tests", raising=False)
    run_all(mine := suite.load("mine.toml"), mine.tasks(), Folder(folder / "undisturbed"), Serial())
    return results(folder / "undisturbed")


def test_dask_comes_to_the_same_though_workers_and_the_scheduler_are_killed(mine: Path, cluster: Any, monkeypatch: Any) -> None:
    killed, other = (worker.pid for worker in cluster.workers)
    running = bench(mine, "--engine", "dask", "--scheduler", cluster.address)
    try:
        wait_for(lambda: waiting(mine) == {killed, other}, "a run under way in both workers", running)
        wait_for(lambda: len(results(mine / "out")) == 2, "the two that are done", running)
        cluster.kill(cluster.workers[0])
        (mine / f"{other}.waits").unlink()
        wait_for(lambda: len(results(mine / "out")) == 3, "the run of the other worker", running)
        wait_for(lambda: other in waiting(mine), "the run of the killed worker, in the other", running)
        cluster.kill(cluster.scheduler, cluster.workers[1])
        (mine / "go").touch()
        cluster.start_scheduler()
        cluster.start_worker()
        said = running.communicate(timeout=SOON)[0].decode()
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert results(mine / "out") == undisturbed(mine, monkeypatch)
    assert not list((mine / "out").rglob("*.sqlite*"))


def test_ctrl_c_ends_a_bench_at_once_and_the_same_command_goes_on(mine: Path, monkeypatch: Any) -> None:
    running = bench(mine, "--jobs", "2")
    try:
        wait_for(lambda: len(waiting(mine)) == 2, "a run under way in both workers", running)
        workers = waiting(mine)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        said = running.communicate(timeout=2 * AT_ONCE)[0].decode()
    finally:
        running.kill()
    assert running.returncode == 130 and "stopped; nothing is lost: the same command goes on" in said
    assert "Traceback" not in said and len(list((mine / "out").rglob("*.sqlite"))) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    (mine / "go").touch()
    again = bench(mine, "--jobs", "2")
    assert (again.communicate(timeout=SOON), again.returncode)[1] == 0
    assert results(mine / "out") == undisturbed(mine, monkeypatch)


@pytest.fixture
def within(unused_port: int) -> Iterator[Callable[[int], Any]]:
    """Schedulers in this process, one after the other, with so many workers: they are there, and gone, at once."""
    distributed, made = pytest.importorskip("distributed"), list[Any]()
    quiet = {"threads_per_worker": 1, "processes": False, "dashboard_address": None, "silence_logs": 50}
    where = {"host": "127.0.0.1", "protocol": "tcp", "scheduler_port": unused_port}

    def start(workers: int) -> Any:
        made.append(distributed.LocalCluster(n_workers=workers, **quiet, **where))
        return made[-1]

    yield start
    for cluster in made:
        cluster.close()


def test_patience_is_with_a_scheduler_that_is_away_and_not_with_long_runs(within: Any, monkeypatch: Any) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(dask, "time", clock)
    cluster = within(0)  # nobody works
    engine = load_engine("dask", address=cluster.scheduler_address)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(lambda: list(engine.each(abs, [-3])))
        for _ in range(2):
            wait_for(lambda at=cluster: at.scheduler.tasks or found.done(), "a task")
            clock.now += 10 * dask.PATIENCE_S
            cluster.close()
            cluster = within(0)
        wait_for(lambda: cluster.scheduler.tasks or found.done(), "a task")
        ends, clock.sleep = clock.now + dask.PATIENCE_S, lambda _: setattr(clock, "now", clock.now + dask.PATIENCE_S / 2)
        monkeypatch.setattr(dask, "TIMEOUT_S", 0.3)
        cluster.close()
        with pytest.raises(NeuroGymError, match=f"expected a scheduler at {cluster.scheduler_address}, none answers"):
            found.result(SOON)
    assert clock.now == ends + dask.PATIENCE_S / 2  # it was tried as long as that


def test_a_client_that_closes_meanwhile_is_a_scheduler_gone(within: Any, monkeypatch: Any) -> None:
    cluster, closed = within(1), list[Any]()
    submit = pytest.importorskip("distributed").Client.submit

    def once_closed(self: Any, *task: Any, **how: Any) -> Any:
        if not closed:
            closed.append(self.close())
        return submit(self, *task, **how)

    monkeypatch.setattr("distributed.Client.submit", once_closed)
    assert list(load_engine("dask", address=cluster.scheduler_address).each(abs, [-3])) == [(0, 3)] and closed


def test_what_was_told_here_is_forgotten_there(within: Any) -> None:
    cluster = within(1)  # or what a worker has done would be done again when that is killed
    found = load_engine("dask", address=cluster.scheduler_address).each(abs, [-3, -4])
    for left in (1, 0):
        next(found)
        wait_for(lambda left=left: len(cluster.scheduler.tasks) == left, "a task that is forgotten")


def test_a_task_that_cannot_be_sent_is_no_scheduler_gone(within: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(dask, "PATIENCE_S", 0.0)
    engine = load_engine("dask", address=within(0).scheduler_address)
    with socket.socket() as unsendable, pytest.raises(TypeError, match="serialize|pickle"):
        list(engine.each(abs, [unsendable]))


def test_a_scheduler_that_is_not_there_is_one_line(unused_port: int, monkeypatch: Any) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask, "TIMEOUT_S", 1.0)
    address = f"tcp://127.0.0.1:{unused_port}"
    with pytest.raises(NeuroGymError, match=f"expected a scheduler at {address}, none answers; start one with"):
        load_engine("dask", address=address)
    with pytest.raises(NeuroGymError, match="expected a scheduler at nowhere, none answers"):
        load_engine("dask", address="nowhere")
