"""Entries as files of strangers: whatever is in one, it is data, and what is wrong with it is said in a line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.leaderboard.board import board_of
from neurogym_v.benchmarks.leaderboard.checks import check
from neurogym_v.benchmarks.leaderboard.entry import Said, entry_of, path_of, signed, text_of
from neurogym_v.benchmarks.leaderboard.markdown import readme
from neurogym_v.benchmarks.leaderboard.reading import LARGEST, read_entry
from neurogym_v.benchmarks.leaderboard.verify import trusted
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.benchmarks.suite import Suite
from neurogym_v.cli import main
from neurogym_v.types import NeuroGymError

SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "Two cells of known optimum."
citation = "no one"
agents = ["cma_es"]
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
MARKER = "imported"
EVIL = f"""
from pathlib import Path

from neurogym_v.agents.random import Random

Path({MARKER!r}).touch()


class Evil(Random):
    pass


def network():
    raise RuntimeError("run")
"""
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def mine() -> Suite:
    return suite.parse(SUITE, where="mine.toml")


@pytest.fixture(scope="module")
def text(mine: Suite, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An honest entry."""
    folder = Folder(tmp_path_factory.mktemp("bench"))
    run_all(mine, mine.tasks(), folder, Serial())
    return text_of(entry_of(mine, "cma_es", folder, Said(date="2026-01-02")))


@pytest.fixture
def boards(text: str, tmp_path: Path) -> Path:
    """A folder of leaderboards to spoil, with the suite beside it."""
    entry_at(tmp_path).parent.mkdir(parents=True)
    entry_at(tmp_path).write_text(text)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path


