"""Whether an entry reproduces: honest ones do, edited ones do not, and nothing in them chooses which code is run."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from neurogym_v.benchmarks import machine, suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.leaderboard.alarms import Claim, alarms
from neurogym_v.benchmarks.leaderboard.entry import Said, entry_of, signed, text_of
from neurogym_v.benchmarks.leaderboard.verify import FALSE_ALARM, judged, numbers, same, sanity_checks, verify
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
seeds = [0, 1]
budget = 80
report_at = [40]
batch_size = 20
recommend = 2
generator = "fourier"

[[grid]]
neuron = "gabor"
sites = [1, 6]
noises = ["poisson+lost:0.2"]
"""


class Cached(Serial):
    """Does a run once, whoever asks for it."""

    def __init__(self) -> None:
        self.results: dict[Any, Any] = {}

    def each(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for at, asked in enumerate(tasks):
            if asked.task not in self.results:
                ((_, self.results[asked.task]),) = super().each(work, [asked])
            yield at, self.results[asked.task]


class Counting(Serial):
    """Which runs were done."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def each(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        self.seeds += [asked.task.config.seed for asked in tasks]
        return CACHED.each(work, tasks)


CACHED = Cached()


@pytest.fixture(scope="module")
def mine() -> Suite:
    return suite.parse(SUITE, where="mine.toml")


@pytest.fixture(scope="module")
def made(mine: Suite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The entry of an honest bench."""
    folder = Folder(tmp_path_factory.mktemp("bench"))
    run_all(mine, mine.tasks(), folder, Serial())
    return entry_of(mine, "cma_es", folder, Said(date="2026-01-02"))


@pytest.fixture
def entry(made: dict[str, Any]) -> dict[str, Any]:
    """A copy to spoil."""
    return copy.deepcopy(made)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command on an entry, without processes: the exit code."""
    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neurogym_v.cli.leaderboard.load_engine", lambda *_, **__: CACHED)

    def command(entry: dict[str, Any], *options: str) -> int:
        Path("entry.json").write_text(text_of(signed(entry)))
        return main(["leaderboard", "verify", "entry.json", *options, "--suite", "mine.toml"])

    return command


def elsewhere(entry: dict[str, Any]) -> dict[str, Any]:
    """The same, of another machine."""
    entry["hardware"]["cpu"] = "Some other CPU"
    return entry


def run_with(site: int, seed: int, area: float, **more: Any) -> dict[str, Any]:
    """A run of which all is written here."""
    about: dict[str, Any] = {"neuron": "gabor", "site": site, "noise": "poisson", "objective": "stretch", "seed": seed}
    shown = {"presentations": 80, "lost": 20, "optimism": math.sinh(0.5), "sanity_check": False}
    estimates = {"relative_activation": 1.1, "best_relative_activation": 1.2, "contrast_matched": 0.9}
    test = {"final": (12.0, 3.0, 72), "natural": (10.0, 2.0, 76), "spontaneous": (2.0, 1.0, 80), "difference": (2.5, 4.0, 68)}
    milestone = {key: {"value": value, "low": value - 0.1, "high": value + 0.2} for key, value in estimates.items()}
    about |= {"failed": None, "area": area, "hits": {"0.5": 10.0, "0.8": 10.0, "1": 100.0, "1.2": None, "1.5": None}}
    return {
        **about,
        **shown,
        "milestones": [{"presentations": 100, **milestone, "expected_relative_activation": 1.05}],
        "test": {name: dict(zip(("mean", "sd", "n"), moments, strict=True)) for name, moments in test.items()},
        **more,
    }


def test_an_honest_entry_reproduces_to_the_last_digit(mine: Suite, entry: dict[str, Any]) -> None:
    engine = Counting()
    found = verify(mine, json.loads(json.dumps(entry)), engine, np.random.default_rng(0), runs=2)
    assert len(found) == len(engine.seeds) == 2
    assert all(one.reproduces and one.exactly for one in found)


@pytest.mark.parametrize("what", ["milestones", "area", "recommended", "lost", "hits"])
def test_on_the_same_machine_every_number_counts(what: str, mine: Suite, entry: dict[str, Any]) -> None:
    run = entry["runs"][0]
    spoilt: dict[str, Callable[[Any], Any]] = {
        "area": lambda area: area + 1e-9,
        "recommended": lambda text: "AAAA" + text[4:],
        "lost": lambda lost: lost - 1,
        "hits": lambda hits: dict.fromkeys(hits, 20.0),
        "milestones": lambda _: json.loads(json.dumps(run["milestones"]).replace('"value": 0.', '"value": 0.1')),
    }
    run[what] = spoilt[what](run[what])
    entry["runs"] = entry["runs"][:1]
    (found,) = verify(mine, entry, CACHED, np.random.default_rng(0), runs=1)
    named = {"milestones": " in the entry and ", "hits": "log presentations to targets"}
    assert not found.reproduces and named.get(what, what) in found.said


def test_code_of_another_day_is_as_another_machine(mine: Suite, entry: dict[str, Any]) -> None:
    (found,) = verify(mine, entry | {"code": "0" * 12}, CACHED, np.random.default_rng(0), runs=1)
    assert (found.reproduces, found.exactly) == (True, False) and "may differ by" in found.said
    (found,) = verify(mine, entry | {"code": ""}, CACHED, np.random.default_rng(0), runs=1)
    assert found.exactly


def test_elsewhere_searches_of_this_machine_say_what_may_differ(mine: Suite, entry: dict[str, Any]) -> None:
    engine = Counting()
    found = verify(mine, elsewhere(entry), engine, np.random.default_rng(0), runs=1)
    assert [(one.reproduces, one.exactly) for one in found] == [(True, False)]
    assert "may differ by" in found[0].said and found[0].run.endswith("seed 0 and 1")
    assert engine.seeds == [0, 1, 2, 3]
    assert len(verify(mine, entry, CACHED, np.random.default_rng(0), runs=9)) == 2  # sites


def forged(entry: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    for run in elsewhere(entry)["runs"]:
        change(run)
    return entry


def by_seed(run: dict[str, Any]) -> None:
    """Good scores that fit all else in the entry, of seeds so far apart that by them anything might differ."""
    claim = 3.0 - 1.2 * run["seed"]
    for milestone in run["milestones"]:
        for estimate in (milestone[key] for key in ("relative_activation", "best_relative_activation", "contrast_matched")):
            estimate.update(value=claim, low=claim - 0.1, high=claim + 0.1)
    best, grey = (run["test"][name]["mean"] for name in ("natural", "spontaneous"))
    run["test"]["final"]["mean"] = grey + claim * (best - grey)


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "scores, with seeds pulled apart": (by_seed, "activation at"),
    "times to targets": (lambda run: run.update(hits=dict.fromkeys(run["hits"], 1)), "log presentations to targets"),
    "presentations": (lambda run: run.update(presentations=20, lost=5), "share of presentations"),
    "lost": (lambda run: run.update(lost=80), "share of lost"),
    "no noise": (lambda run: [moments.update(sd=0.0) for moments in run["test"].values()], "sd of"),
    "repeats": (lambda run: run["test"]["spontaneous"].update(n=20), "share of spontaneous answered"),
    "rates": (lambda run: run["test"]["natural"].update(mean=3 * run["test"]["natural"]["mean"]), "mean of natural"),
    "area": (lambda run: run.update(area=20.0), "area"),
    "noise-free": (lambda run: run["milestones"][0].update(expected_relative_activation=20.0), "expected relative activation"),
    "optimism": (lambda run: run.update(optimism=1e4), "optimism"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_elsewhere_every_number_is_compared(what: str, mine: Suite, entry: dict[str, Any]) -> None:
    change, name = FORGERIES[what]
    found = verify(mine, forged(entry, change), CACHED, np.random.default_rng(0), runs=2)
    assert not any(one.reproduces for one in found) and all(name in one.said for one in found)


def test_elsewhere_a_claim_far_beyond_does_not_reproduce(entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    assert asked(forged(entry, by_seed), "--runs", "1", "--seed", "0") == 1
    said = capsys.readouterr().out
    assert (
        "DOES NOT REPRODUCE: gabor, site" in said
        and re.search(" is (2.400|3.000) in the entry", said)
        and "0 of 1 runs reproduce" in said
    )


def test_what_is_compared() -> None:
    test = {
        "final": (1.2, 0.3, 0.9),
        "natural": (1.0, 0.2, 0.95),
        "spontaneous": (0.2, 0.1, 1.0),
        "difference": (0.25, 0.4, 0.85),
    }
    activations = {"relative activation": 1.1, "best relative activation": 1.2, "contrast matched": 0.9}
    expected = {f"{name} at 100": value for name, value in (activations | {"expected relative activation": 1.05}).items()}
    expected |= {"area": 0.7, "optimism": 0.5, "share of presentations": 0.8, "share of lost": 0.25}
    expected |= {"log presentations to targets": (2 * math.log(10) + 3 * math.log(100)) / 5}
    for name, (mean, sd, answered) in test.items():
        expected |= {f"mean of {name}": mean, f"sd of {name}": sd, f"share of {name} answered": answered}
    assert numbers(run_with(1, 0, 0.7), unit=10.0) == pytest.approx(expected)


HERE = ([1.0, 2.0, 3.0, 4.0], [10.0, 10.0, 14.0, 14.0])
"""Areas of two sites; squares about their means add up to 5 and 16."""


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize(("site", "sd"), [(0, math.sqrt((5 + 16) / 6)), (1, math.sqrt(16 / 3))])
def test_what_may_differ_is_said_by_the_searches_done_again(site: int, sd: float, runs: int, sign: int) -> None:
    """By those of all sites, or by those of one that varies more; of the mean of two runs of an entry, and of each."""
    checks, middles = 2 * 21 * 3, [2.5, 12.0]  # numbers of two sites, of two runs and of their mean
    t = stats.t.ppf(1 - FALSE_ALARM / (2 * checks), 3 + 3)
    may = t * sd * math.sqrt(1 / runs + 1 / 4)
    here = [[run_with(at, seed, area) for seed, area in enumerate(HERE[at])] for at in (0, 1)]
    for times, fits in ((0.999, True), (1.001, False)):
        away = sign * times * may
        pulled = {1: (away, -away), 2: (away + 0.2 * t * sd, away - 0.2 * t * sd)}[runs]
        there = [[run_with(at, seed, middles[at] + (at == site) * pulled[seed]) for seed in (0, 1)] for at in (0, 1)]
        found = judged(list(zip(there, here, strict=True)))
        assert [one.reproduces for one in found] == [fits or at != site for at in (0, 1)]
        assert found[site].said.endswith(f"and {middles[site]:.3f} here, and may differ by {may:.3f}")


def test_what_no_search_varies_may_differ_by_a_rounding() -> None:
    here = [run_with(0, seed, 1.0) for seed in range(4)]
    for change, fits in (
        ({"area": 1.009}, True),
        ({"area": 1.011}, False),
        ({"presentations": 76, "lost": 19}, True),
        ({"presentations": 74, "lost": 18}, False),
        ({"hits": {"0.5": 10.0, "0.8": 10.0, "1": 10.0, "1.2": 10.0, "1.5": None}}, True),  # log 100 / 5 < 1
        ({"hits": dict.fromkeys(("0.5", "0.8", "1", "1.2", "1.5"), 10.0)}, False),
    ):
        (found,) = judged([([run_with(0, 0, 1.0) | change], here)])
        assert found.reproduces == fits, change


def test_rates_are_measured_by_those_of_the_site() -> None:
    """Three spikes/s are little of a thousand and much of ten."""

    def at(rate: float, more: float = 0.0) -> dict[str, Any]:
        test = run_with(0, 0, 1.0)["test"]
        return {"test": test | {"natural": {"mean": rate, "sd": 2.0, "n": 76}, "final": {"mean": 9 + more, "sd": 3.0, "n": 72}}}

    for rate, fits in ((1000.0, True), (10.0, False)):
        here = [run_with(0, seed, 1.0, **at(rate)) for seed in range(4)]
        (found,) = judged([([run_with(0, 0, 1.0, **at(rate, 3.0))], here)])
        assert found.reproduces == fits


def test_with_one_seed_sites_are_searched_with_others(entry: dict[str, Any], mine: Suite) -> None:
    alone = elsewhere(entry) | {"runs": entry["runs"][:2]}
    assert {run["seed"] for run in alone["runs"]} == {0}
    found = verify(dataclasses.replace(mine, seeds=(0,)), alone, CACHED, np.random.default_rng(0))
    assert [one.reproduces for one in found] == [True, True]


def test_one_search_alone_says_nothing() -> None:
    here = [run_with(0, 0, 1.0), *(run_with(0, seed, 1.0) | {"failed": "RuntimeError: no"} for seed in range(1, 4))]
    with pytest.raises(NeuroGymError, match="expected two searches of a site that come to a number, found one"):
        judged([([run_with(0, 0, 1.0)], here)])


def test_alarms_are_as_rare_as_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    assert alarms(0.0, Claim(), rng, entries=60) <= 0.05  # 0.01 at most; four of sixty are not chance
    assert alarms(0.0, Claim(high=9), rng, entries=20) == 1
    assert alarms(0.0, Claim(high=9, apart=8), rng, entries=20) == 1


def test_a_number_that_is_not_known_is_only_itself() -> None:
    known, unknown = ([run_with(0, seed, area) for seed in range(4)] for area in (1.0, None))  # type: ignore[arg-type]
    for there, here, fits in (
        (unknown[:2], unknown, True),
        (known[:2], unknown, False),
        (unknown[:2], known, False),
        ([known[0], unknown[1]], known, False),  # a bad seed left out
        ([known[0], unknown[1]], [*known[:3], unknown[3]], True),
    ):
        assert judged([(there, here)])[0].reproduces == fits


@pytest.mark.parametrize("cpu", [None, "Some other CPU"])
def test_what_is_no_result_cannot_be_passed_off_as_one(cpu: str | None, mine: Suite, entry: dict[str, Any]) -> None:
    """Nor in a run that is not drawn."""
    entry["hardware"]["cpu"] = cpu or entry["hardware"]["cpu"]
    entry["runs"][3]["sanity_check"] = True
    engine = Counting()
    (found,) = verify(mine, entry, engine, np.random.default_rng(0), runs=1)
    assert not found.reproduces and not engine.seeds
    assert found.said == "sanity_check is True in the entry and False here" and ", site 6, " in found.run


def test_a_model_of_the_neurons_own_kind_is_found_without_a_search() -> None:
    text = SUITE.replace("[[grid]]", '[[grid]]\nneuron = "units:lite0-block4"\nsites = [1]\n\n[[grid]]')
    tasks = suite.parse(text.replace('"fourier"', '"natural64"'), where="x").tasks(["bashivan2019,network=lite1"], [0])
    found = sanity_checks(tasks)
    assert {neuron: fair for (neuron, _), fair in found.items()} == {"units:lite0-block4": True, "gabor": False}


def test_a_sanity_check_of_the_searches_done_again_counts() -> None:
    here = [run_with(0, seed, 1.0, sanity_check=True) for seed in range(4)]
    (found,) = judged([([run_with(0, 0, 1.0)], here)])
    assert not found.reproduces and found.said == "sanity_check is False in the entry, not here"


def test_seconds_are_nobodys_claim(entry: dict[str, Any]) -> None:
    run = entry["runs"][0]
    assert same(run, run | {"agent_s": 99.0, "wall_s": 99.0}).exactly


def test_a_run_that_failed_must_fail_again(entry: dict[str, Any]) -> None:
    run = entry["runs"][0]
    failed = {key: run[key] for key in ("neuron", "site", "noise", "objective", "seed")} | {"failed": "RuntimeError: no"}
    assert not same(run, failed).reproduces and not same(failed, run).reproduces
    assert same(failed, failed).exactly
    again = same(failed, failed | {"failed": "RuntimeError: 2 no"})
    assert again.reproduces and not again.exactly


def test_elsewhere_a_run_that_failed_must_fail_again() -> None:
    good = [run_with(0, seed, 1.0) for seed in range(4)]
    bad = [run | {"failed": "RuntimeError: no"} for run in good]
    for there, here, fits in (
        (good[:2], bad, False),
        (bad[:2], good, False),
        ([good[0], bad[1]], good, False),
        (bad[:2], bad, True),
        (bad[:2], [*good[:3], bad[3]], True),
        (good[:2], [*good[:3], bad[3]], True),  # those of the entry's seeds, or of others
    ):
        (found,) = judged([(there, here)])
        assert found.reproduces == fits


def test_the_sample_is_drawn_by_its_seed(entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    assert asked(entry, "--runs", "1", "--seed", "3") == 0
    said = capsys.readouterr().out
    chosen = entry["runs"][np.random.default_rng(3).choice(4, 1, replace=False)[0]]
    assert f"reproduces exactly: gabor, site {chosen['site']}, poisson+lost:0.2, stretch, seed {chosen['seed']}" in said
    assert "--seed 3 --runs 1" in said


def test_several_files_are_told_one_by_one(entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    Path("broken.json").write_text("{")
    assert asked(entry, "broken.json", "nowhere.json", "--runs", "0") == 2
    said = capsys.readouterr()
    assert "entry.json: cma_es on mine-v1, 4 runs whose form, digest and numbers fit" in said.out
    assert [line.split(": ")[2] for line in said.err.splitlines()] == ["broken.json", "nowhere.json"]


def test_numbers_out_of_range_are_refused(entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    for options, message in (
        (["--runs", "-1"], "--runs: expected 0 or more, got -1"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
    ):
        assert asked(entry, *options) == 2
        assert message in capsys.readouterr().err


def test_a_machine_is_told_by_processor_device_and_versions(entry: dict[str, Any]) -> None:
    assert machine.alike(entry, "cpu") and set(entry["versions"]) == {"python", "numpy", "torch", "neurogym-v"}
    assert entry["hardware"]["cpu"] and entry["hardware"]["cores"] >= 1
    assert not machine.alike(entry | {"versions": entry["versions"] | {"numpy": "1.0"}}, "cpu")
    assert not machine.alike(elsewhere(entry), "cpu")
