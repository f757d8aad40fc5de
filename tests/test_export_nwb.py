"""A run as an NWB file: every number is where it was, the spikes are those of the rig, and other programs read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurogym_v.fitting import recording
from neurogym_v.generators import draw
from neurogym_v.journal import Journal
from neurogym_v.references import load_references
from tests.conftest import Cosines
from tests.exporting import AGENTS, CHANNELS, RIG, Trials, carry_out, command, laboratory, logged, opened, short, simulate
from tests.scripted_rig import OFFSET_S

pynwb = pytest.importorskip("pynwb", reason="pynwb absent: pip install neurogym-v[nwb]")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with short():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laboratory(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def finished(home: Path) -> tuple[Path, Trials]:
    return home / "live", carry_out(home / "live")


@pytest.fixture(scope="module")
def simulated(home: Path) -> Path:
    return simulate(home / "simulated")


@pytest.fixture(scope="module")
def files(finished: tuple[Path, Trials], simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    made = {"live": (finished[0],), "neo": (finished[0], "--neo"), "simulated": (simulated,)}
    for name, (run, *options) in made.items():
        assert command(run, "--nwb", folder / f"{name}.nwb", *options) == 0
    return {name: folder / f"{name}.nwb" for name in made}


def windows(file: Any) -> np.ndarray:
    """(n,) onsets of the trials that were kept, by the table of trials."""
    return np.asarray(file.trials["stimulus_onset"][:])[~np.asarray(file.trials["lost"][:])]


def test_trials_are_the_presentations_of_the_log(files: dict[str, Path], finished: tuple[Path, Trials]) -> None:
    shown = logged(finished[0])
    with opened(files["live"]) as file:
        trials = {name: np.asarray(file.trials[name][:]) for name in file.trials.colnames}
        assert file.trials.colnames[:2] == ("start_time", "stop_time")
    assert trials["number"].tolist() == [p.begun.number for p in shown]
    assert trials["position"].tolist() == [p.begun.position for p in shown]
    assert trials["image_id"].tolist() == [p.begun.image for p in shown]
    assert trials["lost_reason"].tolist() == [p.outcome.lost for p in shown]
    assert trials["lost"].tolist() == [bool(p.outcome.lost) for p in shown] and 0 < trials["lost"].sum() < 30
    np.testing.assert_array_equal(trials["stimulus_onset"], [p.outcome.onset_s for p in shown])
    assert np.isnan(trials["stimulus_onset"]).any() and (np.diff(trials["start_time"]) > 0).all()
    np.testing.assert_allclose(trials["stop_time"] - trials["start_time"], 0.12)
    for p, rates, counts in zip(shown, trials["rates"], trials["counts"], strict=True):
        np.testing.assert_array_equal(rates, [np.nan] * 3 if p.outcome.lost else p.outcome.rates)
        assert counts.tolist() == ([-1] * 3 if p.outcome.lost else p.outcome.counts.tolist())
    np.testing.assert_array_equal(trials["rate"], trials["rates"][:, 0])
    np.testing.assert_array_equal(trials["count"], trials["counts"][:, 0])
    again = [p.begun.position for p in shown]
    assert trials["repeated"].tolist() == [again[:at].count(position) for at, position in enumerate(again)]
    assert trials["repeated"].max() > 0 and trials["valid"].tolist() == (~trials["lost"]).tolist()


def test_every_trial_stands_where_the_journal_has_it(files: dict[str, Path], finished: tuple[Path, Trials]) -> None:
    with opened(files["live"]) as file:
        trials = {name: np.asarray(file.trials[name][:]) for name in file.trials.colnames}
        latents = file.processing["misc"]["latents"]
        stored = dict(zip(latents["sha256"][:], latents["latent"][:], strict=True))
    of_position = dict(zip(trials["position"], range(10**6), strict=False))
    position, seen = 0, set()
    with Journal(finished[0] / "journal.sqlite") as journal:
        for session in ("natural", *AGENTS):
            for number, block in enumerate(journal.blocks(session)):
                for place in range(len(block.rates)):
                    row = of_position[position]
                    found = [trials[key][row] for key in ("session", "block", "kind", "image_name", "latent_sha256")]
                    name = block.images[place] if block.images else ""
                    digest = "" if block.images else hashlib.sha256(block.latents[place].tobytes()).hexdigest()
                    assert found == [session, number, block.kind, name, digest]
                    if digest:
                        np.testing.assert_array_equal(stored[digest], block.latents[place])
                        seen.add(digest)
                    position += 1
    assert position == trials["position"].max() + 1 and seen == set(stored) and len(seen) > 30
    assert {*trials["kind"]} >= {"spontaneous", "screening", "natural", "search", "first round", "validation", "contrast"}


def test_images_are_those_of_the_screen_pixel_for_pixel(files: dict[str, Path], home: Path) -> None:
    with opened(files["live"]) as file:
        images = file.stimulus_template["images"]
        pixels = [np.asarray(image.data) for image in images.order_of_images.data[:]]
        which, ids = (np.asarray(file.trials[name][:]) for name in ("image_index", "image_id"))
        series = file.stimulus["presentations"]
        onsets = np.asarray(file.trials["stimulus_onset"][:])
        np.testing.assert_array_equal(series.timestamps[:], onsets[np.isfinite(onsets)])
        np.testing.assert_array_equal(series.data[:], which[np.isfinite(onsets)])
        assert series.indexed_images is images
        described = [image.description for image in images.order_of_images.data[:]]
    digests = [hashlib.sha256(np.ascontiguousarray(p.transpose(2, 0, 1)).tobytes()).hexdigest()[:32] for p in pixels]
    assert len({*digests}) == len(pixels) == which.max() + 1
    assert [digests[at] for at in which] == ids.tolist()  # as the rig was given them, those of validation and contrast too
    grey = described.index("grey screen")
    assert (pixels[grey] == 128).all()
    reference = load_references(size=32, folder=home / "photographs")
    at = described.index(f"natural image {reference.names[2]}")
    assert np.array_equal(pixels[at], reference.images[2].permute(1, 2, 0).numpy())


def test_spikes_are_those_of_the_rig_each_once(files: dict[str, Path], finished: tuple[Path, Trials]) -> None:
    """Against what the scripted rig put into its stream: windows of neighbours overlap by 20 ms."""
    every = [
        (trial.display_s + OFFSET_S + s, channel) for trial in finished[1].every for s, channel in trial.spikes
    ]  # fmt: skip
    with opened(files["live"]) as file:
        onsets = windows(file)
        assert file.units.resolution == pytest.approx(1e-4) and [*file.units["channel_name"][:]] == [*CHANNELS]
        total = 0
        for at in range(2):
            s = np.sort([s for s, channel in every if channel == at])
            inside = ((onsets - 0.05 <= s[:, None] + 1e-9) & (s[:, None] + 1e-9 < onsets + 0.17)).any(axis=1)
            found = file.units.get_unit_spike_times(at)
            assert 0 < inside.sum() < len(s)
            np.testing.assert_allclose(found, s[inside], rtol=0, atol=1e-9)
            assert (np.diff(found) > 0).all()
            total += len(found)
            intervals = file.units.get_unit_obs_intervals(at)
            assert (intervals[1:, 0] > intervals[:-1, 1]).all() and len(intervals) < len(onsets)
            covered = (intervals[:, 0] <= onsets[:, None] - 0.05) & (onsets[:, None] + 0.17 <= intervals[:, 1])
            assert covered.any(axis=1).all()
            assert np.diff(intervals, axis=1).sum() < 0.2201 * len(onsets)
        assert len(file.units.get_unit_spike_times(2)) == 0
        assert total < sum(len(p.outcome.spike_s) for p in logged(finished[0])), "no windows overlapped: nothing was tested"


def test_who_was_recorded_and_how(files: dict[str, Path], finished: tuple[Path, Trials]) -> None:
    with opened(files["live"]) as file:
        subject = file.subject
        assert (subject.subject_id, subject.species, subject.sex, subject.age) == ("M1", "Macaca mulatta", "M", "P7Y")
        assert subject.weight == "9.5 kg"
        assert list(file.experimenter) == ["Weiss, Anna", "Li, Bo"] and list(file.keywords) == ["V4", "closed loop"]
        assert [*file.electrodes["channel_name"][:]] == [*CHANNELS] and {*file.electrodes["location"][:]} == {"V4"}
        assert {*file.electrodes["reference"][:]} == {"a screw"} and "filtering" not in file.electrodes.colnames
        assert file.devices["electrode"].model.manufacturer == "Blackrock" and "The animal was awake." in file.notes
        assert list(file.electrode_groups) == ["array-1"] and file.lab == "A lab"
        first = datetime.fromisoformat(logged(finished[0])[0].begun_at)
        assert file.session_start_time == first and file.session_start_time.tzinfo is not None
        clock = (first - file.timestamps_reference_time).total_seconds()
        assert abs(clock - file.trials["start_time"][0]) < 2
        assert file.scratch["rig_file"].data == RIG
        assert json.loads(file.scratch["run_config"].data)["agents"] == [*AGENTS]
        assert "clocks aligned" in file.notes and "from 70 to 170 ms" in file.data_collection


def test_a_simulated_run_says_that_there_was_no_animal(files: dict[str, Path], simulated: Path) -> None:
    with Journal(simulated / "journal.sqlite") as journal, opened(files["simulated"]) as file:
        blocks = [block for session in ("natural", "random") for block in journal.blocks(session)]
        trials = {name: np.asarray(file.trials[name][:]) for name in file.trials.colnames}
        assert file.units is None and file.electrodes is None and not file.devices
        assert "No animal" in file.session_description and "No animal" in file.subject.description
        assert file.subject.species.endswith("NCBITaxon_32630") and file.subject.subject_id == "none"
    np.testing.assert_array_equal(trials["rates"], np.concatenate([block.rates for block in blocks]))
    lost = np.isnan(trials["rates"]).all(axis=1)
    assert trials["lost"].tolist() == lost.tolist() and lost.any()
    assert (np.diff(trials["start_time"]) > 0).all() and "stimulus_onset" not in trials and "count" not in trials
    latents = next(block.latents for block in blocks if block.kind == "search")
    image = draw(Cosines(), latents)[3]
    row = int(np.flatnonzero(trials["kind"] == "search")[3])
    assert trials["image_id"][row] == hashlib.sha256(image.numpy().tobytes()).hexdigest()[:32]


def test_the_file_is_a_recording_again(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Of each image, each channel's counts of the log are those that the fit counts in the spikes."""
    read = recording.read(files["live"])
    with opened(files["live"]) as file:
        images = [np.asarray(image.data) for image in file.stimulus_template["images"].order_of_images.data[:]]
        trials = {name: np.asarray(file.trials[name][:]) for name in ("image_index", "counts", "valid")}
    shown = [at for at in range(len(images)) if (trials["valid"] & (trials["image_index"] == at)).any()]
    assert np.array_equal(read.images.permute(0, 2, 3, 1).numpy(), np.stack([images[at] for at in shown]))
    assert read.sites == ("0", "1") and any("lost" in note for note in read.left_out)
    for place, at in enumerate(shown):
        counts = trials["counts"][trials["valid"] & (trials["image_index"] == at)][:, :2]
        found = read.trials[place].T
        np.testing.assert_allclose(found[np.isfinite(found).all(axis=1)], 10 * counts)


