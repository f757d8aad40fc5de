"""Recordings in NWB 2 files: the images among their stimuli, and the spikes of every unit after each came on, counted; or, in
a file without units, the rates in a column of its trials.

Source: the NWB schema, https://nwb-schema.readthedocs.io.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neurogym_v.fitting import images, table
from neurogym_v.fitting.responses import Responses, mean_trial
from neurogym_v.types import NeuroGymError

Array = NDArray[np.float64]

LATENCY_S = 0.07
"""From an image's onset to the start of the window: with 0.1 s it is the 70 to 170 ms of Brain-Score's IT and V4 data."""
POSITIONS = ("image_index", "stimulus_index")
"""Columns of trials that count the images from 0."""
NAMES = ("image_id", "image", "stimulus_name")
"""Columns of trials that name the image, or give the number in its name."""
ONSETS = ("stimulus_onset", "onset_time", "start_time")
RATES = "rates"
"""Column of trials with (sites,) spikes/s each, for files without units: of simulations, or of rigs that tell rates alone."""
LOST = {"lost": True, "aborted": True, "valid": False}
"""Columns of trials, and what they hold where a trial is of no use."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Pictures in datasets of an HDF5 file; rows of pixels are taken to come first, as pynwb's own examples write them."""

    source: Path
    names: tuple[str, ...]
    places: tuple[tuple[str, int | None], ...]
    """The dataset, and which of its frames."""

    def decoded(self, used: NDArray[np.intp]) -> Iterator[Image.Image]:
        import h5py

        with h5py.File(self.source, "r") as file:
            for at in used:
                where, frame = self.places[at]
                try:
                    picture = _picture(file[where][() if frame is None else frame])
                except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
                    why = " ".join(str(error).split())
                    raise NeuroGymError(f"{self.source}: {self.names[at]}: expected a readable picture, got: {why}") from None
                yield picture


@dataclass(frozen=True, slots=True)
class _Session:
    """What is taken out of a file while it is open."""

    frames: Frames
    which: NDArray[np.intp]
    """(presentations,) positions of images."""
    onsets: Array
    """(presentations,) s"""
    spikes: tuple[Array, ...]
    """Sorted times of each unit, s."""
    rates: Array | None
    """(presentations, sites) spikes/s, where there are no units."""
    observed: tuple[Array, ...] | None
    """(intervals, 2) s in which each unit was recorded; None where the file does not say."""
    units: tuple[str, ...]
    notes: tuple[str, ...]


def read(path: Path, *, window_s: float) -> tuple[Frames, Responses]:
    """The images of a file, and single trials of every unit: spikes from 70 ms after an onset, for `window_s`; or rates as they
    are there, which are taken for those of such a window.

    A trial outside of a unit's `obs_intervals` is no trial of that unit.

    Raises:
        NeuroGymError: pynwb is missing, the file is damaged, it lacks images, trials or units, or a trial points to no image.
    """
    session = _open(path)
    if session.rates is None:
        rates = _counted(session, window_s)
        window = f"Spikes were counted from {1000 * LATENCY_S:.0f} to {1000 * (LATENCY_S + window_s):.0f} ms after onset."
    else:
        rates, window = session.rates, f"There are no units: rates are those of the trials' column {RATES}."
    trials = table.by_image(rates, session.which, len(session.frames.names))
    return session.frames, Responses(
        rates=mean_trial(trials),
        trials=trials,
        repeats=None,
        sites=session.units,
        window_s=window_s,
        notes=(window, *session.notes),
    )


def _counted(session: _Session, window_s: float) -> Array:
    """(presentations, units) spikes/s."""
    start = session.onsets + LATENCY_S
    rates = np.empty((len(start), len(session.spikes)))
    for unit, times in enumerate(session.spikes):
        rates[:, unit] = (np.searchsorted(times, start + window_s) - np.searchsorted(times, start)) / window_s
    for unit, intervals in enumerate(session.observed or ()):
        inside = (intervals[:, 0] <= start[:, None]) & (start[:, None] + window_s <= intervals[:, 1])
        rates[~inside.any(axis=1), unit] = np.nan
    return rates


