"""Entries of a leaderboard: made of finished benches, read as the files of strangers that they are, and shown in README.md."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.leaderboard.board import board_of
from neurogym_v.benchmarks.leaderboard.build import write_page
from neurogym_v.benchmarks.leaderboard.entry import Said, digest, entry_of, latent, parameters, signed, text_of
from neurogym_v.benchmarks.leaderboard.pictures import shown
from neurogym_v.benchmarks.leaderboard.reading import read_entry, schema
from neurogym_v.benchmarks.reduced import repeats_of
from neurogym_v.benchmarks.runs import Folder, read_json
from neurogym_v.benchmarks.standings import ranked, standings, tracks
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.cli import main
from neurogym_v.scoring import paired

ROOT = Path(__file__).parents[1]


SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "Two cells of known optimum."
citation = "no one"
agents = ["random", "cma_es"]
seeds = [0, 1]
budget = 80
report_at = [40]
batch_size = 20
recommend = 2
generator = "fourier"

[[grid]]
label = "V1, simple"
neuron = "gabor"
sites = [1, 6]
held_out = [6]
noises = ["poisson+lost:0.2"]
"""


Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def mine() -> Suite:
    return suite.parse(SUITE, where="mine.toml")


@pytest.fixture(scope="module")
def bench(mine: Suite, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("bench"))
    run_all(mine, mine.tasks(), folder, Serial())
    return folder


