"""The page of a run with a live neuron: its spikes, how the rig did, and what is said where the rig's log cannot be read."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurogym_v.cli import live as cli
from neurogym_v.cli.run import write_summary
from neurogym_v.experiment import Experiment, RunConfig
from neurogym_v.generators import draw
from neurogym_v.journal import Journal, JournalError, JournalInUse
from neurogym_v.references import load_references
from neurogym_v.render import to_pil
from neurogym_v.report import PAGE, raster, write_report
from neurogym_v.report.axes import Scale
from neurogym_v.report.logged import NUMBER
from neurogym_v.report.page import page
from neurogym_v.report.reading import read
from neurogym_v.report.record import Record, Showing
from neurogym_v.report.words import command
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.log import FILE, LiveLog, read_log
from neurogym_v.rigs.window import Window
from neurogym_v.validation import Plan
from tests.browsing import TEXTS, contrast, opening
from tests.conftest import Cosines
from tests.scripted_rig import ScriptedAcquisition, ScriptedPresenter, Trial

AGENTS = ("random", "cma_es")
CHANNELS = ("A-003", "A-017")
SITE = 1
RIG = """
[acquisition]
kind = "somewhere:Else"
channels = ["A-003", "A-017"]
[window]
response_ms = [70, 170]
baseline_ms = [-60, 0]
"""


@dataclass
class Trials:
    """All that the screen showed, some of which goes wrong."""

    every: list[Trial] = field(default_factory=list)

    def __call__(self, trial: Trial) -> None:
        trial.broken = trial.number % 7 == 3
        trial.onsets = trial.onsets if trial.number % 11 else [(trial.onsets[0][0] + 0.001 * (9 + trial.number % 5), -1)]
        trial.spikes = [*trial.spikes, (0.0005 + 0.001 * (trial.number % 60), SITE)]  # no two rows are the same
        self.every.append(trial)


def respond(image: int) -> list[tuple[float, int]]:
    return [(0.0712 + 0.0041 * i, SITE) for i in range(3 + image)] + [(0.1003, 0), (0.02, SITE)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trials]:
    """A finished one, with its summary."""
    home = tmp_path_factory.mktemp("lab")
    (home / "photographs").mkdir()
    for number, image in enumerate(load_references(count=4, size=32).images):
        to_pil(image).save(home / "photographs" / f"{number}.png")
    acquisition, trials, folder = ScriptedAcquisition(CHANNELS), Trials(), home / "run"
    window = Window(response_s=(0.07, 0.17), baseline_s=(-0.06, 0.0))
    rig = EventRig(ScriptedPresenter(acquisition, respond, trials), acquisition, window=window, patience_s=5.0)
    neuron = LiveNeuron(rig, home / "unused", rig_file=RIG)
    neuron.keep(folder)
    config = RunConfig(
        neuron="live:rig.toml", site=SITE, agents=AGENTS, generator="tests.conftest:Cosines", budget=60, batch_size=15,
        references=str(home / "photographs"), device="cpu",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        plan = Plan(spontaneous=5, screening=1, finalists=2, final=4, repeats=6, references=4)
        patch.setattr("neurogym_v.experiment.SHORT", plan)
        patch.setattr("neurogym_v.experiment.neuron_by_name", lambda *_, **__: neuron)
        with Journal(home / "journal.sqlite", config=asdict(config)) as journal:
            result = Experiment(config).run(journal)
        neuron.close()
    shutil.move(home / "journal.sqlite", folder / "journal.sqlite")
    write_summary(result, folder / "summary.json")
    return folder, trials


@pytest.fixture
def live(run: tuple[Path, Trials], tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(run[0], tmp_path / "run"))


def record_of(folder: Path) -> Record:
    with Journal(folder / "journal.sqlite") as journal:
        return read(folder, journal)


def charts(html: str) -> dict[str, str]:
    """Title -> what is inside, of all charts that have one."""
    found = re.findall(r'<svg class="chart"[^>]*><title>([^<]*)</title>(.*?)(?=<svg class="chart"|</figure>)', html, re.S)
    return dict(found)


def test_ticks_are_the_spikes_of_the_site_at_each_image_that_was_validated(run: tuple[Path, Trials]) -> None:
    folder, trials = run
    drawn, shown = charts(str(page(record_of(folder)))), {trial.number: trial for trial in trials.every}
    logged = read_log(folder / FILE).presentations
    record, ends = record_of(folder), {}
    with Journal(folder / "journal.sqlite") as journal:
        for name in AGENTS:
            block = next(b for b in journal.blocks(name) if b.kind == "validation")
            ends[name] = range(block.state["presented"] - len(block.rates), block.state["presented"])
    for agent in record.agents:
        pixels = draw(Cosines(), agent.recommended)[0].numpy().tobytes()
        digest = hashlib.sha256(pixels).hexdigest()[:32]
        its = [p for p in logged if p.begun.image == digest and p.begun.position in ends[agent.name]]
        ticks = drawn[f"{agent.name}, recommended image: spikes"]
        expected = [
            (row, round(1000 * (s + 0.05) / 0.22))
            for row, p in enumerate(its)
            for s, channel in ([] if p.outcome.lost else shown[p.begun.number].spikes)
            if channel == SITE and s <= 0.17
        ]
        found = [(int(float(y) * len(its) / 1000), int(x)) for x, y in re.findall(r"M(\d+) ([\d.]+)V", ticks)]
        assert len(its) >= 6 and len({p.begun.position for p in its}) == 6
        assert [row for row, _ in sorted(found)] == [row for row, _ in sorted(expected)]
        np.testing.assert_allclose(sorted(found), sorted(expected), atol=1.01)
        reasons = re.findall(r'<rect[^>]*class="lost"><title>([^<]*)</title>', ticks)
        assert sorted(reasons) == sorted(p.outcome.lost.replace("'", "&#39;") for p in its if p.outcome.lost)
    assert {f"{name}, grey screen: spikes" for name in AGENTS} <= drawn.keys()
    assert sum("best natural image" in title for title in drawn) == 2 * len(AGENTS)
    assert "fixation broken" in "".join(drawn.values())


def test_rates_on_the_panels_are_those_of_the_scores(run: tuple[Path, Trials]) -> None:
    record, text = record_of(run[0]), str(page(record_of(run[0])))
    for agent in record.agents:
        assert record.rig is not None
        recommended = record.rig.answers[agent.name][0]
        rates = [one.rate for one in recommended.showings if not one.lost]
        assert np.mean(rates) == pytest.approx(agent.final.value)
        assert f"{np.mean(rates):.1f} spikes/s, mean of {len(rates)}" in text


def test_what_was_shown_again_counts_as_it_does_in_the_summary(run: tuple[Path, Trials]) -> None:
    folder, trials = run
    record, told = record_of(folder), json.loads((folder / "summary.json").read_text())
    assert record.presentations == told["total_presentations"] == len(trials.every)
    for agent, its in zip(record.agents, told["agents"], strict=True):
        assert [r.spent for r in agent.rounds] == [r["spent"] for r in its["rounds"]]
        assert (agent.searched, agent.validated) == (its["search_presentations"], its["validation_presentations"])


def test_the_rig_part_counts_what_the_log_holds(run: tuple[Path, Trials]) -> None:
    folder, trials = run
    rig, text = record_of(folder).rig, str(page(record_of(folder)))
    assert rig is not None and (rig.channel, rig.shown) == ("A-017", len(trials.every))
    broken = [t for t in trials.every if t.broken and t.number % 11]
    assert rig.reasons["fixation broken"] == len(broken)
    away = "its onset was measured N ms from where the display's clock says"
    assert rig.reasons[away] == sum(not t.number % 11 for t in trials.every) and rig.lost == sum(rig.reasons.values())
    assert rig.shown - rig.asked + rig.unanswered == rig.lost
    assert away.replace("'", "&#39;") in text
    assert f"{len(trials.every)} presentations, {rig.shown - rig.asked} of them again" in text
    assert "A-003 and A-017 (driven)" in text and "70 to 170 ms after the measured onset, less the rate −60 to 0 ms" in text
    assert "acquisition less display 1,000.25" in text and rig.first < rig.last


def test_numbers_of_reasons_are_replaced_and_names_are_not() -> None:
    said = ["message 14272 was expected, 14273 came", "measured +9.3 ms from", "no response in block017.h5", "A-003 is silent"]
    assert [NUMBER.sub("N", one) for one in said] == [
        "message N was expected, N came", "measured N ms from", "no response in blockN.h5", "A-003 is silent",
    ]  # fmt: skip


def test_of_many_reasons_the_most_frequent_have_a_line_and_all_notes_are_told(run: tuple[Path, Trials]) -> None:
    record = record_of(run[0])
    assert record.rig is not None
    reasons = {f"reason {chr(97 + i)}": 20 - i for i in range(15)}
    rig = replace(record.rig, reasons=reasons, notes={"it hums <b>": 3}, offsets_s=(1000.25, -2.5), late=4)
    text = str(page(replace(record, rig=rig)))
    assert "reason l" in text and "reason m" not in text and "3 others" in text and ">21</td>" in text  # 8 + 7 + 6
    assert "it hums &lt;b&gt;" in text and "4 answered presentations came late" in text
    assert "compared 2 times: acquisition less display 1,000.2500 s at first, −2.5000 s at last" in text


def test_a_simulated_run_has_neither_part(run: tuple[Path, Trials]) -> None:
    record = record_of(run[0])
    simulated = replace(record, rig=None, config=replace(record.config, neuron="gabor", site=2))
    text = str(page(simulated, lambda _: Cosines()))
    assert "<h2>Spikes</h2>" not in text and "<h2>The rig</h2>" not in text and "noise" in text


def test_the_command_begins_another_run_like_it(run: tuple[Path, Trials]) -> None:
    config = replace(record_of(run[0]).config, recommend=2, neuron="live:/a b/rig.toml", device="auto")
    parser = argparse.ArgumentParser()
    cli.add(parser.add_subparsers())
    chosen = parser.parse_args(shlex.split(command(config, "A-017"))[1:])
    assert (chosen.rig, chosen.channel, tuple(chosen.agents)) == (Path("/a b/rig.toml"), "A-017", AGENTS)
    assert (chosen.budget, chosen.batch_size, chosen.recommend) == (60, 15, 2)


def changed(statement: str) -> Callable[[Path], Any]:
    def change(log: Path) -> None:
        with closing(sqlite3.connect(log, isolation_level=None)) as db:
            db.execute(statement)

    return change


def garble(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:5000] + b"\xff" * 9000)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (Path.unlink, "is not in the folder"),
        (garble, "left aside"),
        (lambda log: log.write_bytes(b"text"), "left aside (expected a whole SQLite file"),
        (changed("UPDATE meta SET value = 'A-003' WHERE key = 'channels'"), "expected spikes and rates of 1 channels"),
        (changed("UPDATE meta SET value = '9' WHERE key = 'version'"), "expected version 1, found version 9"),
        (changed("UPDATE presentation SET channel = x'07' WHERE lost IS NULL"), "found damage"),
        (changed("UPDATE presentation SET spike_s = x'' WHERE lost IS NULL"), "found others of presentation"),
        (changed("UPDATE presentation SET rates = zeroblob(16) WHERE position = 9"), "others at position 9; of another run?"),
        (changed("DELETE FROM presentation WHERE position > 40"), "found none of position 41; of another run?"),
    ],
)  # fmt: skip
def test_without_its_log_the_page_is_written_and_says_so(live: Path, harm: Callable[[Path], Any], said: str) -> None:
    harm(live / FILE)
    with Journal(live / "journal.sqlite") as journal:
        text = write_report(live, journal).read_text()
    assert f"{FILE}, the log of the rig, " in text and said in text and str(live / FILE) not in text
    assert "<h2>Spikes</h2>" not in text and "<h2>The rig</h2>" not in text and "<h2>The agents</h2>" in text


def test_a_log_in_use_is_left_alone(live: Path) -> None:
    log = LiveLog(live / FILE)
    try:
        with pytest.raises(JournalInUse):
            read_log(live / FILE)
        assert "is in use by a session that still runs" in str(page(record_of(live)))
        log.note("still its own")
    finally:
        log.close()
    assert "still its own" in str(page(record_of(live)))


def test_reading_a_log_leaves_nothing_behind_and_sees_what_a_crash_left(live: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in live.iterdir()}
    kept = read_log(live / FILE)
    assert {path.name: path.read_bytes() for path in live.iterdir()} == before
    log, crashed = LiveLog(live / FILE), tmp_path / "crashed"
    log.note("in the write-ahead log alone")
    crashed.mkdir()
    for name in (FILE, f"{FILE}-wal"):
        shutil.copy(live / name, crashed / name)
    assert log.presentations()[5].outcome.counts.tolist() == kept.presentations[5].outcome.counts.tolist()
    log.close()
    assert read_log(crashed / FILE).notes[-1][1] == "in the write-ahead log alone"
    with pytest.raises(JournalError, match="found no file"):
        read_log(tmp_path / FILE)
    with pytest.raises(JournalError, match="expected the log of a live neuron, found another SQLite database"):
        read_log(live / "journal.sqlite")


def test_without_spikes_there_are_no_rasters_and_without_a_window_no_shade(live: Path, run: tuple[Path, Trials]) -> None:
    changed("UPDATE presentation SET spike_s = NULL, channel = NULL, counts = NULL")(live / FILE)
    text = str(page(record_of(live)))
    assert "<h2>Spikes</h2>" not in text and "none in the log: there are no rasters" in text
    shutil.copy(run[0] / FILE, live / FILE)
    changed("UPDATE meta SET value = '' WHERE key = 'rig'")(live / FILE)
    text = str(page(record_of(live)))
    assert "<h2>Spikes</h2>" in text and 'class="window"' not in text


def test_a_run_that_has_only_begun_says_how_the_rig_does(live: Path) -> None:
    (live / "summary.json").unlink()
    changed("DELETE FROM block")(live / "journal.sqlite")
    changed("DELETE FROM presentation")(live / "journal.sqlite")
    text = str(page(record_of(live)))
    assert "<h2>The rig</h2>" in text and "<h2>Spikes</h2>" not in text


def test_a_rate_is_that_of_the_spikes() -> None:
    x, kept = Scale(0, 170), (0.0, 0.17)
    train = Showing(rate=1.0, spike_s=np.arange(0.001, 0.17, 0.002))
    low, mean, high = raster.rates([train, train], kept, x)
    np.testing.assert_allclose(mean, 500, rtol=0.02)  # the ends too
    np.testing.assert_allclose(low, high)
    one, none = Showing(rate=1.0, spike_s=np.array([0.085])), Showing(rate=0.0, spike_s=np.empty(0))
    low, mean, high = raster.rates([one, none], kept, x)
    assert mean.sum() * 0.0017 == pytest.approx(0.5, rel=1e-3) and np.argmax(mean) == raster.POINTS // 2
    assert ((low <= mean) & (mean <= high)).all() and high.max() == pytest.approx(2 * mean.max())
    assert np.isnan(raster.rates([], kept, x)[1]).all()


def test_of_many_presentations_and_spikes_some_are_drawn(run: tuple[Path, Trials]) -> None:
    record, x = record_of(run[0]), Scale(-50, 170)
    assert record.rig is not None
    few = [Showing(rate=1.0, spike_s=np.array([i / 1e4])) for i in range(500)]
    rows = raster.drawn_rows(few, x)
    assert len(rows) == raster.ROWS and (rows[0], rows[-1]) == (few[0], few[-1])
    noise = tuple(Showing(rate=1.0, spike_s=np.random.default_rng(i).uniform(-0.05, 0.17, 9000)) for i in range(70))
    answers = {name: tuple(replace(a, showings=noise) for a in its[:1]) for name, its in record.rig.answers.items()}
    loud = str(page(replace(record, rig=replace(record.rig, answers=answers))))
    assert "70 presentations; 3 of them as rows" in loud
    assert len(loud) - len(str(page(record))) < 2 * 15 * raster.TICKS


@pytest.fixture(scope="module")
def written(run: tuple[Path, Trials]) -> Iterator[Path]:
    with Journal(run[0] / "journal.sqlite") as journal:
        yield write_report(run[0], journal, out=run[0].parent / PAGE)


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_it_can_be_read_in_a_browser(browser: Any, written: Path, width: int, scheme: str) -> None:
    with opening(browser, written) as load:
        opened = load(width=width, color_scheme=scheme)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        texts = [t for t in opened.evaluate(TEXTS) if t["right"] > width + 1 or t["size"] < 12
                 or contrast(t["colour"], t["behind"]) < 4.5]  # fmt: skip
        assert texts == []
        chart = opened.get_by_role("img", name="cma_es, recommended image: spikes", exact=True)
        boxes = [box.bounding_box() for box in (chart, chart.locator(".spike"), chart.locator(".window"))]
        assert boxes[0]["height"] >= raster.LEAST and boxes[1]["width"] > 0.4 * boxes[0]["width"]
        assert boxes[2]["x"] + boxes[2]["width"] == pytest.approx(boxes[0]["x"] + boxes[0]["width"], abs=1)
