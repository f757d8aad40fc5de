"""Trackers at their worst and at their simplest: what they are told, what their failures do to a run, and the files of csv."""

from __future__ import annotations

import csv
import importlib
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neurogym_v import tracked as module
from neurogym_v.benchmarks import tracking as benchmark
from neurogym_v.cli import main
from neurogym_v.experiment import Experiment, RunConfig, Watcher
from neurogym_v.generators import draw
from neurogym_v.tracked import PANELS, Tracked
from neurogym_v.tracking import TRACKERS, open_tracker, trackers
from neurogym_v.tracking import csv as csv_tracker
from neurogym_v.tracking.background import Background
from neurogym_v.tracking.csv import CSV
from neurogym_v.tracking.places import run_folder, slug
from neurogym_v.tracking.record import RunInfo
from neurogym_v.types import NeuroGymError

INFO = RunInfo(id="0123456789ab", name="an agent", group="a run", tags={"agent": "ga", "suite": "run"}, config={"site": 3})
THEIRS = """
import threading

CALLS = []

class Theirs:
    place = "nowhere"
    worst = ""  # the method that fails

    def __init__(self, where, beside):
        self.where = where

    def __getattr__(self, name):
        if name not in ("begin", "log", "images", "finish", "stop"):
            raise AttributeError(name)
        def call(*arguments):
            CALLS.append((name, arguments))
            if name == self.worst:
                if self.where == "sleeps":
                    threading.Event().wait()
                raise SystemExit("out of\\nluck") if self.where == "exits" else RuntimeError("out of\\nluck")
        return call

class Half:
    def __init__(self, where, beside):
        pass
    def begin(self, run):
        pass

class Broken:
    def __init__(self, where, beside):
        raise KeyError("a bug")
"""


