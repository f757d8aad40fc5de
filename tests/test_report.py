"""The page of a run: what is read, what is said, and that it is one whole file, whatever the run's folder holds."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurogym_v.cli import main
from neurogym_v.generators import draw
from neurogym_v.journal import Journal
from neurogym_v.references import load_references
from neurogym_v.registry import load_generator
from neurogym_v.render import to_pil
from neurogym_v.report import images, write_report
from neurogym_v.report.page import page
from neurogym_v.report.reading import read
from neurogym_v.report.record import Record

Refused = Callable[..., str]
SMALL = ["--neuron", "gabor", "--site", "2", "--budget", "120", "--agent", "cma_es", "--agent", "random"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number, image in enumerate(load_references(count=40).images):
        to_pil(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["run", *SMALL, "--noise", "poisson+lost:0.1", "--references", str(pictures), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Elements(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))  # of Markup, each piece would be escaped again

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] not in ("script", "style"):
            self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def reported(folder: Path) -> Elements:
    assert main(["report", str(folder)]) == 0
    return Elements((folder / "report.html").read_text())


def record_of(folder: Path) -> Record:
    with Journal(folder / "journal.sqlite") as journal:
        return read(folder, journal)


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def change(folder: Path, edit: Callable[[dict], object]) -> None:
    found = summary_of(folder)
    edit(found)
    (folder / "summary.json").write_text(json.dumps(found))


def test_the_record_has_the_numbers_of_the_summary(finished: Path) -> None:
    record, summary = record_of(finished), summary_of(finished)
    assert record.presentations == summary["total_presentations"]
    assert record.natural is not None
    assert record.natural.best.value == summary["natural"]["best"]["value"]
    for agent, told in zip(record.agents, summary["agents"], strict=True):
        assert (agent.searched, agent.lost) == (told["search_presentations"], told["lost_presentations"])
        assert agent.final.low == told["final"]["low"]
        assert [(r.spent, r.mean, r.best) for r in agent.rounds] == [(r["spent"], r["mean"], r["best"]) for r in told["rounds"]]
        assert sum(round(r.lost * len(r.rates)) for r in agent.rounds) == told["lost_presentations"] > 0


def test_the_journal_alone_gives_the_same_scores(run: Path) -> None:
    whole = record_of(run)
    (run / "summary.json").unlink()
    counted = record_of(run)
    assert whole.natural is not None and counted.natural is not None
    assert counted.natural.best_image == whole.natural.best_image
    assert counted.natural.best == whole.natural.best
    assert counted.natural.spontaneous == whole.natural.spontaneous
    assert sorted(counted.natural.screened) == pytest.approx(sorted(whole.natural.screened))
    for mine, theirs in zip(counted.agents, whole.agents, strict=True):
        assert (mine.searched, mine.lost, mine.validated) == (theirs.searched, theirs.lost, theirs.validated)
        assert mine.final.value == theirs.final.value and mine.first_round.value == theirs.first_round.value
        assert mine.relative_activation.value == pytest.approx(theirs.relative_activation.value)
        assert mine.relative_activation.low == pytest.approx(theirs.relative_activation.low, abs=0.05)
        np.testing.assert_array_equal(mine.recommended, theirs.recommended)
        for a, b in zip(mine.rounds, theirs.rounds, strict=True):
            np.testing.assert_array_equal(a.rates, b.rates)


def test_rates_are_those_that_the_agent_heard_where_a_normaliser_took_out_the_gain(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--noise", "gain:0.4+poisson", "--normaliser", "3", "--batch-size", "60", "--budget", "200"]
    assert main(["run", *SMALL[:-2], *options, "--references", str(pictures), "--out", str(folder)]) == 0
    record, told = record_of(folder), summary_of(folder)["agents"]
    for agent, numbers in zip(record.agents, told, strict=True):
        assert [r.spent for r in agent.rounds] == [r["spent"] for r in numbers["rounds"]]
        assert [np.nanmean(r.rates) for r in agent.rounds] == pytest.approx([r["mean"] for r in numbers["rounds"]])
        assert len(agent.rounds[0].rates) == 60 and agent.searched == numbers["search_presentations"]
    (folder / "summary.json").unlink()
    assert [len(r.rates) for r in record_of(folder).agents[0].rounds][:2] == [60, 60]
    assert "the slow gain is taken out when the run is finished" in reported(folder).text


def test_the_run_leaves_a_page_and_the_same_folder_gives_the_same_page(run: Path, capsys) -> None:
    left = (run / "report.html").read_bytes()
    run = run.rename(run.with_name("finished"))  # its name is on it
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["report", str(run), "--out", str(run.parent / "deep" / "page.html")]) == 0
    assert str(run.parent / "deep" / "page.html") in capsys.readouterr().out
    assert (run.parent / "deep" / "page.html").read_bytes() == left
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_the_page_needs_nothing_else(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    page = Elements(html)
    sources = [attributes[key] or "" for _, attributes in page.found for key in ("src", "href", "data") if key in attributes]
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", html)
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy
    for image in page.of("img"):
        if source := image.get("src"):
            picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
            picture.load()
            assert picture.size == (64, 64)


def test_frames_are_the_images_of_highest_response_and_small_ones_are_exact(finished: Path) -> None:
    record, generator = record_of(finished), load_generator("natural64")
    for agent, film in zip(record.agents, images.films(record, generator), strict=True):
        assert [r.number for r in film.rounds] == [1, 2, 3]
        assert agent.recommended is not None and film.final is not None
        latents = np.stack([r.latents[np.nanargmax(r.rates)] for r in agent.rounds] + [agent.recommended[0]])
        for uri, image in zip([*film.frames, film.final], draw(generator, latents), strict=True):
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))
            np.testing.assert_array_equal(shown, image.permute(1, 2, 0).numpy())


def test_a_killed_run_has_a_page_that_says_what_is_missing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = "import sys; from neurogym_v.cli import main; sys.exit(main(sys.argv[1:]))"
    options = [*SMALL, "--budget", "40000", "--references", str(pictures), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", program, "run", *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line.startswith("cma_es") for line in process.stdout)  # its search begins
        for _ in range(60):  # the page of a run that goes on, until it tells of a round
            assert main(["report", str(out), "--out", str(tmp_path / "live.html")]) == 0
            if "presentations searched" in (tmp_path / "live.html").read_text():
                break
            time.sleep(0.1)
        else:
            pytest.fail("the page of a run that goes on never told of a round")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    page = reported(out)
    for words in ("there is no summary.json", "of 40,000 presentations searched", "random: not started", "neurogym-v resume"):
        assert words in page.text
    assert len(page.of("img")) > 2  # where images are enlarged, the best natural image, and frames
    assert not (out / "summary.json").exists()


def test_a_run_that_was_killed_at_once_has_a_page(run: Path) -> None:
    (run / "summary.json").unlink()
    for path in run.glob("*.png"):
        path.unlink()
    with closing(sqlite3.connect(run / "journal.sqlite")) as db, db:
        db.execute("DELETE FROM presentation WHERE block > 1")
        db.execute("DELETE FROM block WHERE id > 1")
    page = reported(run)
    assert "Natural images were still being shown" in page.text
    assert "cma_es: not started" in page.text
    assert len(page.of("img")) == 1  # where images are enlarged


def test_a_lost_site_a_sanity_check_and_unknown_numbers_are_said(run: Path) -> None:
    nothing = {"value": None, "low": None, "high": None}

    def edit(summary: dict) -> None:
        summary["agents"][0] |= {"site_lost": True, "final": nothing, "relative_activation": nothing}
        summary["agents"][0]["rounds"][-1] |= {"mean": None, "best": None}
        summary["agents"][1] |= {"sanity_check": True, "expected_relative_activation": None}

    change(run, edit)
    page = reported(run)
    assert "cma_es: the site was lost before the validation was over, so there is no score." in page.text
    assert "random (sanity check)" in page.text
    assert "relative activation of" not in page.text  # no headline without an agent that counts
    assert not {"nan", "inf", "None"} & set(re.findall(r"[\w.+-]+", page.text))


def test_the_agents_own_numbers_are_curves_where_rounds_keep_them(run: Path) -> None:
    assert "round by round" in reported(run).text

    def older(summary: dict) -> None:
        for agent in summary["agents"]:
            for one in agent["rounds"]:
                del one["diagnostics"]

    change(run, older)
    assert "at the end of its search" in reported(run).text

    def edit(summary: dict) -> None:
        for number, one in enumerate(summary["agents"][0]["rounds"]):
            one["diagnostics"] = {"sigma": 1.0 - 0.1 * number, "odd": None}

    change(run, edit)
    page = reported(run)
    assert "round by round" in page.text
    labels = [attributes.get("aria-label") for attributes in page.of("svg")]
    assert "cma_es, sigma" in labels and "cma_es, odd" in labels
    assert "sigma: 0.8" in page.text


def test_many_large_images_make_a_small_page(finished: Path) -> None:
    """Noise compresses worst; 40 rounds of three agents at 128 px."""
    record, generator = record_of(finished), load_generator("fourier:128")
    rng, agent = np.random.default_rng(0), record.agents[0]
    latents = rng.standard_normal((2, generator.latent_dim), dtype=np.float32)
    rounds = tuple(replace(agent.rounds[0], number=n, spent=3 * n, latents=latents, rates=np.ones(2)) for n in range(1, 41))
    agents = tuple(replace(agent, name=name, rounds=rounds, recommended=latents[:1]) for name in ("a", "b", "c"))
    html = page(replace(record, agents=agents), lambda _: generator)
    assert len(Elements(html).of("img")) == 1 + 4 + 3 * 13  # enlarged, finals, and 12 rounds and the final of each
    assert len(html) < 3e6


HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"


def test_everything_from_outside_is_escaped(run: Path) -> None:
    config = summary_of(run)["config"]
    config["agents"][1] = HOSTILE
    config |= {"neuron": f"/{HOSTILE}/x", "noise": HOSTILE, "references": HOSTILE}
    with closing(sqlite3.connect(run / "journal.sqlite")) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(config),))
        db.execute("UPDATE block SET session = ? WHERE session = 'random'", (HOSTILE,))

    def edit(summary: dict) -> None:
        summary["config"] = config
        summary["natural"]["best_image"] = HOSTILE
        summary["agents"][1] |= {"agent": HOSTILE, "diagnostics": {HOSTILE: 1.0}}
        summary["versions"] = {HOSTILE: HOSTILE}

    clean = Elements((run / "report.html").read_text())
    change(run, edit)
    page = reported(run)
    for name in ("script", "style", "svg", "dialog"):
        assert len(page.of(name)) == len(clean.of(name)), name
    assert len(page.of("img")) == len(clean.of("img"))
    assert not any(key.startswith("on") for _, attributes in page.found for key in attributes)
    assert page.text.count(HOSTILE) > 8
    html = (run / "report.html").read_text()
    assert "<script>alert" not in html and "<img src=x" not in html


def test_without_the_generator_the_pictures_of_the_run_are_shown(run: Path) -> None:
    def gone(_: Record) -> object:
        return images.load_generator("no_such_module:generator")

    html = Elements(page(record_of(run), gone))  # type: ignore[arg-type]
    assert "No film strips" in html.text and "no_such_module" in html.text
    assert len(html.of("img")) == 1 + 3  # the best natural image and two finals
    (run / "final-random.png").write_bytes(b"no picture")
    assert len(Elements(page(record_of(run), gone)).of("img")) == 1 + 2  # type: ignore[arg-type]


def test_what_is_no_run_is_refused_in_one_line(run: Path, refused: Refused) -> None:
    line = refused("report", run / "nowhere")
    assert "nowhere: expected the folder of a run or of a bench, found neither journal.sqlite nor suite.json" in line
    change(run, lambda summary: summary["agents"][0].pop("final"))
    line = refused("report", run)
    assert "summary.json: expected the numbers of a run, found others (KeyError('final'))" in line
    whole = (run / "journal.sqlite").read_bytes()
    (run / "journal.sqlite").write_bytes(whole[: len(whole) // 2])
    assert f"journal {run / 'journal.sqlite'}: expected a whole" in refused("report", run)
    (run / "journal.sqlite").write_text("no database")
    assert str(run / "journal.sqlite") in refused("report", run)


def test_a_journal_of_another_site_is_refused(run: Path, refused: Refused) -> None:
    with closing(sqlite3.connect(run / "journal.sqlite")) as db, db:
        config = summary_of(run)["config"] | {"site": 99}
        db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(config),))
    assert "expected rates of site 99, found 12 sites" in refused("report", run)


def test_rates_are_not_taken_for_scores_of_another_objective(run: Path) -> None:
    (run / "summary.json").unlink()
    with closing(sqlite3.connect(run / "journal.sqlite")) as db, db:
        (config,) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        config = json.loads(config) | {"objective": "one_hot"}
        db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(config),))
    page = reported(run)
    assert "Scores of the objective one_hot are counted when the run is finished." in page.text
    assert "Natural images were still being shown" not in page.text
    record = record_of(run)
    assert record.natural is None and all(np.isnan(r.mean) for agent in record.agents for r in agent.rounds)
    assert all(np.isnan(agent.final.value) for agent in record.agents)


def test_another_generator_than_that_of_the_run_draws_nothing(finished: Path) -> None:
    record = record_of(finished)
    other = replace(record, config=replace(record.config, generator="pixel"))
    assert re.search(
        r"No film strips.*expected 12288 numbers a latent, found that of the run's latents, 256", Elements(page(other)).text
    )


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"config": {}, "natural": {}, "agents": []}', "\udcff"])
def test_a_summary_of_something_else_is_left_aside(run: Path, text: str) -> None:
    (run / "summary.json").write_bytes(text.encode(errors="surrogateescape"))
    record = record_of(run)
    assert "summary.json is not that of this journal" in record.missing[0]
    assert record.natural is not None and np.isfinite(record.agents[0].final.value)


def test_a_full_disk_leaves_the_old_page(run: Path) -> None:
    """A limit on the size of files is what any user can set; the kernel then refuses to write as a full disk does."""
    before = (run / "report.html").read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(run / "journal.sqlite") as journal:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            with pytest.raises(OSError, match="too large"):
                write_report(run, journal)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".report.html*"))


def test_a_journal_is_copied_while_it_rests(run: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, changes = shutil.copyfile, iter([True, True])

    def copied(file: Path, target: Path) -> None:
        copy(file, target)
        os.utime(file, ns=(0, time.time_ns() if next(changes, False) else 0))  # the run goes on meanwhile

    monkeypatch.setattr("neurogym_v.cli.report.shutil.copyfile", copied)
    assert main(["report", str(run)]) == 0 and next(changes, None) is None
    changes = iter([True] * 99)
    assert "expected it to rest for a moment, it changed while it was copied; try again" in refused("report", run)
