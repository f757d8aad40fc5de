"""The command line: what it leaves behind, and what it says when it cannot."""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from neurogym_v.cli import main
from neurogym_v.registry import AGENTS, GENERATORS, NEURONS

Refused = Callable[..., str]

SHIPPED = Path(__file__).parents[1] / "neurogym_v"
SMALL = ["--neuron", "gabor", "--site", "2", "--budget", "120", "--agent", "cma_es", "--agent", "random"]


@pytest.fixture
def small(photographs: Path) -> list[str]:
    """Options of a run of seconds."""
    return [*SMALL, "--references", str(photographs)]


def test_a_run_leaves_a_folder_that_tells_how_it_went(small: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert main(["run", *small, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in ("spontaneous", "cma_es", "random", "relative activation", str(out)):
        assert word in printed.replace("sponta-", "spontaneous")
    files = {path.name for path in out.iterdir()}
    assert files == {
        "journal.sqlite", "summary.json", "evolution.png", "final-cma_es.png", "final-random.png", "best-natural.png",
        "report.html",
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert [agent["search_presentations"] for agent in summary["agents"]] == [120, 120]
    assert summary["natural"]["spontaneous"]["low"] <= summary["natural"]["spontaneous"]["value"]
    with closing(sqlite3.connect(out / "journal.sqlite")) as db:
        counted = dict(db.execute("SELECT session, sum(count) FROM block GROUP BY session"))
    assert sum(counted.values()) == summary["total_presentations"]
    assert Image.open(out / "evolution.png").width > 1000
    assert Image.open(out / "final-cma_es.png").size == (64, 64)


def test_resuming_a_finished_run_changes_nothing(small: list[str], tmp_path: Path, refused: Refused) -> None:
    assert main(["run", *small, "--out", str(tmp_path / "run")]) == 0
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert main(["resume", str(tmp_path / "run")]) == 0
    after = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [a["final"] for a in before["agents"]] == [a["final"] for a in after["agents"]]
    assert "expected a new folder, found a run" in refused("run", *small, "--out", str(tmp_path / "run"))


def test_list_names_everything(capsys) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in [*AGENTS, *GENERATORS, *NEURONS, "ga:ponce2019", "neurogym_v/V4-v0"]:
        assert name in printed


@pytest.mark.parametrize("command", [[], ["run"], ["resume"], ["list"]])
def test_help_teaches(command: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "cma_e"], "unknown agent 'cma_e': did you mean 'cma_es'?"),
        (["--agent", "ga:ponce"], "did you mean 'ponce2019'?"),
        (["--neuron", "gabbor"], "did you mean 'gabor'?"),
        (["--generator", "natural"], "did you mean 'natural64'?"),
        (["--site", "99"], "expected 0 to 11 for this neuron, got 99"),
        (["--budget", "10"], "batch_size 40, budget 10"),
        (["--budget", "many"], "invalid int value: 'many'"),
        (["--noise", "lost:1.5"], "probability in [0, 1), got 1.5"),
        (["--device", "tpu9"], "device 'tpu9': expected auto, cpu or an available device"),
        (["--seed", "-1"], "expected 0 or more, got -1"),
        (["--agent", "random"], "each once, got cma_es, random, random"),
        (["--references", "/no/such/folder"], "expected a folder of images, found none"),
    ],
)
def test_settings_that_cannot_run_are_refused_before_anything_is_written(
    small: list[str], tmp_path: Path, refused: Refused, arguments: list[str], message: str
) -> None:
    assert message in refused("run", *small, *arguments, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("harm", ["missing", "truncated", "bit-flipped", "swapped", "not safetensors"])
@pytest.mark.parametrize("part", ["generator", "neuron"])
def test_weights_files_that_cannot_be_used(small: list[str], tmp_path: Path, refused: Refused, part: str, harm: str) -> None:
    files = {
        "generator": SHIPPED / "generators" / "weights" / "natural64.safetensors",
        "neuron": SHIPPED / "neurons" / "weights" / "v4.safetensors",
    }
    path = tmp_path / "weights.safetensors"
    data = bytearray(files[part].read_bytes())
    if harm == "truncated":
        path.write_bytes(data[:-1000])
    elif harm == "bit-flipped":
        data[-1000] ^= 1
        path.write_bytes(data)
    elif harm == "swapped":
        shutil.copy(files["neuron" if part == "generator" else "generator"], path)
    elif harm == "not safetensors":
        path.write_text("weights? none here")
    line = refused("run", *small, f"--{part}", str(path), "--out", str(tmp_path / "run"))
    assert str(path) in line
    assert "expected" in line or "damaged" in line
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written(small: list[str], tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "file" in refused("run", *small, "--out", str(tmp_path / "file" / "run"))
    assert "expected the journal of a run, found no file" in refused("resume", str(tmp_path))


def test_journals_that_cannot_be_continued(small: list[str], tmp_path: Path, refused: Refused) -> None:
    assert main(["run", *small, "--out", str(tmp_path / "run")]) == 0
    path = tmp_path / "run" / "journal.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert f"journal {path}: expected a whole" in refused("resume", str(tmp_path / "run"))
    assert path.read_bytes() == whole[: len(whole) * 2 // 3]
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '1' WHERE key = 'version'")
    assert "expected version 2, found version 1" in refused("resume", str(tmp_path / "run"))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '2' WHERE key = 'version'")
        db.execute("UPDATE presentation SET latent = (SELECT latent FROM presentation WHERE latent IS NOT NULL LIMIT 1)")
    assert "replay diverged in session 'natural'" in refused("resume", str(tmp_path / "run"))


def test_a_full_disk_stops_the_run_in_one_line_and_it_can_be_continued(small: list[str], tmp_path: Path) -> None:
    """A limit on the size of files is what any user can set; the kernel then refuses to write as a full disk does."""
    out = tmp_path / "run"
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from neurogym_v.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "run", *small, "--budget", "1000", "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert "journal" in run.stderr
    assert main(["resume", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["agents"][0]["search_presentations"] == 1000


def test_a_run_whose_site_dies_says_so_and_gives_no_score(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = "dying:mean_h=0.25,notice=5+poisson"
    command = ["run", "--neuron", "gabor", "--generator", "fourier", "--references", str(photographs), "--budget", "2000"]
    for seed in range(20):  # until one dies in the search
        out = tmp_path / str(seed)
        code = main([*command, "--agent", "random", "--noise", noise, "--seed", str(seed), "--out", str(out)])
        printed = capsys.readouterr()
        if code == 2:
            assert "it was lost while natural images were shown" in printed.err
        elif "the site was lost" in printed.out:
            agent = json.loads((out / "summary.json").read_text())["agents"][0]
            assert agent["site_lost"] and agent["relative_activation"]["value"] is None
            return
    raise AssertionError("no site died")


def test_what_is_printed_holds_for_any_folder(photographs: Path, tmp_path: Path, capsys, refused: Refused) -> None:
    out = tmp_path / "it's [bold]1"
    options = ["--neuron", "gabor", "--budget", "40", "--agent", "random", "--references", str(photographs), "--out", str(out)]
    assert main(["run", *options]) == 0
    printed = capsys.readouterr().out
    assert f"run folder: {out}\n" in printed and f"in {out}\n" in printed
    command = refused("run", *options).partition("continue it with: ")[2]
    assert shlex.split(command) == ["neurogym-v", "resume", str(out)]
