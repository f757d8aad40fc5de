"""NWB files written with pynwb are read back: spikes are counted where they are, for the image that was on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurogym_v.fitting.recording import Recording, read
from neurogym_v.types import NeuroGymError

pynwb = pytest.importorskip("pynwb", reason="pynwb absent: pip install neurogym-v[nwb]")

N, UNITS, REPEATS = 22, 3, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
COUNTS = np.random.default_rng(1).poisson(4, (N, UNITS, REPEATS))
WHICH = np.random.default_rng(2).permutation(np.repeat(np.arange(N), REPEATS))
ONSETS = 1.0 + 0.5 * np.arange(N * REPEATS)
REPEAT = np.array([np.sum(WHICH[:at] == image) for at, image in enumerate(WHICH)])
"""Which repeat of its image each presentation is."""


def spikes(unit: int) -> np.ndarray:
    """As many in [70, 170) ms after each onset as COUNTS says, one of them at 70 ms, and some just before and at its end."""
    times = []
    for onset, image, repeat in zip(ONSETS, WHICH, REPEAT, strict=True):
        start, count = onset + 0.07, COUNTS[image, unit, repeat]
        times += [start - 1e-4, start + 0.1 + 1e-9, start + 0.3]
        times += list(start + 0.1 * np.arange(count) / max(count, 1))
    return np.sort(times)


def images(*, ordered: bool = False, prefix: str = "image", colour: str = "RGBImage") -> Any:
    """Names are written so that their alphabetical order is not the order of the images."""
    kind = getattr(pynwb.image, colour)
    pictures = [kind(name=f"{prefix}{at + 1}", data=PIXELS[at]) for at in range(N)]
    order = pynwb.base.ImageReferences(name="order_of_images", data=pictures) if ordered else None
    return pynwb.base.Images(name="shown", images=pictures, description="x", order_of_images=order)


def movie(**changes: Any) -> Any:
    fields = {"name": "shown", "data": PIXELS, "unit": "n.a.", "rate": 1.0, "format": "raw"} | changes
    return pynwb.image.OpticalSeries(**fields, distance=0.5, field_of_view=[1.0, 1.0], orientation="up", dimension=[8, 8])


def add_trials(file: Any, column: str | None, values: Any, **more: Any) -> None:
    """A trial an onset, with the image in `column`, and other columns."""
    columns = ({column: list(values)} if column else {}) | more
    for name in columns:
        file.add_trial_column(name=name, description="x")
    for at, onset in enumerate(ONSETS):
        row = {name: cells[at] for name, cells in columns.items()}
        file.add_trial(start_time=onset - (0.2 if "stimulus_onset" in more else 0), stop_time=onset + 0.4, **row)


def add_units(file: Any, **more: Any) -> None:
    for unit in range(UNITS):
        file.add_unit(
            spike_times=spikes(unit)[:: -1 if unit == 0 else 1],
            id=10 + unit,
            **{name: cells[unit] for name, cells in more.items()},
        )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write what a function puts into a new file."""

    def make(*fill: Callable[[Any], None]) -> Path:
        start = datetime(2024, 1, 1, tzinfo=UTC)
        file = pynwb.NWBFile(session_description="x", identifier="x", session_start_time=start)
        for step in fill:
            step(file)
        path = tmp_path / "session.nwb"
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(file)
        return path

    return make


def is_right(recording: Recording, *, window_s: float = 0.1) -> None:
    assert np.array_equal(recording.images.permute(0, 2, 3, 1).numpy(), PIXELS)
    np.testing.assert_allclose(recording.trials, COUNTS / window_s)
    np.testing.assert_allclose(recording.rates, COUNTS.mean(axis=2) / window_s)
    assert np.array_equal(recording.repeats, np.full(N, REPEATS))
    assert recording.sites == ("10", "11", "12") and recording.name == "session"


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(NeuroGymError) as caught:
        read(path, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400, line
    return line


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("image_index", WHICH),
        ("stimulus_index", WHICH.astype(float)),
        ("image_id", WHICH + 1),
        ("image", [f"image{at + 1}" for at in WHICH]),
        ("stimulus_name", [f"image{at + 1}" for at in WHICH]),
    ],
)
def test_images_by_a_column_of_trials(write, column: str, values: Any) -> None:
    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, column, values),
        add_units,
    )
    is_right(read(path))
    assert any("70 to 170 ms" in note for note in read(path).left_out)


