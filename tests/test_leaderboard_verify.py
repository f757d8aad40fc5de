"""Whether an entry reproduces: honest ones do, edited ones do not, and nothing in them chooses which code is run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from neurogym_v.benchmarks import machine, suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.leaderboard.alarms import alarms
from neurogym_v.benchmarks.leaderboard.entry import Said, entry_of, signed, text_of
from neurogym_v.benchmarks.leaderboard.verify import FALSE_ALARM, compare, numbers, tolerances, trusted, verify
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


class Counting(Serial):
    """How many runs were done."""

    done = 0

    def each(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        self.done += len(tasks)
        return super().each(work, tasks)


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
    monkeypatch.setattr("neurogym_v.cli.leaderboard.load_engine", lambda *_, **__: Serial())

    def command(entry: dict[str, Any], *options: str) -> int:
        Path("entry.json").write_text(text_of(signed(entry)))
        return main(["leaderboard", "verify", "entry.json", *options, "--suite", "mine.toml"])

    return command


def elsewhere(entry: dict[str, Any]) -> dict[str, Any]:
    """The same, of another machine."""
    entry["hardware"]["cpu"] = "Some other CPU"
    return entry


def test_an_honest_entry_reproduces_to_the_last_digit(mine: Suite, entry: dict[str, Any]) -> None:
    engine = Counting()
    found = verify(mine, json.loads(json.dumps(entry)), engine, np.random.default_rng(0), runs=2)
    assert len(found) == engine.done == 2
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
    (found,) = verify(mine, entry, Serial(), np.random.default_rng(0), runs=1)
    assert not found.reproduces and {"milestones": " in the entry and "}.get(what, what) in found.said


def test_elsewhere_the_seeds_say_what_may_differ(mine: Suite, entry: dict[str, Any]) -> None:
    found = verify(mine, elsewhere(entry), Serial(), np.random.default_rng(0), runs=1)
    assert [(one.reproduces, one.exactly) for one in found] == [(True, False)]
    assert "may differ by" in found[0].said


def test_elsewhere_a_claim_far_beyond_does_not_reproduce(entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    allowed = max(tolerances(entry["runs"], checks=4 * 9).values())
    for run in elsewhere(entry)["runs"]:
        for milestone in run["milestones"]:
            for key in ("value", "low", "high"):
                milestone["best_relative_activation"][key] += 2 * allowed + 1
    assert asked(entry, "--runs", "1") == 1
    said = capsys.readouterr().out
    assert (
        "DOES NOT REPRODUCE: gabor, site" in said and "best relative activation at" in said and "0 of 1 runs reproduce" in said
    )


def test_tolerances_are_those_of_the_pooled_sd(entry: dict[str, Any]) -> None:
    runs = entry["runs"]
    values = np.array([[numbers(run)["area"] for run in runs if run["site"] == site] for site in (1, 6)])
    pooled = np.sqrt(values.var(axis=1, ddof=1).mean())  # as many runs at both sites
    t = stats.t.ppf(1 - FALSE_ALARM / 10, 2)
    assert tolerances(runs, checks=5)["area"] == pytest.approx(max(0.01, t * np.sqrt(2) * pooled))
    more = tolerances(runs, checks=50)
    assert set(more) == set(numbers(runs[0])) and len(more) == 9
    assert all(more[key] >= value for key, value in tolerances(runs, checks=5).items())


def test_with_one_seed_nothing_can_be_said_elsewhere(entry: dict[str, Any], mine: Suite) -> None:
    alone = elsewhere(entry) | {"runs": entry["runs"][:2]}
    with pytest.raises(NeuroGymError, match="expected sites with two seeds"):
        verify(mine, alone, Serial(), np.random.default_rng(0))


def test_alarms_are_as_rare_as_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    assert alarms(0.0, 0.0, rng, entries=60) <= 0.05  # 0.01 at most; three of sixty are not chance
    assert alarms(0.0, 9.0, rng, entries=20) == 1


def test_a_number_that_is_not_known_is_only_itself(entry: dict[str, Any]) -> None:
    run = entry["runs"][0]
    unknown = copy.deepcopy(run)
    unknown["milestones"][0]["contrast_matched"]["value"] = None
    allowed = dict.fromkeys(numbers(run), 100.0)
    assert compare(unknown, unknown, allowed).reproduces
    assert not compare(run, unknown, allowed).reproduces and not compare(unknown, run, allowed).reproduces


def test_seconds_are_nobodys_claim(entry: dict[str, Any]) -> None:
    run = entry["runs"][0]
    assert compare(run, run | {"agent_s": 99.0, "wall_s": 99.0}, None).exactly


def test_a_run_that_failed_must_fail_again(entry: dict[str, Any]) -> None:
    run = entry["runs"][0]
    failed = {key: run[key] for key in ("neuron", "site", "noise", "objective", "seed")} | {"failed": "RuntimeError: no"}
    assert not compare(run, failed, None).reproduces and not compare(failed, run, {}).reproduces
    assert compare(failed, failed, None).exactly
    assert compare(failed, failed | {"failed": "RuntimeError: 2 no"}, {}).reproduces


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


@pytest.mark.parametrize(
    "agent", ["evil:Evil", "evil:Evil,norm=1", "bashivan2019,network=evil:network", "inception_loop,network='evil:network'"]
)
def test_an_entry_does_not_choose_which_code_is_run(agent: str, entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    Path("evil.py").write_text(EVIL)
    assert asked(entry | {"agent": agent}) == 2
    said = capsys.readouterr().err
    assert "an entry must not choose which code is run" in said and f"--agent {agent!r}" in said and said.count("\n") == 1
    Path("boards/mine-v1").mkdir(parents=True)
    Path("entry.json").rename("boards/mine-v1/evil.json")
    assert main(["leaderboard", "build", "--to", "boards", "--suite", "mine.toml"]) == 0  # pages need no agent
    assert not Path(MARKER).exists()


def test_code_of_others_is_run_when_the_user_repeats_its_name(entry: dict[str, Any], asked: Any, capsys: Any) -> None:
    Path("evil.py").write_text(EVIL)
    assert asked(entry | {"agent": "evil:Evil"}, "--agent", "else:Evil", "--runs", "1") == 2
    assert not Path(MARKER).exists()
    entry["code"] = ""
    assert asked(entry | {"agent": "evil:Evil"}, "--agent", "evil:Evil", "--runs", "1") == 1  # it is no cma_es
    assert Path(MARKER).exists()
    assert "DOES NOT REPRODUCE" in capsys.readouterr().out


@pytest.mark.parametrize("agent", ["cma_es", "ga:ponce2019,temperature=1", "pycma:diagonal", "bashivan2019,network=vgg16"])
def test_our_agents_need_no_word(agent: str) -> None:
    trusted(agent, [])


@pytest.mark.parametrize("agent", ["nobody", "", "os:system", ":", "cma_es,x", "cma_es,sigma0=1,sigma0=2"])
def test_names_that_are_none_are_refused(agent: str) -> None:
    with pytest.raises(NeuroGymError):
        trusted(agent, [])


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
