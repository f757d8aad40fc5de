"""The table of all agents: runs are done once and survive a kill, what fails fails alone, numbers are those a hand finds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from neurogym_v.benchmarks import agents, agents_report, agents_runs, code
from neurogym_v.benchmarks.agents_picture import family, order
from neurogym_v.benchmarks.agents_report import by_site, gap, goal_of, luck, presentations_to, rows
from neurogym_v.benchmarks.agents_runs import Condition, Outcome, do, do_all, forget, read
from neurogym_v.benchmarks.code import code_of
from neurogym_v.experiment import Experiment
from neurogym_v.journal import Journal
from neurogym_v.types import NeuroGymError

BROKEN = """
from neurogym_v.agents.random import Random

class Broken(Random):
    '''Fails in its second round.'''

    def _tell(self, latents, rates):
        if self._told:
            raise ZeroDivisionError("nothing to divide by\\nand more")
        self._told = True

    _told = False
"""
GRID = "--sites gabor:1 --noises poisson --seeds 0 --budget 120 --jobs 1 --out".split()


def condition(**other) -> Condition:
    return Condition(**({"neuron": "gabor", "site": 1, "noise": "poisson", "seed": 0, "budget": 120,
                         "generator": "natural64"} | other))  # fmt: skip


def start(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["agents", *GRID, str(out), *words])
    agents.main()


def blocks(out: Path, *sessions: str) -> list[list[tuple[object, ...]]]:
    with Journal(condition().folder(out) / "journal.sqlite") as journal:
        return [[(*block.asks_for(), block.rates.tobytes()) for block in journal.blocks(name)] for name in sessions]


def numbers(out: Path, agent: str) -> dict[str, object]:
    found = json.loads(condition().file(agent, out).read_text())
    return {key: value for key, value in found.items() if not key.endswith("_s")}


def test_a_killed_grid_goes_on_and_an_agent_that_fails_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    chosen = ["--agents", "ga:wang2022", "broken:Broken", "random"]
    command = [sys.executable, "-m", "neurogym_v.benchmarks.agents", *GRID, "out", *chosen]
    out = tmp_path / "out"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (condition().folder(out) / "journal.sqlite-wal").exists():  # a worker has begun
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # ends when the worker does too, which has its stdout

    start(monkeypatch, out, *chosen)
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 conditions, 3 runs, 3 of them to do" in printed
    assert "failed: broken:Broken: ZeroDivisionError: nothing to divide by" in printed
    assert "and more" not in printed
    assert printed.index("0/1, 1 failed") > printed.index("ga:wang2022 ")
    whole = tmp_path / "whole"
    for agent in ("ga:wang2022", "random"):
        do(condition(), agent, whole)
        assert numbers(out, agent) == numbers(whole, agent)
    assert blocks(out, "natural", "ga:wang2022", "random") == blocks(whole, "natural", "ga:wang2022", "random")
    assert (out / "agents.png").stat().st_size > 10_000
    assert "| broken:Broken | failed |" in (out / "agents.md").read_text()
    table = json.loads((out / "table.json").read_text())
    assert [row["agent"] for row in table["tables"]["poisson"]][-1] == "broken:Broken"

    assert "older code" not in printed
    monkeypatch.setattr(agents_runs, "code_of", lambda _: "other")
    start(monkeypatch, out, *chosen, "--report-only")
    printed = " ".join(capsys.readouterr().out.split())
    assert "(--refresh does those of --agents anew): ga:wang2022 (1), broken:Broken (1), random (1)" in printed

    monkeypatch.setattr(agents, "report", lambda *_: None)
    asked: list[list[str]] = []
    monkeypatch.setattr(agents, "do_all", lambda missing, *_, **__: asked.append([agent for _, agent in missing]))
    start(monkeypatch, out, *chosen)
    start(monkeypatch, out, *chosen, "cma_es")
    start(monkeypatch, out, *chosen, "--retry-failed")
    start(monkeypatch, out, *chosen, "--again", "random")
    assert asked == [["cma_es"], ["broken:Broken"], ["broken:Broken", "random"]]
    assert blocks(out, "random", "broken:Broken") == [[], []]

    asked.clear()
    before = blocks(out, "natural")
    monkeypatch.setattr(agents_runs, "code_of", code_of)
    start(monkeypatch, out, "--agents", "ga:wang2022", "--refresh")  # its code is today's
    monkeypatch.setattr(agents_runs, "code_of", lambda _: "other")
    with pytest.raises(SystemExit):  # nothing is left to report
        start(monkeypatch, out, "--agents", "ga:wang2022", "--refresh")
    assert asked == [["ga:wang2022"]]
    assert blocks(out, "natural", "ga:wang2022") == [*before, []]


def test_adding_an_agent_measures_no_natural_image_again(tmp_path: Path) -> None:
    do(condition(), "random", tmp_path)
    before, result = blocks(tmp_path, "natural", "random"), condition().file("random", tmp_path).read_bytes()
    do(condition(), "ga:ponce2019", tmp_path)
    assert blocks(tmp_path, "natural", "random") == before
    assert condition().file("random", tmp_path).read_bytes() == result
    with Journal(condition().folder(tmp_path) / "journal.sqlite") as journal:
        assert "agents" not in journal.config and journal.config["budget"] == 120
        kinds = [block.kind for block in journal.blocks("ga:ponce2019")]
        assert kinds == ["search"] * 3 + ["first round", "validation", "contrast"]

    once = numbers(tmp_path, "random")
    forget(condition(), "random", tmp_path)
    assert read(condition(), "random", tmp_path) is None
    assert blocks(tmp_path, "natural", "random") == [before[0], []]
    do(condition(), "random", tmp_path)
    assert blocks(tmp_path, "natural", "random") == before
    assert numbers(tmp_path, "random") == once


def test_what_was_cut_off_in_the_middle_is_not_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, rounds = Experiment.run, []

    def cut_off(self, journal, watcher=None):
        def stop(_, feedback) -> None:
            rounds.append(feedback)
            if len(rounds) == 2:
                raise KeyboardInterrupt

        from neurogym_v.experiment import Watcher

        return run(self, journal, Watcher(round=stop))

    monkeypatch.setattr(Experiment, "run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        do(condition(), "ga:wang2022", tmp_path / "cut")
    (first,) = blocks(tmp_path / "cut", "ga:wang2022")
    assert len(first) == 2
    assert read(condition(), "ga:wang2022", tmp_path / "cut") is None
    monkeypatch.undo()
    for name in ("cut", "whole"):
        do(condition(), "ga:wang2022", tmp_path / name)
    assert blocks(tmp_path / "cut", "natural", "ga:wang2022") == blocks(tmp_path / "whole", "natural", "ga:wang2022")
    assert numbers(tmp_path / "cut", "ga:wang2022") == numbers(tmp_path / "whole", "ga:wang2022")


def test_what_is_read_is_what_the_run_came_to(tmp_path: Path) -> None:
    asked = condition(noise="poisson+lost:0.2")
    do(asked, "random", tmp_path)
    found = read(asked, "random", tmp_path)
    assert found
    result = Experiment(asked.config("random")).run()
    (agent,) = result.agents
    assert found.relative_activation == agent.relative_activation.value
    assert (found.expected_final_hz, found.own_hz) == (agent.expected_final, agent.diagnostics["incumbent_hz"])
    assert found.norm == pytest.approx(np.linalg.norm(agent.recommended) / 16)
    assert found.presentations == 120 and found.failed is None
    np.testing.assert_allclose(found.rates, np.concatenate([f.rates for f in agent.rounds]), atol=5e-4)
    assert np.isnan(found.rates).sum() == agent.lost_presentations > 0
    np.testing.assert_array_equal(found.spent, np.arange(1, 121))
    other = condition(noise="poisson+lost:0.2", budget=80)
    for again in (lambda: read(other, "random", tmp_path), lambda: do(other, "random", tmp_path)):
        with pytest.raises(NeuroGymError, match="expected a run with budget 80, found 120; choose another --out"):
            again()
    asked.file("random", tmp_path).write_text("{}")
    with pytest.raises(NeuroGymError, match="expected a finished run, found something else"):
        read(asked, "random", tmp_path)


def test_the_first_agent_comes_first_everywhere_and_a_journal_has_one_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_runs, "ProcessPoolExecutor", lambda jobs, **_: ThreadPoolExecutor(jobs))
    lock, running, began = threading.Lock(), set[Condition](), list[tuple[int, str]]()

    def slow(asked: Condition, agent: str, out: Path, code: str) -> None:
        assert code == f"code of {agent}"
        with lock:
            assert asked not in running
            running.add(asked)
            began.append((asked.site, agent))
        time.sleep(0.05 if asked.site else 0.02)
        with lock:
            running.remove(asked)

    monkeypatch.setattr(agents_runs, "do", slow)
    monkeypatch.setattr(agents_runs, "code_of", lambda agent: f"code of {agent}")
    grid = [condition(site=site) for site in range(2)]
    pairs = [(one, agent) for agent in "abc" for one in grid]
    do_all(pairs, tmp_path, jobs=3, done=0, console=Console(quiet=True))
    assert sorted(began) == sorted((one.site, agent) for one, agent in pairs)
    assert [[agent for place, agent in began if place == site] for site in range(2)] == [["a", "b", "c"]] * 2
    monkeypatch.setattr(agents_runs, "do", lambda *_: (_ for _ in ()).throw(NeuroGymError("disk")))
    with pytest.raises(NeuroGymError, match="disk"):
        do_all(pairs, tmp_path, jobs=1, done=0, console=Console(quiet=True))


def outcome(agent: str, activation: float, *, rates=(), **other) -> Outcome:
    where = {key: other.pop(key) for key in ("site", "seed") if key in other}
    numbers = {"final_hz": 10.0, "norm": 1.0, "agent_s": 0.5, "presentations": 250} | other
    rates = np.array(rates, dtype=float)
    return Outcome(condition=condition(**where), agent=agent, relative_activation=activation, rates=rates,
                   expected_relative_activation=activation + 0.1, spent=np.arange(len(rates)) + 1.0, **numbers)  # fmt: skip


def test_rows_are_what_a_hand_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_report, "WINDOW", 2)
    grid = [condition(site=site, seed=seed) for site in (0, 1, 2) for seed in (0, 1)]
    found = []
    for site, (mine, ga, chance) in enumerate([(1.0, 0.5, 0.8), (2.0, 4.0, 2.5), (3.0, -1.0, 0.1)]):
        for seed, more in enumerate((-0.25, 0.25)):
            where = {"site": site, "seed": seed}
            found += [
                outcome("x", mine + more, rates=[1, 3, np.nan, 7, 20], final_hz=5.0 * (1 + site), norm=site, **where,
                        own_hz=8.0, expected_final_hz=(4.0, 5.0, 10.0)[site]),
                outcome("ga:wang2022", ga + more, **where),
                outcome("random", chance - more, **where),
                outcome("ga:ponce2019", 0.0, rates=[0, 9, 4, 6 + 20 * seed], **where),  # ends at 5, and at 15
            ]  # fmt: skip
    (row,) = rows(found, ["x"], grid)
    assert row.by_site == {"gabor:0": 1.0, "gabor:1": 2.0, "gabor:2": 3.0}
    assert np.isnan(row.relative_activation.low)  # three sites make no interval
    assert row.ratio == pytest.approx((1 / 0.5 + 2 / 4) / 2)  # where the GA is above 0
    assert row.luck == pytest.approx(np.median([3, 3, 1, 1, 1 / 3, 1 / 3]))
    assert row.gap == pytest.approx(np.median([1, 1, 0.6, 0.6, -0.2, -0.2]))
    # means of two: 2, 3 (one was lost), 7, 13.5; 5 is reached at the fourth presentation and held, 15 never
    assert (row.reached, row.to_goal) == ((3, 6), np.inf)
    assert "| 2.00 | 2.10 | 1.25 (2/3) | 2/3 | 1.00 | 0.60 | (3/6) | 1.00 | 2.00 | 3/3 |" in agents_report.markdown("", [row])
    (goal,) = rows(found, ["ga:ponce2019"], grid)
    assert (goal.to_goal, goal.reached, str(goal.gap)) == (4, (6, 6), "nan")  # its end, by definition

    some = [one for one in found if (one.agent, one.condition.site, one.condition.seed) != ("x", 2, 1)]
    failed = Outcome(condition=condition(site=2, seed=1), agent="x", failed="why")
    (row,) = rows([*some, failed], ["x"], grid)
    assert (row.sites, row.of, row.failed) == (2, 3, ("why",))  # a site counts when all its seeds are done,
    assert (row.relative_activation.value, row.luck, row.gap, row.norm) == pytest.approx((1.5, 2, 0.8, 0.5))  # in each column
    assert (row.ratio_sites, row.above_random, row.reached) == ((2, 2), (1, 2), (2, 4))
    assert rows(found, ["absent"], grid)[0].sites == 0

    less = [one for one in found if (one.agent, one.condition.site) not in {("random", 0), ("ga:wang2022", 1)}]
    (row,) = rows(less, ["x"], grid)  # what it is compared with lacks sites
    assert (row.sites, row.ratio, row.ratio_sites, row.above_random) == (3, 2.0, (1, 2), (1, 2))


def test_rows_are_sorted_by_what_is_free_of_noise() -> None:
    scores = {"lucky": (3, 1), "good": (2, 2), "recorded": (1.5, np.nan), "poor": (0, 0.5)}
    found = [replace(outcome(name, a), expected_relative_activation=b) for name, (a, b) in scores.items()]
    table = rows(found, ["absent", "poor", "recorded", "lucky", "good"], [condition()])
    assert [row.agent for row in table] == ["good", "recorded", "lucky", "poor", "absent"]


def test_five_sites_have_intervals_and_sanity_checks_are_in_no_number() -> None:
    grid = [condition(site=site) for site in range(7)]
    found = [outcome("sb3:PPO", float(site), site=site, norm=site, sanity_check=site > 4) for site in range(7)]
    (row,) = rows(found, ["sb3:PPO"], grid)
    assert (row.sites, row.of, row.sanity_checks, row.norm) == (5, 7, 2, 2)
    assert "| sb3:PPO *2 | 2.00 [0.00, 4.00] | 2.10 [0.10, 4.10] |" in agents_report.markdown("none", [row])
    (row,) = rows(found, ["sb3:PPO"], grid[5:])
    assert "| sb3:PPO *2 | sanity check | – |" in agents_report.markdown("none", [row])


def test_a_goal_is_reached_when_the_mean_of_a_window_and_of_the_next_are_there() -> None:
    def to(goal: float, *pieces: tuple[int, float]) -> float:
        return presentations_to(outcome("x", 1, rates=np.concatenate([np.full(n, rate) for n, rate in pieces])), goal)

    ramp = ((300, 0), (300, 10))
    assert [to(goal, *ramp) for goal in (10, 5, 0, 10.1)] == [500, 400, 200, np.inf]
    assert to(10, (300, 0), (299, 10)) == np.inf  # 99 are left to hold it
    assert to(10, (300, 0), (200, 10), (200, 0), (400, 10)) == 900  # luck does not last
    assert (to(0.1, (300, 0.1)), to(0.1, (299, 0.1))) == (200, np.inf)
    assert to(10, (200, 10), (200, np.nan), (200, 10)) == 201  # a window of lost trials says nothing
    long = outcome("x", 1, rates=[0] * 300 + [10] * 300)
    assert presentations_to(replace(long, spent=long.spent + 100), 5) == 500  # natural images were shown before
    assert (goal_of(long), goal_of(outcome("x", 1, rates=[1, np.nan, 3]))) == (10, 2)


def test_luck_needs_a_response_and_gap_an_estimate() -> None:
    assert luck(outcome("x", 1, rates=[5, np.nan, 30])) == 2
    assert np.isnan([luck(outcome("x", 1, rates=[np.nan])), luck(outcome("x", 1, rates=[5], final_hz=0.0))]).all()
    assert gap(outcome("x", 1, own_hz=15.0, expected_final_hz=10.0)) == 0.5
    for unknown in ({"expected_final_hz": 10.0}, {"own_hz": 15.0}, {"own_hz": 15.0, "expected_final_hz": 0.0}):
        assert np.isnan(gap(outcome("x", 1, **unknown)))


MINE = """
"A module."
import numpy as np
from neurogym_v.agent import Agent
from neurogym_v.fitting import mapping
require("cma.purecma", user="x"), require("neurogym_v.lockstep", user="x")
"""
THEIRS = dict.fromkeys("evolution fitting/__init__ fitting/mapping fitting/pls incumbents projection types".split(), "")
THEIRS |= {"agent": "import neurogym_v.evolution, neurogym_v.types", "lockstep": "import torch"}
RESTS_ON = ("agent", "evolution", "lockstep", "fitting/__init__", "fitting/mapping", "numpy", "cma", "torch")


def test_the_code_of_an_agent_is_all_that_it_rests_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(**edited: str) -> str:
        for name, text in (THEIRS | {"mine": MINE} | edited).items():
            (tmp_path / f"{name}.py").write_text(text)
        return code_of.__wrapped__("mine")  # nothing is remembered

    (tmp_path / "fitting").mkdir()
    versions, params = dict.fromkeys(code.LIBRARIES, "1"), dict[str, int]()
    monkeypatch.setattr(code.cast, "__file__", str(tmp_path / "cast.py"))
    monkeypatch.setattr(code, "agent_class", lambda _: (Condition, params))
    monkeypatch.setattr(code.inspect, "getsourcefile", lambda _: str(tmp_path / "mine.py"))
    monkeypatch.setattr(code.metadata, "version", versions.__getitem__)
    first = digest()
    for name, text in THEIRS.items():
        assert digest(**{name: f"{text}  # why\n'What.'"}) == first, name
        assert (digest(**{name: f"{text}\nMORE = 1"}) != first) == (name in RESTS_ON), name
    for library in versions:
        versions[library] = "2"
        assert (digest() != first) == (library in RESTS_ON), library
        versions[library] = "1"
    assert digest(mine=MINE.replace("A module.", "The module.")) == first != digest(mine=MINE.replace("np", "numpy"))
    assert digest(mine="no code") == ""
    params["norm"] = 1
    assert len({first, digest(), digest(projection="MORE = 1")}) == 3


def test_the_code_of_shipped_agents() -> None:
    names = ("ga", "ga,norm=1", "cma_es", "bashivan2019", "inception_loop", "sb3:PPO", "nevergrad", "nobody")
    assert len({code_of(name) for name in names}) == len(names)
    assert [name for name in names if not code_of(name)] == ["nobody"]


def test_a_site_that_natural_images_do_not_drive_says_nothing() -> None:
    grid = [condition(site=site) for site in range(2)]
    found = {grid[0]: outcome("x", float("nan"), site=0), grid[1]: outcome("x", 2.0, site=1)}
    assert by_site(found, {one.place: [one] for one in grid}, "relative_activation") == {"gabor:1": 2.0}


def test_families_and_order_of_the_picture() -> None:
    assert {family(name) for name in agents.AGENTS} == {
        "random", "evolutionary", "nevergrad", "reinforcement learning", "model-driven"
    }  # fmt: skip
    assert family("my.module:Mine") == "others"
    assert family("cma_es,norm=1") == "evolutionary"
    grid = [condition()]
    a, b = ([outcome("a", x), outcome("b", y)] for x, y in ((1, 2), (3, 5)))
    tables = {"none": rows(a, ["a", "b"], grid), "poisson": rows(b, ["a", "b", "c"], grid)}
    assert order(tables) == ["b", "a"]


def test_default_grid() -> None:
    assert len(agents.AGENTS) == len(set(agents.AGENTS)) == 33
    assert set(agents.MAIN) <= set(agents.AGENTS)
    assert len(set(agents.MAIN_SITES) - set(agents.SITES)) == 12
    assert len({name.partition(":")[0] for name in agents.SITES}) >= 3  # kinds of neuron


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--agents cma_se", "did you mean 'cma_es'"),
        ("--agents ga:ponce", "ponce2019"),
        ("--agents random random", "--agents: expected each once, got random twice"),
        ("--agents random --sites gabor", "--sites: expected NEURON:SITE, such as v4:5, got 'gabor'"),
        ("--agents random --sites gabor:12", "12"),
        ("--agents random --sites gabro:1", "did you mean 'gabor'"),
        ("--agents random --noises poison", "did you mean 'poisson'"),
        ("--agents random --seeds -1", "seed: expected 0 or more"),
        ("--agents random --budget 39", "--budget of 40"),
        ("--agents random --again cma_es", "--again: expected agents of this table, got cma_es"),
        ("--agents random --report-only", "expected a run that is done, found none yet"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, tmp_path / "out", *words.split())
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