def test_frames_of_a_series_and_a_column_of_onsets(write) -> None:
    path = write(
        lambda file: file.add_stimulus(movie()),
        lambda file: add_trials(file, "image_index", WHICH, stimulus_onset=ONSETS),
        add_units,
    )
    is_right(read(path))


@pytest.mark.parametrize("clock", [{"timestamps": ONSETS}, {"starting_time": 1.0, "rate": 2.0}])
def test_images_by_an_index_series(write, clock: dict[str, Any]) -> None:
    def fill(file: Any) -> None:
        shown = images(ordered=True, prefix="z")
        file.add_stimulus_template(shown)
        series = pynwb.image.IndexSeries(name="order", data=WHICH.astype(np.uint32), unit="N/A", indexed_images=shown, **clock)
        file.add_stimulus(series)

    is_right(read(write(fill, add_units)))


def test_another_window(write) -> None:
    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, "image_index", WHICH),
        add_units,
    )
    recording = read(path, window_s=0.2, leave_out="1-2")
    np.testing.assert_allclose(recording.rates, 5 * (COUNTS.mean(axis=2) + 1)[2:])  # the spike at 170 ms is inside
    assert recording.window_s == 0.2


def test_lost_trials_are_skipped(write) -> None:
    lost, valid, onsets = np.zeros(N * REPEATS, dtype=bool), np.ones(N * REPEATS, dtype=bool), ONSETS.copy()
    lost[[3, 5]], valid[7], onsets[9] = True, False, np.nan
    values = np.where(lost, 999, WHICH)  # what a lost trial points to does not matter
    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, "image_index", values, lost=lost, valid=valid, stimulus_onset=onsets),
        add_units,
    )
    recording = read(path)
    assert any("4 of 88 trials left out" in note for note in recording.left_out)
    used = np.ones((N, REPEATS), dtype=bool)
    used[WHICH[[3, 5, 7, 9]], REPEAT[[3, 5, 7, 9]]] = False
    expected = np.nanmean(np.where(used[:, None], COUNTS, np.nan), axis=2)
    np.testing.assert_allclose(recording.rates, 10 * expected)
    assert np.array_equal(recording.repeats, used.sum(axis=1))


def test_a_unit_counts_only_while_it_was_observed(write) -> None:
    whole, half = [[0.0, 100.0]], [[0.0, ONSETS[43] + 0.2], [ONSETS[60], 100.0]]
    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, "image_index", WHICH),
        lambda file: add_units(file, obs_intervals=[whole, half, whole]),
    )
    recording = read(path)
    seen = np.zeros((N, REPEATS), dtype=bool)
    at = [*range(44), *range(60, N * REPEATS)]
    seen[WHICH[at], REPEAT[at]] = True
    assert recording.sites == ("10", "11", "12")
    assert np.array_equal(np.isfinite(recording.trials[:, 1]).sum(axis=1), seen.sum(axis=1))
    assert np.isfinite(recording.trials[:, 0]).all()


def test_rates_are_taken_where_there_are_no_units(write) -> None:
    rates = np.array([COUNTS[image, :, repeat] / 0.1 for image, repeat in zip(WHICH, REPEAT, strict=True)])
    rates[7] = np.nan
    path = write(lambda f: f.add_stimulus_template(images()), lambda f: add_trials(f, "image_index", WHICH, rates=list(rates)))
    recording = read(path, leave_out="1-2")
    np.testing.assert_allclose(
        recording.rates,
        [np.nanmean(rates[image == WHICH], axis=0) for image in range(2, N)],
    )
    words = write(
        lambda f: f.add_stimulus_template(images()), lambda f: add_trials(f, "image_index", WHICH, rates=["high"] * len(WHICH))
    )
    with pytest.raises(NeuroGymError, match="expected numbers, as many for each trial, in the trials' column rates"):
        read(words)
    with_units = write(
        lambda f: f.add_stimulus_template(images()),
        lambda f: add_trials(f, "image_index", WHICH, rates=["high"] * len(WHICH)),
        add_units,
    )
    np.testing.assert_allclose(read(with_units, leave_out="1-2").rates, 10 * COUNTS.mean(axis=2)[2:], err_msg="of no concern")


