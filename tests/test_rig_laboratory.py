"""`rig serve --transport folder`: a laboratory that shows and counts by itself, and a session that makes do with its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurogym_v.benchmarks import rigs
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.noise import with_noise
from neurogym_v.rigs import RigError
from neurogym_v.rigs.log import FILE, read_log
from neurogym_v.rigs.virtual.config import FOLDER, VirtualConfig
from neurogym_v.rigs.virtual.laboratory import VirtualLaboratory
from neurogym_v.types import NeuroGymError


def laboratory(folder: Path, **settings) -> VirtualLaboratory:
    made = VirtualLaboratory(
        with_noise(Gabor(size=32), "modulated:0.15+lost:0.1"),
        VirtualConfig(
            transport=FOLDER, sites=(1, 4), pace=200.0, folder=folder / "handoff", log=folder / rigs.RIG_LOG, **settings
        ),
    )
    made.open()
    (folder / "rig.toml").write_text(made.rig_file)
    return made


def verdict(folder: Path, stopped: str = "") -> rigs.Verdict:
    logged = read_log(folder / FILE).presentations
    return rigs._compared(FOLDER, "", logged, folder / rigs.RIG_LOG, stopped, float("nan"), 1.0)


@pytest.mark.parametrize("fault", ["", "half", "late"])
def test_rates_are_those_of_the_laboratory(tmp_path: Path, fault: str) -> None:
    other = laboratory(tmp_path, fault=fault, after=1, every=2)
    rigs._search(tmp_path, 160)
    other.close()
    found = verdict(tmp_path)
    assert found.presented >= 160 and found.wrong == found.unknown == 0
    assert 0 < found.lost <= found.presented / 4 and found.repeated > 0, "lost trials are shown again"
    assert (found.misdeeds > 1) == bool(fault)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ids", "the names of the images that were shown"),
        ("rows", r"expected all \d+ images in stimulusID"),
        ("v5", "save with -v7.3"),
    ],
)
def test_an_answer_that_does_not_fit_stops_the_session_in_one_sentence(tmp_path: Path, fault: str, said: str) -> None:
    other = laboratory(tmp_path, fault=fault, after=1)
    with pytest.raises(RigError, match=said):
        rigs._search(tmp_path, 160)
    other.close()
    found = verdict(tmp_path)
    assert found.wrong == found.unknown == 0 and found.presented > found.lost > 0


def test_a_session_goes_on_with_it_after_it_was_stopped(tmp_path: Path) -> None:
    other = laboratory(tmp_path, fault="rows", after=1)
    with pytest.raises(RigError):
        rigs._search(tmp_path, 120)
    rigs._search(tmp_path, 120)  # from its start, on what the log has
    other.close()
    found = verdict(tmp_path)
    assert found.wrong == found.unknown == 0
    lines = [json.loads(line) for line in (tmp_path / rigs.RIG_LOG).read_text().splitlines()]
    numbers = [line["number"] for line in lines if "number" in line]
    assert len(set(numbers)) == len(numbers) == found.presented


def test_it_is_served_by_the_command(tmp_path: Path) -> None:
    found = rigs.session(FOLDER, "late", presentations=200, pace=100.0, folder=tmp_path)
    assert found.stopped == "" and found.wrong == found.unknown == 0 and found.misdeeds >= 1


def test_a_fault_that_it_cannot_have_is_named() -> None:
    with pytest.raises(NeuroGymError, match="unknown fault of a folder 'drop'.*known: half, ids"):
        VirtualConfig(transport=FOLDER, fault="drop")
    with pytest.raises(NeuroGymError, match="unknown fault of a rig 'ids'"):
        VirtualConfig(fault="ids")
    with pytest.raises(NeuroGymError, match="every: expected 1 or more, got 0"):
        VirtualConfig(every=0)
    with pytest.raises(NeuroGymError, match="after: expected 0 or more, got -1"):
        VirtualConfig(transport=FOLDER, after=-1)