@pytest.fixture
def at_home(boards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, to be in, with code of a stranger; runs are done in this process."""
    (boards / "evil.py").write_text(EVIL)
    monkeypatch.chdir(boards)
    monkeypatch.setattr("neurogym_v.cli.leaderboard.load_engine", lambda *_, **__: Serial())
    return boards


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


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "..", ".hidden", "a/b\\c", "x" * 200, "ga:ponce2019,temperature=1", "mine:Mine"]
)
def test_a_name_never_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    path = path_of(tmp_path, "core-v1", name)
    assert path.parent == tmp_path / "core-v1" and path.resolve().parent == path.parent
    assert not path.name.startswith(".") and path.suffix == ".json" and len(path.name) < 120
    path.parent.mkdir()
    path.write_text("")


def test_long_names_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    assert path_of(tmp_path, "core-v1", "x" * 150 + "1") != path_of(tmp_path, "core-v1", "x" * 150 + "2")


def edited(edit: Edit) -> Callable[[str], str]:
    """An entry after a change that its digest knows of."""

    def made(text: str) -> str:
        entry = json.loads(text)
        edit(entry)
        return json.dumps(signed(entry))

    return made


def set_in(*path: Any, to: Any) -> Edit:
    def change(entry: dict[str, Any]) -> None:
        inner: Any = entry
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to

    return change


def score(entry: dict[str, Any]) -> Any:
    return entry["runs"][1]["milestones"][-1]


LINK = "[here](https://evil.example)"
BARE = "https://evil.example/b www.evil.example <https://evil.example/c>"
SPOILT: dict[str, tuple[Callable[[str], str], str]] = {
    "an edited number": (lambda text: text.replace('"lost": ', '"lost": 1', 1), "expected the numbers that its sha256 is of"),
    "cut off": (lambda text: text[: len(text) // 2], "expected an entry as JSON, found"),
    "empty": (lambda _: "", "expected an entry as JSON, found"),
    "huge": (lambda text: " " * LARGEST + text, "expected an entry of at most 8 MB, found more"),
    "a list": (lambda _: "[]", "schema.json says, found at the top: [] is not of type 'object'"),
    "NaN": (lambda text: text.replace('"wall_s": ', '"wall_s": NaN, "x": ', 1), "NaN, which is no number of JSON"),
    "too large a number": (lambda text: text.replace('"wall_s": ', '"wall_s": 1e999, "x": ', 1), "1e999, which is too large"),
    "deep nesting": (lambda _: "[" * 100_000, "nested too deeply"),
    "deep nesting of good JSON": (lambda _: '{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    "a parameter nested a little too deeply": (
        edited(set_in("parameters", "a", to=json.loads("[" * 20 + "]" * 20))),
        "nested too deeply",
    ),
    "a string that no file can hold": (edited(set_in("note", to="\ud800")), "surrogates not allowed"),
    "a parameter of no name": (edited(set_in("parameters", "a<b", to=1)), "found at parameters: 'a<b' does not match"),
    "a key twice": (lambda text: text.replace("{", '{"agent": "nes",', 1), "the key 'agent' twice"),
    "no text": (lambda _: "\udcff", "expected an entry as JSON, found"),
    "a long whole number": (lambda text: text.replace('"cast": 1', '"cast": ' + "9" * 5000), "expected an entry as JSON"),
    "another type": (edited(set_in("runs", 0, "site", to="six")), "found at runs/0/site: 'six' is not of type 'integer'"),
    "a field too much": (edited(set_in("more", to=1)), "'more' was unexpected"),
    "a field too few": (edited(lambda e: e.pop("cast")), "'cast' is a required property"),
    "a failed run with scores": (edited(set_in("runs", 0, "failed", to="it did")), "found at runs/0"),
    "letters that turn a terminal": (edited(set_in("agent", to="nes\x1b[2J")), "found at agent"),
    "letters that turn a line": (edited(set_in("note", to="all \u202e is well")), "found at note"),
    "a new line at the end of a name": (edited(set_in("agent", to="nes\n")), "found at agent"),
    "a path as a suite": (edited(set_in("suite", "id", to="../../mine-v1")), "found at suite/id"),
    "another version of the suite": (
        edited(set_in("suite", "id", to="mine-v2")),
        "expected an entry of mine-v1, found one of mine-v2",
    ),
    "another suite of this name": (
        edited(set_in("suite", "digest", to="0" * 64)),
        "expected the sites and settings of mine-v1",
    ),
    "another cast": (edited(set_in("cast", to=7)), "expected cast 1, found 7"),
    "a run too few": (
        edited(lambda e: e["runs"].pop()),
        "expected all 2 runs of mine-v1, 1 are missing, such as gabor, site 6",
    ),
    "a run twice": (edited(lambda e: e["runs"].append(e["runs"][0])), "expected every run once, found twice: gabor, site 1"),
    "a run of another site": (
        edited(set_in("runs", 0, "site", to=3)),
        "expected runs of mine-v1, found another: gabor, site 3",
    ),
    "a site that is not held out": (
        edited(set_in("runs", 1, "held_out", to=False)),
        "expected held_out True as in the suite, found False",
    ),
    "a site of another kind": (
        edited(set_in("runs", 1, "label", to="V1, complex")),
        "expected label 'V1, simple' as in the suite, found 'V1, complex'",
    ),
    "a link as a version": (edited(set_in("versions", "neurogym-v", to=LINK)), "found at versions/neurogym-v"),
    "an address as a version": (edited(set_in("versions", "torch", to="1; www.evil.example")), "found at versions/torch"),
    "a score out of range": (
        edited(lambda e: score(e)["relative_activation"].update(value=1e9)),
        "is greater than the maximum of 100",
    ),
    "a score beyond its interval": (
        edited(lambda e: score(e)["contrast_matched"].update(value=9.0)),
        "expected contrast_matched within its interval",
    ),
    "a score that its repeats do not have": (
        edited(lambda e: score(e)["relative_activation"].update(value=2.0, high=3.0)),
        "expected the relative activation that its repeats come to",
    ),
    "too many repeats": (edited(set_in("runs", 0, "test", "final", "n", to=900)), "at most 80 repeats (final)"),
    "more shown than allowed": (edited(set_in("runs", 0, "presentations", to=81)), "at most 80 presentations"),
    "more lost than shown": (edited(set_in("runs", 0, "lost", to=81)), "no more of them lost, found 80 and 81"),
    "targets in another order in the file, and reached out of theirs": (
        edited(set_in("runs", 0, "hits", to={"1.5": None, "0.8": 20, "0.5": 60, "1": None, "1.2": None})),
        "targets reached one after the other",
    ),
    "a target reached after the end": (
        edited(set_in("runs", 0, "hits", to={"0.5": 20, "0.8": 81, "1": None, "1.2": None, "1.5": None})),
        "targets reached one after the other within 80 presentations",
    ),
    "scores at other times": (
        edited(lambda e: e["runs"][0]["milestones"].reverse()),
        "expected scores after [40, 80] presentations",
    ),
    "half a number": (edited(set_in("runs", 0, "recommended", to="AAAA")), "expected the recommended latent as base64"),
    "a latent that is no number": (
        edited(set_in("runs", 0, "recommended", to="AH4AfgB+")),
        "expected finite numbers in the recommended latent",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_file_that_is_no_entry_is_refused_in_one_line(what: str, boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = SPOILT[what]
    entry_at(boards).write_text(spoil(entry_at(boards).read_text()), errors="surrogateescape")
    for said in (refused(boards, capsys), refused(boards, capsys, str(entry_at(boards)), command="verify")):
        assert message in said and "cma_es.json: " in said
        assert said.isprintable() or said.strip().isprintable()
    assert not (boards / "to" / "README.md").exists()


def test_a_latent_of_another_generator(boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = edited(set_in("runs", 0, "recommended", to="AAAAAAAA"))(entry_at(boards).read_text())
    entry_at(boards).write_text(text)
    assert "entry of cma_es: expected latents of" in refused(boards, capsys)


def test_two_entries_of_one_agent(boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(entry_at(boards), entry_at(boards, "other"))
    assert "expected one entry an agent, found another of cma_es: cma_es.json" in refused(boards, capsys)


def test_a_suite_that_is_not_here(boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "build", "--to", str(boards / "to")]) == 2
    assert "expected entries of a suite that ships; one of your own is given with --suite FILE" in capsys.readouterr().err
    (boards / "to" / "mine-v1").rename(boards / "to" / "core-v99")
    assert main(["leaderboard", "build", "--to", str(boards / "to")]) == 2
    assert "expected core-v1 or earlier" in capsys.readouterr().err
    assert main(["leaderboard", "build", "--to", str(boards / "nowhere")]) == 2
    assert "expected the folder of the leaderboards, found none" in capsys.readouterr().err


def test_pages_of_earlier_versions_stay(boards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (boards / "to" / "core-v0").mkdir()
    (boards / "to" / "core-v0" / "cma_es.json").write_text("of other times")
    (boards / "to" / "core-v0.html").write_text("as it was")
    assert main(["leaderboard", "build", "--to", str(boards / "to"), "--suite", str(boards / "mine.toml")]) == 0
    assert (boards / "to" / "core-v0.html").read_text() == "as it was"
    assert "- [core-v0](core-v0.html)" in (boards / "to" / "README.md").read_text()


def test_names_cannot_write_the_readme(boards: Path) -> None:
    def rename(entry: dict[str, Any]) -> None:
        entry["agent"] = "a|b`<script>[x](y)"

    entry_at(boards).write_text(edited(rename)(entry_at(boards).read_text()))
    options = ["--to", str(boards / "to"), "--suite", str(boards / "mine.toml")]
    assert main(["leaderboard", "build", *options]) == 0
    assert "| `a\\|b'<script>[x](y)` |" in (boards / "to" / "README.md").read_text()
    page = (boards / "to" / "mine-v1.html").read_text()
    assert page.count("<script") == 3 and "a|b`&lt;script&gt;[x](y)" in page


def links(markdown: str) -> set[str]:
    """Where they lead, and those of images."""
    parsed = MarkdownIt("commonmark").enable("table").parse(markdown)
    inner = [token for block in parsed for token in block.children or []]
    return {str(token.attrs.get("href", token.attrs.get("src"))) for token in inner if token.type in ("link_open", "image")}


def test_no_text_of_an_entry_is_a_link(mine: Suite, boards: Path) -> None:
    def spoil(entry: dict[str, Any]) -> None:
        text = f"{LINK} ![x]({LINK}) {BARE}"
        entry.update(agent=f"a`{text}", by=text, note=text, command=text, parameters={"a": text})
        entry["hardware"].update(cpu=text, device=text)
        entry["runs"][1]["natural_image"] = text
        keep = ("neuron", "site", "noise", "objective", "seed", "label", "held_out", "sanity_check")
        entry["runs"][0] = {key: entry["runs"][0][key] for key in keep} | {"failed": text}

    entry_at(boards).write_text(edited(spoil)(entry_at(boards).read_text()))
    assert main(["leaderboard", "build", "--to", str(boards / "to"), "--suite", str(boards / "mine.toml")]) == 0
    made = (boards / "to" / "README.md").read_text()
    ours = {"schema.json", "../docs/benchmark.md", "mine-v1.html"}
    assert links(made) == ours and "1 failed" in made
    assert 'href="http' not in (boards / "to" / "mine-v1.html").read_text()
    past = read_entry(entry_at(boards))  # what the schema refuses, the page would still not link
    past = {**past, "versions": {**past["versions"], "neurogym-v": LINK}}
    assert links(readme([board_of(mine, [past])])) == ours
    assert links(LINK) == {"https://evil.example"}


@pytest.mark.parametrize("version", ["2.13.0+cpu", "0.1.0; 0.2.0", "2.0.0a0+git1f2e-dirty", "3.13.0rc1"])
def test_versions_as_they_are_written(version: str, boards: Path) -> None:
    entry_at(boards).write_text(edited(set_in("versions", "torch", to=version))(entry_at(boards).read_text()))
    assert read_entry(entry_at(boards))["versions"]["torch"] == version


@pytest.mark.parametrize(
    "agent", ["evil:Evil", "evil:Evil,norm=1", "bashivan2019,network=evil:network", "inception_loop,network='evil:network'"]
)
def test_an_entry_does_not_choose_which_code_is_run(agent: str, at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry_at(at_home).write_text(edited(set_in("agent", to=agent))(entry_at(at_home).read_text()))
    said = refused(at_home, capsys, str(entry_at(at_home)), command="verify")
    assert "an entry must not choose which code is run" in said and f"--agent {agent!r}" in said
    assert main(["leaderboard", "build", "--to", "to", "--suite", "mine.toml"]) == 0  # pages need no agent
    assert not Path(MARKER).exists()


def test_code_of_others_is_run_when_the_user_repeats_its_name(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(entry: dict[str, Any]) -> None:
        entry.update(agent="evil:Evil", code="")

    path = str(entry_at(at_home))
    entry_at(at_home).write_text(edited(spoil)(entry_at(at_home).read_text()))
    refused(at_home, capsys, path, "--agent", "else:Evil", "--runs", "1", command="verify")
    assert not Path(MARKER).exists()
    again = ["leaderboard", "verify", path, "--agent", "evil:Evil", "--runs", "1", "--suite", "mine.toml"]
    assert main(again) == 1  # it is no cma_es
    assert Path(MARKER).exists()
    assert "DOES NOT REPRODUCE" in capsys.readouterr().out


@pytest.mark.parametrize("agent", ["cma_es", "ga:ponce2019,temperature=1", "pycma:diagonal", "bashivan2019,network=vgg16"])
def test_our_agents_need_no_word(agent: str) -> None:
    trusted(agent, [])


@pytest.mark.parametrize("agent", ["nobody", "", "os:system", ":", "cma_es,x", "cma_es,sigma0=1,sigma0=2"])
def test_names_that_are_none_are_refused(agent: str) -> None:
    with pytest.raises(NeuroGymError):
        trusted(agent, [])


def test_a_run_that_failed_counts_as_missing(mine: Suite, boards: Path) -> None:
    entry = dict(read_entry(entry_at(boards)))
    keep = ("neuron", "site", "noise", "objective", "seed", "label", "held_out", "sanity_check")
    entry["runs"][0] = {key: entry["runs"][0][key] for key in keep} | {"failed": "RuntimeError: no idea"}
    entry_at(boards).write_text(text_of(signed(entry)))
    read = read_entry(entry_at(boards))
    check(read, mine, "here")
    board = board_of(mine, [read])
    (row,) = board.views[0].rows
    assert (row.done, row.of, row.failed) == (1, 2, ("RuntimeError: no idea",))
    assert main(["leaderboard", "build", "--to", str(boards / "to"), "--suite", str(boards / "mine.toml")]) == 0
    assert "1 failed" in (boards / "to" / "README.md").read_text()


def test_jsonschema_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, boards: Path) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(NeuroGymError, match=r"expected the package jsonschema, got: .*pip install 'neurogym-v\[leaderboard\]'"):
        read_entry(entry_at(boards))
