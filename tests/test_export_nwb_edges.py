"""Runs that are not whole, files that are there already, disks that are full: what can be exported is, the rest is refused."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurogym_v.journal import Journal
from neurogym_v.rigs.log import INTERRUPTED, Begun, LiveLog
from tests.exporting import RIG, carry_out, command, exported, laboratory, opened, refusal, short, simulate

pytest.importorskip("pynwb", reason="pynwb absent: pip install neurogym-v[nwb]")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with short():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laboratory(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def finished(home: Path) -> Path:
    carry_out(home / "live")
    return home / "live"


@pytest.fixture
def live(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "live"))


@pytest.fixture(scope="module")
def simulated(home: Path) -> Path:
    return simulate(home / "simulated")


def test_the_inspector_would_find_a_subject_that_is_none(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspector = pytest.importorskip("nwbinspector", reason="nwbinspector absent: pip install nwbinspector")
    with closing(sqlite3.connect(live / "live.sqlite")) as db, db:
        text = RIG.replace("Macaca mulatta", "monkey").replace("P7Y", "7 years").replace('sex = "male"', "")
        db.execute("UPDATE meta SET value = ? WHERE key = 'rig'", (text,))
    path = exported(live)
    said = capsys.readouterr().err
    assert "species: NWB expects a Latin binomial such as Macaca mulatta, the rig file says 'monkey'" in said
    assert "age: NWB expects a duration" in said and "sex: not said in the rig file" in said
    found = {m.check_function_name for m in inspector.inspect_nwbfile(nwbfile_path=str(path))}
    assert {"check_subject_species_form", "check_subject_age"} <= found and "check_subject_sex" not in found


def test_a_run_that_was_stopped_and_one_whose_clock_began_anew(home: Path, capsys, monkeypatch) -> None:
    def inverted(generator: Any, images: torch.Tensor) -> np.ndarray:
        """A latent that depends on the image: enough to see that searches begin at the same one."""
        return np.full((len(images), generator.latent_dim), images.float().mean() / 255, dtype=np.float32)

    for module in ("experiment", "report.images"):
        monkeypatch.setattr(f"neurogym_v.{module}.invert", inverted)
    folder, changes = home / "stopped", {"start": "natural", "normaliser": 2}
    first = carry_out(folder, fail_at=34, **changes)
    capsys.readouterr()
    path = exported(folder, name="stopped.nwb")
    said = capsys.readouterr().err
    assert "the run is not finished" in said and "images that are not known" in said
    with opened(path) as file:
        trials = {name: np.asarray(file.trials[name][:]) for name in file.trials.colnames}
        assert len(trials["number"]) == len(first.every)
        cut = trials["session"] == ""
        assert 0 < cut.sum() < 20 and cut[-1] and (trials["block"][cut] == -1).all()
        assert (trials["image_index"][cut] == -1).all() and not trials["valid"][cut].any()
        assert (trials["image_id"] != "").all() and f"{INTERRUPTED}: RigError: acquisition: gone" in trials["lost_reason"]
        half = file.units.get_unit_spike_times(0)
    second = carry_out(folder, **changes)
    capsys.readouterr()
    with opened(exported(folder, "--force", name="stopped.nwb")) as file:
        assert "differ" not in capsys.readouterr().err, "images of a search from a natural image, drawn again"
        trials = {name: np.asarray(file.trials[name][:]) for name in file.trials.colnames}
        shown = len(first.every)
        assert len(trials["number"]) == shown + len(second.every) and trials["valid"][~trials["lost"]].all()
        assert (np.diff(trials["start_time"]) > 0).all()
        assert (trials["shift"][:shown] == 0).all() and len({*trials["shift"][shown:]}) == 1
        onsets = trials["stimulus_onset"] - trials["shift"]
        expected = [t.onsets[0][0] if t.onsets else np.nan for t in second.every]
        np.testing.assert_allclose(onsets[shown:], expected, rtol=0, atol=1e-9)
        spikes = file.units.get_unit_spike_times(0)
        np.testing.assert_array_equal(spikes[: len(half)], half)
        assert spikes[len(half)] > half[-1] + 0.5 and len(spikes) > len(half) + 100


def test_what_is_on_the_screen_when_the_session_dies_is_lost(live: Path) -> None:
    with closing(LiveLog(live / "live.sqlite")) as log:
        known = log.presentations()
        position = max(p.begun.position for p in known) + 1
        log.begin([Begun(len(known), position, known[3].begun.image)])
    with opened(exported(live)) as file:
        assert file.trials["lost_reason"][-1] == INTERRUPTED and file.trials["session"][-1] == ""
        assert file.trials["image_index"][-1] == file.trials["image_index"][3], "an image that is known by its digest"


def test_a_rig_that_tells_rates_alone_has_trials_and_no_units(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(live / "live.sqlite")) as db, db:
        db.execute("UPDATE presentation SET counts = NULL, spike_s = NULL, channel = NULL, onset_s = NULL")
        text = RIG.partition("[presenter]")[0].replace("acquisition", "folder") + "[subject]" + RIG.partition("[subject]")[2]
        db.execute("UPDATE meta SET value = ? WHERE key = 'rig'", (text,))
    with opened(exported(live)) as file:
        assert file.units is None and len(file.electrodes) == 3 and not file.stimulus
        start = np.asarray(file.trials["start_time"][:])
        assert (np.diff(start) >= 0).all() and "count" not in file.trials.colnames
        assert (np.asarray(file.trials["stop_time"][:]) > start).all() and len({*start}) > 100
    assert "no spike times" in capsys.readouterr().err


def test_images_that_are_others_now_are_told(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(live / "live.sqlite")) as db, db:
        db.execute("UPDATE presentation SET image = 'other' WHERE number IN (2, 9)")
    exported(live)
    assert "2 of" in (said := capsys.readouterr().err) and "differ in some pixel" in said


def test_who_was_recorded_can_be_said_later(live: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(live / "live.sqlite")) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'rig'", (RIG.partition("[subject]")[0],))
    rig = tmp_path / "rig.toml"
    rig.write_text('[folder]\nchannels = ["a"]\npath = "x"\n[subject]\nsubject_id = "M2"\nspecies = "Callithrix jacchus"\n')
    with opened(exported(live, "--rig", rig)) as file:
        assert (file.subject.subject_id, file.subject.species) == ("M2", "Callithrix jacchus")
        assert file.units is not None and file.trials["stop_time"][0] - file.trials["start_time"][0] == pytest.approx(0.12)
    with opened(exported(live, name="none.nwb")) as file:
        assert file.subject.subject_id == "unknown" and file.subject.species.endswith("NCBITaxon_32644")


def test_what_cannot_be_exported_is_refused(live: Path, simulated: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file.nwb"
    assert f"{tmp_path}: expected the folder of a run, found no journal.sqlite" in refusal(tmp_path, "--nwb", path)
    assert "found no journal.sqlite" in refusal(tmp_path / "nowhere", "--nwb", path)
    assert "expected a name that ends in .nwb" in refusal(live, "--nwb", tmp_path / "file.h5")
    (tmp_path / "folder.nwb").mkdir()
    assert "found a folder" in refusal(live, "--nwb", tmp_path / "folder.nwb", "--force")
    assert "this one is simulated" in refusal(simulated, "--nwb", path, "--rig", tmp_path / "rig.toml")
    (empty := tmp_path / "empty").mkdir()
    Journal(empty / "journal.sqlite", config={"generator": "tests.conftest:Cosines"}).close()
    assert "expected presentations, found none yet" in refusal(empty, "--nwb", path)
    log = live / "live.sqlite"
    with closing(sqlite3.connect(log)) as db, db:
        db.execute("DELETE FROM presentation WHERE position = 7")
    assert f"{log}: expected every presentation of the journal, found none of position 7" in refusal(live, "--nwb", path)
    log.write_bytes(b"hello" * 1000)
    assert f"{log}: expected a whole, writable SQLite file" in refusal(live, "--nwb", path)
    log.unlink()
    assert "expected live.sqlite beside the journal" in refusal(live, "--nwb", path)
    shutil.copytree(simulated, other := tmp_path / "other")
    journal = other / "journal.sqlite"
    journal.write_bytes(journal.read_bytes()[:9000])
    assert f"journal {journal}: expected a whole" in refusal(other, "--nwb", path)
    monkeypatch.setitem(sys.modules, "pynwb", None)
    assert "pip install 'neurogym-v[nwb]'" in refusal(simulated, "--nwb", path)
    assert not path.exists() and not list(tmp_path.glob(".*"))


def test_a_run_whose_images_are_gone_is_refused(live: Path, home: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(live / "journal.sqlite")) as db, db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        config = json.loads(text) | {"references": str(tmp_path / "gone")}
        db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(config),))
    assert "expected a folder of images, found none" in refusal(live, "--nwb", tmp_path / "x.nwb")
    (tmp_path / "gone").mkdir()
    shutil.copy(home / "photographs" / "0.png", tmp_path / "gone")
    assert ".png: expected it among the references" in refusal(live, "--nwb", tmp_path / "x.nwb")
    assert not (tmp_path / "x.nwb").exists()


def test_a_file_that_is_there_stays_unless_told(live: Path) -> None:
    path = exported(live)
    before = path.read_bytes()
    assert "found one; --force replaces it" in refusal(live, "--nwb", path)
    assert path.read_bytes() == before
    assert command(live, "--nwb", path, "--force") == 0
    with opened(path) as file:
        assert len(file.trials) > 100


def test_a_full_disk_leaves_the_old_file(live: Path) -> None:
    """A limit on the size of files is what any user can set; the kernel then refuses to write as a full disk does."""
    path = exported(live)
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            command(live, "--nwb", path, "--force")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and not list(path.parent.glob(".*"))


def test_a_run_is_not_changed_by_its_export(live: Path) -> None:
    before = {path.name: path.read_bytes() for path in live.iterdir()}
    exported(live)
    assert {path.name: path.read_bytes() for path in live.iterdir()} == before
    with closing(LiveLog(live / "live.sqlite")), Journal(live / "journal.sqlite"):  # a run that goes on
        exported(live, "--force")