def test_pictures_of_other_kinds(write) -> None:
    def fill(file: Any) -> None:
        grey = [pynwb.image.GrayscaleImage(name=f"i{at}", data=PIXELS[at, :, :, 0]) for at in range(N)]
        clear = np.dstack([PIXELS[0], np.zeros((8, 8), np.uint8)])
        grey[0] = pynwb.image.RGBAImage(name="i0", data=clear)
        grey[1] = pynwb.image.GrayscaleImage(name="i1", data=PIXELS[1, :, :, 0] / 255.0)
        grey[2] = pynwb.image.GrayscaleImage(name="i2", data=PIXELS[2, :, :, 0].astype(np.uint16) * 257)
        file.add_stimulus_template(pynwb.base.Images(name="shown", images=grey, description="x"))

    path = write(fill, lambda file: add_trials(file, "image_index", WHICH), add_units)
    expected = PIXELS[:, None, :, :, 0].repeat(3, axis=1)
    expected[0] = 128
    assert np.array_equal(read(path).images.numpy(), expected)


def test_files_that_lack_something(write, tmp_path: Path) -> None:
    def stimuli(file: Any) -> None:
        file.add_stimulus_template(images())

    def trials(file: Any) -> None:
        add_trials(file, "image_index", WHICH)

    assert "units" in refusal(write(stimuli, trials))
    assert "Images or ImageSeries" in refusal(write(trials, add_units)) and "none" in refusal(tmp_path / "session.nwb")
    assert "image_index" in refusal(write(stimuli, add_units)) and "IndexSeries" in refusal(tmp_path / "session.nwb")
    assert "image_index" in refusal(write(stimuli, lambda file: add_trials(file, None, ()), add_units))
    two = write(stimuli, lambda file: file.add_stimulus(movie(name="other")), trials, add_units)
    assert "2: shown, other" in refusal(two)
    elsewhere = pynwb.image.ImageSeries(name="shown", external_file=["a.avi"], unit="n.a.", format="external", timestamps=[0.0])
    assert "other files" in refusal(write(lambda file: file.add_stimulus(elsewhere), trials, add_units))
    assert "hz" in refusal(write(stimuli, trials, add_units), units="hz")
    assert "found nothing" in refusal(tmp_path / "nowhere.nwb")


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("image_index", WHICH + 1, ["0 to 21", "found 22"]),
        ("image_index", np.where(WHICH == 3, -1, WHICH), ["0 to 21", "found -1"]),
        ("image_id", WHICH, ["'0'", "no image"]),
        ("image", [f"picture{at}" for at in WHICH], ["picture", "no image"]),
    ],
)
def test_trials_that_point_to_no_image(write, column: str, values: Any, words: list[str]) -> None:
    path = write(lambda file: file.add_stimulus_template(images()), lambda file: add_trials(file, column, values), add_units)
    line = refusal(path)
    assert all(word in line for word in words), line


def test_images_never_shown_are_left_out(write) -> None:
    values = np.where(WHICH == 4, 5, WHICH)
    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, "image_index", values),
        add_units,
    )
    recording = read(path)
    assert len(recording.images) == N - 1 and recording.repeats[4] == 2 * REPEATS
    assert any("image5" in note for note in recording.left_out)


def test_damaged_files(write, tmp_path: Path) -> None:
    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, "image_index", WHICH),
        add_units,
    )
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello"):
        path.write_bytes(content)
        assert "damaged" in refusal(path)
    import h5py

    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert "damaged or different" in refusal(path)


def test_a_damaged_picture_is_named(write) -> None:
    import h5py

    path = write(
        lambda file: file.add_stimulus_template(images()),
        lambda file: add_trials(file, "image_index", WHICH),
        add_units,
    )
    with h5py.File(path, "a") as file:
        del file["stimulus/templates/shown/image3"]
        file["stimulus/templates/shown/image3"] = np.full((8, 8, 3), 1000.0)
        for key, value in file["stimulus/templates/shown/image4"].attrs.items():
            file["stimulus/templates/shown/image3"].attrs[key] = value
    line = refusal(path)
    assert "image3" in line and "1000" in line


def test_without_pynwb_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    (tmp_path / "session.nwb").write_bytes(b"")
    assert 'pip install "neurogym-v[nwb]"' in refusal(tmp_path / "session.nwb")