def _open(path: Path) -> _Session:
    try:
        import pynwb
    except ImportError:
        raise NeuroGymError(f'{path}: expected pynwb to read it, found none: pip install "neurogym-v[nwb]"') from None
    if not path.is_file():
        raise NeuroGymError(f"{path}: expected an .nwb file, found nothing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on how the file could have been written better
            with pynwb.NWBHDF5IO(str(path), "r") as io:
                return _take(path, io.read())
    except NeuroGymError:
        raise
    except Exception as error:  # those of pynwb, hdmf and h5py have no common class
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise NeuroGymError(f"{path}: expected an NWB 2 file, found a damaged or different one ({why})") from None


def _take(path: Path, file: Any) -> _Session:
    units = file.units if file.units is not None and "spike_times" in file.units.colnames and len(file.units) else None
    frames, which, onsets, rates, notes = _presentations(path, file, units)
    if units is not None:
        every = range(len(units))
        observed = [units.get_unit_obs_intervals(at) for at in every] if "obs_intervals" in units.colnames else None
        return _Session(
            frames=frames,
            which=which,
            onsets=onsets,
            spikes=tuple(np.sort(np.asarray(units.get_unit_spike_times(at), dtype=np.float64)) for at in every),
            rates=None,
            observed=None if observed is None else tuple(np.asarray(intervals).reshape(-1, 2) for intervals in observed),
            units=tuple(str(name) for name in units.id[:]),
            notes=notes,
        )
    if rates is None:
        raise NeuroGymError(f"{path}: expected units with spike times, or trials with a column {RATES}, found neither")
    sites = tuple(map(str, range(rates.shape[1])))
    return _Session(frames, which, onsets, spikes=(), rates=rates, observed=None, units=sites, notes=notes)


def _rates(path: Path, trials: Any, kept: NDArray[np.bool_]) -> Array:
    """(presentations, sites) spikes/s that a table of trials tells."""
    try:
        rates = np.asarray(trials[RATES][:], dtype=np.float64)
        if rates.ndim not in (1, 2):
            raise ValueError(f"an array of {rates.ndim} dimensions")
    except (ValueError, TypeError) as error:
        raise NeuroGymError(
            f"{path}: expected numbers, as many for each trial, in the trials' column {RATES}, as there are no units: {error}"
        ) from None
    return (rates[:, None] if rates.ndim == 1 else rates)[kept]


def _presentations(
    path: Path, file: Any, counted: Any
) -> tuple[Frames, NDArray[np.intp], Array, Array | None, tuple[str, ...]]:
    """The images, which of them came on when, rates that are told with them if no units are `counted`, and what was left out:
    by a table of trials, else by an IndexSeries."""
    stimuli = [*file.stimulus_template.values(), *file.stimulus.values()]
    tables = [each for each in (file.trials, *file.intervals.values()) if each is not None]
    for trials in tables:
        column = _column(trials, POSITIONS + NAMES)
        if column is None:
            continue
        frames = _frames(path, _container(path, stimuli))
        onsets = np.asarray(trials[_column(trials, ONSETS)][:], dtype=np.float64)
        kept = _useful(trials) & np.isfinite(onsets)
        values = np.asarray(trials[column][:], dtype=object)[kept]
        lost = f"{(~kept).sum()} of {len(kept)} trials left out: marked as lost, or without an onset."
        which = _which(path, list(values), frames.names, counted=column in POSITIONS)
        rates = _rates(path, trials, kept) if counted is None and RATES in trials.colnames else None
        return frames, which, onsets[kept], rates, () if kept.all() else (lost,)
    series = [each for each in stimuli if each.neurodata_type == "IndexSeries"]
    if len(series) != 1:
        columns = ", ".join(POSITIONS + NAMES)
        raise NeuroGymError(
            f"{path}: expected trials with a column {columns}, or one IndexSeries, found {len(series)} of these"
        )
    shown = series[0]
    images_shown = shown.indexed_images if shown.indexed_images is not None else shown.indexed_timeseries
    frames = _frames(path, images_shown)
    which = _which(path, list(shown.data[:]), frames.names, counted=True)
    clocked = shown.timestamps is None
    onsets = shown.starting_time + np.arange(len(which)) / shown.rate if clocked else np.asarray(shown.timestamps[:])
    return frames, which, onsets.astype(np.float64), None, ()


def _container(path: Path, stimuli: Sequence[Any]) -> Any:
    """The one stimulus that holds images."""
    found = [each for each in stimuli if hasattr(each, "images") or hasattr(each, "external_file")]
    if len(found) != 1:
        what = f"{len(found)}: {', '.join(each.name for each in found)}" if found else "none"
        raise NeuroGymError(f"{path}: expected one Images or ImageSeries among the stimuli, found {what}")
    return found[0]


def _frames(path: Path, container: Any) -> Frames:
    """Where the images of an Images or ImageSeries lie in the file."""
    if hasattr(container, "images"):
        pictures = list(container.images.values())
        if container.order_of_images is not None:
            pictures = list(container.order_of_images.data[:])
        else:  # HDF5 keeps names, not their order
            pictures = [pictures[at] for at in images.ordered([picture.name for picture in pictures])]
        if not pictures or not all(hasattr(picture, "data") for picture in pictures):
            raise NeuroGymError(f"{path}: expected images in {container.name}, found {'links' if pictures else 'none'}")
        return Frames(path, tuple(each.name for each in pictures), tuple((each.data.name, None) for each in pictures))
    if container.external_file is not None or len(container.data.shape) < 3:
        raise NeuroGymError(f"{path}: expected images in {container.name}, found none: they lie in other files")
    each = range(len(container.data))
    return Frames(path, tuple(f"frame {at}" for at in each), tuple((container.data.name, at) for at in each))


def _column(trials: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in trials.colnames), None)


