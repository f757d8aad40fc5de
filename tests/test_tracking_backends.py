"""What the trackers' own readers find after a run through the command line, compared with the run's own numbers."""

from __future__ import annotations

import json
import math
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from neurogym_v import tracked
from neurogym_v.cli import main
from neurogym_v.tracking import open_tracker
from neurogym_v.tracking.record import RunInfo
from neurogym_v.types import NeuroGymError

for library in ("mlflow", "tensorboard", "wandb"):
    pytest.importorskip(library)

AGENTS = ("cma_es", "random")
SMALL = "--neuron gabor --site 2 --generator fourier --budget 80 --batch-size 4 --noise poisson+lost:0.2 --seed 1".split()
TRACK = [word for name in ("csv", "tensorboard", "mlflow", "wandb") for word in ("--track", name)]
SILENT = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A run with two agents and all trackers: its folder, its summary, what it printed, and where the tracking is."""
    base = tmp_path_factory.mktemp("tracked")
    rng = np.random.default_rng(0)
    (base / "photographs").mkdir()
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(base / "photographs" / f"{name}.png")
    named = [word for name in AGENTS for word in ("--agent", name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracked, "EVERY", 1)  # many pictures of a short run
        for name, value in {**SILENT, "NETRC": str(base / "none"), "WANDB_CONFIG_DIR": str(base / "config")}.items():
            patch.setenv(name, value)
        out = base / "run"
        assert main(["run", *SMALL, *named, *TRACK, "--references", str(base / "photographs"), "--out", str(out)]) == 0
        summary = json.loads((out / "summary.json").read_text())
        yield SimpleNamespace(
            out=out, tracking=base / "tracking", agents={agent["agent"]: agent for agent in summary["agents"]}
        )


def number(value: float | None) -> float:
    """Of a JSON file."""
    return math.nan if value is None else value


def means(agent: dict) -> tuple[list[int], list[float]]:
    """Presentations and mean rate of every round; NaN where all was lost."""
    return [r["spent"] for r in agent["rounds"]], [number(r["mean"]) for r in agent["rounds"]]


def test_the_run_has_what_is_hard_to_track(run) -> None:
    assert any(r["mean"] is None for agent in run.agents.values() for r in agent["rounds"]), "no round was lost: another seed"


# tensorboard


def tensorboard(run, agent: str):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (run.tracking / "tensorboard" / "run").glob(f"{agent}-*")
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


@pytest.mark.parametrize("agent", AGENTS)
def test_tensorboard_reads_the_curves_and_the_pictures(run, agent: str) -> None:
    events = tensorboard(run, agent)
    spent, mean = means(run.agents[agent])
    curve = events.Scalars("round/mean")
    assert [event.step for event in curve] == spent
    np.testing.assert_allclose([event.value for event in curve], mean, rtol=1e-6)
    (score,) = events.Scalars("score/relative_activation")
    assert score.value == pytest.approx(run.agents[agent]["relative_activation"]["value"])
    assert 6 < len(events.Images("evolution")) <= 12
    recommended = decoded(events.Images("recommended")[0].encoded_image_string)
    np.testing.assert_array_equal(recommended[:64, :64], np.asarray(Image.open(run.out / f"final-{agent}.png")))
    assert recommended.shape[0] > 64, "no caption below it"
    table = events.Tensors("table")[0].tensor_proto.string_val[0].decode()
    assert table.startswith("| agent |") and all(f"| {name} |" in table for name in AGENTS)
    assert {path.name for path in Path(events.path).iterdir()} >= {"summary.json", "evolution.png"}


def test_tensorboard_knows_the_settings_as_hyperparameters(run) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = tensorboard(run, "cma_es").PluginTagToContent("hparams")
    begun = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    assert begun.hparams["budget"].number_value == 80 and begun.hparams["agent"].string_value == "cma_es"
    compared = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert "score/final" in {metric.name.tag for metric in compared.metric_infos}


def decoded(png: bytes) -> np.ndarray:
    from io import BytesIO

    return np.asarray(Image.open(BytesIO(png)))


# mlflow


def mlflow_runs(run, suite: str = "run") -> tuple:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.tracking / 'mlflow.sqlite'}")
    experiment = client.get_experiment_by_name(f"neurogym-v {suite}")
    return client, {found.data.tags["agent"]: found for found in client.search_runs([experiment.experiment_id])}


def test_mlflow_reads_everything(run) -> None:
    client, runs = mlflow_runs(run)
    assert runs.keys() == set(AGENTS)
    for agent, found in runs.items():
        spent, mean = means(run.agents[agent])
        history = sorted(client.get_metric_history(found.info.run_id, "round/mean"), key=lambda metric: metric.step)
        assert [metric.step for metric in history] == spent
        np.testing.assert_array_equal([metric.value for metric in history], mean)
        assert found.data.metrics["score/final"] == run.agents[agent]["final"]["value"]
        assert (found.info.status, found.data.tags["group"], found.data.params["budget"]) == ("FINISHED", "run", "80")
        files = {Path(file.path).name for file in client.list_artifacts(found.info.run_id, "files")}
        assert files >= {"summary.json", "evolution.png", f"final-{agent}.png"}
        images = [file.path for file in client.list_artifacts(found.info.run_id, "images") if file.path.endswith(".png")]
        assert 6 < sum("/evolution+" in name for name in images) <= 12
        (name,) = [name for name in images if "/recommended+" in name]
        picture = np.asarray(Image.open(client.download_artifacts(found.info.run_id, name)))
        np.testing.assert_array_equal(picture[:64, :64], np.asarray(Image.open(run.out / f"final-{agent}.png")))


def test_mlflow_goes_on_where_it_was_killed(run, tmp_path: Path) -> None:
    uri = f"mlflow:sqlite:///{run.tracking / 'mlflow.sqlite'}"
    info = RunInfo(id="ab" * 6, name="n", group="g", tags={"suite": "other", "agent": "killed"}, config={"budget": 3})
    killed = open_tracker(uri, tmp_path)
    killed.begin(info)
    killed.log(1, {"spent": 1.0, "x": 0.1})
    killed.stop()
    again = open_tracker(uri, tmp_path)
    again.begin(info)
    for step in (1, 2, 3):
        again.log(step, {"spent": float(step), "x": 0.1 * step})
    again.finish([], [])
    client, runs = mlflow_runs(run, "other")
    assert runs.keys() == {"killed"}
    history = client.get_metric_history(runs["killed"].info.run_id, "x")
    assert sorted(metric.step for metric in history) == [1, 2, 3]
    assert runs["killed"].info.status == "FINISHED"


BEGIN = """
import sys
from pathlib import Path
from neurogym_v.tracking import open_tracker
from neurogym_v.tracking.record import RunInfo
for folder in sys.argv[2:]:
    tracker = open_tracker("mlflow", Path(folder))
    print("ready", flush=True)
    sys.stdin.readline()
    tracker.begin(RunInfo(id=12 * sys.argv[1], name="n", group="g", tags={"suite": "s", "agent": sys.argv[1]}, config={}))
    tracker.finish([], [])