@pytest.fixture(autouse=True)
def many_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of a short run."""
    monkeypatch.setattr(module, "EVERY", 1)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An installed package of others, with three trackers; gives its module."""
    site = tmp_path / "site"
    (site / "theirs-1.0.dist-info").mkdir(parents=True)
    (site / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (site / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
        "[neurogym_v.trackers]\ntheirs = theirs:Theirs\nhalf = theirs:Half\nbroken = theirs:Broken\n"
    )
    (site / "theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(site)
    trackers.cache_clear()
    yield importlib.import_module("theirs")
    trackers.cache_clear()
    sys.modules.pop("theirs")


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory):
    """A real run, and all that its watcher heard."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    config = RunConfig(
        agents=("cma_es",), neuron="gabor", site=2, generator="fourier", budget=96, batch_size=4, noise="poisson+lost:0.2",
        references=str(folder), seed=1,
    )  # fmt: skip
    experiment, calls = Experiment(config), []
    hears = {name: lambda *given, name=name: calls.append((name, given)) for name in ("stage", "round", "agent_done", "search")}
    return experiment, experiment.run(watcher=Watcher(**hears)), calls


def tell(tracked: Tracked, heard, *, finish: bool = True) -> list[str]:
    """The same run again, without running it; gives what was said."""
    experiment, result, calls = heard
    said: list[str] = []
    tracked.say = said.append
    with tracked:
        watcher = tracked.watcher(experiment.references, Watcher())
        for name, arguments in calls:
            getattr(watcher, name)(*arguments)
        if finish:
            tracked.finish(result.agents, [])
    return said


def test_what_a_tracker_is_told(heard, theirs, tmp_path: Path) -> None:
    experiment, result, _ = heard
    (agent,) = result.agents
    said = tell(Tracked(["theirs:a place"], experiment.config, tmp_path / "run"), heard)
    assert said == ["tracked with theirs: nowhere"]
    names = [name for name, _ in theirs.CALLS]
    assert names[0] == "begin" and names[-1] == "finish" and set(names[1:-1]) == {"log", "images"}
    ((info,),) = [arguments for name, arguments in theirs.CALLS if name == "begin"]
    assert info.tags == {
        "suite": "run", "agent": "cma_es", "neuron": "gabor", "noise": "poisson+lost:0.2", "site": "2", "seed": "1"
    }  # fmt: skip
    assert (info.group, info.config["budget"], info.config["agent"]) == ("run", 96, "cma_es")
    steps = [arguments[0] for name, arguments in theirs.CALLS[1:-1]]
    assert steps == sorted(steps)
    *rounds, (end, scores) = [arguments for name, arguments in theirs.CALLS if name == "log"]
    assert [step for step, _ in rounds] == [r.spent for r in agent.rounds]
    np.testing.assert_array_equal([n["round/best"] for _, n in rounds], [r.best_rate for r in agent.rounds])
    np.testing.assert_array_equal([n["round/mean"] for _, n in rounds], [r.mean_rate for r in agent.rounds])
    assert [n["agent/sigma"] for _, n in rounds] == [r.diagnostics["sigma"] for r in agent.rounds]
    assert rounds[-1][1]["lost"] == agent.lost_presentations > 0
    assert all(n["natural/best"] == result.natural.best.value for _, n in rounds)
    assert end == agent.search_presentations + agent.validation_presentations
    assert scores["score/relative_activation_low"] == agent.relative_activation.low
    assert scores["score/final"] == agent.final.value
    assert scores["score/expected_final"] == agent.expected_final


def test_the_panels_are_the_best_images_of_their_rounds(heard, theirs, tmp_path: Path) -> None:
    experiment, result, _ = heard
    (agent,) = result.agents
    tell(Tracked(["theirs"], experiment.config, tmp_path / "run"), heard)
    shown = [arguments for name, arguments in theirs.CALLS if name == "images"]
    evolution = [(step, pictures) for step, name, pictures in shown if name == "evolution"]
    assert 6 < len(evolution) <= PANELS
    rounds = {r.spent: r for r in agent.rounds}
    assert any(np.isnan(r.rates).all() for r in agent.rounds), "the run has no lost round: choose another seed"
    for step, (picture,) in evolution:
        best = int(np.nanargmax(rounds[step].rates))
        image = draw(experiment.generator, rounds[step].latents[best : best + 1])[0].permute(1, 2, 0)
        np.testing.assert_array_equal(picture.pixels, image)
        assert picture.caption == f"round {rounds[step].round + 1}: {rounds[step].rates[best]:.1f} spikes/s"
    ends = {name: pictures for _, name, pictures in shown if name != "evolution"}
    assert list(ends) == ["recommended", "best_natural"]
    best = result.references.images[result.references.names.index(result.natural.best_image)]
    np.testing.assert_array_equal(ends["best_natural"][0].pixels, best.permute(1, 2, 0))


@pytest.mark.parametrize("how", ["raises", "exits"])
@pytest.mark.parametrize("worst", ["begin", "log", "images", "finish"])
def test_a_tracker_that_fails_is_said_once_and_gets_no_more(heard, theirs, tmp_path: Path, worst: str, how: str) -> None:
    theirs.Theirs.worst = worst
    said = tell(Tracked([f"theirs:{how}", f"csv:{tmp_path / 'csv'}"], heard[0].config, tmp_path / "run"), heard)
    error = "RuntimeError" if how == "raises" else "SystemExit"
    line = f"tracker theirs:{how} failed and gets no more: {error}: out of"
    assert said == [line, f"tracked with csv: {tmp_path}/csv/index.csv"]
    assert theirs.CALLS[-1][0] == worst
    assert [name for name, _ in theirs.CALLS].count(worst) == 1


def test_a_tracker_that_fails_when_the_run_is_stopped(heard, theirs, tmp_path: Path) -> None:
    theirs.Theirs.worst = "stop"
    said = tell(Tracked(["theirs:raises"], heard[0].config, tmp_path / "run"), heard, finish=False)
    assert said == ["tracker theirs:raises failed and gets no more: RuntimeError: out of"]


@pytest.mark.parametrize("worst", ["begin", "log", "finish"])
def test_a_tracker_that_sleeps_forever_is_left_behind(heard, theirs, tmp_path: Path, monkeypatch, worst: str) -> None:
    theirs.Theirs.worst = worst
    monkeypatch.setattr(module, "Background", partial(Background, patience_s=0.3))
    began = time.monotonic()
    said = tell(Tracked(["theirs:sleeps"], heard[0].config, tmp_path / "run"), heard)
    assert time.monotonic() - began < 10
    (line,) = said
    assert line.startswith("tracker theirs:sleeps: no end in sight after") and "calls were not delivered" in line


def test_nothing_is_drawn_for_a_tracker_that_does_not_listen(heard, theirs, tmp_path: Path, monkeypatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(module, "draw", lambda generator, latents: drawn.append(1) or draw(generator, latents))
    monkeypatch.setattr(module, "Background", partial(Background, patience_s=0.0))
    theirs.Theirs.worst = "log"
    tell(Tracked(["theirs:sleeps"], heard[0].config, tmp_path / "run"), heard)
    assert len(drawn) < 6
    monkeypatch.setattr(module, "Background", Background)
    tell(Tracked(["csv"], heard[0].config, tmp_path / "run"), heard)
    assert len(drawn) > 6


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_leaves_what_was_logged(heard, tmp_path: Path) -> None:
    experiment, result, _ = heard
    (agent,) = result.agents
    tell(Tracked(["csv"], experiment.config, tmp_path / "run"), heard)
    (index,) = read(tmp_path / "tracking" / "csv" / "index.csv")
    assert (index["state"], index["agent"], index["site"]) == ("finished", "cma_es", "2")
    assert float(index["final"]) == agent.final.value
    folder = tmp_path / "tracking" / "csv" / index["folder"]
    rows = read(folder / "rounds.csv")
    assert [int(row["step"]) for row in rows[:-1]] == [r.spent for r in agent.rounds]
    np.testing.assert_array_equal([float(row["round/mean"]) for row in rows[:-1]], [r.mean_rate for r in agent.rounds])
    assert rows[-1]["round/mean"] == "" and float(rows[-1]["time/search_s"]) == agent.wall_s
    assert float(read(folder / "table.csv")[0]["relative_activation"]) == agent.relative_activation.value
    assert json.loads((folder / "run.json").read_text())["config"]["batch_size"] == 4
    picture = np.asarray(Image.open(next((folder / "images").glob("recommended-*.png"))))
    np.testing.assert_array_equal(picture[:64, :64], draw(experiment.generator, agent.recommended[:1])[0].permute(1, 2, 0))


def test_csv_columns_that_come_later_are_empty_before(tmp_path: Path) -> None:
    tracker = CSV(str(tmp_path), tmp_path)
    tracker.begin(INFO)
    tracker.log(1, {"a": 0.1})
    tracker.log(2, {"a": float("nan"), "b": float("inf")})
    tracker.log(3, {"b": 3.0, "score/final": 7.0})
    assert (run_folder(tmp_path, INFO) / "rounds.csv").read_text() == "step,a,b\n1,0.1,\n2,nan,inf\n3,,3.0\n"
    tracker.stop()
    (row,) = read(tmp_path / "index.csv")
    assert (row["state"], row["final"]) == ("stopped", "7.0")


def test_csv_indexes_of_two_at_once_have_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one tells its run and writes the index when we have looked at the runs and not yet written it."""
    write_whole = csv_tracker.write_whole

    def one(number: int) -> None:
        tracker = CSV(str(tmp_path), tmp_path)
        tracker.begin(RunInfo(id=f"{number:012d}", name=f"{number}", group="g", tags={}, config={}))
        tracker.stop()

    def late(path: Path, write) -> None:
        monkeypatch.setattr(csv_tracker, "write_whole", write_whole)
        one(1)
        assert len(read(tmp_path / "index.csv")) == 2
        write_whole(path, write)

    monkeypatch.setattr(csv_tracker, "write_whole", late)
    one(0)
    assert {(row["id"], row["state"]) for row in read(tmp_path / "index.csv")} == {(f"{n:012d}", "stopped") for n in range(2)}


def test_csv_on_a_full_disk_ends_the_tracking_not_the_run(heard, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    tracked = Tracked(["csv"], heard[0].config, tmp_path / "run")
    folder = run_folder(tmp_path / "tracking" / "csv", tracked._info("cma_es"))
    folder.mkdir(parents=True)
    (folder / "rounds.csv").symlink_to("/dev/full")
    assert tell(tracked, heard) == ["tracker csv failed and gets no more: OSError: [Errno 28] No space left on device"]


SMALL = "--neuron gabor --site 2 --generator fourier --agent cma_es".split()


def test_a_killed_run_is_tracked_to_its_end_by_resume(tmp_path: Path, photographs: Path, capsys) -> None:
    run, small = tmp_path / "run", [*SMALL, "--references", str(photographs)]
    command = [sys.executable, "-m", "neurogym_v.cli", "run", *small, "--budget", "1200", "--track", "csv", "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "cma_es":
        assert process.poll() is None
    while not list(tmp_path.glob("tracking/csv/run/*/images/evolution-*.png")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (killed,) = tmp_path.glob("tracking/csv/run/*/run.json")
    assert json.loads(killed.read_text())["state"] == "running"
    assert main(["resume", str(run)]) == 0
    assert "tracked with csv" in capsys.readouterr().out
    (index,) = read(tmp_path / "tracking" / "csv" / "index.csv")
    (agent,) = json.loads((run / "summary.json").read_text())["agents"]
    assert (index["agent"], index["state"]) == ("cma_es", "finished") and index["folder"].endswith(killed.parent.name)
    rows = read(tmp_path / "tracking" / "csv" / index["folder"] / "rounds.csv")[:-1]
    assert [float(row["round/mean"]) for row in rows] == [r["mean"] for r in agent["rounds"]]
    assert float(index["final"]) == agent["final"]["value"]


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("wandbb", "unknown tracker 'wandbb': did you mean 'wandb'?"),
        ("csv:", "expected where to after the colon"),
        ("csv:{file}", "expected a folder that can be written to, got {file}: a file"),
        ("tensorboard:{file}/below", "expected a folder that can be written to, got {file}/below: a file"),
        ("mlflow:runs/mlflow", "expected sqlite:///FILE or the http address of a server, got 'runs/mlflow'"),
        ("mlflow:sqlite:///{folder}", "expected a file for SQLite, got a folder"),
        ("mlflow:http://me:secret@lab:5000", "expected an address without user and password, got one with; they"),
        ("wandb:a/b/c", "expected PROJECT or ENTITY/PROJECT, got 'a/b/c'"),
        ("half", "expected a class with all methods of a tracker, found one without log, images, finish, stop"),
        ("broken", "expected a class made of (where, beside), found KeyError: 'a bug'"),
    ],
)  # fmt: skip
def test_what_cannot_track_is_refused_before_anything_is_shown(theirs, tmp_path: Path, refused, track, message) -> None:
    (tmp_path / "file").write_text("")
    names = {"file": tmp_path / "file", "folder": tmp_path}
    assert message.format(**names) in refused("run", *SMALL, "--track", track.format(**names), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_a_missing_package_is_named_with_what_brings_it(tmp_path: Path, refused, monkeypatch, name: str) -> None:
    for package in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, package)
    monkeypatch.setitem(sys.modules, name, None)
    line = refused("run", *SMALL, "--track", name, "--out", tmp_path / "run")
    assert f"tracker {name}: expected the package {name}" in line and f"pip install 'neurogym-v[{name}]'" in line
    assert not (tmp_path / "run").exists()


def test_the_same_tracker_twice_and_a_damaged_list_of_trackers(heard, tmp_path: Path) -> None:
    config = heard[0].config
    with pytest.raises(NeuroGymError, match="trackers: expected each once, got csv, csv"):
        Tracked(["csv", "csv"], config, tmp_path)
    (tmp_path / "tracking.json").write_text("{")
    with pytest.raises(NeuroGymError, match="expected the trackers of a run, found damage"):
        Tracked.resumed([], config, tmp_path)


def test_resume_has_the_trackers_and_the_name_that_the_run_began_with(heard, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    began = Tracked(["csv"], heard[0].config, tmp_path / "run")
    began.keep()
    again = Tracked.resumed([], heard[0].config, tmp_path / "run")
    assert (again.names, again._info("cma_es")) == (("csv",), began._info("cma_es"))
    other = Tracked.resumed([f"csv:{tmp_path / 'there'}"], heard[0].config, tmp_path / "run")
    assert (other.names, other.id) == ((f"csv:{tmp_path / 'there'}",), began.id)


def test_without_trackers_nothing_is_added(heard, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert tell(Tracked([], heard[0].config, tmp_path / "run"), heard) == []
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]
    watcher = Watcher()
    assert Tracked([], heard[0].config, tmp_path / "run").watcher(heard[0].references, watcher) is watcher


@given(st.text(max_size=200))
def test_any_name_becomes_part_of_a_path(name: str) -> None:
    part = slug(name)
    assert 0 < len(part) <= 80 and "/" not in part and not part.startswith(".") and part == Path(part).name


def test_ours_open_and_write_nothing(tmp_path: Path) -> None:
    for name in TRACKERS:
        open_tracker(name, tmp_path / "tracking")
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_times_every_turn(heard) -> None:
    seconds = benchmark.measure(heard[0].config, [benchmark.WITHOUT, "csv"], repeats=2)
    assert {name: times.shape for name, times in seconds.items()} == {"none": (3, 5), "csv": (3, 5)}
    assert (seconds["csv"][:, :4] > 0).all() and (seconds["none"][:, 1] > 0).all()
    assert (seconds["csv"][:, 3] > 5 * seconds["none"][:, 3]).all()
    assert benchmark.report(seconds).row_count == 2