def _useful(trials: Any) -> NDArray[np.bool_]:
    """(trials,) False where a column marks the trial as lost."""
    useful = np.ones(len(trials), dtype=np.bool_)
    for name, lost in LOST.items():
        if name in trials.colnames:
            useful &= np.asarray(trials[name][:]).astype(np.bool_) != lost
    return useful


def _which(path: Path, values: Sequence[Any], names: tuple[str, ...], *, counted: bool) -> NDArray[np.intp]:
    """(presentations,) positions of images, given as such or by their names or the numbers in them."""
    numeric = all(isinstance(value, int | float | np.number) for value in values)
    if counted or (numeric and any(images.number(name) is None for name in names)):
        positions = np.asarray(values, dtype=np.float64)
        wrong = ~((positions >= 0) & (positions < len(names)) & (positions == np.rint(positions)))
        if wrong.any():
            found = f"{positions[wrong][0]:g}"
            raise NeuroGymError(f"{path}: expected presentations of the images 0 to {len(names) - 1}, found {found}")
        return positions.astype(np.intp)
    labels = [value.decode() if isinstance(value, bytes) else getattr(value, "name", value) for value in values]
    return table.match(path, [f"{label:.15g}" if numeric else str(label) for label in labels], names)


def _picture(data: Any) -> Image.Image:
    """An RGB picture of (h, w), (h, w, 3) or (h, w, 4) numbers: 8 or 16 bits, or fractions of one."""
    array = np.asarray(data)
    if array.dtype == np.uint16:
        array = array / 257
    elif array.dtype.kind in "fb" and array.size and array.max() <= 1:
        array = array * 255.0
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"an array of {' x '.join(map(str, array.shape))}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 255):
        raise ValueError(f"numbers from {array.min():g} to {array.max():g}, not 0 to 255")
    return images.rgb(Image.fromarray(np.rint(array).astype(np.uint8)))