def test_a_simulated_file_is_a_recording_too(files: dict[str, Path]) -> None:
    """Without spikes to count, the trials' rates are taken."""
    read = recording.read(files["simulated"])
    with opened(files["simulated"]) as file:
        images = [np.asarray(image.data) for image in file.stimulus_template["images"].order_of_images.data[:]]
        trials = {name: np.asarray(file.trials[name][:]) for name in ("image_index", "rates", "valid")}
    shown = [at for at in range(len(images)) if (trials["valid"] & (trials["image_index"] == at)).any()]
    assert np.array_equal(read.images.permute(0, 2, 3, 1).numpy(), np.stack([images[at] for at in shown]))
    assert any("column rates" in note for note in read.left_out)
    for place, at in enumerate(shown):
        found = read.trials[place].T
        rates = trials["rates"][trials["valid"] & (trials["image_index"] == at)]
        np.testing.assert_array_equal(found[np.isfinite(found).all(axis=1)], rates)


@pytest.mark.parametrize("name", ["live", "simulated"])
def test_nwb_inspector_finds_nothing_that_matters(files: dict[str, Path], name: str) -> None:
    inspector = pytest.importorskip("nwbinspector", reason="nwbinspector absent: pip install nwbinspector")
    least = inspector.Importance.BEST_PRACTICE_VIOLATION
    found = list(inspector.inspect_nwbfile(nwbfile_path=str(files[name])))
    assert [m.message for m in found if m.importance.value >= least.value] == []
    assert pynwb.validate(path=str(files[name])) == []