"""


def test_mlflow_is_begun_by_two_processes_at_once() -> None:
    """As a bench of two jobs begins, and again; in memory where that can be, as a disk makes a new database slow."""
    from mlflow.tracking import MlflowClient

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as base:
        folders = [f"{base}/{number}" for number in range(2)]
        both = [
            subprocess.Popen([sys.executable, "-c", BEGIN, name, *folders], env=os.environ | SILENT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for name in "ab"
        ]  # fmt: skip
        try:
            for _ in folders:
                if [child.stdout.readline() for child in both] != ["ready\n"] * 2:
                    break  # what one says of it is seen below
                for child in both:
                    child.stdin.write("\n")
                    child.stdin.flush()
            said = [child.communicate(timeout=60)[1] for child in both]
        finally:
            for child in both:
                child.kill()
        assert [child.returncode for child in both] == [0, 0], "".join(said)
        for folder in folders:
            client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.sqlite")
            runs = client.search_runs([client.get_experiment_by_name("neurogym-v s").experiment_id])
            assert sorted((run.data.tags["agent"], run.info.status) for run in runs) == [("a", "FINISHED"), ("b", "FINISHED")]


def test_mlflow_waits_for_another_process_no_longer_than_it_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("neurogym_v.tracking.mlflow.PATIENCE_S", 0.1)
    tracker = open_tracker("mlflow", tmp_path)
    holding = sqlite3.connect(tmp_path / "mlflow.sqlite.lock", isolation_level=None)
    holding.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NeuroGymError, match=r"^tracker mlflow: expected .*sqlite.lock free within 0.1 s, got: .* locked$"):
        tracker.begin(RunInfo(id="0" * 12, name="n", group="g", tags={"suite": "run"}, config={}))
    holding.close()


# wandb


def records(path: Path) -> list:
    """Of an offline run's file; its service writes the last of them a moment after the run has finished."""
    until = time.monotonic() + 10
    while True:
        found = list(parsed(path))
        if any(record.HasField("exit") for record in found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


def parsed(path: Path) -> Iterator:
    """A header of 7 bytes, then blocks of 32 KiB with pieces of records, as in a log of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no piece begins so late in a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0 or at + 7 + length > len(data):
            return
        whole = (b"" if kind in (1, 2) else whole) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)


def wandb_run(run, agent: str) -> SimpleNamespace:
    """The offline run of an agent: its history as (step, name -> value), what it was begun with, and its folder."""
    for path in (run.tracking / "wandb").glob("offline-run-*/run-*.wandb"):
        found = records(path)
        (begun,) = [record.run for record in found if record.HasField("run")]
        if begun.job_type == agent:
            rows = [(r.history.step.num, row_of(r.history)) for r in found if r.HasField("history")]
            return SimpleNamespace(rows=rows, begun=begun, folder=path.parent / "files")
    raise AssertionError(f"no offline run of {agent}")


def row_of(history) -> dict:
    """Numbers by their name; of pictures and tables what is said of them, by its name in turn."""
    row: dict = {}
    for item in history.item:
        name, *inner = list(item.nested_key) or [item.key]
        if inner:
            row.setdefault(name, {})[inner[0]] = json.loads(item.value_json)
        else:
            row[name] = json.loads(item.value_json)
    return row


@pytest.mark.parametrize("agent", AGENTS)
def test_wandb_has_everything_offline(run, agent: str) -> None:
    found = wandb_run(run, agent)
    spent, mean = means(run.agents[agent])
    curve = [(step, row["round/mean"]) for step, row in found.rows if "round/mean" in row]
    assert [step for step, _ in curve] == spent
    np.testing.assert_allclose([float(value) for _, value in curve], mean)
    (score,) = [row["score/final"] for _, row in found.rows if "score/final" in row]
    assert score == run.agents[agent]["final"]["value"]
    panels = [row["evolution"] for _, row in found.rows if "evolution" in row]
    assert 6 < len(panels) <= 12 and panels[0]["captions"][0].endswith("spikes/s")
    (recommended,) = [row["recommended"] for _, row in found.rows if "recommended" in row]
    picture = np.asarray(Image.open(found.folder / recommended["filenames"][0]))
    np.testing.assert_array_equal(picture[..., :3], np.asarray(Image.open(run.out / f"final-{agent}.png")))
    config = {item.key: json.loads(item.value_json) for item in found.begun.config.update}
    assert (config["budget"], config["site"], found.begun.run_group) == (80, 2, "run")
    assert f"agent:{agent}" in found.begun.tags
    assert (found.folder / "summary.json").read_bytes() == (run.out / "summary.json").read_bytes()


def test_resuming_a_finished_run_doubles_nothing(run) -> None:
    assert main(["resume", str(run.out)]) == 0
    test_mlflow_reads_everything(run)
    test_tensorboard_reads_the_curves_and_the_pictures(run, "cma_es")
    assert len(list((run.tracking / "wandb").glob("offline-run-*"))) == len(AGENTS)
    test_wandb_has_everything_offline(run, "cma_es")


ALONE = """
import os, sys
from pathlib import Path
from neurogym_v.tracking import wandb
from neurogym_v.tracking.background import Background
from neurogym_v.tracking.record import RunInfo
wandb.ANSWER_S = wandb.SEND_S = 1.0
for address in sys.argv[2:]:
    os.environ["WANDB_BASE_URL"] = address
    tracker = wandb.WandB("", Path(sys.argv[1]) / address[-5:])
    calls = Background("wandb", print)
    calls.call(lambda: tracker.begin(RunInfo(id="0" * 12, name="n", group="g", tags={"agent": "ga"}, config={})))
    for step in range(10):
        calls.call(lambda step=step: tracker.log(step, {"x": float(step)}))
    calls.call(lambda: tracker.finish([], []))
    calls.end()
    print(calls.wait(), tracker.place)
    tracker._wandb.teardown()  # it reads the environment once
"""


def test_wandb_without_an_answer_is_kept_offline_and_nothing_hangs(tmp_path: Path) -> None:
    """A server that is not there, and one that takes calls and never says a word."""
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # of the library in this process
    environment |= SILENT | {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40}
    began = time.monotonic()
    with socket.socket() as dead, socket.socket() as silent:
        for server in (dead, silent):
            server.bind(("127.0.0.1", 0))
        silent.listen(50)
        addresses = [f"http://127.0.0.1:{server.getsockname()[1]}" for server in (dead, silent)]
        command = [sys.executable, "-c", ALONE, str(tmp_path), *addresses]
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - began < 40
    assert (child.returncode, child.stderr) == (0, "")
    for address, line in zip(addresses, child.stdout.splitlines(), strict=True):
        assert line.startswith(f"None no run at {address}: ") and "send it with: wandb sync" in line
        (path,) = tmp_path.glob(f"{address[-5:]}/wandb/offline-run-*/run-*.wandb")
        assert sum(record.HasField("history") for record in records(path)) == 10


def test_wandb_with_a_wrong_key_is_kept_offline(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "short")
    tracker = open_tracker("wandb:a-team/a_project", tmp_path)
    tracker.begin(RunInfo(id="c" * 12, name="n", group="g", tags={"agent": "ga"}, config={}))
    tracker.log(3, {"x": 1.0})
    tracker.stop()
    assert "API key must have 40+ characters" in tracker.place
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    (begun,) = [record.run for record in records(path) if record.HasField("run")]
    assert (begun.entity, begun.project) == ("a-team", "a_project")


@pytest.mark.parametrize("server", ["dead", "silent"])
def test_mlflow_without_an_answer_fails_in_seconds(tmp_path: Path, monkeypatch, server: str) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if server == "silent":
            listening.listen(50)
        tracker = open_tracker(f"mlflow:http://127.0.0.1:{listening.getsockname()[1]}", tmp_path)
        began = time.monotonic()
        with pytest.raises(Exception, match="API request to"):
            tracker.begin(RunInfo(id="0" * 12, name="n", group="g", tags={"suite": "run"}, config={}))
        assert time.monotonic() - began < 10


def test_tensorboard_on_a_full_disk_says_so(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", tmp_path)
    tracker.begin(RunInfo(id="0" * 12, name="n", group="g", tags={}, config={}))
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left on device"):
        tracker._writer = tracker._record_writer(full)
        tracker.log(1, {"x": 1.0})