@pytest.fixture(scope="module")
def added(bench: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of leaderboards with both entries, and the suite beside it."""
    folder = tmp_path_factory.mktemp("added")
    (folder / "mine.toml").write_text(SUITE)
    options = ["--suite", str(folder / "mine.toml"), "--to", str(folder / "to")]
    assert main(["leaderboard", "add", str(bench.path), "--by", "Our lab", "--note", "a | b", *options]) == 0
    return folder


@pytest.fixture
def boards(added: Path, tmp_path: Path) -> Path:
    """A copy to spoil, with the suite beside it."""
    shutil.copytree(added, tmp_path / "boards")
    return tmp_path / "boards"


def entry_at(boards: Path, agent: str = "cma_es") -> Path:
    return boards / "to" / "mine-v1" / f"{agent}.json"


def refused(boards: Path, capsys: pytest.CaptureFixture[str], *options: str, command: str = "build") -> str:
    """The line that a command ends with."""
    capsys.readouterr()
    to = ["--to", str(boards / "to")] if command != "verify" else []
    assert main(["leaderboard", command, *to, *options, "--suite", str(boards / "mine.toml")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("neurogym-v: error: ") and len(said) < 700
    return said


def test_an_entry_holds_the_numbers_of_the_runs(mine: Suite, bench: Folder, added: Path) -> None:
    entry = read_entry(entry_at(added))
    assert (entry["agent"], entry["by"], entry["note"], entry["suite"]["id"]) == ("cma_es", "Our lab", "a | b", "mine-v1")
    tasks = mine.tasks(["cma_es"])
    assert len(entry["runs"]) == len(tasks) == 4
    for task, run in zip(tasks, entry["runs"], strict=True):
        result = read_json(bench.result(task))
        assert (run["site"], run["seed"], run["held_out"]) == (task.config.site, task.config.seed, task.config.site == 6)
        for ours, theirs in zip(run["milestones"], result["milestones"], strict=True):
            assert ours == {key: theirs[key] for key in ours}
        repeats, best = (np.array(result["milestones"][-1]["shown"][key], dtype=float) for key in ("image", "natural"))
        found = paired(repeats_of(run["test"]["difference"]), np.zeros(run["test"]["difference"]["n"]))
        assert found == pytest.approx(paired(repeats, best), rel=1e-9)
        assert run["test"]["final"]["n"] == np.isfinite(repeats).sum() < 80
        assert run["test"]["difference"]["n"] == (np.isfinite(repeats) & np.isfinite(best)).sum()
        assert np.abs(latent(run["recommended"]) - result["recommended"]).max() < 2e-3
        assert (run["lost"], run["presentations"], run["agent_s"]) == (result["lost"], 80, result["agent_s"])
    assert entry["parameters"] == {"sigma0": 1.0, "update_every": 10, "mean0": None}
    assert entry["wall_s"] == pytest.approx(sum(run["wall_s"] for run in entry["runs"]))
    assert entry["command"].startswith("neurogym-v bench ") and entry["command"].endswith("mine.toml --agents cma_es")


def test_standings_are_the_same_from_entries_and_from_results(mine: Suite, bench: Folder, added: Path) -> None:
    results = [read_json(bench.result(task)) for task in mine.tasks()]
    (track,) = tracks(mine.tasks())
    runs = {agent: read_entry(entry_at(added, agent))["runs"] for agent in ("random", "cma_es")}
    for ours, theirs in zip(ranked(mine, track, runs), standings(mine, track, results), strict=True):
        np.testing.assert_equal(dataclasses.asdict(ours), dataclasses.asdict(theirs))


@given(st.lists(st.floats(-200, 200), min_size=2, max_size=40))
def test_a_test_from_mean_and_sd_is_the_test_from_repeats(differences: list[float]) -> None:
    moments = {"mean": np.mean(differences), "sd": np.std(differences, ddof=1), "n": len(differences)}
    if float(moments["sd"]) < 1e-3:
        return  # of equal numbers the rounding of the mean is all there is
    nothing = np.zeros(len(differences))
    assert paired(repeats_of(moments), nothing) == pytest.approx(paired(np.array(differences), nothing), rel=1e-4, abs=1e-12)


def test_repeats_of_few_trials() -> None:
    assert repeats_of({"mean": None, "sd": None, "n": 0}).shape == (0,)
    assert repeats_of({"mean": 3.0, "sd": None, "n": 1}).tolist() == [3.0]
    for n in (2, 7, 80):
        made = repeats_of({"mean": 5.0, "sd": 2.0, "n": n})
        assert (len(made), made.mean(), made.std(ddof=1)) == (n, pytest.approx(5), pytest.approx(2))


def test_all_parameters_are_told() -> None:
    told = parameters("ga:ponce2019,temperature=2")
    assert told["temperature"] == 2 and len(told) > 3
    json.dumps(parameters("nevergrad:DE"))


def test_runs_that_are_missing_are_named(boards: Path, mine: Suite, bench: Folder, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(bench.path, tmp_path / "bench")
    folder = Folder(tmp_path / "bench")
    for task in mine.tasks(["cma_es"])[1:3]:
        folder.result(task).unlink()
    said = refused(boards, capsys, str(folder.path), "--replace", command="add")
    assert "expected all 4 runs of cma_es, 2 are missing (gabor-6-poisson+lost-0.2-0, gabor-1-poisson+lost-0.2-1)" in said
    options = ["--suite", str(boards / "mine.toml"), "--to", str(tmp_path / "to")]
    assert main(["leaderboard", "add", str(folder.path), "--agents", "random", *options]) == 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"code": "0123456789ab"}, [], "expected runs of the version and code of today"),
        ({"version": "0.0.1"}, [], "expected runs of the version and code of today"),
        ({"cast": 0}, ["--outdated"], "expected runs on cast 1, got some on cast 0"),
    ],
)
def test_runs_of_other_code_are_refused(
    change: dict[str, Any],
    options: list[str],
    message: str,
    boards: Path,
    mine: Suite,
    bench: Folder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(bench.path, tmp_path / "bench")
    folder, tasks = Folder(tmp_path / "bench"), mine.tasks(["cma_es"])

    def spoil(task: Any) -> None:
        folder.result(task).write_text(json.dumps(read_json(folder.result(task)) | change))

    spoil(tasks[2])
    said = refused(boards, capsys, str(folder.path), "--agents", "cma_es", "--replace", *options, command="add")
    assert "expected all runs with one version, cast and code, got" in said
    for task in tasks:
        spoil(task)
    said = refused(boards, capsys, str(folder.path), "--agents", "cma_es", "--replace", *options, command="add")
    assert message in said
    if not options:
        told = ["--suite", str(boards / "mine.toml"), "--to", str(boards / "to"), "--replace", "--outdated"]
        assert main(["leaderboard", "add", str(folder.path), "--agents", "cma_es", *told]) == 0
        made = read_entry(entry_at(boards))
        assert made["code"] == change.get("code", made["code"])
        assert made["versions"]["neurogym-v"] == change.get("version", "0.1.0")


def test_an_entry_that_is_there_stays_unless_told(boards: Path, bench: Folder, capsys: Any) -> None:
    said = refused(boards, capsys, str(bench.path), command="add")
    assert "expected no entry of cma_es yet, found one; put the new one in its place with --replace" in said


def test_folders_that_are_no_bench(boards: Path, bench: Folder, tmp_path: Path, capsys: Any) -> None:
    assert "expected the folder of a bench, found no suite.json" in refused(boards, capsys, str(tmp_path), command="add")
    other = Path(shutil.copytree(bench.path, tmp_path / "other"))
    assert main(["leaderboard", "add", str(other)]) == 2
    said = capsys.readouterr().err
    assert "suite mine-v1: expected one that ships" in said and "--suite FILE" in said and said.count("\n") == 1
    told = json.loads((other / "suite.json").read_text())
    (other / "suite.json").write_text(json.dumps(told | {"budget": 120}))
    assert "expected results of mine-v1, found others (budget: 120)" in refused(boards, capsys, str(other), command="add")
    shutil.rmtree(other / "agents")
    assert "expected a run that is done, found none yet" in refused(boards, capsys, str(other), command="add")


def test_images_of_all_seeds_are_shown_where_there_are_few_and_compared(boards: Path, bench: Folder, mine: Suite) -> None:
    file = boards.parent / "page.html"
    write_page(mine, bench, file)
    page = file.read_text()
    for agent in ("random", "cma_es"):
        frames = re.findall(rf"{agent}, seed (\d)", page.replace("\u200b", ""))
        assert frames == ["0", "0", "1", "1"] * 2  # below the image, and where it is enlarged
    assert len(re.findall(r"repeated searches.{1,80}\d+% \[\d+%, \d+%\] of pairs", page, re.DOTALL)) == 2
    many = [{**entry_of(mine, "random", bench, Said(date="2026-01-02")), "agent": f"random{n}"} for n in range(7)]
    assert shown(board_of(mine, many)) == (0,)


def test_what_is_run_has_a_digest_and_what_is_said_of_it_has_none(mine: Suite) -> None:
    assert digest(dataclasses.replace(mine, title="Else", about="Else", agents=("nes",))) == digest(mine)
    others = [dataclasses.replace(mine, budget=120), dataclasses.replace(mine, seeds=(0,)),
              dataclasses.replace(mine, grids=(dataclasses.replace(mine.grids[0], held_out=()),))]  # fmt: skip
    assert len({digest(one) for one in [mine, *others]}) == 4


def test_what_is_written_is_read(added: Path) -> None:
    entry = read_entry(entry_at(added))
    assert json.loads(text_of(entry)) == entry == signed(entry)
    assert entry_at(added).read_text() == text_of(entry)


def test_the_schema_in_the_repository_is_the_one_that_is_used() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))
    assert (ROOT / "leaderboards" / "schema.json").read_text() == schema()


def test_no_entry_no_table(tmp_path: Path) -> None:
    assert main(["leaderboard", "build", "--to", str(tmp_path)]) == 0
    assert "There is no entry yet." in (tmp_path / "README.md").read_text()
    assert (tmp_path / "schema.json").read_text() == schema()


def test_the_readme_has_the_standings(mine: Suite, boards: Path) -> None:
    options = ["--to", str(boards / "to"), "--suite", str(boards / "mine.toml")]
    assert main(["leaderboard", "build", *options]) == 0
    text = (boards / "to" / "README.md").read_text()
    names, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    runs = {agent: read_entry(entry_at(boards, agent))["runs"] for agent in ("random", "cma_es")}
    (track,) = tracks(mine.tasks())
    made = ranked(mine, track, runs)
    assert [row[names.index("agent")] for row in rows] == [f"`{one.agent}`" for one in made]
    for row, one in zip(rows, made, strict=True):
        assert row[names.index("score at 80")].replace("\\", "").replace("−", "-") == str(one.score)
        assert row[names.index("at 40")].replace("\\", "").replace("−", "-") == str(one.at[40])
        held, others = (float(row[names.index(name)].replace("−", "-")) for name in ("held out", "others"))
        assert held == pytest.approx(one.scores[1].mean(), abs=0.006)  # site 6; of two runs the middle half is both
        assert others == pytest.approx(one.scores[0].mean(), abs=0.006)
        assert row[names.index("runs")] == "4/4"
    assert rows[0][0] == "1" and rows[1][0] == "2 ≈ 1st"  # two sites tell nobody apart


def test_the_same_entries_give_the_same_bytes(boards: Path) -> None:
    command = ["leaderboard", "build", "--to", str(boards / "to"), "--suite", str(boards / "mine.toml")]
    made = []
    for _ in range(2):
        assert main(command) == 0
        made.append({path.name: path.read_bytes() for path in (boards / "to").iterdir() if path.is_file()})
    assert made[0] == made[1] and set(made[0]) == {"README.md", "schema.json", "mine-v1.html"}


def test_a_full_disk_leaves_all_pages_as_they_were(boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to, (soft, hard) = boards / "to", resource.getrlimit(resource.RLIMIT_FSIZE)
    (to / "README.md").write_text("as it was")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # README.md and the schema fit, the page does not
    try:
        said = refused(boards, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in said
    assert (to / "README.md").read_text() == "as it was"
    assert sorted(path.name for path in to.iterdir()) == ["README.md", "mine-v1"]