def test_neo_reads_the_same_spikes(files: dict[str, Path]) -> None:
    neo = pytest.importorskip("neo", reason="neo absent: pip install neo")
    pytest.importorskip("quantities")
    assert pynwb.validate(path=str(files["neo"])) == []
    (block,) = neo.io.NWBIO(str(files["neo"]), "r").read_all_blocks()
    with opened(files["live"]) as file:
        expected = [file.units.get_unit_spike_times(at) for at in range(3)]
    trains = block.segments[0].spiketrains
    assert [len(train) for train in trains] == [len(times) for times in expected]
    for train, times in zip(trains, expected, strict=True):
        np.testing.assert_array_equal(train.rescale("s").magnitude, times)
    with opened(files["neo"]) as file, opened(files["live"]) as whole:
        intervals = whole.units.get_unit_obs_intervals(0)
        gaps = [np.asarray(file.invalid_times[name][:]) for name in ("start_time", "stop_time")]
        np.testing.assert_array_equal(gaps, [intervals[:-1, 1], intervals[1:, 0]])


def test_spikeinterface_reads_the_same_spikes(files: dict[str, Path]) -> None:
    extractors = pytest.importorskip("spikeinterface.extractors", reason="spikeinterface absent: pip install spikeinterface")
    sorting = extractors.read_nwb_sorting(str(files["live"]), t_start=0.0)
    with opened(files["live"]) as file:
        for unit in range(3):
            times = file.units.get_unit_spike_times(unit)
            found = sorting.get_unit_spike_train(sorting.unit_ids[unit], return_times=True)
            np.testing.assert_allclose(found, times, rtol=0, atol=1e-6)
